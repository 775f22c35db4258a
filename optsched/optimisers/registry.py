"""The library's own optimisers by name: a new one is a file, and a line here."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from optsched.errors import InvalidProblem

__all__ = ["MOMENTA", "OPTIMISERS", "find_optimiser"]

# Module and class; imported when asked for.
OPTIMISERS = {
    "sgd": "momentum.SGD",
    "heavy-ball": "momentum.HeavyBall",
    "nesterov": "momentum.Nesterov",
    "qhm": "momentum.QHM",
    "schedule-free": "schedule_free.ScheduleFree",
}
MOMENTA = ("none", "heavy-ball", "nesterov", "qhm")  # short for those of one family


def find_optimiser(name: Any) -> type[Any]:
    """The class of an optimiser of the library.

    Raises
    ------
    InvalidProblem
        For a name that is not known.
    """
    if not isinstance(name, str) or name not in OPTIMISERS:
        raise InvalidProblem("optimiser", name, "one of " + ", ".join(OPTIMISERS))
    module, cls = OPTIMISERS[name].split(".")
    return getattr(import_module(f"optsched.optimisers.{module}"), cls)
