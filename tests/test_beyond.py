"""Rates at and above the stability limit, losses that underflow, constraints that are kept."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest

from optsched import Problem, Schedule, Solution, SolveFailed, solve
from optsched.control.bounds.geodesic import relaxed_geodesic
from optsched.control.mesh import graded_mesh
from optsched.control.rate.constraints import violations
from optsched.control.rate.plain import PlainObjective
from optsched.model.dynamics import SGDDynamics
from optsched.studies.verify import verify
from tests.problems import excess_of


def attempt(**options: Any) -> Solution:
    """The solution, or the best iterate; no warning and nothing but an honest failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            return solve(Problem(**options))
        except SolveFailed as error:
            return error.solution


EDGE = {
    "T = 96": ({"a": 4.85, "b": 5.9, "batch_size": 300, "horizon": 96, "eta_max": 2}, 0.00488),
    "T = 300": ({"a": 4.85, "b": 5.9, "batch_size": 300, "horizon": 300, "eta_max": 2}, 0.00253),
    "another": ({"a": 3.5, "b": 5, "batch_size": 300, "horizon": 100, "eta_max": 2}, 0.01867),
}


@pytest.mark.parametrize("case", EDGE.values(), ids=EDGE)
def test_edge_of_stability_is_solved(case: tuple[dict[str, float], float]) -> None:
    """Coarse blocks there have no loss, and blocks that hold the method back are split."""
    options, reachable = case
    solution = attempt(**options)
    assert solution.converged and solution.certificate.kkt_residual <= 1e-6
    assert solution.excess_loss <= reachable
    again = excess_of(solution.problem, solution.schedule.eta)
    assert solution.excess_loss == pytest.approx(again, rel=1e-10)
    assert abs(solution.certificate.replay_gap) < 1e-3


def test_blocks_that_are_too_coarse_have_no_loss() -> None:
    """Near the limit of the first mode its stationary energy is no quadratic along a block."""
    problem = Problem(4.85, 5.9, 1000, batch_size=300, eta_max=1.986)
    path = relaxed_geodesic(problem.modes, 300.0, 0.25, 1.986, 1000)
    mesh = graded_mesh(path, 1000, 12, 1.0)
    assert isinstance(problem.dynamics, SGDDynamics)
    objective = PlainObjective(problem.dynamics, problem.modes, mesh)
    early = np.arange(mesh.controls) < mesh.controls // 2
    falling = np.log(np.where(early, 1.986, 0.2))
    assert objective.coarse(falling).any() and math.isnan(objective(falling)[0])
    calm = np.log(np.full(mesh.controls, 0.5))
    assert not objective.coarse(calm).any() and math.isfinite(objective(calm)[0])


def test_bursts_above_the_stability_limit() -> None:
    options = {"a": 4.03, "b": 3.83, "batch_size": 300, "noise": 0.1, "features": 50, "horizon": 45}
    solution = attempt(**options, eta_max=4.7)
    problem, proof = solution.problem, solution.certificate
    assert solution.converged
    assert problem.eta_top == 4.7 > problem.eta_cap == problem.stability_limit
    # Within the limit 0.005249 is best.
    assert solution.excess_loss < 0.00346 and solution.schedule.peak > problem.eta_cap
    assert solution.excess_loss == pytest.approx(excess_of(problem, solution.schedule.eta))
    assert 0.002 < proof.lower_bound < solution.excess_loss
    assert "above the stability limit of a constant rate" in solution.message
    judged = verify(problem, solution.schedule)
    assert judged.violations == () and judged.gap is not None and judged.gap > 0.1
    # For rates up to the limit alone it is outside, and no gap is claimed.
    inside = Problem(**options, eta_max=problem.stability_limit)
    outside = verify(inside, solution.schedule)
    assert outside.gap is None and "above" in outside.violations[0]


