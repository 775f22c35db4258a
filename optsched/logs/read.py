"""Logs of pilot runs: the loss at some steps and the learning rate of every step.

`read_run` takes a log as it is: csv with any column names, JSON lines, the ``trainer_state.json``
of Hugging Face, csv exports of TensorBoard and of Weights & Biases. What it understood is in
``Run.notes``; what it cannot use raises `BadLog`, naming file and line.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from optsched.arrays import Ints
from optsched.errors import BadLog, InvalidProblem
from optsched.logs.assemble import (
    Options,
    RateOf,
    Source,
    Unit,
    both_paths,
    is_ours,
    own_warmup,
    read_rate_column,
    read_source,
    spacing,
)
from optsched.logs.columns import find_rate, no_rate
from optsched.logs.rates import fill_rates
from optsched.logs.run import Run
from optsched.logs.seeds import average_seeds, label_seeds
from optsched.logs.tables import read_tables, run_name
from optsched.schedules.schedule import Schedule

__all__ = ["RateLog", "read_rates", "read_run", "read_runs", "read_schedule"]

PathLike = str | os.PathLike[str]
Seeds = Literal["refuse", "keep", "average"]


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


def read_run(
    path: Source,
    *,
    name: str | None = None,
    warmup: int | None = None,
    columns: Mapping[str, str] | None = None,
    unit: Unit = "steps",
    per_step: float | None = None,
    loss: str = "loss",
    rate_of: RateOf | None = None,
) -> Run:
    """Read the log of one run.

    Parameters
    ----------
    path : path-like, or a pair of them
        A csv, JSON-lines or JSON file, or a folder with ``trainer_state.json``. A pair: the file
        of the loss and the file of the rate, as TensorBoard and Weights & Biases export them, or a
        schedule file of ours. Where a file has no rate, that with "lr" or "learning_rate" for
        "loss" in its name is taken, or of TensorBoard that with such a tag of the same run.
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
    rate_of : {"next", "last"}, optional
        Whether the rate of a row with s updates done is that of the next update, number s, or of
        the last one, s - 1. It matters where the rate jumps. Default: "last" for a Trainer state,
        as transformers logs it now, else "next".

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
    options = Options(warmup, columns or {}, unit, per_step, loss, rate_of)
    runs = read_source(path, options)
    if len(runs) == 1:
        return runs[0] if name is None else replace(runs[0], name=name)
    for run in runs:
        if run.name == name:
            return run
    names = ", ".join(run.name for run in runs)
    raise BadLog(f"{both_paths(path)[0]}: has {len(runs)} runs, expected name=, one of {names}")


def read_runs(
    paths: Iterable[Source],
    *,
    warmup: int | None = None,
    columns: Mapping[str, str] | None = None,
    unit: Unit = "steps",
    per_step: float | None = None,
    loss: str = "loss",
    rate_of: RateOf | None = None,
    seeds: Seeds = "refuse",
) -> list[Run]:
    """Read the logs of several runs, all in the same way; see `read_run`.

    Parameters
    ----------
    paths : iterable of path-like or of pairs
        A file that holds several runs gives all of them.
    warmup, columns, unit, per_step, loss, rate_of
        As for `read_run`.
    seeds : {"refuse", "keep", "average"}
        Runs of one name: an error; kept as seeds of one schedule, ``name#1``, ``name#2``, ...;
        or averaged, together with all runs of equal schedules whatever their names.

    Raises
    ------
    BadLog
        As for `read_run`; two runs of one name, unless they are declared seeds and have the same
        schedule.
    """
    if seeds not in ("refuse", "keep", "average"):
        raise InvalidProblem("seeds", seeds, "one of refuse, keep, average")
    options = Options(warmup, columns or {}, unit, per_step, loss, rate_of)
    runs = [run for path in paths for run in read_source(path, options)]
    if seeds != "refuse":
        runs = label_seeds(runs)
        return [group.mean for group in average_seeds(runs)] if seeds == "average" else runs
    seen: dict[str, str] = {}
    for run in runs:
        if run.name in seen:
            raise BadLog(
                f"{run.source}: a run named {run.name!r} was read from {seen[run.name]} already, "
                "expected different names: rename a file, or declare them seeds (seeds=)"
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
    rate_of: RateOf | None = None,
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
    rate_of: RateOf | None = None,
) -> RateLog:
    """Read a schedule, from a file of ours or from a log with or without a loss.

    Parameters
    ----------
    path : path-like
        A file that `Schedule.save` wrote, or what `read_run` reads; the loss is
        not looked at.
    warmup, columns, unit, per_step, rate_of
        As for `read_run`. A file of ours is complete: ``warmup`` does not change it.

    Raises
    ------
    BadLog, BadFile
        As for `read_run`; two rows are enough.
    """
    options = Options(warmup, columns or {}, unit, per_step, "loss", rate_of)
    target = Path(path)
    if is_ours(target):
        schedule = Schedule.load(target)
        notes = ("A schedule file of optsched, complete as it is.",)
        return RateLog(
            target.stem, schedule.steps, schedule, own_warmup(schedule), str(target), notes
        )
    table, *others = read_tables(target).values()
    if others:
        raise BadLog(f"{target}: has {1 + len(others)} runs, expected one schedule")
    series = find_rate(table, options.columns, unit)
    if series is None:
        raise no_rate(table)
    steps, rates = read_rate_column(series, options)
    filled = fill_rates(steps, rates, int(steps[-1]) + 1, warmup)
    read = f"Read as {table.form}: rate in {series.value!r} over {series.step!r}, {spacing(steps)}."
    return RateLog(
        run_name(target),
        steps + filled.shift,
        filled.schedule,
        filled.warmup,
        str(target),
        (read, *filled.notes),
    )
