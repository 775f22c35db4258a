"""The learning rate of plain SGD alone: geodesic start, graded mesh, method, refinement."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from optsched.arrays import Floats
from optsched.control.bounds.geodesic import Geodesic, relaxed_geodesic
from optsched.control.certificate import UNDERFLOW
from optsched.control.conclude import Stage
from optsched.control.mesh import StepMesh, graded_mesh, joined_mesh, split_mesh
from optsched.control.methods.descent import strict_tolerance
from optsched.control.methods.pontryagin import Pontryagin
from optsched.control.methods.shooting import Shooting, task_residual
from optsched.control.problem import Problem
from optsched.control.rate.neighbours import has_fold, switched
from optsched.control.rate.plain import PlainObjective
from optsched.control.task import Iterate, Method, Task, run_method
from optsched.model.dynamics import SGD
from optsched.schedules.schedule import Schedule

__all__ = ["RateOptima", "optimise_rate", "rate_method"]

# Blocks are halved until their estimated errors of log E sum to less than this.
MESH_TOL = 1e-4
MAX_ROUNDS = 6
RATE_TOL = 1e-6
LEAST_SHARE = 1e-35  # of the largest rate: 0 for all that the loss can see


def rate_method(problem: Problem) -> Method:
    """The library's own choice for the learning rate alone."""
    return Pontryagin() if problem.max_change is None else Shooting()


def _paths(problem: Problem) -> list[Geodesic]:
    """The relaxed geodesic to every corner of the objective, the last one to the horizon."""
    m, sigma2, cap = problem.batch_size, problem.noise**2, problem.eta_cap
    ends = problem.terms.corners[1:]
    return [relaxed_geodesic(problem.modes, m, sigma2, cap, int(end)) for end in ends]


def _first_mesh(problem: Problem, paths: list[Geodesic], knots: int) -> StepMesh:
    """Graded towards every corner of the objective."""
    top, warmup = problem.spectrum.largest, problem.warmup
    if len(paths) == 1:
        return graded_mesh(paths[0], problem.horizon, knots, top, warmup)
    meshes = []
    for path, end in zip(paths, problem.terms.corners[1:].tolist(), strict=True):
        meshes.append(graded_mesh(path, end, knots, top, warmup if warmup < end else 0))
    return joined_mesh(meshes, warmup)


def _start_rates(problem: Problem, paths: list[Geodesic], mesh: StepMesh) -> Floats:
    """Log rates of the free controls along the geodesics, kept away from the noise limit."""
    # The geodesic does not see that noise feeds on itself near eta = 2m / trace.
    calm = problem.batch_size / problem.spectrum.trace
    ends, rates = problem.terms.corners[1:], np.zeros(mesh.controls)
    for path, begin, end in zip(paths, [0, *ends[:-1]], ends, strict=True):
        here = (mesh.free_steps >= begin) & (mesh.free_steps < end)
        rates[here] = np.interp(mesh.free_steps[here], path.t, path.eta)
    return np.log(np.minimum(rates, calm))


def _task(problem: Problem, mesh: StepMesh, start: Floats, tol: float) -> Task:
    n = mesh.controls
    # Where a rate of 0 is best, log rates would run away.
    low = math.log(max(problem.eta_min, LEAST_SHARE * problem.eta_cap))
    dynamics = problem.dynamics
    assert isinstance(dynamics, SGD)
    objective = PlainObjective(dynamics, problem.modes, mesh, problem.terms)
    lower, upper = np.full(n, low), np.full(n, math.log(problem.eta_cap))
    return Task(problem, mesh, objective, np.clip(start, lower, upper), lower, upper, tol)


def _polish(task: Task, iterate: Iterate, method: Method) -> Iterate:
    """Finish on the block-exact recursion, where another discretisation stopped."""
    end = method.run(replace(task, start=iterate.x))
    stats = {**iterate.stats, "polish_iterations": end.stats["iterations"]}
    stats.setdefault("excess_loss", math.exp(task.objective(iterate.x)[0]))
    return Iterate(end.x, end.converged, iterate.message, iterate.history + end.history, stats)


def _tolerance(task: Task, iterate: Iterate) -> float:
    return strict_tolerance(task.tol, task.objective(iterate.x)[2])


