"""The names meant for others; a module is imported when a name of it is used."""

from .bound import (
    ConvexBound as ConvexBound,
    best_schedule as best_schedule,
    bound_along as bound_along,
    convex_bound as convex_bound,
    least_bound as least_bound,
)
from .horizons import (
    Extension as Extension,
    cooldown_scale as cooldown_scale,
    extend_wsd as extend_wsd,
    two_stages as two_stages,
)
