"""The names meant for others; a module is imported when a name of it is used."""

from .fitting import Fit as Fit, fit as fit
from .heldout import HeldOut as HeldOut, held_out as held_out
from .lawfile import load_fit as load_fit, save_fit as save_fit
from .laws.law import Law as Law, Prior as Prior
from .laws.registry import LAWS as LAWS
from .planning.optimal import Plan as Plan, plan as plan
from .planning.rivals import rivals as rivals
from .prediction import (
    Prediction as Prediction,
    Ranking as Ranking,
    compare as compare,
    predict as predict,
)
from .tracking.track import Track as Track, track as track
