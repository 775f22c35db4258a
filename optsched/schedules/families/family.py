"""A family of schedules: a function of horizon and peak, and what may be tuned."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from optsched.checks import number
from optsched.errors import InvalidProblem
from optsched.schedules.schedule import Schedule

__all__ = ["Family", "Parameter"]


@dataclass(frozen=True)
class Parameter:
    """A hyperparameter that a study may tune.

    Attributes
    ----------
    name : str
        Keyword of the family.
    low, high : float
        Range to search; the family itself may allow more.
    default : float
        Value if it is not given.
    log : bool
        Whether to search on a logarithmic scale.
    integer : bool
        Whether only whole numbers are allowed.
    """

    name: str
    low: float
    high: float
    default: float
    log: bool = False
    integer: bool = False

    def __post_init__(self) -> None:
        if not self.low <= self.default <= self.high:
            raise InvalidProblem("default", self.default, f"{self.low} to {self.high}")
        if self.log and self.low <= 0.0:
            raise InvalidProblem("low", self.low, "a number > 0 on a logarithmic scale")

    def at(self, share: float) -> float:
        """Value at a share in [0, 1] of the range, on the parameter's scale."""
        share = number("share", share, 0.0, 1.0)
        if self.log:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low * (1.0 - share) + self.high * share
        value = min(max(value, self.low), self.high)
        return round(value) if self.integer else value

    def share(self, value: float) -> float:
        """Share of the range at which the parameter has this value: the inverse of `at`."""
        low, high = self.low, self.high
        if self.log:
            low, high, value = math.log(low), math.log(high), math.log(value)
        return (value - low) / (high - low)


PEAK = Parameter("peak", 1e-6, 10.0, 0.1, log=True)


@dataclass(frozen=True)
class Family:
    """A family of schedules: call it with horizon and peak.

    Attributes
    ----------
    name : str
        Key in `FAMILIES`.
    build : callable
        ``build(horizon, peak, **options)``: a `Schedule` of ``horizon`` steps whose rates are in
        proportion to ``peak``.
    parameters : tuple of Parameter
        What can be tuned: ``peak`` first, and put there if it is missing. The range of the peak is
        wide; a study replaces it by the range of its problem.

    Raises
    ------
    InvalidProblem
        If ``name`` is no text, ``build`` cannot be called, or two parameters have one name.
    """

    name: str
    build: Callable[..., Schedule]
    parameters: tuple[Parameter, ...] = ()

    def __post_init__(self) -> None:
        if not (isinstance(self.name, str) and self.name):
            raise InvalidProblem("name", self.name, "a text that is not empty")
        if not callable(self.build):
            raise InvalidProblem("build", self.build, "a function of horizon, peak and options")
        given = tuple(self.parameters)
        if not all(isinstance(p, Parameter) for p in given):
            raise InvalidProblem("parameters", self.parameters, "Parameter objects")
        names = [p.name for p in given]
        if "peak" not in names:
            given = (PEAK, *given)
        elif names[0] != "peak":
            raise InvalidProblem("parameters", names, "peak as the first one")
        if len(set(names)) < len(names):
            raise InvalidProblem("parameters", names, "every name once")
        object.__setattr__(self, "parameters", given)

    def __call__(self, horizon: int, peak: float, **options: Any) -> Schedule:
        """Build a member.

        Parameters
        ----------
        horizon : int
            Number of steps T.
        peak : float
            Largest rate.
        **options
            Values of ``parameters``, or anything else that ``build`` takes.

        Raises
        ------
        InvalidProblem
            If what is built is no Schedule of ``horizon`` steps.
        """
        for parameter in self.parameters:
            value: Any = options.get(parameter.name)
            if parameter.integer and isinstance(value, (float, np.floating)) and value.is_integer():
                options[parameter.name] = int(value)
        built = self.build(horizon, peak, **options)
        if not isinstance(built, Schedule):
            rule = "a Schedule from its build(horizon, peak)"
            raise InvalidProblem(f"family {self.name}", type(built).__name__, rule)
        if built.horizon != horizon:
            rule = f"a Schedule of {horizon} steps from its build(horizon, peak)"
            raise InvalidProblem(f"family {self.name}", f"{built.horizon} steps", rule)
        return built

    @property
    def defaults(self) -> dict[str, float]:
        """Defaults of all parameters but the peak."""
        return {p.name: p.default for p in self.parameters if p.name != "peak"}
