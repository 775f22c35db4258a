"""The names meant for others; a module is imported when a name of it is used."""

from .convex import (
    ConvexComparison as ConvexComparison,
    compare_convex as compare_convex,
    tune_convex as tune_convex,
)
from .families import Comparison as Comparison, compare as compare
from .tuning import Tuned as Tuned, tune as tune
