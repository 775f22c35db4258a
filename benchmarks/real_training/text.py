"""Text that every machine has: the sources of Python's standard library, as characters.

Files in the order of their paths, tests and installed packages left out; every tenth is kept for
validation, so that no file is in both parts. Other versions of Python have other text: a digest
says which it was.
"""

from __future__ import annotations

import hashlib
import sysconfig
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optsched import BadFile

__all__ = ["VOCABULARY", "Text", "standard_library"]

VOCABULARY = 128  # ASCII; the few other bytes share the last character
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test", "__pycache__"}
VALIDATION_EVERY = 10
LEAST = 100_000  # characters


@dataclass(frozen=True, eq=False)
class Text:
    """Characters for training and for validation.

    Attributes
    ----------
    train, validation : numpy.ndarray of uint8
        Files one after another.
    files : tuple of int
        Number of files in each part.
    digest : str
        Of both parts.
    """

    train: NDArray[np.uint8]
    validation: NDArray[np.uint8]
    files: tuple[int, int]
    digest: str

    def validation_blocks(self, count: int, length: int) -> NDArray[np.uint8]:
        """Blocks spread evenly over the validation part, shape (count, length + 1)."""
        starts = np.linspace(0, len(self.validation) - length - 1, count).astype(int)
        return self.validation[starts[:, None] + np.arange(length + 1)]


def _encoded(path: Path) -> NDArray[np.uint8]:
    characters = np.frombuffer(path.read_bytes(), dtype=np.uint8)
    return np.minimum(characters, VOCABULARY - 1).astype(np.uint8)


@cache
def standard_library(root: str | None = None) -> Text:
    """Text of the standard library's sources.

    Parameters
    ----------
    root : str, optional
        Folder to read instead.

    Returns
    -------
    Text

    Raises
    ------
    BadFile
        Less than 100,000 characters of source, as in a Python without its ``.py`` files.
    """
    folder = Path(root or sysconfig.get_paths()["stdlib"])
    names = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*.py")
        if not SKIPPED.intersection(path.relative_to(folder).parts)
    )
    parts = [_encoded(folder / name) for name in names]
    total = sum(map(len, parts))
    if total < LEAST:
        raise BadFile(
            f"{folder}: {total} characters in {len(names)} .py files, expected at least {LEAST}: "
            "this Python has no sources of its standard library"
        )
    train = np.concatenate([p for i, p in enumerate(parts) if i % VALIDATION_EVERY])
    validation = np.concatenate(parts[::VALIDATION_EVERY])
    digest = hashlib.sha256(train.tobytes() + b"|" + validation.tobytes()).hexdigest()[:16]
    held_out = len(parts[::VALIDATION_EVERY])
    return Text(train, validation, (len(parts) - held_out, held_out), digest)
