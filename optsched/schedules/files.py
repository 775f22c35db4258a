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
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.controls import CONTROLS
from optsched.errors import BadFile
from optsched.files import (
    MOST_BYTES,
    SUFFIXES,
    PathLike,
    atomic_path,
    check_input,
    check_suffix,
    check_writable,
)
from optsched.model.grading import Knots

__all__ = ["MAX_ROWS", "Knotted", "read", "write"]

VERSION = 1
MAX_ROWS = 10**7
MAX_HEADER_KNOTS = 4096

_FORMAT = "optsched schedule"
LARGEST = 2_000_000_000  # bytes of a file that is read
# Arrays of an npz that are read; any others may be as large as they like.
_WANTED = ("step", *CONTROLS, "header", "knot_step", *(f"knot_{name}" for name in CONTROLS))
_ALIASES = {"lr": "eta", "learning_rate": "eta", "momentum": "beta"}

Rows = tuple[Ints, Mapping[str, Floats]]


class Knotted(Knots, Protocol):
    """What the formats need of a schedule, which is defined above them."""

    @property
    def unit(self) -> str: ...
    @property
    def extend(self) -> str: ...
    @property
    def metadata(self) -> dict[str, Any]: ...
    @cached_property
    def digest(self) -> str: ...
    def __call__(self, step: Ints, control: str) -> Floats: ...
    def array(self, control: str) -> Floats: ...
    def blocks(self, size: int) -> Iterable[tuple[Ints, Mapping[str, Floats]]]: ...


Loaded = TypeVar("Loaded", bound=Knotted)


def write(
    schedule: Knotted, path: PathLike, rows: Rows | None = None, *, overwrite: bool = False
) -> None:
    """Write a schedule to a file, whole or not at all.

    Parameters
    ----------
    schedule : Schedule
    path : path-like
        Ends in .npz, .csv or .json.
    rows : tuple of steps and values of the controls there, optional
        The rows to write; default: one at every step (.json: the knots).
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    BadFile
        Other suffix, path that exists or cannot be written, or more than 10^7 rows.
    """
    target = Path(path)
    check_writable(target, overwrite, suffixes=SUFFIXES)
    suffix = target.suffix.lower()
    if rows is None and suffix != ".json" and schedule.horizon > MAX_ROWS:
        raise BadFile(
            f"{target}: a file with every step would have {schedule.horizon} rows, at most "
            f"{MAX_ROWS} are allowed: pass points=N or use .json"
        )
    with atomic_path(target, overwrite=overwrite) as temporary:
        {".npz": _write_npz, ".csv": _write_csv, ".json": _write_json}[suffix](
            temporary, schedule, rows
        )


