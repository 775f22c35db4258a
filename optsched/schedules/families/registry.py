"""Families that a study may tune: a horizon and a peak, and hyperparameters with their ranges.

`FAMILIES` holds ours, made of the schedules of the modules beside this one. A family of one's own
is a `Family` object, and is taken wherever a name is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from optsched.checks import number
from optsched.errors import InvalidProblem
from optsched.schedules.families.cycles import cosine_restarts, cyclical, one_cycle
from optsched.schedules.families.decays import (
    Anneal,
    capped_power_law,
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
from optsched.schedules.families.derived import with_warmup
from optsched.schedules.families.family import Family, Parameter
from optsched.schedules.families.pieces import check
from optsched.schedules.families.steps import multi_step, step
from optsched.schedules.schedule import Sampling, Schedule

__all__ = ["FAMILIES", "find_family", "named_families"]


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
    horizon: int, peak: float, *, chi: float = 0.5, sampling: Sampling = "left"
) -> Schedule:
    """Power law whose first rate is the peak; the exponent of the horizon is then idle.

    Steps are counted from one: an average over the first step would cost the rest 1/(1 - chi).
    """
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
        "capped_power": (
            capped_power_law,
            (
                Parameter("hold", 1e-4, 1.0, 0.1, log=True),
                Parameter("chi", 0.1, 30.0, 0.5, log=True),
            ),
        ),
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