@pytest.mark.parametrize("seed", range(6))
def test_bound_above_the_stability_limit(seed: int) -> None:
    """Random bursts beyond the limit are not below the bound for such rates."""
    rng = np.random.default_rng(seed)
    horizon = int(rng.integers(3, 40))
    problem = Problem(
        rng.uniform(1.5, 5.0),
        rng.uniform(1.2, 6.0),
        horizon,
        features=int(rng.choice([2, 30])),
        batch_size=float(10 ** rng.uniform(1, 5)),
        noise=float(rng.choice([0.0, 0.1])),
        eta_max=float(rng.uniform(2.0, 6.0)),
    )
    lam, mu, nu = problem.spectrum.full()
    m, sigma2, top = problem.batch_size, problem.noise**2, problem.eta_top
    best = math.inf
    for _ in range(300):
        rates = np.where(
            rng.random(horizon) < rng.random(), rng.uniform(0.9, 1.0), rng.uniform(0.5, 1.0) * top
        )
        e = mu.copy()
        for eta in rates:
            x = eta * lam
            e = ((1 - x) ** 2 + x**2 / m) * e + eta**2 / m * nu * (e.sum() + sigma2)
        best = min(best, float(e.sum()))
    constant = Schedule.from_array(np.full(horizon, 0.9))
    assert verify(problem, constant).lower_bound <= best * (1.0 + 1e-9)


UNDERFLOW: dict[str, dict[str, Any]] = {
    "at once": {
        "a": 2,
        "b": 2,
        "horizon": 150,
        "batch_size": 100,
        "noise": 0.0,
        "eta_max": 2.0,
        "features": 1,
    },
    "bounded change": {
        "a": 3.9,
        "b": 6.2,
        "horizon": 2000,
        "features": 1,
        "batch_size": 1000,
        "noise": 0.0,
        "max_change": 1e-3,
    },
    "long": {
        "a": 3.9,
        "b": 6.2,
        "horizon": 1504249,
        "features": 1,
        "batch_size": 144262.0,
        "noise": 0.0,
        "eta_max": 4.16,
        "max_change": 1.58e-4,
    },
    "nearly": {
        "a": 4,
        "b": 5.8,
        "horizon": 3 * 10**11,
        "batch_size": 6e5,
        "noise": 3e-5,
        "eta_max": 5.8,
        "features": 1,
    },
}


@pytest.mark.parametrize("options", UNDERFLOW.values(), ids=UNDERFLOW)
def test_losses_that_underflow(options: dict[str, Any]) -> None:
    solution = attempt(**options)
    proof = solution.certificate
    assert math.isfinite(proof.kkt_residual) and math.isfinite(solution.excess_loss)
    assert proof.lower_bound <= solution.excess_loss
    assert violations(solution.problem, solution.schedule) == ()
    if solution.converged:
        assert proof.kkt_residual <= 1e-6


@pytest.mark.parametrize("change", [1e-4, 3e-3, 0.05])
@pytest.mark.parametrize("warmup", [0, 20])
def test_a_start_that_changes_too_much_is_brought_in(change: float, warmup: int) -> None:
    problem = Problem(3.5, 2.0, 100, max_change=change, warmup=warmup)
    rough = Schedule.from_array(np.where(np.arange(100) % 2, 0.4, 0.01))
    assert violations(problem, rough)
    found = solve(problem, initial=rough, throw=False)
    assert violations(problem, found.schedule) == ()


def test_violations_at_any_horizon() -> None:
    problem = Problem(3.5, 2.0, 10**12, warmup=10**9, eta_min=1e-3)
    top = 0.5
    ramp = [0, 10**9, 10**12 - 1], [top / (10**9 + 1), top, 1e-3]
    good = Schedule(10**12, ramp[0], {"eta": ramp[1]})
    assert violations(problem, good) == ()
    early = Schedule(10**12, [0, 5 * 10**8, 10**12 - 1], {"eta": ramp[1]})
    assert "no linear warm-up" in violations(problem, early)[0]
    low = Schedule(10**12, ramp[0], {"eta": [*ramp[1][:2], 9e-4]})
    assert "below eta_min" in violations(problem, low)[0]
