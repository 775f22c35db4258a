"""The small real model, its data and its runs, at toy size; the real kernel of digits."""

from __future__ import annotations

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.real_training import kernel as kernel_command
from benchmarks.real_training import network
from benchmarks.real_training.common import mean_error, with_error
from benchmarks.real_training.network import Network
from benchmarks.real_training.text import VOCABULARY, standard_library
from benchmarks.real_training.transformer import (
    Shape,
    decayed,
    initialise,
    logits,
    loss,
    parameter_count,
)
from optsched import BadFile, InvalidProblem, replay
from optsched.model.dynamics import SGDDynamics
from optsched.schedules.families import constant, linear

optax = pytest.importorskip("optax")

from benchmarks.real_training.train import (  # noqa: E402
    Recipe,
    evaluate,
    optimiser,
    run_cell,
    sample,
    train,
)

SHAPE = Shape(width=16, layers=2, heads=2, context=16)
TINY = Recipe(shape=SHAPE, batch=4, every=5, blocks=64)
compiled_logits = jax.jit(logits, static_argnums=2)
value_and_slope = jax.jit(jax.value_and_grad(loss), static_argnums=2)
first_parameters = jax.jit(initialise, static_argnums=1)


def characters(count: int, length: int) -> jax.Array:
    return jax.random.randint(jax.random.key(7), (count, length), 0, VOCABULARY)


# --- text ---------------------------------------------------------------------------------------


def test_the_text_is_the_same_every_time_and_split_by_file(tmp_path: Path) -> None:
    for i in range(25):
        (tmp_path / f"m{i:02}.py").write_bytes(bytes([97 + i]) * (5000 + i))
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "no.py").write_bytes(b"\xff" * 9000)
    text = standard_library.__wrapped__(str(tmp_path))
    again = standard_library.__wrapped__(str(tmp_path))
    assert text.digest == again.digest
    assert np.array_equal(text.train, again.train)
    assert text.files == (22, 3)
    assert set(text.validation) == {97, 107, 117}  # every tenth file, and nothing else of it
    assert not set(text.train) & set(text.validation)
    assert len(text.train) + len(text.validation) == sum(5000 + i for i in range(25))


def test_a_python_without_sources_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1\n")
    with pytest.raises(BadFile, match=r"6 characters in 1 \.py files, expected at least 100000"):
        standard_library.__wrapped__(str(tmp_path))


def test_the_standard_library_is_text() -> None:
    text = standard_library()
    assert len(text.train) > 5 * len(text.validation) > 100_000
    assert text.train.max() < VOCABULARY
    blocks = text.validation_blocks(64, 32)
    assert blocks.shape == (64, 33)
    assert np.array_equal(blocks[0], text.validation[:33])
    assert np.array_equal(blocks[-1], text.validation[-33:])


# --- model --------------------------------------------------------------------------------------


def test_a_prediction_sees_no_later_character() -> None:
    parameters = first_parameters(jax.random.key(0), SHAPE)
    one = characters(8, SHAPE.context)
    other = one.at[:, 9:].set((one[:, 9:] + 1) % VOCABULARY)
    first, second = (np.asarray(compiled_logits(parameters, x, SHAPE)) for x in (one, other))
    assert first.shape == (8, SHAPE.context, VOCABULARY)
    assert np.array_equal(first[:, :9], second[:, :9])
    assert np.all(np.abs(first[:, 9] - second[:, 9]).max(axis=-1) > 1e-3)


def test_loss_is_the_mean_cross_entropy() -> None:
    parameters = first_parameters(jax.random.key(0), SHAPE)
    blocks = characters(8, SHAPE.context + 1)
    scores = np.asarray(compiled_logits(parameters, blocks[:, :-1], SHAPE), dtype=np.float64)
    total = 0.0
    for scored, wanted in zip(scores.reshape(-1, VOCABULARY), np.ravel(blocks[:, 1:]), strict=True):
        total -= scored[wanted] - math.log(np.exp(scored).sum())
    value, _ = value_and_slope(parameters, blocks, SHAPE)
    assert float(value) == pytest.approx(total / 128, rel=1e-5)


