"""Steps of a log in updates: units, epochs, and rows that come again after a restart."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optsched.arrays import Bools, Floats, Ints
from optsched.controls import MAX_HORIZON
from optsched.errors import BadLog
from optsched.logs.columns import Series, find_loss, find_rate
from optsched.logs.formats.table import Table
from optsched.logs.options import Options
from optsched.logs.run import MIN_POINTS

__all__ = [
    "Points", "in_updates", "later_pass", "losses_in", "measured", "points", "rates_alone",
    "spacing",
]  # fmt: skip


SMALL = 0.05  # losses that could be rates
HOLE = 2  # rows, or usual intervals, from which on a later pass lacks some


@dataclass(frozen=True, eq=False)
class Points:
    """Numbers of a column with their steps.

    Attributes
    ----------
    series : Series
    steps : numpy.ndarray of int64, shape (n,)
        Updates done, increasing.
    values : numpy.ndarray of float64, shape (n,)
    rows : numpy.ndarray of int64, shape (n,)
        Rows of the table.
    per : float
        How much of what the file counts is an update.
    whole_epochs : bool
        Whether the rows sum up an epoch each.
    notes : tuple of str
        What was assumed.
    """

    series: Series
    steps: Ints
    values: Floats
    rows: Ints
    per: float
    whole_epochs: bool = False
    notes: tuple[str, ...] = ()

    def where(self, index: int) -> str:
        """File and line of a point."""
        return self.series.table.where(int(self.rows[index]))


def measured(table: Table, other: Table | None, options: Options) -> tuple[Points, Points] | None:
    """Losses of a table, and rates of the same or of another.

    Parameters
    ----------
    table : Table
    other : Table or None
        Table of the rates, where they stand in another.
    options : Options

    Returns
    -------
    tuple of Points, or None
        Losses and rates; None if the table has no rates.

    Raises
    ------
    BadLog
        A column that is missing or could be several, a number that is none or not allowed.
    """
    series = find_rate(other or table, options, alone=other is not None)
    if series is None:
        return None
    rate = _rates_in(series, options)
    loss = losses_in(table, options)
    if other is None:
        _check_swapped(loss, rate)
    return loss, rate


def rates_alone(table: Table, options: Options) -> Points | None:
    """Rates of a table that was given for them; None if it has none."""
    series = find_rate(table, options, alone=True)
    return None if series is None else _rates_in(series, options)


def losses_in(table: Table, options: Options) -> Points:
    """Losses of a table, of which there are enough, all above 0."""
    series = find_loss(table, options)
    found = points(series, options)
    low = np.flatnonzero(found.values <= 0.0)
    if low.size:
        value = found.values[low[0]]
        text = f"{found.where(low[0])}: {series.value} is {value:g}, expected a loss > 0"
        if value == 0.0 and (found.values >= 0.0).all() and found.values.max() < SMALL:
            text += "; is it the learning rate?"
        raise BadLog(text)
    if len(found.steps) < MIN_POINTS:
        raise BadLog(
            f"{table.path}: {series.value!r} has {len(found.steps)} rows, expected {MIN_POINTS} "
            "or more"
        )
    return found


def _rates_in(series: Series, options: Options) -> Points:
    """Rates of a column, none below 0 and not all 0."""
    found = points(series, options)
    low = np.flatnonzero(found.values < 0.0)
    if low.size:
        value = found.values[low[0]]
        raise BadLog(f"{found.where(low[0])}: {series.value} is {value:g}, expected a rate >= 0")
    if not found.values.any():
        raise BadLog(f"{series.table.path}: every rate of column {series.value!r} is 0")
    return found


def _check_swapped(loss: Points, rate: Points) -> None:
    """Refuse names of columns that were exchanged, unless the caller has given them."""
    if loss.series.given or rate.series.given:
        return
    least, most = np.quantile(rate.values, 0.1), np.quantile(loss.values, 0.75)
    # Small losses under a large rate are not rare, but a rate is mostly held, and a loss never.
    changing = 2 * len(np.unique(rate.values)) > len(rate.values)
    if least > most and most < SMALL and changing:
        raise BadLog(
            f"{loss.series.table.path}: the rates in {rate.series.value!r} are above the losses in "
            f"{loss.series.value!r}: are the names exchanged? Give columns={{'lr': ..., 'loss': "
            "...}"
        )


def points(series: Series, options: Options) -> Points:
    """Numbers of a column with their steps, in updates.

    Parameters
    ----------
    series : Series
    options : Options
        Units, and what is done with steps that come again.

    Returns
    -------
    Points

    Raises
    ------
    BadLog
        No value, a value without a step, a step that is negative or not whole, or one that comes
        again where it may not, with file and line.
    """
    table = series.table
    values = table.column(series.value)
    if not values.rows.size:
        raise BadLog(f"{table.path}: column {series.value!r} is empty")
    updates = in_updates(table, series.step, series.unit, options)
    steps = updates[values.rows]
    lacking = np.flatnonzero(np.isnan(steps))
    if lacking.size:
        place = table.where(int(values.rows[lacking[0]]))
        raise BadLog(f"{place}: {series.value} without a {series.step}")
    per, whole, notes = options.per_step or 1.0, False, []
    if series.unit == "epochs":
        assert options.steps_per_epoch is not None
        per = 1.0 / options.steps_per_epoch
        whole = _whole(table.column(series.step).values)
        first = _first_epoch(table, series.step)
        notes.append(_about_epochs(series, options.steps_per_epoch, whole, first))
    kept, note = later_pass(table, series.step, steps, values.rows, options)
    notes += [note] if note else []
    found = steps.astype(np.int64)[kept]
    return Points(series, found, values.values[kept], values.rows[kept], per, whole, tuple(notes))


def in_updates(table: Table, step: str, unit: str, options: Options) -> Floats:
    """Updates done at every row of a table; nan where the row has no step.

    Raises
    ------
    BadLog
        A step that is negative or not whole, with file and line.
    """
    counts = table.column(step)
    given = counts.values
    if unit == "epochs":
        assert options.steps_per_epoch is not None
        # Epoch 0 is known when it has ended.
        late = 1 - _first_epoch(table, step) if _whole(given) else 0
        exact = (given + late) * options.steps_per_epoch
    else:
        exact = given / (options.per_step or 1.0)
    steps = np.round(exact)
    # A count of samples or tokens need not be a multiple of the usual batch.
    off = np.abs(steps - exact) > 1e-6 * np.maximum(exact, 1.0)
    for bad, allowed in (
        (steps < 0, "a step >= 0"),
        (steps >= MAX_HORIZON, f"less than {MAX_HORIZON} steps"),
        (off & (unit == "steps"), "a whole number of steps"),
    ):
        at = np.flatnonzero(bad)
        if at.size:
            place = table.where(int(counts.rows[at[0]]))
            raise BadLog(f"{place}: {step} is {given[at[0]]:.15g}, expected {allowed}")
    full = np.full(len(table.lines), np.nan)
    full[counts.rows] = steps
    return full


def _whole(epochs: Floats) -> bool:
    return bool((epochs == np.floor(epochs)).all())


def _first_epoch(table: Table, step: str) -> int:
    """What the first epoch is called: as programs of that format do, else as the rows begin."""
    if table.first_epoch is not None:
        return table.first_epoch
    return 0 if (table.column(step).values == 0.0).any() else 1


def spacing(steps: Ints) -> str:
    """How many rows, and how far apart, in words."""
    gap = f", every {np.median(np.diff(steps)):g} steps" if len(steps) > 1 else ""
    return f"{len(steps)} rows{gap}"


def _about_epochs(series: Series, length: float, whole: bool, first: int) -> str:
    if not whole:
        return f"{series.step!r} counts parts of epochs of {length:g} updates."
    return (
        f"{series.step!r} counts epochs of {length:g} updates from {first}: a row is what is known "
        "at the end of its epoch, and the rate is held over each."
    )


def later_pass(
    table: Table, step: str, steps: Floats, rows: Ints, options: Options
) -> tuple[Bools, str | None]:
    """Of steps that come again, as after a restart, the rows that were written last.

    Parameters
    ----------
    table : Table
    step : str
        Column of the steps.
    steps : numpy.ndarray of float64, shape (n,)
        Updates done at some rows.
    rows : numpy.ndarray of int64, shape (n,)
    options : Options

    Returns
    -------
    kept : numpy.ndarray of bool, shape (n,)
        A row counts if it is before the first step of every later one.
    note : str or None

    Raises
    ------
    BadLog
        Steps that come again and may not, or one that goes back without a pass that follows.
    """
    after = np.minimum.accumulate(steps[::-1])[::-1]
    kept = np.append(steps[:-1] < after[1:], True)
    if kept.all():
        return kept, None
    back = int(np.flatnonzero(np.diff(steps) <= 0)[0]) + 1
    given = table.column(step)
    count = dict(zip(given.rows.tolist(), given.values.tolist(), strict=True))
    now, before = (count[int(rows[i])] for i in (back, back - 1))
    found = f"{table.where(int(rows[back]))}: {step} is {now:.15g}"
    if options.repeats == "refuse":
        raise BadLog(f"{found}, expected more than the step before")
    if options.unit in ("samples", "tokens") and now > before:
        raise BadLog(f"{found}, expected more than the step before: one update or more")
    _check_holes(found, steps, kept)
    gone = steps[~kept]
    low, high = gone.min(), gone.max()
    span = f"step {low:.0f}" if low == high else f"steps {low:.0f} to {high:.0f}"
    come = "1 row comes" if len(gone) == 1 else f"{len(gone)} rows come"
    return kept, f"{come} again later ({span}): the later pass is kept."


def _check_holes(found: str, steps: Floats, kept: Bools) -> None:
    """Refuse a step that goes back and no pass follows: a digit that was lost, not a restart."""
    left, gone = steps[kept], steps[~kept]
    place = np.searchsorted(left, gone)
    again = left[np.minimum(place, len(left) - 1)] == gone
    count = np.bincount(place[~again], minlength=len(left) + 1)
    usual = float(np.median(np.diff(left))) if len(left) > 1 else np.inf
    back = int(np.flatnonzero(np.diff(steps) <= 0)[-1]) + 1
    for i in np.flatnonzero(count >= HOLE):
        if i == len(left):
            # The last pass has not come as far as the one before.
            torn = len(steps) - back < HOLE
        else:
            gap = left[i + 1] - left[i] if i + 1 < len(left) else usual
            torn = left[i] - (left[i - 1] if i else 0.0) > HOLE * gap
        if torn:
            raise BadLog(
                f"{found}, expected more than the step before, or a restart that goes through "
                f"the steps again, but {count[i]} rows have no later one"
            )
