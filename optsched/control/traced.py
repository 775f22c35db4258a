"""Value, gradient and costates of the final loss on a mesh.

Three compiled pieces, shared by every mesh, method and replay of the same shape: the maps of all
blocks, the chain of blocks with its adjoint, and the pull-back of the adjoint to the controls.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from optsched.arrays import Floats
from optsched.control.goal import Audit
from optsched.control.mesh import StepMesh
from optsched.control.variables import FreeRates, Variables
from optsched.model.dynamics import BlockMaps, Blocks, Dynamics, knot_blocks, timed
from optsched.model.propagate import Path, advance, block_maps, chain, in_bundles
from optsched.model.spectrum import Modes
from optsched.numerics import jax_settings
from optsched.objectives import KnotSum, Terms

__all__ = ["TracedObjective"]


@jax.jit
def _adjoint(
    dynamics: Dynamics, modes: Modes, maps: BlockMaps, weights: Array | None
) -> tuple[Array, BlockMaps, Array, Path]:
    """Log of the objective, its derivative in the maps, costates at the knots, and the path.

    Weights (n + 1,) are those of the excess losses at the knots; none: the last one is all.
    """
    shape = (maps.phi.shape[0], *dynamics.initial(modes).shape)

    def log_excess(maps: BlockMaps, kicks: Array) -> tuple[Array, Path]:
        path = chain(dynamics, modes, maps, kicks)
        found = path.excess[-1] if weights is None else (weights * path.excess).sum()
        return jnp.log(found), path

    (value, path), (cotangent, kicks) = jax.value_and_grad(
        log_excess, argnums=(0, 1), has_aux=True
    )(maps, jnp.zeros(shape))
    last = dynamics.readout(modes)[None]
    last = last if weights is None else weights[-1] * last
    costates = jnp.concatenate([kicks * jnp.exp(value), last])
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


class TracedObjective:
    r"""The log of the objective as a function of the free variables of a mesh.

    Parameters
    ----------
    dynamics : Dynamics
    modes : Modes
    mesh : StepMesh
    variables : Variables, optional
        Log rates at the free knots if not given.
    smoothing : float
        Weight of the roughness of the variables, which is added.
    terms : Terms, optional
        Of the objective; the final excess loss if not given.
    """

    def __init__(
        self,
        dynamics: Dynamics,
        modes: Modes,
        mesh: StepMesh,
        variables: Variables | None = None,
        smoothing: float = 0.0,
        terms: Terms | None = None,
    ) -> None:
        self.mesh = mesh
        self.variables = FreeRates(mesh) if variables is None else variables
        self.smoothing = smoothing
        self.modes = modes.padded()
        n, pad = len(mesh.steps), mesh.padded - len(mesh.steps)
        self._edges = np.append(mesh.steps, np.full(pad + 1, mesh.horizon)).astype(float)
        length = np.diff(self._edges)
        self.dynamics = dynamics.for_blocks(length)
        with jax_settings():
            self._modes = Modes(*(jnp.asarray(column) for column in self.modes))  # type: ignore[arg-type]
            self._length = jnp.asarray(length)
        self.evaluations = 0
        self._last: tuple[Floats, tuple[float, Floats, Floats]] | None = None
        self._real = np.append(np.arange(n), mesh.padded)
        self._sum = None
        if terms is not None and not terms.final:
            self._sum = KnotSum(terms, np.append(mesh.steps, mesh.horizon))
        self._weights: Floats | None = None
        if self._sum is not None:
            self._weights = np.zeros(mesh.padded + 1)
            self._weights[self._real] = self._sum.weights

    def controls(self, x: Floats) -> dict[str, Floats]:
        """Controls at the knots of the mesh."""
        return {name: v[: len(self.mesh.steps)] for name, v in self.variables.knots(x).items()}

    def _blocks(self, x: Floats) -> Blocks:
        knots = timed(self.dynamics, self.variables.knots(x), self._edges)
        return knot_blocks(self._length, knots)  # type: ignore[arg-type]

    def _maps(self, blocks: Blocks) -> BlockMaps:
        return in_bundles(partial(block_maps, self.dynamics, self._modes), blocks)

    def _at_knots(self, gradient: Blocks) -> dict[str, Floats]:
        """Derivatives at the knots from those at both ends of the blocks."""
        total = {}
        for name, first in gradient.first.items():
            total[name] = np.append(np.asarray(first), 0.0)
            total[name][1:] += np.asarray(gradient.last[name])
        return total

    def __call__(self, x: Floats) -> tuple[float, Floats, Floats]:
        """Value, gradient and metric of log E.

        The metric is what the controls contribute as drift or as diffusion, whichever is more:
        where the two balance, at an optimum, it is the diagonal curvature in a log control.
        """
        if self._last is not None and np.array_equal(self._last[0], x):
            return self._last[1]
        self.evaluations += 1
        blocks = self._blocks(x)
        with jax_settings():
            maps = self._maps(blocks)
            value, cotangent, _, _ = _adjoint(self.dynamics, self._modes, maps, self._weights)
            pull_back = partial(_pull_back, self.dynamics, self._modes)
            parts = in_bundles(pull_back, blocks, cotangent)
            drift, noise = (self._at_knots(part) for part in parts)
        total = {name: drift[name] + noise[name] for name in drift}
        gradient = self.variables.pull(x, total)
        metric = self.variables.pull(x, drift, diagonal=True)
        if not isinstance(self.variables, FreeRates):
            metric = np.maximum(metric, self.variables.pull(x, noise, diagonal=True))
        value = float(value)
        if self.smoothing:
            roughness, slope, bend = self.variables.roughness(x)
            value += self.smoothing * roughness
            gradient = gradient + self.smoothing * slope
            metric = metric + self.smoothing * bend
        self._last = x.copy(), (value, gradient, metric)
        return self._last[1]

    def audit(self, x: Floats) -> Audit:
        """States, costates, excess losses and block errors at the given variables."""
        blocks = self._blocks(x)
        count = np.asarray(blocks.length)
        with jax_settings():
            maps = self._maps(blocks)
            _, _, costates, path = _adjoint(self.dynamics, self._modes, maps, self._weights)
            # Every block once more as two halves, from the same state.
            half = np.floor(count / 2.0)
            share = half / np.maximum(count, 1.0)
            middle = {n: v + (blocks.last[n] - v) * share for n, v in blocks.first.items()}
            halved, inside = np.asarray(path.states)[:-1], None
            for part in (
                Blocks(jnp.asarray(half), blocks.first, middle),
                Blocks(jnp.asarray(count - half), middle, blocks.last),
            ):
                maps = self._maps(part)
                halved = _advance_all(self.dynamics, self._modes, halved, maps)
                inside = np.asarray(halved) if inside is None else inside
            change = np.asarray(halved) - np.asarray(path.states)[1:]
            p = np.asarray(costates)
            states, excess = np.asarray(path.states), np.asarray(path.excess)[self._real]
            n = len(self.mesh.steps)
            errors, value = (change * p[1:]).sum((-1, -2))[:n], float(excess[-1])
            if self._sum is not None and inside is not None:
                value = self._sum(excess)
                middles = (np.asarray(self.dynamics.readout(self._modes)) * inside).sum((-1, -2))
                errors = errors + self._sum.errors(excess, middles[:n])
        return Audit(states[self._real], p[self._real], excess, errors / value, value)
