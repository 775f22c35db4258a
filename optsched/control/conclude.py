"""From an optimised mesh to a `Solution`: replay, certificate, message."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats
from optsched.control.certificate import UNDERFLOW, Certificate, global_bound
from optsched.control.goal import Audit
from optsched.control.methods.descent import projected_gradient
from optsched.control.problem import Problem
from optsched.control.solution import Solution
from optsched.control.task import Iterate, Task
from optsched.model.dynamics import SGD
from optsched.model.ode import ode_excess_loss
from optsched.model.replay import Replay, replay
from optsched.schedules.schedule import Schedule

__all__ = ["Stage", "finished"]


LEAST_CURVATURE = -1e-4  # of the largest: below it, a negative curvature is more than rounding
MAX_REPLAY_GAP = 0.01  # a loss that its replay contradicts by more is not accepted


@dataclass(frozen=True)
class Stage:
    """One finished optimisation on one mesh.

    Attributes
    ----------
    task, iterate
    gradient : numpy.ndarray, shape (n,)
        Of log E in the free variables.
    residual, tol : float
        KKT residual, and what is wanted of it.
    audit : Audit
    evaluations : int
        Gradients computed in all.
    starts : tuple of str
        Where local searches began.
    curvature : float
        Lowest eigenvalue of the Hessian of log E in the free variables, in units of the largest;
        NaN where a global bound makes it needless.
    """

    task: Task
    iterate: Iterate
    gradient: Floats
    residual: float
    tol: float
    audit: Audit
    evaluations: int
    starts: tuple[str, ...] = ("relaxed geodesic",)
    curvature: float = math.nan


def _certificate(problem: Problem, stage: Stage, played: Replay, gap: float) -> Certificate:
    tiny = played.excess_loss < UNDERFLOW
    bound = global_bound(problem, played.excess_loss, gap) if problem.rate_only else 0.0
    model = float(stage.audit.excess[-1])
    missing = []
    if played.error > 0.0:
        missing.append(f"replay was {played.how}: estimated relative error {played.error:.1e}")
    if not problem.rate_only:
        missing.append("global optimality: the best of several local searches, without a bound")
        missing.append("schedules that are not linear between the nodes on the log clock")
    elif bound == 0.0 and not tiny:
        missing.append("the lower bound, as losses this small underflow on the way to it")
    elif problem.warmup or problem.eta_min or problem.max_change is not None:
        missing.append("the lower bound ignores warm-up, floor and bounded change (still valid)")
    if stage.residual > stage.tol:
        missing.append("the schedule is not a converged optimum")
    if problem.rate_only and len(stage.task.mesh.steps) < problem.horizon:
        missing.append("optimality of step values between knots (linear interpolation)")
    return Certificate(
        lower_bound=bound,
        certified_gap=_gap(problem, played.excess_loss, bound),
        kkt_residual=stage.residual,
        block_errors=stage.audit.errors,
        model_excess_loss=model,
        replay_gap=0.0 if tiny else played.excess_loss / model - 1.0,
        replay_error=played.error,
        replayed=played.how,
        not_checked=tuple(missing),
        starts=stage.starts,
        local_optimum=stage.residual <= stage.tol and not stage.curvature < LEAST_CURVATURE,
        curvature=stage.curvature,
    )


def _gap(problem: Problem, excess_loss: float, bound: float) -> float:
    if bound > 0.0:
        return excess_loss / bound - 1.0
    return 0.0 if problem.rate_only and excess_loss < UNDERFLOW else math.inf


def _message(
    problem: Problem, stage: Stage, proof: Certificate, excess_loss: float
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
        if not proof.local_optimum:
            text += " The point is no minimum: the loss falls along its lowest curvature."
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


def finished(
    problem: Problem, method: str, stage: Stage, gap: float, replay_steps: int, began: float
) -> Solution:
    """Replay the schedule of a stage and put the evidence together.

    Parameters
    ----------
    problem : Problem
    method : str
        Name of the method.
    stage : Stage
    gap : float
        At which the global bound is refined no further.
    replay_steps : int
        Largest horizon that is replayed step by step.
    began : float
        Reading of ``time.perf_counter`` at the start of the solve.
    """
    spectrum, modes, dynamics = problem.spectrum, problem.modes, problem.dynamics
    assert spectrum is not None
    x, mesh = stage.iterate.log_eta, stage.task.mesh
    controls = _complete(problem, stage.task.objective.controls(x))
    plain = Schedule.from_knots(mesh.steps, controls, horizon=problem.horizon)
    nodes = None if problem.scheduled_momentum else modes
    played = replay(spectrum, dynamics, plain, modes=nodes, max_steps=replay_steps)
    proof = _certificate(problem, stage, played, gap)
    status, message = _message(problem, stage, proof, played.excess_loss)
    stats = {
        **stage.iterate.stats,
        "evaluations": stage.evaluations,
        "controls": len(x),
        "modes": len(modes.lam),
    }
    j, d = len(modes.lam), stage.audit.states.shape[-1]
    states, costates = stage.audit.states[:, :j], stage.audit.costates[:, :j]
    flow = isinstance(dynamics, SGD)
    draft = Solution(
        problem=problem,
        method=method,
        status=status,
        message=message,
        excess_loss=played.excess_loss,
        bias=played.bias,
        variance=played.variance,
        ode_excess_loss=ode_excess_loss(modes, dynamics, plain) if flow else math.nan,
        t=mesh.steps,
        controls=controls,
        modes=np.array(modes.lam),
        states=states[..., 0] if d == 1 else states,
        costates=costates[..., 0] if d == 1 else costates,
        residuals=projected_gradient(x, stage.gradient, stage.task.lower, stage.task.upper),
        schedule=plain,
        replay=played,
        certificate=proof,
        history=[(math.exp(v), r) for v, r in stage.iterate.history],
        stats=stats,
    )
    stats["seconds"] = time.perf_counter() - began
    schedule = plain.replace(metadata={"solution": draft.summary()})
    return Solution(**{**vars(draft), "schedule": schedule})


def _complete(problem: Problem, controls: dict[str, Floats]) -> dict[str, Floats]:
    """The controls at the knots, with held momentum and averaging, so that a file says it all."""
    full = dict(controls)
    beta, nu = problem.held_momentum
    if problem.momentum != "none":
        for name, value in (("beta", beta), ("nu", nu)):
            full.setdefault(name, np.full_like(full["eta"], value))
    if problem.ema is not None:
        full.setdefault("ema", np.full_like(full["eta"], problem.ema))
    return full
