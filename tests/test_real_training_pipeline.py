"""From pilots to the planned run at toy size, its schedules, tables and measurements."""

from __future__ import annotations

import csv
import json
import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.real_training.text import standard_library
from benchmarks.real_training.transformer import Shape, initialise, loss, matrix_count
from optsched import InvalidProblem, OptschedError
from optsched.logs.read import read_runs
from optsched.studies.sweep.run import Progress, Row

pytest.importorskip("optax")

from benchmarks.real_training import __main__ as command
from benchmarks.real_training import recipe as recipe_command
from benchmarks.real_training.carry import optsched
from benchmarks.real_training.measure import (
    Averages,
    curvature_blocks,
    gradient_noise,
    measured_cell,
    sharpness,
)
from benchmarks.real_training.protocol import (
    Protocol,
    best,
    block_shift,
    final_losses,
    make_cell,
    run_stage,
    write_logs,
)
from benchmarks.real_training.recipe import batch_for, least, steps_for, widths_for
from benchmarks.real_training.report import (
    Order,
    Prediction,
    comparison,
    forecast,
    order,
    shown,
    verdict,
)
from benchmarks.real_training.settings import SETTINGS
from benchmarks.real_training.train import Recipe, train

SHAPE = Shape(width=16, layers=1, heads=2, context=16)
TINY = Recipe(shape=SHAPE, batch=4, every=5, blocks=64)
TOY = Protocol(recipe=TINY, short=40, factor=2, warmup=10, seeds=2, finals=(0.0, 0.1))
ARGUMENTS = shlex.split(
    "--workers 1 --short 40 --factor 2 --warmup 10 --seeds 2 --long-seeds 2 --peaks 0.01 0.02 "
    "--finals 0 0.1 --cooldowns 0.4 --every 5 --blocks 64 --final-blocks 128 --batch 4 --width 16 "
    "--layers 1 --heads 2 --context 16 --law fsl-norm fsl"
)


# --- protocol -----------------------------------------------------------------------------------


def test_schedules_have_the_same_warmup_peak_and_horizon() -> None:
    schedules = [*TOY.pilots(0.02).values(), *TOY.shapes(0.02).values(), TOY.linear(40, 0.02)]
    for schedule in schedules:
        eta = schedule.array("eta")
        assert len(eta) == 40
        np.testing.assert_allclose(eta[:10], 0.02 * (np.arange(10) + 0.5) / 10)
        assert eta.max() <= 0.02 * (1 + 1e-12)
        assert eta[10] > 0.95 * 0.02
    step = TOY.pilots(0.02)["step"].array("eta")
    assert np.all(step[10:25] == 0.02)
    np.testing.assert_allclose(step[25:], 0.004)
    assert TOY.cosine(40, 0.02, 0.1).array("eta")[-1] == pytest.approx(0.002, rel=0.05)
    wsd = TOY.wsd(80, 0.02, 0.4).array("eta")
    assert np.all(wsd[10:48] == 0.02)
    assert wsd[48] < 0.02


def test_one_more_pilot_has_a_lower_rate() -> None:
    assert "constant_low" not in TOY.pilots(0.02)
    low = replace(TOY, lower=0.5).pilots(0.02)["constant_low"].array("eta")
    assert len(low) == 40
    assert np.all(low[10:] == 0.01)
    with pytest.raises(InvalidProblem, match="lower: got 1, allowed: a number >= 0 and < 1"):
        Protocol(lower=1)


def test_settings_differ_and_have_a_pilot_with_a_lower_rate() -> None:
    recipes = [setting.recipe for setting in SETTINGS.values()]
    assert len(set(recipes)) == len(recipes) >= 3
    for setting in SETTINGS.values():
        assert setting.lower == 0.5
        assert setting.recipe.final_blocks == 8192
        assert setting.long == 4 * setting.short
    kinds = {(r.optimizer, type(r.shape).__name__) for r in recipes}
    assert kinds == {("adamw", "Shape"), ("sgd", "Network")}