def test_a_small_step_down_the_gradient_gains_what_its_length_says() -> None:
    parameters = first_parameters(jax.random.key(1), SHAPE)
    blocks = characters(8, SHAPE.context + 1)
    value, slope = value_and_slope(parameters, blocks, SHAPE)
    square = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(slope))
    step = 0.02 / square
    moved = jax.tree.map(lambda p, g: p - step * g, parameters, slope)
    gained = float(value) - float(value_and_slope(moved, blocks, SHAPE)[0])
    assert gained == pytest.approx(0.02, rel=0.1)


def test_weight_decay_is_on_matrices_alone() -> None:
    parameters = first_parameters(jax.random.key(0), SHAPE)
    state = optimiser(TINY, 0.5).init(parameters)
    still = jax.tree.map(jnp.zeros_like, parameters)
    change, _ = optimiser(TINY, 0.5).update(still, state, parameters)
    ratios = jax.tree.map(lambda c, p: float(jnp.abs(c + 0.5 * 0.1 * p).max()), change, parameters)
    for name, acts in decayed(parameters)["blocks"].items():
        assert acts != name.endswith("norm")
        assert (ratios["blocks"][name] < 1e-7) == acts
    assert not change["embedding"].any()
    assert not change["position"].any()
    assert not change["norm"].any()


def test_sizes_of_the_model() -> None:
    d = 16
    expected = VOCABULARY * d + 16 * d + 2 * (12 * d * d + 2 * d) + d
    assert parameter_count(first_parameters(jax.random.key(0), SHAPE)) == expected
    with pytest.raises(InvalidProblem, match="width: got 15, allowed: a multiple of the 2 heads"):
        Shape(width=15, heads=2)
    with pytest.raises(InvalidProblem, match="layers: got 0"):
        Shape(layers=0)


# --- runs ---------------------------------------------------------------------------------------


def test_runs_repeat_and_do_not_depend_on_the_evaluations() -> None:
    rates = np.full(20, 5e-3)
    log, parameters = train(rates, 3, TINY)
    again, _ = train(rates, 3, TINY)
    assert log == again
    assert log["step"] == [5, 10, 15, 20]
    rare, others = train(rates, 3, Recipe(shape=SHAPE, batch=4, every=10, blocks=64))
    assert rare["loss"][-1] == pytest.approx(log["loss"][-1], rel=1e-5)
    for leaf, other in zip(jax.tree.leaves(parameters), jax.tree.leaves(others), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=2e-4, atol=2e-5)
    assert log["loss"][-1] < log["loss"][0]
    assert train(rates, 4, TINY)[0]["loss"] != log["loss"]


def test_a_run_is_optax_adamw_step_by_step() -> None:
    rates = np.linspace(8e-3, 1e-3, 5)
    _, parameters = train(rates, 2, TINY)
    key, data_key = jax.random.split(jax.random.key(2))
    mine = first_parameters(key, SHAPE)
    adamw = optax.adamw(
        lambda count: jnp.asarray(rates, jnp.float32)[count],
        b1=0.9,
        b2=0.95,
        weight_decay=0.1,
        mask=decayed(mine),
    )
    state, text = adamw.init(mine), jnp.asarray(standard_library().train)
    for step in range(5):
        _, slope = value_and_slope(mine, sample(data_key, step, text, TINY), SHAPE)
        change, state = jax.jit(adamw.update)(slope, state, mine)
        mine = optax.apply_updates(mine, change)
    for leaf, other in zip(jax.tree.leaves(parameters), jax.tree.leaves(mine), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-4)


def test_schedules_of_one_seed_see_the_same_data() -> None:
    high, low = (train(rate * np.linspace(1.0, 0.9, 5), 0, TINY)[0] for rate in (1e-9, 2e-9))
    assert high["train"] == pytest.approx(low["train"], rel=1e-5)
    other = train(np.full(5, 1e-9), 1, TINY)[0]
    assert abs(other["train"][0] - low["train"][0]) > 1e-3


