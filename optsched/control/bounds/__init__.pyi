"""The names meant for others; a module is imported when a name of it is used."""

from .certified import CertifiedBound as CertifiedBound, certified_bound as certified_bound
from .geodesic import Geodesic as Geodesic, relaxed_geodesic as relaxed_geodesic
