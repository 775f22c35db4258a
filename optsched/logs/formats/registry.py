"""The formats that are known, and which of them a file is."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from optsched.errors import BadLog, InvalidProblem
from optsched.logs.formats.base import LogFormat
from optsched.logs.formats.config import facts_beside
from optsched.logs.formats.delimited import Csv, KerasCsv
from optsched.logs.formats.events import EventFiles
from optsched.logs.formats.exports import LongCsv, TensorboardCsv, WandbHistory, WandbPanel
from optsched.logs.formats.file import File
from optsched.logs.formats.json_rows import JsonLines, JsonValue
from optsched.logs.formats.table import Table
from optsched.logs.formats.text import TextLines
from optsched.logs.formats.trainer import FactoryLines, TrainerState

__all__ = ["FORMATS", "rates_beside", "read_tables", "read_with"]

# The first that recognises a file reads it.
FORMATS: tuple[LogFormat, ...] = (
    EventFiles(),
    TextLines(),
    FactoryLines(),
    JsonLines(),
    TrainerState(),
    JsonValue(),
    TensorboardCsv(),
    LongCsv(),
    WandbPanel(),
    WandbHistory(),
    KerasCsv(),
    Csv(),
)


def read_tables(path: Path, own: LogFormat | None = None) -> list[Table]:
    """Tables of a file, or of the folder of a run; of a folder of such, those of each.

    Parameters
    ----------
    path : pathlib.Path
    own : LogFormat, optional
        Asked before those of `FORMATS`.

    Returns
    -------
    list of Table
        One a run; a folder gives its name to a run that has none.

    Raises
    ------
    BadLog
        A file that cannot be read or that no format recognises; what its format says.
    InvalidProblem
        A format of the caller that breaks its contract.
    """
    formats = _all(own)
    file = File(path)
    if not file.is_folder:
        return _read(file, formats)
    found = _inside(path, formats)
    if found is not None:
        return _of_folder(path, found, formats)
    pairs = [
        (inner, one)
        for inner in sorted(path.iterdir())
        if inner.is_dir() and (one := _inside(inner, formats)) is not None
    ]
    if not pairs:
        usual = [name for one in formats for name in one.usual[:1]]
        raise BadLog(
            f"{path}: is a directory without a log, expected one of {', '.join(usual)} in it, or "
            "in the directories in it"
        )
    return [table for inner, one in pairs for table in _of_folder(inner, one, formats)]


def read_with(file: File, own: LogFormat | None = None) -> list[Table]:
    """Tables of a file that is opened already; ``own`` is asked first."""
    return _read(file, _all(own))


def rates_beside(path: Path, own: LogFormat | None = None) -> Path | None:
    """File of the rates that belongs to a file of losses by its name, or None."""
    file = File(path)
    if file.is_folder:
        return None
    return _which(file, _all(own)).rates_beside(path)


def _all(own: LogFormat | None) -> tuple[LogFormat, ...]:
    if own is None:
        return FORMATS
    if not isinstance(own, LogFormat):
        raise InvalidProblem("format", own, "an object of a subclass of LogFormat")
    return (own, *FORMATS)


def _inside(folder: Path, formats: tuple[LogFormat, ...]) -> Path | None:
    for one in formats:
        found = one.find(folder)
        if found is not None:
            return found
    return None


def _of_folder(folder: Path, found: Path, formats: tuple[LogFormat, ...]) -> list[Table]:
    """Tables of the file in the folder of a run; the folder has the name, and the configuration."""
    tables = _read(File(found), formats)
    facts = facts_beside(folder)
    name = folder.resolve().name
    return [replace(one, run=one.run or name, facts={**facts, **one.facts}) for one in tables]


def _which(file: File, formats: tuple[LogFormat, ...]) -> LogFormat:
    for one in formats:
        if one.recognises(file):
            return one
    text = file.text.strip()  # raises, if there is none
    shown = text.split("\n")[0][:40]
    raise BadLog(
        f"{file.path}: is neither csv nor JSON, nor lines with a step and a loss as key:value or "
        f"key value; begins with {shown!r}"
    )


def _read(file: File, formats: tuple[LogFormat, ...]) -> list[Table]:
    one = _which(file, formats)
    tables = one.read(file)
    name = type(one).__name__
    if not isinstance(tables, list) or not tables:
        raise InvalidProblem(f"format {name}", tables, "read() gives a list of one Table or more")
    for table in tables:
        if not isinstance(table, Table):
            got = type(table).__name__
            raise InvalidProblem(f"format {name}", got, "read() gives a list of Table")
        for column, fields in table.columns.items():
            if len(fields) != len(table.lines):
                raise InvalidProblem(
                    f"format {name}",
                    f"{len(fields)} fields of {column!r}",
                    f"one for each of the {len(table.lines)} lines",
                )
    return tables
