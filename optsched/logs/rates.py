r"""From the learning rates that a log shows, at some steps, to the rate of every step.

Between two rows the rate is linear, with two exceptions.

* **A jump.** A rate that changes much more between two rows than beside them was changed in one
  step; see `jumps` for the rule, `roundest` for the step that is taken.
* **Before the first row.** A ramp that the rows show is continued to step 0; one that is given by
  its length goes from 0 at step 0 to the rate of the first row; else that rate is assumed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.schedules.schedule import Schedule

__all__ = ["Filled", "Place", "cut", "fill_rates", "jumps", "place", "ramp", "roundest"]


MIN_CHANGE = 0.1
CONTRAST = 4.0
LINEAR = 0.05
MOST_TOLD = 8
ASSUMED = "no warm-up is assumed"  # in the note of a log that may hide one


@dataclass(frozen=True, eq=False)
class Filled:
    """Rate of every step of a run.

    Attributes
    ----------
    schedule : Schedule
    warmup : int
        Steps of the linear ramp at the start; 0 for none.
    shift : int
        What was added to the steps of the rows, for a numbering that began after the warm-up.
    notes : tuple of str
        What was found or assumed, in sentences.
    warnings : tuple of str
        Those of the notes that may be wrong by much.
    """

    schedule: Schedule
    warmup: int
    shift: int
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a jump is.

    Attributes
    ----------
    step : int
        The first update with the new rate.
    unit : int
        The largest of 1, 5, 10, 50, 100, ... that divides it, as the log counts.
    text : str
        In words, as the log counts.
    """

    step: int
    unit: int
    text: str


def fill_rates(
    steps: Ints,
    rates: Floats,
    horizon: int,
    warmup: int | None = None,
    first: int | None = None,
    *,
    per: float = 1.0,
    unit: str = "steps",
    slack: tuple[int, int] = (0, 0),
    rounding: float = 0.0,
) -> Filled:
    """Rate of every step from the rows of a log.

    Parameters
    ----------
    steps : numpy.ndarray of int64, shape (n,)
        Updates that use ``rates``, increasing.
    rates : numpy.ndarray of float64, shape (n,)
    horizon : int
        Number of steps of the schedule, as the rows count; rows beyond are dropped.
    warmup : int, optional
        Length of the linear ramp from 0 before the first row; None infers it.
    first : int, optional
        First step of the log, as it counts; default: that of the rates.
    per : float
        How much of what the log counts is an update: jumps are put where that is round.
    unit : str
        What the log counts.
    slack : tuple of int
        Steps before and after a change between two rows at which it may be too, where the log does
        not tell which update the rate of a row belongs to.
    rounding : float
        Half of the last digit that rates have: no smaller change is a jump.

    Returns
    -------
    Filled
    """
    first = int(steps[0]) if first is None else first
    rising = max(int(np.argmax(rates > 0.0)) - 1, 0)  # rates of 0 may stand before a ramp
    rows = steps[rising:], rates[rising:]
    seen = ramp(*rows)
    notes: list[str] = []
    shift = 0
    if warmup and (seen is None or seen == 1) and _within(*rows, warmup):
        ahead = int(np.searchsorted(steps, warmup))
        length, head = warmup, {0: 0.0, warmup: float(rates[ahead])}
        notes.append(f"Warm-up of {warmup} steps, as given; the rows begin within it.")
    elif seen is not None:
        length, head = _seen_ramp(*rows, seen, warmup, notes)
    else:
        length, shift, head = _hidden_ramp(first, float(rates[0]), warmup, notes)
    # A log whose first row is one interval in hides no long warm-up.
    late = len(steps) > 1 and first > max(int(steps[1] - steps[0]), 1)
    assumed = [note for note in notes if ASSUMED in note and late]
    found = jumps(steps, rates, rounding)
    body = _body(steps + shift, rates, found, notes, (per, unit, slack))
    knots = {k: value for k, value in head.items() if k < steps[0] + shift} | body
    if length in head and length > steps[0] + shift:
        knots[length] = head[length]
    end = horizon - 1 + shift
    last = max(knots)
    if last < end - 1:
        notes.append(f"No rate after step {last}: held to step {end}.")
    where = sorted(knots)
    schedule = cut(Schedule.from_knots(where, eta=[knots[k] for k in where]), end + 1)
    return Filled(schedule, min(length, end), shift, tuple(notes), tuple(assumed))


