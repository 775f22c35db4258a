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
    decay : float
        Weight decay of the run over that of the runs of the fit.
    memo : dict
        What laws keep of the pieces, to be asked for again.
    """

    rate: Floats
    length: Floats
    observed: Ints
    first: float
    decay: float = 1.0
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
        return Pieces(rate, np.diff(every), observed, self.first, self.decay)


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
    edges = [np.array([0, horizon], dtype=np.int64), knots]
    for i in np.flatnonzero((np.diff(eta) != 0.0) & (np.diff(knots) > 1)):
        low, high = int(knots[i]), int(knots[i + 1])
        shares = _shares(float(eta[i]) / peak, float(eta[i + 1]) / peak, change)
        edges.append(low + np.floor(shares * (high - low)).astype(np.int64))
    found = np.unique(np.concatenate(edges))
    return found[found <= horizon]


def _shares(first: float, last: float, change: float) -> Floats:
    """Shares of the way from one rate to another, over the peak, at which a piece ends.

    Even in the rate; where it falls in its logarithm too, as a loss may be wanted right behind.
    """
    even = min(math.ceil(abs(last - first) / change), MOST)
    lows = max(first, LEAST), max(last, LEAST)
    ratio = min(math.ceil(max(math.log(lows[0] / lows[1]), 0.0) / (RATIO * change)), MOST)
    ratio = max(ratio, 1)
    graded = (np.geomspace(*lows, ratio + 1)[1:-1] - first) / (last - first)
    shares = np.append(np.arange(1, even) / even, graded)
    return shares[(shares > 0.0) & (shares < 1.0)]


def _needed(schedule: Schedule, tolerance: float) -> Ints:
    """Indices of knots between which straight lines are off by no more than the tolerance.

    Greedy: from every knot kept, as far as all knots on the way stay within the tolerance.
    """
    steps, eta = schedule.steps.astype(float), schedule.controls["eta"]
    kept, i = [0], 0
    while i < len(steps) - 1:
        # Slopes that pass every knot within the tolerance: an interval that shrinks.
        run = steps[i + 1 :] - steps[i]
        low = np.maximum.accumulate((eta[i + 1 :] - tolerance - eta[i]) / run)
        high = np.minimum.accumulate((eta[i + 1 :] + tolerance - eta[i]) / run)
        slope = (eta[i + 1 :] - eta[i]) / run
        fits = (slope >= low) & (slope <= high) & (low <= high)
        stop = int(np.argmin(low <= high)) if not np.all(low <= high) else len(run)
        i += 1 + int(np.flatnonzero(fits[:stop])[-1])
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
