"""The names meant for others; a module is imported when a name of it is used."""

from .cycles import cosine_restarts as cosine_restarts, cyclical as cyclical, one_cycle as one_cycle
from .decays import (
    constant as constant,
    cosine as cosine,
    exponential as exponential,
    inverse_sqrt as inverse_sqrt,
    inverse_time as inverse_time,
    linear as linear,
    polynomial as polynomial,
    capped_power_law as capped_power_law,
    power_law as power_law,
    wsd as wsd,
)
from .derived import (
    Averaging as Averaging,
    averaging as averaging,
    refined as refined,
    rewind as rewind,
    schedule_free as schedule_free,
    with_warmup as with_warmup,
)
from .registry import (
    FAMILIES as FAMILIES,
    find_family as find_family,
    named_families as named_families,
)
from .family import Family as Family, Parameter as Parameter
from .steps import multi_step as multi_step, step as step
