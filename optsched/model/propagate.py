r"""Propagation of any `Dynamics` over blocks of steps.

Within a block the loss is a quadratic through its start, middle and end. The two unknown values
solve a 2 x 2 linear system, so that a block costs the same whatever its number of steps, and
blocks of one step are the exact recursion.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from optsched.model.dynamics import BlockMaps, Blocks, Dynamics
from optsched.model.spectrum import Modes

__all__ = [
    "BUNDLE",
    "Path",
    "advance",
    "apply",
    "block_maps",
    "chain",
    "in_bundles",
    "padded",
    "run_chain",
]

BUNDLE = 64  # blocks of a compiled call; padded numbers of blocks are multiples of it


class Path(NamedTuple):
    """Result of `chain`: final state, states (n + 1, J, d) at knots, excess loss (n + 1,)."""

    final: Array
    states: Array
    excess: Array


def apply(phi: Array, x: Array) -> Array:
    """Per-mode product (J, d, d) x (J, d)."""
    return (phi * x[:, None, :]).sum(-1)


def advance(x: Array, maps: BlockMaps, dynamics: Dynamics, modes: Modes) -> Array:
    """State after one block: solve for the loss at its middle and end, then apply the maps.

    NaN where the two unknown values feed on themselves by more than the dynamics' ``max_gain``:
    the update is unstable there, or the block too coarse. Single steps know all they need.
    """
    feedback, sigma2 = dynamics.feedback(modes), dynamics.sigma2
    start = sigma2 + (feedback * x).sum()
    moved = apply(maps.phi, x)
    # What a unit loss at each node adds to the excess at the middle and at the end of the block.
    gh = (maps.half_w * feedback).sum((-1, -2))
    ge = (maps.w * feedback).sum((-1, -2))
    rhs_half = sigma2 + (feedback * apply(maps.half_phi, x)).sum() + gh[0] * start
    rhs_end = sigma2 + (feedback * moved).sum() + ge[0] * start
    a, b, c, d = 1.0 - gh[1], -gh[2], -ge[1], 1.0 - ge[2]
    det = a * d - b * c
    unknown = jnp.maximum(gh[1:].sum(), ge[1:].sum())
    det = jnp.where(unknown < dynamics.max_gain, det, jnp.nan)
    mid = (d * rhs_half - b * rhs_end) / det
    end = (a * rhs_end - c * rhs_half) / det
    return moved + maps.w[0] * start + maps.w[1] * mid + maps.w[2] * end


def chain(
    dynamics: Dynamics,
    modes: Modes,
    maps: BlockMaps,
    kicks: Array | None = None,
    start: Array | None = None,
) -> Path:
    """Propagate a state through a chain of blocks.

    Parameters
    ----------
    dynamics : Dynamics
    modes : Modes
    maps : BlockMaps
        Of n blocks, from ``dynamics.blocks``.
    kicks : Array, shape (n, J, d), optional
        Added to the state at the start of every block: the derivative with respect to kick i is
        the costate at knot i.
    start : Array, shape (J, d), optional
        State before the first block, the initial one if not given.

    Returns
    -------
    Path
    """
    readout = dynamics.readout(modes)

    def block(x: Array, data: tuple[BlockMaps, Array | None]) -> tuple[Array, Path]:
        one, kick = data
        if kick is not None:
            x = x + kick
        after = advance(x, one, dynamics, modes)
        return after, Path(after, x, (readout * x).sum())

    start = dynamics.initial(modes) if start is None else start
    final, trail = jax.lax.scan(block, start, (maps, kicks))
    states = jnp.concatenate([trail.states, final[None]])
    excess = jnp.concatenate([trail.excess, (readout * final).sum()[None]])
    return Path(final, states, excess)


@jax.jit
def block_maps(dynamics: Dynamics, modes: Modes, blocks: Blocks) -> BlockMaps:
    """Maps of all blocks, compiled."""
    return dynamics.blocks(modes, blocks, blocks)


def padded(blocks: int) -> int:
    """Number of blocks of whole bundles that so many blocks need."""
    return BUNDLE * -(-blocks // BUNDLE)


def in_bundles(call: Callable[..., Any], *parts: Any) -> Any:
    """A call on arrays of blocks, `BUNDLE` of them at a time: meshes of all sizes share its code.

    ``parts`` and the result are pytrees of arrays whose first axis is that of the blocks.
    """
    count = len(jax.tree.leaves(parts)[0])
    if count <= BUNDLE:
        return call(*parts)
    parts = jax.tree.map(np.asarray, parts)  # views, whose slices are views
    done = [
        call(*jax.tree.map(lambda leaf, i=i: leaf[i : i + BUNDLE], parts))
        for i in range(0, count, BUNDLE)
    ]
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *done)


@jax.jit
def run_chain(
    dynamics: Dynamics, modes: Modes, maps: BlockMaps, start: Array | None = None
) -> tuple[Array, Array]:
    """Final state and excess losses (n + 1,) at the knots, compiled."""
    path = chain(dynamics, modes, maps, start=start)
    return path.final, path.excess
