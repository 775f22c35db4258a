"""Schedules that people use, as `Schedule` objects, and families of them for tuning.

Functions of a horizon and a peak (`cosine`, `wsd`, `one_cycle`, ...), others that change a schedule
(`with_warmup`, `refined`, `rewind`), and `FAMILIES`, what studies tune: see `Family` for one's own.
"""

from optsched.schedules.families.cycles import cosine_restarts, cyclical, one_cycle
from optsched.schedules.families.decays import (
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
    Averaging,
    averaging,
    refined,
    rewind,
    schedule_free,
    with_warmup,
)
from optsched.schedules.families.registry import (
    FAMILIES,
    Family,
    Parameter,
    find_family,
    named_families,
)
from optsched.schedules.families.steps import multi_step, step

__all__ = [
    "FAMILIES",
    "Averaging",
    "Family",
    "Parameter",
    "averaging",
    "constant",
    "cosine",
    "cosine_restarts",
    "cyclical",
    "exponential",
    "find_family",
    "inverse_sqrt",
    "inverse_time",
    "linear",
    "multi_step",
    "named_families",
    "one_cycle",
    "polynomial",
    "power_law",
    "refined",
    "rewind",
    "schedule_free",
    "step",
    "with_warmup",
    "wsd",
]
