"""Files of logs as tables of columns: csv, JSON lines, JSON, and what trackers export.

A file gives one table a run; only the csv exports of Weights & Biases hold several runs. Nothing
is converted here: a field stays as it is, with the line that it comes from, until a column is
asked for, so that what is not used cannot be wrong.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Floats
from optsched.errors import BadLog

__all__ = ["Column", "Table", "rate_file", "read_tables", "run_name"]


TRAINER = "a Trainer state of Hugging Face"
TENSORBOARD = ("wall time", "step", "value")
_WANDB = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<spread>__MIN|__MAX)?")


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
    form : str
        What the file was taken for, in words.
    columns : mapping of str to list
        Fields by row; None or empty where there is none.
    lines : list of int
        Line (or entry, from 1) of every row.
    place : str
        What ``lines`` counts: "line" or "entry".
    """

    path: Path
    form: str
    columns: Mapping[str, list[Any]]
    lines: list[int]
    place: str = "line"

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
        rows, values = [], []
        for row, field in enumerate(self.columns[name]):
            if field is None or (isinstance(field, str) and not field.strip()):
                continue
            value = _number(field)
            if value is None or not math.isfinite(value):
                shown = field.strip() if isinstance(field, str) else field
                raise BadLog(f"{self.where(row)}: {name} is {shown!r}, expected a finite number")
            rows.append(row)
            values.append(value)
        return Column(np.array(values, dtype=np.float64), np.array(rows, dtype=np.int64))


def _number(field: Any) -> float | None:
    if isinstance(field, bool) or not isinstance(field, str | int | float):
        return None
    try:
        return float(field)
    except (ValueError, OverflowError):
        return None


def read_tables(path: Path) -> dict[str | None, Table]:
    """Tables of a file by the name of their run; None where the file names no run.

    Raises
    ------
    BadLog
        File that cannot be read, is empty, is no text, or has no rows.
    """
    if path.is_dir():
        inner = path / "trainer_state.json"
        if not inner.is_file():
            raise BadLog(f"{path}: is a directory without trainer_state.json, expected a log")
        path = inner
    text = _text(path)
    start = text.lstrip()[:1]
    if start in ("{", "["):
        return {None: _json_table(path, text)}
    return _csv_tables(path, text)


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BadLog(f"{path}: cannot be read: {error.strerror or error}") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise BadLog(f"{path}: is no text in UTF-8, expected csv or JSON")
    if not text.strip():
        raise BadLog(f"{path}: is empty, expected a log with step, rate and loss")
    return text


def _csv_tables(path: Path, text: str) -> dict[str | None, Table]:
    names, lines, fields = _csv_fields(path, text)
    if not lines:
        raise BadLog(f"{path}: has no rows below {','.join(names)!r}")
    columns = {name: [row[i] for row in fields] for i, name in enumerate(names)}
    if tuple(name.lower() for name in names) == TENSORBOARD:
        return {None: Table(path, "a csv export of TensorBoard", columns, lines)}
    matches = {name: match for name in names if (match := _WANDB.fullmatch(name))}
    if not matches or set(names[1:]) != set(matches):
        return {None: Table(path, "csv", columns, lines)}
    shared = {name: column for name, column in columns.items() if name not in matches}
    runs: dict[str | None, dict[str, list[Any]]] = {}
    for name, match in matches.items():
        # The x axis comes again for every run, with its spread; the first column has it already.
        metric = match["metric"]
        if match["spread"] is None and metric not in shared:
            runs.setdefault(match["run"], dict(shared))[metric] = columns[name]
    form = "a csv export of Weights & Biases"
    return {run: Table(path, form, own, lines) for run, own in runs.items()}


