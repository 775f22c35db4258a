r"""Predict the loss of any schedule from a fitted law, and say which differences are real.

The variance of a predicted loss is that of the ensemble of the fit, plus the squared misfit of the
law, plus the noise between seeds, plus what laws err by at peak rates and weight decays that no run
had, plus what the fit slips by in every doubling of the steps, where it does. In a
difference between two schedules the errors of the ensemble are shared and mostly cancel; the noise
between seeds is counted twice, for two runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import ndtri

from optsched.arrays import Brief, Floats, Ints
from optsched.checks import integers, is_number
from optsched.errors import InvalidProblem
from optsched.pilot.decays import at_decay
from optsched.pilot.fitting import Fit
from optsched.pilot.halves import FIRST_HALF
from optsched.pilot.identify import ONE_RUN
from optsched.pilot.pieces import cut
from optsched.schedules.schedule import Schedule

__all__ = [
    "Ranking",
    "Prediction",
    "Predicted",
    "check_described",
    "checked_level",
    "compare",
    "other_peak",
    "peak_error",
    "predict",
]


LEVEL = 0.8
PEAK_SLACK = 0.02  # relative: the same rate but for rounding
FAR_BELOW = 0.25  # of the lowest peak of the runs: as good as another setting
# What a law that carries to other peaks errs by besides, of the loss, in a factor of e below (or
# between) those of the runs and above: there the loss is underestimated, as training gets rough.
BELOW, ABOVE = 1.5e-3, 3e-3
OTHER_DECAY = 3e-3  # the same for an effective rate that another weight decay moves by e
# Where the peaks of the runs on both sides are further apart than this, one in between is off by
# as much: pilots at 1e-4 and 1e-3 say little of 5e-4 (`benchmarks.loss_laws`, far between).
APART, SPARSE = 5.0, 1.5e-2
MISFIT = 1.25  # of a fit to its own runs, in a prediction of others
# Language models at the end of the public runs lose 2 % in a doubling of the steps.
EARLY, BEYOND = 0.035, 1.5
SHAPE_MISFIT = 0.5  # of the law's misfit, in a difference of two schedules
ROWS = 200
TINY = 1e-12  # nats: the least that a loss may be


@dataclass(frozen=True, eq=False, repr=False)
class Prediction(Brief):
    """Loss along a run.

    Attributes
    ----------
    steps : numpy.ndarray of int64, shape (k,)
        Numbers of updates done.
    rate : numpy.ndarray, shape (k,)
        Learning rate there: that of the next update, or of the last one at the end.
    loss, lower, upper : numpy.ndarray, shape (k,)
        Predicted loss of one run and its interval.
    level : float
        Probability of the interval.
    warnings : tuple of str
    """

    steps: Ints
    rate: Floats
    loss: Floats
    lower: Floats
    upper: Floats
    level: float
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Predicted:
    """A schedule in a `Ranking`.

    Attributes
    ----------
    name : str
    peak : float
        Largest rate.
    loss, lower, upper : float
        Predicted final loss and its interval.
    difference, error : float
        Final loss minus that of the best, and the standard error of that.
    apart : bool
        Whether the difference is larger than the uncertainty: outside of the interval's level.
    """

    name: str
    peak: float
    loss: float
    lower: float
    upper: float
    difference: float
    error: float
    apart: bool


@dataclass(frozen=True, eq=False, repr=False)
class Ranking(Brief):
    """Final losses of several schedules, the best first.

    Attributes
    ----------
    rows : tuple of Predicted
    level : float
    warnings : tuple of str
    """

    rows: tuple[Predicted, ...]
    level: float
    warnings: tuple[str, ...]


def checked_level(level: float) -> float:
    """A level of intervals, if it is strictly between 0 and 1."""
    if not (is_number(level) and 0.0 < level < 1.0):
        raise InvalidProblem("level", level, "a number between 0 and 1")
    return float(level)


def other_peak(found: Fit, peak: float) -> str | None:
    """A warning if a peak rate is one that the law does not carry to from those of the runs."""
    low, high = found.peaks
    least = low * FAR_BELOW if found.law.carries else low
    sparse = sparse_peaks(found, peak) if found.law.carries else None
    if sparse is not None:
        return (
            f"Peak rate {peak:.6g} is between those of the runs, {sparse[0]:.6g} and"
            f" {sparse[1]:.6g}, which are {sparse[1] / sparse[0]:.2g} times apart: losses were"
            " about 1 % off there. The interval is wider; a pilot in between would tell."
        )
    if least * (1.0 - PEAK_SLACK) <= peak <= high * (1.0 + PEAK_SLACK):
        return None
    seen = f"{high:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
    if not found.law.carries:
        return (
            f"Peak rate {peak:.6g} is not one of the runs ({seen}): the law {found.law.name} does"
            " not carry to another peak, errors of 0.02 to 0.15 were seen where 0.003 is usual. Do"
            " not trust these numbers."
        )
    if peak > high:
        return (
            f"Peak rate {peak:.6g} is above those of the runs ({seen}): where training gets rough,"
            " losses end above what the law says, by 0.02 and more. The interval is wider."
        )
    return (
        f"Peak rate {peak:.6g} is below a quarter of those of the runs ({seen}): the interval is"
        " wider, and may not be wide enough."
    )


def sparse_peaks(found: Fit, peak: float) -> tuple[float, float] | None:
    """The peaks of the runs next to one between them, if these are far apart."""
    below = [run.peak for run in found.runs if 0.0 < run.peak <= peak * (1.0 + PEAK_SLACK)]
    above = [run.peak for run in found.runs if run.peak >= peak * (1.0 - PEAK_SLACK)]
    if not below or not above or min(above) <= APART * max(below):
        return None
    return max(below), min(above)


def peak_error(found: Fit, peak: float) -> float:
    """Standard error, of the loss, that the peak rate of a schedule adds."""
    gaps = [math.log(peak / run.peak) for run in found.runs if run.peak > 0.0 < peak]
    if not gaps:
        return 0.0
    gap = min(gaps, key=abs)
    if abs(gap) <= PEAK_SLACK:
        return 0.0
    if sparse_peaks(found, peak) is not None:
        return math.hypot(BELOW * gap, SPARSE)
    return (ABOVE if gap > 0.0 and peak > found.peaks[1] else BELOW) * abs(gap)


def _carried(found: Fit) -> list[str]:
    """A warning of a fit that was carried to another weight decay than that of its runs."""
    if found.pilot_decay is None:
        return []
    return [
        f"The runs had weight decay {found.pilot_decay:g}: to another one the law carries by the"
        " norm of the weights, which no real run has tested. The interval is wider."
    ]


def _warnings(found: Fit, schedule: Schedule, name: str = "") -> list[str]:
    out = []
    text = other_peak(found, schedule.peak)
    if text is not None:
        out.append(text)
    measured = found.scale.first * found.scale.span
    if schedule.horizon < measured:
        out.append(
            f"{schedule.horizon:,} steps end before the first loss of the runs, at step"
            f" {measured:,.0f}: nothing is known of so short a run."
        )
    if schedule.horizon > 10 * found.horizon:
        out.append(
            f"{schedule.horizon:,} steps are {schedule.horizon / found.horizon:.3g} times the"
            f" longest run of the fit ({found.horizon:,})."
        )
    return [f"{name}: {line}" if name else line for line in out]


def check_described(found: Fit) -> None:
    """Refuse to say anything by a law that does not describe the runs it was fitted to."""
    if found.failed:
        allowed = f"one that describes the runs it was fitted to. {found.failed}"
        raise InvalidProblem("law", found.law.name, allowed)


def _unsound(found: Fit) -> list[str]:
    """What a prediction repeats of the warnings of the fit: those that make it a guess."""
    return [line for line in found.warnings if line.startswith((ONE_RUN, FIRST_HALF))]


def _early(found: Fit, horizon: int) -> list[str]:
    """A warning if the runs end where the loss still falls fast."""
    fall = falling(found)
    if fall <= EARLY or horizon <= BEYOND * found.horizon:
        return []
    return [
        f"Every doubling of the steps still takes {100 * fall:.1f} % of the loss at the end of the"
        f" pilot runs: so early in training no law was tested, and {horizon:,} steps may end far"
        " outside of the interval. Longer pilots, or one that is held out, would tell."
    ]


def falling(found: Fit) -> float:
    """Share of the loss that a doubling of the longest run would take, at the peak rate."""
    span = round(found.scale.span)
    steady = Schedule.from_knots([0, 2 * span - 1], eta=[found.scale.rate] * 2)
    once, twice = found.law.curve(found.theta, cut(steady, np.array([span, 2 * span]), found.scale))
    return float(1.0 - twice / once)


def _too_early(found: Fit, steps: Ints) -> list[str]:
    """A warning if losses are wanted from before those of the runs."""
    first = round(found.scale.first * found.scale.span)
    if steps[0] >= 0.9 * first or steps[-1] < first:
        return []
    return [
        f"Losses before step {first:,}, the first of the runs, are no prediction: the law is not"
        " made for the start of training."
    ]


def _curves(found: Fit, schedule: Schedule, steps: Ints) -> tuple[Floats, Floats]:
    """Loss (k,) of the fit and (K, k) of its members."""
    pieces = cut(schedule, steps, found.scale)
    members = [found.law.curve(theta, pieces) for theta in found.members]
    loss = np.maximum(found.law.curve(found.theta, pieces), TINY)
    return loss, np.array(members).reshape(-1, len(steps))


def _spread(found: Fit, loss: Floats, members: Floats, peak: float, steps: Ints) -> Floats:
    """Standard deviation of the loss of one run."""
    shared = members.var(0, ddof=1) if len(members) > 1 else 0.0
    carried = peak_error(found, peak) ** 2 + (OTHER_DECAY * found.decay_shift) ** 2
    doublings = np.log2(np.maximum(steps / found.horizon, 1.0))
    relative = found.seed_noise**2 + carried + (found.slip * doublings) ** 2
    return np.sqrt(shared + (MISFIT * found.misfit) ** 2 + relative * loss**2)


def _lower(loss: Floats, half: Floats) -> Floats:
    """Lower end of an interval: in the logarithm, which no loss below 0 has."""
    return loss * np.exp(-half / loss)


def default_steps(found: Fit, schedule: Schedule) -> Ints:
    """Steps at which a curve is shown: even, from the first that the runs have a loss for."""
    horizon = schedule.horizon
    first = min(max(round(found.scale.first * found.scale.span), 1), horizon)
    return np.unique(np.linspace(first, horizon, ROWS).round().astype(np.int64))


def predict(
    found: Fit,
    schedule: Schedule,
    steps: ArrayLike | None = None,
    *,
    level: float = LEVEL,
    weight_decay: float | None = None,
) -> Prediction:
    """Predict the loss along a schedule.

    Parameters
    ----------
    found : Fit
    schedule : Schedule
        With its warm-up.
    steps : array_like of int, shape (k,), optional
        Numbers of updates done, from 1, increasing; about 200 if not given, from the
        first step with a loss in the runs up to the horizon.
    level : float
        Probability that the loss of one run lies in the interval.
    weight_decay : float, optional
        Of the run to predict, if not that of the runs of the fit.

    Returns
    -------
    Prediction

    Raises
    ------
    InvalidProblem
        Steps that do not increase from 1, or past the horizon; a level not between 0 and 1; a fit
        that does not describe its own runs.
    """
    level = checked_level(level)
    check_described(found)
    found = at_decay(found, weight_decay)
    at = default_steps(found, schedule) if steps is None else integers("steps", steps)
    if at.size and at[-1] > schedule.horizon:
        raise InvalidProblem("steps", int(at[-1]), f"at most {schedule.horizon}, the horizon")
    loss, members = _curves(found, schedule, at)
    half = float(ndtri(0.5 + 0.5 * level)) * _spread(found, loss, members, schedule.peak, at)
    return Prediction(
        at,
        np.asarray(schedule(np.minimum(at, schedule.horizon - 1))),
        loss,
        _lower(loss, half),
        loss + half,
        level,
        (
            *_carried(found),
            *(line for line in found.warnings if line.startswith(FIRST_HALF)),
            *_warnings(found, schedule),
            *_early(found, schedule.horizon),
            *_too_early(found, at),
        ),
    )


def compare(
    found: Fit,
    schedules: Mapping[str, Schedule],
    *,
    level: float = LEVEL,
    weight_decay: float | None = None,
) -> Ranking:
    """Predicted final losses of schedules, with their differences and whether those are real.

    Parameters
    ----------
    found : Fit
    schedules : mapping of str to Schedule
    level : float
        Of the intervals, and of calling a difference real.
    weight_decay : float, optional
        Of all runs to predict, if not that of the runs of the fit.

    Returns
    -------
    Ranking
        The best first. The standard error of a difference has what the ensemble says of it, the
        noise of two seeds, half the misfit of the law where the schedules differ, as laws err with
        the shape too, and what laws err by at other peak rates; two equal schedules differ by the
        noise alone.
    """
    level = checked_level(level)
    check_described(found)
    found = at_decay(found, weight_decay)
    if not schedules:
        raise InvalidProblem("schedules", 0, "one schedule or more")
    factor = float(ndtri(0.5 + 0.5 * level))
    finals, members, away = {}, {}, {}
    warnings = _unsound(found) + _carried(found)
    for name, schedule in schedules.items():
        loss, own = _curves(found, schedule, np.array([schedule.horizon]))
        away[name] = peak_error(found, schedule.peak)
        finals[name], members[name] = float(loss[0]), own[:, 0]
        warnings += _warnings(found, schedule, name)
    warnings += _early(found, max(schedule.horizon for schedule in schedules.values()))
    best = min(finals, key=lambda name: finals[name])
    rows = []
    for name in sorted(finals, key=lambda name: finals[name]):
        loss = finals[name]
        at, end = np.array([loss]), np.array([schedules[name].horizon])
        half = factor * _spread(found, at, members[name][:, None], schedules[name].peak, end)
        gap = loss - finals[best]
        shared = members[name] - members[best]
        shape = SHAPE_MISFIT * found.misfit if gap > 0.0 else 0.0
        variance = (shared.var(ddof=1) if len(shared) > 1 else 0.0) + shape**2
        relative = 2.0 * found.seed_noise**2 + (away[name] - away[best]) ** 2
        error = float(np.sqrt(variance + relative * loss**2))
        rows.append(
            Predicted(
                name,
                schedules[name].peak,
                loss,
                float(_lower(at, half)[0]),
                float(loss + half[0]),
                gap,
                0.0 if name == best else error,
                bool(name != best and gap > factor * error),
            )
        )
    return Ranking(tuple(rows), level, tuple(warnings))