def test_bad_runs_are_told() -> None:
    with pytest.raises(InvalidProblem, match="horizon: got 7, allowed: a multiple of 5 steps"):
        train(np.full(7, 1e-3), 0, TINY)
    with pytest.raises(InvalidProblem, match="blocks: got 65, allowed: a multiple of 64"):
        Recipe(blocks=65)
    with pytest.raises(InvalidProblem, match="batch: got 0"):
        Recipe(batch=0)
    with pytest.raises(FloatingPointError, match="loss not finite at step"):
        train(np.full(40, 1e30), 0, TINY)


def test_final_weights_are_evaluated_on_more_blocks() -> None:
    recipe = Recipe(shape=SHAPE, batch=4, every=5, blocks=64, final_blocks=192)
    cell = {"seed": 1, "horizon": 10, "steps": [0, 9], "eta": [8e-3, 2e-3]}
    found = run_cell(cell, recipe.settings())
    log, parameters = train(np.linspace(8e-3, 2e-3, 10), 1, recipe)
    assert found["loss"] == log["loss"]
    blocks = jnp.asarray(standard_library().validation_blocks(192, SHAPE.context))
    assert found["final"] == pytest.approx(float(loss(parameters, blocks, SHAPE)), rel=1e-5)
    assert found["final"] != found["loss"][-1]
    assert evaluate(parameters, recipe) == pytest.approx(log["loss"][-1], rel=1e-6)
    with pytest.raises(InvalidProblem, match="final_blocks: got 65, allowed: a multiple of 64"):
        Recipe(final_blocks=65)
    with pytest.raises(InvalidProblem, match="optimizer: got 'lion', allowed: one of adamw, sgd"):
        Recipe(optimizer="lion")


@pytest.mark.parametrize("shape", [SHAPE, Network(channels=4)])
def test_settings_of_a_sweep_give_the_recipe_back(shape: Shape | Network) -> None:
    if isinstance(shape, Network):
        pytest.importorskip("sklearn")
    recipe = Recipe(shape=shape, optimizer="sgd", momentum=0.8)
    assert Recipe.from_settings(recipe.settings()) == recipe


# --- images -------------------------------------------------------------------------------------

IMAGES = Recipe(
    shape=Network(channels=4), batch=8, optimizer="sgd", weight_decay=0.01, every=3, blocks=64
)


def test_images_are_the_same_every_time_and_moved_as_they_should() -> None:
    pytest.importorskip("sklearn")
    from benchmarks.real_training import images

    few = images.drawn_digits(100, 100)
    again = images.drawn_digits.__wrapped__(100, 100)
    assert few.digest == again.digest
    assert few.train.shape == (100, 65)
    assert set(few.train[:, -1]) == set(range(10))
    assert not {row.tobytes() for row in few.train} & {row.tobytes() for row in few.validation}
    assert np.array_equal(few.held_out(7), few.validation[:7])
    with pytest.raises(InvalidProblem, match="blocks: got 101, allowed: at most 100 images"):
        few.held_out(101)

    class Still:
        """A generator whose normals are all the same."""

        def __init__(self, value: float) -> None:
            self.value = value

        def standard_normal(self, size: int | tuple[int, ...]) -> np.ndarray:
            return np.full(size, self.value if isinstance(size, tuple) else 0.0)

    digit = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    still = images._moved(digit, Still(0.0))  # pyright: ignore[reportArgumentType]
    assert np.array_equal(still, digit.reshape(1, 64))
    pixel = images._moved(digit, Still(1.0 / images.SHIFT))  # pyright: ignore[reportArgumentType]
    wanted = np.pad(digit, ((0, 0), (0, 1), (0, 1)))[:, 1:, 1:]
    np.testing.assert_allclose(pixel.reshape(1, 8, 8), wanted, atol=1e-4)
    # Half a pixel both ways: means of four.
    half = images._moved(digit, Still(0.5 / images.SHIFT))  # pyright: ignore[reportArgumentType]
    four = (digit + np.roll(digit, -1, 1) + np.roll(digit, -1, 2) + np.roll(digit, -1, (1, 2))) / 4
    np.testing.assert_allclose(half.reshape(8, 8)[:7, :7], four[0, :7, :7], rtol=1e-5)


