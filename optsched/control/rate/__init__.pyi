"""The names meant for others; a module is imported when a name of it is used."""

from .constraints import beyond_words as beyond_words, violations as violations
from .plain import PlainObjective as PlainObjective
from .search import (
    RateOptima as RateOptima,
    optimise_rate as optimise_rate,
    rate_method as rate_method,
)
