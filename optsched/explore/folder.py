"""Dropped files in a folder of their own, under names that can only lie inside of it."""

from __future__ import annotations

import base64
import binascii
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optsched.errors import BadFile, InvalidProblem

__all__ = ["dropped", "inside"]

MOST_FILES, MOST_DEPTH, MOST_LETTERS = 400, 6, 100
FORBIDDEN = re.compile(r"[^\w .+=@,()\[\]#-]")


@contextmanager
def inside() -> Iterator[Path]:
    """A new folder that is also the working directory, so that messages name files as dropped."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="optsched-") as name:
        os.chdir(name)
        try:
            yield Path(name)
        finally:
            os.chdir(before)


def dropped(files: Any) -> list[str]:
    """Write files here, and name what lies at the top: files, and folders of one run or more.

    Parameters
    ----------
    files : list of mapping
        Each with ``name``, its path as dropped, and ``data``, its content in base64.

    Raises
    ------
    InvalidProblem
        No such list.
    BadFile
        A file that cannot be written.
    """
    if not isinstance(files, list) or not 1 <= len(files) <= MOST_FILES:
        got = len(files) if isinstance(files, list) else files
        raise InvalidProblem("files", got, f"1 to {MOST_FILES} files")
    top: dict[str, None] = {}
    for one in files:
        if not isinstance(one, Mapping):
            raise InvalidProblem("files", one, "an object with name and data")
        target = _free(Path(*_parts(one.get("name"))))
        try:
            data = base64.b64decode(one.get("data", ""), validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise InvalidProblem("files", str(target), "content in base64") from None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
        except OSError as error:
            raise BadFile(f"{target}: cannot be kept: {error.strerror or error}") from None
        top[target.parts[0]] = None
    return [*top]


def _parts(name: Any) -> list[str]:
    """A path below here from what a browser calls a file."""
    if not isinstance(name, str):
        raise InvalidProblem("files", name, "a name in words")
    parts = [FORBIDDEN.sub("_", part).strip() for part in re.split(r"[/\\]", name)]
    parts = [part[-MOST_LETTERS:] for part in parts if part.strip(". ")]
    if not parts:
        raise InvalidProblem("files", name, "the name of a file")
    return parts[-MOST_DEPTH:]


def _free(path: Path) -> Path:
    """The path, or another beside it if there is a file of that name."""
    count, free = 1, path
    while free.exists():
        count += 1
        free = path.with_name(f"{path.stem} ({count}){path.suffix}")
    return free
