r"""The default method: descent in the metric of the maximum principle.

Pontryagin's condition for plain SGD balances what a rate drifts against what it diffuses. With
:math:`J_d` and :math:`J_s` the derivatives of :math:`\log E` in the logarithm of the rate as the
drift and as the diffusion terms see it, the optimum has :math:`J_d + J_s = 0`, and the classical
fixed point is :math:`\eta \leftarrow \eta\, (-J_d / J_s)`. To first order that is a gradient step
divided by :math:`|J_d|`, which is also the diagonal curvature at the optimum. Here the same step
is the first guess of an L-BFGS recursion, projected on the bounds, with a line search: it keeps
the speed of the fixed point and cannot cycle or stall.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from optsched.control.methods.descent import projected_descent
from optsched.control.task import Iterate, Method, Task

__all__ = ["Pontryagin"]

COUPLED_MEMORY = 80


@dataclass(frozen=True)
class Pontryagin(Method):
    """Fixed point of the maximum principle, accelerated and safeguarded.

    Parameters
    ----------
    knots : int
        Number of knots of the first mesh.
    max_iterations : int
        Iterations on one mesh.
    memory : int
        Curvature pairs kept.
    """

    knots: int = 60
    max_iterations: int = 500
    memory: int = 20

    joint: ClassVar[bool] = True
    name: ClassVar[str] = "pontryagin"

    def coupled(self) -> Pontryagin:
        # More of the curvature is worth its memory.
        return replace(self, memory=max(self.memory, COUPLED_MEMORY))

    def run(self, task: Task) -> Iterate:
        """Improve ``task.start`` until the KKT residual is below ``task.tol``."""
        result = projected_descent(
            task.objective,
            task.start,
            task.lower,
            task.upper,
            tol=task.tol,
            max_iterations=task.iterations(self.max_iterations),
            memory=self.memory,
        )
        message = (
            "KKT residual below the tolerance."
            if result.converged
            else f"KKT residual {result.residual:.1e} after {len(result.history)} iterations."
        )
        return Iterate(
            result.x, result.converged, message, result.history, {"iterations": len(result.history)}
        )
