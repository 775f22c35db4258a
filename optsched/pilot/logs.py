"""Logs of pilot runs: the loss at some steps and the learning rate of every step.

`read_run` takes a log as it is: csv with any column names, JSON lines, the ``trainer_state.json``
of Hugging Face, csv exports of TensorBoard and of Weights & Biases. What it understood is in
``Run.notes``; what it cannot use raises `BadLog`, naming file and line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from optsched.errors import BadLog, InvalidProblem
from optsched.pilot.columns import (
    KEYS,
    Series,
    find_loss,
    find_rate,
    is_tensorboard,
    no_rate,
    points,
)
from optsched.pilot.rates import fill_rates
from optsched.pilot.tables import Table, read_tables
from optsched.schedules.checks import whole
from optsched.schedules.files import load
from optsched.schedules.schedule import MAX_HORIZON, Schedule

__all__ = ["MIN_POINTS", "RateLog", "Run", "read_rates", "read_run", "read_runs", "read_schedule"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
PathLike = str | os.PathLike[str]
Source = PathLike | tuple[PathLike, PathLike]
Unit = Literal["steps", "samples", "tokens"]
RateOf = Literal["next", "last"]

MIN_POINTS = 4


@dataclass(frozen=True, eq=False)
class Run:
    """A training run: its loss at some steps, its learning rate at every step.

    Attributes
    ----------
    name : str
    steps : numpy.ndarray of int64, shape (n,)
        Updates done when the loss was measured, counted from the start of training, warm-up
        included; increasing, n >= 4.
    loss : numpy.ndarray of float64, shape (n,)
    schedule : Schedule
        Learning rate of the updates 0 .. ``steps[-1]``, warm-up included.
    warmup : int
        Length in steps of the linear ramp at the start; 0 for none.
    source : str
        The file.
    notes : tuple of str
        What was understood and what was assumed, in sentences.
    """

    name: str
    steps: Ints
    loss: Floats
    schedule: Schedule
    warmup: int
    source: str
    notes: tuple[str, ...]

    def summary(self) -> str:
        """What was understood, as text: a line for the run and one for every note."""
        head = (
            f"{self.name}: {len(self.steps)} losses from step {self.steps[0]} to "
            f"{self.steps[-1]}, {self.loss[0]:.6g} to {self.loss[-1]:.6g}; peak rate "
            f"{self.schedule.peak:.6g}, last {self.schedule(int(self.steps[-1])):.6g}, "
            f"warm-up {self.warmup} steps"
        )
        return "\n".join([head, *(f"  {note}" for note in self.notes)])

    def __repr__(self) -> str:
        """One line."""
        return f"Run({self.summary().splitlines()[0]})"


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
    notes : tuple of str
        As for `Run`.
    """

    name: str
    steps: Ints
    schedule: Schedule
    warmup: int
    source: str
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Options:
    """How to read a log; the arguments of `read_run`."""

    warmup: int | None
    columns: Mapping[str, str]
    unit: Unit
    per_step: float | None
    loss: str
    rate_of: RateOf

    def __post_init__(self) -> None:
        if self.warmup is not None:
            whole("warmup", self.warmup, 0, MAX_HORIZON)
        for field, allowed in (
            ("unit", ("steps", "samples", "tokens")),
            ("rate_of", ("next", "last")),
        ):
            if getattr(self, field) not in allowed:
                raise InvalidProblem(field, getattr(self, field), "one of " + ", ".join(allowed))
        per_step = self.per_step
        if per_step is None and self.unit != "steps":
            raise InvalidProblem("per_step", None, f"how many {self.unit} an update covers")
        if per_step is not None and not 0.0 < per_step < np.inf:
            raise InvalidProblem("per_step", per_step, "a finite number > 0")
        unknown = [key for key in self.columns if key not in KEYS]
        if unknown:
            raise InvalidProblem("columns", unknown, "keys " + ", ".join(KEYS))


