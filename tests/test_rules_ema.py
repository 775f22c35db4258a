"""Moving averages: numbers against their weights, one by one, and the command."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched import InvalidProblem
from optsched.cli import main
from optsched.rules.averaging import MovingAverage

DECAYS = st.floats(0.0, 0.995)


def weights(d: float, count: int = 20_000) -> np.ndarray:
    """Weight of the iterate of k steps ago, by running the average on unit impulses."""
    mean, out = 1.0 - d, np.empty(count)
    for k in range(count):
        out[k] = mean
        mean = d * mean
    return out


@given(DECAYS)
def test_numbers_follow_from_the_weights(d: float) -> None:
    average, w = MovingAverage(d), weights(d, 8000)
    age = np.arange(len(w))
    assert w.sum() == pytest.approx(1.0, abs=1e-12)
    assert average.lag == pytest.approx((w * age).sum(), rel=1e-9, abs=1e-300)
    assert average.samples == pytest.approx(1.0 / (w**2).sum(), rel=1e-9)
    assert average.window == pytest.approx(1.0 / w[0], rel=1e-12)


@given(st.floats(0.01, 1e6))
def test_ways_to_make_one_agree(steps: float) -> None:
    assert MovingAverage.from_half_life(steps).half_life == pytest.approx(steps, rel=1e-8)
    again = MovingAverage.from_time_constant(steps).time_constant
    assert again == pytest.approx(steps, rel=1e-8)
    assert MovingAverage.from_window(1.0 + steps).window == pytest.approx(1.0 + steps, rel=1e-8)


@given(st.floats(0.01, 0.999), st.integers(1, 500))
def test_memory_and_correction_are_those_of_a_run(d: float, steps: int) -> None:
    start, zero = 1.0, 0.0
    for _ in range(steps):
        start, zero = d * start, d * zero + (1.0 - d) * 7.0
    average = MovingAverage(d)
    assert average.memory(steps) == pytest.approx(start, rel=1e-9)
    assert average.correction(steps) * zero == pytest.approx(7.0, rel=1e-9)


@given(st.floats(0.1, 0.9999), st.integers(1, 16))
def test_a_larger_batch_forgets_as_much_a_sample(d: float, ratio: int) -> None:
    """Weight of a sample, summed over the small updates of one large one."""
    large = MovingAverage(d).scaled(32 * ratio, 32)
    small = weights(d, 3 * ratio).reshape(3, ratio).sum(1)
    assert weights(large.decay, 3) == pytest.approx(small, rel=1e-8)


def test_no_average() -> None:
    none = MovingAverage(0.0)
    assert (none.half_life, none.lag, none.window, none.samples) == (0.0, 0.0, 1.0, 1.0)
    assert (none.memory(3), none.correction(3)) == (0.0, 1.0)


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda: MovingAverage(1.0), "decay"),
        (lambda: MovingAverage(-0.1), "decay"),
        (lambda: MovingAverage(math.nan), "decay"),
        (lambda: MovingAverage.from_half_life(0), "half_life"),
        (lambda: MovingAverage.from_half_life(1e17), "half_life"),
        (lambda: MovingAverage.from_window(0.5), "window"),
        (lambda: MovingAverage.from_time_constant(True), "time_constant"),
        (lambda: MovingAverage(0.9).scaled(-1, 2), "batch"),
        (lambda: MovingAverage(0.9).memory(-1), "steps"),
        (lambda: MovingAverage(0.9).correction(0), "steps"),
    ],
)
def test_bad_averages(make, field: str) -> None:
    with pytest.raises(InvalidProblem) as caught:
        make()
    assert caught.value.field == field


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["rules", "ema", "--half-life", "1000", "--from-batch", "256", "--batch", "1024"]
    assert main([*argv, "--at-step", "250", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["half_life"] == pytest.approx(250.0)
    assert numbers["memory"] == pytest.approx(0.5)
    assert numbers["correction"] == pytest.approx(2.0)
    assert main(argv) == 0
    assert "half life" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "field"),
    [
        ([], "options"),
        (["--decay", "0.9", "--window", "3"], "options"),
        (["--decay", "0.9", "--to-batch", "3"], "--to-batch"),
        (["--decay", "x"], "--decay"),
    ],
)
def test_bad_commands(capsys: pytest.CaptureFixture[str], argv: list[str], field: str) -> None:
    assert main(["rules", "ema", *argv]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"optsched: {field}: ") and shown.err.count("\n") == 1
