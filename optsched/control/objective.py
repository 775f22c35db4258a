"""Value, gradient and costates of the final loss on a mesh.

Three compiled pieces, shared by every mesh, method and replay of the same shape: the maps of all
blocks, the chain of blocks with its adjoint, and the pull-back of the adjoint to the controls.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from optsched.control.mesh import StepMesh
from optsched.model.dynamics import BlockMaps, Blocks, Dynamics
from optsched.model.propagate import Path, advance, block_maps, chain
from optsched.model.spectrum import Modes

__all__ = ["Audit", "Objective", "warm_up"]

Floats = NDArray[np.float64]


class Audit(NamedTuple):
    """Trajectory of a solution on its mesh, without padding.

    ``states`` and ``costates`` have shape (n + 1, J, d), ``excess`` (n + 1,); ``errors`` (n,) is
    what halving each block alone would add to log E.
    """

    states: Floats
    costates: Floats
    excess: Floats
    errors: Floats


@jax.jit
def _adjoint(
    dynamics: Dynamics, modes: Modes, maps: BlockMaps
) -> tuple[Array, BlockMaps, Array, Path]:
    """Log E, its derivative in the maps, the costates dE/dx at the knots, and the path."""
    shape = (maps.phi.shape[0], *dynamics.initial(modes).shape)

    def log_excess(maps: BlockMaps, kicks: Array) -> tuple[Array, Path]:
        path = chain(dynamics, modes, maps, kicks)
        return jnp.log(path.excess[-1]), path

    (value, path), (cotangent, kicks) = jax.value_and_grad(
        log_excess, argnums=(0, 1), has_aux=True
    )(maps, jnp.zeros(shape))
    costates = jnp.concatenate([kicks * jnp.exp(value), dynamics.readout(modes)[None]])
    return value, cotangent, costates, path


@jax.jit
def _pull_back(
    dynamics: Dynamics, modes: Modes, blocks: Blocks, cotangent: BlockMaps
) -> tuple[Blocks, Blocks]:
    """Derivatives in the controls as drift and as diffusion see them."""

    def maps(ends: tuple, noise_ends: tuple) -> BlockMaps:
        return dynamics.blocks(
            modes, Blocks(blocks.length, *ends), Blocks(blocks.length, *noise_ends)
        )

    ends = (blocks.first, blocks.last)
    drift, noise = jax.vjp(maps, ends, ends)[1](cotangent)
    return Blocks(blocks.length, *drift), Blocks(blocks.length, *noise)


@jax.jit
def _advance_all(dynamics: Dynamics, modes: Modes, states: Array, maps: BlockMaps) -> Array:
    """Every state advanced by the block of its own."""
    return jax.vmap(lambda x, one: advance(x, one, dynamics, modes))(states, maps)


def warm_up(dynamics: Dynamics, modes: Modes, blocks: int) -> None:
    """Compile the slowest piece for a shape, by one call on zeros; meant for a thread."""
    with jax.enable_x64(True):
        padded, zeros = modes.padded(), np.zeros(blocks)
        rates = {"eta": zeros}
        part = Blocks(zeros, rates, rates)  # type: ignore[arg-type]
        shapes = jax.eval_shape(block_maps, dynamics, padded, part)
        cotangent = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)
        _pull_back(dynamics, padded, part, cotangent)


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
        self.modes = modes.padded()
        with jax.enable_x64(True):
            self._modes = Modes(*(jnp.asarray(column) for column in self.modes))  # type: ignore[arg-type]
        self.evaluations = 0
        self._last: tuple[Floats, tuple[float, Floats, Floats]] | None = None
        n, pad = len(mesh.steps), mesh.padded - len(mesh.steps)
        ends = np.append(mesh.steps, np.full(pad + 1, mesh.horizon))
        with jax.enable_x64(True):
            self._length = jnp.asarray(np.diff(ends).astype(float))
        # The last block is one step long and padding none: their end values do not matter.
        self._source = np.append(mesh.source, np.full(pad + 1, mesh.source[-1]))
        self._scale = np.append(mesh.scale, np.full(pad + 1, mesh.scale[-1]))
        self._real = np.append(np.arange(n), mesh.padded)

    def _blocks(self, log_free: Floats) -> Blocks:
        eta = self._scale * np.exp(log_free)[self._source]
        return Blocks(self._length, {"eta": eta[:-1]}, {"eta": eta[1:]})  # type: ignore[arg-type]

    def _gather(self, gradient: Blocks, blocks: Blocks) -> Floats:
        """Derivative in the free log rates from that at the ends of the blocks."""
        first = np.asarray(gradient.first["eta"]) * blocks.first["eta"]
        last = np.asarray(gradient.last["eta"]) * blocks.last["eta"]
        size = self.mesh.controls
        total = np.bincount(self._source[:-1], first, size)
        return (total + np.bincount(self._source[1:], last, size)).astype(float)

    def __call__(self, log_free: Floats) -> tuple[float, Floats, Floats]:
        """Value, gradient and metric (minus the drift part of the gradient) of log E."""
        if self._last is not None and np.array_equal(self._last[0], log_free):
            return self._last[1]
        self.evaluations += 1
        blocks = self._blocks(log_free)
        with jax.enable_x64(True):
            maps = block_maps(self.dynamics, self._modes, blocks)
            value, cotangent, _, _ = _adjoint(self.dynamics, self._modes, maps)
            parts = _pull_back(self.dynamics, self._modes, blocks, cotangent)
            drift, noise = (self._gather(part, blocks) for part in parts)
        self._last = log_free.copy(), (float(value), drift + noise, np.abs(drift))
        return self._last[1]

    def audit(self, log_free: Floats) -> Audit:
        """States, costates, excess losses and block errors at the given controls."""
        blocks = self._blocks(log_free)
        count = np.asarray(blocks.length)
        eta0, eta1 = blocks.first["eta"], blocks.last["eta"]
        with jax.enable_x64(True):
            maps = block_maps(self.dynamics, self._modes, blocks)
            _, _, costates, path = _adjoint(self.dynamics, self._modes, maps)
            # Every block once more as two halves, from the same state.
            half = np.floor(count / 2.0)
            eta = eta0 + (eta1 - eta0) * half / np.maximum(count, 1.0)
            halved = np.asarray(path.states)[:-1]
            for steps, start, end in ((half, eta0, eta), (count - half, eta, eta1)):
                part = Blocks(steps, {"eta": start}, {"eta": end})  # type: ignore[arg-type]
                maps = block_maps(self.dynamics, self._modes, part)
                halved = _advance_all(self.dynamics, self._modes, halved, maps)
            change = np.asarray(halved) - np.asarray(path.states)[1:]
            p = np.asarray(costates)
            errors = (change * p[1:]).sum((-1, -2)) / float(path.excess[-1])
            states, excess = np.asarray(path.states), np.asarray(path.excess)
        n = len(self.mesh.steps)
        return Audit(states[self._real], p[self._real], excess[self._real], errors[:n])
