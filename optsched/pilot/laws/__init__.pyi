"""The names meant for others; a module is imported when a name of it is used."""

from .kernel import KernelLaw as KernelLaw, features as features, fsl as fsl, momentum as momentum
from .law import Final as Final, Law as Law, Prior as Prior
from .multipower import MultiPower as MultiPower, multi_power as multi_power
from .norm import NormLaw as NormLaw, fsl_norm as fsl_norm
from .registry import DEFAULT as DEFAULT, LAWS as LAWS, made_law as made_law
