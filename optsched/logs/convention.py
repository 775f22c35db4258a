"""Which update the rate of a row belongs to, as far as a log shows it.

A row with s updates done may have the rate of the next update, number s, of the last one, s - 1,
or the mean over the updates since the row before. Three things in a log tell which.

* **An end at 0.** Schedules that end at 0 reach it after the last update: a row that has 0 there
  has the rate of an update that will not come.
* **A ramp.** On the line through the first rows the rate is 0 at step 0 (next, or last where the
  first update has a rate), 1 (last) or -1 (next).
* **A jump.** People change rates at round steps; if one reading puts the jumps at rounder steps by
  a factor of 5, it is that. A row between that has a mean of both rates, of a whole number of
  updates each, shows that rates are means.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.errors import BadLog
from optsched.logs.clock import Points
from optsched.logs.formats.table import RateOf
from optsched.logs.options import Options
from optsched.logs.rates import Filled, fill_rates, jumps, place, ramp

__all__ = ["Convention", "every_step", "find_convention", "updates"]


NEAR = 0.25  # of a step
ROUNDER = 4.0
MEAN_GAP = 10  # updates between rows from which on a mean can be told


@dataclass(frozen=True)
class Convention:
    """What the rate of a row is.

    Attributes
    ----------
    rate_of : {"next", "last", "mean"}
    sure : bool
        Whether it was given or seen; else it is what such files mostly have.
    note : str or None
        What it was seen by.
    """

    rate_of: RateOf
    sure: bool
    note: str | None = None


def find_convention(points: Points, given: RateOf | None) -> Convention:
    """The convention of a column of rates: as given, as seen, or that of its format.

    Parameters
    ----------
    points : Points
        Rates with the updates done.
    given : {"next", "last", "mean"} or None
    """
    if given is not None:
        return Convention(given, True)
    habit = points.series.table.rate_of
    if points.whole_epochs:
        return Convention(habit or "next", True)
    for look in (_by_end, _by_ramp, _by_mean, _by_jumps):
        seen = look(points, habit)
        if seen is not None:
            rate_of, why = seen
            words = {"next": "the next update", "last": "the last update"}.get(
                rate_of, "the updates since the row before, as a mean"
            )
            return Convention(rate_of, True, f"The rate of a row is that of {words}: {why}.")
    return Convention(habit or "next", False)


Seen = tuple[RateOf, str] | None


def _by_end(points: Points, habit: RateOf | None) -> Seen:
    steps, rates = points.steps, points.values
    if len(rates) < 3 or rates[-1] != 0.0 or rates[-2] == 0.0:
        return None
    # Near its end a cosine falls as the square of the steps that are left.
    before = rates[-2] / float(steps[-1] - steps[-2]) ** 2
    if before <= rounding_of(points):
        return None  # a 0 that may be rounded
    horizon = points.series.table.facts.get("horizon")
    if isinstance(horizon, int) and horizon != steps[-1]:
        return None
    return "next", f"it is 0 at step {steps[-1]}, the last"


def _by_ramp(points: Points, habit: RateOf | None) -> Seen:
    steps, rates = points.steps, points.values
    first = max(int(np.argmax(rates > 0.0)) - 1, 0)
    steps, rates = steps[first:], rates[first:]
    last = ramp(steps, rates)
    if last is None or last < 2 or rounding_of(points) > 1e-3 * rates[1]:
        return None
    slope = (rates[1] - rates[0]) / (steps[1] - steps[0])
    zero = float(steps[0] - rates[0] / slope)
    lines: tuple[tuple[RateOf, float], ...] = (("last", 1.0), ("next", -1.0), ("next", 0.0))
    for rate_of, at in lines:
        # 0 at step 0 is both, but for trainers whose first update has a rate of 0.
        if abs(zero - at) < NEAR and (at or habit == "last"):
            return rate_of, f"the ramp is 0 at step {at:g}"
    return None


def _by_mean(points: Points, habit: RateOf | None) -> Seen:
    steps, rates = points.steps, points.values
    for i, share in _mixed(steps, rates):
        gap = int(steps[i] - steps[i - 1])
        if gap >= MEAN_GAP and abs(share - round(share)) < 1e-6 * gap:
            at = int(steps[i - 1]) + round(share)
            before, mixed, after = rates[i - 1 : i + 2]
            return "mean", f"between {before:g} and {after:g}, {mixed:g} is a change at step {at}"
    return None


def _mixed(steps: Ints, rates: Floats) -> list[tuple[int, float]]:
    """Rows between two held rates that could be a mean of both, and the updates with the first."""
    found = []
    for i in range(2, len(rates) - 2):
        before, mixed, after = rates[i - 1], rates[i], rates[i + 1]
        held = rates[i - 2] == before and rates[i + 2] == after and after > 0.0
        if held and min(before, after) < mixed < max(before, after):
            gap = int(steps[i] - steps[i - 1])
            found.append((i, float((mixed - after) / (before - after) * gap)))
    return found


def _by_jumps(points: Points, habit: RateOf | None) -> Seen:
    steps, rates, per = points.steps, points.values, points.per
    found = jumps(steps, rates, rounding_of(points))
    if not found.size or steps[0] == 0:
        return None  # a row before the first update has no last one
    places: dict[RateOf, list[int]] = {"next": [], "last": []}
    rounder: dict[RateOf, float] = {"next": 0.0, "last": 0.0}
    for name, shift in zip(places, (0, 1), strict=True):
        for i in found:
            at = place(int(steps[i]) - shift, int(steps[i + 1]) - shift, per)
            places[name].append(at.step)
            rounder[name] += float(np.log(at.unit))
    more = rounder["last"] - rounder["next"]
    if abs(more) <= np.log(ROUNDER):
        return None
    rate_of: RateOf = "last" if more > 0.0 else "next"
    shown = ", ".join(map(str, places[rate_of][:3]))
    return rate_of, f"so it jumps at round steps ({shown})"


def rounding_of(points: Points) -> float:
    """Half of the last digit that the file has, 0 where rates are not rounded."""
    fields = points.series.table.columns[points.series.value]
    found = []
    for row in points.rows.tolist():
        text = fields[row]
        if not isinstance(text, str) or "e" in text.lower() or "." not in text:
            return 0.0
        found.append(len(text.strip().partition(".")[2]))
    return 0.5 * 10.0 ** -max(found)


def updates(points: Points, convention: Convention) -> tuple[Ints, Floats]:
    """Updates that use the rates of the rows, increasing, and those rates.

    Parameters
    ----------
    points : Points
        Rates with the updates done.
    convention : Convention

    Returns
    -------
    steps : numpy.ndarray of int64, shape (m,)
    rates : numpy.ndarray of float64, shape (m,)
        A rate that is held from one row to the next, or over an epoch, is there for both ends.
    """
    steps, rates = points.steps, points.values
    if points.whole_epochs or convention.rate_of == "mean":
        return _over_rows(points, convention.rate_of == "mean")
    if convention.rate_of == "last":
        steps = np.maximum(steps - 1, 0)
    kept = np.append(np.diff(steps) > 0, True)
    return steps[kept], rates[kept]


def _over_rows(points: Points, mean: bool) -> tuple[Ints, Floats]:
    """Rates that belong to all updates since the row before."""
    steps, rates = points.steps, points.values
    usual = round(1.0 / points.per) if points.whole_epochs else int(np.diff(steps[:2]).sum())
    starts = np.append(max(int(steps[0]) - max(usual, 1), 0), steps[:-1])
    split = dict(_mixed(steps, rates)) if mean else {}
    found: dict[int, float] = {}
    for i, (low, high) in enumerate(zip(starts.tolist(), (steps - 1).tolist(), strict=True)):
        rate = float(rates[i])
        near = rates[max(i - 1, 0) : i + 2]
        if high < low:
            continue  # a row before the first update
        if i in split:
            at = min(max(low + round(split[i]), low + 1), high)
            found[at - 1], found[at] = float(rates[i - 1]), float(rates[i + 1])
        elif points.whole_epochs or (near == rate).sum() > 1:
            found[low] = found[high] = rate
        else:
            found[(low + high) // 2] = rate
    order = sorted(found)
    return np.array(order, dtype=np.int64), np.array([found[k] for k in order])


def every_step(
    rate: Points,
    options: Options,
    horizon: int,
    first: int,
    told: int | None = None,
) -> tuple[Filled, list[str]]:
    """The rate of every step from those of some rows, and what was seen of the rows.

    Parameters
    ----------
    rate : Points
        With the updates done.
    options : Options
        The convention and the warm-up, if they are given.
    horizon : int
    first : int
        First step of the log, of losses or of rates.
    told : int, optional
        Warm-up that a configuration has.

    Returns
    -------
    filled : Filled
    notes : list of str

    Raises
    ------
    BadLog
        All rates that are used are 0.
    """
    found = find_convention(rate, options.rate_of)
    steps, rates = updates(rate, found)
    if not rates.any():
        raise BadLog(f"{rate.series.table.path}: every rate of {rate.series.value!r} is 0")
    if rate.whole_epochs or found.rate_of == "mean":
        first = int(steps[0])  # they cover the updates before the first row
    slack = (0, 0)
    if not found.sure and not rate.whole_epochs:
        slack = (0, 1) if found.rate_of == "last" else (1, 0)
    notes = [] if found.note is None else [found.note]
    warmup = options.warmup
    seen = ramp(steps, rates)
    if warmup is None and told and (seen == 1 or (seen is None and first >= told)):
        warmup = told
        notes.append(f"Its configuration says {told} steps of warm-up.")
    filled = fill_rates(
        steps,
        rates,
        horizon,
        warmup,
        first,
        per=rate.per,
        unit=rate.series.unit,
        slack=slack,
        rounding=rounding_of(rate),
    )
    return filled, notes
