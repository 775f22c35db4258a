"""Averaging of the weights: its replay, its limits, and the study against decay of the rate."""

from __future__ import annotations

import json

import numpy as np
import pytest

from optsched import InvalidProblem, PowerLawSpectrum, Problem, Schedule, solve
from optsched.model.dynamics import SGDDynamics
from optsched.model.qhm import QHMDynamics
from optsched.model.replay import replay
from optsched.studies.averaging.against_decay import (
    AveragingStudy,
    compare_averaging,
    growing_window,
)
from optsched.studies.averaging.exponents import averaging_exponents
from optsched.studies.averaging.weight_decay import compare_weight_decay
from tests.test_momentum import covariance_recursion

SPECTRUM = PowerLawSpectrum(2.2, 1.6, 12)
TOL = 2e-3  # of ratios between rows


@pytest.fixture(scope="module")
def study() -> AveragingStudy:
    names = ("decay", "constant", "constant, ema", "constant, growing", "both")
    return compare_averaging(Problem(2.5, 1.5, 100), names)


def _loss(study: AveragingStudy, name: str) -> float:
    return study.rows[name].replay.excess_loss


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ("decay", "constant"),
        ("constant, ema", "constant"),
        ("constant, growing", "constant"),
        ("both", "decay"),
        ("both", "constant, ema"),
        ("both", "constant, growing"),
    ],
)
def test_a_row_is_not_worse_than_what_it_contains(
    study: AveragingStudy, better: str, worse: str
) -> None:
    assert _loss(study, better) <= _loss(study, worse) * (1.0 + TOL)


def test_a_growing_window_at_a_constant_rate_beats_the_best_decay(study: AveragingStudy) -> None:
    assert study.rows["constant, growing"].ratio < 0.95
    assert _loss(study, "constant, growing") < 1.05 * _loss(study, "both")
    assert study.rows["decay"].ratio == 1.0


def test_tuned_values_are_best(study: AveragingStudy) -> None:
    """Moving the rate or the window off the tuned values raises the replayed loss."""
    spectrum, dynamics = (
        study.problem.spectrum,
        QHMDynamics(5.0, 0.25, momentum=False, averaged=True),
    )
    assert spectrum is not None
    for name in ("constant, ema", "constant, growing"):
        row, steps = study.rows[name], np.arange(100)
        eta, rest = row.tuned["eta"], {k: v for k, v in row.tuned.items() if k != "eta"}
        for scale, pull in ((1.15, 1.0), (0.85, 1.0), (1.0, 1.2), (1.0, 0.8)):
            if "ema" in rest:
                ema = np.full(100, 1.0 - pull * (1.0 - rest["ema"]))
            else:
                ema = growing_window(steps, max(1.0, pull * rest["c"]))
            moved = Schedule.from_array(np.full(100, scale * eta), ema=ema)
            loss = replay(spectrum, dynamics, moved).excess_loss
            assert loss > row.replay.excess_loss * (1.0 - TOL)


def test_every_row_is_replayed_from_its_own_schedule(study: AveragingStudy) -> None:
    spectrum = study.problem.spectrum
    assert isinstance(spectrum, PowerLawSpectrum)
    for row in study.rows.values():
        assert row.replay.how == "step by step, all 1000 modes"
        steps = np.arange(100)
        eta = np.asarray(row.schedule(steps))
        averaged = "ema" in row.schedule.controls
        ema = np.asarray(row.schedule(steps, "ema")) if averaged else np.zeros(100)
        assert _direct(spectrum, 0.25, eta, ema) == pytest.approx(row.replay.excess_loss, rel=1e-9)
        assert row.replay.bias + row.replay.variance == pytest.approx(row.replay.excess_loss)


