"""Logs that are still written: a last row that is cut is left out, and so is a loss that is none.

`read_growing` reads what `optsched.logs.read.read_run` reads. A last line without its end may be
half of a row: of csv and text it is left out, of JSON lines if it is no whole object. A loss that
is not finite is left out too; if the log ends with it the run has stopped there.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

from optsched.arrays import Brief
from optsched.errors import BadLog, InvalidProblem
from optsched.logs.columns import find_loss, find_step
from optsched.logs.formats.base import LogFormat
from optsched.logs.formats.file import File
from optsched.logs.formats.registry import rates_beside, read_with
from optsched.logs.formats.table import Table, is_empty, number
from optsched.logs.names import plain
from optsched.logs.options import Options, PathLike
from optsched.logs.read import read_run
from optsched.logs.run import Run

__all__ = ["GrowingLog", "read_growing"]

BATCHES = ("batch_size", "global_batch_size", "batch", "bs")
_LINE = re.compile(r"\{.*\}\s*")


@dataclass(frozen=True, eq=False, repr=False)
class GrowingLog(Brief):
    """A log that may be growing.

    Attributes
    ----------
    run : Run
        Its rows so far.
    stopped : int or None
        Step, as the log counts, from which on the loss is not finite; None if it is to the end.
    notes : tuple of str
        What was left out, in sentences.
    """

    run: Run
    stopped: int | None
    notes: tuple[str, ...]


def read_growing(path: PathLike, **reading: Any) -> GrowingLog:
    """Read the log of a run that may still be going on.

    Parameters
    ----------
    path : path-like
        A file or the folder of a run, with one run.
    **reading
        As for `read_run`.

    Raises
    ------
    BadLog
        As for `read_run`, but for the last row and for losses that are not finite.
    """
    if not isinstance(path, str | Path):
        raise InvalidProblem("path", path, "a file or a folder")
    own = reading.pop("format", None)
    name = reading.pop("name", None)
    growing = _Growing(Options(format=own, **reading))
    run = read_run(path, name=name, format=growing, **reading)
    return GrowingLog(run, growing.stopped, tuple(dict.fromkeys(growing.notes)))


class _Whole(File):
    """A file without a last line that is not finished."""

    def __init__(self, path: Path, notes: list[str]) -> None:
        super().__init__(path)
        self._notes = notes

    @cached_property
    def raw(self) -> bytes:
        raw = File(self.path).raw
        head, end, last = raw.rpartition(b"\n")
        if not (end and last.strip()) or _finished(raw, last):
            return raw
        number_ = head.count(b"\n") + 2
        self._notes.append(
            f"{self.path}: line {number_}, the last, is not finished and left out: it is being"
            " written, or was cut."
        )
        return head + end


def _finished(raw: bytes, last: bytes) -> bool:
    """Whether a last line without an end holds a whole row, or the file is no file of rows."""
    first = raw.lstrip()[:1]
    if first not in (b"{", b"["):
        return False
    head = raw.lstrip().partition(b"\n")[0].decode("utf-8", errors="replace")
    if not _LINE.fullmatch(head):
        return True  # a JSON value of several lines
    try:
        return isinstance(json.loads(last), dict)
    except ValueError:
        return False


@dataclass
class _Growing(LogFormat):
    """Reads as the formats do, of a file that is written."""

    options: Options
    stopped: int | None = None
    notes: list[str] = field(default_factory=list)

    def recognises(self, file: File) -> bool:
        return not file.is_folder and b"\0" not in file.raw[:4096] and bool(file.raw.strip())

    def find(self, folder: Path) -> Path | None:
        return None if self.options.format is None else self.options.format.find(folder)

    def rates_beside(self, path: Path) -> Path | None:
        return rates_beside(path, self.options.format)

    def read(self, file: File) -> list[Table]:
        tables = read_with(_Whole(file.path, self.notes), self.options.format)
        for table in tables:
            self._batches(table)
        return [self._finite(table) for table in tables]

    def _batches(self, table: Table) -> None:
        """Say where a batch size that the rows have changes, which no law of the loss knows of."""
        for name, fields in table.columns.items():
            if plain(name).rpartition("/")[2] not in BATCHES:
                continue
            told = [(i, number(x)) for i, x in enumerate(fields) if number(x) is not None]
            for (_, one), (i, other) in pairwise(told):
                if one != other:
                    self.notes.append(
                        f"{table.path}: {table.place} {table.lines[i]}: {name} changes from"
                        f" {one:g} to {other:g}, which the laws here know nothing of."
                    )
                    break

    def _finite(self, table: Table) -> Table:
        """The table without losses that are not finite."""
        try:
            loss, step = find_loss(table, self.options).value, find_step(table, self.options)[0]
        except BadLog:
            return table  # of rates alone; what is wrong with it is said by its reader
        fields = list(table.columns[loss])
        lost = [i for i, one in enumerate(fields) if not is_empty(one) and _lost(one)]
        if not lost:
            return table
        kept = [i for i, one in enumerate(fields) if not is_empty(one) and not _lost(one)]
        later = [i for i in lost if not kept or i > kept[-1]]
        if later:
            told = [number(one) for one in table.columns[step][: later[0] + 1]]
            self.stopped = max((int(one) for one in told if one is not None), default=0)
        else:
            self.notes.append(
                f"{table.path}: {len(lost)} losses that are no finite numbers are left out, the"
                f" last at {table.place} {table.lines[lost[-1]]}; finite ones follow."
            )
        for i in lost:
            fields[i] = None
        return replace(table, columns={**table.columns, loss: fields})


def _lost(entry: Any) -> bool:
    value = number(entry)
    return value is not None and not math.isfinite(value)
