"""A table: the columns of a run as they stand in a file.

Nothing is converted here: a field stays as it is, with the line that it comes from, until a column
is asked for, so that what is not used cannot be wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Floats
from optsched.errors import BadLog

__all__ = ["Column", "RateOf", "Table", "is_empty", "number"]

RateOf = Literal["next", "last", "mean"]

# Not all that float() takes: it reads 3_7156 as 37156, and digits of every script.
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf|infinity)", re.I | re.A)


@dataclass(frozen=True, eq=False)
class Column:
    """Numbers of a column, where it has any.

    Attributes
    ----------
    values : numpy.ndarray of float64, shape (n,)
    rows : numpy.ndarray of int64, shape (n,)
        Row of each value, from 0.
    """

    values: Floats
    rows: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Table:
    """Columns of one run as they stand in a file.

    Attributes
    ----------
    path : pathlib.Path
        The file, as errors name it.
    form : str
        What the file was taken for, in words: "Read as csv: ...".
    columns : mapping of str to list
        Fields by row; None or empty where there is none.
    lines : list of int
        Line (or entry, from 1) of every row.
    place : str
        What ``lines`` counts: "line", "entry", ...
    run : str or None
        Name of the run, where the file has one; None: by the name of the file.
    only : str or None
        Column of a file that holds one quantity and does not say which.
    rate_of : {"next", "last", "mean"} or None
        What its writers do, if they do all the same: the rate of a row is that of the next
        update, of the last one, or the mean since the row before.
    first_epoch : int or None
        What the program calls the first epoch, 0 or 1, if that is known; else the rows tell.
    facts : mapping of str to object
        What the file says of the run beside its rows: ``horizon`` (steps), ``warmup`` (steps),
        ``weight_decay``, ``optimizer``, ``batch_size``, ``peak``; any others.
    """

    path: Path
    form: str
    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int]
    place: str = "line"
    run: str | None = None
    only: str | None = None
    rate_of: RateOf | None = None
    first_epoch: int | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    _numbers: dict[str, Column] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of_rows(
        cls, path: Path, form: str, rows: Iterable[tuple[int, Any]], **fields: Any
    ) -> Table:
        """Table from rows that are mappings, each with its line.

        Parameters
        ----------
        path : pathlib.Path
        form : str
        rows : iterable of (int, mapping)
            Names may differ from row to row.
        **fields
            The other attributes.

        Raises
        ------
        BadLog
            A row that is no mapping, or no rows.
        """
        place = fields.get("place", "line")
        lines: list[int] = []
        columns: dict[str, list[Any]] = {}
        for line, row in rows:
            if not isinstance(row, Mapping):
                raise BadLog(f"{path}: {place} {line}: expected an object with step, rate and loss")
            for name, entry in row.items():
                column = columns.setdefault(name, [])
                column.extend([None] * (len(lines) - len(column)))
                column.append(entry)
            lines.append(line)
        for column in columns.values():
            column.extend([None] * (len(lines) - len(column)))
        if not lines:
            raise BadLog(f"{path}: has no rows, expected step, rate and loss in each")
        return cls(path, form, columns, lines, **fields)

    def where(self, row: int) -> str:
        """File and line of a row, as errors begin."""
        return f"{self.path}: {self.place} {self.lines[row]}"

    def column(self, name: str) -> Column:
        """Numbers of a column.

        Raises
        ------
        BadLog
            A field that is no finite number, with file and line.
        """
        if name not in self._numbers:
            self._numbers[name] = self._column(name)
        return self._numbers[name]

    def _column(self, name: str) -> Column:
        rows, values = [], []
        for row, entry in enumerate(self.columns[name]):
            if is_empty(entry):
                continue
            value = number(entry)
            if value is None or not math.isfinite(value):
                shown = entry.strip() if isinstance(entry, str) else entry
                text = repr(shown) if len(repr(shown)) < 60 else repr(shown)[:60] + "..."
                raise BadLog(f"{self.where(row)}: {name} is {text}, expected a finite number")
            rows.append(row)
            values.append(value)
        return Column(np.array(values, dtype=np.float64), np.array(rows, dtype=np.int64))


def number(entry: Any) -> float | None:
    """A field as a float, which may be nan or infinite; None if it is no number."""
    if isinstance(entry, bool):
        return None
    if isinstance(entry, str):
        return float(entry) if _NUMBER.fullmatch(entry.strip()) else None
    if isinstance(entry, int | float | np.integer | np.floating):
        try:
            return float(entry)
        except OverflowError:
            return None
    return None


def is_empty(entry: Any) -> bool:
    """Whether a field holds nothing."""
    return entry is None or (isinstance(entry, str) and not entry.strip())