def test_rivals_are_the_best_shapes_of_the_short_horizon() -> None:
    losses = {"cosine_0": [2.0, 2.4], "cosine_0.1": [2.1, 2.1], "constant": [1.0, 1.0]}
    losses |= {"wsd_0.2": [3.0, 3.0], "wsd_0.4": [2.9, 3.0], "wsd_0.7": [3.0, 3.1]}
    rivals = TOY.rivals(losses, 0.02)
    assert list(rivals) == ["linear", "cosine_0.1", "wsd_0.4"]
    assert {s.horizon for s in rivals.values()} == {80}


def test_bad_protocols_are_told() -> None:
    with pytest.raises(InvalidProblem, match="short: got 10, allowed: a whole number >= 20"):
        Protocol(recipe=TINY, short=10)
    with pytest.raises(InvalidProblem, match="multiples of 5 steps"):
        Protocol(recipe=TINY, short=42, warmup=10)
    with pytest.raises(InvalidProblem, match="seeds: got 1"):
        Protocol(seeds=1)


def test_a_stage_that_is_interrupted_goes_on_and_ends_the_same(tmp_path: Path) -> None:
    cells = TOY.cells({"constant": TOY.constant(40, 0.02), "linear": TOY.linear(40, 0.02)})

    def stop(now: Progress) -> None:
        if now.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path / "a", cells, TINY, 1, stop)
    seen: list[Progress] = []
    rows = run_stage(tmp_path / "a", cells, TINY, 1, seen.append)
    assert (seen[0].resumed, len(seen)) == (3, 2)
    whole = run_stage(tmp_path / "b", cells, TINY, 1)
    assert rows == whole
    names = [(row.cell["name"], row.cell["seed"]) for row in rows]
    assert names == [("constant", 0), ("linear", 0), ("constant", 1), ("linear", 1)]
    losses = final_losses(rows)
    assert losses["linear"] == [row.result["loss"][-1] for row in rows[1::2]]

    paths = write_logs(tmp_path / "logs", rows, 10)
    runs = read_runs(paths, warmup=10)
    for run, row in zip(runs, rows, strict=True):
        assert run.name == f"{row.cell['name']}_seed{row.cell['seed']}"
        assert run.steps.tolist() == [10, 15, 20, 25, 30, 35, 40]
        assert run.loss.tolist() == row.result["loss"][1:]
        true = np.interp(np.arange(40), row.cell["steps"], row.cell["eta"])
        found = run.schedule(np.arange(40))
        np.testing.assert_allclose(found[10:], true[10:], atol=0.0004)  # the last end
        np.testing.assert_allclose(found[:10], true[:10], atol=0.0015)  # half a step early


def test_final_losses_are_those_of_the_final_blocks_where_there_are_some() -> None:
    rows = (
        Row({"name": "a", "seed": 0}, "done", {"loss": [3.0, 2.0], "final": 2.5}, "", 1.0),
        Row({"name": "b", "seed": 0}, "done", {"loss": [3.0, 2.0], "final": 2.1}, "", 1.0),
        Row({"name": "c", "seed": 0}, "failed", {}, "loss not finite", 1.0),
    )
    assert final_losses(rows) == {"a": [2.5], "b": [2.1], "c": [math.inf]}
    assert block_shift(rows) == pytest.approx(0.3)
    assert block_shift(rows[2:]) == 0.0
    plain = Row({"name": "a", "seed": 0}, "done", {"loss": [3.0, 2.0]}, "", 1.0)
    assert block_shift((plain,)) == 0.0


def test_a_run_that_diverged_loses() -> None:
    good = Row({"name": "a", "seed": 0}, "done", {"loss": [3.0, 2.0]}, "", 1.0)
    bad = Row({"name": "b", "seed": 0}, "failed", {}, "loss not finite", 1.0)
    losses = final_losses((good, bad))
    assert losses == {"a": [2.0], "b": [math.inf]}
    assert best(losses) == "a"
    assert least("x", losses)[0] == "a"
    with pytest.raises(OptschedError, match="x: every run diverged"):
        least("x", {"b": [math.inf]})


