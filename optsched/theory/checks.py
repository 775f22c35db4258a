"""Checks of numbers that the rules share; every failure names field, value and what is allowed."""

from __future__ import annotations

import math
from typing import Any

from optsched.errors import InvalidProblem
from optsched.schedules.checks import is_number

__all__ = ["at_least", "decay", "positive", "share"]


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
