"""Families that a study may tune: a horizon and a peak, and hyperparameters with their ranges.

`FAMILIES` holds ours, made of the schedules of the modules beside this one. A family of one's own
is a `Family` object, and is taken wherever a name is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from optsched.checks import number
from optsched.errors import InvalidProblem
from optsched.schedules.families.cycles import (
    cosine_restarts,
    cyclical,
    one_cycle,
)
from optsched.schedules.families.decays import (
    Anneal,
    constant,
    cosine,
    exponential,
    inverse_sqrt,
    inverse_time,
    linear,
    polynomial,
    power_law,
    wsd,
)
from optsched.schedules.families.derived import (
    with_warmup,
)
from optsched.schedules.families.pieces import check
from optsched.schedules.families.steps import multi_step, step
from optsched.schedules.schedule import Sampling, Schedule

__all__ = ["FAMILIES", "Family", "Parameter", "find_family", "named_families"]


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


_WARMUP = Parameter("warmup", 0.0, 0.5, 0.0)
_FINAL = Parameter("final", 0.0, 0.5, 0.0)
_DECAY = Parameter("decay", 0.01, 1.0, 0.2, log=True)  # not "cooldown", which counts from T


def _warm(
    family: Callable[..., Schedule], horizon: int, peak: float, *, warmup: Any = 0, **options: Any
) -> Schedule:
    return with_warmup(family, warmup, horizon, peak, **options)


def _stairs(
    horizon: int, peak: float, *, first: float = 0.5, second: float = 0.5, **options: Any
) -> Schedule:
    """Two drops; the second is a share of what the first leaves, so that any pair is in order."""
    first, second = number("first", first, 0.0, 1.0), number("second", second, 0.0, 1.0)
    milestones = (first, first + (1.0 - first) * second)
    return multi_step(horizon, peak, milestones=milestones, **options)


def _wsd(
    shape: Anneal, horizon: int, peak: float, *, warmup: Any = 0, decay: Any = 0.2, **options: Any
) -> Schedule:
    """``decay`` is a share of what the warm-up leaves, so that any pair fits."""
    make = partial(wsd, shape=shape, cooldown=decay)
    return with_warmup(make, warmup, horizon, peak, **options)


def _damped(
    horizon: int,
    peak: float,
    *,
    damping: float = 0.1,
    sampling: Sampling = "average",
    **options: Any,
) -> Schedule:
    """Amplitude ``damping`` at the end, which unlike gamma is no matter of the horizon."""
    total, _, _ = check(horizon, peak, sampling)
    gamma = number("damping", damping, 0.0, 1.0, above=True) ** (1.0 / total)
    return cyclical(horizon, peak, mode="exp_range", gamma=gamma, sampling=sampling, **options)


def _decay_law(
    horizon: int, peak: float, *, chi: float = 0.5, sampling: Sampling = "average"
) -> Schedule:
    """Power law whose first rate is the peak; the exponent of the horizon is then idle."""
    _, peak, average = check(horizon, peak, sampling)
    chi = number("chi", chi, 0.0, 1.0)
    c = peak * (1.0 - chi) if average else peak
    return power_law(horizon, c, chi=chi, sampling=sampling)


def _registry() -> dict[str, Family]:
    power = Parameter("power", 0.1, 10.0, 2.0, log=True)
    small = Parameter("final", 1e-6, 0.5, 0.01, log=True)  # of exponentials: never 0
    timescale = Parameter("timescale", 1e-4, 1.0, 0.1, log=True)
    triangle = (
        Parameter("up", 0.01, 0.5, 0.1, log=True),
        Parameter("floor", 0.0, 0.9, 0.25),
    )
    drops = (
        Parameter("first", 0.1, 0.99, 0.5),
        Parameter("second", 0.1, 0.99, 0.5),
        Parameter("factor", 0.01, 0.9, 0.1, log=True),
    )
    rounds = (
        Parameter("cycles", 1, 16, 4, log=True, integer=True),
        Parameter("t_mult", 1.0, 4.0, 1.0, log=True),
        Parameter("decay", 0.1, 1.0, 1.0, log=True),
    )
    swing = (
        Parameter("rise", 0.01, 0.9, 0.3),
        Parameter("start", 0.0, 1.0, 0.04),
        Parameter("final", 0.0, 0.5, 4e-6),
    )
    # Families with a linear warm-up in front, from zero.
    warm: dict[str, tuple[Callable[..., Schedule], tuple[Parameter, ...]]] = {
        "constant": (constant, ()),
        "linear": (linear, (_FINAL,)),
        "cosine": (cosine, (_FINAL,)),
        "polynomial": (polynomial, (power, _FINAL)),
        "exponential": (exponential, (small,)),
        "inverse_time": (inverse_time, (timescale, replace(power, high=4.0, default=1.0))),
        "multi_step": (_stairs, drops),
        "step": (
            step,
            (
                Parameter("every", 0.02, 0.5, 0.25, log=True),
                Parameter("factor", 0.01, 0.95, 0.1, log=True),
            ),
        ),
        "cosine_restarts": (cosine_restarts, (*rounds, _FINAL)),
    }
    plain: dict[str, tuple[Callable[..., Schedule], tuple[Parameter, ...]]] = {
        "inverse_sqrt": (
            inverse_sqrt,
            (Parameter("warmup", 1e-4, 0.5, 0.05, log=True), replace(timescale, default=0.05)),
        ),
        "wsd_linear": (partial(_wsd, "linear"), (_WARMUP, _DECAY, _FINAL)),
        "wsd_sqrt": (partial(_wsd, "1-sqrt"), (_WARMUP, _DECAY, _FINAL)),
        "wsd_exponential": (partial(_wsd, "exponential"), (_WARMUP, _DECAY, small)),
        "wsd_power": (partial(_wsd, "power"), (_WARMUP, _DECAY, power, _FINAL)),
        "wsd_cosine": (partial(_wsd, "cosine"), (_WARMUP, _DECAY, _FINAL)),
        "one_cycle": (one_cycle, swing),
        "triangular": (cyclical, triangle),
        "triangular2": (partial(cyclical, mode="triangular2"), triangle),
        "exp_range": (_damped, (*triangle, Parameter("damping", 1e-3, 1.0, 0.1, log=True))),
        "power_law": (_decay_law, (Parameter("chi", 0.0, 0.95, 0.5),)),
    }
    found = {
        name: Family(name, partial(_warm, family), (_WARMUP, *free))
        for name, (family, free) in warm.items()
    }
    return found | {name: Family(name, family, free) for name, (family, free) in plain.items()}


FAMILIES: dict[str, Family] = _registry()
# Short names that commands take too.
ALIASES = {"wsd": "wsd_linear", "power": "power_law"}


def find_family(name: object) -> Family | None:
    """The family of a name or a short name, None if there is none."""
    return FAMILIES.get(ALIASES.get(name, name)) if isinstance(name, str) else None


def named_families(names: Sequence[str | Family]) -> list[Family]:
    """Families by name or short name; a `Family` of one's own as it is.

    Raises
    ------
    InvalidProblem
        For a name that is not known.
    """
    found = []
    for name in names:
        known = name if isinstance(name, Family) else find_family(name)
        if known is None:
            raise InvalidProblem("families", name, "one of " + ", ".join([*FAMILIES, *ALIASES]))
        found.append(known)
    return found
