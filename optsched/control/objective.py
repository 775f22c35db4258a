"""Value, gradient and costates of the final loss on a mesh: compiled once for every shape."""

from __future__ import annotations


import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from optsched.control.mesh import StepMesh
from optsched.model.dynamics import Dynamics, Mesh
from optsched.model.propagate import Path, propagate
from optsched.model.spectrum import Modes

__all__ = ["Objective", "pad_modes"]

MODE_BUCKET = 32


def pad_modes(modes: Modes) -> Modes:
    """Pad with massless modes, so that compiled code is shared between spectra."""
    pad = -len(modes.lam) % MODE_BUCKET
    return Modes(*(np.concatenate([column, np.zeros(pad)]) for column in modes))


def _log_excess(
    log_drift: Array, log_noise: Array, dynamics: Dynamics, modes: Modes, mesh: Mesh
) -> Array:
    drift = {"eta": jnp.exp(log_drift)}
    return jnp.log(propagate(dynamics, modes, mesh, drift, {"eta": jnp.exp(log_noise)}).excess[-1])


@jax.jit
def _value_and_parts(
    log_eta: Array, dynamics: Dynamics, modes: Modes, mesh: Mesh
) -> tuple[Array, tuple[Array, Array]]:
    return jax.value_and_grad(_log_excess, argnums=(0, 1))(
        log_eta, log_eta, dynamics, modes, mesh
    )


@jax.jit
def _path_and_costates(
    log_eta: Array, dynamics: Dynamics, modes: Modes, mesh: Mesh
) -> tuple[Path, Array]:
    eta = {"eta": jnp.exp(log_eta)}
    shape = (mesh.count.shape[0], *dynamics.initial(modes).shape)

    def excess(kicks: Array) -> tuple[Array, Path]:
        path = propagate(dynamics, modes, mesh, eta, kicks=kicks)
        return path.excess[-1], path

    costates, path = jax.grad(excess, has_aux=True)(jnp.zeros(shape))
    return path, costates


class Objective:
    r"""log E(T) as a function of the log rates of the free controls of a mesh.

    Parameters
    ----------
    dynamics : Dynamics
    modes : Modes
    mesh : StepMesh
    """

    def __init__(self, dynamics: Dynamics, modes: Modes, mesh: StepMesh) -> None:
        self.dynamics, self.mesh = dynamics, mesh
        self.modes = pad_modes(modes)
        self.blocks = mesh.blocks()
        self.evaluations = 0
        n = len(mesh.steps)
        # Knot n, after the last block, repeats the last rate: its block is one step long.
        self._source = np.append(mesh.source, np.full(mesh.padded + 1 - n, mesh.source[-1]))
        self._log_scale = np.log(np.append(mesh.scale, np.full(mesh.padded + 1 - n, mesh.scale[-1])))

    def _knots(self, log_free: NDArray[np.float64]) -> NDArray[np.float64]:
        return log_free[self._source] + self._log_scale

    def _gather(self, gradient: Array) -> NDArray[np.float64]:
        """Gradient with respect to the free controls from that with respect to knots."""
        return np.bincount(self._source, np.asarray(gradient), self.mesh.controls)

    def __call__(
        self, log_free: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
        """Value, gradient and metric (minus the drift part of the gradient) of log E."""
        self.evaluations += 1
        with jax.enable_x64(True):
            value, (drift, noise) = _value_and_parts(
                self._knots(log_free), self.dynamics, self.modes, self.blocks
            )
            drift, noise = self._gather(drift), self._gather(noise)
        return float(value), drift + noise, np.abs(drift)

    def path(self, log_free: NDArray[np.float64]) -> tuple[Path, NDArray[np.float64]]:
        """States and costates dE/dx at the knots, as NumPy arrays without padding."""
        with jax.enable_x64(True):
            path, costates = _path_and_costates(
                self._knots(log_free), self.dynamics, self.modes, self.blocks
            )
            n = len(self.mesh.steps)
            states, excess = np.asarray(path.states), np.asarray(path.excess)
            keep = np.append(np.arange(n), len(excess) - 1)
            return Path(states[-1], states[keep], excess[keep]), np.asarray(costates)[:n]  # type: ignore[arg-type]
