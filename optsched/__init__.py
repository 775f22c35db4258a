"""optsched: the learning-rate schedule for a training horizon, solved and certified."""

from importlib.metadata import PackageNotFoundError, version

from optsched.control.budget import Budget, BudgetSolution, solve_budget
from optsched.control.certificate import Certificate
from optsched.control.methods.collocation import Collocation
from optsched.control.methods.pontryagin import Pontryagin
from optsched.control.methods.shooting import Shooting
from optsched.control.problem import Problem
from optsched.control.solution import Solution
from optsched.control.solve import solve
from optsched.control.task import Method
from optsched.errors import (
    BadFile,
    BadLog,
    InvalidProblem,
    MissingExtra,
    OptschedError,
    SolveFailed,
)
from optsched.model.replay import Replay, replay
from optsched.model.spectrum import PowerLawSpectrum, Spectrum, TabulatedSpectrum
from optsched.model.stability import momentum_limit, noise_limit, stability_limit
from optsched.schedules.schedule import Schedule

try:
    __version__ = version("optsched")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0"

__all__ = [
    "BadFile",
    "BadLog",
    "Budget",
    "BudgetSolution",
    "Certificate",
    "Collocation",
    "InvalidProblem",
    "Method",
    "MissingExtra",
    "OptschedError",
    "Pontryagin",
    "PowerLawSpectrum",
    "Problem",
    "Replay",
    "Schedule",
    "Shooting",
    "Solution",
    "SolveFailed",
    "Spectrum",
    "TabulatedSpectrum",
    "momentum_limit",
    "noise_limit",
    "replay",
    "solve",
    "solve_budget",
    "stability_limit",
]
