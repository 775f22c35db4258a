"""`solve`: arguments checked, the search of the problem's kind, replay, certificate."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from typing import Any

from optsched.checks import is_number
from optsched.control.conclude import finished, replayed
from optsched.control.methods.registry import find_method
from optsched.control.problem import Problem
from optsched.control.rate.search import RATE_TOL, RateOptima, optimise_rate, rate_method
from optsched.control.solution import Solution
from optsched.control.task import Method
from optsched.errors import InvalidProblem, SolveFailed
from optsched.model.replay import MAX_STEPS
from optsched.numerics import quiet
from optsched.optimisers.contract import check_blocks
from optsched.schedules.schedule import Schedule

__all__ = ["solve"]

JOINT_TOL = 1e-5
SMOOTH = 1e-3
BLOCK_REPLAY = 1e-3  # error of a replay by blocks, generously
ROUNDING = 1e-9  # relative difference of two replays of the same schedule
ALIKE = 1e-6  # relative difference up to which a converged solution is preferred


def _no_worse(
    solution: Solution,
    method: Method,
    optima: RateOptima,
    tol: float,
    gap: float,
    replay_steps: int,
    began: float,
) -> Solution:
    """The solution, or a better one from the optimum of the rate alone, which it contains."""
    problem = solution.problem
    schedule = optima.schedule(problem)
    quick = replayed(problem.plain, schedule, 0).value
    if solution.value <= (1.0 - BLOCK_REPLAY) * quick:
        return solution
    exact = replayed(problem.plain, schedule, replay_steps).value
    if solution.value <= exact * (1.0 + ROUNDING):
        return solution
    from optsched.control.joint.search import from_plain

    starts = solution.certificate.starts
    found = [solution]
    for stage in from_plain(problem, method, schedule, tol):
        stage = replace(stage, starts=(*starts, *stage.starts))
        found.append(finished(stage, method.name, gap, replay_steps, began))
    best = min(one.value for one in found)
    alike = [one for one in found if one.value <= best * (1.0 + ALIKE)]
    return min(alike, key=lambda one: (not one.certificate.local_optimum, one.value))


def _checked_method(problem: Problem, given: Any) -> Method:
    """The method, if it can do what the problem asks for."""
    method = rate_method(problem) if given is None else find_method(given)
    if problem.max_change is not None and not method.bounds_change:
        raise InvalidProblem("method", method.name, "shooting or collocation with max_change")
    if not (problem.rate_only or method.joint):
        allowed = f"pontryagin or shooting to schedule {','.join(problem.controls)}"
        if problem.foreign:
            allowed += f" of {problem.part}"
        raise InvalidProblem("method", method.name, allowed)
    return method


def _checked_start(problem: Problem, initial: Any) -> Schedule | None:
    """The schedule to start from."""
    if isinstance(initial, Solution):
        initial = initial.schedule
    if initial is None:
        return None
    if not isinstance(initial, Schedule):
        raise InvalidProblem("initial", type(initial).__name__, "a Schedule or a Solution")
    if initial.horizon != problem.horizon:
        raise InvalidProblem("initial", initial.horizon, f"horizon {problem.horizon}")
    return initial


@quiet
def solve(
    problem: Problem,
    method: Method | str | None = None,
    *,
    tol: float | None = None,
    initial: Schedule | Solution | None = None,
    throw: bool = True,
    gap: float = 0.02,
    replay_steps: int = MAX_STEPS,
    smooth: float = SMOOTH,
) -> Solution:
    r"""Solve for the schedules that minimise the excess loss at the horizon.

    The learning rate of plain SGD alone comes with a global lower bound. Momentum, batch size and
    averaging make the problem non-convex: the solution is the best local optimum of several
    starts, and its certificate says so.

    Parameters
    ----------
    problem : Problem
    method : Method or str, optional
        An object or a name: `Pontryagin` unless the problem bounds the rate of change, then
        `Shooting`; with other controls than the rate these two improve the nodes of a multi-start
        search.
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
    smooth : float
        With momentum: share of the best loss found that the schedule may give up to be smooth
        (`optsched.control.joint.smooth`); 0 for the best itself, which zigzags where the loss is
        flat.

    Returns
    -------
    Solution
        Its ``excess_loss`` is replayed on the exact recursion.

    Raises
    ------
    SolveFailed
        Carrying the best iterate as ``.solution`` and saying what to try.
    InvalidProblem
        If ``tol`` or ``gap`` is not positive, ``smooth`` not in [0, 1], the method cannot
        honour a constraint, or ``initial`` has another horizon.
    """
    began = time.perf_counter()
    if not isinstance(problem, Problem):
        raise InvalidProblem("problem", type(problem).__name__, "an optsched.Problem")
    method, start = _checked_method(problem, method), _checked_start(problem, initial)
    tol = (RATE_TOL if problem.rate_only else JOINT_TOL) if tol is None else tol
    for name, value in (("tol", tol), ("gap", gap)):
        if not (is_number(value) and math.isfinite(value) and value > 0.0):
            raise InvalidProblem(name, value, "a number > 0")
    if not (is_number(smooth) and 0.0 <= smooth <= 1.0):
        raise InvalidProblem("smooth", smooth, "a number, 0 to 1")
    if problem.rate_only:
        stage = optimise_rate(problem, method, start, tol)
        solution = finished(stage, method.name, gap, replay_steps, began)
    else:
        # Here and not above: the rate alone needs no compiler.
        from optsched.control.joint.search import optimise_joint

        if problem.foreign:
            check_blocks(problem.part, problem.dynamics, problem.setting)
        optima, coupled = RateOptima(), method.coupled()
        stage = optimise_joint(problem, coupled, optima, start, tol, smooth)
        solution = finished(stage, method.name, gap, replay_steps, began)
        if problem.contains_plain and start is None:
            rest = stage.tol, gap, replay_steps, began
            solution = _no_worse(solution, coupled, optima, *rest)
    if throw and not solution.converged:
        raise SolveFailed(solution.message, solution)
    return solution
