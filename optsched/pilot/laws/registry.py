"""Laws by name: those of the library, and anybody's by the place of its class."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from optsched.errors import InvalidProblem
from optsched.pilot.laws.kernel import features, fsl, fsl_sgd, momentum
from optsched.pilot.laws.law import Law, Prior
from optsched.pilot.laws.multipower import multi_power
from optsched.pilot.laws.norm import NormLaw, fsl_norm

__all__ = ["DEFAULT", "LAWS", "describe", "made_law", "rebuilt"]

DEFAULT = "fsl-norm"

LAWS: dict[str, Callable[..., Law]] = {
    DEFAULT: fsl_norm,
    "fsl": fsl,
    "fsl-sgd": fsl_sgd,
    "features": features,
    "multi-power": multi_power,
    "momentum": momentum,
}


def made_law(name: str, **settings: Any) -> Law:
    """A law by its name, or by ``module:Class`` for one's own.

    Parameters
    ----------
    name : str
    **settings
        Of the optimiser, for the default law; see `NormLaw`.

    Raises
    ------
    InvalidProblem
        No such law, or settings for one that has none.
    """
    if settings and name != DEFAULT:
        given = ", ".join(settings)
        raise InvalidProblem("law", name, f"{DEFAULT} with {given}: no other law knows of it")
    if name == DEFAULT:
        return NormLaw(**settings)
    if name in LAWS:
        return LAWS[name]()
    return _own(name)()


def describe(law: Law) -> dict[str, Any]:
    """What a file needs to build the law again."""
    out: dict[str, Any] = {
        "name": law.name,
        "priors": {name: [p.mean, p.spread] for name, p in law.priors.items()},
    }
    if law.settings():
        out["settings"] = law.settings()
    if law.name not in LAWS:
        out["class"] = f"{type(law).__module__}:{type(law).__qualname__}"
    return out


def rebuilt(
    name: str, priors: Mapping[str, Prior], settings: Mapping[str, Any], own: str | None
) -> Law:
    """The law that was described.

    Raises
    ------
    InvalidProblem
        A law that is not there, or that does not take what is written.
    """
    if name == DEFAULT:
        return NormLaw(priors, **settings)
    if name in LAWS:
        return LAWS[name](**priors)
    return _own(own or name)(priors=priors, **settings)


def _own(place: str) -> Callable[..., Law]:
    """A class of somebody else's, from ``module:Class``."""
    allowed = f"one of {', '.join(LAWS)}, or module:Class of one's own that can be imported"
    module, colon, name = place.partition(":")
    if not (colon and module and name):
        raise InvalidProblem("law", place, allowed)
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise InvalidProblem("law", place, f"{allowed} ({error})") from error
    if not (isinstance(found, type) and issubclass(found, Law)):
        raise InvalidProblem("law", place, f"{allowed}: a subclass of optsched.pilot.laws.Law")
    return found
