"""The names meant for others; a module is imported when a name of it is used."""

from .against_decay import (
    AveragingStudy as AveragingStudy,
    compare_averaging as compare_averaging,
    growing_window as growing_window,
)
from .decay_average import DecayAverage as DecayAverage, compare_decay as compare_decay
from .exponents import (
    AveragingExponents as AveragingExponents,
    averaging_exponents as averaging_exponents,
)
from .weight_decay import compare_weight_decay as compare_weight_decay
