"""Laws of the loss in the schedule, as interchangeable objects."""

from optsched.pilot.laws.kernel import KernelLaw, features, fsl, momentum
from optsched.pilot.laws.law import Final, Law, Prior
from optsched.pilot.laws.multipower import MultiPower, multi_power
from optsched.pilot.laws.norm import NormLaw, fsl_norm
from optsched.pilot.laws.registry import DEFAULT, LAWS, made_law

__all__ = [
    "DEFAULT",
    "LAWS",
    "Final",
    "KernelLaw",
    "Law",
    "MultiPower",
    "NormLaw",
    "Prior",
    "features",
    "fsl",
    "fsl_norm",
    "made_law",
    "momentum",
    "multi_power",
]
