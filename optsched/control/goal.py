"""What methods ask of an objective: value, gradient, metric, and an audit of its mesh."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from optsched.arrays import Floats
from optsched.control.variables import Variables
from optsched.model.dynamics import Dynamics
from optsched.model.spectrum import Modes

__all__ = ["Audit", "Goal"]


class Audit(NamedTuple):
    """Trajectory of a solution on its mesh, without padding.

    ``states`` and ``costates`` have shape (n + 1, J, d), ``excess`` (n + 1,); ``errors`` (n,) is
    what halving each block alone would add to the log of ``value``, the objective.
    """

    states: Floats
    costates: Floats
    excess: Floats
    errors: Floats
    value: float


class Goal(Protocol):
    """The log of the objective as a function of the free variables of a mesh."""

    dynamics: Dynamics
    modes: Modes
    evaluations: int

    @property
    def variables(self) -> Variables:
        """What is varied."""
        ...

    def controls(self, x: Floats) -> dict[str, Floats]:
        """Controls at the knots of the mesh."""
        ...

    def __call__(self, x: Floats) -> tuple[float, Floats, Floats]:
        """Value, gradient and metric."""
        ...

    def audit(self, x: Floats) -> Audit:
        """States, costates, excess losses and block errors."""
        ...
