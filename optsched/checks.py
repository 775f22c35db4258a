"""Checks of numbers and arrays; every failure names field, value and what is allowed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Ints
from optsched.errors import InvalidProblem

__all__ = [
    "at_least",
    "decay",
    "integers",
    "is_number",
    "positive",
    "real_array",
    "share",
    "whole",
]


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