def _csv_fields(path: Path, text: str) -> tuple[list[str], list[int], list[list[str]]]:
    """Names of the columns, and the fields of every row with its line."""
    kept = [(i, line) for i, line in enumerate(text.splitlines(), 1) if _is_row(line)]
    if not kept:
        raise BadLog(f"{path}: has no line with the names of the columns")
    head = kept[0][1]
    delimiter = next((mark for mark in ",\t;" if mark in head), ",")
    reader = csv.reader(io.StringIO("\n".join(line for _, line in kept)), delimiter=delimiter)
    names: list[str] = []
    lines: list[int] = []
    fields: list[list[str]] = []
    try:
        for row in reader:
            line = kept[min(reader.line_num, len(kept)) - 1][0]
            if not names:
                names = [name.strip() for name in row]
                _check_names(f"{path}: line {line}", names)
            elif len(row) != len(names):
                raise BadLog(
                    f"{path}: line {line}: {len(row)} fields, expected {len(names)} as above"
                )
            else:
                lines.append(line)
                fields.append(row)
    except csv.Error as error:
        raise BadLog(f"{path}: {error}, expected csv") from None
    return names, lines, fields


def _is_row(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def _check_names(where: str, names: list[str]) -> None:
    twice = [name for name in names if name and names.count(name) > 1]
    if twice:
        raise BadLog(f"{where}: column {twice[0]!r} is there twice, expected names that differ")
    if all(_number(name) is not None for name in names):
        raise BadLog(f"{where}: numbers {names}, expected the names of the columns")


def _json_table(path: Path, text: str) -> Table:
    """JSON lines, or one JSON value: a Trainer state, a list of rows, or lists by name."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise BadLog(f"{path}: is nested too deeply, expected a log") from None
    except ValueError as error:
        lines = text.strip().splitlines()
        if lines[0].startswith("{") and lines[0].endswith("}") and len(lines) > 1:
            return _json_lines(path, text)
        raise BadLog(f"{path}: {error}, expected JSON") from None
    if isinstance(value, dict) and "log_history" in value:
        rows = value["log_history"]
        if not isinstance(rows, list):
            raise BadLog(f"{path}: log_history is no list, expected the state of a Trainer")
        # The last entry sums up the run: its train_loss is a mean over all steps.
        found = [
            (i, row)
            for i, row in enumerate(rows, 1)
            if not (isinstance(row, dict) and "train_runtime" in row)
        ]
        return _from_rows(path, TRAINER, found, "entry")
    if isinstance(value, list):
        return _from_rows(path, "a JSON list", list(enumerate(value, 1)), "entry")
    if isinstance(value, dict) and value and all(isinstance(v, list) for v in value.values()):
        lengths = {len(column) for column in value.values()}
        if len(lengths) > 1:
            raise BadLog(f"{path}: lists of {sorted(lengths)} values, expected one length")
        return Table(path, "JSON lists", value, list(range(1, lengths.pop() + 1)), "entry")
    if isinstance(value, dict):
        return _from_rows(path, "JSON lines", [(1, value)], "line")
    raise BadLog(f"{path}: expected a JSON object or a list of them")


def _json_lines(path: Path, text: str) -> Table:
    rows = []
    for i, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            rows.append((i, json.loads(line)))
        except (ValueError, RecursionError) as error:
            raise BadLog(f"{path}: line {i}: {error}, expected a JSON object a line") from None
    return _from_rows(path, "JSON lines", rows, "line")


def _from_rows(path: Path, form: str, rows: Iterable[tuple[int, Any]], place: str) -> Table:
    lines: list[int] = []
    columns: dict[str, list[Any]] = {}
    for line, row in rows:
        if not isinstance(row, dict):
            raise BadLog(f"{path}: {place} {line}: expected an object with step, rate and loss")
        for name, field in row.items():
            columns.setdefault(name, [None] * len(lines)).append(field)
        lines.append(line)
        for column in columns.values():
            column.extend([None] * (len(lines) - len(column)))
    if not lines:
        raise BadLog(f"{path}: has no rows, expected step, rate and loss in each")
    return Table(path, form, columns, lines, place)


def run_name(path: Path) -> str:
    """Name of the run: of a Trainer the folder, of TensorBoard the run, else the stem."""
    if path.is_dir():
        return path.resolve().name
    if path.name == "trainer_state.json":
        return path.resolve().parent.name
    run, tag, _ = path.stem.partition("-tag-")
    run = run.removeprefix("run-")
    return run if tag and run not in ("", ".") else path.stem


def rate_file(path: Path) -> Path | None:
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
