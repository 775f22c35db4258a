r"""The schedule that minimises the predicted final loss: a control problem for the solvers.

The controls are the log rates at the knots of a mesh that is graded along the relaxed optimum
(`optsched.pilot.planning.relaxed`); the descent, its metric and the residual are those of
`optsched.solve` (`optsched.control`). The result is replayed with every step, and a law whose noise
is additive carries a lower bound that no schedule can beat.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from optsched.arrays import Floats
from optsched.checks import decay, is_number, whole
from optsched.control.bounds.geodesic import Geodesic
from optsched.control.mesh import StepMesh, graded_mesh
from optsched.control.methods.descent import Descent, projected_descent
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem, SolveFailed
from optsched.pilot.fitting import Fit
from optsched.pilot.pieces import check_rate, cut
from optsched.pilot.planning.objective import Past, PlanObjective, PlanTask
from optsched.pilot.planning.relaxed import Relaxed
from optsched.pilot.planning.rivals import joined
from optsched.pilot.prediction import check_described, checked_level, other_peak, predict
from optsched.schedules.schedule import Schedule

__all__ = ["Plan", "Robust", "plan"]

Robust = Literal["none", "mean", "worst"]

KNOTS = 80
TOL = 1e-5
LEAST = 1e-9  # of the cap: 0 for all that a law can see
ROBUST_MEMBERS = 15
SOFT = 0.02  # of the excess loss: width of the soft maximum over the members


@dataclass(frozen=True, eq=False)
class Plan:
    """The best schedule under a fitted law.

    Attributes
    ----------
    schedule : Schedule
        Of the whole run, what was done before included.
    loss, lower, upper : float
        Predicted final loss and its interval, of a replay with every step (up to 10^7 of them).
    level : float
        Of the interval.
    lower_bound : float
        Predicted final loss that no schedule within the bounds can beat under this law; NaN where
        none is known (momentum and multi-power laws, robust plans).
    residual : float
        KKT residual: largest entry of the projected gradient of the log excess in the log rates.
    replay_gap : float
        Loss of the replay minus that of the solver, in nats.
    robust : str
    cap : float
        Upper bound of the rates.
    warnings : tuple of str
    """

    schedule: Schedule
    loss: float
    lower: float
    upper: float
    level: float
    lower_bound: float
    residual: float
    replay_gap: float
    robust: str
    cap: float
    warnings: tuple[str, ...]

    @property
    def gap(self) -> float:
        """Final loss minus its lower bound, in nats: no schedule is better by more."""
        return self.loss - self.lower_bound


def _mesh(task: PlanTask, path: Relaxed | None) -> tuple[StepMesh, Floats]:
    """Mesh graded along the relaxed optimum, and log rates of its free knots there."""
    free = task.steps - task.warmup
    if path is None:
        # Without a path: a decay over the last fifth.
        left = np.geomspace(0.5, free, 400)
        rate = task.cap * np.minimum(1.0, left / (0.2 * free))
        tau = np.cumsum(np.append(0.0, np.diff(left[::-1] * -1.0))) * task.cap
        geodesic = Geodesic(0.0, tau, np.maximum(rate[::-1], 1e-3 * task.cap), free - left[::-1],
                            np.ones(400))  # fmt: skip
        fast = 50.0 / max(tau[-1], 1e-300)
    else:
        scale = task.found.scale
        left = path.left * scale.span * (free / (path.left[-1] * scale.span))
        order = slice(None, None, -1)
        tau = path.togo[-1] - path.togo[order]
        geodesic = Geodesic(
            0.0, tau, path.rate[order] * scale.rate, free - left[order], np.ones(len(left))
        )
        fast = 0.5 * math.exp(task.found.parameters["log_speed"][0])
    times = geodesic.t + task.warmup
    mesh = graded_mesh(
        Geodesic(0.0, geodesic.tau, geodesic.eta, times, geodesic.low),
        task.steps,
        KNOTS,
        fast,
        task.warmup,
    )
    eta = np.interp(mesh.free_steps, times, geodesic.eta)
    return mesh, np.log(np.clip(eta, LEAST * task.cap, task.cap))


def _past(found: Fit, history: Schedule | None, start: int) -> Past:
    if history is None or start == 0:
        return Past(np.zeros(0), np.zeros(0))
    pieces = cut(history, np.array([start]), found.scale, change=0.005)
    return Past(pieces.rate[1], pieces.length)


def _checked(
    found: Fit,
    horizon: Any,
    peak: float | None,
    warmup: Any,
    floor: float,
    start: Any,
    history: Schedule | None,
    extrapolate: bool,
) -> tuple[PlanTask, list[str]]:
    if not found.law.plannable:
        # As that of the multi-power law, which falls without limit where tiny rates change.
        allowed = "a law whose loss has a least: fsl-norm, fsl, fsl-sgd, features or momentum"
        raise InvalidProblem("law", found.law.name, allowed)
    check_described(found)
    horizon = whole("horizon", horizon, 1, MAX_HORIZON)
    start = whole("from_step", start, 0, horizon - 1)
    if (start > 0) != (history is not None):
        allowed = "given together with history: the schedule up to there"
        raise InvalidProblem("from_step", start, allowed)
    warmup = whole("warmup", warmup, 0, horizon - start - 1)
    if history is not None:
        if history.horizon < start:
            allowed = f"{start} steps at least, from_step"
            raise InvalidProblem("history", f"{history.horizon} steps", allowed)
        if warmup:
            raise InvalidProblem("warmup", warmup, "0 when a run is continued")
    if peak is None:
        peak = found.peaks[1] if history is None else max(history.peak, found.peaks[0])
    if not (is_number(peak) and math.isfinite(peak) and peak > 0.0):
        raise InvalidProblem("peak", peak, "a finite number > 0")
    if not (is_number(floor) and math.isfinite(floor) and floor >= 0.0):
        raise InvalidProblem("floor", floor, "a finite number >= 0")
    check_rate(peak, found.scale)
    if not floor < peak:
        raise InvalidProblem("floor", floor, f"a number below the peak, {peak:g}")
    text = other_peak(found, peak)
    if text is not None and not extrapolate:
        low, high = found.peaks
        allowed = f"{low:.6g} to {high:.6g}, the peaks of the runs, or any with extrapolate=True"
        raise InvalidProblem("peak", peak, allowed)
    warnings = [] if text is None else [text]
    past = _past(found, history, start)
    return PlanTask(found, horizon, start, warmup, float(peak), float(floor), past), warnings


def _objective(task: PlanTask, robust: str) -> tuple[PlanObjective, Floats, float]:
    """Objective, start, and lower bound (NaN if there is none)."""
    found = task.found
    path = task.relaxed(found.theta)
    mesh, start = _mesh(task, path)
    level = found.law.parameters.index("level")
    if robust == "none":
        floors = np.array([found.theta[level]])
        bound = math.nan if path is None else path.loss
        return PlanObjective(task, mesh, [found.theta], floors), start, bound
    thetas = [found.theta, *found.members[:ROBUST_MEMBERS]]
    if robust == "mean":
        floors = np.array([theta[level] for theta in thetas])
        return PlanObjective(task, mesh, thetas, floors), start, math.nan
    paths = [task.relaxed(theta) for theta in thetas]
    if any(one is None for one in paths):
        raise InvalidProblem("robust", robust, "none or mean with this law, which has no bound")
    floors = np.array([one.loss for one in paths if one is not None])
    objective = PlanObjective(task, mesh, thetas, floors)
    objective.size = max(float(np.median(floors - np.array([t[level] for t in thetas]))), 1e-12)
    objective.soft = SOFT * objective.size
    return objective, start, math.nan


def plan(
    found: Fit,
    horizon: int,
    *,
    peak: float | None = None,
    warmup: int | None = None,
    floor: float = 0.0,
    momentum: float | None = None,
    robust: Robust = "none",
    from_step: int = 0,
    history: Schedule | None = None,
    extrapolate: bool = False,
    level: float = 0.8,
    throw: bool = True,
) -> Plan:
    r"""Minimise the predicted final loss over the learning rates of a run.

    Parameters
    ----------
    found : Fit
    horizon : int
        Number of steps of the whole run.
    peak : float, optional
        Upper bound of the rate; the largest peak of the pilot runs if not given.
    warmup : int, optional
        Steps of a linear ramp to the rate at its end: step k has ``(k+1)/(warmup+1)`` of it. That
        of the pilot runs if not given, and none where a run is continued.
    floor : float
        Lower bound of the rate after the warm-up.
    momentum : float, optional
        Held momentum in [0, 1), written into the schedule as it is; no law here depends on it.
    robust : {"none", "mean", "worst"}
        Minimise the loss of the fit, its mean over the ensemble, or the largest regret over the
        ensemble: the loss under a member minus the least that is possible under it (a soft
        maximum).
    from_step : int
        Plan the rest of a run after so many steps of ``history``.
    history : Schedule, optional
    extrapolate : bool
        Allow a peak that is not one of the runs; the plan then carries a warning.
    level : float
        Of the interval.
    throw : bool
        Raise when the solver does not converge; otherwise return what it has.

    Returns
    -------
    Plan

    Raises
    ------
    InvalidProblem
        A field out of range, or a peak outside of those of the runs.
    SolveFailed
        The descent did not converge.
    """
    if robust not in ("none", "mean", "worst"):
        raise InvalidProblem("robust", robust, "one of none, mean, worst")
    if robust != "none" and len(found.members) == 0:
        raise InvalidProblem("robust", robust, "none for a fit without members")
    checked_level(level)
    if momentum is not None:
        decay("momentum", momentum)
    if warmup is None:
        warmup = found.warmup if history is None else 0
    task, warnings = _checked(found, horizon, peak, warmup, floor, from_step, history, extrapolate)
    objective, start, bound = _objective(task, robust)
    low = np.full(len(start), math.log(max(task.floor, LEAST * task.cap)))
    high = np.full(len(start), math.log(task.cap))
    result = projected_descent(objective, start, low, high, tol=TOL, max_iterations=500, memory=40)
    eta = np.minimum(objective.mesh.knots(np.exp(result.x)), task.cap)
    schedule = _schedule(task, objective.mesh, eta, history, momentum)
    told = predict(found, schedule, [task.horizon], level=level)
    mine = float(objective.losses(result.x)[0][0])
    out = Plan(
        schedule=schedule,
        loss=float(told.loss[0]),
        lower=float(told.lower[0]),
        upper=float(told.upper[0]),
        level=level,
        lower_bound=bound,
        residual=result.residual,
        replay_gap=float(told.loss[0]) - mine,
        robust=robust,
        cap=task.cap,
        warnings=(*warnings, *(w for w in told.warnings if w not in warnings)),
    )
    if throw and not _settled(result, out):
        raise SolveFailed(
            f"The plan's KKT residual is {result.residual:.1e}, above {TOL:.0e}, after"
            f" {len(result.history)} iterations. Pass throw=False to have it all the same."
        )
    return out


def _settled(result: Descent, out: Plan) -> bool:
    """Converged, or so near to the bound that nothing is left to gain."""
    return result.converged or out.gap < 1e-6


def _schedule(
    task: PlanTask, mesh: StepMesh, eta: Floats, history: Schedule | None, momentum: float | None
) -> Schedule:
    """The whole run: history, then the planned steps."""
    rest = Schedule.from_knots(mesh.steps, eta=eta, horizon=task.steps)
    source = {
        "plan": {
            "law": task.found.law.name,
            "runs": [run.name for run in task.found.runs],
            "from_step": task.start,
        }
    }
    return joined(history, task.start, rest).replace(beta=momentum, metadata=source)
