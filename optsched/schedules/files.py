"""Schedule files: .npz, .csv and .json, written whole or not at all.

* ``.npz``: arrays ``step`` (int64), ``eta`` and the other controls (float64), one row a step; the
  knots as ``knot_step``, ``knot_eta``, ...; ``header``, a string of JSON. No pickled objects.
* ``.csv``: a first line ``# optsched schedule`` with JSON, then ``step,eta[,beta][,nu]
  [,batch_size]``. Any other csv with such columns, or ``lr`` or ``learning_rate`` for ``eta`` and
  ``momentum`` for ``beta``, loads too, with a row at every step or at some.
* ``.json``: the knots and a digest, whatever the horizon.

The header carries unit, extension, horizon and metadata, so that loading what was saved gives an
equal schedule. Where the rows of a file contradict its knots, somebody edited the rows: they win.
"""

from __future__ import annotations

import json
import os
import secrets
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.errors import BadFile
from optsched.schedules.schedule import CONTROLS, Schedule

__all__ = ["MAX_ROWS", "PLOT_SUFFIXES", "SUFFIXES", "atomic_path", "check_writable", "load", "save"]

SUFFIXES = (".npz", ".csv", ".json")
PLOT_SUFFIXES = (".png", ".pdf", ".svg")
VERSION = 1
MAX_ROWS = 10**7
MAX_HEADER_KNOTS = 4096

_FORMAT = "optsched schedule"
_ALIASES = {"lr": "eta", "learning_rate": "eta", "momentum": "beta"}

PathLike = str | os.PathLike[str]
Rows = tuple[Ints, Mapping[str, Floats]]


def save(
    schedule: Schedule, path: PathLike, *, points: int | None = None, overwrite: bool = False
) -> None:
    """Write a schedule to a file, whole or not at all.

    Parameters
    ----------
    schedule : Schedule
    path : path-like
        Ends in .npz, .csv or .json.
    points : int, optional
        Number of rows to write, chosen by `Schedule.thin`; default: a row at every step (.json:
        the knots). With fewer points than knots the file holds a coarser schedule.
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    BadFile
        Other suffix, path that exists or cannot be written, or more than 10^7 rows.
    InvalidProblem
        ``points`` is not a whole number >= 2.
    """
    target = Path(path)
    check_writable(target, overwrite, suffixes=SUFFIXES)
    suffix = target.suffix.lower()
    if points is None and suffix != ".json" and schedule.horizon > MAX_ROWS:
        raise BadFile(
            f"{target}: a file with every step would have {schedule.horizon} rows, at most "
            f"{MAX_ROWS} are allowed: pass points=N (CLI: --points N) or use .json"
        )
    rows = None if points is None else schedule.thin(points)
    if rows is not None and len(rows[0]) < len(schedule.steps):
        schedule = schedule.replace(steps=rows[0], controls=rows[1])
    with atomic_path(target, overwrite=overwrite) as temporary:
        {".npz": _write_npz, ".csv": _write_csv, ".json": _write_json}[suffix](
            temporary, schedule, rows
        )


def load(path: PathLike) -> Schedule:
    """Read a schedule from a .npz, .csv or .json file.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Schedule
        Equal to the one that was saved. From rows without our header: knots at the rows, linear
        between them, horizon = last step + 1.

    Raises
    ------
    BadFile
        In one line, naming the file, the field and what is expected.
    """
    target = Path(path)
    _check_suffix(target, SUFFIXES)
    read = {".npz": _read_npz, ".csv": _read_csv, ".json": _read_json}[target.suffix.lower()]
    try:
        return read(target)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
    except UnicodeDecodeError:
        reason = "cannot be read: expected text in UTF-8"
    except Exception as error:  # whatever a broken file does to a parser
        reason = str(error) or type(error).__name__
    raise BadFile(f"{target}: {' '.join(reason.split())}")


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
        _check_suffix(target, suffixes)
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


def _check_suffix(target: Path, suffixes: Sequence[str]) -> None:
    if target.suffix.lower() not in suffixes:
        allowed = ", ".join(suffixes)
        raise BadFile(f"{target}: suffix {target.suffix!r}, expected one of {allowed}")


def _check_target(target: Path, overwrite: bool) -> None:
    if target.is_dir():
        raise BadFile(f"{target}: is a directory, expected a file name")
    if target.exists() and not target.is_file():
        raise BadFile(f"{target}: is a device or a pipe, expected a file name")
    if target.exists() and not overwrite:
        raise BadFile(f"{target}: exists already; pass overwrite=True (CLI: --force)")


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


def _header(schedule: Schedule) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": VERSION,
        "horizon": schedule.horizon,
        "unit": schedule.unit,
        "extend": schedule.extend,
        "interpolation": "linear",
        "metadata": schedule.metadata,
    }


def _knots(schedule: Schedule) -> dict[str, list[Any]]:
    controls = {name: values.tolist() for name, values in schedule.controls.items()}
    return {"step": schedule.steps.tolist(), **controls}


def _write_npz(path: Path, schedule: Schedule, rows: Rows | None) -> None:
    if rows is None:
        names = schedule.controls
        rows = np.arange(schedule.horizon), {name: schedule.array(name) for name in names}
    arrays: dict[str, Any] = {"step": rows[0], **rows[1]}
    if len(rows[0]) > len(schedule.steps):
        arrays["knot_step"] = schedule.steps
        arrays |= {f"knot_{name}": values for name, values in schedule.controls.items()}
    with path.open("wb") as file:
        np.savez(file, header=np.array(json.dumps(_header(schedule))), **arrays)


