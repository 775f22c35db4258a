r"""The schedule that minimises the predicted final loss: a control problem for the solvers.

The controls are the log rates at the knots of a mesh that is graded along a good path; the descent,
its metric and the residual are those of `optsched.solve` (`optsched.control`). Where the norm of
the weights counts it is a state of the law, whose adjoint is in the derivatives, so that the bound
of the rate stays a bound of the control. The result is replayed with every step, and a law whose
noise is additive carries a lower bound that no schedule can beat. As the least is flat, the plan is
the simplest schedule that the law cannot tell from it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from optsched.arrays import Brief, Floats, Ints
from optsched.checks import decay
from optsched.control.bounds.geodesic import Geodesic
from optsched.control.mesh import StepMesh, graded_mesh
from optsched.control.methods.descent import Descent, projected_descent
from optsched.errors import InvalidProblem, SolveFailed
from optsched.pilot.decays import at_decay
from optsched.pilot.fitting import Fit
from optsched.pilot.laws import NormLaw
from optsched.pilot.pieces import cut
from optsched.pilot.planning.bound import lower_bound, relaxed
from optsched.pilot.planning.objective import PlanObjective
from optsched.pilot.planning.peaks import PeakChoice, choose_peak
from optsched.pilot.planning.rivals import joined
from optsched.pilot.planning.score import Score
from optsched.pilot.planning.simple import Shape, best_shape
from optsched.pilot.planning.task import PlanTask, checked_task
from optsched.pilot.prediction import checked_level, compare, predict
from optsched.schedules.schedule import Schedule
from optsched.schedules.words import in_words

__all__ = ["Plan", "Robust", "Shapes", "plan"]

Robust = Literal["none", "mean", "worst"]
Shapes = Literal["auto", "simple", "free"]

KNOTS = 80
TOL = 1e-5
LEAST = 1e-9  # of the cap: 0 for all that a law can see
ROBUST_MEMBERS = 11
SETTLED = 1e-6  # nats above the bound: nothing is left to gain
PRICES = 0.9, 0.8, 1.1, 0.7  # other prices of a step, over that of the optimum
LOOSE = 5e-4  # nats above the bound from which they are tried
SOFT = 0.02  # of the excess loss: width of the soft maximum over the members
# What a simpler schedule may cost, of the standard error of a difference between two runs.
SPARE = {"hold and linear decay": 0.25, "hold and decay": 1.0}


@dataclass(frozen=True, eq=False, repr=False)
class Plan(Brief):
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
        Predicted final loss that no schedule within the bounds can beat under the parameters of
        the fit; NaN where none is known (momentum law).
    residual : float
        KKT residual of the search over free rates: largest entry of the projected gradient of the
        log excess in the log rates.
    replay_gap : float
        Loss of the replay of its result minus that of the solver, in nats.
    robust : str
    cap : float
        Upper bound of the rates.
    warnings : tuple of str
    free : Schedule
        The best schedule over free rates; the plan itself where no simpler one was as good.
    cost : float
        Predicted loss of the plan minus that of ``free``, under the parameters of the fit.
    shape : str
        What the plan is: ``"hold and linear decay"``, ``"hold and decay"`` or ``"free rates"``.
    choice : PeakChoice or None
        What the choice of the peak rests on, if it was ``auto``.
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
    free: Schedule
    cost: float
    shape: str
    choice: PeakChoice | None = None

    @property
    def words(self) -> str:
        """The schedule in a sentence."""
        return in_words(self.schedule, int(self.schedule.metadata["plan"]["from_step"]))

    @property
    def gap(self) -> float:
        """Final loss minus its lower bound, in nats: no schedule is better by more."""
        return self.loss - self.lower_bound


def _mesh(task: PlanTask, shape: Shape) -> tuple[StepMesh, Floats]:
    """Mesh graded along a good path, and log rates of its free knots there."""
    path, law = relaxed(task, task.found.theta), task.separable(task.found.theta)
    if path is not None and law is not None and law.weights is None:
        scale, order = task.found.scale, slice(None, None, -1)
        left = path.left * (task.free / path.left[-1])
        tau, eta = path.togo[-1] - path.togo[order], path.rate[order] * scale.rate
        times, fast = task.free - left[order], 0.5 * law.speed
    else:
        edges = shape.edges(task.free)
        times = 0.5 * (edges[:-1] + edges[1:] - 1).astype(float)
        eta = np.maximum(task.cap * shape.rate(times, task.free), LEAST * task.cap)
        ticks = np.diff(edges) / task.found.scale.span
        if law is None:
            ticks = ticks * eta / task.cap
            fast = 50.0 / float(ticks.sum())
        else:
            ticks = law.play(eta / task.found.scale.rate, ticks)[0]
            fast = 0.5 * law.speed
        tau = np.cumsum(ticks)
    steps: Floats = times + float(task.warmup)
    mesh = graded_mesh(
        Geodesic(0.0, tau, np.maximum(eta, 1e-6 * task.cap), steps, np.ones(len(steps))),
        task.steps,
        KNOTS,
        fast,
        task.warmup,
    )
    start = np.interp(mesh.free_steps, steps, eta)
    return mesh, np.log(np.clip(start, LEAST * task.cap, task.cap))


def _score(task: PlanTask, robust: Robust) -> Score:
    """What is minimised."""
    found = task.found
    if robust == "none":
        return Score.mean(task, [found.theta])
    thetas = [found.theta, *found.members[:ROBUST_MEMBERS]]
    mean = Score.mean(task, thetas)
    if robust == "mean":
        return mean
    least = []
    for theta in thetas:
        path, law = relaxed(task, theta), task.separable(theta)
        if path is not None and law is not None and law.weights is None:
            least.append(path.loss)
        else:
            one = Score.mean(task, [theta])
            value = best_shape(task, one)[1]
            least.append(float(one.floors[0]) + math.exp(value))
    floors = np.array(least)
    size = max(float(np.median(floors - mean.floors)), 1e-12)
    return Score(thetas, floors, SOFT * size)


def _solved(task: PlanTask, score: Score, shape: Shape) -> tuple[PlanObjective, Descent]:
    """Descent over the log rates of the knots, from the relaxed path or from a simple shape."""
    mesh, start = _mesh(task, shape)
    objective = PlanObjective(task, mesh, score)
    low = np.full(len(start), math.log(max(task.floor, LEAST * task.cap)))
    high = np.full(len(start), math.log(task.cap))
    found = projected_descent(objective, start, low, high, tol=TOL, max_iterations=500, memory=40)
    return objective, found


def plan(
    found: Fit,
    horizon: int,
    *,
    peak: float | Literal["auto"] | None = None,
    warmup: int | None = None,
    floor: float = 0.0,
    momentum: float | None = None,
    robust: Robust = "mean",
    shape: Shapes = "auto",
    from_step: int = 0,
    history: Schedule | None = None,
    extrapolate: bool = False,
    weight_decay: float | None = None,
    level: float = 0.8,
    throw: bool = True,
) -> Plan:
    r"""Minimise the predicted final loss over the learning rates of a run.

    Parameters
    ----------
    found : Fit
    horizon : int
        Number of steps of the whole run.
    peak : float or "auto", optional
        Upper bound of the rate; the largest peak of the pilot runs if not given. ``auto`` chooses
        it together with the schedule: see `optsched.pilot.planning.peaks.choose_peak`.
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
    shape : {"auto", "simple", "free"}
        ``free``: rates at 80 knots. ``simple``: hold a rate, then decay with a power to a last
        rate. ``auto``: a linear decay to the floor if its predicted loss is above that of free
        rates by no more than a quarter of the standard error of a difference between two runs;
        else a simple one, if by no more than that error; else free rates.
    from_step : int
        Plan the rest of a run after so many steps of ``history``.
    history : Schedule, optional
    extrapolate : bool
        Allow a peak above those of the runs, and with ``auto`` try such; the plan then carries a
        warning.
    weight_decay : float, optional
        Of the run that is planned, if not that of the pilot runs; the plan carries a warning.
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
        A field out of range, or a peak above those of the runs.
    SolveFailed
        The descent did not converge.
    """
    if robust not in ("none", "mean", "worst"):
        raise InvalidProblem("robust", robust, "one of none, mean, worst")
    if shape not in ("auto", "simple", "free"):
        raise InvalidProblem("shape", shape, "one of auto, simple, free")
    if robust == "worst" and len(found.members) == 0:
        raise InvalidProblem("robust", robust, "none or mean for a fit without members")
    checked_level(level)
    if momentum is not None:
        decay("momentum", momentum)
    found = at_decay(found, weight_decay)
    auto = isinstance(peak, str) and peak == "auto"
    if auto and history is not None:
        raise InvalidProblem("peak", peak, "a number when a run is continued")
    given = None if auto else peak
    if warmup is None:
        warmup = found.warmup if history is None else 0
    task = checked_task(found, horizon, given, warmup, floor, from_step, history, extrapolate)  # type: ignore[arg-type]
    choice = None
    if auto:
        choice = choose_peak(task, [found.theta, *found.members], extrapolate)
        task = checked_task(
            found, horizon, choice.peak, warmup, floor, from_step, history, extrapolate
        )
    return _solved_plan(task, robust, shape, choice, momentum=momentum, level=level, throw=throw)


def _solved_plan(
    task: PlanTask,
    robust: Robust,
    shape: Shapes,
    choice: PeakChoice | None,
    *,
    momentum: float | None = None,
    level: float,
    throw: bool,
) -> Plan:
    """The plan of a task that is checked."""
    found = task.found
    nominal, score = Score.mean(task, [found.theta]), _score(task, robust)
    begin = best_shape(task, nominal)[0]
    objective, result = _solved(task, nominal, begin)
    mine = float(objective.losses(result.x)[0])
    bound = _bound(task, mine, objective.price(result.x))
    if throw and not (result.converged or mine - bound < SETTLED):
        raise SolveFailed(
            f"The plan's KKT residual is {result.residual:.1e}, above {TOL:.0e}, after"
            f" {len(result.history)} iterations. Pass throw=False to have it all the same."
        )
    free = _schedule(task, *_knots(task, objective, result))
    replayed = _final(found, free)
    kind, chosen = "free rates", free
    for name in () if shape == "free" else SPARE:
        straight = name != "hold and decay"
        if shape == "simple" and straight:
            continue
        one = best_shape(task, nominal, straight=True)[0] if straight else begin
        if len(score.thetas) > 1:
            one = best_shape(task, score, straight=straight, near=one)[0]
        simple = _schedule(task, *one.knots(task))
        if shape == "simple" or _spared(found, free, simple, SPARE[name]):
            kind, chosen = name, simple
            break
    if kind == "free rates" and len(score.thetas) > 1:
        own, other = _solved(task, score, begin)
        chosen = _schedule(task, *_knots(task, own, other))
    chosen = chosen.replace(beta=momentum, metadata=_source(task, kind))
    told = predict(found, chosen, [task.horizon], level=level)
    return Plan(
        schedule=chosen,
        loss=float(told.loss[0]),
        lower=float(told.lower[0]),
        upper=float(told.upper[0]),
        level=level,
        lower_bound=bound,
        residual=result.residual,
        replay_gap=replayed - mine,
        robust=robust,
        cap=task.cap,
        warnings=tuple(dict.fromkeys((*task.warnings, *told.warnings))),
        free=free,
        cost=float(told.loss[0]) - replayed,
        shape=kind,
        choice=choice,
    )


def _bound(task: PlanTask, loss: float, price: float) -> float:
    """The largest lower bound over prices of a step near that of the optimum."""
    best = lower_bound(task, task.found.theta, price)
    for share in PRICES:
        # One price is enough but where a run is short, or goes on from low rates.
        if not loss - best > LOOSE:
            break
        best = max(best, lower_bound(task, task.found.theta, share * price))
    return best


def _final(found: Fit, schedule: Schedule) -> float:
    """Predicted final loss under the parameters of the fit."""
    pieces = cut(schedule, np.array([schedule.horizon]), found.scale)
    return float(found.law.curve(found.theta, pieces)[0])


def _spared(found: Fit, free: Schedule, simple: Schedule, spare: float) -> bool:
    """Whether a simpler schedule loses less than the law and two runs could show."""
    rows = {row.name: row for row in compare(found, {"free": free, "simple": simple}).rows}
    cost = rows["simple"].loss - rows["free"].loss
    # A law that slips is no reason for anything but the simplest.
    spare = 1.0 if found.slip else spare
    return cost <= spare * max(row.error for row in rows.values())


def _knots(task: PlanTask, objective: PlanObjective, found: Descent) -> tuple[Ints, Floats]:
    """Steps and rates of the result of a descent."""
    return objective.mesh.steps, np.minimum(objective.mesh.knots(np.exp(found.x)), task.cap)


def _schedule(task: PlanTask, steps: Ints, eta: Floats) -> Schedule:
    """The whole run: history, then the planned steps."""
    rest = Schedule.from_knots(steps, eta=eta, horizon=task.steps)
    return joined(task.history, task.start, rest)


def _source(task: PlanTask, kind: str) -> dict[str, object]:
    runs = [run.name for run in task.found.runs]
    told = {"law": task.found.law.name, "runs": runs, "from_step": task.start, "shape": kind}
    if isinstance(task.found.law, NormLaw):
        told["weight_decay"] = task.found.law.weight_decay
    return {"plan": told}