def cut(schedule: Schedule, horizon: int) -> Schedule:
    """The learning rate of a schedule over ``horizon`` steps; held past its end."""
    end = horizon - 1
    keep = schedule.steps < end
    steps = np.append(schedule.steps[keep], end)
    last = schedule(min(end, schedule.horizon - 1))
    return Schedule.from_knots(steps, eta=np.append(schedule.controls["eta"][keep], last))


def ramp(steps: Ints, rates: Floats) -> int | None:
    """Last row of a linear ramp at the start of the rows, or None.

    A ramp is at least three rows on one rising line, or two if that line starts from a rate of 0
    at the first row or at step 0 (or one before, where the first update has a rate).
    """
    if len(steps) < 2 or rates[1] <= rates[0]:
        return None
    slopes = np.diff(rates) / np.diff(steps)
    whole = (rates[1:] - rates[0]) / (steps[1:] - steps[0])
    on_line = (np.abs(slopes - slopes[0]) <= LINEAR * slopes[0]) & (
        np.abs(whole - slopes[0]) <= LINEAR * slopes[0]
    )
    last = int(np.argmin(on_line)) if not on_line.all() else len(slopes)
    zero = steps[0] - rates[0] / slopes[0]
    through_zero = rates[0] == 0.0 or abs(zero) <= max(1.0, LINEAR * (steps[1] - zero))
    return last if last >= 2 or through_zero else None


def _within(steps: Ints, rates: Floats, warmup: int) -> bool:
    """Whether the rows before the end of a given warm-up are on its ramp, too few to show it."""
    ahead = int(np.searchsorted(steps, warmup))
    if ahead in (0, len(steps)) or rates[0] >= rates[ahead]:
        return False
    line = rates[ahead] * steps[:ahead] / warmup
    # A row may have the rate of the update before or after.
    allowed = LINEAR * line + rates[ahead] / warmup
    return bool((np.abs(rates[:ahead] - line) <= allowed).all())


def _seen_ramp(
    steps: Ints, rates: Floats, last: int, warmup: int | None, notes: list[str]
) -> tuple[int, dict[int, float]]:
    """Length of a ramp that the rows show, and its knots outside of the rows."""
    few = last == 1
    if not few and last + 1 < len(steps) and rates[last + 1] == rates[last]:
        last -= 1  # the first row of the plateau, which may be a little off the line
    start, top = int(steps[0]), int(steps[last])
    slope = float((rates[last] - rates[0]) / (top - start))
    head: dict[int, float] = {}
    if start > 0:
        begin = start - float(rates[0]) / slope
        head[0] = max(0.0, float(rates[0]) - slope * start)
        if begin > 1.0:
            head[min(int(begin), start - 1)] = 0.0
    if last + 1 == len(steps):
        notes.append(f"The rate rises linearly to the last row, step {top}.")
        return top, head
    after, peak = int(steps[last + 1]), max(float(rates[last + 1]), float(rates[last]))
    length = min(after, top + round((peak - float(rates[last])) / slope))
    text = f"Warm-up seen in the rows: a linear ramp of {length} steps."
    if few:
        text = (
            f"Warm-up between steps {start} and {top}: a ramp up to step {length} is assumed; "
            "give its length with warmup=N."
        )
    if warmup is not None and warmup != length:
        if top <= warmup <= after:
            length, peak = warmup, float(rates[last]) + slope * (warmup - top)
            text = f"Warm-up of {warmup} steps, as given; the rows show its ramp."
        else:
            text = (
                f"Warm-up of {warmup} steps was given, but the rows show a ramp of {length} "
                "steps: the rows are taken."
            )
    notes.append(text)
    if top < length < after:
        head[length] = peak
    return length, head


def _hidden_ramp(
    first: int, rate: float, warmup: int | None, notes: list[str]
) -> tuple[int, int, dict[int, float]]:
    """Length of the ramp before the rows, shift of the steps, and the knots before the rows."""
    if not warmup:
        if first > 0 and warmup is None:
            notes.append(
                f"The log starts at step {first} and shows no ramp: no warm-up is assumed, the "
                f"rate is {rate:g} from step 0; give its length with warmup=N."
            )
        return 0, 0, {0: rate}
    shift = 0 if first >= warmup else warmup - first
    if shift:
        notes.append(
            f"The log starts at step {first}, within the warm-up of {warmup} steps, without a "
            f"ramp: its steps are taken to count from the end of the warm-up, {shift} are added."
        )
    else:
        notes.append(f"Warm-up of {warmup} steps, as given: a linear ramp from 0 to {rate:g}.")
    return warmup, shift, {0: 0.0, warmup: rate}


