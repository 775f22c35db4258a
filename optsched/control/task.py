"""What a solver is: a method object that improves the controls of one mesh."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from optsched.control.goal import Goal
from optsched.control.mesh import StepMesh
from optsched.control.problem import Problem

__all__ = ["Iterate", "Method", "Task"]


@dataclass(frozen=True)
class Task:
    """One optimisation on one mesh.

    Attributes
    ----------
    problem : Problem
    mesh : StepMesh
    objective : Goal
        log E(T), its gradient and its metric, as a function of the log rates of the free controls.
    start : numpy.ndarray, shape (n,)
        Log rates of the free controls to start from.
    lower, upper : numpy.ndarray, shape (n,)
        Bounds of the log rates; ``-inf`` where there is none.
    tol : float
        Wanted KKT residual: largest entry of the projected gradient of log E in log eta.
    """

    problem: Problem
    mesh: StepMesh
    objective: Goal
    start: NDArray[np.float64]
    lower: NDArray[np.float64]
    upper: NDArray[np.float64]
    tol: float


@dataclass(frozen=True)
class Iterate:
    """Where a method stopped.

    Attributes
    ----------
    log_eta : numpy.ndarray, shape (n,)
        Log rates of the free controls.
    converged : bool
        Whether the method's own criterion was met.
    message : str
        Why it stopped.
    history : list of (float, float)
        Value of log E and KKT residual of every iterate, as far as the method knows them.
    stats : dict
        Numbers of the method (evaluations, iterations, its own estimate of the loss, ...).
    """

    log_eta: NDArray[np.float64]
    converged: bool
    message: str
    history: list[tuple[float, float]] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)


class Method(abc.ABC):
    """A way to solve the optimal-control problem on a mesh."""

    name: ClassVar[str]
    # Whether the method honours a bound on the rate of change.
    bounds_change: ClassVar[bool] = False
    # Whether it can improve the nodes of several controls.
    joint: ClassVar[bool] = False
    # Number of knots to start with; refinement adds more where the error asks for it.
    knots: int

    @abc.abstractmethod
    def run(self, task: Task) -> Iterate:
        """Improve ``task.start``; never raises for want of convergence."""
