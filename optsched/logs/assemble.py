"""From the tables of a file to runs: checked losses, and the rate of every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optsched.arrays import Brief, Ints
from optsched.checks import is_number
from optsched.errors import BadLog, InvalidProblem
from optsched.logs.clock import Points, losses_in, measured, rates_alone, spacing
from optsched.logs.columns import no_rate
from optsched.logs.convention import every_step
from optsched.logs.formats.config import facts_of
from optsched.logs.formats.registry import rates_beside, read_tables
from optsched.logs.formats.table import Table, is_empty
from optsched.logs.names import plain
from optsched.logs.options import Options, RateSource, Source
from optsched.logs.rates import cut, ramp
from optsched.logs.run import Run
from optsched.schedules.schedule import Schedule

__all__ = ["RateLog", "is_ours", "rates_of", "runs_of"]

# Names of files that say nothing of the run: the folder does.
VAGUE = ("metrics", "log", "history", "trainer_log", "train", "scalars", "training", "main")


@dataclass(frozen=True, eq=False, repr=False)
class RateLog(Brief):
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
        both = [measured(table, None, options) for table in tables]
        if None not in both:
            return [_run(*pair, options) for pair in both if pair is not None]
        rates = rates_beside(path, options.format)
        if rates is None:
            raise no_rate(tables[both.index(None)])
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
        pair = measured(table, other, options)
        if pair is None:
            raise no_rate(other)
        runs.append(_run(*pair, options))
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
    rate = rates_alone(table, options)
    if rate is None:
        raise no_rate(table, beside=False)
    series = rate.series
    filled, about = every_step(rate, options, int(rate.steps[-1]) + 1, int(rate.steps[0]))
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


def _both(source: Source, options: Options) -> tuple[Path, RateSource | None]:
    """File of the loss; the rates if they are given."""
    if not isinstance(source, tuple | list):
        return Path(source), options.rates
    if len(source) != 2 or options.rates is not None:
        allowed = "a file, or a pair of files: (loss, rate), and no rates= then"
        raise InvalidProblem("path", source, allowed)
    return Path(source[0]), source[1]


def _run(loss: Points, rate: Points, options: Options) -> Run:
    """Run whose rate is in a column, of the table of its losses or of another."""
    table, other = loss.series.table, rate.series.table
    facts = _facts(table, other)
    calls = _about_calls(loss)
    end, first = int(loss.steps[-1]), int(min(loss.steps[0], rate.steps[0]))
    filled, about = every_step(rate, options, end + 1, first, facts.get("warmup"))
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
    loss = losses_in(table, options)
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
