"""JSON: a row a line, a list of rows, or an object of lists."""

from __future__ import annotations

import re
from dataclasses import replace

from optsched.errors import BadLog
from optsched.logs.formats.base import LogFormat
from optsched.logs.formats.file import File, parse_json
from optsched.logs.formats.table import Table

__all__ = ["JsonLines", "JsonValue"]

RULES = ("next", "last", "mean")  # that a column rate_of may name


class JsonLines(LogFormat):
    """An object a line."""

    usual = (
        "metrics.jsonl", "log.jsonl", "train_log.jsonl", "log_history.jsonl", "train.jsonl",
        "scalars.json", "*.jsonl",
    )  # fmt: skip

    def recognises(self, file: File) -> bool:
        """The first line is an object, and others follow."""
        if not file.starts_json:
            return False
        first, *others = file.text.strip().split("\n")
        return bool(others) and bool(re.fullmatch(r"\{.*\}\s*", first))

    def read(self, file: File) -> list[Table]:
        """One table."""
        lines = file.text.split("\n")
        rows = []
        for i, line in enumerate(lines, 1):
            if not line.strip():
                continue
            expected = "a JSON object a line"
            if i == len(lines) and i > 1:  # no newline ends it
                expected += (
                    "; it is the last line, and cut short: while a log is written, read it with"
                    " optsched track or read_growing, which leave such a line out"
                )
            rows.append((i, parse_json(line, f"{file.path}: line {i}: ", expected)))
        table = Table.of_rows(file.path, "JSON lines", rows)
        said = {one for one in table.columns.get("rate_of", ()) if one is not None}
        rule = said.pop() if len(said) == 1 else None
        return [replace(table, rate_of=rule) if rule in RULES else table]


class JsonValue(LogFormat):
    """A list of objects, an object of lists, or a single object."""

    usual = ("metrics.json", "history.json", "log.json", "log_history.json")

    def recognises(self, file: File) -> bool:
        """It begins as JSON does."""
        return file.starts_json

    def read(self, file: File) -> list[Table]:
        """One table."""
        path, value = file.path, file.json
        if isinstance(value, list):
            rows = list(enumerate(value, 1))
            return [Table.of_rows(path, "a JSON list", rows, place="entry")]
        if not isinstance(value, dict):
            raise BadLog(f"{path}: expected a JSON object or a list of them")
        if value and all(isinstance(one, list) for one in value.values()):
            lengths = {len(column) for column in value.values()}
            if len(lengths) > 1:
                raise BadLog(f"{path}: lists of {sorted(lengths)} values, expected one length")
            lines = list(range(1, lengths.pop() + 1))
            return [Table(path, "JSON lists", value, lines, place="entry")]
        return [Table.of_rows(path, "JSON lines", [(1, value)])]
