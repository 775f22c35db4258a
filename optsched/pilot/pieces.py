"""A schedule in pieces along which the rate hardly changes: what a law is evaluated on.

A law sums over all steps of a run. Between two edges of a schedule the rate is linear in the
step, so that the sums over its steps are integrals, and a few hundred pieces stand for any number
of steps: the cost of a law does not depend on the horizon.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.errors import InvalidProblem
from optsched.schedules.schedule import Schedule

__all__ = ["Pieces", "Scale", "check_rate", "cut", "fine_edges"]


CHANGE = 0.02  # of the peak: the rate of a piece changes by no more
STRAIGHT = 1e-4  # of the peak: what a line through knots may leave out
FAR = 1e6  # times the peak of the runs: powers of such a rate are far from overflow
MOST = 4096  # pieces between two knots
RATIO = 5.0  # times the change: the same for the logarithm of the rate
EARLIEST = 1e-5  # of a run: before, no state has changed
LEAST = 1e-3  # of the peak: from there down only the rate itself matters


@dataclass(frozen=True)
class Scale:
    """Units in which the parameters of a law are of order one.

    Attributes
    ----------
    rate : float
        Reference rate: the largest of the pilot runs.
    span : float
        Reference number of steps: those of the longest pilot run.
    first : float
        First step with a loss, over ``span``.
    """

    rate: float
    span: float
    first: float


@dataclass(frozen=True, eq=False)
class Pieces:
    """Pieces of a schedule in the units of a `Scale`.

    Attributes
    ----------
    rate : numpy.ndarray, shape (3, n)
        Rate over the reference rate at the first step, in the middle and at the last step.
    length : numpy.ndarray, shape (n,)
        Number of steps over the span.
    observed : numpy.ndarray of int64, shape (k,)
        Number of pieces before every observation.
    first : float
        As in `Scale`.
    memo : dict
        What laws keep of the pieces, to be asked for again.
    """

    rate: Floats
    length: Floats
    observed: Ints
    first: float
    memo: dict[Hashable, Any] = field(default_factory=dict, repr=False)

    def mean(self, power: float) -> Floats:
        """Mean of ``rate ** power`` over the steps of every piece, shape (n,), by Simpson's rule.

        Exact for powers up to 3 of rates that are linear in the step.
        """
        return _simpson(self.rate**power)

    def mean_log(self, power: float) -> Floats:
        """Derivative of `mean` in the power."""
        return _simpson(self.rate**power * np.log(self.rate))

    @cached_property
    def fine(self) -> Pieces:
        """The same, cut further for states that change while the rate is held.

        No piece is longer than 1/64 of all, nor than a fifth of the way to its end, nor, at the
        last, than a third of the way that is left: there noise is fresh.
        """
        edges = np.append(0.0, np.cumsum(self.length))
        total = float(edges[-1])
        late = 1.0 - np.geomspace(EARLIEST, 1.0 / 64.0, 24)
        inside = total * np.concatenate(
            [np.geomspace(EARLIEST, 1.0, 60), np.arange(1, 64) / 64, late]
        )
        every = np.union1d(edges, inside[inside < total])
        parent = np.searchsorted(edges, every[:-1], side="right") - 1
        start = (every[:-1] - edges[parent]) / self.length[parent]
        end = (every[1:] - edges[parent]) / self.length[parent]
        first, last = self.rate[0][parent], self.rate[2][parent]
        rate = np.stack([first + (last - first) * x for x in (start, 0.5 * (start + end), end)])
        observed = np.searchsorted(every, edges[self.observed])
        return Pieces(rate, np.diff(every), observed, self.first)


def _simpson(values: Floats) -> Floats:
    return (values[0] + 4.0 * values[1] + values[2]) / 6.0


def fine_edges(schedule: Schedule, horizon: int, change: float = CHANGE) -> Ints:
    """Steps, from 0 to ``horizon``, between which the rate changes by little.

    Parameters
    ----------
    schedule : Schedule
    horizon : int
        Where to stop; beyond the end of the schedule its last rate holds.
    change : float
        Largest change of the rate along a piece, over the peak, unless it is one step.
    """
    peak = max(schedule.peak, 1e-300)
    kept = _needed(schedule, STRAIGHT * peak)
    knots, eta = schedule.steps[kept], schedule.controls["eta"][kept]
    moves = np.flatnonzero((np.diff(eta) != 0.0) & (np.diff(knots) > 1))
    shares, of = _shares(eta[moves] / peak, eta[moves + 1] / peak, change)
    low, high = knots[moves][of], knots[moves + 1][of]
    inside = low + np.floor(shares * (high - low)).astype(np.int64)
    found = np.unique(np.concatenate([np.array([0, horizon], dtype=np.int64), knots, inside]))
    return found[found <= horizon]


def _shares(first: Floats, last: Floats, change: float) -> tuple[Floats, Ints]:
    """Shares of the ways from rates to others, over the peak, at which pieces end, and whose.

    Even in the rate; where it falls in its logarithm too, as a loss may be wanted right behind.
    """
    even = np.minimum(np.ceil(np.abs(last - first) / change), MOST).astype(np.int64)
    lows = np.log(np.maximum(first, LEAST)), np.log(np.maximum(last, LEAST))
    falls = np.maximum(lows[0] - lows[1], 0.0)
    ratio = np.maximum(np.minimum(np.ceil(falls / (RATIO * change)), MOST), 1).astype(np.int64)
    of, inner = _counted(even - 1)
    shares = inner / even[of]
    graded_of, inner = _counted(ratio - 1)
    way = inner / ratio[graded_of]
    rate = np.exp(lows[0][graded_of] + way * (lows[1] - lows[0])[graded_of])
    graded = (rate - first[graded_of]) / (last - first)[graded_of]
    shares, of = np.append(shares, graded), np.append(of, graded_of)
    keep = (shares > 0.0) & (shares < 1.0)
    return shares[keep], of[keep]


def _counted(counts: Ints) -> tuple[Ints, Ints]:
    """Every index as often as its count says, and 1, 2, ... up to it."""
    counts = np.maximum(counts, 0)
    of = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return of, np.arange(len(of)) - before[of] + 1


def _needed(schedule: Schedule, tolerance: float) -> Ints:
    """Indices of knots between which straight lines are off by no more than the tolerance.

    Greedy: from every knot kept, as far as all knots on the way stay within the tolerance.
    """
    # Plain numbers: most lines are a few knots long, too short for arrays to pay.
    steps, eta = schedule.steps.tolist(), schedule.controls["eta"].tolist()
    kept, i, last = [0], 0, len(steps) - 1
    while i < last:
        # Slopes that pass every knot within the tolerance: an interval that shrinks.
        start, at, low, high, found = steps[i], eta[i], -math.inf, math.inf, i + 1
        for j in range(i + 1, last + 1):
            run, rate = steps[j] - start, eta[j]
            least, most = (rate - tolerance - at) / run, (rate + tolerance - at) / run
            if least > low:
                low = least
            if most < high:
                high = most
            if low > high:
                break
            if low <= (rate - at) / run <= high:
                found = j
        i = found
        kept.append(i)
    return np.array(kept)


def cut(schedule: Schedule, steps: Ints, scale: Scale, change: float = CHANGE) -> Pieces:
    """Cut a schedule into pieces, with edges at the steps of observations.

    Parameters
    ----------
    schedule : Schedule
        Its rate in the middle of a piece stands for the rate there; past its end the last holds.
    steps : numpy.ndarray of int64, shape (k,)
        Numbers of updates after which a loss is wanted, increasing, >= 1.
    scale : Scale
    change : float
        As for `fine_edges`.

    Raises
    ------
    InvalidProblem
        No step, one below 1, steps that do not increase, or a rate above 1e6 times the scale.
    """
    check_rate(schedule.peak, scale)
    steps = np.atleast_1d(np.asarray(steps, dtype=np.int64))
    if steps.size == 0 or steps[0] < 1 or np.any(np.diff(steps) <= 0):
        raise InvalidProblem("steps", steps[:5].tolist(), "increasing numbers of updates >= 1")
    edges = np.unique(np.append(fine_edges(schedule, int(steps[-1]), change), steps))
    first, last = edges[:-1], edges[1:] - 1
    start, end = (_rate(schedule, at) / scale.rate for at in (first, last))
    rate = np.stack([start, 0.5 * (start + end), end])
    length = np.diff(edges) / scale.span
    # A rate of 0 is one too small to matter, as powers below 1 have no derivative there.
    rate = np.maximum(rate, 1e-12)
    return Pieces(rate, length, np.searchsorted(edges, steps), scale.first)


def check_rate(peak: float, scale: Scale) -> None:
    """Refuse a peak rate so far from that of the runs that powers of it overflow."""
    if not peak <= FAR * scale.rate:
        allowed = f"at most {FAR:g} times that of the runs, {scale.rate:g}"
        raise InvalidProblem("peak", peak, allowed)


def _rate(schedule: Schedule, steps: Ints) -> Floats:
    """Rate at steps that may lie past the end."""
    return np.interp(steps, schedule.steps, schedule.controls["eta"])
