"""The names meant for others; a module is imported when a name of it is used."""

from .compute import (
    ComputeOptimal as ComputeOptimal,
    DataLimit as DataLimit,
    IsoFlop as IsoFlop,
    compute_optimal as compute_optimal,
    compute_theory as compute_theory,
    data_limit as data_limit,
    iso_flop as iso_flop,
)
from .figures import reproduce as reproduce
from .phases import PhaseDiagram as PhaseDiagram, phase_diagram as phase_diagram
from .scaling import Scaling as Scaling, scaling_theory as scaling_theory
from .verify import Verification as Verification
