"""The log of a run, as `optsched.diagnostics.recorder` writes it, or any csv or JSON lines like it.

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

from optsched.arrays import Bools, Floats
from optsched.errors import BadLog

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


@dataclass(frozen=True, eq=False)
class Log:
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


def read_log(path: str | os.PathLike[str], *, required: Sequence[str] = ("step",)) -> Log:
    """Read a log.

    Parameters
    ----------
    path : path-like
        csv or JSON lines with the names of `COLUMNS`; others are kept too if they are numbers.
    required : sequence of str
        Columns that must be there.

    Returns
    -------
    Log

    Raises
    ------
    BadLog
        A file that cannot be read, a column that is missing, a field that is no number, steps that
        are not whole or do not increase: naming file, line and what is expected.
    """
    from optsched.logs.tables import read_tables

    target = Path(path)
    tables = read_tables(target)
    if len(tables) > 1:
        raise BadLog(f"{target}: holds {len(tables)} runs, expected the log of one")
    table = next(iter(tables.values()))
    for name in required:
        if name not in table.columns:
            found = ", ".join(table.columns)
            raise BadLog(f"{target}: no column {name!r}, expected {', '.join(required)}: {found}")
    columns: dict[str, Floats] = {}
    present: dict[str, Bools] = {}
    for name, fields in table.columns.items():
        values = np.full(len(fields), math.nan)
        there = np.zeros(len(fields), bool)
        for row, text in enumerate(fields):
            if text is None or (isinstance(text, str) and not text.strip()):
                continue
            number = _number(text)
            if number is None:
                if name in COLUMNS or name in required:
                    where = table.where(row)
                    raise BadLog(f"{where}: {name} is {text!r}, expected a number or nothing")
                break  # a column of words
            values[row], there[row] = number, True
        else:
            columns[name], present[name] = values, there
    _check_steps(columns["step"], table)
    names = {str(text) for text in table.columns.get("run", []) if text}
    return Log(str(target), columns, present, names.pop() if len(names) == 1 else None)


def _number(field: Any) -> float | None:
    try:
        return float(field)
    except (TypeError, ValueError, OverflowError):
        return None


def _check_steps(steps: Floats, table: Any) -> None:
    before = -1.0
    for row, step in enumerate(steps):
        if not (math.isfinite(step) and step == math.floor(step)) or step <= before:
            allowed = f"a whole number above {before:.0f}"
            raise BadLog(f"{table.where(row)}: step is {step:g}, expected {allowed}")
        before = step
