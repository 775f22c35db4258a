"""From the columns of files to runs: steps in updates, checked values, the rate of every step."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.checks import whole
from optsched.controls import MAX_HORIZON
from optsched.errors import BadLog, InvalidProblem
from optsched.logs.columns import (
    KEYS,
    Series,
    find_loss,
    find_rate,
    is_tensorboard,
    no_rate,
    points,
)
from optsched.logs.rates import cut, fill_rates, ramp
from optsched.logs.run import MIN_POINTS, Run
from optsched.logs.tables import TRAINER, Table, rate_file, read_tables, run_name
from optsched.schedules.schedule import Schedule

__all__ = [
    "Options",
    "both_paths",
    "is_ours",
    "own_warmup",
    "read_rate_column",
    "read_source",
    "spacing",
]

PathLike = str | os.PathLike[str]
Source = PathLike | tuple[PathLike, PathLike]
Unit = Literal["steps", "samples", "tokens"]
RateOf = Literal["next", "last"]


@dataclass(frozen=True)
class Options:
    """How to read a log; the arguments of `read_run`."""

    warmup: int | None
    columns: Mapping[str, str]
    unit: Unit
    per_step: float | None
    loss: str
    rate_of: RateOf | None

    def __post_init__(self) -> None:
        if self.warmup is not None:
            whole("warmup", self.warmup, 0, MAX_HORIZON)
        for field, allowed in (
            ("unit", ("steps", "samples", "tokens")),
            ("rate_of", (None, "next", "last")),
        ):
            if getattr(self, field) not in allowed:
                raise InvalidProblem(
                    field, getattr(self, field), "one of " + ", ".join(filter(None, allowed))
                )
        per_step = self.per_step
        if per_step is None and self.unit != "steps":
            raise InvalidProblem("per_step", None, f"how many {self.unit} an update covers")
        if per_step is not None and not 0.0 < per_step < np.inf:
            raise InvalidProblem("per_step", per_step, "a finite number > 0")
        unknown = [key for key in self.columns if key not in KEYS]
        if unknown:
            raise InvalidProblem("columns", unknown, "keys " + ", ".join(KEYS))


def read_source(source: Source, options: Options) -> list[Run]:
    """Every run of a file, or of a pair of files."""
    loss_path, rate_path = both_paths(source)
    tables = read_tables(loss_path)
    lacking = [table for table in tables.values() if _own_rate(table, options) is None]
    if rate_path is None and lacking:
        rate_path = rate_file(loss_path)
        if rate_path is None:
            raise no_rate(lacking[0])
    if rate_path is not None and is_ours(rate_path):
        schedule = Schedule.load(rate_path)
        return [
            _planned(name, table, schedule, rate_path, options) for name, table in tables.items()
        ]
    rates = tables if rate_path is None else read_tables(rate_path)
    runs = []
    for name, table in tables.items():
        if name not in rates:
            raise BadLog(f"{rate_path}: has no rate of run {name!r}, which {loss_path} has")
        rate = find_rate(rates[name], options.columns, options.unit)
        if rate is None:
            raise no_rate(rates[name])
        runs.append(_run(name, _loss(table, options), rate, options))
    return runs


def _loss(table: Table, options: Options) -> Series:
    columns = {key: name for key, name in options.columns.items() if key != "lr"}
    return find_loss(table, columns, options.loss, options.unit)


def _own_rate(table: Table, options: Options) -> Series | None:
    return None if is_tensorboard(table) else find_rate(table, options.columns, options.unit)


def _run(name: str | None, loss: Series, rate: Series, options: Options) -> Run:
    """Run whose rate is in a column."""
    rate_steps, rates = read_rate_column(rate, options)
    steps, values = _losses(loss, options)
    filled = fill_rates(rate_steps, rates, int(steps[-1]) + 1, options.warmup, int(steps[0]))
    notes = (_read_as(loss, steps, rate, rate_steps), *filled.notes)
    path = loss.table.path
    name = name or run_name(path)
    steps = steps + filled.shift
    return Run(name, steps, values, filled.schedule, filled.warmup, str(path), notes)


def _planned(
    name: str | None, table: Table, schedule: Schedule, path: Path, options: Options
) -> Run:
    """Run that used a schedule file of ours."""
    loss = _loss(table, options)
    steps, values = _losses(loss, options)
    if schedule.unit != "steps":
        raise BadLog(f"{path}: counts {schedule.unit}, expected a schedule in steps")
    if schedule.horizon < steps[-1]:
        raise BadLog(f"{path}: ends after {schedule.horizon} steps, but losses go to {steps[-1]}")
    warmup = own_warmup(schedule)
    read = (
        f"Read as {table.form}: {loss.kind} in {loss.value!r} over {loss.step!r}, "
        f"{spacing(steps)}; rate of the schedule in {path.name}."
    )
    source = table.path
    own = cut(schedule, int(steps[-1]) + 1)
    return Run(name or run_name(source), steps, values, own, warmup, str(source), (read,))


def own_warmup(schedule: Schedule) -> int:
    """Length of the ramp that a schedule begins with."""
    last = ramp(schedule.steps, schedule.controls["eta"])
    return 0 if last is None else int(schedule.steps[last])


def _losses(loss: Series, options: Options) -> tuple[Ints, Floats]:
    """Steps and losses."""
    steps, values, rows = points(loss, options.unit, options.per_step)
    low = np.flatnonzero(values <= 0.0)
    if low.size:
        place = loss.table.where(int(rows[low[0]]))
        raise BadLog(f"{place}: {loss.value} is {values[low[0]]:g}, expected a loss > 0")
    if len(steps) < MIN_POINTS:
        raise BadLog(
            f"{loss.table.path}: {loss.value!r} has {len(steps)} rows, expected {MIN_POINTS} or "
            "more"
        )
    return steps, values


def read_rate_column(series: Series, options: Options) -> tuple[Ints, Floats]:
    """Updates and their rates."""
    steps, rates, rows = points(series, options.unit, options.per_step)
    low = np.flatnonzero(rates < 0.0)
    if low.size:
        place = series.table.where(int(rows[low[0]]))
        raise BadLog(f"{place}: {series.value} is {rates[low[0]]:g}, expected a rate >= 0")
    if not rates.any():
        raise BadLog(f"{series.table.path}: every rate of column {series.value!r} is 0")
    if (options.rate_of or _rate_of(series.table)) == "last":
        steps = np.maximum(steps - 1, 0)
        keep = np.append(np.diff(steps) > 0, True)
        steps, rates = steps[keep], rates[keep]
    return steps, rates


def _rate_of(table: Table) -> RateOf:
    """Trainers of today log the rate that the update before the row used."""
    return "last" if table.form == TRAINER else "next"


def _read_as(loss: Series, steps: Ints, rate: Series, rate_steps: Ints) -> str:
    both = f"{loss.kind} in {loss.value!r}"
    if rate.table is loss.table and np.array_equal(steps, rate_steps):
        both += f" and rate in {rate.value!r} over {loss.step!r}, {spacing(steps)}"
    else:
        file = "" if rate.table.path == loss.table.path else f" of {rate.table.path.name}"
        both += (
            f" over {loss.step!r}, {spacing(steps)}; rate in {rate.value!r}{file} over "
            f"{rate.step!r}, {spacing(rate_steps)}"
        )
    return f"Read as {loss.table.form}: {both}."


def spacing(steps: Ints) -> str:
    """How many rows, and how far apart, in words."""
    gap = f", every {np.median(np.diff(steps)):g} steps" if len(steps) > 1 else ""
    return f"{len(steps)} rows{gap}"


def both_paths(source: Source) -> tuple[Path, Path | None]:
    """File of the loss, and of the rate if it is given."""
    if isinstance(source, tuple | list):
        if len(source) != 2:
            raise InvalidProblem("path", source, "a file, or a pair of files: (loss, rate)")
        return Path(source[0]), Path(source[1])
    return Path(source), None


def is_ours(path: Path) -> bool:
    """Whether a file is a schedule that optsched wrote."""
    if path.suffix.lower() == ".npz":
        return True
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return "optsched schedule" in file.read(256)
    except OSError:
        return False  # the reader of logs says what is wrong
