"""From the tables of a file to runs: checked losses, and the rate of every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optsched.arrays import Ints
from optsched.checks import is_number
from optsched.errors import BadLog, InvalidProblem
from optsched.logs.clock import Points, points, spacing
from optsched.logs.columns import Series, find_loss, find_rate, no_rate
from optsched.logs.convention import find_convention, rounding, updates
from optsched.logs.formats.config import facts_of
from optsched.logs.formats.registry import rates_beside, read_tables
from optsched.logs.formats.table import Table, is_empty
from optsched.logs.names import plain
from optsched.logs.options import Options, Rates, Source
from optsched.logs.rates import Filled, cut, fill_rates, ramp
from optsched.logs.run import MIN_POINTS, Run
from optsched.schedules.schedule import Schedule

__all__ = ["RateLog", "is_ours", "rates_of", "runs_of"]

# Names of files that say nothing of the run: the folder does.
VAGUE = ("metrics", "log", "history", "trainer_log", "train", "scalars", "training", "main")


@dataclass(frozen=True, eq=False)
class RateLog:
    """A schedule that was read, with the steps at which its file has rows.

    Attributes
    ----------
    name : str
    steps : numpy.ndarray of int64, shape (n,)
        Steps of the rows (of a schedule file of ours: of its knots).
    schedule : Schedule
    warmup : int
    source : str
    notes, warnings : tuple of str
        As for `Run`.
    """

    name: str
    steps: Ints
    schedule: Schedule
    warmup: int
    source: str
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def runs_of(source: Source, options: Options) -> list[Run]:
    """Every run of a file, of a folder, or of a pair of files."""
    path, rates = _both(source, options)
    tables = read_tables(path, options.format)
    if rates is None:
        lacking = next((one for one in tables if find_rate(one, options) is None), None)
        if lacking is None:
            return [_run(table, table, options) for table in tables]
        rates = rates_beside(path, options.format)
        if rates is None:
            raise no_rate(lacking)
    if is_number(rates):
        return [_planned(table, float(rates), "a constant, as given", options) for table in tables]  # type: ignore[arg-type]
    rates = Path(rates)  # type: ignore[arg-type]
    if is_ours(rates):
        schedule, about = Schedule.load(rates), f"that of the schedule in {rates.name}"
        if schedule.unit != "steps":
            raise BadLog(f"{rates}: counts {schedule.unit}, expected a schedule in steps")
        return [_planned(table, schedule, about, options, rates) for table in tables]
    others = read_tables(rates, options.format)
    named = {table.run: table for table in others}
    runs = []
    for table in tables:
        other = others[0] if len(tables) == len(others) == 1 else named.get(table.run)
        if other is None:
            raise BadLog(f"{rates}: has no rate of run {table.run!r}, which {path} has")
        runs.append(_run(table, other, options))
    return runs


def rates_of(path: Path, options: Options) -> RateLog:
    """Schedule of a file, whether it has losses or not."""
    if is_ours(path):
        schedule = Schedule.load(path)
        notes = ("A schedule file of optsched, complete as it is.",)
        warmup = _own_warmup(schedule)
        return RateLog(path.stem, schedule.steps, schedule, warmup, str(path), notes)
    table, *others = read_tables(path, options.format)
    if others:
        raise BadLog(f"{path}: has {1 + len(others)} runs, expected one schedule")
    series = find_rate(table, options, alone=True)
    if series is None:
        raise no_rate(table, beside=False)
    rate = _rates(series, options)
    filled, about = _filled(rate, options, int(rate.steps[-1]) + 1, int(rate.steps[0]))
    read = (
        f"Read as {table.form}: rate in {series.value!r} over {series.step!r}, "
        f"{spacing(rate.steps)}."
    )
    notes = (read, *rate.notes, *about, *filled.notes)
    return RateLog(
        _name(table),
        rate.steps + filled.shift,
        filled.schedule,
        filled.warmup,
        str(table.path),
        notes,
        filled.warnings,
    )


def is_ours(path: Path) -> bool:
    """Whether a file is a schedule that optsched wrote."""
    if path.suffix.lower() == ".npz":
        return True
    if not path.is_file():
        return False  # the reader of logs says what is wrong
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return "optsched schedule" in file.read(256)
    except OSError:
        return False


def _both(source: Source, options: Options) -> tuple[Path, Rates | None]:
    """File of the loss; the rates if they are given."""
    if not isinstance(source, tuple | list):
        return Path(source), options.rates
    if len(source) != 2 or options.rates is not None:
        allowed = "a file, or a pair of files: (loss, rate), and no rates= then"
        raise InvalidProblem("path", source, allowed)
    return Path(source[0]), source[1]


def _run(table: Table, other: Table, options: Options) -> Run:
    """Run whose rate is in a column, of the same table or of another."""
    rate_series = find_rate(other, options, alone=other is not table)
    if rate_series is None:
        raise no_rate(other)
    rate = _rates(rate_series, options)
    loss = _losses(table, options, lr=other is table)
    if other is table:
        _check_swapped(loss, rate)
    facts = _facts(table, other)
    calls = _about_calls(loss)
    end, first = int(loss.steps[-1]), int(min(loss.steps[0], rate.steps[0]))
    filled, about = _filled(rate, options, end + 1, first, facts.get("warmup"))
    read = _read_as(loss, rate)
    notes = dict.fromkeys((read, *calls, *loss.notes, *rate.notes, *about, *filled.notes))
    return Run(
        _name(table),
        loss.steps + filled.shift,
        loss.values,
        filled.schedule,
        filled.warmup,
        str(table.path),
        tuple(notes),
        (*calls, *filled.warnings),
        facts,
    )


def _planned(
    table: Table,
    rates: Schedule | float,
    about: str,
    options: Options,
    path: Path | None = None,
) -> Run:
    """Run whose rates are known beside its log."""
    loss = _losses(table, options, lr=False)
    last = int(loss.steps[-1])
    if isinstance(rates, Schedule):
        schedule = rates
    else:
        schedule = Schedule.from_knots([0, max(last, 1)], eta=[rates, rates])
    if schedule.horizon < last:
        raise BadLog(f"{path}: ends after {schedule.horizon} steps, but losses go to {last}")
    series, calls = loss.series, _about_calls(loss)
    read = (
        f"Read as {table.form}: {series.kind} in {series.value!r} over {series.step!r}, "
        f"{spacing(loss.steps)}; rate: {about}."
    )
    return Run(
        _name(table),
        loss.steps,
        loss.values,
        cut(schedule, last + 1),
        _own_warmup(schedule),
        str(table.path),
        (read, *calls, *loss.notes),
        calls,
        _facts(table),
    )


def _about_calls(loss: Points) -> tuple[str, ...]:
    """A warning where the only steps are those of Weights & Biases, and look like its own count."""
    if plain(loss.series.step) != "_step" or (np.diff(loss.steps) != 1).any():
        return ()
    return (
        f"{loss.series.step!r} counts calls of the tracker, and is taken for updates: give "
        "per_step=N if rows are N updates apart, or another column.",
    )


def _own_warmup(schedule: Schedule) -> int:
    """Length of the ramp that a schedule begins with."""
    last = ramp(schedule.steps, schedule.controls["eta"])
    return 0 if last is None else int(schedule.steps[last])


def _losses(table: Table, options: Options, lr: bool) -> Points:
    series = find_loss(table, options)
    found = points(series, options)
    low = np.flatnonzero(found.values <= 0.0)
    if low.size:
        value = found.values[low[0]]
        text = f"{found.where(low[0])}: {series.value} is {value:g}, expected a loss > 0"
        if value == 0.0 and (found.values >= 0.0).all() and found.values.max() < SMALL and lr:
            text += "; is it the learning rate?"
        raise BadLog(text)
    if len(found.steps) < MIN_POINTS:
        raise BadLog(
            f"{table.path}: {series.value!r} has {len(found.steps)} rows, expected {MIN_POINTS} "
            "or more"
        )
    return found


def _rates(series: Series, options: Options) -> Points:
    found = points(series, options)
    low = np.flatnonzero(found.values < 0.0)
    if low.size:
        value = found.values[low[0]]
        raise BadLog(f"{found.where(low[0])}: {series.value} is {value:g}, expected a rate >= 0")
    if not found.values.any():
        raise BadLog(f"{series.table.path}: every rate of column {series.value!r} is 0")
    return found


SMALL = 0.05


def _check_swapped(loss: Points, rate: Points) -> None:
    """Refuse names of columns that were exchanged, unless the caller has given them."""
    if loss.series.given or rate.series.given:
        return
    least, most = np.quantile(rate.values, 0.1), np.quantile(loss.values, 0.9)
    if least > most and most < SMALL:
        raise BadLog(
            f"{loss.series.table.path}: the rates in {rate.series.value!r} are above the losses in "
            f"{loss.series.value!r}: are the names exchanged? Give columns={{'lr': ..., 'loss': "
            "...}"
        )


def _filled(
    rate: Points,
    options: Options,
    horizon: int,
    first: int,
    told: int | None = None,
) -> tuple[Filled, list[str]]:
    """The rate of every step, and what was seen of the rows."""
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
        rounding=rounding(rate),
    )
    return filled, notes


def _name(table: Table) -> str:
    if table.run is not None:
        return table.run
    stem = table.path.stem
    return (table.path.resolve().parent.name or stem) if stem.lower() in VAGUE else stem


def _facts(table: Table, other: Table | None = None) -> Mapping[str, Any]:
    """What the file says of the run, and what columns say that hold one value."""
    held: dict[str, Any] = {}
    for name, fields in table.columns.items():
        short = plain(name).rpartition("/")[2]
        if short in ("weight_decay", "wd", "optimizer"):
            values = {str(one).strip() for one in fields if not is_empty(one)}
            if len(values) == 1:
                held[short] = values.pop()
    found = {**facts_of(held), **table.facts}
    return found if other is None else {**other.facts, **found}


def _read_as(loss: Points, rate: Points) -> str:
    one, two = loss.series, rate.series
    both = f"{one.kind} in {one.value!r}"
    if two.table is one.table and np.array_equal(loss.steps, rate.steps):
        both += f" and rate in {two.value!r} over {one.step!r}, {spacing(loss.steps)}"
    else:
        file = "" if two.table.path == one.table.path else f" of {two.table.path.name}"
        both += (
            f" over {one.step!r}, {spacing(loss.steps)}; rate in {two.value!r}{file} over "
            f"{two.step!r}, {spacing(rate.steps)}"
        )
    return f"Read as {one.table.form}: {both}."
