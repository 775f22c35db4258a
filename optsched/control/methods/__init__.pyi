"""The names meant for others; a module is imported when a name of it is used."""

from .collocation import Collocation as Collocation
from .pontryagin import Pontryagin as Pontryagin
from .shooting import Shooting as Shooting
