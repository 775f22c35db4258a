"""Exponents of power laws, with errors that are honest; studies along horizons."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from optsched import InvalidProblem, Problem, SolveFailed, solve
from optsched.studies import scaling as module
from optsched.studies.exponents import fit_exponent
from optsched.studies.scaling import ScalingPoint, scaling, scaling_theory

HORIZONS = np.geomspace(1e2, 1e5, 7)


def test_a_power_law_is_recovered() -> None:
    fit = fit_exponent(HORIZONS, 3.0 * HORIZONS**-0.7)
    assert fit.exponent == pytest.approx(0.7, abs=1e-12)
    assert fit.stderr < 1e-10
    assert fit.amplitude == pytest.approx(3.0)
    np.testing.assert_allclose(fit.local_slopes, 0.7)
    assert fit.extrapolated == pytest.approx(0.7, abs=1e-10)


@pytest.mark.parametrize("size", [0.01, 0.1])
@pytest.mark.parametrize("points", [4, 7, 13])
def test_scatter_is_covered(points: int, size: float) -> None:
    """Monte Carlo: how often the truth is within one and two standard errors."""
    rng = np.random.default_rng(points)
    horizons = np.geomspace(1e2, 1e5, points)
    off = []
    for _ in range(400):
        loss = horizons**-0.5 * np.exp(size * rng.standard_normal(points))
        fit = fit_exponent(horizons, loss)
        off.append(abs(fit.exponent - 0.5) / fit.stderr)
    assert np.mean(np.array(off) < 1.0) > 0.66
    assert np.mean(np.array(off) < 2.0) > 0.90


def test_stated_errors_are_covered() -> None:
    rng = np.random.default_rng(5)
    errors = np.geomspace(0.01, 0.2, 7)
    off = []
    for _ in range(400):
        loss = HORIZONS**-0.5 * np.exp(errors * rng.standard_normal(7))
        fit = fit_exponent(HORIZONS, loss, errors=errors)
        off.append(abs(fit.exponent - 0.5) / fit.stderr)
    assert np.mean(np.array(off) < 1.0) > 0.66
    assert np.mean(np.array(off) < 2.0) > 0.93


@pytest.mark.parametrize("scatter", [0.0, 1e-3, 1e-2])
def test_corrections_to_scaling_are_covered(scatter: float) -> None:
    """E = T^-p (1 + B T^-w), over p, B and w: points without noise are no proof of a law."""
    rng = np.random.default_rng(0)
    off, far = [], []
    for _ in range(300):
        p, w = rng.uniform(0.2, 0.8), rng.uniform(0.2, 1.0)
        b = rng.uniform(-0.9, 3.0) * 100.0**w  # not small at the shortest horizon
        b = max(b, -0.9 * 100.0**w)
        loss = HORIZONS**-p * (1.0 + b * HORIZONS**-w)
        fit = fit_exponent(HORIZONS, loss * np.exp(scatter * rng.standard_normal(7)))
        off.append(abs(fit.exponent - p) / fit.stderr)
        if not math.isnan(fit.extrapolated):
            far.append(abs(fit.extrapolated - p) / fit.extrapolated_stderr)
    assert np.mean(np.array(off) < 2.0) > 0.95
    assert len(far) > (20 if scatter else 250)
    assert np.mean(np.array(far) < 2.0) > 0.93


def test_few_points() -> None:
    two = fit_exponent([10, 100], [1.0, 0.1])
    assert two.exponent == pytest.approx(1.0)
    assert math.isnan(two.stderr)
    assert two.summary()["stderr"] is None
    known = fit_exponent([10, 100], [1.0, 0.1], errors=[0.1, 0.1])
    assert known.stderr == pytest.approx(0.1 * math.sqrt(2.0) / math.log(10.0))
    assert "fewer" in fit_exponent([10, 100, 1000], [1.0, 0.1, 0.02]).remark


def test_short_horizons_can_be_left_out() -> None:
    loss = HORIZONS**-0.5
    loss[0] *= 2.0
    assert fit_exponent(HORIZONS, loss, skip=1).exponent == pytest.approx(0.5)
    assert len(fit_exponent(HORIZONS, loss, skip=1).local_slopes) == 5


@pytest.mark.parametrize(
    ("horizons", "losses", "more", "name"),
    [
        ([100], [1.0], {}, "horizons"),
        ([], [], {}, "horizons"),
        ([10, 100], [1.0], {}, "losses"),
        ([10, 100], [1.0, -0.1], {}, "losses"),
        ([10, 100], [1.0, 0.0], {}, "losses"),
        ([10, 100], [1.0, math.nan], {}, "losses"),
        ([10, 100], ["one", "two"], {}, "losses"),
        ([100, 10], [0.1, 1.0], {}, "horizons"),
        ([10, 10], [0.1, 1.0], {}, "horizons"),
        ([10, 100], [1.0, 0.1], {"skip": 1}, "horizons"),
        ([10, 100], [1.0, 0.1], {"skip": -1}, "skip"),
        ([10, 100], [1.0, 0.1], {"errors": [0.1]}, "errors"),
        ([10, 100], [1.0, 0.1], {"errors": [0.1, 0.0]}, "errors"),
    ],
)
def test_bad_points_are_refused(
    horizons: list[float], losses: Any, more: dict[str, Any], name: str
) -> None:
    with pytest.raises(InvalidProblem, match=f"^{name}: got"):
        fit_exponent(horizons, losses, **more)


@pytest.mark.parametrize("horizons", [[], [100], [100, 10], [100, 100]])
def test_bad_horizons_are_refused(horizons: list[int]) -> None:
    with pytest.raises(InvalidProblem, match="horizons"):
        scaling(Problem(3.5, 2, 10), horizons)
    with pytest.raises(InvalidProblem, match="schedule"):
        scaling(Problem(3.5, 2, 10), [10, 20], schedule="none such")


@pytest.mark.parametrize(("b", "phase"), [(2.0, "easy"), (5.0, "hard")])
def test_the_optimum_of_the_rate_follows_theory(b: float, phase: str) -> None:
    problem = Problem(3.5, b, 10, features=math.inf)
    study = scaling(
        problem, [10**k for k in range(4, 9)], solve_options={"gap": 1e3, "replay_steps": 100}
    )
    assert problem.phase == phase
    assert all(point.converged for point in study.points)
    assert study.fit is not None
    assert abs(study.exponent - study.theory["expected"]) < 2.0 * study.fit.stderr
    assert study.fit.local_slopes[-1] == pytest.approx(study.theory["expected"], abs=0.02)
    assert study.peak_fit is not None
    wanted = 1.0 - b / 3.5 if phase == "easy" else 0.0
    assert study.peak_fit.local_slopes[-1] == pytest.approx(wanted, abs=0.03)
    told = json.loads(json.dumps(study.summary(), allow_nan=False))
    assert {"exponent", "stderr", "theory", "local_slopes", "horizons", "excess_loss"} <= set(told)
    assert told["warnings"] == list(study.warnings)


def test_theory() -> None:
    hard = scaling_theory(Problem(1.5, 4, 10, controls=("eta", "beta", "nu")))
    assert hard["sgd"] == pytest.approx(0.125)
    assert hard["floor"] == pytest.approx(1.0 / 3.0)
    assert hard["growing_memory"] == pytest.approx(0.5 * 7.0 / 16.0)
    assert "expected" not in hard
    # Where the prediction would pass the floor, or in the easy phase, the floor is what is left.
    assert scaling_theory(Problem(3.5, 5, 10))["growing_memory"] == pytest.approx(2.5 / 3.5)
    easy = scaling_theory(Problem(3.5, 2, 10))
    assert easy["growing_memory"] == easy["floor"] == easy["sgd"]
    assert scaling_theory(Problem(3.5, 2, 10, noise=0.0)) == {}


def test_failed_solves_stay_as_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def sometimes(problem: Problem, options: Any, shorter: Any) -> ScalingPoint:
        if problem.horizon == 20:
            raise SolveFailed("nothing found")
        if problem.horizon == 30:
            return ScalingPoint(30, 5.0, 1.0, False, "KKT residual too large")
        return ScalingPoint(problem.horizon, problem.horizon**-0.5, 1.0, True, "fine")

    monkeypatch.setitem(module.SCHEDULES, "sometimes", sometimes)
    seen: list[ScalingPoint] = []
    problem = Problem(3.5, 2, 10, features=20)
    study = scaling(problem, [10, 20, 30, 40], schedule="sometimes", progress=seen.append)
    assert [point.converged for point in study.points] == [True, False, False, True]
    assert list(study.points) == seen
    assert study.exponent == pytest.approx(0.5)
    assert "nothing found" in study.warnings[0]
    assert "KKT" in study.warnings[1]
    assert "leaves out" not in "".join(study.warnings)
    told = study.summary()
    assert told["excess_loss"][1] is None
    assert told["excess_loss"][2] == 5.0
    assert told["points"][1]["message"] == "nothing found"


def test_left_out_features_are_named() -> None:
    study = scaling(Problem(1.5, 2, 10, features=1000), [100, 200], solve_options={"gap": 1e3})
    assert "leaves out" in study.warnings[-1]


def test_momentum_pays_in_the_hard_phase() -> None:
    """QHM contains heavy ball, and heavy ball SGD: each is better than the one before."""
    losses = [
        solve(Problem(3.5, 5, 300, controls=controls)).excess_loss
        for controls in (("eta", "beta", "nu"), ("eta", "beta"), ("eta",))
    ]
    assert losses[0] < 0.9 * losses[1]
    assert losses[1] < 0.7 * losses[2]


def test_a_failed_solve_starts_again_from_the_horizon_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts: list[tuple[int, bool]] = []

    def first_fails(problem: Problem, **options: Any) -> Any:
        starts.append((problem.horizon, "initial" in options))
        found = solve(problem, **options)
        bad = problem.horizon == 400 and "initial" not in options
        return replace(found, status="not converged") if bad else found

    monkeypatch.setattr(module, "solve", first_fails)
    study = scaling(Problem(3.5, 2, 10), [200, 400], solve_options={"gap": 1e3})
    assert starts == [(200, False), (400, False), (400, True)]
    assert [point.converged for point in study.points] == [True, True]
    straight = solve(Problem(3.5, 2, 400), gap=1e3).excess_loss
    assert study.points[1].excess_loss == pytest.approx(straight, rel=1e-3)
