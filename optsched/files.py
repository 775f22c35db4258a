"""Files in general: written whole or not at all, and refused before any work is done."""

from __future__ import annotations

import csv
import io
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optsched.errors import BadFile

__all__ = [
    "MOST_BYTES",
    "PLOT_SUFFIXES",
    "SUFFIXES",
    "PathLike",
    "atomic_path",
    "check_input",
    "check_suffix",
    "check_writable",
    "read_bytes",
    "read_rows",
]

SUFFIXES = (".npz", ".csv", ".json")
PLOT_SUFFIXES = (".png", ".pdf", ".svg")
MOST_BYTES = 500_000_000  # of a file that is read

PathLike = str | os.PathLike[str]
Row = dict[str, Any]


def check_writable(
    path: PathLike, overwrite: bool = False, *, suffixes: Sequence[str] | None = None
) -> None:
    """Raise now what writing to ``path`` would raise later; leaves nothing behind.

    Parameters
    ----------
    path : path-like
    overwrite : bool
        Whether an existing file may be replaced.
    suffixes : sequence of str, optional
        Suffixes to insist on.

    Raises
    ------
    BadFile
        Other suffix, existing file, missing or unwritable directory.
    """
    target = Path(path)
    if suffixes is not None:
        check_suffix(target, suffixes)
    _temporary(target, overwrite).unlink()


@contextmanager
def atomic_path(path: PathLike, *, overwrite: bool = True) -> Iterator[Path]:
    """Context of a temporary path, of the same suffix and directory, that replaces ``path``.

    If the body raises, the old file stays as it was and the temporary one is removed.

    Parameters
    ----------
    path : path-like
        The file to write in the end.
    overwrite : bool
        Whether an existing file may be replaced.

    Yields
    ------
    pathlib.Path
        The file to write in the body; exists and is empty.

    Raises
    ------
    BadFile
        Existing file, missing or unwritable directory, any `OSError` of the body (disk full).
    """
    target = Path(path)
    temporary = _temporary(target, overwrite)
    try:
        yield temporary
        _check_target(target, overwrite)  # it may have appeared meanwhile
        os.replace(temporary, os.path.realpath(target))
    except OSError as error:
        raise _unwritable(target, error) from None
    finally:
        temporary.unlink(missing_ok=True)


def check_suffix(path: PathLike, suffixes: Sequence[str]) -> None:
    """Raise `BadFile` unless the name of a file ends in one of the suffixes, in any case."""
    target = Path(path)
    if target.suffix.lower() not in suffixes:
        allowed = ", ".join(suffixes)
        raise BadFile(f"{target}: suffix {target.suffix!r}, expected one of {allowed}")


def _check_target(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise BadFile(f"{target}: is a directory, expected a file name")
    if target.exists() and not target.is_file():
        raise BadFile(f"{target}: is a device or a pipe, expected a file name")
    if target.exists() and not overwrite:
        raise BadFile(f"{target}: exists already; pass overwrite=True")


def _unwritable(target: Path, error: OSError) -> BadFile:
    return BadFile(f"{target}: cannot be written: {error.strerror or error}")


def _temporary(target: Path, overwrite: bool) -> Path:
    """Create an empty file beside the target (beside what it links to)."""
    try:
        _check_target(target, overwrite)
        folder = Path(os.path.realpath(target)).parent
        if not folder.is_dir():
            raise BadFile(f"{target}: cannot be written: no directory {folder}")
        temporary = folder / f".optsched-{secrets.token_hex(8)}{target.suffix}"
        # Opened here, not by tempfile, so that the result has the usual permissions.
        temporary.open("xb").close()
    except OSError as error:
        raise _unwritable(target, error) from None
    return temporary


def check_input(
    path: Path, most: float = MOST_BYTES, *, error: type[BadFile] = BadFile
) -> os.stat_result:
    """Raise what reading a file would raise; nothing is opened.

    Parameters
    ----------
    path : pathlib.Path
    most : float
        Largest size that is read, in bytes; infinity where a file may be as large as it likes.
    error : type
        What to raise.

    Returns
    -------
    os.stat_result

    Raises
    ------
    BadFile
        No such file, one that is no regular file, or one that is too large.
    """
    try:
        found = path.stat()
    except (OSError, ValueError) as reason:  # ValueError: a zero byte in the name
        text = getattr(reason, "strerror", None) or reason
        raise error(f"{path}: cannot be read: {text}") from None
    if stat.S_ISDIR(found.st_mode):
        raise error(f"{path}: cannot be read: is a directory, expected a file")
    if not stat.S_ISREG(found.st_mode):
        raise error(f"{path}: is a device, a pipe or a socket, expected a regular file")
    if found.st_size > most:
        raise error(f"{path}: has {found.st_size:,} bytes, expected {most:,} at most")
    return found


def read_bytes(path: Path, most: int = MOST_BYTES, *, error: type[BadFile] = BadFile) -> bytes:
    """Contents of a regular file of at most ``most`` bytes; raises as `check_input`."""
    check_input(path, most, error=error)
    try:
        with path.open("rb") as file:
            raw = file.read(most + 1)  # it may have grown since
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror or reason}") from None
    if len(raw) > most:
        raise error(f"{path}: has more than {most:,} bytes, expected {most:,} at most")
    return raw


def read_rows(path: PathLike, numbers: Sequence[str], *, texts: Sequence[str] = ()) -> list[Row]:
    """Rows of a csv with a header, the named columns of each; others are ignored.

    Parameters
    ----------
    path : path-like
    numbers : sequence of str
        Columns that hold numbers.
    texts : sequence of str
        Columns that are left as text.

    Returns
    -------
    list of dict
        A row each, in the order of the file.

    Raises
    ------
    BadFile
        Naming the file, the line and what was expected.
    """
    raw = read_bytes(Path(path))
    wanted = [*texts, *numbers]
    rows: list[Row] = []
    try:
        reader = csv.DictReader(io.StringIO(raw.decode("utf-8-sig"), newline=""), strict=True)
        missing = [name for name in wanted if name not in (reader.fieldnames or ())]
        if missing:
            raise BadFile(f"{path}: no column {', '.join(missing)}; expected {','.join(wanted)}")
        for row in reader:
            try:
                values: Row = {name: float(row[name]) for name in numbers}
            except (TypeError, ValueError):
                where = f"{path}: line {reader.line_num}"
                raise BadFile(f"{where}: expected numbers in {','.join(numbers)}") from None
            rows.append({name: row[name] for name in texts} | values)
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadFile(f"{path}: {error}; expected a csv in UTF-8") from None
    return rows
