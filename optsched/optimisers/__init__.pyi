"""The names meant for others; a module is imported when a name of it is used."""

from .base import Limit as Limit, Optimiser as Optimiser, Setting as Setting
from .coordinates import Chart as Chart
from .momentum import QHM as QHM, SGD as SGD, HeavyBall as HeavyBall, Nesterov as Nesterov
from .schedule_free import ScheduleFree as ScheduleFree
from .registry import OPTIMISERS as OPTIMISERS, find_optimiser as find_optimiser
