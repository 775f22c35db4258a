"""A run beside its law: what it measured, what was predicted, whether it is off track, its end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import ndtri

from optsched.arrays import Brief, Floats, Ints
from optsched.checks import is_number
from optsched.errors import InvalidProblem
from optsched.logs.growing import GrowingLog, read_growing
from optsched.logs.options import PathLike
from optsched.logs.run import Run
from optsched.pilot.decays import at_decay
from optsched.pilot.fitting import Fit
from optsched.pilot.prediction import check_described, checked_level, predict
from optsched.pilot.tracking.alarm import Alarm, judge
from optsched.pilot.tracking.anchor import Anchor, anchored
from optsched.pilot.tracking.outlook import outlook
from optsched.pilot.tracking.rates import OffPlan, begun, off_plan, spliced
from optsched.pilot.tracking.rows import edges_of, in_bins
from optsched.schedules.schedule import Schedule

__all__ = ["End", "Measured", "Track", "track"]

FALSE_ALARM = 0.02
EARLY = 2.0  # times the first step of the fit: before, laws err by much
SPARE = 4.0  # times that step: a shorter run is judged from there on anyway
NO_ALARM = Alarm(False, 0.0, float("inf"), None, None, 0.0, float("inf"), 0.0)


@dataclass(frozen=True, eq=False, repr=False)
class Measured(Brief):
    """Bins of a run beside the law of the pilots.

    Attributes
    ----------
    steps : numpy.ndarray of int64, shape (n,)
    loss : numpy.ndarray, shape (n,)
        Measured: the geometric mean of the rows of a bin, spikes taken down.
    predicted, lower, upper : numpy.ndarray, shape (n,)
        From the pilots alone, for the mean of such a bin.
    residual : numpy.ndarray, shape (n,)
        Measured minus predicted over the standard deviation of that. Neighbours share most of it.
    surprise : numpy.ndarray, shape (n,)
        What a bin is off by from what the bins before it let expect, over its standard deviation:
        independent from bin to bin if the run follows the law.
    """

    steps: Ints
    loss: Floats
    predicted: Floats
    lower: Floats
    upper: Floats
    residual: Floats
    surprise: Floats


@dataclass(frozen=True)
class End:
    """A forecast of the last loss, with its interval."""

    loss: float
    lower: float
    upper: float


@dataclass(frozen=True, eq=False, repr=False)
class Track(Brief):
    """A run beside its law.

    Attributes
    ----------
    name : str
    step, horizon : int
        Last step with a loss; steps of the whole run.
    measured : Measured or None
        None before the first row that counts.
    outside : int or None
        Step since which the run is out of its band, if it is now; ``above`` says where.
    above : bool
    alarm : Alarm
        Of the test for faults.
    before, end : End
        Forecast of the last loss from the pilots alone, and re-anchored on the run.
    stopped : int or None
        Step from which on the loss is no finite number.
    off_plan : OffPlan or None
        Where the rates of the log leave those of the schedule.
    schedule : Schedule
        Of the whole run: the log's rates so far, then those to come.
    anchor : Anchor
        The law re-anchored, for other forecasts.
    level : float
    notes, warnings : tuple of str
    """

    name: str
    step: int
    horizon: int
    measured: Measured | None
    outside: int | None
    above: bool
    alarm: Alarm
    before: End
    end: End
    stopped: int | None
    off_plan: OffPlan | None
    schedule: Schedule
    anchor: Anchor
    level: float
    notes: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def off_track(self) -> bool:
        """Whether something is wrong: `reasons` is not empty."""
        return bool(self.reasons)

    @property
    def reasons(self) -> tuple[str, ...]:
        """What is wrong, in sentences."""
        out = []
        if self.stopped is not None:
            out.append(f"the loss is no finite number from step {self.stopped:,} on")
        if self.off_plan is not None:
            out.append(self.off_plan.text)
        if self.alarm.off:
            out.append(_alarmed(self.alarm))
        return tuple(out)

    @property
    def line(self) -> str:
        """The state in a line."""
        head = f"{self.name}: step {self.step:,} of {self.horizon:,}"
        end = f"end {self.end.loss:.4f} ({self.end.lower:.4f} to {self.end.upper:.4f})"
        wrong = "off track: " + "; ".join(self.reasons) if self.off_track else "on track"
        if self.measured is None:
            return f"{head}, too early to judge, {end}" + (f", {wrong}" if self.off_track else "")
        now = self.measured
        told = f"predicted {now.predicted[-1]:.4f}, {now.residual[-1]:+.1f} sd"
        return f"{head}, loss {now.loss[-1]:.4f} ({told}), {end}, {wrong}"


def _alarmed(alarm: Alarm) -> str:
    """An alarm in a sentence, with the fault that is most like it of those that are tried."""
    fault, at = alarm.fault, alarm.at
    side = "above" if alarm.effect > 0.0 else "below"
    text = (
        f"since step {at:,} the loss is not what the law allows (score {alarm.score:.1f}, limit"
        f" {alarm.limit:.1f}): {100 * abs(np.expm1(alarm.effect)):.2g} % {side} it now"
    )
    if fault is None:
        return text
    if fault.kind == "rate":
        like = f"the rate were {np.exp(alarm.size):.2g} times the logged one"
    elif fault.kind == "held":
        like = f"{100 * alarm.size:.0f} % of the changes of the rate had not come"
    else:
        like = f"the loss were another by {100 * np.expm1(alarm.size):+.2g} %"
    since = "throughout" if fault.since == 1 else f"from step {fault.since:,} on"
    return f"{text}, most like a run as if {like} {since}"


def track(
    found: Fit,
    run: Run | PathLike,
    schedule: Schedule | None = None,
    *,
    level: float = 0.8,
    false_alarm: float = FALSE_ALARM,
    weight_decay: float | None = None,
    stopped: int | None = None,
    **reading: Any,
) -> Track:
    """Compare a run, finished or under way, with the law of its pilots.

    Parameters
    ----------
    found : Fit
    run : Run or path-like
        A log is read by `optsched.logs.growing.read_growing`, which leaves out a row that is
        not finished yet.
    schedule : Schedule, optional
        Of the whole run, as planned; the rates so far are those of the log. Without it the run is
        taken to end at its last row.
    level : float
        Of the band and of the intervals.
    false_alarm : float
        Probability that a run without fault is called off track at any time in its course.
    weight_decay : float, optional
        Of the run, if not that of the pilots.
    stopped : int, optional
        Step from which on the loss is not finite, where it is known; a log that is read says it.
    **reading
        As for `optsched.logs.read.read_run`, with a path.

    Returns
    -------
    Track

    Raises
    ------
    InvalidProblem
        An argument out of range; a law that does not describe its own runs.
    BadLog
        As for `read_run`.
    """
    level = checked_level(level)
    check_described(found)
    found = at_decay(found, weight_decay)
    if not (is_number(false_alarm) and 0.0 < false_alarm <= 0.5):
        raise InvalidProblem("false_alarm", false_alarm, "a number above 0, up to 0.5")
    if schedule is not None and not isinstance(schedule, Schedule):
        raise InvalidProblem("schedule", type(schedule).__name__, "a Schedule, or None")
    notes: tuple[str, ...] = ()
    if not isinstance(run, Run):
        log: GrowingLog = read_growing(run, **reading)
        run, stopped, notes = log.run, log.stopped, log.notes
    elif reading:
        raise InvalidProblem("reading", [*reading], "none with a Run, which is read already")
    if schedule is not None:
        run = begun(run, schedule)
    step = int(run.steps[-1])
    whole = spliced(run.schedule, step, schedule)
    horizon = whole.horizon
    if schedule is None:
        notes += ("No schedule of the rest is given: the run is taken to end at its last row.",)
    first = max(round(found.scale.first * found.scale.span), run.warmup, 1)
    first = round(EARLY * first) if horizon > SPARE * first else first
    edges = edges_of(first, horizon)
    bins = in_bins(run, first, edges)
    end = np.array([horizon])
    anchor = anchored(found, run, bins)
    blank = anchored(found, run, None)
    measured, alarm, outside, above = None, NO_ALARM, None, False
    if bins is None:
        notes += (f"No row past step {first:,} yet: before, the law is no prediction.",)
    else:
        look = outlook(found, whole, bins, edges)
        alarm, own = judge(look.off, look.covariance, look.signatures, bins.ends, false_alarm)
        n = len(look.off)
        wide = np.sqrt(np.diag(look.covariance)[:n])
        half = float(ndtri(0.5 + 0.5 * level)) * wide
        predicted = np.exp(look.law)
        measured = Measured(
            np.round(bins.steps).astype(np.int64),
            predicted * np.exp(look.off),
            predicted,
            predicted * np.exp(-half),
            predicted * np.exp(half),
            look.off / wide,
            own,
        )
        out = np.sign(look.off) * (np.abs(look.off) > half)
        if out[-1]:
            inside = np.flatnonzero(out != out[-1])
            since = int(inside[-1]) + 1 if inside.size else 0
            outside, above = int(measured.steps[since]), bool(out[-1] > 0.0)
    return Track(
        name=run.name,
        step=step,
        horizon=horizon,
        measured=measured,
        outside=outside,
        above=above,
        alarm=alarm,
        before=_end(blank, whole, end, level),
        end=_end(anchor, whole, end, level),
        stopped=stopped,
        off_plan=None if schedule is None else off_plan(run, schedule),
        schedule=whole,
        anchor=anchor,
        level=level,
        notes=notes,
        warnings=(*run.warnings, *predict(found, whole, end, level=level).warnings),
    )


def _end(anchor: Anchor, schedule: Schedule, at: Ints, level: float) -> End:
    told = anchor.forecast(schedule, at, level)
    return End(float(told.loss[0]), float(told.lower[0]), float(told.upper[0]))
