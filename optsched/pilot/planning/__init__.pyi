"""The names meant for others; a module is imported when a name of it is used."""

from .optimal import Plan as Plan, plan as plan
from .peaks import PeakChoice as PeakChoice
from .rivals import RIVALS as RIVALS
from .simple import Shape as Shape
