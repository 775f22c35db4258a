"""optsched: the learning-rate schedule for a training horizon, solved and certified.

The names below are imported when they are first used, so that ``import optsched`` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

    __version__: str

# Where each public name lives; the imports above say the same to type checkers.
_HOMES = {
    "control.budget": ("Budget", "BudgetSolution", "solve_budget"),
    "control.certificate": ("Certificate",),
    "control.methods.collocation": ("Collocation",),
    "control.methods.pontryagin": ("Pontryagin",),
    "control.methods.shooting": ("Shooting",),
    "control.problem": ("Problem",),
    "control.solution": ("Solution",),
    "control.solve": ("solve",),
    "control.task": ("Method",),
    "errors": (
        "BadFile",
        "BadLog",
        "InvalidProblem",
        "MissingExtra",
        "OptschedError",
        "SolveFailed",
    ),
    "model.replay": ("Replay", "replay"),
    "model.spectrum": ("PowerLawSpectrum", "Spectrum", "TabulatedSpectrum"),
    "model.stability": ("momentum_limit", "noise_limit", "stability_limit"),
    "schedules.schedule": ("Schedule",),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

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


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from optsched.version import installed

        value: Any = installed()
    elif name in _HOME:
        value = getattr(import_module(f"optsched.{_HOME[name]}"), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
