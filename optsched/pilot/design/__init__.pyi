"""The names meant for others; a module is imported when a name of it is used."""

from .runs import Candidate as Candidate, candidates as candidates
from .choose import Design as Design, design as design
