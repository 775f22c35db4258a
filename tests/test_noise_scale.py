"""Noise scale: unbiased estimators, their errors, moving averages, the command."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsched import InvalidProblem
from optsched.cli import main
from optsched.rules.batch.noise_scale import (
    NoiseScale,
    RunningNoiseScale,
    per_example,
    sgd_noise_scale,
    two_batch,
)

REPETITIONS, EXAMPLES, BIG = 200, 6, 24
GRADIENT = np.linspace(0.2, 1.0, 20)
DEVIATION = np.linspace(2.0, 0.5, 20)
SQUARE, TRACE = float(GRADIENT @ GRADIENT), float(DEVIATION @ DEVIATION)
Estimates = list[tuple[float, float]]


def examples(rng: np.random.Generator, count: int) -> np.ndarray:
    """Gradients of examples, skewed: nothing here is normal but the name of the error."""
    noise = rng.exponential(1.0, (count, len(GRADIENT))) - 1.0
    return GRADIENT + DEVIATION * noise


def deviations(found: Estimates) -> np.ndarray:
    """How many standard errors the means over the repetitions are from the truth."""
    values = np.array(found)
    error = values.std(0, ddof=1) / math.sqrt(len(values))
    return np.abs(values.mean(0) - [TRACE, SQUARE]) / error


def pairs(rng: np.random.Generator, parts: bool = False) -> tuple[float, float]:
    """Squared norms at two batch sizes; the small batches are parts of the big one, or new."""
    rows = examples(rng, BIG)
    if parts:
        means = rows.reshape(-1, EXAMPLES, len(GRADIENT)).mean(1)
        return float((means**2).sum(1).mean()), float((rows.mean(0) ** 2).sum())
    small = examples(rng, EXAMPLES).mean(0)
    return float((small**2).sum()), float((rows.mean(0) ** 2).sum())


def micro_batches(rng: np.random.Generator) -> NoiseScale:
    return per_example(examples(rng, BIG).reshape(EXAMPLES, -1, len(GRADIENT)).mean(1), size=4)


RIGHT: dict[str, Callable[[np.random.Generator], NoiseScale]] = {
    "two batches": lambda rng: two_batch(*pairs(rng), EXAMPLES, BIG),
    "parts of a batch": lambda rng: two_batch(*pairs(rng, parts=True), EXAMPLES, BIG),
    "examples": lambda rng: per_example(examples(rng, EXAMPLES)),
    "micro-batches": micro_batches,
}


def naive(rng: np.random.Generator) -> tuple[float, float]:
    """Empirical mean in place of the gradient, n in place of n - 1."""
    rows = examples(rng, EXAMPLES)
    mean = rows.mean(0)
    return float(((rows - mean) ** 2).sum() / EXAMPLES), float(mean @ mean)


def large_as_exact(rng: np.random.Generator) -> tuple[float, float]:
    """The big batch taken for the gradient itself."""
    small, big = pairs(rng)
    return EXAMPLES * (small - big), big


@pytest.mark.parametrize("name", list(RIGHT))
@pytest.mark.parametrize(("repetitions", "limit"), [(REPETITIONS, 2.0), (4000, 3.0)])
def test_estimators_are_unbiased(name: str, repetitions: int, limit: float) -> None:
    rng = np.random.default_rng(11)
    found = [RIGHT[name](rng) for _ in range(repetitions)]
    assert deviations([(one.trace, one.gradient_square) for one in found]).max() < limit


@pytest.mark.parametrize("wrong", [naive, large_as_exact])
def test_biased_estimators_would_be_found(wrong: Callable[..., tuple[float, float]]) -> None:
    rng = np.random.default_rng(11)
    assert deviations([wrong(rng) for _ in range(REPETITIONS)]).min() > 3.0


def test_errors_of_examples_are_their_spread() -> None:
    """The jackknife against the scatter of 600 repetitions of 40 examples."""
    rng = np.random.default_rng(3)
    found = [per_example(examples(rng, 40)) for _ in range(600)]
    for value, error in (
        ("trace", "trace_stderr"),
        ("gradient_square", "gradient_square_stderr"),
        ("value", "stderr"),
    ):
        spread = np.std([getattr(one, value) for one in found], ddof=1)
        told = math.sqrt(np.mean([getattr(one, error) ** 2 for one in found]))
        assert told == pytest.approx(spread, rel=0.15), value
    both = np.array([(one.trace, one.gradient_square) for one in found])
    told = float(np.mean([one.covariance for one in found]))
    assert told == pytest.approx(np.cov(both.T)[0, 1], rel=0.5)


def test_errors_of_pairs_are_their_spread() -> None:
    rng = np.random.default_rng(4)
    found = []
    for _ in range(400):
        norms = np.array([pairs(rng, parts=True) for _ in range(30)])
        found.append(two_batch(norms[:, 0], norms[:, 1], EXAMPLES, BIG))
    spread = np.std([one.value for one in found], ddof=1)
    told = math.sqrt(np.mean([one.stderr**2 for one in found]))
    assert told == pytest.approx(spread, rel=0.15)
    assert np.mean([one.value for one in found]) == pytest.approx(TRACE / SQUARE, rel=0.03)
    assert all(one.resolved and one.count == 30.0 for one in found)


def test_examples_by_definition() -> None:
    rows = examples(np.random.default_rng(0), 9)
    found = per_example(rows)
    covariance = np.cov(rows.T)
    assert found.trace == pytest.approx(np.trace(covariance), rel=1e-12)
    mean = rows.mean(0)
    assert found.gradient_square == pytest.approx(mean @ mean - np.trace(covariance) / 9, rel=1e-12)
    left = [per_example(np.delete(rows, i, 0)) for i in range(9)]
    table = np.array([(one.trace, one.gradient_square) for one in left])
    jackknife = 8 / 9 * ((table - table.mean(0)) ** 2).sum(0)
    errors = (found.trace_stderr, found.gradient_square_stderr)
    assert errors == pytest.approx(tuple(np.sqrt(jackknife)), rel=1e-9)


def test_two_batches_by_their_expectations() -> None:
    """With |G_B|^2 at its expectation |G|^2 + tr / B the estimates are exact."""
    found = two_batch([SQUARE + TRACE / 4] * 3, [SQUARE + TRACE / 64] * 3, 4, 64)
    assert (found.trace, found.gradient_square) == pytest.approx((TRACE, SQUARE), rel=1e-12)
    assert found.stderr == pytest.approx(0.0, abs=1e-9)
    assert math.isnan(two_batch([2.0], [1.0], 1, 2).stderr)


def test_noise_that_drowns_the_gradient() -> None:
    found = two_batch([4.0, 4.4, 3.9], [0.9, 1.1, 0.95], 1, 4)
    assert not found.resolved
    nothing = two_batch([4.0], [0.9], 1, 4)
    assert nothing.gradient_square < 0.0
    assert math.isnan(nothing.value) and not nothing.resolved


@pytest.mark.parametrize("decay", [0.0, 0.5, 0.9, 0.999])
def test_running_averages_are_weighted_sums(decay: float) -> None:
    rng = np.random.default_rng(5)
    norms = np.array([pairs(rng) for _ in range(50)])
    running = RunningNoiseScale(decay)
    for small, big in norms:
        running = running.updated(small, big, EXAMPLES, BIG)
    each = [two_batch(small, big, EXAMPLES, BIG) for small, big in norms]
    weight = decay ** np.arange(50)[::-1]
    weight /= weight.sum()
    table = np.array([(one.trace, one.gradient_square) for one in each])
    mean = weight @ table
    found = running.estimate
    assert (found.trace, found.gradient_square) == pytest.approx(tuple(mean), rel=1e-9)
    assert found.count == pytest.approx(1.0 / (weight**2).sum(), rel=1e-9)
    if decay == 0.0:
        assert math.isnan(found.stderr)
        return
    left = 1.0 - (weight**2).sum()
    variance = weight @ (table - mean) ** 2 / left * (weight**2).sum()
    errors = (found.trace_stderr, found.gradient_square_stderr)
    assert errors == pytest.approx(tuple(np.sqrt(variance)), rel=1e-8)


def test_a_mean_of_ratios_is_biased_where_a_ratio_of_means_is_not() -> None:
    rng = np.random.default_rng(6)
    running, ratios = RunningNoiseScale(0.999), []
    for _ in range(4000):
        pair = pairs(rng)
        running = running.updated(*pair, small=EXAMPLES, big=BIG)
        ratios.append(two_batch(*pair, EXAMPLES, BIG).value)
    found = running.estimate
    assert abs(found.value - TRACE / SQUARE) < 3.0 * found.stderr
    assert abs(np.nanmean(ratios) - TRACE / SQUARE) > 3.0 * found.stderr


def test_sgd_noise_scale_is_the_variance_of_a_step() -> None:
    """Smith & Le: the covariance of sqrt(eta) times the noise of a step, over that of a gradient.

    Drawn without replacement, a batch has the variance (1/B)(N - B)/(N - 1) of one example.
    """
    rng, n, batch, lr = np.random.default_rng(8), 40, 5, 0.3
    data = rng.normal(size=n)
    means = [rng.permutation(data)[:batch].mean() for _ in range(20_000)]
    expected = lr * np.var(means) / np.var(data) * (n - 1)
    assert sgd_noise_scale(lr, n, batch) == pytest.approx(expected, rel=0.03)
    assert sgd_noise_scale(lr, n, n) == 0.0
    assert sgd_noise_scale(lr, n, batch, 0.9) == pytest.approx(10 * sgd_noise_scale(lr, n, batch))


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: two_batch([1.0], [1.0], 4, 4), "small"),
        (lambda: two_batch([1.0], [1.0], -4, 4), "small"),
        (lambda: two_batch([1.0, 2.0], [1.0], 1, 4), "big_square"),
        (lambda: two_batch([-1.0], [1.0], 1, 4), "small_square"),
        (lambda: two_batch([], [], 1, 4), "small_square"),
        (lambda: two_batch([1.0], [math.inf], 1, 4), "big_square"),
        (lambda: per_example(np.ones((1, 5))), "gradients"),
        (lambda: per_example(np.ones(5)), "gradients"),
        (lambda: per_example([[1.0, 2.0], [math.nan, 1.0]]), "gradients"),
        (lambda: per_example(np.ones((3, 5)) * 1j), "gradients"),
        (lambda: per_example(np.ones((3, 5)), size=0), "size"),
        (lambda: per_example(np.ones((3, 5)), size=1.5), "size"),  # type: ignore[arg-type]
        (lambda: RunningNoiseScale(1.0), "decay"),
        (lambda: RunningNoiseScale(0.9).estimate, "estimate"),
        (lambda: RunningNoiseScale(0.9).added(math.nan, 1.0), "trace"),
        (lambda: sgd_noise_scale(0.1, 10, 20), "batch"),
        (lambda: sgd_noise_scale(0.1, 10, -2), "batch"),
        (lambda: sgd_noise_scale(0.1, 10, 2, 1.0), "momentum"),
    ],
)
def test_bad_input(call: Callable[[], Any], field: str) -> None:
    with pytest.raises(InvalidProblem) as caught:
        call()
    assert caught.value.field == field


def _run(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert main(["rules", "noise-scale", *argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rows = examples(rng, 30)
    np.save(tmp_path / "rows.npy", rows)
    found = per_example(rows)
    numbers = _run(capsys, str(tmp_path / "rows.npy"))
    assert numbers["noise_scale"] == pytest.approx(found.value, rel=1e-12)
    assert numbers["stderr"] == pytest.approx(found.stderr) and numbers["resolved"] is True
    norms = [pairs(rng) for _ in range(20)]
    lines = ["small_square,big_square", *(f"{s!r},{b!r}" for s, b in norms)]
    (tmp_path / "norms.csv").write_text("\n".join(lines))
    csv = [str(tmp_path / "norms.csv"), "--small-batch", str(EXAMPLES), "--big-batch", str(BIG)]
    small, big = np.array(norms).T
    assert _run(capsys, *csv)["trace"] == pytest.approx(
        two_batch(small, big, EXAMPLES, BIG).trace, rel=1e-12
    )
    assert _run(capsys, *csv, "--decay", "0.5")["count"] == pytest.approx(3.0, rel=1e-4)
    sgd = _run(capsys, "--lr", "0.1", "--samples", "50000", "--batch", "500")
    assert sgd == {"sgd_noise_scale": pytest.approx(9.9)}


@pytest.mark.parametrize(
    ("content", "argv", "said"),
    [
        ("", "", "--lr: got nothing"),
        ("", "rows.txt", "FILE: got"),
        ("", "gone.npy", "gone.npy: cannot be read"),
        ("nothing", "rows.npy", "rows.npy: cannot be read"),
        ("nothing", "rows.npy --lr 1", "--lr: got 1.0, allowed: nothing with npy"),
        ("", "--lr 1 --size 2", "--size: got 2.0, allowed: nothing without FILE"),
        ("small_square,big_square\n2,1\n-2,1\n", "n.csv --small-batch 1 --big-batch 2",
         "small_square: got -2.0"),
        ("small_square\n1\n", "n.csv --small-batch 1 --big-batch 2",
         "n.csv: no column big"),
        ("small_square,big_square\n", "n.csv --small-batch 1 --big-batch 2",
         "n.csv: no rows"),
        ("small_square,big_square\n2,x\n", "n.csv --small-batch 1 --big-batch 2",
         "n.csv: line 2, big_square: 'x' is not"),
        ("small_square,big_square\n2,1\n", "n.csv --small-batch 1",
         "--big-batch: got nothing"),
        ("small_square,big_square\n2,1\n", "n.csv --small-batch 2 --big-batch 1",
         "--small-batch: got 2"),
    ],
)  # fmt: skip
def test_bad_commands(
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    content: str,
    argv: str,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if content:
        Path(argv.split()[0]).write_text(content)
    assert main(["rules", "noise-scale", *argv.split()]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"optsched: {said}") and shown.err.count("\n") == 1
