"""The log of a run: of `optsched.diagnostics.recorder`, or any that `optsched.logs` reads.

A csv with ``step``, ``lr`` and ``loss``, which ``optsched fit`` reads too, and a column for every
other quantity: empty where it was not measured.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Bools, Brief, Floats
from optsched.errors import BadLog
from optsched.logs.clock import in_updates, later_pass
from optsched.logs.columns import find_rate, find_step, first_of
from optsched.logs.formats import Table, read_tables
from optsched.logs.formats.table import is_empty, number
from optsched.logs.names import EVAL, GRADIENT, TRAIN
from optsched.logs.options import Options

__all__ = ["COLUMNS", "Log", "read_log"]


COLUMNS = (
    "step",
    "lr",
    "loss",
    "batch_size",
    "gradient_norm",
    "update_norm",
    "parameter_norm",
    "gradient_square",
    "gradient_variance",
    "noise_scale",
    "sharpness",
    "sharpness_error",
    "trace",
    "trace_error",
)


@dataclass(frozen=True, eq=False, repr=False)
class Log(Brief):
    """Columns of numbers of one run.

    Attributes
    ----------
    path : str
        Where it was read.
    columns : mapping of str to numpy.ndarray of float64, shape (n,)
        nan where a quantity was not measured, or is not a number.
    present : mapping of str to numpy.ndarray of bool, shape (n,)
        Where a quantity was measured.
    run : str or None
        Name of the run.
    """

    path: str
    columns: Mapping[str, Floats]
    present: Mapping[str, Bools]
    run: str | None = None

    @property
    def steps(self) -> NDArray[np.int64]:
        """Step of every row."""
        return self.columns["step"].astype(np.int64)

    def series(self, name: str) -> tuple[NDArray[np.int64], Floats]:
        """Steps and values where a quantity was measured; empty if it never was."""
        if name not in self.columns:
            return np.empty(0, np.int64), np.empty(0)
        kept = self.present[name]
        return self.steps[kept], self.columns[name][kept]

    def nonfinite(self) -> tuple[int, str] | None:
        """First step at which something measured is nan or infinite, and what."""
        found = [
            (int(steps[bad[0]]), name)
            for name in self.columns
            for steps, values in (self.series(name),)
            for bad in (np.flatnonzero(~np.isfinite(values)),)
            if bad.size
        ]
        return min(found, key=lambda pair: pair[0], default=None)


def read_log(
    path: str | os.PathLike[str], *, required: Sequence[str] = ("step",), **reading: Any
) -> Log:
    """Read a log.

    Parameters
    ----------
    path : path-like
        With the names of `COLUMNS` or, for step, rate, loss and norm of the gradient, what other
        programs call them; other columns are kept too if they are numbers. Of steps that come
        again, as after a restart, the later pass is kept.
    required : sequence of str
        Columns that must be there.
    **reading
        ``columns``, ``unit``, ``per_step``, ``steps_per_epoch``, ``loss``, ``repeats`` and
        ``format`` of `optsched.logs.read_run`.

    Returns
    -------
    Log
        A row for every step at which anything was measured.

    Raises
    ------
    BadLog
        A file that cannot be read, a column that is missing, a field that is no number, steps that
        are not whole: naming file, line and what is expected.
    """
    options = Options(**reading)
    target = Path(path)
    table, *others = read_tables(target, options.format)
    if others:
        raise BadLog(f"{target}: holds {1 + len(others)} runs, expected the log of one")
    step, unit = find_step(table, options)
    named = _named(table, options)
    for name in required:
        if name != "step" and name not in named:
            found = ", ".join(table.columns)
            raise BadLog(f"{target}: no column {name!r}, expected {', '.join(required)}: {found}")
    steps = in_updates(table, step, unit, options)
    measured: dict[str, tuple[Floats, Floats]] = {}
    for name, column in named.items():
        rows = None if column == step else _measured(table, column, name, required)
        if rows is not None and len(rows[0]):
            where = steps[rows[0]]
            lacking = np.flatnonzero(np.isnan(where))
            if lacking.size:
                place = table.where(int(rows[0][lacking[0]]))
                raise BadLog(f"{place}: {column} without a {step}")
            kept, _ = later_pass(table, step, where, rows[0], options)
            measured[name] = where[kept], rows[1][kept]
    return _merged(table, measured, steps)


def _named(table: Table, options: Options) -> dict[str, str]:
    """Columns of the file by our names, and by their own where we have none."""
    found: dict[str, str] = {}
    rate = find_rate(table, options)
    if rate is not None:
        found["lr"] = rate.value
    if table.only is not None:
        found["loss"] = table.only
    given = options.names.get("loss")
    if given is None and options.loss not in ("loss", "train", "eval"):
        given = options.loss
    kinds = {"train": TRAIN, "eval": EVAL}
    for name, names in (
        ("loss", kinds.get(options.loss, (*TRAIN, *EVAL))),
        ("gradient_norm", GRADIENT),
    ):
        column = given if name == "loss" and given in table.columns else None
        column = column or first_of(table, names, name, name)
        if column is not None:
            found.setdefault(name, column)
    taken = {*found.values()}
    return {**found, **{name: name for name in table.columns if name not in taken}}


def _measured(
    table: Table, column: str, name: str, required: Sequence[str]
) -> tuple[NDArray[np.int64], Floats] | None:
    """Rows and values of a column, nan and infinities too; None if it has words."""
    rows, values = [], []
    for row, field in enumerate(table.columns[column]):
        if is_empty(field):
            continue
        value = number(field)
        if value is None:
            if name in COLUMNS or name in required:
                where = table.where(row)
                raise BadLog(f"{where}: {column} is {field!r}, expected a number or nothing")
            return None
        rows.append(row)
        values.append(value)
    return np.array(rows, np.int64), np.array(values, np.float64)


def _merged(table: Table, measured: Mapping[str, tuple[Floats, Floats]], steps: Floats) -> Log:
    """One row a step, whatever rows of the file its numbers are from."""
    found = [where for where, _ in measured.values()] or [steps[np.isfinite(steps)]]
    rows = np.unique(np.concatenate(found))
    columns: dict[str, Floats] = {"step": rows}
    present: dict[str, Bools] = {"step": np.ones(len(rows), bool)}
    for name, (where, values) in measured.items():
        at = np.searchsorted(rows, where)
        columns[name], present[name] = np.full(len(rows), math.nan), np.zeros(len(rows), bool)
        columns[name][at], present[name][at] = values, True
    names = {str(text) for text in table.columns.get("run", []) if text}
    run = names.pop() if len(names) == 1 else table.run
    return Log(str(table.path), columns, present, run)
