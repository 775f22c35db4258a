"""A file as formats see it: its name, its head, its text, each read once."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from optsched.errors import BadLog
from optsched.files import MOST_BYTES, read_bytes
from optsched.logs.formats.table import number

__all__ = ["Cells", "File"]

HEAD = 4096


@dataclass(frozen=True, eq=False)
class Cells:
    """Fields of a csv file.

    Attributes
    ----------
    names : list of str
        Of the columns.
    lines : list of int
        Line at which every row begins.
    rows : list of list of str
    """

    names: list[str]
    lines: list[int]
    rows: list[list[str]]

    @property
    def columns(self) -> dict[str, list[str]]:
        """Fields by the name of their column."""
        return {name: [row[i] for row in self.rows] for i, name in enumerate(self.names)}


class File:
    """A file of a log, or a folder of one.

    Parameters
    ----------
    path : pathlib.Path

    Attributes
    ----------
    path : pathlib.Path
    is_folder : bool
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_folder = path.is_dir()

    @cached_property
    def raw(self) -> bytes:
        """The contents; empty for a folder.

        Raises
        ------
        BadLog
            What is no regular file, has more than 500,000,000 bytes, or cannot be read.
        """
        return b"" if self.is_folder else read_bytes(self.path, MOST_BYTES, error=BadLog)

    @cached_property
    def is_text(self) -> bool:
        """Whether the contents are text."""
        return not self.is_folder and b"\0" not in self.raw and _decoded(self.raw) is not None

    @cached_property
    def text(self) -> str:
        """The contents as text, without a byte-order mark.

        Raises
        ------
        BadLog
            A file that is empty or no text in UTF-8.
        """
        text = _decoded(self.raw) if b"\0" not in self.raw else None
        if text is None:
            raise BadLog(f"{self.path}: is no text in UTF-8, expected csv or JSON")
        if not text.strip():
            raise BadLog(f"{self.path}: is empty, expected a log with step, rate and loss")
        return text

    @cached_property
    def head(self) -> str:
        """The first line that holds more than a comment; empty if the file is no text."""
        if not self.is_text:
            return ""
        lines = io.StringIO(self.text, newline="")
        return next((line.rstrip("\r\n") for line in lines if _is_row(line)), "")

    @property
    def starts_json(self) -> bool:
        """Whether the text begins as JSON does."""
        return self.is_text and self.text.lstrip()[:1] in ("{", "[")

    @cached_property
    def names(self) -> list[str]:
        """Names of the columns if the file is csv, else what stands there."""
        row = next(csv.reader([self.head], delimiter=_delimiter(self.head)), [])
        return [name.strip() for name in row]

    @cached_property
    def cells(self) -> Cells:
        """Fields of a csv file, with commas, tabs or semicolons.

        Raises
        ------
        BadLog
            Names that are lacking or there twice, a row that is cut short, quotes that do not end.
        """
        return _cells(self.path, self.text)

    @cached_property
    def json(self) -> Any:
        """The value of a JSON file.

        Raises
        ------
        BadLog
            Not JSON, or an object with a key twice.
        """
        return parse_json(self.text, f"{self.path}: ", "JSON")


def parse_json(text: str, where: str, expected: str) -> Any:
    """A JSON value of which no object has a key twice."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise BadLog(f"{where}is nested too deeply, expected {expected}") from None
    except _Twice as error:
        raise BadLog(f"{where}an object has {error.args[0]!r} twice, expected it once") from None
    except ValueError as error:
        raise BadLog(f"{where}{error}, expected {expected}") from None


class _Twice(Exception):
    pass


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise _Twice(name)
            seen.add(name)
    return found


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def _is_row(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _delimiter(head: str) -> str:
    return next((mark for mark in ",\t;" if mark in head), ",")


class _Lines:
    """Lines of a text for a reader of csv, without comments and empty lines between its rows."""

    def __init__(self, text: str) -> None:
        # As the csv module has it: a line ends with \n, \r or both, and nowhere else.
        self._lines = enumerate(io.StringIO(text, newline=""), 1)
        self.between, self.first = True, 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        for number_, line in self._lines:
            if self.between:
                if not _is_row(line):
                    continue
                self.between, self.first = False, number_
            return line
        raise StopIteration


def _cells(path: Path, text: str) -> Cells:
    head = next((line for line in io.StringIO(text, newline="") if _is_row(line)), None)
    if head is None:
        raise BadLog(f"{path}: has no line with the names of the columns")
    lines = _Lines(text)
    delimiter = _delimiter(head)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    names: list[str] = []
    found = Cells(names, [], [])
    try:
        for row in reader:
            lines.between = True
            where = f"{path}: line {lines.first}"
            if not names:
                names.extend(name.strip() for name in row)
                _check_names(where, names)
            elif len(row) != len(names):
                raise BadLog(f"{where}: {len(row)} fields, expected {len(names)} as above")
            else:
                _check_quoted(where, row, delimiter)
                found.lines.append(lines.first)
                found.rows.append(row)
    except csv.Error as error:
        raise BadLog(f"{path}: line {lines.first}: {error}, expected csv") from None
    if not found.lines:
        raise BadLog(f"{path}: has no rows below {','.join(names)!r}")
    return found


def _check_quoted(where: str, row: list[str], delimiter: str) -> None:
    """Refuse a field that has swallowed rows: a quote that was lost, or typed, by accident."""
    for entry in row:
        if "\n" not in entry and "\r" not in entry:
            continue
        for line in re.split(r"[\r\n]+", entry)[1:]:
            first, *others = line.split(delimiter)
            if len(others) == len(row) - 1 and number(first) is not None:
                raise BadLog(f"{where}: a quoted field holds whole rows, expected its end before")


def _check_names(where: str, names: list[str]) -> None:
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise BadLog(f"{where}: column {twice[0]!r} is there twice, expected names that differ")
    if all(number(name) is not None for name in names):
        raise BadLog(f"{where}: numbers {names}, expected the names of the columns")
