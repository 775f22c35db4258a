"""The names meant for others; a module is imported when a name of it is used."""

from .capacity import Capacity as Capacity, loss_weight as loss_weight
from .files import load as load, save as save
from .schedules import (
    NoiseSchedule as NoiseSchedule,
    cosine as cosine,
    edm as edm,
    from_alpha_bar as from_alpha_bar,
    from_sigmas as from_sigmas,
    linear as linear,
)