def read_run(
    path: Source,
    *,
    name: str | None = None,
    warmup: int | None = None,
    columns: Mapping[str, str] | None = None,
    unit: Unit = "steps",
    per_step: float | None = None,
    loss: str = "loss",
    rate_of: RateOf = "next",
) -> Run:
    """Read the log of one run.

    Parameters
    ----------
    path : path-like, or a pair of them
        A csv, JSON-lines or JSON file, or a folder with ``trainer_state.json``. A pair: the file
        of the loss and the file of the rate, as TensorBoard and Weights & Biases export them; of a
        TensorBoard export the file of the rate is found beside it by its name.
    name : str, optional
        Name of the run; default: the stem of the file. In a file with several runs: which one.
    warmup : int, optional
        The N steps before the first row were a linear ramp from 0 to its rate. If the first row
        is at step N or later, the ramp covers the steps 0 to N and the first row's rate holds
        from there; if it is before, the steps are taken to count from the end of the warm-up and
        are shifted, so that the ramp ends at the first row. None: inferred from the rows.
    columns : mapping of str to str, optional
        Column of the file for ``step``, ``lr`` and ``loss``; the rest is found by common names.
    unit : {"steps", "samples", "tokens"}
        What the step column counts.
    per_step : float, optional
        How many of them an update covers; needed for samples and tokens.
    loss : str
        ``"loss"``: the training loss, or the validation loss if there is no other; ``"train"`` or
        ``"eval"``: one of them; else the name of a column.
    rate_of : {"next", "last"}
        Whether the rate of a row with s updates done is that of the next update, number s, or of
        the last one, s - 1.

    Returns
    -------
    Run

    Raises
    ------
    BadLog
        The file cannot be read or is no log: a column is missing or found twice, a field is no
        finite number, the steps do not increase, a rate is negative or all are 0, there are
        fewer than 4 losses. The message names the file and the line.
    InvalidProblem
        An argument that is not allowed.
    """
    options = _Options(warmup, columns or {}, unit, per_step, loss, rate_of)
    runs = _read_all(path, options)
    if len(runs) > 1:
        names = ", ".join(run.name for run in runs)
        runs = [run for run in runs if run.name == name]
        if not runs:
            raise BadLog(
                f"{_paths(path)[0]}: has {len(names.split(', '))} runs: give name=, one of {names}"
            )
    return runs[0] if name is None else replace(runs[0], name=name)


def read_runs(
    paths: Iterable[Source],
    *,
    warmup: int | None = None,
    columns: Mapping[str, str] | None = None,
    unit: Unit = "steps",
    per_step: float | None = None,
    loss: str = "loss",
    rate_of: RateOf = "next",
) -> list[Run]:
    """Read the logs of several runs, all in the same way; see `read_run`.

    A file that holds several runs gives all of them.

    Raises
    ------
    BadLog
        As for `read_run`, and if two runs have the same name.
    """
    options = _Options(warmup, columns or {}, unit, per_step, loss, rate_of)
    runs = [run for path in paths for run in _read_all(path, options)]
    seen: dict[str, str] = {}
    for run in runs:
        if run.name in seen:
            raise BadLog(
                f"{run.source}: a run named {run.name!r} was read from {seen[run.name]} already, "
                "expected different names: rename a file"
            )
        seen[run.name] = run.source
    return runs


def read_schedule(
    path: PathLike,
    *,
    warmup: int | None = None,
    columns: Mapping[str, str] | None = None,
    unit: Unit = "steps",
    per_step: float | None = None,
    rate_of: RateOf = "next",
) -> Schedule:
    """Learning rate of every step from a schedule file of ours, or from a log; see `read_rates`."""
    return read_rates(
        path, warmup=warmup, columns=columns, unit=unit, per_step=per_step, rate_of=rate_of
    ).schedule


def read_rates(
    path: PathLike,
    *,
    warmup: int | None = None,
    columns: Mapping[str, str] | None = None,
    unit: Unit = "steps",
    per_step: float | None = None,
    rate_of: RateOf = "next",
) -> RateLog:
    """Read a schedule, from a file of ours or from a log with or without a loss.

    Parameters
    ----------
    path : path-like
        A file that `optsched.schedules.files.save` wrote, or what `read_run` reads; the loss is
        not looked at.
    warmup, columns, unit, per_step, rate_of
        As for `read_run`. A file of ours is complete: ``warmup`` does not change it.

    Raises
    ------
    BadLog, BadFile
        As for `read_run`; two rows are enough.
    """
    options = _Options(warmup, columns or {}, unit, per_step, "loss", rate_of)
    target = Path(path)
    if _is_ours(target):
        schedule = load(target)
        notes = ("A schedule file of optsched, complete as it is.",)
        return RateLog(target.stem, schedule.steps, schedule, 0, str(target), notes)
    table, *others = read_tables(target).values()
    if others:
        raise BadLog(f"{target}: has {1 + len(others)} runs, expected one schedule")
    series = find_rate(table, options.columns, unit)
    if series is None:
        raise no_rate(table)
    steps, rates = _rates(series, options)
    filled = fill_rates(steps, rates, int(steps[-1]) + 1, warmup)
    read = (
        f"Read as {table.form}: rate in {series.value!r} over {series.step!r}, {_spacing(steps)}."
    )
    return RateLog(
        _name(target),
        steps + filled.shift,
        filled.schedule,
        filled.warmup,
        str(target),
        (read, *filled.notes),
    )


def _is_ours(path: Path) -> bool:
    if path.suffix.lower() == ".npz":
        return True
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as file:
            return "optsched schedule" in file.read(256)
    except OSError:
        return False  # the reader of logs says what is wrong


