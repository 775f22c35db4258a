"""Checks of what a schedule is made of: steps, values at them, metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.checks import integers, real_array
from optsched.controls import CONTROLS, RANGES
from optsched.errors import InvalidProblem

__all__ = ["canonical", "knot_steps", "knot_table"]


def knot_steps(steps: Any, horizon: int) -> Ints:
    """Check the steps of the knots and freeze them."""
    knots = integers("steps", steps)
    falls = np.flatnonzero(knots[1:] <= knots[:-1])
    if falls.size:
        at = falls[0] + 1
        raise InvalidProblem("steps", int(knots[at]), f"more than {knots[at - 1]}, the step before")
    if knots[0] != 0:
        raise InvalidProblem("steps", int(knots[0]), "0 as the first step")
    if knots[-1] != horizon - 1:
        raise InvalidProblem("horizon", horizon, f"{knots[-1] + 1}, as the last knot says")
    knots.setflags(write=False)
    return knots


def knot_table(controls: Mapping[str, Any], knots: Ints) -> dict[str, Floats]:
    """Check the values of the controls and freeze them, in the order of CONTROLS."""
    unknown = [name for name in controls if name not in CONTROLS]
    if unknown or "eta" not in controls:
        allowed = "eta, and any of " + ", ".join(CONTROLS[1:])
        raise InvalidProblem("controls", list(controls), allowed)
    table: dict[str, Floats] = {}
    for name in CONTROLS:
        if name not in controls:
            continue
        given = real_array(name, controls[name])
        allowed, check = RANGES[name]
        if given.ndim and given.shape != knots.shape:
            raise InvalidProblem(name, f"shape {given.shape}", f"shape {knots.shape}, as steps")
        values = np.empty(knots.shape)
        values[:] = given
        values += 0.0  # -0.0 equals 0.0 but would have another digest
        bad = np.flatnonzero(~(np.isfinite(values) & check(values)))
        if bad.size:
            at = bad[0]
            raise InvalidProblem(name, float(values[at]), f"{allowed} (at step {knots[at]})")
        values.setflags(write=False)
        table[name] = values
    return table


def canonical(metadata: Mapping[str, Any] | None) -> str:
    """Metadata as JSON text, with sorted keys so that equal metadata give equal text."""
    try:
        text = json.dumps(dict(metadata or {}), default=_plain, allow_nan=False)
        return json.dumps(json.loads(text), sort_keys=True)
    except (TypeError, ValueError, RecursionError) as error:
        allowed = f"a dictionary that JSON can hold ({error})"
        raise InvalidProblem("metadata", type(metadata).__name__, allowed) from None


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    raise TypeError(f"{type(value).__name__} is not JSON")
