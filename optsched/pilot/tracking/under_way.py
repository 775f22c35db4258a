r"""Planning a run that is under way: what it has measured, when to cool down, how long to a loss.

The law is re-anchored on the losses so far (`optsched.pilot.tracking.anchor`): the parameters that
a plan rests on are those given the run, and so are the losses that it is said to end at.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from optsched.arrays import Brief
from optsched.checks import positive, whole
from optsched.errors import InvalidProblem
from optsched.logs.run import Run
from optsched.pilot.fitting import Fit
from optsched.pilot.planning.rivals import joined
from optsched.pilot.planning.score import Score
from optsched.pilot.planning.simple import Shape, best_shape
from optsched.pilot.planning.task import checked_task
from optsched.pilot.prediction import Ranking, check_described, predict
from optsched.pilot.tracking.rates import spliced
from optsched.pilot.tracking.track import Track, track
from optsched.schedules.schedule import Schedule

__all__ = ["Choice", "Reached", "UnderWay", "choices", "rewarmed", "steps_to", "under_way"]

RISES = 1.5  # of the rate, from which on a run is warmed again
COARSE, FINE = 9, 8  # horizons that are tried on the way to a loss
CLOSE = 5e-5  # relative, to that loss
FARTHEST = 30.0  # times the longest run, as far as a loss is looked for
LAST = 0.1  # share of what is left, in which a late cooldown is done
KNOTS = 160


class Choice(NamedTuple):
    """A way to go on: when the rate is taken down, and the last loss with its interval."""

    name: str
    since: int
    loss: float
    lower: float
    upper: float


class Reached(NamedTuple):
    """The fewest steps to a loss; the ends of the interval are infinite where it is not reached."""

    loss: float
    steps: int
    lower: float
    upper: float


@dataclass(frozen=True, eq=False, repr=False)
class UnderWay(Brief):
    """A run up to a step, and the law that is anchored on it.

    Attributes
    ----------
    state : Track
        At the step.
    found : Fit
        With the parameters given the run.
    history : Schedule
        Rates so far.
    level : float
    """

    state: Track
    found: Fit
    history: Schedule
    level: float

    @property
    def step(self) -> int:
        """The step from which the run goes on."""
        return self.state.horizon

    def end(self, schedule: Schedule) -> tuple[float, float, float]:
        """Last loss of a schedule that begins as the run did, and its interval."""
        told = self.state.anchor.forecast(schedule, np.array([schedule.horizon]), self.level)
        return float(told.loss[0]), float(told.lower[0]), float(told.upper[0])

    def ranked(self, table: Ranking, schedules: Mapping[str, Schedule]) -> Ranking:
        """A table under the anchored fit, with last losses that the run was asked for too.

        Differences and their errors stay: what the run is off by in all of them cancels.
        """
        best, *others = table.rows
        loss, lower, upper = self.end(schedules[best.name])
        rows = [replace(best, loss=loss, lower=lower, upper=upper)]
        for row in others:
            at = loss + row.difference
            _, below, above = self.end(schedules[row.name])
            middle = 0.5 * (below + above)
            rows.append(
                replace(row, loss=at, lower=at - (middle - below), upper=at + (above - middle))
            )
        return replace(table, rows=tuple(rows))


def under_way(found: Fit, run: Run, step: int | None = None, *, level: float = 0.8) -> UnderWay:
    """A run up to a step, the last row if none is given.

    Parameters
    ----------
    found : Fit
    run : Run
    step : int, optional
    level : float

    Raises
    ------
    InvalidProblem
        A step that the log does not reach, or as for `track`.
    """
    last = int(run.steps[-1])
    step = last if step is None else whole("from_step", step, 1, run.schedule.horizon)
    keep = run.steps <= step
    if not keep.any():
        raise InvalidProblem("from_step", step, f"{run.steps[0]}, the first row, at least")
    history = spliced(run.schedule, step, None)
    part = replace(run, steps=run.steps[keep], loss=run.loss[keep])
    state = track(found, part, history, level=level)
    return UnderWay(state, state.anchor.fit, history, level)


def choices(now: UnderWay, horizon: int, *, peak: float, floor: float = 0.0) -> tuple[Choice, ...]:
    """Simple ways to go on to the same last step, the rates tuned by nothing.

    Cool down linearly from the rate in force over all that is left, after a tenth of it, or over
    its last tenth; and, where the rate in force is below what a plan would take, the best that
    does not raise it.
    """
    start, free = now.step, horizon - now.step
    rate = float(now.history(start - 1))
    if free < 2 or rate <= 0.0:
        return ()
    out = []
    for name, share in (("cool down now", 0.0), ("in 10 %", 0.1), ("at the end", 1.0 - LAST)):
        held = round(share * free)
        rest = _cooled(free, held, rate, min(floor, rate))
        out.append(Choice(name, start + held, *now.end(joined(now.history, start, rest))))
    if peak > RISES * rate and floor < rate:
        task = checked_task(now.found, horizon, rate, 0, floor, start, now.history, True)
        shape, _ = best_shape(task, Score.mean(task, [now.found.theta]))
        knots, eta = shape.knots(task)
        rest = Schedule.from_knots(knots, eta=eta, horizon=free)
        since = start + shape.held
        told = now.end(joined(now.history, start, rest))
        out.append(Choice("without a higher rate", since, *told))
    return tuple(out)


def _cooled(free: int, held: int, rate: float, floor: float) -> Schedule:
    """A held rate, then a line to the floor."""
    knots = np.unique([0, min(held, free - 1), free - 1])
    left = np.clip((free - 1 - knots) / max(free - 1 - held, 1), 0.0, 1.0)
    return Schedule.from_knots(knots, eta=floor + (rate - floor) * left, horizon=free)


def rewarmed(schedule: Schedule, start: int, steps: int) -> Schedule:
    """A schedule whose rates after ``start`` are reached by a line from the one before.

    Parameters
    ----------
    schedule : Schedule
    start : int
        First step of the rise, from 1.
    steps : int
        Length of the line.
    """
    start = whole("from_step", start, 1, schedule.horizon - 1)
    steps = whole("rewarm", steps, 1, schedule.horizon - start - 1)
    before = float(schedule(start - 1))
    inside = np.unique(np.linspace(start, start + steps, KNOTS).round().astype(np.int64))
    knots = np.unique(np.concatenate([schedule.steps, inside, [start - 1]]))
    eta = np.asarray(schedule(knots), float)
    share = np.clip((knots - start + 1) / (steps + 1.0), 0.0, 1.0)
    rising = (knots >= start) & (knots <= start + steps)
    eta = np.where(rising, before + (eta - before) * share, eta)
    return schedule.replace(steps=knots, controls={"eta": eta})


def steps_to(
    found: Fit,
    loss: float,
    *,
    now: UnderWay | None = None,
    peak: float | None = None,
    warmup: int | None = None,
    floor: float = 0.0,
    extrapolate: bool = False,
    level: float = 0.8,
) -> Reached:
    """The fewest steps of a whole run that reach a loss, each with the best simple schedule.

    Parameters
    ----------
    found : Fit
        Of the pilots.
    loss : float
    now : UnderWay, optional
        The run that goes on; else one from the start.
    peak, warmup, floor, extrapolate
        As for `optsched.pilot.planning.optimal.plan`.
    level : float
        Of the interval: the steps at which the ends of the interval of the loss reach it.

    Raises
    ------
    InvalidProblem
        A loss that no run of up to 30 times the longest pilot reaches, or as for a plan.
    """
    check_described(found)
    loss = positive("until_loss", loss)
    start, history = (0, None) if now is None else (now.step, now.history)
    mine = found if now is None else now.found
    ramp = (found.warmup if warmup is None else warmup) if now is None else 0
    first = max(round(found.scale.first * found.scale.span), 2 * ramp, 2)
    least = start + max(round(0.02 * start), first if now is None else 2)
    most = int(FARTHEST * max(found.horizon, start))
    near: Shape | None = None
    told: dict[int, tuple[float, float, float]] = {}

    def tried(horizon: int) -> tuple[float, float, float]:
        nonlocal near
        if horizon not in told:
            task = checked_task(mine, horizon, peak, ramp, floor, start, history, extrapolate)
            near, _ = best_shape(
                task, Score.mean(task, [mine.theta]), near=_stretched(near, task.free)
            )
            knots, eta = near.knots(task)
            rest = Schedule.from_knots(knots, eta=eta, horizon=task.steps)
            whole_run = joined(history, start, rest)
            if now is None:
                one = predict(found, whole_run, [horizon], level=level)
                told[horizon] = float(one.loss[0]), float(one.lower[0]), float(one.upper[0])
            else:
                told[horizon] = now.end(whole_run)
        return told[horizon]

    if tried(least)[0] <= loss:
        raise InvalidProblem(
            "until_loss", loss, f"a loss below {tried(least)[0]:.4f}, which {least:,} steps reach"
        )
    for horizon in np.geomspace(least, most, COARSE + 1)[1:].round().astype(int).tolist():
        if tried(horizon)[2] <= loss:
            break
    _, middle, _ = _crossings(told, loss)
    if math.isinf(middle):
        reached = min(one[0] for one in told.values())
        allowed = f"{reached:.4f} or more, as {most:,} steps reach no less under the law"
        raise InvalidProblem("until_loss", loss, allowed)
    for _ in range(FINE):
        value = tried(max(least, round(middle)))[0]
        _, middle, _ = _crossings(told, loss)
        if abs(value - loss) < CLOSE * loss:
            break
    low, middle, high = _crossings(told, loss)
    return Reached(loss, math.ceil(middle), low, high)


def _stretched(shape: Shape | None, free: int) -> Shape | None:
    """A shape of another length as the start of a search: the same, held for as large a share."""
    if shape is None:
        return None
    return replace(shape, held=min(shape.held, free - 1))


def _crossings(
    told: Mapping[int, tuple[float, float, float]], loss: float
) -> tuple[float, float, float]:
    """Steps at which lower end, loss and upper end reach a loss, between those that were tried."""
    steps = np.array(sorted(told), float)
    curves = np.array([told[int(n)] for n in steps]).T
    out = []
    for curve in (curves[1], curves[0], curves[2]):
        under = np.flatnonzero(curve <= loss)
        if not under.size:
            out.append(math.inf)
            continue
        i = int(under[0])
        if i == 0:
            out.append(float(steps[0]))
            continue
        share = (curve[i - 1] - loss) / (curve[i - 1] - curve[i])
        logs = np.log(steps[i - 1 : i + 1])
        out.append(float(np.exp(logs[0] + share * (logs[1] - logs[0]))))
    return out[0], out[1], out[2]