def test_filters_are_those_of_a_plain_loop() -> None:
    draw = np.random.default_rng(0)
    image, weights = draw.standard_normal((2, 4, 4, 3)), draw.standard_normal((27, 5))
    found = network._filtered(jnp.asarray(image), jnp.asarray(weights))
    kernel = weights.reshape(3, 3, 3, 5)
    for y in range(4):
        for x in range(4):
            total = np.zeros((2, 5))
            for i in range(3):
                for j in range(3):
                    if 0 <= y + i - 1 < 4 and 0 <= x + j - 1 < 4:
                        total += image[:, y + i - 1, x + j - 1] @ kernel[i, j]
            np.testing.assert_allclose(found[:, y, x], total, rtol=1e-4, atol=1e-5)


def test_the_network_starts_at_chance_and_learns() -> None:
    pytest.importorskip("sklearn")
    log, parameters = train(np.full(60, 0.02), 0, IMAGES)
    assert log["loss"][0] == pytest.approx(math.log(10), abs=0.5)
    assert log["loss"][-1] < log["loss"][0] - 0.1
    acts = network.decayed(parameters)
    assert not acts["norm"]
    assert not acts["fine"]["norm"]
    assert acts["fine"]["first"]
    assert acts["classes"]
    with pytest.raises(InvalidProblem, match="depth: got 0, allowed: a whole number >= 1"):
        Network(depth=0)


def test_sgd_with_momentum_is_that_of_a_plain_loop() -> None:
    pytest.importorskip("sklearn")
    from benchmarks.real_training.images import drawn_digits

    rates = np.linspace(0.05, 0.02, 6)
    _, parameters = train(rates, 2, IMAGES)
    key, data_key = jax.random.split(jax.random.key(2))
    mine = jax.jit(network.initialise, static_argnums=1)(key, IMAGES.shape)
    velocity = jax.tree.map(jnp.zeros_like, mine)
    data = jnp.asarray(drawn_digits().train)
    slope = jax.jit(jax.grad(network.loss), static_argnums=2)
    for step, rate in enumerate(rates):
        gradient = slope(mine, sample(data_key, step, data, IMAGES), IMAGES.shape)
        pull = jax.tree.map(
            lambda g, p, acts: g + 0.01 * p if acts else g, gradient, mine, network.decayed(mine)
        )
        velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, pull)
        mine = jax.tree.map(lambda p, v, r=rate: p - r * v, mine, velocity)
    for leaf, other in zip(jax.tree.leaves(parameters), jax.tree.leaves(mine), strict=True):
        np.testing.assert_allclose(leaf, other, rtol=1e-3, atol=1e-5)


# --- numbers ------------------------------------------------------------------------------------


def test_means_and_their_errors() -> None:
    mean, error = mean_error([1.0, 2.0, 4.0])
    assert mean == pytest.approx(7 / 3)
    assert error == pytest.approx(math.sqrt((16 / 9 + 1 / 9 + 25 / 9) / 2 / 3))
    assert math.isnan(mean_error([1.0])[1])
    assert with_error(1.23456, 0.0123) == "1.235 +- 0.012"
    assert with_error(2.0, math.nan) == "2"
    assert with_error(math.inf, math.nan) == "diverged"


# --- digits -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("sklearn")
    from benchmarks.real_training.digits import digits_kernel

    return digits_kernel(24)


