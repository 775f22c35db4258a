"""What an optimiser varies, and the controls at the knots of a mesh that follow from it."""

from __future__ import annotations

import abc

import numpy as np

from optsched.arrays import Floats
from optsched.control.mesh import StepMesh

__all__ = ["FreeRates", "Variables"]

Table = dict[str, Floats]


class Variables(abc.ABC):
    """A vector of free variables and the smooth map from it to the controls at the knots.

    Knots are those of the mesh, padded to one shape: n + 1 values, of which the last belongs to
    the end of the last block.
    """

    @abc.abstractmethod
    def knots(self, x: Floats) -> Table:
        """Value of every control at every padded knot."""

    @abc.abstractmethod
    def pull(self, x: Floats, gradient: Table, diagonal: bool = False) -> Floats:
        """Derivative in x of a function with these derivatives in the controls at the knots.

        With ``diagonal``, a positive estimate of the curvature instead: what the knots
        contribute in absolute value, without constraints that tie variables together.
        """

    def roughness(self, x: Floats) -> tuple[float, Floats, Floats]:
        """Half the sum of squared second differences, its gradient and diagonal; 0 by default."""
        return 0.0, np.zeros_like(x), np.zeros_like(x)


class FreeRates(Variables):
    """The learning rate alone: its logarithm at every free knot of a mesh.

    Parameters
    ----------
    mesh : StepMesh
    """

    def __init__(self, mesh: StepMesh) -> None:
        pad = mesh.padded - len(mesh.steps) + 1
        # The last block is one step long and padding none: their end values do not matter.
        self._source = np.append(mesh.source, np.full(pad, mesh.source[-1]))
        self._scale = np.append(mesh.scale, np.full(pad, mesh.scale[-1]))
        self._size = mesh.controls

    def knots(self, x: Floats) -> Table:
        return {"eta": self._scale * np.exp(x)[self._source]}

    def pull(self, x: Floats, gradient: Table, diagonal: bool = False) -> Floats:
        log_gradient = gradient["eta"] * self.knots(x)["eta"]
        total = np.bincount(self._source, log_gradient, self._size).astype(float)
        return np.abs(total) if diagonal else total
