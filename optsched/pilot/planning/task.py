"""What is planned, checked once: bounds, horizon and what was done before."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from optsched.arrays import Floats
from optsched.checks import at_least, positive, whole
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem
from optsched.pilot.fitting import Fit
from optsched.pilot.pieces import check_rate, cut
from optsched.pilot.prediction import PEAK_SLACK, check_described, other_peak
from optsched.pilot.separable import Separable
from optsched.schedules.schedule import Schedule

__all__ = ["PlanTask", "checked_task"]

RAMP_PIECES = 48
FINE = 0.005  # of the peak: change of the rate along a piece of the history


@dataclass(frozen=True, eq=False)
class PlanTask:
    """What is planned, in absolute rates and steps.

    Attributes
    ----------
    found : Fit
    horizon, start, warmup : int
        Steps of the whole run, those done, and those of a forced ramp.
    cap, floor : float
        Bounds of the rate.
    past : tuple of numpy.ndarray, shape (n,)
        Rates and lengths of the pieces of what was done, in units of the scale.
    history : Schedule or None
        The same as a schedule.
    warnings : tuple of str
    """

    found: Fit
    horizon: int
    start: int
    warmup: int
    cap: float
    floor: float
    past: tuple[Floats, Floats]
    history: Schedule | None
    warnings: tuple[str, ...]

    @property
    def steps(self) -> int:
        """Number of free steps, a forced warm-up included."""
        return self.horizon - self.start

    @property
    def free(self) -> int:
        """Number of free steps after the warm-up."""
        return self.steps - self.warmup

    @property
    def unit_cap(self) -> float:
        """Upper bound of the rate over the reference rate."""
        return self.cap / self.found.scale.rate

    @property
    def unit_floor(self) -> float:
        """Lower bound of the rate over the reference rate."""
        return self.floor / self.found.scale.rate

    @cached_property
    def ramp(self) -> tuple[Floats, Floats]:
        """Pieces of the warm-up: rates over that at its end, lengths over the span."""
        edges = np.unique(np.linspace(0, self.warmup, RAMP_PIECES + 1).astype(np.int64))
        centre = 0.5 * (edges[:-1] + edges[1:] - 1).astype(float)
        return (centre + 1.0) / (self.warmup + 1.0), np.diff(edges) / self.found.scale.span

    def before(self, end: float) -> tuple[Floats, Floats]:
        """Pieces before the free steps, for a warm-up to the rate ``end``; scaled."""
        ramp, length = self.ramp
        return np.concatenate([self.past[0], end * ramp]), np.concatenate([self.past[1], length])

    def separable(self, theta: Floats) -> Separable | None:
        """The law as a clock, a noise and a norm, None if it is of another kind."""
        return self.found.law.separable(theta, self.found.scale.first)


def checked_task(
    found: Fit,
    horizon: Any,
    peak: float | None,
    warmup: Any,
    floor: float,
    start: Any,
    history: Schedule | None,
    extrapolate: bool,
) -> PlanTask:
    """The one place where what a plan is asked for is checked.

    Raises
    ------
    InvalidProblem
        A law that cannot be planned with, a field out of range, or a peak above those of the
        runs without ``extrapolate``.
    """
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
    peak, floor = positive("peak", peak), at_least("floor", floor, 0.0)
    check_rate(peak, found.scale)
    if not floor < peak:
        raise InvalidProblem("floor", floor, f"a number below the peak, {peak:g}")
    text = other_peak(found, peak)
    low, high = found.peaks
    carried = found.law.carries and peak <= high * (1.0 + PEAK_SLACK)
    if text is not None and not (extrapolate or carried):
        seen = f"at most {high:.6g}, the highest peak of the runs"
        if not found.law.carries:
            seen = f"{low:.6g} to {high:.6g}, the peaks of the runs"
        raise InvalidProblem("peak", peak, f"{seen}, or any with extrapolate=True")
    past = np.zeros(0), np.zeros(0)
    if history is not None:
        pieces = cut(history, np.array([start]), found.scale, change=FINE).fine
        past = pieces.rate[1], pieces.length
    warnings = () if text is None else (text,)
    return PlanTask(found, horizon, start, warmup, peak, floor, past, history, warnings)
