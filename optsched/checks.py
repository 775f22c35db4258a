"""Checks of numbers and arrays; every failure names field, value and what is allowed."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Floats, Ints
from optsched.errors import InvalidProblem

__all__ = [
    "CONTROLS",
    "at_least",
    "canonical",
    "decay",
    "integers",
    "is_number",
    "knot_steps",
    "knot_table",
    "positive",
    "real_array",
    "share",
    "whole",
]


CONTROLS = ("eta", "beta", "nu", "batch_size", "ema")

_RULES: dict[str, tuple[str, Callable[[Floats], NDArray[np.bool_]]]] = {
    "eta": ("finite numbers >= 0", lambda x: x >= 0.0),
    "beta": ("finite numbers in [0, 1)", lambda x: (x >= 0.0) & (x < 1.0)),
    "nu": ("finite numbers in [0, 1]", lambda x: (x >= 0.0) & (x <= 1.0)),
    "batch_size": ("finite numbers >= 1", lambda x: x >= 1.0),
    "ema": ("finite numbers in [0, 1)", lambda x: (x >= 0.0) & (x < 1.0)),
}


def is_number(value: Any) -> bool:
    """Whether a value is a real number, and no bool."""
    number = isinstance(value, (int, float, np.integer, np.floating))
    return number and not isinstance(value, bool)


def whole(field: str, value: Any, low: int, high: int) -> int:
    """``value`` as int if it is a whole number in [low, high]."""
    if not is_number(value) or not low <= value <= high or value != int(value):
        raise InvalidProblem(field, value, f"a whole number from {low} to {high}")
    return int(value)


def positive(field: str, value: Any) -> float:
    """``value`` as a float, if it is a finite number > 0."""
    if not is_number(value) or not 0.0 < value < math.inf:
        raise InvalidProblem(field, value, "a finite number > 0")
    return float(value)


def at_least(field: str, value: Any, low: float) -> float:
    """``value`` as a float, if it is a finite number >= ``low``."""
    if not is_number(value) or not low <= value < math.inf:
        raise InvalidProblem(field, value, f"a finite number >= {low:g}")
    return float(value)


def decay(field: str, value: Any) -> float:
    """``value`` as a float, if it is a momentum or decay, in [0, 1)."""
    if not is_number(value) or not 0.0 <= value < 1.0:
        raise InvalidProblem(field, value, "a number in [0, 1)")
    return float(value)


def share(field: str, value: Any) -> float:
    """``value`` as a float, if it is in (0, 1]."""
    if not is_number(value) or not 0.0 < value <= 1.0:
        raise InvalidProblem(field, value, "a number in (0, 1]")
    return float(value)


def real_array(field: str, values: Any) -> NDArray[Any]:
    """Array of real numbers."""
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, OverflowError):
        array = np.asarray(None)
    if array.dtype.kind not in "iuf":
        raise InvalidProblem(field, f"{array.dtype} array", "an array of numbers")
    return array


def integers(field: str, values: Any, ndim: int | None = 1) -> Ints:
    """Array of whole numbers as int64, all below 2^63 in size."""
    array = real_array(field, values)
    if ndim is not None and (array.ndim != ndim or array.size == 0):
        raise InvalidProblem(field, f"shape {array.shape}", "shape (n,), n >= 1")
    if array.dtype.kind != "i":
        good = (array == np.floor(array)) & (np.abs(array) < 2.0**63)
        if not good.all():
            raise InvalidProblem(field, array[~good].flat[0].item(), "whole numbers")
    return array.astype(np.int64)


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
        allowed, check = _RULES[name]
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
