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

from optsched.arrays import Floats, Ints
from optsched.model import unrolled as entries
from optsched.model.dynamics import (
    BlockMaps,
    Blocks,
    Controls,
    Dynamics,
    SGDDynamics,
    knot_blocks,
    timed,
)
from optsched.model.grading import BUNDLE, Replayable, padded
from optsched.model.spectrum import Modes
from optsched.model.unrolled import add, times
from optsched.numerics import jax_settings

__all__ = [
    "BUNDLE",
    "Path",
    "advance",
    "map_modes",
    "block_maps",
    "chain",
    "in_bundles",
    "padded",
    "run_chain",
    "traced_blocks",
    "traced_curve",
    "traced_excess",
    "traced_steps",
]

CHUNK = 4096  # steps a compiled call

jax.tree_util.register_dataclass(
    SGDDynamics, data_fields=["batch_size", "sigma2"], meta_fields=["continuous"]
)


class Path(NamedTuple):
    """Result of `chain`: final state, states (n + 1, J, d) at knots, excess loss (n + 1,)."""

    final: Array
    states: Array
    excess: Array


def map_modes(phi: Array, x: Array) -> Array:
    """Per-mode product (J, d, d) x (J, d)."""
    return (phi * x[:, None, :]).sum(-1)


def advance(x: Array, maps: BlockMaps, dynamics: Dynamics, modes: Modes) -> Array:
    """State after one block: solve for the loss at its middle and end, then apply the maps.

    NaN where the two unknown values feed on themselves by more than the dynamics' ``max_gain``:
    the update is unstable there, or the block too coarse. Single steps know all they need.
    """
    feedback, sigma2 = dynamics.feedback(modes), dynamics.sigma2
    start = sigma2 + (feedback * x).sum()
    moved = map_modes(maps.phi, x)
    # What a unit loss at each node adds to the excess at the middle and at the end of the block.
    gh = (maps.half_w * feedback).sum((-1, -2))
    ge = (maps.w * feedback).sum((-1, -2))
    rhs_half = sigma2 + (feedback * map_modes(maps.half_phi, x)).sum() + gh[0] * start
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


@jax.jit
def _run_chunk(
    x: Array, h: Array, controls: Controls, real: Array, dynamics: Dynamics, modes: Modes
) -> tuple[Array, Array, Array, Array]:
    """Run a chunk of exact steps on the state and on its homogeneous part (the bias)."""
    readout, feedback = dynamics.readout(modes).T, dynamics.feedback(modes).T

    def one(carry: Any, data: tuple[Controls, Array]) -> tuple[Any, Array]:
        now, there = data
        change, source = dynamics.change(modes, now)
        loss = dynamics.sigma2 + sum(w @ x for w, x in zip(feedback, carry[0], strict=True))
        sources = [times(s, loss) for s in source], [None] * len(source)
        # Columns of the state, one for each of its d numbers, so that a step is one kernel.
        after = tuple(
            [
                jnp.where(there, add(x, *terms), x)  # type: ignore[arg-type]
                for x, *terms in zip(state, entries.apply(change, list(state)), own, strict=True)
            ]
            for state, own in zip(carry, sources, strict=True)
        )
        losses = [sum(w @ x for w, x in zip(readout, state, strict=True)) for state in after]
        return after, jnp.stack(losses)

    (x, h), curve = jax.lax.scan(one, (list(x.T), list(h.T)), (controls, real))
    return jnp.stack(x, 1), jnp.stack(h, 1), curve[:, 0], curve[:, 1]


def traced_steps(
    modes: Modes, dynamics: Dynamics, schedule: Replayable, keep: Ints
) -> tuple[Floats, Floats]:
    """Excess loss and bias after the numbers ``keep`` of steps, from 0 to the horizon."""
    with jax_settings():
        return _by_step(modes, dynamics, schedule, keep)


