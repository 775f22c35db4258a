"""Cells of a sweep, and the folder that keeps the finished ones.

A sweep runs one function over many *cells*, each a dict of values that JSON can hold. Its folder
has

* ``manifest.json``: kind, settings and cells of the sweep;
* ``cells/KEY.json``: one file a finished cell, written whole or not at all;
* ``manifest.csv``: a line a cell with its status, written whenever a run ends;
* ``.lock``, ``.claims``: locks of the processes at work (`optsched.studies.sweep.locks`).

Files are strict JSON: floats come back bit for bit, and NaN and the infinities are written as
``{"$float": "nan"}``, ``"inf"`` and ``"-inf"``. Each file ends in a digest of its own contents, and
a cell file names the digest of its sweep, so that a damaged or foreign file is noticed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from optsched.errors import BadFile, InvalidProblem
from optsched.files import atomic_path, read_bytes
from optsched.studies.sweep.locks import Claims, take_folder
from optsched.version import installed

__all__ = ["Row", "Store", "Work", "canonical", "cell_key", "open_store", "plain"]

MANIFEST, CELLS, LOCK, CLAIMS = "manifest.json", "cells", ".lock", ".claims"
TABLE = "manifest.csv"
STATUSES = ("done", "failed")
VERSION = 1
ALLOWED = "numbers, strings, booleans, None, lists of them and dicts with strings as keys"
MAX_BITS = 10_000  # Python refuses to read much longer whole numbers

_FLOAT = "$float"
_TEMPORARY = re.compile(r"\.optsched-[0-9a-f]{16}\.(json|csv)")


@dataclass(frozen=True)
class Row:
    """A finished cell of a sweep.

    Attributes
    ----------
    cell : dict
        The cell.
    status : str
        ``"done"`` or ``"failed"``; ``"missing"`` where a shard or a stop leaves it to others.
    result : dict
        What the task returned; empty if it failed or is missing.
    error : str
        Why it failed, in one line; empty if it did not.
    seconds : float
        Time of the task; not compared.
    """

    cell: dict[str, Any]
    status: str
    result: dict[str, Any]
    error: str
    seconds: float = field(compare=False)


@dataclass(frozen=True)
class Work:
    """What makes a sweep the same sweep: its kind, settings and cells, all plain Python."""

    kind: str
    settings: dict[str, Any]
    cells: dict[str, dict[str, Any]]
    digest: str

    @staticmethod
    def make(kind: str, settings: Mapping[str, Any], cells: Iterable[Mapping[str, Any]]) -> Work:
        """Check and copy; cells are named by their keys."""
        if not isinstance(kind, str) or not kind:
            raise InvalidProblem("kind", kind, "a name that is not empty")
        if not isinstance(settings, Mapping):
            raise InvalidProblem("settings", settings, "a dict")
        own = plain(settings, "settings")
        named: dict[str, dict[str, Any]] = {}
        for index, cell in enumerate(cells):
            if not isinstance(cell, Mapping) or not cell:
                raise InvalidProblem(f"cells[{index}]", cell, "a dict that is not empty")
            copy = plain(cell, f"cells[{index}]")
            key = cell_key(copy)
            if key in named:
                raise InvalidProblem(f"cells[{index}]", cell, "each cell once")
            named[key] = copy
        if not named:
            raise InvalidProblem("cells", [], "one cell or more")
        return Work(kind, own, named, _digest([kind, own, sorted(named)]))


def plain(value: Any, where: str) -> Any:
    """Copy in plain Python, as a file would give it back: NumPy values and tuples are replaced.

    Raises
    ------
    InvalidProblem
        Naming ``where``, if JSON cannot hold the value.
    """
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int) and value.bit_length() <= MAX_BITS:
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, Mapping) and all(isinstance(n, str) and n != _FLOAT for n in value):
        return {str.__str__(name): plain(item, f"{where}.{name}") for name, item in value.items()}
    raise InvalidProblem(where, value, ALLOWED)


def _encoded(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return {_FLOAT: repr(value)}
    if isinstance(value, list):
        return [_encoded(item) for item in value]
    if isinstance(value, dict):
        return {name: _encoded(item) for name, item in value.items()}
    return value


def _decoded(found: dict[str, Any]) -> Any:
    return float(found[_FLOAT]) if found.keys() == {_FLOAT} else found


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


def canonical(value: Any) -> str:
    """The one JSON text of a plain value: equal texts are equal values, bit for bit."""
    return json.dumps(_encoded(value), sort_keys=True, allow_nan=False, separators=(",", ":"))


def _digest(value: Any) -> str:
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def cell_key(cell: Mapping[str, Any]) -> str:
    """Name of a cell, safe as a file name: some of its values to read, and a digest of all.

    >>> cell_key({"b": 2.0, "a": 1.5})
    'a=1.5_b=2.0-40ca17d3c9d8799205d4'
    """
    words = (
        f"{name}={value if isinstance(value, str) else canonical(value)}"
        for name, value in sorted(cell.items())
    )
    readable = re.sub(r"[^A-Za-z0-9._=-]+", "-", "_".join(words))[:60].strip("-.")
    # The digest alone is unique, also where file names ignore case.
    return f"{readable}-{_digest(cell)[:20]}"


def _sealed(name: str, fields: Mapping[str, Any]) -> str:
    """Text of a file: one field a line, then their digest."""
    fields = {"format": name, "version": VERSION, **fields}
    fields["digest"] = _digest(fields)
    lines = [f" {json.dumps(n)}: {canonical(value)}" for n, value in fields.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _unsealed(text: str, name: str) -> dict[str, Any]:
    """Fields of a file; `ValueError` says what is wrong with it."""
    found = json.loads(text, object_hook=_decoded, parse_constant=_no_constant)
    if not isinstance(found, dict) or found.get("format") != name:
        raise ValueError(f"format: expected {name!r}")
    if found.get("version") != VERSION:
        raise ValueError(f"version: {found.get('version')!r}, expected {VERSION}")
    digest = found.pop("digest", None)
    if digest != _digest(found):
        raise ValueError("digest: the contents were changed")
    return found


def _write(target: Path, text: str) -> None:
    with atomic_path(target) as temporary, temporary.open("wb") as file:
        file.write(text.encode("utf-8", "backslashreplace"))
        file.flush()
        os.fsync(file.fileno())  # before the rename: no name without its contents


class Store:
    """The folder of a sweep, open and locked; ``shared`` with other shards or not."""

    def __init__(self, folder: Path, work: Work, claims: Claims, shared: bool) -> None:
        self.folder, self.work, self.shared = folder, work, shared
        self.claims = claims
        self.numbers = {key: number for number, key in enumerate(sorted(work.cells))}

    def load(self) -> tuple[dict[str, Row], tuple[str, ...]]:
        """Finished cells by their keys, and the names of cell files that cannot be used."""
        rows: dict[str, Row] = {}
        corrupt = []
        present = set(os.listdir(self.folder / CELLS))
        for key, cell in self.work.cells.items():
            name = f"{key}.json"
            if name in present:
                try:
                    rows[key] = self._read(self.folder / CELLS / name, cell)
                except (BadFile, ValueError, KeyError, TypeError, RecursionError):
                    corrupt.append(f"{CELLS}/{name}")
        return rows, tuple(corrupt)

    def _read(self, path: Path, cell: dict[str, Any]) -> Row:
        found = _unsealed(read_bytes(path).decode("utf-8"), "optsched cell")
        if found["sweep"] != self.work.digest or canonical(found["cell"]) != canonical(cell):
            raise ValueError("of another sweep or cell")
        if found["status"] not in STATUSES:
            raise ValueError("status")
        return Row(cell, **{n: found[n] for n in ("status", "result", "error", "seconds")})

    def claim(self, key: str) -> bool:
        """Whether this process may do a cell: none other is at it."""
        return not self.shared or self.claims.take(self.numbers[key])

    def release(self, key: str) -> None:
        """Let others have a cell that was claimed."""
        if self.shared:
            self.claims.give(self.numbers[key])

    def found(self, key: str) -> Row | None:
        """The row of a cell if it is there by now, and can be used."""
        path = self.folder / CELLS / f"{key}.json"
        try:
            return self._read(path, self.work.cells[key]) if path.is_file() else None
        except (BadFile, ValueError, KeyError, TypeError, RecursionError):
            return None

    def write_table(self) -> None:
        """Write ``manifest.csv``: a line a cell of the whole sweep, as the folder has it now."""
        names = list(dict.fromkeys(name for cell in self.work.cells.values() for name in cell))
        own = ("file", "status", "seconds", "error")
        head = [f"cell.{name}" if name in own else name for name in names]
        with self.claims.alone():  # the last to write has seen what all have done
            rows, _ = self.load()
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow([*head, *own])
            for key, cell in self.work.cells.items():
                row = rows.get(key)
                told = (
                    [f"{CELLS}/{key}.json", row.status, f"{row.seconds:.6g}", row.error]
                    if (row)
                    else ["", "missing", "", ""]
                )
                writer.writerow([*(_shown(cell[n]) if n in cell else "" for n in names), *told])
            _write(self.folder / TABLE, text.getvalue())

    def keep(self, key: str, row: Row) -> None:
        """Write a finished cell, whole or not at all.

        Not over what is no file, as a folder of that name: `load` has said that it is corrupt, and
        the cell is solved again next time.
        """
        target = self.folder / CELLS / f"{key}.json"
        if target.exists() and not target.is_file():
            return
        fields = {"sweep": self.work.digest, **vars(row)}
        _write(target, _sealed("optsched cell", fields))


def _shown(value: Any) -> str:
    """A value of a cell in a csv: as Python writes it, what is nested as JSON."""
    return value if isinstance(value, str) else canonical(value).strip('"')


@contextmanager
def open_store(
    path: str | os.PathLike[str], work: Work, *, shared: bool = False
) -> Iterator[Store]:
    """Context of the folder of a sweep, new or continued, locked against other processes.

    ``shared``: processes that share it may work there too, and claim cells.

    Raises
    ------
    BadFile
        The folder belongs to another sweep or to something else, its manifest is damaged, it
        cannot be written, or another process works on it. Nothing in it is changed then.
    """
    folder = Path(path)
    _check(folder, work)  # before the lock: a refused folder does not even get a lock file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise _unusable(folder, error) from None
    with lock:
        take_folder(lock, folder, shared)
        claims = Claims(folder / CLAIMS)
        try:
            with claims.alone():
                known = _check(folder, work)  # another process may have been faster
                try:
                    if not shared:
                        _clean(folder)  # of others at work, it would take what they write
                    if not known:
                        _write(folder / MANIFEST, _manifest(work))
                    (folder / CELLS).mkdir(exist_ok=True)
                except OSError as error:
                    raise _unusable(folder, error) from None
            yield Store(folder, work, claims, shared)
        finally:
            claims.close()


def _unusable(folder: Path, error: OSError) -> BadFile:
    return BadFile(f"{folder}: cannot be used: {error.strerror or error}")


def _manifest(work: Work) -> str:
    fields = {
        "optsched": installed(),
        "kind": work.kind,
        "settings": work.settings,
        "sweep": work.digest,
        "cells": list(work.cells.values()),
    }
    return _sealed("optsched sweep", fields)


def _check(folder: Path, work: Work) -> bool:
    """Whether the folder has this sweep already; an error if it has anything else."""
    if not os.path.lexists(folder):
        return False
    if not folder.is_dir():
        raise BadFile(f"{folder}: is no directory, expected the folder of a sweep")
    manifest = folder / MANIFEST
    try:
        text = manifest.read_text(encoding="utf-8")
    except FileNotFoundError:
        others = [
            n for n in sorted(os.listdir(folder)) if n not in (LOCK, CLAIMS) and not _left_over(n)
        ]
        if others:
            raise BadFile(
                f"{folder}: has {others[0]!r} but no {MANIFEST}, so it is not of a sweep; give a"
                " folder that is new or empty"
            ) from None
        return False
    except (OSError, UnicodeDecodeError) as error:
        raise BadFile(f"{manifest}: cannot be read: {error}") from None
    try:
        found = _unsealed(text, "optsched sweep")
        if found["sweep"] == work.digest:
            return True
        reason = _difference(found, work)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadFile(
            f"{manifest}: damaged ({error}); restore it, or give another folder"
        ) from None
    raise BadFile(f"{folder}: has another sweep: {reason}; give another folder")


def _unlike(name: str, there: Any, here: Any) -> list[str]:
    """What differs between two values, by its full name."""
    if isinstance(there, dict) and isinstance(here, dict):
        return [
            line
            for key in sorted({*there, *here})
            for line in _unlike(
                f"{name}.{key}", there.get(key, "nothing"), here.get(key, "nothing")
            )
        ]
    same = canonical(there) == canonical(here)
    return [] if same else [f"{name}: {there!r} there, {here!r} asked for"]


def _difference(found: Mapping[str, Any], work: Work) -> str:
    if found["kind"] != work.kind:
        return f"kind: {found['kind']!r} there, {work.kind!r} asked for"
    unlike = _unlike("settings", found["settings"], work.settings)
    if unlike:
        return ", ".join(unlike[:3])
    cells = {cell_key(cell): cell for cell in found["cells"]}
    extra = [("there", cells[k]) for k in cells if k not in work.cells]
    extra += [("asked for", work.cells[k]) for k in work.cells if k not in cells]
    where, cell = extra[0]
    return f"cells: {len(cells)} there, {len(work.cells)} asked for; only {where}: {cell!r}"


def _left_over(name: str) -> bool:
    """Whether a file is the temporary one of a run that was killed."""
    return _TEMPORARY.fullmatch(name) is not None


def _clean(folder: Path) -> None:
    for place in (folder, folder / CELLS):
        for name in os.listdir(place) if place.is_dir() else ():
            if _left_over(name):
                (place / name).unlink(missing_ok=True)
