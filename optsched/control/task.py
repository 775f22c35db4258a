"""What a solver is: a method object that improves the variables of one mesh."""

from __future__ import annotations

import abc
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from optsched.arrays import Floats
from optsched.control.goal import Goal
from optsched.control.mesh import StepMesh
from optsched.control.problem import Problem
from optsched.errors import BadPart

__all__ = ["Iterate", "Method", "Task", "run_method"]

OUTSIDE = 1e-9  # of a log variable: beyond a bound by rounding


@dataclass(frozen=True, eq=False)
class Task:
    """One optimisation on one mesh.

    Attributes
    ----------
    problem : Problem
    mesh : StepMesh
    objective : Goal
        Called with x, of shape (n,), it gives the value of log E(T), its gradient, and its
        metric: positive estimates of the diagonal curvature.
    start : numpy.ndarray, shape (n,)
        Variables to start from: log rates of the free knots, or where there are other controls
        the coordinates of their nodes (`optsched.optimisers.coordinates`).
    lower, upper : numpy.ndarray, shape (n,)
        Bounds of the variables; ``-inf`` where there is none.
    tol : float
        Wanted KKT residual: largest entry of the projected gradient.
    max_iterations : int, optional
        So many iterations are enough here, whatever the method allows itself.
    """

    problem: Problem
    mesh: StepMesh
    objective: Goal
    start: Floats
    lower: Floats
    upper: Floats
    tol: float
    max_iterations: int | None = None

    def iterations(self, allowed: int) -> int:
        """Number of iterations, of those that a method allows itself."""
        return allowed if self.max_iterations is None else min(allowed, self.max_iterations)


@dataclass(frozen=True, eq=False)
class Iterate:
    """Where a method stopped.

    Attributes
    ----------
    x : numpy.ndarray, shape (n,)
        The variables, as in `Task`.
    converged : bool
        Whether the method's own criterion was met.
    message : str
        Why it stopped.
    history : list of (float, float)
        Value of log E and KKT residual of every iterate, as far as the method knows them.
    stats : dict
        Numbers of the method (evaluations, iterations, its own estimate of the loss, ...).
    """

    x: Floats
    converged: bool
    message: str
    history: list[tuple[float, float]] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)


class Method(abc.ABC):
    """A way to solve the optimal-control problem on a mesh.

    To add one, write a subclass with a `name`, a number of `knots` to start with, and `run`.
    Whatever it returns is checked, replayed and certified; where its KKT residual is above the
    tolerance, the library's own method goes on from there, and the result says so.

    Attributes
    ----------
    name : str
    bounds_change : bool
        Whether it honours a bound on the rate of change, ``task.problem.max_change``.
    joint : bool
        Whether it can improve the nodes of other controls than the rate of plain SGD.
    knots : int
        Number of knots of the first mesh; refinement adds more where the error asks for it.
    """

    name: ClassVar[str]
    bounds_change: ClassVar[bool] = False
    joint: ClassVar[bool] = False
    knots: int

    @abc.abstractmethod
    def run(self, task: Task) -> Iterate:
        """Improve ``task.start``; never raises for want of convergence."""

    def coupled(self) -> Method:
        """The same, tuned for the nodes of several controls, which are coupled."""
        return self


def run_method(method: Method, task: Task) -> Iterate:
    """Run a method, and refuse what is no iterate of the task.

    Raises
    ------
    BadPart
    """
    part, found = f"method {method.name}", method.run(task)
    if not isinstance(found, Iterate):
        raise BadPart(part, "run(task) must return an Iterate", f"got {type(found).__name__}")
    try:
        x = np.asarray(found.x, float)
    except (TypeError, ValueError):
        x = np.asarray(np.nan)
    rule = f"x of its Iterate must be finite, of shape {task.start.shape}"
    if x.shape != task.start.shape:
        raise BadPart(part, rule, f"got shape {x.shape}")
    if not np.isfinite(x).all():
        raise BadPart(part, rule, "got NaN or infinity")
    inside = np.clip(x, task.lower, task.upper)
    if np.abs(x - inside).max(initial=0.0) > OUTSIDE:
        rule = "x of its Iterate must be within task.lower and task.upper"
        raise BadPart(part, rule, f"off by {np.abs(x - inside).max():.1e}")
    return replace(found, x=inside)
