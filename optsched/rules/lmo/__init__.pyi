"""The names meant for others; a module is imported when a name of it is used."""

from .bound import Exponents as Exponents, LMOBound as LMOBound
from .transfer import Transfer as Transfer
from .tuned import Tuning as Tuning, closed_form as closed_form, minimise as minimise
from .valley import Valley as Valley, fitted_exponents as fitted_exponents
