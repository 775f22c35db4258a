"""`solve`: geodesic start, mesh, method, refinement, replay, certificate."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

import numpy as np

from optsched.arrays import Floats
from optsched.control.bounds.geodesic import Geodesic, relaxed_geodesic
from optsched.control.certificate import UNDERFLOW, UNREFINED
from optsched.control.conclude import Stage, finished
from optsched.control.mesh import StepMesh, graded_mesh, split_mesh
from optsched.control.methods.descent import strict_tolerance
from optsched.control.methods.neighbours import has_fold, switched
from optsched.control.methods.pontryagin import Pontryagin
from optsched.control.methods.shooting import Shooting, task_residual
from optsched.control.plain import PlainObjective
from optsched.control.problem import Problem
from optsched.control.solution import Solution
from optsched.control.task import Iterate, Method, Task
from optsched.errors import InvalidProblem, SolveFailed
from optsched.model.dynamics import SGD
from optsched.model.replay import MAX_STEPS
from optsched.schedules.schedule import Schedule

__all__ = ["solve"]


# Blocks are halved until their estimated errors of log E sum to less than this.
MESH_TOL = 1e-4
MAX_ROUNDS = 6
LEAST_SHARE = 1e-35  # of the largest rate: 0 for all that the loss can see
JOINT_TOL = 1e-5
JOINT_MEMORY = 80
BLOCK_REPLAY = 1e-3  # error of a replay by blocks, generously
ROUNDING = 1e-9  # relative difference of two replays of the same schedule
ALIKE = 1e-6  # relative difference up to which a converged solution is preferred


def _start_rates(problem: Problem, path: Geodesic, mesh: StepMesh) -> Floats:
    """Log rates of the free controls along the geodesic, kept away from the noise limit."""
    assert problem.spectrum is not None
    # The geodesic does not see that noise feeds on itself near eta = 2m / trace.
    calm = problem.batch_size / problem.spectrum.trace
    return np.log(np.minimum(np.interp(mesh.free_steps, path.t, path.eta), calm))


def _task(problem: Problem, mesh: StepMesh, start: Floats, tol: float) -> Task:
    n = mesh.controls
    # Where a rate of 0 is best, log rates would run away.
    low = math.log(max(problem.eta_min, LEAST_SHARE * problem.eta_cap))
    dynamics = problem.dynamics
    assert isinstance(dynamics, SGD)
    objective = PlainObjective(dynamics, problem.modes, mesh)
    lower, upper = np.full(n, low), np.full(n, math.log(problem.eta_cap))
    return Task(problem, mesh, objective, np.clip(start, lower, upper), lower, upper, tol)


def _polish(task: Task, iterate: Iterate) -> Iterate:
    """Finish on the block-exact recursion, where another discretisation stopped."""
    near = replace(task, start=iterate.log_eta)
    end = (Pontryagin() if task.problem.max_change is None else Shooting()).run(near)
    stats = {**iterate.stats, "polish_iterations": end.stats["iterations"]}
    stats.setdefault("excess_loss", math.exp(task.objective(iterate.log_eta)[0]))
    return Iterate(
        end.log_eta, end.converged, iterate.message, iterate.history + end.history, stats
    )


def _tolerance(task: Task, iterate: Iterate) -> float:
    return strict_tolerance(task.tol, task.objective(iterate.log_eta)[2])


def _run(method: Method, task: Task, hopeless: bool) -> Stage:
    if hopeless:
        iterate = Iterate(task.start, False, "the optimal loss underflows")
    else:
        iterate = method.run(task)
    residual = task_residual(task, iterate.log_eta)
    if not (hopeless or residual <= _tolerance(task, iterate)):
        finished = _polish(task, iterate)
        after = task_residual(task, finished.log_eta)
        if after < residual:
            iterate, residual = finished, after
    _, gradient, _ = task.objective(iterate.log_eta)
    audit = task.objective.audit(iterate.log_eta)
    evaluations = task.objective.evaluations
    return Stage(task, iterate, gradient, residual, _tolerance(task, iterate), audit, evaluations)


def _refined(stage: Stage, warmup: int) -> tuple[StepMesh, Floats]:
    """Halve the blocks with more than their share of the error; rates carry over."""
    errors = np.abs(stage.audit.errors)
    mesh = split_mesh(stage.task.mesh, errors > 0.3 * MESH_TOL / len(errors), warmup)
    rates = stage.task.mesh.rates(np.exp(stage.iterate.log_eta), mesh.free_steps)
    return mesh, np.log(rates)


def _optimise(problem: Problem, method: Method, initial: Schedule | None, tol: float) -> Stage:
    """Optimise on graded meshes, refined until the discretisation error is small."""
    assert problem.spectrum is not None
    path = relaxed_geodesic(
        problem.modes, problem.batch_size, problem.noise**2, problem.eta_cap, problem.horizon
    )
    mesh = graded_mesh(
        path, problem.horizon, method.knots, problem.spectrum.largest, problem.warmup
    )
    start = _start_rates(problem, path, mesh)
    if initial is not None:
        start = np.log(np.maximum(initial(mesh.free_steps), 1e-12 * problem.eta_cap))
    evaluations = 0
    hopeless = path.value < UNDERFLOW
    for _ in range(MAX_ROUNDS):
        stage = _run(method, _task(problem, mesh, start, tol), hopeless)
        evaluations += stage.task.objective.evaluations
        done = not np.abs(stage.audit.errors).sum() > MESH_TOL
        if done or hopeless or not stage.residual <= stage.tol:
            break
        mesh, start = _refined(stage, problem.warmup)
        if len(mesh.steps) == len(stage.task.mesh.steps):
            break
    stage = replace(stage, evaluations=evaluations)  # pyright: ignore[reportPossiblyUnboundVariable]
    return stage if hopeless else _best_neighbour(stage)


def _best_neighbour(stage: Stage) -> Stage:
    """The stage, or a better local optimum next to it."""
    task, first = stage.task, stage.iterate
    if task.problem.max_change is not None or not (stage.residual <= stage.tol and has_fold(task)):
        return stage
    before = task.objective.evaluations
    start = switched(task, first)
    if start is not None:
        found = _run(Pontryagin(), replace(task, start=start), hopeless=False)
        if found.residual <= found.tol:
            history = first.history + found.iterate.history
            iterate = replace(found.iterate, history=history, stats=first.stats)
            stage = replace(found, iterate=iterate, evaluations=stage.evaluations)
    return replace(stage, evaluations=stage.evaluations + task.objective.evaluations - before)


def _optimise_jointly(
    problem: Problem, method: Method, initial: Schedule | None, tol: float
) -> Stage:
    """Optimise several controls from several starts."""
    from optsched.control.joint.search import optimise_joint

    def plain(short: Problem) -> Schedule:
        return solve(short.plain, throw=False, gap=UNREFINED, replay_steps=0).schedule

    if isinstance(method, Pontryagin):
        # Several controls are coupled: more of the curvature is worth its memory.
        method = replace(method, memory=max(method.memory, JOINT_MEMORY))
    return optimise_joint(problem, method, plain, initial, tol)


def _no_worse(
    solution: Solution, method: Method, tol: float, gap: float, replay_steps: int, began: float
) -> Solution:
    """The solution, or a better one from the optimum of the rate alone, which it contains."""
    problem = solution.problem
    plain = solve(problem.plain, throw=False, gap=UNREFINED, replay_steps=0)
    if solution.excess_loss <= (1.0 - BLOCK_REPLAY) * plain.excess_loss:
        return solution
    plain = solve(problem.plain, throw=False, gap=UNREFINED, replay_steps=replay_steps)
    if solution.excess_loss <= plain.excess_loss * (1.0 + ROUNDING):
        return solution
    from optsched.control.joint.search import from_plain

    starts = solution.certificate.starts
    found = [solution]
    for stage in from_plain(problem, method, plain.schedule, tol):
        stage = replace(stage, starts=(*starts, *stage.starts))
        found.append(finished(problem, method.name, stage, gap, replay_steps, began))
    best = min(one.excess_loss for one in found)
    alike = [one for one in found if one.excess_loss <= best * (1.0 + ALIKE)]
    return min(alike, key=lambda one: (not one.certificate.local_optimum, one.excess_loss))


def _check_arguments(problem: Any, method: Any, tol: Any, gap: Any, initial: Any) -> None:
    """Refuse arguments of the wrong type or range."""
    if not isinstance(problem, Problem):
        raise InvalidProblem("problem", type(problem).__name__, "an optsched.Problem")
    if not (method is None or isinstance(method, Method)):
        allowed = "a method object: Pontryagin(), Collocation() or Shooting()"
        raise InvalidProblem("method", method, allowed)
    for name, value in (("tol", 1.0 if tol is None else tol), ("gap", gap)):
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not (number and math.isfinite(value) and value > 0.0):
            raise InvalidProblem(name, value, "a number > 0")
    if initial is None:
        return
    if not isinstance(initial, (Schedule, Solution)):
        raise InvalidProblem("initial", type(initial).__name__, "a Schedule or a Solution")
    horizon = (initial.problem if isinstance(initial, Solution) else initial).horizon
    if horizon != problem.horizon:
        raise InvalidProblem("initial", horizon, f"horizon {problem.horizon}")


def solve(
    problem: Problem,
    method: Method | None = None,
    *,
    tol: float | None = None,
    initial: Schedule | Solution | None = None,
    throw: bool = True,
    gap: float = 0.02,
    replay_steps: int = MAX_STEPS,
) -> Solution:
    r"""Solve for the schedules that minimise the excess loss at the horizon.

    The learning rate of plain SGD alone comes with a global lower bound. Momentum, batch size and
    averaging make the problem non-convex: the solution is the best local optimum of several
    starts, and its certificate says so.

    Parameters
    ----------
    problem : Problem
    method : Method, optional
        `Pontryagin` unless the problem bounds the rate of change, then `Shooting`; with other
        controls than the rate these two improve the nodes of a multi-start search.
    tol : float, optional
        Largest allowed KKT residual: entry of the projected gradient of log E in the free
        variables; 1e-6 for the learning rate of plain SGD, else 1e-5.
    initial : Schedule or Solution, optional
        Start from it instead of the relaxed geodesic; any mesh, same horizon.
    throw : bool
        Raise when the solve does not converge; otherwise return the best iterate.
    gap : float
        The global lower bound is refined until the certified gap is below this, or stays; a
        smaller value costs more time.
    replay_steps : int
        Largest horizon that is replayed step by step; longer ones by exact blocks. Sweeps lower
        it, since step by step costs in proportion to the horizon.

    Returns
    -------
    Solution
        Its ``excess_loss`` is replayed on the exact recursion.

    Raises
    ------
    SolveFailed
        Carrying the best iterate as ``.solution`` and saying what to try.
    InvalidProblem
        If ``tol`` or ``gap`` is not positive, the method cannot honour a constraint, or
        ``initial`` has another horizon.
    """
    began = time.perf_counter()
    _check_arguments(problem, method, tol, gap, initial)
    if method is None:
        method = Pontryagin() if problem.max_change is None else Shooting()
    if problem.max_change is not None and not method.bounds_change:
        raise InvalidProblem("method", method.name, "shooting or collocation with max_change")
    if not (problem.rate_only or method.joint):
        controls = ",".join(problem.controls)
        raise InvalidProblem(
            "method", method.name, f"pontryagin or shooting to schedule {controls}"
        )
    if isinstance(initial, Solution):
        initial = initial.schedule
    if problem.rate_only:
        stage = _optimise(problem, method, initial, 1e-6 if tol is None else tol)
    else:
        stage = _optimise_jointly(problem, method, initial, JOINT_TOL if tol is None else tol)
    solution = finished(problem, method.name, stage, gap, replay_steps, began)
    if problem.contains_plain and initial is None:
        solution = _no_worse(solution, method, stage.tol, gap, replay_steps, began)
    if throw and not solution.converged:
        raise SolveFailed(solution.message, solution)
    return solution
