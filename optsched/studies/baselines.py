"""The best constant, linear and cosine schedule of a problem, beside its optimum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from optsched.control.problem import Problem
from optsched.model.dynamics import knot_blocks
from optsched.model.propagate import block_maps, run_chain
from optsched.model.recursion import MAX_STEPS, Replay, replay
from optsched.schedules.families import FAMILIES
from optsched.schedules.schedule import Schedule

__all__ = ["Baseline", "best_baselines", "graded_steps"]

Floats = NDArray[np.float64]
BLOCKS = 64  # between knots, graded towards both ends; a tuned peak needs no more
PEAKS = 16


@dataclass(frozen=True)
class Baseline:
    """A family's best member.

    Attributes
    ----------
    name : str
    peak : float
        The tuned peak rate.
    at_bound : bool
        Whether the peak sits at the problem's upper bound of the rate.
    schedule : Schedule
    replay : Replay
        On the exact recursion.
    """

    name: str
    peak: float
    at_bound: bool
    schedule: Schedule
    replay: Replay


def graded_steps(horizon: int, count: int) -> NDArray[np.int64]:
    """First steps of about ``count`` blocks, graded towards both ends."""
    if horizon <= count:
        return np.arange(horizon)
    part = np.geomspace(1, horizon / 2, count // 2 - 2).round().astype(np.int64)
    return np.unique(np.concatenate([[0], part, horizon - part, [horizon - 1]]))


def _best_peak(problem: Problem, family: str) -> float:
    """Minimise the loss over the peak: a grid of log rates, then Brent around the best."""
    horizon, dynamics = problem.horizon, problem.dynamics
    modes = problem.modes.padded()
    steps = graded_steps(horizon, BLOCKS)
    edges = np.append(steps, np.full(BLOCKS + 1 - len(steps), horizon))
    unit = FAMILIES[family](horizon, 1.0)
    shape = unit(np.minimum(edges, horizon - 1))

    def log_loss(log_peak: float) -> float:
        blocks = knot_blocks(np.diff(edges).astype(float), {"eta": math.exp(log_peak) * shape})  # type: ignore[arg-type,dict-item]
        maps = block_maps(dynamics, modes, blocks)
        excess = float(run_chain(dynamics, modes, maps)[1][-1])
        return math.log(excess) if 0.0 < excess < math.inf else math.inf

    high = math.log(problem.eta_cap)
    # The best peak falls at most as 1/T, and with the variance of the noise.
    low = high - math.log(100.0 * horizon) - 2.0 * math.log1p(problem.noise)
    grid = np.linspace(low, high, PEAKS)
    losses = [log_loss(x) for x in grid]
    i = int(np.argmin(losses))
    bracket = float(grid[max(i - 1, 0)]), float(grid[min(i + 1, PEAKS - 1)])
    fine: Any = minimize_scalar(log_loss, bounds=bracket, method="bounded", options={"xatol": 1e-3})
    # A bounded search never reaches the bound itself.
    best = fine.x if fine.fun < losses[i] else grid[i]
    return min(math.exp(float(best)), problem.eta_cap)


def best_baselines(
    problem: Problem,
    families: tuple[str, ...] = ("constant", "linear", "cosine"),
    *,
    replay_steps: int = MAX_STEPS,
) -> list[Baseline]:
    """Tune the peak rate of each family and replay the result.

    Parameters
    ----------
    problem : Problem
        Peaks are bounded by its ``eta_cap``.
    families : tuple of str
        Names in `optsched.schedules.families.FAMILIES`.
    replay_steps : int
        Largest horizon that is replayed step by step.

    Returns
    -------
    list of Baseline
    """
    assert problem.spectrum is not None
    found = []
    for name in families:
        with jax.enable_x64(True):
            peak = _best_peak(problem, name)
        schedule = FAMILIES[name](problem.horizon, peak)
        played = replay(problem.spectrum, problem.dynamics, schedule, max_steps=replay_steps)
        found.append(Baseline(name, peak, peak >= problem.eta_cap * (1 - 1e-12), schedule, played))
    return found
