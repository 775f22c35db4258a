"""Law files: a fit as JSON, written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from optsched.checks import whole
from optsched.errors import BadFile
from optsched.files import atomic_path, read_bytes
from optsched.pilot.fitting import Fit, RunNote
from optsched.pilot.laws import Prior
from optsched.pilot.laws.registry import describe, rebuilt
from optsched.pilot.pieces import Scale

__all__ = ["load_fit", "save_fit", "summary"]

FORMAT = "optsched law"
VERSION = 2
SLACK = 1e-9  # of a parameter at the end of its range
RATES_AND_LOSS = ("peak", "last_rate", "last_loss")

PathLike = str | os.PathLike[str]


def summary(found: Fit) -> dict[str, Any]:
    """A fit as plain numbers and text: what the file and ``--json`` hold."""
    return {
        "format": FORMAT,
        "version": VERSION,
        "law": describe(found.law),
        "parameters": dict(zip(found.law.parameters, found.theta.tolist(), strict=True)),
        "stderr": {name: error for name, (_, error) in found.parameters.items()},
        "exponents": {k: {"value": v, "stderr": e} for k, (v, e) in found.exponents.items()},
        "scale": asdict(found.scale),
        "misfit": found.misfit,
        "seed_noise": found.seed_noise,
        "cost": found.cost,
        "runs": [asdict(run) for run in found.runs],
        "notes": list(found.notes),
        "warnings": list(found.warnings),
        "failed": found.failed,
        "slip": found.slip,
        "members": found.members.tolist(),
    }


def save_fit(found: Fit, path: PathLike, *, overwrite: bool = False) -> None:
    """Write a fit as JSON.

    Raises
    ------
    BadFile
        The file exists and is not to be overwritten, or cannot be written.
    """
    text = json.dumps(summary(found), indent=1)
    with atomic_path(path, overwrite=overwrite) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def load_fit(path: PathLike) -> Fit:
    """Read a fit that `save_fit` wrote.

    Raises
    ------
    BadFile
        The file cannot be read, is no law file, or its numbers do not fit its law.
    """
    target = Path(path)
    raw = read_bytes(target)
    try:
        data = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise BadFile(f"{target}: is no JSON: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise BadFile(f"{target}: is no law file; optsched fit writes one")
    if data.get("version") != VERSION:
        raise BadFile(
            f"{target}: version {data.get('version')!r} of law files, expected {VERSION}; fit again"
        )
    try:
        return _built(data)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise BadFile(f"{target}: is no complete law file: {reason}") from error


def _built(data: dict[str, Any]) -> Fit:
    described = data["law"]
    priors = {
        key: Prior(_number(mean, f"prior of {key}"), _number(spread, f"spread of {key}", 0.0))
        for key, (mean, spread) in described["priors"].items()
    }
    own = described.get("class")
    law = rebuilt(str(described["name"]), priors, dict(described.get("settings", {})), own)
    theta = np.array([_number(data["parameters"][key], key) for key in law.parameters])
    members = np.array(data["members"], float)
    if members.size and members.shape[1:] != theta.shape:
        raise ValueError(f"members of shape {members.shape}, expected (K, {len(theta)})")
    members = members.reshape(-1, len(theta))
    if not np.isfinite(members).all():
        raise ValueError("a parameter of a member is no finite number")
    for row in (theta, *members):
        for key, value, low, high in zip(law.parameters, row, law.low, law.high, strict=True):
            if not low - SLACK <= value <= high + SLACK:
                raise ValueError(f"{key} is {value:g}, expected {low:g} to {high:g}")
    keys = ("rate", "span", "first")
    scale = Scale(**{key: _number(data["scale"][key], key, 0.0) for key in keys})
    if min(scale.rate, scale.span, scale.first) == 0.0:
        raise ValueError("the scale is not positive")
    runs = tuple(_run(run) for run in data["runs"])
    if not runs:
        raise ValueError("no runs")
    return Fit(
        law=law,
        theta=theta,
        members=members,
        scale=scale,
        runs=runs,
        misfit=_number(data["misfit"], "misfit", 0.0),
        seed_noise=_number(data["seed_noise"], "seed_noise", 0.0),
        warnings=tuple(data["warnings"]),
        cost=float(data["cost"]),
        notes=tuple(data["notes"]),
        failed=str(data["failed"]),
        slip=_number(data.get("slip", 0.0), "slip", 0.0),
    )


def _number(value: Any, name: str, least: float = -math.inf) -> float:
    number = float(value)
    if not (math.isfinite(number) and number >= least):
        bound = f" >= {least:g}" if math.isfinite(least) else ""
        raise ValueError(f"{name} is {value!r}, expected a finite number{bound}")
    return number


def _run(data: dict[str, Any]) -> RunNote:
    note = RunNote(**data)
    return RunNote(
        str(note.name),
        int(_number(note.horizon, "horizon of a run", 1.0)),
        *(_number(getattr(note, key), f"{key} of a run", 0.0) for key in RATES_AND_LOSS),
        warmup=whole("warm-up of a run", note.warmup, 0, note.horizon),
    )
