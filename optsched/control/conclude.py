"""From an optimised mesh to a `Solution`: replay, certificate, message."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from optsched.arrays import Floats
from optsched.control.certificate import UNDERFLOW, Certificate, global_bound, global_floor
from optsched.control.goal import Audit
from optsched.control.methods.descent import projected_gradient
from optsched.control.problem import Problem
from optsched.control.rate.constraints import violations
from optsched.control.solution import Solution, Status
from optsched.control.task import Iterate, Task
from optsched.model.dynamics import SGDDynamics
from optsched.model.ode import ode_excess_loss
from optsched.model.replay import Replay, replay
from optsched.schedules.schedule import Schedule

__all__ = ["LEAST_CURVATURE", "Stage", "finished", "replayed"]


LEAST_CURVATURE = -1e-4  # of the largest: below it, a negative curvature is more than rounding
MAX_REPLAY_GAP = 0.01  # a loss that its replay contradicts by more is not accepted


@dataclass(frozen=True, eq=False)
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
    conceded : float
        Relative loss that the schedule gives up against that optimum, to be smooth; gradient,
        residual and curvature are those of the optimum.
    finisher : str, optional
        Name of the method that went on where the one that was asked for had stopped.
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
    conceded: float = 0.0
    finisher: str | None = None

    @property
    def problem(self) -> Problem:
        """Its problem."""
        return self.task.problem

    def schedule(self) -> Schedule:
        """The schedule, with held values, so that a file says it all."""
        mesh, problem = self.task.mesh, self.problem
        full = self.task.objective.controls(self.iterate.x)
        for name, value in problem.optimiser.values(problem.controls).items():
            full.setdefault(name, np.full_like(full["eta"], value))
        return Schedule.from_knots(mesh.steps, full, horizon=problem.horizon)


def _certificate(stage: Stage, played: Replay, gap: float) -> Certificate:
    problem, tiny = stage.problem, played.value < UNDERFLOW
    bound = global_bound(problem, played, gap)
    missing = []
    if played.error > 0.0:
        missing.append(f"replay was {played.how}: estimated relative error {played.error:.1e}")
    if not problem.rate_only:
        room = "and the lower bound leaves room" if bound > 0.0 else "without a bound"
        missing.append(f"global optimality: the best of several local searches, {room}")
        missing.append("schedules that are not linear between the nodes on the log clock")
    elif bound == 0.0 and not tiny:
        missing.append("the lower bound, as losses this small underflow on the way to it")
    elif problem.warmup or problem.eta_min or problem.max_change is not None:
        missing.append("the lower bound ignores warm-up, floor and bounded change (still valid)")
    if bound > 0.0 and not problem.terms.final:
        missing.append("that one schedule can be best at every step, as the lower bound lets it be")
    if stage.residual > stage.tol:
        missing.append("the schedule is not a converged optimum")
    if problem.rate_only and len(stage.task.mesh.steps) < problem.horizon:
        missing.append("optimality of step values between knots (linear interpolation)")
    known = 0.0 if problem.rate_only and tiny else math.inf
    return Certificate(
        lower_bound=bound,
        certified_gap=played.value / bound - 1.0 if bound > 0.0 else known,
        kkt_residual=0.0 if tiny else stage.residual,  # flat as far as numbers go
        block_errors=stage.audit.errors,
        model_excess_loss=stage.audit.value,
        replay_gap=0.0 if tiny else played.value / stage.audit.value - 1.0,
        replay_error=played.error,
        replayed=played.how,
        not_checked=tuple(missing),
        starts=stage.starts,
        floor=global_floor(problem),
        local_optimum=stage.residual <= stage.tol and not stage.curvature < LEAST_CURVATURE,
        curvature=stage.curvature,
        conceded=stage.conceded,
    )


def _status(stage: Stage, proof: Certificate, value: float, broken: bool) -> Status:
    if broken:
        return Status.BROKEN
    if value < UNDERFLOW:
        return Status.UNDERFLOW
    if not abs(proof.replay_gap) <= MAX_REPLAY_GAP:
        return Status.COARSE
    if not stage.residual <= stage.tol:
        return Status.UNFINISHED
    return Status.CONVERGED if proof.local_optimum else Status.SADDLE


def replayed(problem: Problem, schedule: Schedule, replay_steps: int) -> Replay:
    """A schedule of a problem on its exact recursion."""
    dynamics, nodes = problem.dynamics, problem.replay_modes
    options = {"modes": nodes, "max_steps": replay_steps, "objective": problem.terms.objective}
    return replay(problem.spectrum, dynamics, schedule, **options)


def finished(stage: Stage, method: str, gap: float, replay_steps: int, began: float) -> Solution:
    """Replay the schedule of a stage and put the evidence together.

    Parameters
    ----------
    stage : Stage
    method : str
        Name of the method that was asked for.
    gap : float
        At which the global bound is refined no further.
    replay_steps : int
        Largest horizon that is replayed step by step.
    began : float
        Reading of ``time.perf_counter`` at the start of the solve.
    """
    problem, x, plain = stage.problem, stage.iterate.x, stage.schedule()
    modes, played = problem.modes, replayed(problem, plain, replay_steps)
    proof, broken = _certificate(stage, played, gap), violations(problem, plain)
    stats = {
        **stage.iterate.stats,
        "evaluations": stage.evaluations,
        "controls": len(x),
        "modes": len(modes.lam),
        "tolerance": stage.tol,
        "seconds": time.perf_counter() - began,
    }
    j, d = len(modes.lam), stage.audit.states.shape[-1]
    states, costates = stage.audit.states[:, :j], stage.audit.costates[:, :j]
    draft = Solution(
        problem=problem,
        method=method if stage.finisher is None else f"{method}, finished by {stage.finisher}",
        status=_status(stage, proof, played.value, bool(broken)),
        excess_loss=played.excess_loss,
        bias=played.bias,
        variance=played.variance,
        ode_excess_loss=_ode_loss(problem, plain),
        t=stage.task.mesh.steps,
        controls=dict(plain.controls),
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
    schedule = plain.replace(metadata={"solution": draft.summary()})
    return replace(draft, schedule=schedule)


def _ode_loss(problem: Problem, schedule: Schedule) -> float:
    """Loss of the ODE, which is known for plain SGD."""
    dynamics = problem.dynamics
    if problem.foreign or not isinstance(dynamics, SGDDynamics):
        return math.nan
    return ode_excess_loss(problem.modes, dynamics, schedule)
