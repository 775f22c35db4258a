"""The names meant for others; a module is imported when a name of it is used."""

from .dynamics import BlockMaps as BlockMaps, Dynamics as Dynamics
from .moments import LinearOptimiser as LinearOptimiser
from .montecarlo import MonteCarlo as MonteCarlo, monte_carlo as monte_carlo
from .ode import ode_excess_loss as ode_excess_loss
from .replay import Replay as Replay
from .spectrum import (
    PowerLawSpectrum as PowerLawSpectrum,
    Spectrum as Spectrum,
    TabulatedSpectrum as TabulatedSpectrum,
)
from .stability import (
    momentum_limit as momentum_limit,
    noise_limit as noise_limit,
    stability_limit as stability_limit,
)
