"""Schedules to start a non-convex solve from: each is a guess of another kind."""

from __future__ import annotations

import numpy as np

from optsched.arrays import Floats
from optsched.control.problem import Problem
from optsched.optimisers.base import CALM
from optsched.schedules.schedule import Schedule

__all__ = ["Controls", "completed", "named_starts"]

Controls = dict[str, Floats]


def completed(problem: Problem, controls: Controls, count: int) -> Controls:
    """All controls at ``count`` steps, with held values where a start does not speak of one."""
    held = {"eta": problem.eta_max, "batch_size": problem.batch_size}
    held |= problem.optimiser.values(problem.controls)
    return {name: np.full(count, value) for name, value in held.items()} | controls


def named_starts(problem: Problem, steps: Floats, sgd: Schedule | None) -> dict[str, Controls]:
    """Starts at the given steps, the best first guess first.

    Parameters
    ----------
    problem : Problem
    steps : numpy.ndarray, shape (n,)
        Knots.
    sgd : Schedule, optional
        Optimum of the learning rate alone, without momentum.
    """
    horizon = problem.horizon
    found = problem.optimiser.starts(problem.setting, steps, sgd)
    if "batch_size" in problem.controls and problem.b is not None:
        unit = min(problem.plain.stability_limit, problem.eta_cap)
        shape = (horizon - steps + 1.0) ** (1.0 / (2.0 * problem.b) - 1.0)
        level = np.full_like(steps, unit * (1.0 if problem.rate_held else CALM))
        found["ramp"] = {"eta": level, "batch_size": 1.0 + shape / shape.min()}
    return {name: completed(problem, start, len(steps)) for name, start in found.items()}