def _direct(
    spectrum: PowerLawSpectrum, sigma2: float, eta: np.ndarray, rho: np.ndarray, m: float = 5.0
) -> float:
    """Excess loss of the average, from the update rules of the three moments of a mode."""
    modes = spectrum.full()
    lam, mu = modes.lam, modes.mu
    x, y, z = mu / lam, mu / lam, mu / lam  # E e^2, E e ebar, E ebar^2
    for h, r in zip(eta, rho, strict=True):
        noise = (lam**2 * x + lam * (sigma2 + (lam * x).sum())) / m
        after = (1.0 - h * lam) ** 2 * x + h**2 * noise
        cross = (1.0 - h * lam) * y
        y, z = (
            r * cross + (1.0 - r) * after,
            r**2 * z + 2.0 * r * (1.0 - r) * cross + (1.0 - r) ** 2 * after,
        )
        x = after
    return float((lam * z).sum())


def test_replay_is_the_covariance_recursion() -> None:
    rng = np.random.default_rng(1)
    steps = 40
    controls = {
        "eta": rng.uniform(0.0, 0.8, steps),
        "beta": np.zeros(steps),
        "nu": np.zeros(steps),
        "batch_size": np.full(steps, 5.0),
        "ema": rng.uniform(0.0, 0.99, steps),
    }
    iterate, average = covariance_recursion(SPECTRUM, 0.3, 0.0, controls)
    schedule = Schedule.from_array(controls["eta"], ema=controls["ema"])
    dynamics = QHMDynamics(5.0, 0.3, momentum=False, averaged=True)
    played = replay(SPECTRUM, dynamics, schedule)
    assert played.excess_loss == pytest.approx(average, rel=1e-12)
    assert _direct(SPECTRUM, 0.3, controls["eta"], controls["ema"]) == pytest.approx(average)
    assert played.excess_loss != pytest.approx(iterate, rel=0.01)


def test_without_memory_there_is_no_average() -> None:
    eta = np.linspace(0.5, 0.1, 60)
    plain = replay(SPECTRUM, SGDDynamics(5.0, 0.3), Schedule.from_array(eta))
    none = replay(
        SPECTRUM,
        QHMDynamics(5.0, 0.3, momentum=False, averaged=True),
        Schedule.from_array(eta, ema=np.zeros(60)),
    )
    assert none.excess_loss == pytest.approx(plain.excess_loss, rel=1e-12)
    assert none.bias == pytest.approx(plain.bias, rel=1e-12)


@pytest.mark.parametrize("rho", [0.5, 0.9, 0.99])
def test_stationary_variance(rho: float) -> None:
    r"""One mode at a constant rate: an AR(1) of decay r = 1 - eta lam, averaged.

    Its variance falls by the factor :math:`(1-\rho)(1+\rho r) / ((1+\rho)(1-\rho r))`, for a small
    rate the share :math:`1 - \rho` over :math:`1 - \rho + \eta\lambda`, nearly.
    """
    spectrum, eta = PowerLawSpectrum(2.0, 2.0, 1), 0.01
    schedule = Schedule.from_array(np.full(5000, eta), ema=np.full(5000, rho))
    averaged = replay(spectrum, QHMDynamics(1e3, 1.0, momentum=False, averaged=True), schedule)
    plain = replay(spectrum, SGDDynamics(1e3, 1.0), Schedule.from_array(np.full(5000, eta)))
    assert averaged.bias < 1e-15
    r = 1.0 - eta
    factor = (1.0 - rho) * (1.0 + rho * r) / ((1.0 + rho) * (1.0 - rho * r))
    assert averaged.variance / plain.variance == pytest.approx(factor, rel=1e-9)
    assert factor == pytest.approx((1.0 - rho) / (1.0 - rho + eta), rel=0.02)
    # Noise alone: eta sigma^2 / (2 m), to first order.
    assert plain.variance == pytest.approx(eta / (2.0 * 1e3), rel=0.02)


def test_a_uniform_average_is_the_mean_of_the_iterates() -> None:
    """Noise-free, the error of iterate t is (1 - eta lam)^t; the window c = 1 averages them."""
    steps, eta = np.arange(50), 0.3
    schedule = Schedule.from_array(np.full(50, eta), ema=growing_window(steps, 1.0))
    played = replay(SPECTRUM, QHMDynamics(1e15, 0.0, momentum=False, averaged=True), schedule)
    modes = SPECTRUM.full()
    means = ((1.0 - eta * modes.lam) ** (steps[:, None] + 1.0)).mean(0)
    assert played.excess_loss == pytest.approx(float((modes.mu * means**2).sum()), rel=1e-9)