def _run(method: Method, task: Task, hopeless: bool = False) -> Stage:
    finisher = None
    if hopeless:
        iterate = Iterate(task.start, False, "the optimal loss underflows")
    else:
        iterate = run_method(method, task)
    residual = task_residual(task, iterate.x)
    if not (hopeless or residual <= _tolerance(task, iterate)):
        polisher = rate_method(task.problem)
        polished = _polish(task, iterate, polisher)
        after = task_residual(task, polished.x)
        if after < residual:
            iterate, residual = polished, after
            # Of one and the same method it is only more iterations.
            finisher = None if type(method) is type(polisher) else polisher.name
    _, gradient, _ = task.objective(iterate.x)
    return Stage(
        task,
        iterate,
        gradient,
        residual,
        _tolerance(task, iterate),
        task.objective.audit(iterate.x),
        task.objective.evaluations,
        finisher=finisher,
    )


def _refined(stage: Stage, warmup: int) -> tuple[StepMesh, Floats]:
    """Halve the blocks with more than their share of the error; rates carry over."""
    errors = np.abs(stage.audit.errors)
    mesh = split_mesh(stage.task.mesh, errors > 0.3 * MESH_TOL / len(errors), warmup)
    rates = stage.task.mesh.rates(np.exp(stage.iterate.x), mesh.free_steps)
    return mesh, np.log(rates)


def optimise_rate(problem: Problem, method: Method, initial: Schedule | None, tol: float) -> Stage:
    """Optimise on graded meshes, refined until the discretisation error is small.

    Parameters
    ----------
    problem : Problem
        Of the learning rate of plain SGD alone.
    method : Method
        Improves the rates of one mesh.
    initial : Schedule, optional
        Start from it instead of the relaxed geodesic.
    tol : float
        Wanted KKT residual.
    """
    paths = _paths(problem)
    mesh = _first_mesh(problem, paths, method.knots)
    start = _start_rates(problem, paths, mesh)
    if initial is not None:
        start = np.log(np.maximum(initial(mesh.free_steps), 1e-12 * problem.eta_cap))
    evaluations, finisher = 0, None
    hopeless = paths[0].value < UNDERFLOW
    for _ in range(MAX_ROUNDS):
        stage = _run(method, _task(problem, mesh, start, tol), hopeless)
        evaluations += stage.task.objective.evaluations
        # A mesh that starts from what another method found owes that to it.
        finisher = stage.finisher or finisher
        done = not np.abs(stage.audit.errors).sum() > MESH_TOL
        if done or hopeless or not stage.residual <= stage.tol:
            break
        mesh, start = _refined(stage, problem.warmup)
        if len(mesh.steps) == len(stage.task.mesh.steps):
            break
    stage = replace(stage, evaluations=evaluations, finisher=finisher)  # pyright: ignore[reportPossiblyUnboundVariable]
    return stage if hopeless else _best_neighbour(stage, method)


def _best_neighbour(stage: Stage, method: Method) -> Stage:
    """The stage, or a better local optimum next to it."""
    task, first = stage.task, stage.iterate
    problem = task.problem
    usual = problem.terms.final and problem.max_change is None
    if not (usual and stage.residual <= stage.tol and has_fold(task)):
        return stage
    before = task.objective.evaluations
    start = switched(task, first)
    if start is not None:
        found = _run(Pontryagin(), replace(task, start=start))
        if found.residual <= found.tol:
            history = first.history + found.iterate.history
            iterate = replace(found.iterate, history=history, stats=first.stats)
            finisher = None if type(method) is Pontryagin else Pontryagin.name
            count = stage.evaluations
            stage = replace(found, iterate=iterate, evaluations=count, finisher=finisher)
    return replace(stage, evaluations=stage.evaluations + task.objective.evaluations - before)


class RateOptima:
    """Optimal schedules of the learning rate of plain SGD alone, each solved once."""

    def __init__(self) -> None:
        self._found: dict[int, Schedule] = {}

    def schedule(self, problem: Problem) -> Schedule:
        """The one for a problem; problems differ in their horizons alone."""
        if problem.horizon not in self._found:
            plain = problem.plain
            stage = optimise_rate(plain, rate_method(plain), None, RATE_TOL)
            self._found[problem.horizon] = stage.schedule()
        return self._found[problem.horizon]