def read(path: PathLike, make: Callable[..., Loaded]) -> Loaded:
    """Read a schedule from a .npz, .csv or .json file.

    Parameters
    ----------
    path : path-like
    make : callable
        What makes a schedule of knots: `Schedule.from_knots`.

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
    check_suffix(target, SUFFIXES)
    check_input(target, LARGEST)
    parse = {".npz": _read_npz, ".csv": _read_csv, ".json": _read_json}[target.suffix.lower()]
    try:
        return parse(target, make)
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
    except UnicodeDecodeError:
        reason = "cannot be read: expected text in UTF-8"
    except Exception as error:  # whatever a broken file does to a parser
        reason = str(error) or type(error).__name__
    raise BadFile(f"{target}: {' '.join(reason.split())}")


def _header(schedule: Knotted) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "version": VERSION,
        "horizon": schedule.horizon,
        "unit": schedule.unit,
        "extend": schedule.extend,
        "interpolation": "linear",
        "metadata": schedule.metadata,
    }


def _knots(schedule: Knotted) -> dict[str, list[Any]]:
    controls = {name: values.tolist() for name, values in schedule.controls.items()}
    return {"step": schedule.steps.tolist(), **controls}


def _write_npz(path: Path, schedule: Knotted, rows: Rows | None) -> None:
    if rows is None:
        names = schedule.controls
        rows = np.arange(schedule.horizon), {name: schedule.array(name) for name in names}
    arrays: dict[str, Any] = {"step": rows[0], **rows[1]}
    if len(rows[0]) > len(schedule.steps):
        arrays["knot_step"] = schedule.steps
        arrays |= {f"knot_{name}": values for name, values in schedule.controls.items()}
    with path.open("wb") as file:
        np.savez(file, header=np.array(json.dumps(_header(schedule))), **arrays)


def _write_csv(path: Path, schedule: Knotted, rows: Rows | None) -> None:
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


def _write_json(path: Path, schedule: Knotted, rows: Rows | None) -> None:
    fields = {**_header(schedule), "digest": schedule.digest}
    # One line a field and one a list of knots: a difference shows what changed.
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in fields.items()]
    knots = [f"  {json.dumps(name)}: {json.dumps(v)}" for name, v in _knots(schedule).items()]
    lines.append(' "knots": {\n' + ",\n".join(knots) + "\n }")
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8", newline="\n")


def _read_npz(path: Path, make: Callable[..., Loaded]) -> Loaded:
    with path.open("rb") as file:
        if not zipfile.is_zipfile(file):
            raise BadFile("not an npz file, or cut short; expected arrays step and eta")
    with np.load(path, allow_pickle=False) as archive:
        there = list(archive.files)
        arrays = {name: _member(archive, name) for name in _WANTED if name in there}
    if "step" not in arrays or "eta" not in arrays:
        found = ", ".join(there) or "none"
        raise BadFile(f"arrays {found}; expected at least step and eta")
    header = _parse_header(str(arrays["header"])) if "header" in arrays else {}
    rows = {name: arrays[name] for name in ("step", *CONTROLS) if name in arrays}
    knots = {n.removeprefix("knot_"): v for n, v in arrays.items() if n.startswith("knot_")}
    return _assemble(rows, header, knots, make)


def _member(archive: Any, name: str) -> Any:
    # What it says of its size; a few bytes can be the archive of as many zeros as one likes.
    size = max((one.file_size for one in archive.zip.infolist() if one.filename == f"{name}.npy"),
               default=0)  # fmt: skip
    if size > MOST_BYTES:
        raise BadFile(f"array {name}: has {size:,} bytes, expected {MOST_BYTES:,} at most")
    try:
        return archive[name]
    except Exception as error:  # zip, zlib and numpy each have their own for a damaged array
        raise BadFile(f"array {name}: {error}; expected a whole array of numbers") from None


def _read_csv(path: Path, make: Callable[..., Loaded]) -> Loaded:
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
    return _assemble(columns, header, header.get("knots"), make)


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


def _read_json(path: Path, make: Callable[..., Loaded]) -> Loaded:
    header = _parse_header(path.read_text(encoding="utf-8-sig"))
    schedule = _made(header.get("knots"), header, make)
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


def _made(table: Any, header: Mapping[str, Any], make: Callable[..., Loaded]) -> Loaded:
    """Schedule from a table with ``step`` and controls, and from the fields of the header."""
    if not isinstance(table, dict) or not {"step", "eta"} <= table.keys():
        raise BadFile("knots: expected step and eta, and the other controls if any")
    controls = {name: values for name, values in table.items() if name != "step"}
    fields = {n: header[n] for n in ("horizon", "unit", "extend", "metadata") if n in header}
    return make(table["step"], controls, **fields)


def _assemble(
    rows: dict[str, Any], header: Mapping[str, Any], knots: Any, make: Callable[..., Loaded]
) -> Loaded:
    """Schedule with the knots of the header, if the rows agree with them, or with the rows."""
    dense = _made(rows, {**header, "horizon": None}, make)
    if header.get("horizon", dense.horizon) != dense.horizon:
        raise BadFile(
            f"horizon: the rows end at step {dense.horizon - 1}, but the header says horizon "
            f"{header['horizon']!r}: cut short? (if on purpose, remove the header)"
        )
    if not knots:
        return dense
    own = _made(knots, header, make)
    agree = own.controls.keys() == dense.controls.keys() and np.isin(own.steps, dense.steps).all()
    for name, values in dense.controls.items() if agree else ():
        # Interpolation may round differently on another machine.
        tolerance = 8.0 * np.finfo(np.float64).eps * values.max()
        agree &= bool((np.abs(own(dense.steps, name) - values) <= tolerance).all())
    return own if agree else dense