def _write_csv(path: Path, schedule: Schedule, rows: Rows | None) -> None:
    header = _header(schedule)
    count = schedule.horizon if rows is None else len(rows[0])
    if len(schedule.steps) <= min(MAX_HEADER_KNOTS, count - 1):
        header["knots"] = _knots(schedule)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write(f"# {_FORMAT} {json.dumps(header)}\n")
        file.write(",".join(["step", *schedule.controls]) + "\n")
        for steps, controls in schedule.blocks(1 << 16) if rows is None else [rows]:
            columns = [map(repr, values.tolist()) for values in controls.values()]
            lines = zip(map(str, steps.tolist()), *columns, strict=True)
            file.writelines(",".join(line) + "\n" for line in lines)


def _write_json(path: Path, schedule: Schedule, rows: Rows | None) -> None:
    fields = {**_header(schedule), "digest": schedule.digest}
    # One line a field and one a list of knots: a difference shows what changed.
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()]
    knots = [f"  {json.dumps(name)}: {json.dumps(v)}" for name, v in _knots(schedule).items()]
    lines.append(' "knots": {\n' + ",\n".join(knots) + "\n }")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8", newline="\n")


def _read_npz(path: Path) -> Schedule:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise BadFile("not an npz file, or cut short; expected arrays step and eta")
    with np.load(path, allow_pickle=False) as archive:
        arrays = {name: _member(archive, name) for name in archive.files}
    if "step" not in arrays or "eta" not in arrays:
        found = ", ".join(arrays) or "none"
        raise BadFile(f"arrays {found}; expected at least step and eta")
    header = _parse_header(str(arrays["header"])) if "header" in arrays else {}
    rows = {name: arrays[name] for name in ("step", *CONTROLS) if name in arrays}
    knots = {n.removeprefix("knot_"): v for n, v in arrays.items() if n.startswith("knot_")}
    return _assemble(rows, header, knots)


def _member(archive: Any, name: str) -> Any:
    try:
        return archive[name]
    except Exception as error:  # zip, zlib and numpy each have their own for a damaged array
        raise BadFile(f"array {name}: {error}; expected a whole array of numbers") from None


def _read_csv(path: Path) -> Schedule:
    header: dict[str, Any] = {}
    with path.open(encoding="utf-8-sig") as file:
        names: list[str] = []
        text = ""
        while not names:
            line = file.readline()
            if not line:
                raise BadFile("no line with column names; expected step,eta[,beta][,nu]...")
            text = line.strip()
            if text.startswith(f"# {_FORMAT} "):
                header = _parse_header(text.removeprefix(f"# {_FORMAT} "))
            elif text and not text.startswith("#"):
                names = [name.strip().strip('"').lower() for name in text.split(",")]
        names = [_ALIASES.get(name, name) for name in names]
        wanted = ["step", *(name for name in CONTROLS if name in names)]
        if "step" not in names or "eta" not in names or any(names.count(n) > 1 for n in wanted):
            raise BadFile(
                f"columns {text!r}; expected step and one of eta, lr, learning_rate, once each"
            )
        table = _parse_rows(file, [names.index(name) for name in wanted])
    columns = dict(zip(wanted, table.T, strict=True))
    return _assemble(columns, header, header.get("knots"))


def _parse_rows(file: IO[str], columns: list[int]) -> Floats:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # no rows: said below
        try:
            table = np.loadtxt(file, delimiter=",", usecols=columns, quotechar='"', ndmin=2)
        except ValueError as error:
            raise BadFile(f"rows: {error}; expected numbers in every column") from None
    if not table.size:
        raise BadFile("no rows; expected one for step 0 at least")
    return table


def _read_json(path: Path) -> Schedule:
    header = _parse_header(path.read_text(encoding="utf-8-sig"))
    schedule = _make(header.get("knots"), header)
    if header.get("digest", schedule.digest) != schedule.digest:
        raise BadFile(
            f"digest: the contents have {schedule.digest}, expected {header['digest']}: the file "
            "was changed; if on purpose, remove its digest"
        )
    return schedule


def _parse_header(text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadFile(f"header: {error}; expected JSON") from None
    if not isinstance(header, dict) or header.get("format") != _FORMAT:
        raise BadFile(f"format: expected a JSON object with format {_FORMAT!r}")
    for field, expected in (("version", VERSION), ("interpolation", "linear")):
        if header.get(field, expected) != expected:
            raise BadFile(f"{field}: {header[field]!r}, expected {expected!r}")
    return header


def _make(table: Any, header: Mapping[str, Any]) -> Schedule:
    """Schedule from a table with ``step`` and controls, and from the fields of the header."""
    if not isinstance(table, dict) or not {"step", "eta"} <= table.keys():
        raise BadFile("knots: expected step and eta, and the other controls if any")
    controls = {name: values for name, values in table.items() if name != "step"}
    fields = {n: header[n] for n in ("horizon", "unit", "extend", "metadata") if n in header}
    return Schedule.from_knots(table["step"], controls, **fields)


def _assemble(rows: dict[str, Any], header: Mapping[str, Any], knots: Any) -> Schedule:
    """Schedule with the knots of the header, if the rows agree with them, or with the rows."""
    dense = _make(rows, {**header, "horizon": None})
    if header.get("horizon", dense.horizon) != dense.horizon:
        raise BadFile(
            f"horizon: the rows end at step {dense.horizon - 1}, but the header says horizon "
            f"{header['horizon']!r}: cut short? (if on purpose, remove the header)"
        )
    if not knots:
        return dense
    own = _make(knots, header)
    agree = own.controls.keys() == dense.controls.keys() and np.isin(own.steps, dense.steps).all()
    for name, values in dense.controls.items() if agree else ():
        # Interpolation may round differently on another machine.
        tolerance = 8.0 * np.finfo(np.float64).eps * values.max()
        agree &= bool((np.abs(own(dense.steps, name) - values) <= tolerance).all())
    return own if agree else dense
