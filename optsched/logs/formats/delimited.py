"""csv of any program, with commas, tabs or semicolons, and of Keras."""

from __future__ import annotations

from optsched.logs.formats.base import LogFormat
from optsched.logs.formats.file import File
from optsched.logs.formats.table import Table, number

__all__ = ["Csv", "KerasCsv"]


class Csv(LogFormat):
    """A line of names, then rows; lines that begin with ``#`` are left out."""

    usual = ("metrics.csv", "log.csv", "history.csv", "training_log.csv", "training.log")

    def recognises(self, file: File) -> bool:
        """Two names or more in the first line, or one with a number below."""
        if len(file.names) > 1:
            return True
        rows = [line for line in file.text.split("\n") if line.strip() and line[0] != "#"][:2]
        return len(rows) == 2 and number(rows[0]) is None and number(rows[1]) is not None

    def read(self, file: File) -> list[Table]:
        """One table."""
        cells = file.cells
        return [Table(file.path, "csv", cells.columns, cells.lines)]


class KerasCsv(LogFormat):
    """What ``CSVLogger`` of Keras writes: the epoch from 0, then its numbers in order of names."""

    usual = ("training.csv", "history.csv")

    def recognises(self, file: File) -> bool:
        """``epoch``, then sorted names with a loss."""
        first, *others = file.names or [""]
        return first == "epoch" and "loss" in others and others == sorted(others)

    def read(self, file: File) -> list[Table]:
        """One table."""
        cells = file.cells
        form = "a CSVLogger of Keras"
        return [Table(file.path, form, cells.columns, cells.lines, first_epoch=0)]
