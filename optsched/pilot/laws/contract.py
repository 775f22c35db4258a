"""Rules that a user's law has to keep, each broken one told by name."""

from __future__ import annotations

from typing import Any

import numpy as np

from optsched.arrays import Floats
from optsched.errors import BadPart, InvalidProblem
from optsched.pilot.laws.law import Law, known
from optsched.pilot.laws.registry import made_law
from optsched.pilot.pieces import Pieces

__all__ = ["check_curve", "checked_law"]


def checked_law(given: Any) -> Law:
    """A law, from itself or by the name of one of ours.

    Raises
    ------
    InvalidProblem
        For what is neither.
    BadPart
        If its parameters, their ranges and priors do not fit together.
    """
    if isinstance(given, str):
        return made_law(given)
    if not isinstance(given, Law):
        allowed = "a Law, such as NormLaw(), or the name of one"
        raise InvalidProblem("law", given, allowed)
    part, names = f"law {given.name}", given.parameters
    if not (isinstance(names, tuple) and len({*names}) == len(names) and "level" in names):
        rule = "parameters must be a tuple of different names, level among them"
        raise BadPart(part, rule, f"got {names!r}")
    low, high = (np.asarray(side, float) for side in (given.low, given.high))
    if low.shape != (len(names),) or high.shape != (len(names),) or not (low < high).all():
        rule = f"low and high must be numbers, low < high, one for each of {len(names)} parameters"
        raise BadPart(part, rule, f"got shapes {low.shape} and {high.shape}")
    known(dict(given.priors), names)
    return given


def check_curve(law: Law, theta: Floats, pieces: Pieces) -> None:
    """Refuse a law whose curve is no row of losses where a fit starts.

    Raises
    ------
    BadPart
    """
    part, shape = f"law {law.name}", pieces.observed.shape
    found = np.asarray(law.curve(theta, pieces), float)
    if found.shape != shape:
        rule = f"curve(theta, pieces) must have shape {shape}, a loss for each observation"
        raise BadPart(part, rule, f"got shape {found.shape}")
    if np.isnan(found).any():
        raise BadPart(part, "curve(theta, pieces) must be no NaN where a fit starts", "it is")
