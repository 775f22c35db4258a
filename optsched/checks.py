"""Checks of numbers and arrays; every failure names field, value and what is allowed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Ints
from optsched.errors import InvalidProblem

__all__ = [
    "at_least",
    "choice",
    "decay",
    "integers",
    "is_number",
    "number",
    "positive",
    "real_array",
    "share",
    "whole",
    "within",
]


def is_number(value: Any) -> bool:
    """Whether a value is a real number, and no bool."""
    real = isinstance(value, (int, float, np.integer, np.floating))
    return real and not isinstance(value, bool)


def number(
    field: str, value: Any, low: float, high: float = math.inf, *, above: bool = False
) -> float:
    """``value`` as a finite float in [low, high], or in (low, high] if ``above``."""
    try:
        x = float(value) if is_number(value) else math.nan
    except OverflowError:  # an int that no float can hold
        x = math.inf
    if not (math.isfinite(x) and low <= x <= high) or (above and x == low):
        text = f"a finite number {'>' if above else '>='} {low:g}"
        raise InvalidProblem(field, value, text + (f" and <= {high:g}" if high < math.inf else ""))
    return x


def within(field: str, value: Any, low: float, high: float, allowed: str) -> float:
    """``value`` as a float, if it is a number in [low, high]; ``allowed`` says so in words."""
    if not is_number(value) or not low <= value <= high:
        raise InvalidProblem(field, value, allowed)
    return float(value)


def whole(field: str, value: Any, low: int, high: int) -> int:
    """``value`` as int if it is a whole number in [low, high]."""
    if not is_number(value) or not low <= value <= high or value != int(value):
        raise InvalidProblem(field, value, f"a whole number from {low} to {high}")
    return int(value)


def positive(field: str, value: Any) -> float:
    """``value`` as a float, if it is a finite number > 0."""
    return number(field, value, 0.0, above=True)


def at_least(field: str, value: Any, low: float) -> float:
    """``value`` as a float, if it is a finite number >= ``low``."""
    return number(field, value, low)


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


def choice(field: str, value: Any, allowed: Sequence[str]) -> str:
    """``value`` if it is one of the allowed words."""
    if not isinstance(value, str) or value not in allowed:
        raise InvalidProblem(field, value, "one of " + ", ".join(allowed))
    return value


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
