"""A csv that only grows: one write a row, never over the file of another run."""

from __future__ import annotations

import csv
import io
import os
import weakref
from collections.abc import Sequence
from pathlib import Path

from optsched.errors import BadFile

__all__ = ["AppendOnly"]


class AppendOnly:
    """Rows of a run, of which the first column is a step that increases.

    Parameters
    ----------
    path : pathlib.Path
    columns : sequence of str
        The first is ``step``; a last one ``run`` has the name of the run in every row.
    start : int
        0 makes the file. Above, the file must be there: rows from that step on, and one that was
        cut short, are removed.
    run : str, optional
        Name of the run that the rows must have.

    Attributes
    ----------
    rows : list of dict of str to str
        The rows that were kept.

    Raises
    ------
    BadFile
        A file that exists and should not, or the other way round; other columns; another run;
        a row that is none; a file that another process writes, or that cannot be written.
    """

    def __init__(
        self, path: Path, columns: Sequence[str], start: int = 0, run: str | None = None
    ) -> None:
        self.path, self.columns, self.run = path, tuple(columns), run
        flags = os.O_APPEND | (os.O_RDWR if start else os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            self._fd = os.open(path, flags, 0o666)
        except FileExistsError:
            raise BadFile(
                f"{path}: exists already, and a log is never overwritten: take another name, or "
                "start=STEP to go on with that run"
            ) from None
        except FileNotFoundError as error:
            missing = "there is no such log to go on with" if start else error.strerror
            raise BadFile(f"{path}: {missing}") from None
        except OSError as error:
            raise BadFile(f"{path}: cannot be written: {error.strerror or error}") from None
        # Closed with the object, so that a loop needs no context.
        self.close = weakref.finalize(self, os.close, self._fd)
        try:
            self._lock()
            self.rows: list[dict[str, str]] = self._resume(start) if start else []
            if not start:
                self._write(self.columns)
        except BaseException:
            self.close()
            raise

    def append(self, fields: Sequence[str]) -> None:
        """Write a row; it is there as a whole or, if the disk is full, not at all."""
        if not self.close.alive:
            raise BadFile(f"{self.path}: the log was closed")
        self._write(fields)

    def _write(self, fields: Sequence[str]) -> None:
        buffer = io.StringIO()
        csv.writer(buffer, lineterminator="\n").writerow(fields)
        line = buffer.getvalue().encode()
        size = os.fstat(self._fd).st_size
        try:
            done = os.write(self._fd, line)
        except OSError as error:
            raise BadFile(f"{self.path}: cannot be written: {error.strerror or error}") from None
        if done < len(line):
            os.ftruncate(self._fd, size)
            raise BadFile(f"{self.path}: cannot be written: no space for a row")

    def _lock(self) -> None:
        """Keep a second process out; it goes with the descriptor, whatever ends the process."""
        try:
            import fcntl
        except ImportError:  # Windows: the check for an existing file is what there is
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BadFile(f"{self.path}: is being written by another recorder") from None

    def _resume(self, start: int) -> list[dict[str, str]]:
        """Rows before a step; the rest of the file is cut off, once all of it was read."""
        raw = self.path.read_bytes()
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise BadFile(f"{self.path}: is no text in UTF-8, expected a log") from None
        lines = text.splitlines(keepends=True)
        if lines and not lines[-1].endswith("\n"):
            lines.pop()  # the write that a kill or a full disk cut short
        if not lines or tuple(lines[0].rstrip("\n").split(",")) != self.columns:
            found = lines[0].strip() if lines else "nothing"
            expected = ",".join(self.columns)
            raise BadFile(f"{self.path}: columns {found!r}, expected {expected!r} as in this run")
        kept, end, before = [], len(lines[0].encode()), -1
        for number, line in enumerate(lines[1:], 2):
            fields = next(csv.reader([line]), [])
            step = int(fields[0]) if fields and fields[0].isdecimal() else -1
            if len(fields) != len(self.columns) or step <= before:
                expected = f"{len(self.columns)} fields, the first a step above {before}"
                raise BadFile(f"{self.path}: line {number}: {line.strip()!r}, expected {expected}")
            row = dict(zip(self.columns, fields, strict=True))
            if self.run is not None and row["run"] != self.run:
                raise BadFile(
                    f"{self.path}: line {number}: is of run {row['run']!r}, not of {self.run!r}"
                )
            before = step
            if step < start:
                kept.append(row)
                end += len(line.encode())
        os.ftruncate(self._fd, end)
        return kept