def _read_all(source: Source, options: _Options) -> list[Run]:
    """Every run of a file, or of a pair of files."""
    loss_path, rate_path = _paths(source)
    tables = read_tables(loss_path)
    lacking = [table for table in tables.values() if _own_rate(table, options) is None]
    if rate_path is None and lacking:
        rate_path = _rate_file(loss_path)
        if rate_path is None:
            raise no_rate(lacking[0])
    rates = tables if rate_path is None else read_tables(rate_path)
    runs = []
    for name, table in tables.items():
        if name not in rates:
            raise BadLog(f"{rate_path}: has no rate of run {name!r}, which {loss_path} has")
        series = find_rate(rates[name], options.columns, options.unit)
        if series is None:
            raise no_rate(rates[name])
        loss = find_loss(table, _without_rate(options.columns), options.loss, options.unit)
        runs.append(_run(name or _name(loss_path), loss, series, options))
    return runs


def _own_rate(table: Table, options: _Options) -> Series | None:
    return None if is_tensorboard(table) else find_rate(table, options.columns, options.unit)


def _run(name: str, loss: Series, rate: Series, options: _Options) -> Run:
    where = f"{loss.table.path}"
    steps, values, rows = points(loss, options.unit, options.per_step)
    low = np.flatnonzero(values <= 0.0)
    if low.size:
        place = loss.table.where(int(rows[low[0]]))
        raise BadLog(f"{place}: {loss.value} is {values[low[0]]:g}, expected a loss > 0")
    if len(steps) < MIN_POINTS:
        raise BadLog(f"{where}: {len(steps)} losses of run {name!r}, expected {MIN_POINTS} or more")
    rate_steps, rates = _rates(rate, options)
    filled = fill_rates(rate_steps, rates, int(steps[-1]) + 1, options.warmup, int(steps[0]))
    notes = (_read_as(loss, steps, rate, rate_steps), *filled.notes)
    return Run(name, steps + filled.shift, values, filled.schedule, filled.warmup, where, notes)


def _rates(series: Series, options: _Options) -> tuple[Ints, Floats]:
    """Updates and their rates."""
    steps, rates, rows = points(series, options.unit, options.per_step)
    low = np.flatnonzero(rates < 0.0)
    if low.size:
        place = series.table.where(int(rows[low[0]]))
        raise BadLog(f"{place}: {series.value} is {rates[low[0]]:g}, expected a rate >= 0")
    if not rates.any():
        raise BadLog(f"{series.table.path}: every rate of column {series.value!r} is 0")
    if options.rate_of == "last":
        steps = np.maximum(steps - 1, 0)
        keep = np.append(np.diff(steps) > 0, True)
        steps, rates = steps[keep], rates[keep]
    return steps, rates


def _read_as(loss: Series, steps: Ints, rate: Series, rate_steps: Ints) -> str:
    both = f"{loss.kind} in {loss.value!r}"
    if rate.table is loss.table and np.array_equal(steps, rate_steps):
        both += f" and rate in {rate.value!r} over {loss.step!r}, {_spacing(steps)}"
    else:
        file = "" if rate.table.path == loss.table.path else f" of {rate.table.path.name}"
        both += (
            f" over {loss.step!r}, {_spacing(steps)}; rate in {rate.value!r}{file} over "
            f"{rate.step!r}, {_spacing(rate_steps)}"
        )
    return f"Read as {loss.table.form}: {both}."


def _spacing(steps: Ints) -> str:
    gap = f", every {np.median(np.diff(steps)):g} steps" if len(steps) > 1 else ""
    return f"{len(steps)} rows{gap}"


def _without_rate(columns: Mapping[str, str]) -> dict[str, str]:
    return {key: name for key, name in columns.items() if key != "lr"}


def _paths(source: Source) -> tuple[Path, Path | None]:
    if isinstance(source, tuple | list):
        if len(source) != 2:
            raise InvalidProblem("path", source, "a file, or a pair of files: (loss, rate)")
        return Path(source[0]), Path(source[1])
    return Path(source), None


def _name(path: Path) -> str:
    """Name of the run: of a Trainer the folder, of TensorBoard the run, else the stem."""
    if path.is_dir():
        return path.resolve().name
    if path.name == "trainer_state.json":
        return path.resolve().parent.name
    run, tag, _ = path.stem.partition("-tag-")
    run = run.removeprefix("run-")
    return run if tag and run not in ("", ".") else path.stem


def _rate_file(path: Path) -> Path | None:
    """File of the rate beside a file of the loss, by its name."""
    head, tag, _ = path.stem.partition("-tag-")
    if tag:
        found = [p for p in sorted(path.parent.glob("*.csv")) if _is_rate_tag(p.stem, head + tag)]
        return found[0] if len(found) == 1 else None
    for word in ("lr", "learning_rate"):
        other = path.with_stem(path.stem.replace("loss", word))
        if other != path and other.is_file():
            return other
    return None


def _is_rate_tag(stem: str, head: str) -> bool:
    tag = stem.removeprefix(head).lower()
    return stem.startswith(head) and bool(re.search(r"(^|[_-])(lr|learning_rate)([_-]|$)", tag))
