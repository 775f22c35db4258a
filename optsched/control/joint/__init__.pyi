"""The names meant for others; a module is imported when a name of it is used."""

from .hessian import lowest_curvature as lowest_curvature
from .search import (
    control_nodes as control_nodes,
    from_plain as from_plain,
    optimise_joint as optimise_joint,
    stretched as stretched,
)
from .starts import named_starts as named_starts
