"""Sums over steps along a schedule's own clock: cells of steps, and what passes between places.

The machinery of `optsched.schedules.batches`. Values are linear between knots, so that all sums
are exact, and a horizon of 10^15 steps costs as much as one of 10^4.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.schedules.schedule import Schedule

__all__ = ["Cells", "cells_of", "knot_steps_at", "passed", "total_of"]


DENSE = 4096  # horizons up to this are treated step by step
RATIO = 1.01  # how much the rate may change within one cell of a longer one


class Cells(NamedTuple):
    """Groups of steps: intrinsic time, samples and steps of each, and its first and last values."""

    steps: Floats
    tau: Floats
    samples: Floats
    eta: tuple[Floats, Floats]
    batch: tuple[Floats, Floats]


def cells_of(schedule: Schedule, levels: Floats | None = None) -> Cells:
    """Cells within which the rate varies little and the batch size crosses none of the levels."""
    knots, end = schedule.steps, schedule.horizon
    if end <= DENSE:
        edges = np.arange(end + 1)
    else:
        # Down to where linear decays over 10^15 steps have long reached their last step.
        grade = schedule.peak * RATIO ** np.arange(-7000.0, 1.0)
        cuts = [knots, knots + 1, _crossings(knots, schedule.controls["eta"], grade)]
        if levels is not None:
            cuts.append(_crossings(knots, schedule.controls["batch_size"], levels))
        edges = np.unique(np.concatenate(cuts))
    first, last = edges[:-1], edges[1:] - 1
    eta = schedule(first), schedule(last)
    batch = schedule(first, "batch_size"), schedule(last, "batch_size")
    # Values are linear within a cell, so that these sums are exact.
    tau, samples = ((edges[1:] - first) * (0.5 * v + 0.5 * w) for v, w in (eta, batch))
    return Cells((edges[1:] - first).astype(np.float64), tau, samples, eta, batch)


def _crossings(knots: Ints, values: Floats, levels: Floats) -> Ints:
    """First steps at or past every crossing of a level, for values linear between knots."""
    length = np.diff(knots)
    place = np.searchsorted(levels, values)
    low = np.minimum(place[:-1], place[1:])
    crossed = np.abs(np.diff(place))
    # More crossings than steps: take every step.
    every = crossed >= length - 1
    count = np.where(every, length - 1, crossed)
    segment = np.repeat(np.arange(len(length)), count)
    rank = np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
    level = levels[np.minimum(low[segment] + rank, len(levels) - 1)] if len(levels) else rank
    rise = np.where(crossed > 0, np.diff(values), 1.0)[segment]
    way = np.clip((level - values[segment]) / rise, 0.0, 1.0)
    inside = np.where(every[segment], rank + 1, np.ceil(way * length[segment]).astype(np.int64))
    return knots[segment] + inside


def total_of(steps: Ints, values: Floats) -> float:
    """Sum over all steps of values linear between knots."""
    trapezoids = np.diff(steps) * (0.5 * values[:-1] + 0.5 * values[1:])
    return float(trapezoids.sum() + 0.5 * values[0] + 0.5 * values[-1])


def knot_steps_at(places: Ints, horizon: int) -> Ints:
    """Steps for knots: all of them, or those around the places, so that jumps stay jumps."""
    if horizon <= DENSE:
        return np.arange(horizon)
    around = np.concatenate([[0], places - 1, places, places + 1, [horizon - 1]])
    return np.unique(np.clip(around, 0, horizon - 1))


def passed(width: Floats, amount: Floats, rates: Floats, start: Any, stop: Any) -> Floats:
    """How much passes from ``start`` to ``stop``, positions in cells of the given widths.

    Cell i spends ``amount[i]`` at a rate that goes linearly from ``rates[0, i]`` to
    ``rates[1, i]``, in any unit. Positions in the second half are counted from the end, so that a
    decay to 0 keeps its digits.
    """
    total, end = rates.sum(0), np.max(stop)
    good = np.isfinite(total) & (total > 0.0)
    lean = np.where(good, rates[0], 1.0) / np.where(good, total, 2.0)
    late = start + stop > end
    ahead = _between(width, amount, lean, start, stop)
    mirror = width[::-1], amount[::-1], 1.0 - lean[::-1]
    return np.maximum(np.where(late, _between(*mirror, end - stop, end - start), ahead), 0.0)


def _between(width: Floats, amount: Floats, lean: Floats, start: Floats, stop: Floats) -> Floats:
    """As `passed`, counted from the start; no cancellation unless many cells lie between."""
    edges = np.concatenate([[0.0], np.cumsum(width)])
    sums = np.concatenate([[0.0], np.cumsum(amount)])
    top = len(width) - 1
    first = np.clip(np.searchsorted(edges, start, side="right") - 1, 0, top)
    last = np.clip(np.searchsorted(edges, stop, side="left") - 1, first, top)
    begin = np.clip((start - edges[first]) / width[first], 0.0, 1.0)
    finish = np.clip((stop - edges[last]) / width[last], 0.0, 1.0)
    # A share s of a cell's width has spent the share s (2 lean + (1 - 2 lean) s) of its amount.
    turn = 1.0 - 2.0 * lean
    within = (stop - start) / width[first] * (2.0 * lean[first] + turn[first] * (begin + finish))
    ahead = (1.0 - begin) * (1.0 + turn[first] * begin) * amount[first]
    behind = finish * (2.0 * lean[last] + turn[last] * finish) * amount[last]
    apart = ahead + (sums[last] - sums[np.minimum(first + 1, top + 1)]) + behind
    return np.where(first == last, within * amount[first], apart)
