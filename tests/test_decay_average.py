"""Averages for decays: exact where gradients are fixed, and measured on the model."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optsched import InvalidProblem, PowerLawSpectrum, Problem, Schedule
from optsched.cli import main
from optsched.rules.averaging import MovingAverage, average_for, decay_for
from optsched.schedules.families import FAMILIES
from optsched.studies.averaging.against_decay import growing_window
from optsched.studies.averaging.decay_average import DecayAverage, compare_decay
from tests.test_averaging import _direct


def run(eta: np.ndarray, ema: np.ndarray | None = None, start: float = 3.0) -> float:
    """Last iterate, or average, of a run along gradients that are the same whatever happens."""
    gradients = np.random.default_rng(0).normal(size=len(eta))
    w = mean = start
    for t, rate in enumerate(eta):
        w -= rate * gradients[t]
        if ema is not None:
            mean = ema[t] * mean + (1.0 - ema[t]) * w
    return w if ema is None else mean


DECAYS = {
    "linear": FAMILIES["linear"](40, 1.0),
    "cosine": FAMILIES["cosine"](40, 0.3),
    "wsd": Schedule(40, [0, 30, 39], {"eta": [2.0, 2.0, 0.2]}),
    "constant": Schedule.from_array(np.full(7, 0.5)),
    "steps": Schedule.from_array([1.0] * 5 + [0.5] * 5 + [0.1] * 5),
    "to zero early": Schedule.from_array([1.0, 0.5, 0.2, 0.0, 0.0, 0.0]),
    "warm-up": Schedule.from_array([0.1, 0.5, 1.0, 1.0, 0.4, 0.2]),
    "one step": Schedule.from_array([0.7]),
}


@pytest.mark.parametrize("name", list(DECAYS))
def test_average_is_the_decay_for_fixed_gradients(name: str) -> None:
    decay = DECAYS[name]
    averaged = average_for(decay)
    assert averaged.ema is not None
    assert run(averaged.eta, averaged.ema) == pytest.approx(run(decay.eta), rel=1e-10)
    top = int(np.flatnonzero(decay.eta == decay.peak)[-1])
    assert np.all(averaged.eta[top:] == decay.peak)
    assert np.array_equal(averaged.eta[:top], decay.eta[:top])
    if name != "constant" and len(decay) > 1:
        assert run(averaged.eta) != pytest.approx(run(decay.eta), rel=1e-3)


@settings(deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30))
def test_any_decay(falls: list[float]) -> None:
    decay = Schedule.from_array([1.0, *sorted(falls, reverse=True)])
    averaged = average_for(decay)
    assert averaged.ema is not None
    assert run(averaged.eta, averaged.ema) == pytest.approx(run(decay.eta), rel=1e-9, abs=1e-9)


def test_linear_decay_is_the_uniform_average() -> None:
    averaged = average_for(Schedule.from_array(1.0 - np.arange(50) / 50.0))
    assert np.asarray(averaged.ema) == pytest.approx(growing_window(np.arange(50), 1.0))


@given(st.floats(0.0, 0.99), st.integers(1, 60))
def test_decay_of_a_moving_average(d: float, horizon: int) -> None:
    decay = decay_for(MovingAverage(d), 0.3, horizon)
    expected = run(np.full(horizon, 0.3), np.full(horizon, d))
    assert run(decay.eta) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@given(st.integers(1, 500))
def test_moving_average_for_a_linear_decay(n: int) -> None:
    """Lag and quietness of n equal weights, of ages 0 to n - 1."""
    average = MovingAverage.for_linear_decay(n)
    assert average.lag == pytest.approx(np.arange(n).mean(), rel=1e-9, abs=1e-12)
    assert average.samples == pytest.approx(1.0 / (np.full(n, 1.0 / n) ** 2).sum(), rel=1e-9)


@pytest.fixture(scope="module")
def study() -> DecayAverage:
    return compare_decay(Problem(3.5, 2.0, 400, features=200), 0.1, 100)


def test_averages_forget_as_the_decay_does_and_are_quieter(study: DecayAverage) -> None:
    rows = study.rows
    for name in ("uniform", "ema"):
        assert rows[name].bias == pytest.approx(rows["decay"].bias, rel=0.05)
        assert rows[name].variance < 0.9 * rows["decay"].variance
    assert rows["ema"].variance == pytest.approx(rows["uniform"].variance, rel=0.15)
    assert rows["constant"].variance > 1.5 * rows["decay"].variance


def test_rows_are_replays_of_their_schedules(study: DecayAverage) -> None:
    steps = np.arange(400)
    late = steps - 300
    uniform = np.where(late < 0, 0.0, late / np.maximum(late + 1, 1))
    held = np.where(steps == 0, 0.0, 99.0 / 101.0)
    linear = 0.1 * np.minimum(-(late - 100) / 100.0, 1.0)
    spectrum = study.problem.spectrum
    assert isinstance(spectrum, PowerLawSpectrum)
    for name, eta, ema in (
        ("constant", np.full(400, 0.1), None),
        ("decay", linear, None),
        ("uniform", np.full(400, 0.1), uniform),
        ("ema", np.full(400, 0.1), held),
    ):
        direct = _direct(spectrum, 0.25, eta, np.zeros(400) if ema is None else ema)
        assert study.rows[name].excess_loss == pytest.approx(direct, rel=1e-9)
    numbers = json.loads(json.dumps(study.summary()))
    assert numbers["rows"]["ema"]["bias"] == study.rows["ema"].bias
    assert "ratio" in study.table()


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: average_for(Schedule.from_array([1.0, 0.5, 0.7])), "schedule"),
        (lambda: average_for(Schedule.from_array([0.0, 0.0])), "schedule"),
        (lambda: average_for(Schedule.from_array([1.0, 0.0], ema=0.5)), "schedule"),
        (lambda: average_for(Schedule(10**9, [0, 10**9 - 1], {"eta": [1.0, 0.0]})), "schedule"),
        (lambda: decay_for(MovingAverage(0.9), -1.0, 5), "rate"),
        (lambda: decay_for(MovingAverage(0.9), 1.0, 0), "horizon"),
        (lambda: MovingAverage.for_linear_decay(0.5), "steps"),
        (lambda: MovingAverage.for_linear_decay(math.inf), "steps"),
        (lambda: compare_decay(Problem(2.5, 2, 50), 100.0, 10), "rate"),
        (lambda: compare_decay(Problem(2.5, 2, 50), 0.1, 51), "steps"),
        (lambda: compare_decay(Problem(2.5, 2, 50, ema=0.9), 0.1, 5), "controls"),
    ],
)
def test_bad_input(call: Callable[[], Any], field: str) -> None:
    with pytest.raises(InvalidProblem) as caught:
        call()
    assert caught.value.field == field


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "ema", "--for-decay", "100", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["decay"] == pytest.approx(99 / 101)