def test_the_window_of_the_optimum_grows(study: AveragingStudy) -> None:
    schedule = study.rows["both"].schedule
    window = 1.0 / (1.0 - np.asarray(schedule(np.array([10, 30, 90]), "ema")))
    assert window[0] < window[1] < window[2] < 100


def test_summary_is_json(study: AveragingStudy) -> None:
    summary = json.loads(json.dumps(study.summary()))
    assert summary["phase"] == "easy"
    assert summary["rows"]["both"]["ratio"] == pytest.approx(study.rows["both"].ratio)
    assert list(summary["rows"]) == list(study.rows)
    text = study.table()
    assert text.count("\n") == len(study.rows)
    assert all(name in text for name in study.rows)


@pytest.mark.slow
def test_a_held_average_of_none_is_the_decay(study: AveragingStudy) -> None:
    held = solve(Problem(2.5, 1.5, 100, ema=0.0), throw=False)
    assert held.excess_loss == pytest.approx(_loss(study, "decay"), rel=TOL)


def test_weight_decay_is_a_bias(study: AveragingStudy) -> None:
    """The best schedule without weight decay, replayed with it."""
    spectrum, row = study.problem.spectrum, study.rows["decay"]
    assert spectrum is not None
    dynamics = QHMDynamics(5.0, 0.25, weight_decay=1e-2, momentum=False, decayed=True)
    played = replay(spectrum, dynamics, row.schedule)
    assert played.bias > 1.01 * row.replay.bias
    assert played.variance < row.replay.variance
    assert played.excess_loss > row.replay.excess_loss


@pytest.mark.slow
def test_weight_decay_does_not_help() -> None:
    rows = compare_weight_decay(Problem(2.5, 1.5, 100), (1e-3, 1e-2))
    assert [row.weight_decay for row in rows] == [0.0, 1e-3, 1e-2]
    losses = [row.scheduled.excess_loss for row in rows]
    assert losses == sorted(losses)
    assert rows[0].scheduled_ratio == rows[0].constant_ratio == 1.0
    assert rows[2].scheduled.bias > rows[0].scheduled.bias


def test_exponents() -> None:
    names = ("decay", "constant")
    found = averaging_exponents(Problem(2.5, 1.5, 10), (50, 100), names)
    assert found.predicted == pytest.approx(1.5 / 2.5)
    assert [study.problem.horizon for study in found.studies] == [50, 100]
    first, last = (_loss(one, "decay") for one in found.studies)
    assert found.slopes["decay"] == pytest.approx([np.log(first / last) / np.log(2.0)])


@pytest.mark.slow
@pytest.mark.parametrize("horizon", [1, 2])
def test_shortest_horizons(horizon: int) -> None:
    names = ("decay", "constant", "constant, ema", "constant, growing")
    study = compare_averaging(Problem(2.5, 1.5, horizon), names)
    for name in names[2:]:
        assert _loss(study, name) <= _loss(study, "constant") * (1.0 + TOL)


@pytest.mark.parametrize(
    ("field", "value"),
    [("ema", 1.0), ("ema", -0.1), ("ema", float("nan")), ("weight_decay", -1e-3)],
)
def test_bad_values(field: str, value: float) -> None:
    with pytest.raises(InvalidProblem, match=field):
        Problem(2.5, 1.5, 100, **{field: value})  # type: ignore[arg-type]


def test_bad_studies() -> None:
    problem = Problem(2.5, 1.5, 100)
    with pytest.raises(InvalidProblem, match="names"):
        compare_averaging(problem, ["best"])
    with pytest.raises(InvalidProblem, match="controls"):
        compare_averaging(problem.replace(controls="eta,beta"))
    with pytest.raises(InvalidProblem, match="controls"):
        compare_weight_decay(problem.replace(ema=0.9))
    with pytest.raises(InvalidProblem, match="warmup"):
        compare_averaging(problem.replace(warmup=5))
    with pytest.raises(InvalidProblem, match="horizons"):
        averaging_exponents(problem, (100, 100))
