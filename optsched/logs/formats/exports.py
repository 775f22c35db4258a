"""csv exports of trackers: Weights & Biases (a panel, a run), TensorBoard (a tag)."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from optsched.logs.formats.base import LogFormat
from optsched.logs.formats.file import File
from optsched.logs.formats.table import Table

__all__ = ["LongCsv", "TensorboardCsv", "WandbHistory", "WandbPanel"]

_COLUMN = re.compile(r"(?P<run>.+) - (?P<metric>.+?)(?P<spread>__MIN|__MAX)?")
# What the integration of Hugging Face's Trainer writes, whatever the trainer is built on.
_TRAINER = {"train/global_step", "train/learning_rate", "train/loss"}

_TAGS = {"tag", "key", "metric", "metric_name", "name"}
_RUNS = ("run", "run_id", "run_uuid", "dir_name")
_TENSORBOARD = ["wall time", "step", "value"]


class WandbPanel(LogFormat):
    """A panel: the x axis, then ``run - metric`` with its spread for every run."""

    def recognises(self, file: File) -> bool:
        """All names but the first are of a run."""
        names = file.names
        return len(names) > 1 and all(_COLUMN.fullmatch(name) for name in names[1:])

    def read(self, file: File) -> list[Table]:
        """A table a run."""
        cells = file.cells
        matches = {name: match for name in cells.names if (match := _COLUMN.fullmatch(name))}
        shared = {name: values for name, values in cells.columns.items() if name not in matches}
        runs: dict[str, dict[str, Any]] = {}
        for name, match in matches.items():
            # The x axis comes again for every run, with its spread; the first column has it.
            metric = match["metric"]
            if match["spread"] is None and metric not in shared:
                runs.setdefault(match["run"], dict(shared))[metric] = cells.columns[name]
        form = "a csv export of Weights & Biases"
        return [Table(file.path, form, own, cells.lines, run=run) for run, own in runs.items()]


class WandbHistory(LogFormat):
    """The history of a run that a Trainer of Hugging Face has sent there, as csv."""

    def recognises(self, file: File) -> bool:
        """The Trainer's names are there."""
        return set(file.names) >= _TRAINER

    def read(self, file: File) -> list[Table]:
        """One table, with the habits of the Trainer."""
        cells = file.cells
        form = "a Trainer's history of Weights & Biases"
        return [Table(file.path, form, cells.columns, cells.lines, rate_of="last")]


class LongCsv(LogFormat):
    """A row a number: its step, its name and its value, as of MLflow or tbparse."""

    def recognises(self, file: File) -> bool:
        """A column of values, one of their names and one of steps."""
        names = {name.lower() for name in file.names}
        return "value" in names and "step" in names and bool(names & _TAGS)

    def read(self, file: File) -> list[Table]:
        """A table for every run, if a column tells them apart."""
        cells = file.cells
        at = {name.lower(): i for i, name in enumerate(cells.names)}
        tag, run = (
            next((at[name] for name in names if name in at), None) for names in (_TAGS, _RUNS)
        )
        assert tag is not None
        rows: dict[str, list[tuple[int, dict[str, str]]]] = {}
        for line, row in zip(cells.lines, cells.rows, strict=True):
            name = row[tag].strip()
            if name.lower() == "step":
                continue
            own = rows.setdefault(row[run] if run is not None else "", [])
            own.append((line, {"step": row[at["step"]], name: row[at["value"]]}))
        form = "csv with a number a row"
        return [Table.of_rows(file.path, form, own, run=name or None) for name, own in rows.items()]


class TensorboardCsv(LogFormat):
    """``Wall time,Step,Value``: only the name of the file says of what."""

    def recognises(self, file: File) -> bool:
        """Those three names."""
        return [name.lower() for name in file.names] == _TENSORBOARD

    def read(self, file: File) -> list[Table]:
        """One table of one quantity, named by the run if the name of the file has it."""
        cells = file.cells
        run, tag, _ = file.path.stem.partition("-tag-")
        run = run.removeprefix("run-")
        return [
            Table(
                file.path,
                "a csv export of TensorBoard",
                cells.columns,
                cells.lines,
                run=run if tag and run not in ("", ".") else None,
                only=cells.names[2],
            )
        ]

    def rates_beside(self, path: Path) -> Path | None:
        """The one file of the same run with a tag of a rate."""
        head, tag, _ = path.stem.partition("-tag-")
        if not tag:
            return super().rates_beside(path)
        found = [p for p in sorted(path.parent.glob("*.csv")) if _is_rate_tag(p.stem, head + tag)]
        return found[0] if len(found) == 1 else None


def _is_rate_tag(stem: str, head: str) -> bool:
    tag = stem.removeprefix(head).lower()
    return stem.startswith(head) and bool(re.search(r"(^|[_-])(lr|learning_rate)([_-]|$)", tag))
