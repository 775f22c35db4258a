"""The names meant for others; a module is imported when a name of it is used."""

from .equilibrium import (
    decay_time as decay_time,
    equilibrium_square as equilibrium_square,
    relative_update as relative_update,
)
from .invariance import Invariance as Invariance, measure_invariance as measure_invariance
from .salient import (
    SalientDirection as SalientDirection,
    SweepPoint as SweepPoint,
    salient_direction as salient_direction,
)
from .sweep_runs import SweepRun as SweepRun, read_sweep as read_sweep