# --- tables -------------------------------------------------------------------------------------


def test_differences_are_paired() -> None:
    losses = {"linear": [2.1, 2.5, 2.9], "plan": [2.0, 2.4, 2.8]}
    told = {"linear": Prediction(2.45, 2.4, 2.6), "plan": Prediction(2.35, 2.3, 2.36)}
    first, second = comparison(losses, told)
    assert (first["schedule"], second["schedule"]) == ("plan", "linear")
    assert second["difference"] == pytest.approx(0.1)
    assert second["difference_stderr"] < 1e-9
    assert second["predicted_difference"] == pytest.approx(0.1)
    assert second["stderr"] == pytest.approx(0.4 / math.sqrt(3))
    assert second["inside"]
    assert not first["inside"]
    assert shown(first)["measured above plan"] == ""


def test_a_forecast_is_the_gain_over_the_best_rival_and_its_bound() -> None:
    told = {
        "plan": Prediction(2.0, 1.9, 2.1, 0.0),
        "linear": Prediction(2.03, 1.9, 2.1, 0.009),
        "cosine_0": Prediction(2.01, 1.9, 2.1, 0.004),
    }
    said = forecast(told, 1.998)
    assert (said.rival, said.error) == ("cosine_0", 0.004)
    assert said.gain == pytest.approx(0.01)
    assert said.most == pytest.approx(0.012)
    assert str(said).startswith("10.0 +- 4.0 to gain over cosine_0, at most 12.0 by any schedule")
    flat = forecast({**told, "cosine_0": Prediction(2.003, 1.9, 2.1, 0.004)}, math.nan)
    assert str(flat) == "flat: 3.0 +- 4.0 to gain over cosine_0"
    moved = Prediction(2.0, 1.9, 2.1, 0.1).shifted(-0.5)
    assert (moved.loss, moved.low, moved.high, moved.error) == pytest.approx((1.5, 1.4, 1.6, 0.1))


def test_order_counts_pairs_and_those_that_are_apart() -> None:
    losses = {"plan": [1.0, 1.1, 1.2], "linear": [1.01, 1.13, 1.22], "wsd": [1.1, 1.0, 1.22]}
    told = {n: Prediction(v, 0, 9) for n, v in {"plan": 1, "linear": 2, "wsd": 0.5}.items()}
    # wsd ended between the two in the mean, but its differences are noise.
    assert order(losses, told) == Order(right=2, pairs=3, right_apart=1, apart=1)
    close = {"plan": [1.0, 1.0, 1.0], "linear": [1.0, 1.01, 1.02]}  # 1.7 standard errors
    assert order(close, told) == Order(right=1, pairs=1, right_apart=0, apart=0)
    turned = {**told, "plan": Prediction(3, 0, 9)}
    assert order(losses, turned) == Order(right=1, pairs=3, right_apart=0, apart=1)


def test_the_verdict_is_against_the_rival_that_ended_lowest() -> None:
    rival, gap, error = verdict({"plan": [1.0, 1.1], "b": [1.2, 1.2], "a": [0.9, 1.06]})
    assert rival == "a"
    assert gap == pytest.approx(0.07)
    assert error == pytest.approx(0.03)


# --- measurements -------------------------------------------------------------------------------


