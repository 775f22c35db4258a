r"""Predict the loss of any schedule from a fitted law, and say which differences are real.

The variance of a predicted loss is that of the ensemble of the fit, plus the squared misfit of the
law, plus the noise between seeds. In a difference between two schedules the errors of the ensemble
are shared and mostly cancel; the noise between seeds is counted twice, for two runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import norm

from optsched.arrays import Floats, Ints
from optsched.checks import integers, is_number
from optsched.errors import InvalidProblem
from optsched.pilot.fitting import Fit
from optsched.pilot.identify import ONE_RUN
from optsched.pilot.pieces import cut
from optsched.schedules.schedule import Schedule

__all__ = ["Comparison", "Prediction", "Row", "checked_level", "compare", "other_peak", "predict"]


LEVEL = 0.8
PEAK_SLACK = 0.02  # relative: the same rate but for rounding
# Language models at the end of the public runs lose 2 % in a doubling of the steps.
EARLY, BEYOND = 0.035, 1.5
SHAPE_MISFIT = 0.5  # of the law's misfit, in a difference of two schedules
ROWS = 200


@dataclass(frozen=True, eq=False)
class Prediction:
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
class Row:
    """A schedule in a `Comparison`.

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


@dataclass(frozen=True)
class Comparison:
    """Final losses of several schedules, the best first.

    Attributes
    ----------
    rows : tuple of Row
    level : float
    warnings : tuple of str
    """

    rows: tuple[Row, ...]
    level: float
    warnings: tuple[str, ...]


def checked_level(level: float) -> float:
    """A level of intervals, if it is strictly between 0 and 1."""
    if not (is_number(level) and 0.0 < level < 1.0):
        raise InvalidProblem("level", level, "a number between 0 and 1")
    return float(level)


def other_peak(found: Fit, peak: float) -> str | None:
    """A warning if a peak rate lies outside of those of the runs, else None."""
    low, high = found.peaks
    if low * (1.0 - PEAK_SLACK) <= peak <= high * (1.0 + PEAK_SLACK):
        return None
    seen = f"{high:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
    return (
        f"Peak rate {peak:.6g} is not one of the runs ({seen}): no law is known to extrapolate to"
        " another peak, errors of 0.02 to 0.15 were seen where 0.003 is usual. Do not trust these"
        " numbers."
    )


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
    return found.law.curve(found.theta, pieces), np.array(members).reshape(-1, len(steps))


def _spread(found: Fit, loss: Floats, members: Floats) -> Floats:
    """Standard deviation of the loss of one run."""
    shared = members.var(0, ddof=1) if len(members) > 1 else 0.0
    return np.sqrt(shared + found.misfit**2 + (found.seed_noise * loss) ** 2)


def default_steps(found: Fit, schedule: Schedule) -> Ints:
    """Steps at which a curve is shown: even, from the first that the runs have a loss for."""
    horizon = schedule.horizon
    first = min(max(round(found.scale.first * found.scale.span), 1), horizon)
    return np.unique(np.linspace(first, horizon, ROWS).round().astype(np.int64))


def predict(
    found: Fit, schedule: Schedule, steps: ArrayLike | None = None, *, level: float = LEVEL
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

    Returns
    -------
    Prediction

    Raises
    ------
    InvalidProblem
        Steps that do not increase from 1, or past the horizon; a level not between 0 and 1.
    """
    level = checked_level(level)
    at = default_steps(found, schedule) if steps is None else integers("steps", steps)
    if at.size and at[-1] > schedule.horizon:
        raise InvalidProblem("steps", int(at[-1]), f"at most {schedule.horizon}, the horizon")
    loss, members = _curves(found, schedule, at)
    half = float(norm.ppf(0.5 + 0.5 * level)) * _spread(found, loss, members)
    return Prediction(
        at,
        np.asarray(schedule(np.minimum(at, schedule.horizon - 1))),
        loss,
        loss - half,
        loss + half,
        level,
        (
            *_warnings(found, schedule),
            *_early(found, schedule.horizon),
            *_too_early(found, at),
        ),
    )


def compare(found: Fit, schedules: Mapping[str, Schedule], *, level: float = LEVEL) -> Comparison:
    """Predicted final losses of schedules, with their differences and whether those are real.

    Parameters
    ----------
    found : Fit
    schedules : mapping of str to Schedule
    level : float
        Of the intervals, and of calling a difference real.

    Returns
    -------
    Comparison
        The best first. The standard error of a difference has what the ensemble says of it, the
        noise of two seeds, and half the misfit of the law where the schedules differ, as laws err
        with the shape too; two equal schedules differ by the noise alone.
    """
    level = checked_level(level)
    if not schedules:
        raise InvalidProblem("schedules", 0, "one schedule or more")
    factor = float(norm.ppf(0.5 + 0.5 * level))
    finals, members = {}, {}
    warnings = [line for line in found.warnings if line.startswith(ONE_RUN)]
    for name, schedule in schedules.items():
        loss, own = _curves(found, schedule, np.array([schedule.horizon]))
        finals[name], members[name] = float(loss[0]), own[:, 0]
        warnings += _warnings(found, schedule, name)
    warnings += _early(found, max(schedule.horizon for schedule in schedules.values()))
    best = min(finals, key=lambda name: finals[name])
    rows = []
    for name in sorted(finals, key=lambda name: finals[name]):
        loss = finals[name]
        spread = float(_spread(found, np.array([loss]), members[name][:, None])[0])
        gap = loss - finals[best]
        shared = members[name] - members[best]
        shape = SHAPE_MISFIT * found.misfit if gap > 0.0 else 0.0
        variance = (shared.var(ddof=1) if len(shared) > 1 else 0.0) + shape**2
        error = float(np.sqrt(variance + 2.0 * (found.seed_noise * loss) ** 2))
        rows.append(
            Row(
                name,
                schedules[name].peak,
                loss,
                loss - factor * spread,
                loss + factor * spread,
                gap,
                0.0 if name == best else error,
                bool(name != best and gap > factor * error),
            )
        )
    return Comparison(tuple(rows), level, tuple(warnings))
