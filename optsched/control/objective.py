"""Value, gradient and costates of the final loss on a mesh: compiled once for every shape."""

from __future__ import annotations


from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from optsched.control.mesh import StepMesh
from optsched.model.dynamics import BlockMaps, Dynamics, Mesh
from optsched.model.propagate import Path, advance, propagate
from optsched.model.spectrum import Modes

__all__ = ["Audit", "Objective", "pad_modes"]

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


class Audit(NamedTuple):
    """Trajectory of a solution on its mesh, without padding.

    ``states`` and ``costates`` have shape (n + 1, J, d), ``excess`` (n + 1,); ``errors`` (n,) is
    what halving each block alone would add to log E.
    """

    states: NDArray[np.float64]
    costates: NDArray[np.float64]
    excess: NDArray[np.float64]
    errors: NDArray[np.float64]


@jax.jit
def _audit(log_eta: Array, dynamics: Dynamics, modes: Modes, mesh: Mesh) -> Audit:
    eta = jnp.exp(log_eta)
    readout = dynamics.readout(modes)
    shape = (mesh.count.shape[0], *dynamics.initial(modes).shape)

    def excess(kicks: Array) -> tuple[Array, Path]:
        path = propagate(dynamics, modes, mesh, {"eta": eta}, kicks=kicks)
        return path.excess[-1], path

    costates, path = jax.grad(excess, has_aux=True)(jnp.zeros(shape))
    costates = jnp.concatenate([costates, readout[None]])
    # Every block once more as two halves, from the same state.
    first = jnp.floor(mesh.count / 2.0)
    counts = jnp.stack([first, mesh.count - first], 1)
    starts = jnp.stack([mesh.start, mesh.start + first], 1)
    share = first / jnp.maximum(mesh.count, 1.0)
    middle = eta[:-1] + (eta[1:] - eta[:-1]) * share
    knots = jnp.append(jnp.stack([eta[:-1], middle], 1).ravel(), eta[-1])
    fine = {"eta": knots}
    maps = dynamics.blocks(modes, Mesh(starts.ravel(), counts.ravel()), fine, fine)
    pairs = jax.tree.map(lambda leaf: leaf.reshape(-1, 2, *leaf.shape[1:]), maps)

    def halves(x: Array, pair: BlockMaps) -> Array:
        for i in range(2):
            x = advance(x, BlockMaps(*(leaf[i] for leaf in pair)), readout, dynamics.sigma2)
        return x

    change = jax.vmap(halves)(path.states[:-1], pairs) - path.states[1:]
    errors = (change * costates[1:]).sum((-1, -2)) / path.excess[-1]
    return Audit(path.states, costates, path.excess, errors)


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

    def audit(self, log_free: NDArray[np.float64]) -> Audit:
        """States, costates, excess losses and block errors at the given controls."""
        with jax.enable_x64(True):
            full = _audit(self._knots(log_free), self.dynamics, self.modes, self.blocks)
            n = len(self.mesh.steps)
            real = np.append(np.arange(n), self.mesh.padded)
            states, costates, excess = (np.asarray(part)[real] for part in full[:3])
            return Audit(states, costates, excess, np.asarray(full.errors)[:n])
