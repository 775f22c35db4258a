"""The library's own methods by name: a new one is a file, and a line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from optsched.errors import BadPart, InvalidProblem

if TYPE_CHECKING:
    from optsched.control.task import Method

__all__ = ["METHODS", "find_method"]

# Module and class; imported when asked for.
METHODS = {
    "pontryagin": "pontryagin.Pontryagin",
    "collocation": "collocation.Collocation",
    "shooting": "shooting.Shooting",
}


def find_method(given: Any) -> Method:
    """A method, from itself or its name.

    Raises
    ------
    InvalidProblem
        For anything else.
    BadPart
        For a method of the user's without a name or a number of knots.
    """
    from optsched.control.task import Method

    if isinstance(given, Method):
        name, knots = getattr(given, "name", None), getattr(given, "knots", None)
        if not isinstance(name, str) or not isinstance(knots, int) or knots < 2:
            rule = "it must have a name, a str, and knots, an int >= 2"
            raise BadPart(f"method {type(given).__name__}", rule, f"got {name!r} and {knots!r}")
        return given
    if not isinstance(given, str) or given not in METHODS:
        allowed = f"one of {', '.join(METHODS)}, or a Method, such as Shooting()"
        raise InvalidProblem("method", given, allowed)
    module, cls = METHODS[given].split(".")
    return getattr(import_module(f"optsched.control.methods.{module}"), cls)()