def test_noise_scale_is_that_of_gradients_block_by_block() -> None:
    """Against the trace and square of one large set of gradients."""
    parameters = initialise(jax.random.key(0), SHAPE)
    found = gradient_noise(parameters, TINY)
    assert found.resolved
    text = standard_library().train
    starts = np.random.default_rng(99).integers(0, len(text) - 17, 2000)
    blocks = text[starts[:, None] + np.arange(17)]

    @jax.jit
    def gradients(parameters, blocks):
        one = jax.vmap(jax.grad(lambda p, b: loss(p, b[None], SHAPE)), in_axes=(None, 0))
        return one(parameters, blocks)

    rows = np.hstack(
        [np.asarray(g).reshape(2000, -1) for g in jax.tree.leaves(gradients(parameters, blocks))]
    ).astype(np.float64)
    trace = rows.var(axis=0, ddof=1).sum()
    square = (rows.mean(axis=0) ** 2).sum() - trace / 2000
    assert abs(found.trace - trace) < 4 * found.trace_stderr + 0.02 * trace
    assert abs(found.gradient_square - square) < 4 * found.gradient_square_stderr


def test_sharpness_is_what_power_iteration_finds() -> None:
    kept: dict[int, Any] = {}

    def visit(step: int, parameters: Any, state: Any) -> None:
        kept[step] = jax.tree.map(np.array, (parameters, state))

    train(np.full(10, 5e-3), 0, TINY, visit)
    assert sorted(kept) == [0, 5, 10]
    parameters, state = kept[10]
    found = sharpness(parameters, state, TINY)
    assert found.error < 0.05 * found.value
    (adam,) = (part for part in state if hasattr(part, "nu"))
    scale = jax.tree.map(lambda v: jnp.sqrt(v / (1.0 - 0.95**10)) + 1e-8, adam.nu)
    blocks = curvature_blocks(TINY)

    @jax.jit
    def iterate(vector: Any) -> Any:
        """One step of P^-1 H, shifted so that negative eigenvalues do not win."""
        slope = jax.grad(lambda p: loss(p, blocks, SHAPE))
        turned = jax.jvp(slope, (parameters,), (vector,))[1]
        moved = jax.tree.map(lambda h, s, v: h / s + found.value * v, turned, scale, vector)
        size = jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(moved)))
        return jax.tree.map(lambda x: x / size, moved), size

    vector = jax.tree.map(jnp.ones_like, parameters)
    size = 0.0
    for _ in range(150):
        vector, size = iterate(vector)
    assert float(size) - found.value == pytest.approx(found.value, rel=0.05)


def test_averages_are_the_recursion_with_every_step_held() -> None:
    averages = Averages([20.0, 50.0])
    for step, value in ((0, 1.0), (5, 2.0), (10, -1.0)):
        averages(step, {"w": np.full(2, value)}, None)
    for window, weights in zip((20.0, 50.0), averages.weights, strict=True):
        decay, expected = 1.0 - 1.0 / window, 1.0
        for step in range(1, 11):
            expected = decay * expected + (1.0 - decay) * (2.0 if step <= 5 else -1.0)
        np.testing.assert_allclose(weights["w"], expected, rtol=1e-12)


def test_a_measured_run_is_the_run_with_its_averages() -> None:
    cell = {**make_cell("linear", TOY.linear(40, 0.02), 0), "windows": [1.0, 15.0]}
    found = measured_cell(cell, TINY.settings())
    log, _ = train(TOY.linear(40, 0.02).array("eta"), 0, TINY)
    assert found["loss"] == log["loss"]
    # A window of one step is no average; one of 15 lags behind.
    assert found["averaged"][0] == pytest.approx(log["loss"][-1], rel=1e-6)
    assert found["averaged"][1] > log["loss"][-1]


def test_rules_of_the_recipe() -> None:
    assert [batch_for(noise) for noise in (0.5, 3.0, 31.9, 32.0, 1e6)] == [1, 2, 16, 32, 64]
    with pytest.raises(InvalidProblem, match="noise_scale"):
        batch_for(math.nan)
    assert widths_for(32, 16.0) == 64  # parameters, with the square of the width, by 4
    assert widths_for(32, 1.0) == 32
    assert matrix_count(SHAPE) == 12 * 16 * 16 + 128 * 16
    steps = steps_for(1e9, TINY)
    assert steps % 5 == 0
    assert steps * 6 * matrix_count(SHAPE) * 4 * 16 == pytest.approx(1e9, rel=0.01)