def test_the_kernel_is_diagonal_and_its_target_the_best_prediction(digits) -> None:
    count = len(digits.labels)
    assert count == 1797
    second = digits.features.T @ digits.features / count
    np.testing.assert_allclose(second, np.diag(digits.eigenvalues), atol=1e-12)
    assert digits.eigenvalues[0] == pytest.approx(1.0)
    best, *_ = np.linalg.lstsq(digits.features, digits.labels)
    np.testing.assert_allclose(digits.target, best, rtol=1e-8, atol=1e-9)
    # The loss of any weights is that of the best ones and the excess.
    weights = np.random.default_rng(0).standard_normal(24)
    total = np.mean((digits.labels - digits.features @ weights) ** 2)
    excess = digits.eigenvalues @ (weights - digits.target) ** 2
    assert total == pytest.approx(digits.noise**2 + excess, rel=1e-10)
    assert digits.start == pytest.approx(np.var(digits.labels) - digits.noise**2)


def test_sgd_is_that_of_a_plain_loop(digits) -> None:
    from benchmarks.real_training.digits import sgd

    eta = np.stack([np.linspace(0.3, 0.0, 7), np.full(7, 0.1)])
    found = sgd(digits, eta, batch=3, runs=2, seed=5)
    key = jax.random.split(jax.random.key(5), 1)[0]
    for s, rates in enumerate(eta):
        for run in range(2):
            weights = np.zeros(24)
            for step, rate in enumerate(rates):
                draw = jax.random.fold_in(key, step)
                with jax.enable_x64(True):
                    index = np.asarray(jax.random.randint(draw, (2, 3), 0, 1797))[run]
                x, y = digits.features[index], digits.labels[index]
                weights = weights - rate * x.T @ (x @ weights - y) / 3
            excess = digits.eigenvalues @ (weights - digits.target) ** 2
            assert found[s, run] == pytest.approx(excess, rel=1e-9)


def test_gaussian_theory_predicts_sgd_on_the_digits(digits) -> None:
    """Within four standard errors and 5 %: digits are not Gaussian, but close to it."""
    from benchmarks.real_training.digits import sgd

    schedules = [constant(400, 0.2), constant(400, 0.05), linear(400, 0.5)]
    losses = sgd(digits, np.stack([s.array("eta") for s in schedules]), 8, 64)
    for schedule, values in zip(schedules, losses, strict=True):
        predicted = replay(digits.spectrum, SGDDynamics(8.0, digits.noise**2), schedule).excess_loss
        mean, error = mean_error(values)
        assert abs(mean - predicted) < 4.0 * error + 0.05 * predicted


def test_bad_kernels_are_told(digits) -> None:
    from benchmarks.real_training.digits import digits_kernel, sgd

    with pytest.raises(InvalidProblem, match="width: got 1, allowed: a whole number, 2 to 1000"):
        digits_kernel(1)
    with pytest.raises(InvalidProblem, match="runs: got 33"):
        sgd(digits, np.full(3, 0.1), 2, 33)
    assert np.isinf(sgd(digits, np.full(2000, 9.0), 2, 2)).all()


def test_the_command_of_the_kernel_resumes_and_writes_in_its_folder_alone(
    digits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    args = ["--output", str(tmp_path / "out"), "--width", "24", "--runs", "4", "--workers", "1"]
    assert kernel_command.main([*args, "--horizons", "20"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("\n| 20 | ") == 8
    wanted = (tmp_path / "out" / "kernel.csv").read_bytes()
    (cell,) = (tmp_path / "out" / "kernel" / "cells").iterdir()
    stamp = cell.stat().st_mtime_ns
    assert kernel_command.main([*args, "--horizons", "20"]) == 0
    assert cell.stat().st_mtime_ns == stamp
    assert (tmp_path / "out" / "kernel.csv").read_bytes() == wanted
    assert not list((tmp_path / "here").iterdir())
    capsys.readouterr()
    assert kernel_command.main([*args, "--horizons", "30"]) == 2  # the folder is of another sweep
    assert "real_training: " in capsys.readouterr().err
