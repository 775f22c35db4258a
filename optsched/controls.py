"""Names of the controls, and the values they may have."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optsched.arrays import Bools, Floats
from optsched.errors import InvalidProblem

__all__ = [
    "ALIASES",
    "CONTROLS",
    "MAX_DENSE",
    "MAX_HORIZON",
    "RANGES",
    "control_names",
]

RANGES: dict[str, tuple[str, Callable[[Floats], Bools]]] = {
    "eta": ("finite numbers >= 0", lambda x: x >= 0.0),
    "beta": ("finite numbers in [0, 1)", lambda x: (x >= 0.0) & (x < 1.0)),
    "nu": ("finite numbers in [0, 1]", lambda x: (x >= 0.0) & (x <= 1.0)),
    "batch_size": ("finite numbers >= 1", lambda x: x >= 1.0),
    "ema": ("finite numbers in [0, 1)", lambda x: (x >= 0.0) & (x < 1.0)),
}
CONTROLS = tuple(RANGES)
MAX_HORIZON = 10**15
MAX_DENSE = 10**8
ALIASES = {"batch": "batch_size"}


def control_names(given: Any) -> tuple[str, ...]:
    """Names of the controls in their order, from a sequence or a text with commas."""
    allowed = "one or more of eta, beta, nu, batch, ema, each once"
    if isinstance(given, str):
        given = [part.strip() for part in given.split(",")]
    if not isinstance(given, (list, tuple, set, frozenset)) or not given:
        raise InvalidProblem("controls", given, allowed)
    names = [ALIASES.get(name, name) if isinstance(name, str) else name for name in given]
    if any(name not in CONTROLS for name in names) or len(set(names)) < len(names):
        raise InvalidProblem("controls", ",".join(map(str, given)), allowed)
    return tuple(name for name in CONTROLS if name in names)