def _body(
    steps: Ints,
    rates: Floats,
    found: Ints,
    notes: list[str],
    places: tuple[float, str, tuple[int, int]],
) -> dict[int, float]:
    """Knots at the rows and beside the jumps."""
    knots = dict(zip(steps.tolist(), rates.tolist(), strict=True))
    taken = -1
    told = []
    for i in found.tolist():
        low, high = int(steps[i]), int(steps[i + 1])
        start = max(low, taken)
        at = place(start, max(high, start + 1), *places)
        if at.step <= taken:
            at = place(start, max(high, start + 1), *places[:2])
        taken = at.step
        if high - low > 1:
            told.append(
                f"The rate jumps from {rates[i]:g} to {rates[i + 1]:g} between steps {low} and "
                f"{high}: taken to be at {at.text}."
            )
        if at.step > low:
            knots[at.step - 1] = float(rates[i])
        else:
            knots.setdefault(at.step - 1, float(rates[i]))
        knots[at.step] = float(rates[i + 1])
    notes.extend(told[:MOST_TOLD])
    if len(told) > MOST_TOLD:
        notes.append(f"The same of {len(told) - MOST_TOLD} more jumps.")
    return knots


def jumps(steps: Ints, rates: Floats, rounding: float = 0.0) -> Ints:
    """Rows after which the rate jumps before the next one.

    A change is a jump if it is at least 10 % of the larger rate, four times what the slopes on
    both sides would give and, as a ratio, twice the ratios of changes beside it that go the same
    way. A rise from 0, or right at the start, is a warm-up.
    """
    if len(steps) < 3:
        return np.array([], dtype=np.int64)
    gaps, change = np.diff(steps), np.diff(rates)
    larger = np.maximum(rates[1:], rates[:-1])
    relative = np.divide(np.abs(change), larger, out=np.zeros_like(change), where=larger > 0.0)
    jump = (relative >= MIN_CHANGE) & (rates[:-1] > 0.0) & (np.abs(change) > 5.0 * rounding)
    jump[0] &= change[0] < 0.0
    slope = np.abs(change) / gaps
    # Ratios by their logarithms: 90 % and 99 % are one and two powers of ten.
    ratio = -np.log1p(-np.minimum(relative, 1.0 - 1e-12))
    alike = np.append(change[1:] * change[:-1] > 0.0, False)
    for size, factor, before, after in (
        (slope, CONTRAST, slope[:-1], slope[1:]),
        (ratio, 2.0, ratio[:-1] * alike[:-1], ratio[1:] * alike[:-1]),
    ):
        jump[1:] &= size[1:] > factor * before
        jump[:-1] &= size[:-1] > factor * after
    return np.flatnonzero(jump)


def place(
    low: int, high: int, per: float = 1.0, unit: str = "steps", slack: tuple[int, int] = (0, 0)
) -> Place:
    """Where a change after ``low`` and at ``high`` at the latest is put, by `roundest`.

    Parameters
    ----------
    low, high : int
        Updates.
    per : float
        How much of what the log counts is an update.
    unit : str
        What the log counts.
    slack : tuple of int
        Steps before and after at which it may be too, if that is rounder.
    """
    if slack != (0, 0):
        near = place(low, high, per, unit)
        wide = place(max(low - slack[0], 0), high + slack[1], per, unit)
        return wide if wide.unit > near.unit else near
    first, last = math.floor(low * per), math.floor(high * per)
    step, count = None, 0
    if per != 1.0 and first < last:
        count = roundest(first, last)
        step = math.ceil(count / per - 1e-9)
    if step is None or not low < step <= high:
        step = count = roundest(low, high)
        unit = "steps"
    text = f"step {step}" if unit == "steps" else f"{count:,} {unit}, step {step}"
    return Place(step, _largest(count - 1, count), text)


def _largest(low: int, high: int) -> int:
    """The largest of 1, 5, 10, 50, 100, ... with a multiple in (low, high]."""
    unit, factor = 1, 5
    while high // (factor * unit) > low // (factor * unit):
        unit *= factor
        factor = 7 - factor  # 5 and 2 in turn
    return unit


def roundest(low: int, high: int) -> int:
    """Step in (low, high] that is a multiple of the largest of 1, 5, 10, 50, 100, ...

    Of several, ``high`` if it is one of them, else the one nearest the middle. People change the
    rate at round steps; the row at ``high`` has the new rate, which update ``high`` uses.
    """
    unit = _largest(low, high)
    if high % unit == 0:
        return high
    return min(max(round((low + high) / 2 / unit), low // unit + 1), high // unit) * unit
