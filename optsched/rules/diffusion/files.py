"""Files of noise schedules: .npz, .csv and .json, written whole or not at all.

Every file has the columns of `COLUMNS`, one row a level from the least noise; .csv and .json can
be read by anything. `load` takes the log SNR alone, as all else follows from it.
"""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from optsched.errors import BadFile, InvalidProblem
from optsched.files import SUFFIXES, atomic_path, check_input, check_writable
from optsched.rules.diffusion.schedules import NoiseSchedule

__all__ = ["COLUMNS", "load", "save"]

COLUMNS = ("log_snr", "alpha_bar", "noise_share", "beta", "alpha", "sigma", "sigma_exploding")
FORMAT = "optsched noise schedule"
MAX_TEXT = 10**6  # rows of a .json

PathLike = str | os.PathLike[str]


def save(schedule: NoiseSchedule, path: PathLike, *, overwrite: bool = False) -> None:
    """Write a noise schedule to a file.

    Parameters
    ----------
    schedule : NoiseSchedule
    path : path-like
        Ends in .npz, .csv or .json.
    overwrite : bool
        Whether to replace an existing file.

    Raises
    ------
    BadFile
        For another suffix, a path that exists or cannot be written, and a .json of more than
        10^6 levels.
    """
    target = Path(path)
    check_writable(target, overwrite, suffixes=SUFFIXES)
    suffix = target.suffix.lower()
    if suffix == ".json" and len(schedule) > MAX_TEXT:
        raise BadFile(f"{target}: {len(schedule)} levels, at most {MAX_TEXT} in .json: use .npz")
    names = {name: "betas" if name == "beta" else name for name in COLUMNS}
    table = {name: getattr(schedule, field) for name, field in names.items()}
    header = {"format": FORMAT, "kind": schedule.kind, "form": schedule.form}
    with atomic_path(target, overwrite=overwrite) as temporary:
        if suffix == ".npz":
            with temporary.open("wb") as binary:
                np.savez(binary, header=np.array(json.dumps(header)), **table)
            return
        with temporary.open("w", newline="", encoding="utf-8") as file:
            if suffix == ".json":
                json.dump(header | {name: v.tolist() for name, v in table.items()}, file)
                return
            file.write(f"# {json.dumps(header)}\n")
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["level", *COLUMNS])
            columns = [range(len(schedule)), *(v.tolist() for v in table.values())]
            writer.writerows(zip(*columns, strict=True))


def load(path: PathLike) -> NoiseSchedule:
    """Read a noise schedule that `save` wrote; equal to it.

    Raises
    ------
    BadFile
        Naming the file and what is expected.
    """
    target = Path(path)
    read = {".npz": _read_npz, ".csv": _read_csv, ".json": _read_json}.get(target.suffix.lower())
    if read is None:
        raise BadFile(f"{target}: suffix, expected one of " + ", ".join(SUFFIXES))
    check_input(target)
    try:
        header, values = read(target)
        if header.get("format") != FORMAT:
            raise BadFile(f"{target}: format {header.get('format')!r}, expected {FORMAT!r}")
        return NoiseSchedule(values, header["form"], header["kind"])
    except BadFile:
        raise
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
    except InvalidProblem as error:
        reason = str(error)
    except Exception as error:  # whatever a broken file does to a parser
        reason = f"expected a file of a noise schedule ({type(error).__name__}: {error})"
    raise BadFile(f"{target}: {' '.join(reason.split())}")


def _read_npz(path: Path) -> tuple[dict[str, Any], Any]:
    with np.load(path, allow_pickle=False) as archive:
        return json.loads(str(archive["header"])), archive["log_snr"]


def _read_csv(path: Path) -> tuple[dict[str, Any], Any]:
    with path.open(encoding="utf-8") as file:
        header = json.loads(file.readline().removeprefix("# "))
        return header, [float(row["log_snr"]) for row in csv.DictReader(file)]


def _read_json(path: Path) -> tuple[dict[str, Any], Any]:
    header = json.loads(path.read_text(encoding="utf-8"))
    return header, header["log_snr"]
