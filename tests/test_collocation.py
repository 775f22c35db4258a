"""Tests of the Radau transcription, its derivatives, and the collocation method."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

pytest.importorskip("casadi")

from optsched.control.bounds.geodesic import relaxed_geodesic
from optsched.control.mesh import graded_mesh
from optsched.control.methods.collocation import Collocation
from optsched.control.methods.descent import projected_descent
from optsched.control.methods.radau import radau
from optsched.control.methods.transcription import Transcription
from optsched.control.problem import Problem
from optsched.control.task import Iterate, Task
from optsched.control.traced import TracedObjective
from optsched.model.dynamics import SGDDynamics
from optsched.model.spectrum import PowerLawSpectrum


def make_task(problem: Problem, knots: int = 40, tol: float = 1e-7) -> Task:
    """Task on a graded mesh, started on the relaxed geodesic."""
    path = relaxed_geodesic(
        problem.modes, problem.batch_size, problem.noise**2, problem.eta_cap, problem.horizon
    )
    mesh = graded_mesh(path, problem.horizon, knots, 1.0, problem.warmup)
    n = mesh.controls
    own = mesh.steps[len(mesh.steps) - n :]
    start = np.log(np.interp(own, path.t, path.eta))
    low = math.log(problem.eta_min) if problem.eta_min > 0.0 else -math.inf
    objective = TracedObjective(problem.dynamics, problem.modes, mesh)
    upper = np.full(n, math.log(problem.eta_cap))
    return Task(problem, mesh, objective, start, np.full(n, low), upper, tol)


def transcribe(task: Task, **options: Any) -> Transcription:
    """Transcription of a task around its start."""
    assert isinstance(task.objective.dynamics, SGDDynamics)
    return Transcription(
        task.objective.dynamics,
        task.problem.modes,
        task.mesh,
        task.start,
        task.lower,
        task.upper,
        max_change=task.problem.max_change,
        **options,
    )


def excess_of(task: Task, log_eta: np.ndarray) -> float:
    """Excess loss on the mesh."""
    return math.exp(task.objective(log_eta)[0])


@pytest.fixture
def tiny() -> Task:
    """Three modes, short and long blocks, a warm-up and active bounds on the change."""
    spectrum = PowerLawSpectrum(2.0, 1.5, 3)
    problem = Problem(spectrum=spectrum, horizon=60, warmup=3, max_change=0.02, batch_size=2.0)
    return make_task(problem, knots=9)


@pytest.mark.parametrize("stages", [1, 2, 3, 5])
def test_radau_differentiates_polynomials(stages: int) -> None:
    points, matrix = radau(stages)
    nodes = np.append(0.0, points)
    assert points[-1] == 1.0
    for power in range(stages + 1):
        slope = power * points ** max(power - 1, 0)
        np.testing.assert_allclose(matrix @ nodes**power, slope, atol=1e-11)
    if stages == 3:
        np.testing.assert_allclose(points[:2], [(4 - 6**0.5) / 10, (4 + 6**0.5) / 10])


def test_unit_steps_are_the_recursion() -> None:
    task = make_task(Problem(2.5, 1.5, horizon=7))
    program = transcribe(task)
    modes, m, sigma2 = task.problem.modes, task.problem.batch_size, task.problem.noise**2
    e, states = modes.mu, []
    for eta in np.exp(task.start):
        x = eta * modes.lam
        loss = sigma2 + e.sum()
        e = (1 - 2 * x + (1 + 1 / m) * x**2) * e + eta**2 / m * modes.nu * loss
        states.append(e)
    assert program.count == 7
    x = program.x0
    # x0 holds the scheme's own trajectory: it must be this recursion.
    np.testing.assert_allclose(program.states(x)[1:], states, rtol=1e-12)
    assert np.abs(program.constraints(x)).max() < 1e-13
    assert program.objective(x) == pytest.approx(math.log(e.sum()), abs=1e-12)
    assert program.objective(x) == pytest.approx(task.objective(task.start)[0], abs=1e-12)


@pytest.mark.parametrize("stages", [1, 3, 4])
def test_start_is_feasible(tiny: Task, stages: int) -> None:
    program = transcribe(tiny, stages=stages)
    equations = program.row_lower == program.row_upper
    assert np.abs(program.constraints(program.x0)[equations]).max() < 1e-12


def test_accuracy_on_long_blocks() -> None:
    task = make_task(Problem(3.5, 2.0, horizon=10**6), knots=60)
    coarse, fine = (
        abs(program.objective(program.x0) - task.objective(task.start)[0])
        for program in (transcribe(task, stages=s) for s in (1, 3))
    )
    assert fine < 1e-3
    assert fine < 0.1 * coarse


def perturbed(program: Transcription) -> np.ndarray:
    """A point off the start, where no derivative vanishes by accident."""
    rng = np.random.default_rng(3)
    return program.x0 + 0.1 * rng.standard_normal(len(program.x0))


def test_jacobian_against_differences(tiny: Task) -> None:
    program = transcribe(tiny, stages=2, metric=tiny.objective(tiny.start)[2])
    x = perturbed(program)
    assert len(program.row_lower) > program.count * (program.width + 1)  # change rows are there
    exact = program.jacobian_pattern.dense(program.jacobian(x))
    gradient = program.gradient(x)
    h = 1e-6
    for i, unit in enumerate(np.eye(len(x))):
        high, low = x + h * unit, x - h * unit
        column = (program.constraints(high) - program.constraints(low)) / (2 * h)
        np.testing.assert_allclose(exact[:, i], column, atol=2e-8, rtol=1e-6)
        slope = (program.objective(high) - program.objective(low)) / (2 * h)
        assert gradient[i] == pytest.approx(slope, abs=1e-8)


def test_hessian_against_differences(tiny: Task) -> None:
    program = transcribe(tiny, stages=3, metric=tiny.objective(tiny.start)[2])
    x = perturbed(program)
    rng = np.random.default_rng(4)
    multipliers = rng.standard_normal(len(program.row_lower))
    upper = program.hessian_pattern.dense(program.hessian(x, 0.7, multipliers))
    assert np.all(np.tril(upper, -1) == 0.0)
    exact = upper + np.triu(upper, 1).T

    def slope(at: np.ndarray) -> np.ndarray:
        jacobian = program.jacobian_pattern.dense(program.jacobian(at))
        return 0.7 * program.gradient(at) + multipliers @ jacobian

    h = 1e-6
    for i, unit in enumerate(np.eye(len(x))):
        column = (slope(x + h * unit) - slope(x - h * unit)) / (2 * h)
        np.testing.assert_allclose(exact[:, i], column, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("a", "b", "horizon", "within"),
    [(3.5, 2.0, 1000, 1e-4), (3.5, 5.0, 1000, 1e-4), (3.5, 2.0, 5, 1e-7), (1.5, 2.0, 1, 1e-7)],
)
def test_agrees_with_descent(a: float, b: float, horizon: int, within: float) -> None:
    task = make_task(Problem(a, b, horizon))
    iterate = Collocation().run(task)
    other = projected_descent(task.objective, task.start, task.lower, task.upper, tol=1e-8)
    assert iterate.converged, iterate.message
    assert excess_of(task, iterate.x) <= math.exp(other.value) * (1 + within)
    # The program's own loss differs by the error of the discretisation; none on single steps.
    own = iterate.stats["excess_loss"]
    assert own == pytest.approx(math.exp(other.value), rel=1e-6 if horizon < 40 else 1e-3)
    assert iterate.history[-1][1] <= task.tol
    assert len(iterate.history) >= iterate.stats["iterations"]


def test_far_horizon_and_large_batch() -> None:
    task = make_task(Problem(1.5, 2.0, 10**9, batch_size=300.0))
    iterate = Collocation().run(task)
    other = projected_descent(task.objective, task.start, task.lower, task.upper, tol=1e-7)
    assert iterate.converged, iterate.message
    # Before solve() polishes it; 0.11 % here, as the descent also tunes rates of little influence.
    assert excess_of(task, iterate.x) <= math.exp(other.value) * (1 + 2e-3)


def changes(task: Task, iterate: Iterate) -> np.ndarray:
    """Changes of the rate per step between knots."""
    return np.diff(task.mesh.knots(np.exp(iterate.x))) / np.diff(task.mesh.steps)


@pytest.mark.parametrize("warmup", [0, 20])
def test_max_change_is_honoured(warmup: int) -> None:
    bound = 4e-3
    free = make_task(Problem(3.5, 5.0, 1000, warmup=warmup))
    task = make_task(Problem(3.5, 5.0, 1000, warmup=warmup, max_change=bound))
    unbound, iterate = Collocation().run(free), Collocation().run(task)
    assert iterate.converged, iterate.message
    assert np.abs(changes(free, unbound)).max() > bound
    assert np.abs(changes(task, iterate)).max() <= bound * (1 + 1e-9)
    assert np.abs(changes(task, iterate)).max() > 0.99 * bound  # it binds
    best, bounded = excess_of(free, unbound.x), excess_of(task, iterate.x)
    assert best < bounded < 3.0 * best


def test_loose_max_change_changes_nothing() -> None:
    free = make_task(Problem(3.5, 2.0, 300))
    task = make_task(Problem(3.5, 2.0, 300, max_change=10.0))
    ours, theirs = Collocation().run(task), Collocation().run(free)
    np.testing.assert_allclose(ours.x, theirs.x, atol=1e-8)


def test_warmup_and_floor() -> None:
    task = make_task(Problem(3.5, 2.0, 300, warmup=30, eta_min=5e-3))
    iterate = Collocation().run(task)
    other = projected_descent(task.objective, task.start, task.lower, task.upper, tol=1e-8)
    assert iterate.converged, iterate.message
    assert np.exp(iterate.x).min() >= 5e-3 * (1 - 1e-12)
    assert excess_of(task, iterate.x) <= math.exp(other.value) * (1 + 1e-4)


def test_non_convergence_is_reported() -> None:
    task = make_task(Problem(3.5, 5.0, 1000))
    iterate = Collocation(max_iterations=1).run(task)
    assert not iterate.converged
    assert "limit of iterations" in iterate.message
    assert iterate.stats["iterations"] == 1
    assert task.objective(iterate.x)[0] <= task.objective(task.start)[0] + 1e-12


def test_contradicting_bounds_are_reported() -> None:
    # The ramp to the floor alone is steeper than allowed.
    problem = Problem(3.5, 2.0, 100, warmup=4, eta_min=0.4, max_change=1e-3)
    iterate = Collocation().run(make_task(problem))
    assert not iterate.converged
    assert iterate.message.endswith(".")


def test_is_silent(capfd: pytest.CaptureFixture[str]) -> None:
    Collocation().run(make_task(Problem(3.5, 2.0, 5)))
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""


def test_refuses_other_dynamics() -> None:
    task = make_task(Problem(3.5, 2.0, 5))
    task.objective.dynamics = SGDDynamics(5.0, 0.25, continuous=True)
    with pytest.raises(TypeError, match="recursion of plain SGD"):
        Collocation().run(task)
