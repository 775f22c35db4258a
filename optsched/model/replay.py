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
from optsched.model.dynamics import Dynamics, SGDDynamics
from optsched.model.grading import Replayable, corners, graded_steps
from optsched.model.linear.step import arithmetic
from optsched.model.sgd.curves import block_curves, step_curves
from optsched.model.spectrum import Modes, Spectrum
from optsched.numerics import quiet
from optsched.objectives import FinalExcess, KnotSum, Objective, Terms

__all__ = ["MAX_MODES", "MAX_STEPS", "Replay", "replay"]

MAX_STEPS = 10**6
MAX_MODES = 10**4
CURVE_POINTS = 2000
BLOCKS = 64  # to begin with, besides the knots of the schedule
EVERY_KNOT = 512  # so many knots are all ends of blocks
KNOT_TOL = 2e-3  # of a curve with more knots; halving the blocks brings it down
MOST_BLOCKS = 4096
UNCOMPILED = 2 * 10**7  # steps times modes: up to here momentum needs no compiler


@dataclass(frozen=True, eq=False, repr=False)
class Replay:
    """A schedule replayed on the exact recursion.

    Attributes
    ----------
    excess_loss, bias, variance : float
        Final excess loss E = bias + variance.
    how : str
        Which steps and which modes were run, in words.
    error : float
        Estimated relative error of ``value``; 0 where every step and mode was run.
    steps : numpy.ndarray of int64, shape (n,)
        Numbers of steps done, from 0 to the horizon, at which the curves are given.
    excess_curve, bias_curve : numpy.ndarray, shape (n,)
        Excess loss and its bias after so many steps.
    value : float
        The objective; ``excess_loss`` unless another one was given.
    """

    excess_loss: float
    bias: float
    variance: float
    how: str
    error: float
    steps: Ints
    excess_curve: Floats
    bias_curve: Floats
    value: float

    def __repr__(self) -> str:
        parts = f"{self.excess_loss:.6g} = bias {self.bias:.3g} + variance {self.variance:.3g}"
        other = "" if self.value == self.excess_loss else f", objective {self.value:.6g}"
        return f"Replay(T = {self.steps[-1]}, excess loss {parts}{other}, {self.how})"


