r"""Replay of any schedule on the exact recursion: the judge of every result.

Up to `MAX_STEPS` steps the recursion is run step by step, on all N modes where there are at most
`MAX_MODES` of them and on the quadrature nodes otherwise. Beyond, blocks of steps are propagated
exactly but for the loss inside a block, which is a quadratic; the blocks are halved until the
final loss settles, and the last change is the error estimate.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from optsched.arrays import Floats
from optsched.errors import InvalidProblem
from optsched.model import unrolled as entries
from optsched.model.dynamics import Controls, Dynamics, knot_blocks
from optsched.model.knots import corners, graded_steps
from optsched.model.propagate import BUNDLE, block_maps, padded, run_chain
from optsched.model.spectrum import Modes, Spectrum
from optsched.model.unrolled import add, times

__all__ = ["MAX_MODES", "MAX_STEPS", "Replay", "replay"]

MAX_STEPS = 10**6
MAX_MODES = 10**4
CHUNK = 4096  # steps a compiled call
CURVE_POINTS = 2000
BLOCKS = 64  # to begin with, besides the knots of the schedule
EVERY_KNOT = 512  # so many knots are all ends of blocks
KNOT_TOL = 2e-3  # of a curve with more knots; halving the blocks brings it down
MOST_BLOCKS = 4096


class Knots(Protocol):
    """A schedule as its knots."""

    @property
    def horizon(self) -> int: ...
    @property
    def steps(self) -> NDArray[np.int64]: ...
    @property
    def controls(self) -> Mapping[str, Floats]: ...


class Rates(Knots, Protocol):
    """What a replay needs of a schedule."""

    def array(self, control: str = ..., start: int = ..., stop: int | None = ...) -> Floats: ...


@dataclass(frozen=True)
class Replay:
    """A schedule replayed on the exact recursion.

    Attributes
    ----------
    excess_loss, bias, variance : float
        Final excess loss E = bias + variance.
    how : str
        Which steps and which modes were run, in words.
    error : float
        Estimated relative error of ``excess_loss``; 0 where every step and mode was run.
    steps : numpy.ndarray of int64, shape (n,)
        Numbers of steps done, from 0 to the horizon, at which the curves are given.
    excess_curve, bias_curve : numpy.ndarray, shape (n,)
        Excess loss and its bias after so many steps.
    """

    excess_loss: float
    bias: float
    variance: float
    how: str
    error: float
    steps: NDArray[np.int64]
    excess_curve: Floats
    bias_curve: Floats


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


def _sample_steps(horizon: int) -> NDArray[np.int64]:
    """Numbers of steps at which curves are kept: dense at both ends."""
    if horizon <= CURVE_POINTS:
        return np.arange(horizon + 1)
    part = np.geomspace(1, horizon / 2, CURVE_POINTS // 2).round().astype(np.int64)
    return np.unique(np.concatenate([[0, horizon], part, horizon - part]))


def _by_step(modes: Modes, dynamics: Dynamics, schedule: Rates) -> tuple[Floats, Floats]:
    horizon = schedule.horizon
    keep = _sample_steps(horizon)
    excess, bias = [], []
    # Small problems do not pay for a full chunk.
    chunk = min(CHUNK, 1 << max(6, (horizon - 1).bit_length()))
    x = h = dynamics.initial(modes)
    start_excess = float((dynamics.readout(modes) * x).sum())
    for start in range(0, horizon, chunk):
        stop = min(start + chunk, horizon)
        pad = (0, chunk - (stop - start))
        now = {n: np.pad(schedule.array(n, start, stop), pad, "edge") for n in schedule.controls}
        real = np.arange(chunk) < stop - start
        x, h, e, b = _run_chunk(x, h, now, real, dynamics, modes)  # type: ignore[arg-type]
        here = keep[(keep > start) & (keep <= stop)] - start - 1
        excess.append(np.asarray(e)[here])
        bias.append(np.asarray(b)[here])
    return (
        np.concatenate([[start_excess], *excess]),
        np.concatenate([[start_excess], *bias]),
    )


def _block_curves(
    steps: NDArray[np.int64], schedule: Rates, modes: Modes, dynamics: Dynamics
) -> tuple[Floats, Floats]:
    """Excess loss and bias at the knots ``steps`` and at the end."""
    horizon = schedule.horizon
    pad = padded(len(steps)) + 1 - len(steps)
    start = np.append(steps, np.full(pad, horizon)).astype(float)
    knots = {n: np.interp(start, schedule.steps, v) for n, v in schedule.controls.items()}
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


def _block_mesh(schedule: Rates) -> NDArray[np.int64]:
    """Graded steps and the knots of a schedule; of many knots, those that its shape needs."""
    steps = schedule.steps
    if len(steps) > EVERY_KNOT:
        steps = steps[corners(steps, schedule.controls, KNOT_TOL)]
    return np.union1d(graded_steps(schedule.horizon, BLOCKS), steps)


def _by_blocks(
    modes: Modes,
    dynamics: Dynamics,
    schedule: Rates,
    steps: NDArray[np.int64],
    tol: float,
) -> tuple[NDArray[np.int64], Floats, Floats, float]:
    # For the longest blocks, and so for all: other sizes would compile anew.
    dynamics = dynamics.for_blocks(np.diff(np.append(steps, schedule.horizon)).astype(float))
    excess, bias = _block_curves(steps, schedule, modes, dynamics)
    change = math.inf
    while change > tol and len(steps) < 20000:
        ends = np.append(steps[1:], schedule.horizon)
        steps = np.unique(np.append(steps, (steps + ends) // 2))
        last = float(excess[-1])
        excess, bias = _block_curves(steps, schedule, modes, dynamics)
        change = abs(float(excess[-1]) / last - 1.0) if last > 0.0 else 0.0
    return np.append(steps, schedule.horizon), excess, bias, change


def replay(
    spectrum: Spectrum,
    dynamics: Dynamics,
    schedule: Rates,
    *,
    modes: Modes | None = None,
    tol: float = 1e-5,
    max_steps: int = MAX_STEPS,
) -> Replay:
    """Run a schedule on the exact recursion of an optimiser.

    Parameters
    ----------
    spectrum : Spectrum
    dynamics : Dynamics
        The recursion; its noise and batch size are the problem's.
    schedule : Schedule
    modes : Modes, optional
        Quadrature nodes that hold for the schedule's intrinsic time, if at hand.
    tol : float
        Relative change of the final loss at which halving of blocks stops (long horizons only).
    max_steps : int
        Largest horizon that is run step by step.

    Returns
    -------
    Replay
        With infinite losses where the recursion diverges.

    Raises
    ------
    InvalidProblem
        If the schedule carries a control that the dynamics does not have.
    """
    extra = [name for name in schedule.controls if name not in dynamics.takes]
    if extra:
        allowed = ", ".join(dynamics.takes) + ", as the optimiser has no other"
        raise InvalidProblem("controls", ", ".join(extra), allowed)
    horizon = schedule.horizon
    if modes is None:
        modes = spectrum.modes(float(np.max(schedule.controls["eta"])) * horizon)
    every_mode = spectrum.size <= MAX_MODES
    blocks = _block_mesh(schedule) if horizon > max_steps else schedule.steps
    # A schedule of unrelated step values has no blocks: it is run step by step at any horizon.
    dense = len(blocks) > MOST_BLOCKS
    with jax.enable_x64(True), np.errstate(over="ignore", invalid="ignore"):
        if horizon <= max_steps or dense:
            all_modes = every_mode and horizon <= MAX_STEPS
            modes = spectrum.full() if all_modes else modes
            excess, bias = _by_step(modes, dynamics, schedule)
            steps, error = _sample_steps(horizon), 0.0 if all_modes else 1e-7
            what = f"all {len(modes.lam)} modes" if all_modes else f"{len(modes.lam)} nodes"
            how = f"step by step, {what}"
        else:
            modes = modes.padded()
            steps, excess, bias, error = _by_blocks(modes, dynamics, schedule, blocks, tol)
            how = f"{len(steps) - 1} blocks of exact steps, {np.count_nonzero(modes.lam)} nodes"
            error += 1e-7
    # Interpolation inside blocks may dip below zero where everything underflows.
    last, low = max(float(excess[-1]), 0.0), max(float(bias[-1]), 0.0)
    if not math.isfinite(last):
        last, low = math.inf, min(low, math.inf) if not math.isnan(low) else math.inf
    return Replay(
        last, low, last - low if math.isfinite(last) else math.inf, how, error, steps, excess, bias
    )