def _by_step(
    modes: Modes, dynamics: Dynamics, schedule: Replayable, keep: Ints
) -> tuple[Floats, Floats]:
    horizon = schedule.horizon
    excess, bias = [], []
    # Small problems do not pay for a full chunk.
    chunk = min(CHUNK, 1 << max(6, (horizon - 1).bit_length()))
    x = h = dynamics.initial(modes)
    start_excess = float((dynamics.readout(modes) * x).sum())
    for start in range(0, horizon, chunk):
        stop = min(start + chunk, horizon)
        pad = (0, chunk - (stop - start))
        now = {n: np.pad(schedule.array(n, start, stop), pad, "edge") for n in schedule.controls}
        now = timed(dynamics, now, np.arange(start, start + chunk, dtype=float))  # type: ignore[arg-type]
        real = np.arange(chunk) < stop - start
        x, h, e, b = _run_chunk(x, h, now, real, dynamics, modes)  # type: ignore[arg-type]
        here = keep[(keep > start) & (keep <= stop)] - start - 1
        excess.append(np.asarray(e)[here])
        bias.append(np.asarray(b)[here])
    return (
        np.concatenate([[start_excess], *excess]),
        np.concatenate([[start_excess], *bias]),
    )


def traced_blocks(
    steps: Ints, schedule: Replayable, modes: Modes, dynamics: Dynamics
) -> tuple[Floats, Floats]:
    """Excess loss and bias at the knots ``steps`` and at the end."""
    with jax_settings():
        return _by_block(steps, schedule, modes.padded(), dynamics)


def _by_block(
    steps: Ints, schedule: Replayable, modes: Modes, dynamics: Dynamics
) -> tuple[Floats, Floats]:
    horizon = schedule.horizon
    pad = padded(len(steps)) + 1 - len(steps)
    start = np.append(steps, np.full(pad, horizon)).astype(float)
    knots = {n: np.interp(start, schedule.steps, v) for n, v in schedule.controls.items()}
    knots = timed(dynamics, knots, start)  # type: ignore[arg-type]
    length = np.diff(start)
    curves: tuple[list[Floats], list[Floats]] = ([], [])
    states = [dynamics.initial(modes)] * 2
    for first in range(0, len(length), BUNDLE):
        last = first + BUNDLE
        here = {name: value[first : last + 1] for name, value in knots.items()}
        maps = block_maps(dynamics, modes, knot_blocks(length[first:last], here))  # type: ignore[arg-type]
        silent = maps._replace(half_w=0.0 * maps.half_w, w=0.0 * maps.w)
        for k, part in enumerate((maps, silent)):
            states[k], curve = run_chain(dynamics, modes, part, states[k])
            curves[k].append(np.asarray(curve)[: BUNDLE + (last == len(length))])
    keep = np.append(np.arange(len(steps)), len(length))
    excess, bias = (np.concatenate(curve)[keep] for curve in curves)
    return excess, bias


@jax.jit
def _final_excess(dynamics: Dynamics, modes: Modes, length: Array, knots: Controls) -> Array:
    maps = block_maps(dynamics, modes, knot_blocks(length, knots))
    return run_chain(dynamics, modes, maps)[1][-1]


def traced_curve(dynamics: Dynamics, modes: Modes, length: Floats, knots: Controls) -> Floats:
    """Excess losses at the ends of blocks with the controls there, shape (n + 1,)."""
    with jax.enable_x64(True):
        modes = modes.padded()
        knots = timed(dynamics, knots, np.append(0.0, np.cumsum(length)))
        maps = block_maps(dynamics, modes, knot_blocks(length, knots))  # type: ignore[arg-type]
        return np.asarray(run_chain(dynamics, modes, maps)[1])


def traced_excess(dynamics: Dynamics, modes: Modes, length: Floats, knots: Controls) -> float:
    """Final excess loss over blocks with the controls at their ends."""
    knots = timed(dynamics, knots, np.append(0.0, np.cumsum(length)))
    with jax_settings():
        return float(_final_excess(dynamics, modes.padded(), length, knots))  # type: ignore[arg-type]