def _sample_steps(horizon: int) -> Ints:
    """Numbers of steps at which curves are kept: dense at both ends."""
    if horizon <= CURVE_POINTS:
        return np.arange(horizon + 1)
    part = np.geomspace(1, horizon / 2, CURVE_POINTS // 2).round().astype(np.int64)
    return np.unique(np.concatenate([[0, horizon], part, horizon - part]))


def _step_curves(
    modes: Modes, dynamics: Dynamics, schedule: Replayable, keep: Ints
) -> tuple[Floats, Floats]:
    """Excess loss and bias after the numbers ``keep`` of steps, step by step."""

    def rates(start: int, stop: int) -> dict[str, Floats]:
        return {name: schedule.array(name, start, stop) for name in schedule.controls}

    if type(dynamics) is SGDDynamics:
        return step_curves(dynamics, modes, rates, schedule.horizon, keep)
    if arithmetic(dynamics) and len(modes.lam) * schedule.horizon <= UNCOMPILED:
        from optsched.model.linear.curves import step_curves as linear_steps

        return linear_steps(dynamics, modes, rates, schedule.horizon, keep)  # type: ignore[arg-type]
    from optsched.model.propagate import traced_steps

    return traced_steps(modes, dynamics, schedule, keep)


def _block_curves(
    steps: Ints, schedule: Replayable, modes: Modes, dynamics: Dynamics
) -> tuple[Floats, Floats]:
    """Excess loss and bias at the knots ``steps`` and at the end."""
    if type(dynamics) is SGDDynamics:
        edges = np.append(steps, schedule.horizon).astype(float)
        knots = {n: np.interp(edges, schedule.steps, v) for n, v in schedule.controls.items()}
        return block_curves(dynamics, modes, np.diff(edges), knots)
    if arithmetic(dynamics):
        from optsched.model.linear.curves import block_curves as linear_blocks

        edges = np.append(steps, schedule.horizon).astype(float)
        knots = {n: np.interp(edges, schedule.steps, v) for n, v in schedule.controls.items()}
        return linear_blocks(dynamics, modes, np.diff(edges), knots)  # type: ignore[arg-type]
    from optsched.model.propagate import traced_blocks

    return traced_blocks(steps, schedule, modes, dynamics)


def _block_mesh(schedule: Replayable) -> Ints:
    """Graded steps and the knots of a schedule; of many knots, those that its shape needs."""
    steps = schedule.steps
    if len(steps) > EVERY_KNOT:
        steps = steps[corners(steps, schedule.controls, KNOT_TOL)]
    return np.union1d(graded_steps(schedule.horizon, BLOCKS), steps)


def _by_blocks(
    modes: Modes,
    dynamics: Dynamics,
    schedule: Replayable,
    steps: Ints,
    tol: float,
    terms: Terms,
) -> tuple[Ints, Floats, Floats, float, float]:
    # For the longest blocks, and so for all: other sizes would compile anew.
    dynamics = dynamics.for_blocks(np.diff(np.append(steps, schedule.horizon)).astype(float))
    excess, bias = _block_curves(steps, schedule, modes, dynamics)
    change, value = math.inf, _sum(terms, np.append(steps, schedule.horizon), excess)
    while change > tol and len(steps) < 20000:
        ends = np.append(steps[1:], schedule.horizon)
        steps = np.unique(np.append(steps, (steps + ends) // 2))
        last = value
        excess, bias = _block_curves(steps, schedule, modes, dynamics)
        value = _sum(terms, np.append(steps, schedule.horizon), excess)
        change = abs(value / last - 1.0) if last > 0.0 else 0.0
    return np.append(steps, schedule.horizon), excess, bias, value, change


def _sum(terms: Terms, steps: Ints, excess: Floats) -> float:
    """The objective, from the losses after some numbers of steps."""
    if terms.final:
        return float(excess[-1])
    if len(steps) <= terms.horizon:
        return KnotSum(terms, steps)(excess)
    named = sum(weight * excess[step] for step, weight in terms.points.items())
    return float(named + terms.weight(steps[1:].astype(float)) @ excess[1:])


@quiet
def replay(
    spectrum: Spectrum,
    dynamics: Dynamics,
    schedule: Replayable,
    *,
    modes: Modes | None = None,
    tol: float = 1e-5,
    max_steps: int = MAX_STEPS,
    objective: Objective | None = None,
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
        Relative change of the objective at which halving of blocks stops (long horizons only).
    max_steps : int
        Largest horizon that is run step by step.
    objective : Objective, optional
        What is evaluated besides; the final excess loss if not given.

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
    terms = Terms.of(FinalExcess() if objective is None else objective, horizon)
    if modes is None:
        modes = spectrum.modes(float(np.max(schedule.controls["eta"])) * horizon)
    every_mode = spectrum.size <= MAX_MODES
    blocks = _block_mesh(schedule) if horizon > max_steps else schedule.steps
    own = np.array(dynamics.switches(horizon), dtype=np.int64)
    blocks = np.union1d(blocks, np.append(terms.corners[:-1], own[own < horizon]))
    # A schedule of unrelated step values has no blocks: it is run step by step at any horizon.
    dense = len(blocks) > MOST_BLOCKS
    if horizon <= max_steps or dense:
        all_modes = every_mode and horizon <= MAX_STEPS
        modes = spectrum.full() if all_modes else modes
        steps = kept = np.union1d(_sample_steps(horizon), terms.corners)
        if terms.dense and horizon <= MAX_STEPS:
            steps = np.arange(horizon + 1)
        excess, bias = _step_curves(modes, dynamics, schedule, steps)
        value, error = _sum(terms, steps, excess), 0.0 if all_modes else 1e-7
        steps, excess, bias = kept, *(_at(kept, steps, curve) for curve in (excess, bias))
        what = f"all {len(modes.lam)} modes" if all_modes else f"{len(modes.lam)} nodes"
        how = f"step by step, {what}"
    else:
        found = _by_blocks(modes, dynamics, schedule, blocks, tol, terms)
        steps, excess, bias, value, error = found
        how = f"{len(steps) - 1} blocks of exact steps, {np.count_nonzero(modes.lam)} nodes"
        error += 1e-7
    # Interpolation inside blocks may dip below zero where everything underflows.
    last, low = max(float(excess[-1]), 0.0), max(float(bias[-1]), 0.0)
    if not math.isfinite(last):
        last, low = math.inf, min(low, math.inf) if not math.isnan(low) else math.inf
    value = last if terms.final else max(value, 0.0) if math.isfinite(value) else math.inf
    variance = last - low if math.isfinite(last) else math.inf
    return Replay(last, low, variance, how, error, steps, excess, bias, value)


def _at(kept: Ints, steps: Ints, curve: Floats) -> Floats:
    return curve if len(kept) == len(steps) else curve[np.searchsorted(steps, kept)]
