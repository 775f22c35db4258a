"""What a format of logs is: it recognises a file, and reads it into tables of columns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from optsched.logs.formats.file import File
from optsched.logs.formats.table import Table

__all__ = ["LogFormat"]


class LogFormat(ABC):
    """A kind of file that logs come in.

    A format of your own is a subclass that is passed to the readers, ``read_run(path,
    format=Mine())``; it is asked before those of `FORMATS`.

    Attributes
    ----------
    usual : tuple of str
        Names, with ``*``, of the files of this format in the folder of a run, the likeliest first.
    """

    usual: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def recognises(self, file: File) -> bool:
        """Whether a file is of this format; looks at the file's name, head or text."""

    @abstractmethod
    def read(self, file: File) -> list[Table]:
        """Tables of a file, one a run.

        Raises
        ------
        BadLog
            Naming file and line.
        """

    def find(self, folder: Path) -> Path | None:
        """File of this format in the folder of a run, or None."""
        for name in self.usual:
            found = sorted(path for path in folder.glob(name) if path.is_file())
            if found:
                return found[0]
        return None

    def rates_beside(self, path: Path) -> Path | None:
        """File of the rates beside a file of the losses, by its name, or None."""
        for word in ("lr", "learning_rate"):
            other = path.with_stem(path.stem.replace("loss", word))
            if other != path and other.is_file():
                return other
        return None
