"""The certified lower bound: never above what any schedule reaches, and close to it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.linalg import expm
from scipy.optimize import minimize

from optsched.arrays import Floats
from optsched.control.bounds import supporting as module
from optsched.control.bounds.certified import _Relaxed, certified_bound
from optsched.control.bounds.geodesic import relaxed_geodesic
from optsched.control.mesh import graded_mesh
from optsched.control.methods.descent import projected_descent
from optsched.control.problem import Problem
from optsched.control.traced import TracedObjective
from optsched.model.spectrum import TabulatedSpectrum
from optsched.schedules.schedule import Schedule
from optsched.studies.verify import verify


def losses(problem: Problem, rates: Floats) -> Floats:
    """Final excess of the exact recursion for every row of ``rates``."""
    lam, mu, nu = problem.modes
    m, sigma2 = problem.batch_size, problem.noise**2
    e = np.repeat(mu[None], len(rates), axis=0)
    for eta in rates.T[:, :, None]:
        x = eta * lam
        total = sigma2 + e.sum(1, keepdims=True)
        e = ((1.0 - x) ** 2 + x**2 / m) * e + (eta**2 / m) * nu * total
    return e.sum(1)


def shapes(problem: Problem, rng: np.random.Generator, count: int) -> Floats:
    """Random schedules of many shapes within the bounds, shape (count, T)."""
    steps, cap = problem.horizon, problem.eta_cap
    t = (np.arange(steps) + 0.5) / steps
    rows = []
    for i in range(count):
        peak = cap * 10.0 ** rng.uniform(-2.0, 0.0) if i % 2 else cap
        p = rng.uniform(0.2, 8.0)
        kind = i % 8
        if kind == 0:
            row = peak * np.ones(steps)
        elif kind == 1:
            row = peak * (1.0 - t) ** p
        elif kind == 2:
            row = np.where(t < rng.uniform(), peak, peak * rng.uniform())
        elif kind == 3:
            row = np.where(np.arange(steps) % 2 == 0, peak, peak * rng.uniform())
        elif kind == 4:
            row = peak * 0.5 * (1.0 + np.cos(np.pi * t))
        elif kind == 5:
            row = peak * np.exp(rng.normal(0.0, rng.uniform(0.1, 2.0), steps))
        elif kind == 6:  # inverses of Chebyshev nodes, in random order
            row = cap / (1.0 + p * (1.0 - np.cos(np.pi * rng.permutation(t))))
        else:
            start = rng.uniform()
            row = peak * np.minimum(1.0, ((1.0 - t) / (1.0 - start)) ** p)
        rows.append(np.clip(row, 0.0, cap))
    return np.array(rows)


def best_of(problem: Problem, starts: Floats) -> float:
    """Smallest loss that L-BFGS-B finds from several starts."""
    cap = problem.eta_cap
    found = []
    for start in starts:
        result = minimize(
            lambda x: float(np.log(losses(problem, x[None])[0])),
            start,
            method="L-BFGS-B",
            bounds=[(0.0, cap)] * problem.horizon,
            options={"ftol": 1e-14, "gtol": 1e-9},
        )
        found.append(float(np.exp(result.fun)))
    return min(found)


def bound_of(problem: Problem, incumbent: float, **options: float) -> float:
    sigma2 = problem.noise**2
    return certified_bound(
        problem.modes,
        problem.batch_size,
        sigma2,
        problem.eta_cap,
        problem.horizon,
        incumbent,
        **options,  # type: ignore[arg-type]
    ).value


def random_problem(rng: np.random.Generator, horizon: int) -> Problem:
    problem = Problem(
        rng.uniform(1.1, 5),
        rng.uniform(1.1, 6),
        horizon,
        features=[3, 1000][rng.integers(2)],
        batch_size=10 ** rng.uniform(0, 4),
        noise=float(rng.choice([0.0, rng.uniform(0, 3)])),
        eta_max=rng.uniform(0.01, 1.9),
    )
    if rng.uniform() < 0.3:
        size = int(rng.integers(1, 5))
        spectrum = TabulatedSpectrum(10.0 ** rng.uniform(-2, 0.3, size), rng.normal(size=size))
        problem = problem.replace(a=None, b=None, spectrum=spectrum)
    return problem


@pytest.mark.parametrize("seed", range(12))
def test_no_schedule_is_below_the_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = random_problem(rng, int(rng.integers(1, 61)))
    rates = shapes(problem, rng, 2000)
    found = losses(problem, rates)
    best = float(found.min())
    if problem.horizon <= 30:
        best = min(best, best_of(problem, rates[np.argsort(found)[:1]]))
    # An incumbent that is not optimal, so that the bound is not merely capped by it.
    for factor in (1.02, 1.3):
        assert bound_of(problem, factor * best) <= best * (1.0 + 1e-9)


@pytest.mark.parametrize("seed", range(25))
def test_not_to_train_is_a_schedule_too(seed: int) -> None:
    """Incumbents that are worse than no training at all, which paths of any length must beat."""
    rng = np.random.default_rng(1000 + seed)
    problem = random_problem(rng, int(10 ** rng.uniform(0, 4)))
    problem = problem.replace(noise=10 ** rng.uniform(-1, 6))
    assert problem.spectrum is not None
    untrained = float(problem.spectrum.full().mu.sum())
    for factor in (1.001, 3.0, 1e6):
        bound = bound_of(problem, factor * untrained)
        assert bound <= untrained
        assert bound > 0.0


def test_bound_of_a_schedule_that_is_worse_than_none() -> None:
    problem = Problem(3.5, 2.0, 1, noise=1e5, batch_size=1)
    poor = verify(problem, Schedule.from_array([0.1]))
    good = verify(problem, Schedule.from_array([1e-12]))
    assert poor.lower_bound <= good.replay.excess_loss
    assert good.gap is not None and good.gap < 0.05


@pytest.mark.parametrize("horizon", [1, 2, 3])
@pytest.mark.parametrize("seed", range(6))
def test_global_optimum_of_few_steps(horizon: int, seed: int) -> None:
    rng = np.random.default_rng(100 * horizon + seed)
    problem = random_problem(rng, horizon)
    starts = rng.uniform(0.0, problem.eta_cap, (4 * horizon, horizon))
    best = best_of(problem, starts)
    for factor in (1.01, 1.5):
        assert bound_of(problem, factor * best) <= best * (1.0 + 1e-9)


REFERENCES = [  # problem, optimum, largest gap
    (Problem(3.5, 2.0, 1000), 0.00146174, 0.01),
    (Problem(3.5, 5.0, 1000), 0.00957739, 0.01),
    (Problem(3.5, 5.0, 3162), 0.00526711, 0.01),
    (
        Problem(3.295, 3.835, 286400000, batch_size=1.44, noise=1.358, eta_max=1.203),
        6.95251406e-06,
        0.02,
    ),
    (Problem(4.018, 5.493, 101, batch_size=5.459, noise=2.399, eta_max=1.228), 0.0537078828, 0.01),
    (Problem(4.963, 3.938, 27, batch_size=110.9, noise=1.512, eta_max=0.8329), 0.00984835505, 0.02),
]


@pytest.mark.parametrize(("problem", "best", "gap"), REFERENCES)
def test_close_to_the_optimum_from_below(problem: Problem, best: float, gap: float) -> None:
    assert bound_of(problem, 1.03 * best) <= best
    assert bound_of(problem, best) >= best / (1.0 + gap)


def test_below_the_optimum_of_the_solver() -> None:
    problem = Problem(2.0, 1.5, 3000)
    cap, sigma2 = problem.eta_cap, problem.noise**2
    path = relaxed_geodesic(problem.modes, problem.batch_size, sigma2, cap, problem.horizon)
    mesh = graded_mesh(path, problem.horizon, 120, 1.0)
    objective = TracedObjective(problem.dynamics, problem.modes, mesh)
    start = np.log(np.interp(mesh.steps, path.t, path.eta))
    n = mesh.controls
    found = projected_descent(
        objective, start, np.full(n, -np.inf), np.full(n, np.log(cap)), tol=1e-6
    )
    best = float(np.exp(found.value))
    assert bound_of(problem, 1.03 * best) <= best
    assert bound_of(problem, best) >= best / 1.01


@pytest.mark.parametrize(
    "problem",
    [
        Problem(3.5, 2.0, 50, noise=0.0),
        Problem(3.5, 2.0, 50, batch_size=1.0),
        Problem(3.5, 2.0, 50, batch_size=1e9),
        Problem(3.5, 2.0, 1),
        Problem(3.5, 2.0, 50, eta_max=1e-6),
        Problem(3.5, 2.0, 50, features=1),
        Problem(3.5, 2.0, 50, features=np.inf),
        Problem(3.5, 2.0, 50, noise=100.0),
        Problem(horizon=50, spectrum=TabulatedSpectrum(np.array([0.7]), np.array([1.0]))),
        Problem(horizon=50, spectrum=TabulatedSpectrum(np.array([5.0, 0.1]), np.array([0.0, 1.0]))),
    ],
)
def test_edge_cases(problem: Problem) -> None:
    rates = shapes(problem, np.random.default_rng(1), 400)
    best = min(float(problem.modes.mu.sum()), float(losses(problem, rates).min()))
    assert 0.0 < bound_of(problem, 1.05 * best) <= best * (1.0 + 1e-9)


def test_huge_horizon() -> None:
    problem = Problem(3.5, 2.0, 10**9)
    best = 8.05361021e-08
    assert 0.99 * best < bound_of(problem, best) <= best
    assert bound_of(problem, 1.03 * best) <= best


def table_of(problem: Problem, continuous: bool = False) -> module.Generators:
    case = module.Case(
        problem.modes,
        problem.batch_size,
        problem.noise**2,
        problem.eta_cap,
        problem.horizon,
        1.0,
        continuous,
    )
    return module.Generators(case, 1e-3, 2.0)


@pytest.mark.parametrize("batch_size", [1.0, 5.0, 1e6])
def test_exponential_of_the_generator_is_the_step(
    batch_size: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = Problem(3.0, 1.5, 100, features=12, batch_size=batch_size, eta_max=1.3)
    lam, nu, noise = problem.modes.lam, problem.modes.nu, problem.noise**2
    for slow, close in ((0.0, True), (0.2, False)):
        monkeypatch.setattr(module, "SLOW", slow)
        table = table_of(problem)
        own = table.classes
        for i in range(0, len(table.rates), 7):
            eta = float(table.rates[i])
            flow = np.zeros((13, 13))
            flow[:-1] = table.inner[i][own[:-1, None], own] * nu[:, None] * eta
            flow[:-1, -1] *= noise
            flow[np.arange(12), np.arange(12)] += table.decay[i] * eta
            x, c = eta * lam, eta**2 / batch_size
            step = np.diag(np.append((1.0 - x) ** 2 + x**2 / batch_size, 1.0))
            step[:-1] += c * nu[:, None] * np.append(np.ones(12), noise)
            ours = expm(flow)
            assert np.all(ours <= step * (1.0 + 1e-6) + 1e-15)
            if close:
                np.testing.assert_allclose(ours, step, rtol=1e-5, atol=1e-15)


@pytest.mark.parametrize(
    ("a", "b", "horizon"), [(3.5, 2.0, 1000), (2.0, 1.5, 10**4), (4.0, 5.5, 100), (3.0, 4.0, 10**7)]
)
def test_numerical_error(a: float, b: float, horizon: int) -> None:
    problem = Problem(a, b, horizon)
    case = module.Case(problem.modes, 5.0, 0.25, problem.eta_cap, horizon, np.inf, False)
    relaxed = _Relaxed(case, 0.35)
    low, high = 0.25 * case.longest, 0.27 * case.longest
    steps, eta = relaxed.path(0.26 * case.longest)
    table = module.Generators(case, 0.2 * float(eta.min()), 4.0)
    index = table.nearest(eta)
    coarse = module.SupportingBound(table, index, steps)
    fine = module.SupportingBound(table, np.repeat(index, 2), np.repeat(steps / 2.0, 2))
    assert fine.log_excess == pytest.approx(coarse.log_excess, abs=1e-9)
    # The inequality is an equality at the reference ...
    rates, rows = table.rates[np.repeat(index, 3)], np.arange(3 * len(index))
    here = (coarse.jumps + coarse.decay)[rows, 2 * np.repeat(index, 3)].sum() + coarse.base
    assert here == pytest.approx(coarse.log_excess, abs=1e-4)
    assert (coarse.time / rates).sum() == pytest.approx((steps / table.rates[index]).sum())
    # ... and its minimum does not depend on the grid.
    assert fine.cell(low, high) == pytest.approx(coarse.cell(low, high), rel=1e-4)


def test_ode() -> None:
    problem = Problem(2.5, 1.5, 200, features=20, batch_size=3.0, eta_max=0.6)
    lam, mu, nu = problem.modes
    best = np.inf
    for eta in np.geomspace(0.05, 0.6, 8):
        for tail in np.linspace(0.1, 0.9, 9):
            state = np.append(mu, problem.noise**2)
            for rate, time in ((eta, 200 * (1 - tail)), (0.1 * eta, 200 * tail)):
                flow = np.zeros((21, 21))
                flow[:-1] = (rate**2 / 3.0) * nu[:, None]
                x = rate * lam
                flow[np.arange(20), np.arange(20)] -= 2.0 * x - (4.0 / 3.0) * x**2
                state = expm(flow * time) @ state
            best = min(best, float(state[:-1].sum()))
    assert 0.7 * best < bound_of(problem, 1.1 * best, continuous=True) <= best


@pytest.mark.parametrize("batch_size", [1.0, 1e2, 1e8, 1e12])
@pytest.mark.parametrize("eta_max", [1.03, 1.57])
@pytest.mark.parametrize("rate", [0.97, 0.99995])
def test_one_mode_is_not_bounded_above_its_dip(
    batch_size: float, eta_max: float, rate: float
) -> None:
    """The factor of a step has a minimum that is the narrower the larger the batch."""
    problem = Problem(2, 2, 2, 1, batch_size, noise=0.0, eta_max=eta_max)
    found = verify(problem, Schedule.from_array([min(rate, eta_max)] * 2))
    # One mode without label noise: (1 - x)^2 + 2 x^2 / m, least at x = 1 / (1 + 2 / m).
    x = min(1.0 / (1.0 + 2.0 / batch_size), eta_max)
    best = ((1.0 - x) ** 2 + 2.0 * x**2 / batch_size) ** 2
    assert 0.0 < found.lower_bound <= best * (1.0 + 1e-9)
