"""The log of a run as the callbacks write it: JSON lines, whole after a crash and a restart."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from optsched.errors import BadFile

__all__ = ["RunLog"]

PathLike = str | os.PathLike[str]


class RunLog:
    """JSON lines with ``step``, the updates done, and what a trainer has at them.

    A rate ``learning_rate`` is that of the last update; the rows say so (``rate_of``).

    Parameters
    ----------
    path : path-like
        Its folder is made when the run begins.
    overwrite : bool
        Whether a run that begins at step 0 may replace a log that is there.
    """

    def __init__(self, path: PathLike, *, overwrite: bool = False) -> None:
        self.path, self.overwrite = Path(path), overwrite

    def begin(self, step: int) -> None:
        """Make the log ready for a run that begins or goes on after ``step`` updates.

        A line that was cut, as by a crash, is taken out.

        Raises
        ------
        BadFile
            A log is there, and the run begins at step 0.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            return
        if step == 0 and self.path.stat().st_size > 0:
            if not self.overwrite:
                raise BadFile(
                    f"{self.path}: exists, and the run begins at step 0: give another file, or"
                    " overwrite=True"
                )
            self.path.write_bytes(b"")
            return
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        if len(whole) < len(raw):
            with self.path.open("r+b") as file:
                file.truncate(len(whole))

    def row(self, step: int, values: dict[str, Any]) -> None:
        """Add a row; a line is written whole, and is there for readers at once."""
        told: dict[str, Any] = {"step": step, **values}
        if "learning_rate" in values:
            told["rate_of"] = "last"
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(told) + "\n")
