"""`solve`: geodesic start, mesh, method, refinement, replay, certificate."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optsched.control.certificate import UNDERFLOW, Certificate, global_bound
from optsched.control.descent import projected_gradient, strict_tolerance
from optsched.control.geodesic import Geodesic, relaxed_geodesic
from optsched.control.mesh import StepMesh, graded_mesh, split_mesh
from optsched.control.method import Iterate, Method, Task
from optsched.control.objective import Audit, Objective
from optsched.control.pontryagin import Pontryagin
from optsched.control.problem import Problem
from optsched.control.shooting import Shooting, task_residual
from optsched.control.solution import Solution
from optsched.errors import InvalidProblem, SolveFailed
from optsched.model.ode import ode_excess_loss
from optsched.model.recursion import MAX_STEPS, Replay, replay
from optsched.schedules.schedule import Schedule

__all__ = ["solve"]

Floats = NDArray[np.float64]

# Blocks are halved until their estimated errors of log E sum to less than this.
MESH_TOL = 1e-4
MAX_ROUNDS = 6
LEAST_SHARE = 1e-35  # of the largest rate: 0 for all that the loss can see
MAX_REPLAY_GAP = 0.01  # a loss that its replay contradicts by more is not accepted


@dataclass(frozen=True)
class _Stage:
    """One finished optimisation on one mesh."""

    task: Task
    iterate: Iterate
    gradient: Floats
    residual: float
    tol: float
    audit: Audit


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
    objective = Objective(problem.dynamics, problem.modes, mesh)
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


def _run(method: Method, task: Task, hopeless: bool) -> _Stage:
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
    return _Stage(task, iterate, gradient, residual, _tolerance(task, iterate), audit)


def _refined(stage: _Stage, warmup: int) -> tuple[StepMesh, Floats]:
    """Halve the blocks with more than their share of the error; rates carry over."""
    errors = np.abs(stage.audit.errors)
    mesh = split_mesh(stage.task.mesh, errors > 0.3 * MESH_TOL / len(errors), warmup)
    rates = stage.task.mesh.rates(np.exp(stage.iterate.log_eta), mesh.free_steps)
    return mesh, np.log(rates)


def _optimise(
    problem: Problem, method: Method, path: Geodesic, initial: Schedule | None, tol: float
) -> tuple[_Stage, int]:
    """Optimise on graded meshes, refined until the discretisation error is small."""
    assert problem.spectrum is not None
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
    return stage, evaluations  # pyright: ignore[reportPossiblyUnboundVariable]


def _certificate(problem: Problem, stage: _Stage, played: Replay, gap: float) -> Certificate:
    tiny = played.excess_loss < UNDERFLOW
    bound = global_bound(problem, played.excess_loss, gap)
    model = float(stage.audit.excess[-1])
    missing = []
    if played.error > 0.0:
        missing.append(f"replay was {played.how}: estimated relative error {played.error:.1e}")
    if problem.warmup or problem.eta_min or problem.max_change is not None:
        missing.append("the lower bound ignores warm-up, floor and bounded change (still valid)")
    if stage.residual > stage.tol:
        missing.append("the schedule is not a converged optimum")
    if len(stage.task.mesh.steps) < problem.horizon:
        missing.append("optimality of step values between knots (linear interpolation)")
    return Certificate(
        lower_bound=bound,
        certified_gap=played.excess_loss / bound - 1.0 if bound > 0.0 else 0.0,
        kkt_residual=stage.residual,
        block_errors=stage.audit.errors,
        model_excess_loss=model,
        replay_gap=0.0 if tiny else played.excess_loss / model - 1.0,
        replay_error=played.error,
        replayed=played.how,
        not_checked=tuple(missing),
    )


def _message(
    problem: Problem, stage: _Stage, proof: Certificate, excess_loss: float
) -> tuple[str, str]:
    """Status and a sentence that says what to do next."""
    if excess_loss < UNDERFLOW:
        return "converged", (
            f"The loss is below {UNDERFLOW:.0e}: it underflows, and nothing is left to optimise."
        )
    replay_gap = abs(proof.replay_gap)
    if not replay_gap <= MAX_REPLAY_GAP:
        return "not converged", (
            f"The exact replay differs from the solver's loss by {100 * replay_gap:.2g} %: the"
            " mesh is too coarse for this problem. Try a method with more knots,"
            " such as Pontryagin(knots=400)."
        )
    if stage.residual <= stage.tol:
        text = f"KKT residual {stage.residual:.1e} is within the tolerance {stage.tol:.1e}."
        if problem.eta_cap < problem.eta_max:
            text += (
                f" eta_max {problem.eta_max:g} is above the stability limit of the recursion;"
                f" rates are bounded by {problem.eta_cap:.6g}."
            )
        return "converged", text
    return "not converged", (
        f"KKT residual {stage.residual:.1e} is above the tolerance {stage.tol:.1e} after"
        f" {stage.iterate.stats.get('iterations', 0)} iterations. Try another method, a looser"
        " tol, or start from a solution of a nearby problem with initial=."
    )


def _check_arguments(problem: Any, method: Any, tol: Any, gap: Any, initial: Any) -> None:
    """Refuse arguments of the wrong type or range."""
    if not isinstance(problem, Problem):
        raise InvalidProblem("problem", type(problem).__name__, "an optsched.Problem")
    if not (method is None or isinstance(method, Method)):
        allowed = "a method object: Pontryagin(), Collocation() or Shooting()"
        raise InvalidProblem("method", method, allowed)
    for name, value in (("tol", tol), ("gap", gap)):
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
    tol: float = 1e-6,
    initial: Schedule | Solution | None = None,
    throw: bool = True,
    gap: float = 0.02,
    replay_steps: int = MAX_STEPS,
) -> Solution:
    r"""Solve for the learning-rate schedule that minimises the excess loss at the horizon.

    Parameters
    ----------
    problem : Problem
    method : Method, optional
        `Pontryagin` unless the problem bounds the rate of change, then `Shooting`.
    tol : float
        Largest allowed KKT residual: entry of the projected gradient of log E in log eta.
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
    if isinstance(initial, Solution):
        initial = initial.schedule
    modes = problem.modes
    path = relaxed_geodesic(
        modes, problem.batch_size, problem.noise**2, problem.eta_cap, problem.horizon
    )
    stage, evaluations = _optimise(problem, method, path, initial, tol)
    x, mesh = stage.iterate.log_eta, stage.task.mesh
    eta = mesh.knots(np.exp(x))
    spectrum = problem.spectrum
    assert spectrum is not None
    plain = Schedule.from_knots(mesh.steps, eta=eta, horizon=problem.horizon)
    played = replay(
        spectrum,
        problem.dynamics,
        plain,
        modes=modes,
        max_steps=replay_steps,
    )
    proof = _certificate(problem, stage, played, gap)
    status, message = _message(problem, stage, proof, played.excess_loss)
    stats = {
        **stage.iterate.stats,
        "evaluations": evaluations,
        "controls": mesh.controls,
        "modes": len(modes.lam),
    }
    j = len(modes.lam)
    draft = Solution(
        problem=problem,
        method=method.name,
        status=status,
        message=message,
        excess_loss=played.excess_loss,
        bias=played.bias,
        variance=played.variance,
        ode_excess_loss=ode_excess_loss(modes, problem.dynamics, plain),
        t=mesh.steps,
        controls={"eta": eta},
        modes=np.array(modes.lam),
        states=stage.audit.states[:, :j, 0],
        costates=stage.audit.costates[:, :j, 0],
        residuals=projected_gradient(x, stage.gradient, stage.task.lower, stage.task.upper),
        schedule=plain,
        replay=played,
        certificate=proof,
        history=[(math.exp(v), r) for v, r in stage.iterate.history],
        stats=stats,
    )
    stats["seconds"] = time.perf_counter() - began
    schedule = plain.replace(metadata={"solution": draft.summary()})
    solution = Solution(**{**vars(draft), "schedule": schedule})
    if throw and not solution.converged:
        raise SolveFailed(message, solution)
    return solution
