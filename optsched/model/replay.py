r"""Replay of any schedule on the exact recursion: the judge of every result.

Up to `MAX_STEPS` steps the recursion is run step by step, on all N modes where there are at most
`MAX_MODES` of them and on the quadrature nodes otherwise. Beyond, blocks of steps are propagated
exactly but for the loss inside a block, which is a quadratic; the blocks are halved until the
final loss settles, and the last change is the error estimate.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.errors import InvalidProblem
from optsched.model.dynamics import SGD, Dynamics
from optsched.model.knots import Rates, corners, graded_steps
from optsched.model.sgd.curves import block_curves, step_curves
from optsched.model.spectrum import Modes, Spectrum

__all__ = ["MAX_MODES", "MAX_STEPS", "Replay", "replay"]

MAX_STEPS = 10**6
MAX_MODES = 10**4
CURVE_POINTS = 2000
BLOCKS = 64  # to begin with, besides the knots of the schedule
EVERY_KNOT = 512  # so many knots are all ends of blocks
KNOT_TOL = 2e-3  # of a curve with more knots; halving the blocks brings it down
MOST_BLOCKS = 4096


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
    steps: Ints
    excess_curve: Floats
    bias_curve: Floats


def _sample_steps(horizon: int) -> Ints:
    """Numbers of steps at which curves are kept: dense at both ends."""
    if horizon <= CURVE_POINTS:
        return np.arange(horizon + 1)
    part = np.geomspace(1, horizon / 2, CURVE_POINTS // 2).round().astype(np.int64)
    return np.unique(np.concatenate([[0, horizon], part, horizon - part]))


def _step_curves(modes: Modes, dynamics: Dynamics, schedule: Rates) -> tuple[Floats, Floats]:
    """Excess loss and bias at `_sample_steps`, step by step."""
    keep = _sample_steps(schedule.horizon)
    if type(dynamics) is SGD:

        def rates(start: int, stop: int) -> dict[str, Floats]:
            return {name: schedule.array(name, start, stop) for name in schedule.controls}

        return step_curves(dynamics, modes, rates, schedule.horizon, keep)
    from optsched.model.propagate import traced_steps

    return traced_steps(modes, dynamics, schedule, keep)


def _block_curves(
    steps: Ints, schedule: Rates, modes: Modes, dynamics: Dynamics
) -> tuple[Floats, Floats]:
    """Excess loss and bias at the knots ``steps`` and at the end."""
    if type(dynamics) is SGD:
        edges = np.append(steps, schedule.horizon).astype(float)
        knots = {n: np.interp(edges, schedule.steps, v) for n, v in schedule.controls.items()}
        return block_curves(dynamics, modes, np.diff(edges), knots)
    from optsched.model.propagate import traced_blocks

    return traced_blocks(steps, schedule, modes, dynamics)


def _block_mesh(schedule: Rates) -> Ints:
    """Graded steps and the knots of a schedule; of many knots, those that its shape needs."""
    steps = schedule.steps
    if len(steps) > EVERY_KNOT:
        steps = steps[corners(steps, schedule.controls, KNOT_TOL)]
    return np.union1d(graded_steps(schedule.horizon, BLOCKS), steps)


def _by_blocks(
    modes: Modes,
    dynamics: Dynamics,
    schedule: Rates,
    steps: Ints,
    tol: float,
) -> tuple[Ints, Floats, Floats, float]:
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
    with np.errstate(all="ignore"):  # a recursion may diverge, or underflow
        if horizon <= max_steps or dense:
            all_modes = every_mode and horizon <= MAX_STEPS
            modes = spectrum.full() if all_modes else modes
            excess, bias = _step_curves(modes, dynamics, schedule)
            steps, error = _sample_steps(horizon), 0.0 if all_modes else 1e-7
            what = f"all {len(modes.lam)} modes" if all_modes else f"{len(modes.lam)} nodes"
            how = f"step by step, {what}"
        else:
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