# --- the whole -----------------------------------------------------------------------------------


def test_errors_of_a_command_are_passed_on(tmp_path: Path) -> None:
    with pytest.raises(OptschedError, match=r"optsched verify: .*none\.npz"):
        optsched("verify", tmp_path / "none.npz", "--a", 2, "--b", 2)


def test_the_whole_goes_on_after_a_break_and_writes_in_its_folder_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    out = tmp_path / "out"
    arguments = ["--output", str(out), *ARGUMENTS]

    def broken(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(command, "plan_schedule", broken)
        assert command.main(arguments) == 130
    done = {path: path.stat().st_mtime_ns for path in out.rglob("cells/*.json")}
    assert len(done) == 2 + 2 * 6  # peaks; pilots and shapes, with one cosine in common
    assert command.main(arguments) == 0
    text = capsys.readouterr().out
    assert "80 steps, 2 seeds, law fsl-norm" in text
    assert text.index("before the long runs, law fsl-norm: ") < text.index("80 steps, 2 seeds")
    assert [text.count(f"| {law} | ") for law in ("fsl-norm", "fsl")] == [1, 1]
    assert text.count(" of 6 |") == 2
    assert {path: path.stat().st_mtime_ns for path in done} == done
    with (out / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[0]["schedule"] == "plan"
    assert len(rows) == 4
    for row in rows:
        values = [float(row["seed_0"]), float(row["seed_1"])]
        assert float(row["loss"]) == pytest.approx(np.mean(values))
        assert float(row["low"]) <= float(row["predicted"]) <= float(row["high"])
    assert (out / "results.png").read_bytes()[:4] == b"\x89PNG"
    wanted = (out / "results.csv").read_bytes()
    assert command.main(arguments) == 0  # nothing left to train
    assert (out / "results.csv").read_bytes() == wanted
    assert not list((tmp_path / "here").iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"here", "out"}
    # One more seed adds four runs and leaves the others alone.
    done = {path: path.stat().st_mtime_ns for path in out.rglob("cells/*.json")}
    assert command.main([*arguments, "--long-seeds", "3"]) == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done
    assert len(list(out.rglob("cells/*.json"))) == len(done) + 4


def test_a_folder_of_other_sizes_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_stage(tmp_path / "peaks", TOY.peak_cells()[:1], TINY, 1)
    assert command.main(["--output", str(tmp_path), *ARGUMENTS]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_an_option_that_the_model_lacks_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--setting", "text", "--channels", "8", "--output", str(tmp_path)]
    assert command.main(arguments) == 2
    assert "channels: got 8, allowed: nothing: the model of text" in capsys.readouterr().err
    assert command.main([*arguments[:2], "--optimizer", "x", *arguments[4:]]) == 2
    assert "optimizer: got 'x', allowed: one of adamw, sgd" in capsys.readouterr().err
    assert command.main([*arguments[:2], "--law", "fls", *arguments[4:]]) == 2
    assert "law: got 'fls', allowed: one of fsl-norm, fsl," in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_recipe_makes_every_choice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--output", str(tmp_path), "--workers", "1", "--compute", "2e9"]
    assert recipe_command.main(arguments) == 0
    first = (tmp_path / "recipe.json").read_text(encoding="utf-8")
    choices = json.loads(first)
    assert choices["width"] % 8 == 0
    assert choices["batch"] <= choices["noise_scale"]
    assert choices["warmup"] >= 25
    assert set(choices["losses"]) == {"plan", "linear", "constant"}
    assert capsys.readouterr().out.count("\n| ") == 10  # eight choices, and the next run
    assert recipe_command.main(arguments) == 0  # the same again, with what is there
    assert (tmp_path / "recipe.json").read_text(encoding="utf-8") == first
