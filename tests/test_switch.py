"""Rates beyond the inverse of the largest eigenvalue: local optima a step apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from optsched import Problem, Schedule, solve
from optsched.arrays import Floats
from optsched.control.certificate import UNREFINED
from tests.problems import excess_of, recursion

# Where one start alone ended in a worse optimum, by 3e-5 to 4e-3.
SHORT = [
    Problem(3.352, 2.6707, 30, batch_size=272, noise=0.6424, eta_max=1.331),
    Problem(2.91, 4.52, 22, batch_size=146.4, noise=2.7, eta_max=1.46),
    Problem(3.15, 3.63, 5, batch_size=263.1, noise=0.082, eta_max=1.9),
]
LONGER = [
    Problem(1.4464, 2.7152, 368, batch_size=332.3, noise=0.0, eta_max=1.6658),
    Problem(2.64, 5.83, 115, batch_size=20.8, noise=0.0, eta_max=1.5),
    Problem(2.69, 5.45, 85, batch_size=112.2, noise=1.5, eta_max=1.79),
]


def log_loss(problem: Problem, x: Floats) -> tuple[float, Floats]:
    """Log excess loss of log rates and its gradient, by the textbook recursion and its adjoint."""
    modes, m, lam = problem.modes, problem.batch_size, problem.modes.lam
    mass, rates, energy = modes.nu, np.exp(x), modes.mu.copy()
    past = []
    for rate in rates:
        past.append(energy)
        factor = 1.0 - 2.0 * rate * lam + rate**2 * (1.0 + 1.0 / m) * lam**2
        energy = factor * energy + rate**2 / m * mass * (energy.sum() + problem.noise**2)
    final, costate, slope = energy.sum(), np.ones_like(lam), np.zeros_like(x)
    for k in range(len(rates) - 1, -1, -1):
        rate, before = rates[k], past[k]
        push = -2.0 * lam + 2.0 * rate * (1.0 + 1.0 / m) * lam**2
        feed = costate @ mass / m
        kick = 2.0 * rate * feed * (before.sum() + problem.noise**2)
        slope[k] = rate * (costate @ (push * before) + kick)
        factor = 1.0 - 2.0 * rate * lam + rate**2 * (1.0 + 1.0 / m) * lam**2
        costate = factor * costate + rate**2 * feed
    return float(np.log(final)), slope / final


def best_known(problem: Problem) -> Floats:
    """Rates of the least loss, from annealings of any length and random rates."""
    rng, horizon = np.random.default_rng(0), problem.horizon
    starts = [rng.uniform(0.2, 1.0, horizon) * problem.eta_cap for _ in range(6)]
    for length in range(min(horizon, 8)):
        rates = np.full(horizon, problem.eta_cap)
        rates[horizon - length :] = np.linspace(0.9, 0.3, length)
        starts.append(rates)
    bounds = [(-40.0, float(np.log(problem.eta_cap)))] * horizon
    found = [
        minimize(
            lambda x: log_loss(problem, x),
            np.log(rates),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 300},
        )
        for rates in starts
    ]
    return np.exp(min(found, key=lambda one: one.fun).x)


def test_the_gradient_of_the_reference() -> None:
    problem, x = SHORT[2], np.log([1.2, 0.3, 0.9, 1.5, 0.4])
    value, slope = log_loss(problem, x)
    modes, sigma2 = problem.modes, problem.noise**2
    assert np.exp(value) == pytest.approx(
        recursion(modes, problem.batch_size, sigma2, np.exp(x))[0]
    )
    for k in range(5):
        step = 1e-6 * np.eye(5)[k]
        change = (log_loss(problem, x + step)[0] - log_loss(problem, x - step)[0]) / 2e-6
        assert slope[k] == pytest.approx(change, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize("problem", SHORT, ids=lambda p: f"T={p.horizon}")
def test_no_start_of_an_independent_search_is_better(problem: Problem) -> None:
    solution = solve(problem)
    reference = excess_of(problem, best_known(problem))
    assert solution.excess_loss <= reference * (1.0 + 1e-6)
    assert solution.converged and solution.certificate.kkt_residual <= 1e-6


@pytest.mark.parametrize("problem", [*SHORT, *LONGER], ids=lambda p: f"T={p.horizon}")
def test_better_than_the_first_local_optimum(
    problem: Problem, monkeypatch: pytest.MonkeyPatch
) -> None:
    solution = solve(problem, gap=UNREFINED)
    assert solution.converged and solution.certificate.certified_gap > 0.0
    with monkeypatch.context() as patch:
        patch.setattr("optsched.control.rate.search._best_neighbour", lambda stage, _: stage)
        first = solve(problem, gap=UNREFINED)
    assert solution.excess_loss < first.excess_loss * (1.0 - 1e-5)
    assert solution.stats["evaluations"] > first.stats["evaluations"]
    assert len(solution.history) > len(first.history)


@pytest.mark.parametrize("seed", range(6))
def test_no_annealing_leads_to_a_better_optimum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = Problem(
        rng.uniform(1.2, 4.0),
        rng.uniform(1.1, 5.0),
        int(rng.integers(5, 60)),
        batch_size=10 ** rng.uniform(1.5, 4.0),
        noise=rng.uniform(0.0, 2.0),
        eta_max=rng.uniform(1.0, 1.9),
    )
    solution = solve(problem)
    steps = np.arange(problem.horizon)
    for length in (1, 2, 3, 4, 6, 9):
        shape = np.minimum(1.0, (problem.horizon - steps) / (length + 1.0))
        start = Schedule.from_knots(
            steps, {"eta": problem.eta_cap * shape}, horizon=problem.horizon
        )
        again = solve(problem, initial=start, throw=False, gap=UNREFINED)
        # Rates in zigzag have many optima that differ by less.
        assert solution.excess_loss <= again.excess_loss * (1.0 + 1e-4)


def test_without_such_rates_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = SHORT[0].replace(eta_max=0.99)
    solution = solve(problem)
    monkeypatch.setattr("optsched.control.rate.search._best_neighbour", lambda stage, _: stage)
    assert solve(problem).stats["evaluations"] == solution.stats["evaluations"]
