"""Schedules to start a non-convex solve from: each is a guess of another kind."""

from __future__ import annotations

import numpy as np

from optsched.arrays import Floats
from optsched.control.problem import Problem
from optsched.controls import CONTROLS
from optsched.model.stability import noise_limit
from optsched.schedules.schedule import Schedule

__all__ = ["Controls", "completed", "named_starts"]

Controls = dict[str, Floats]
CALM = 0.25  # of a stability limit
COOLDOWN = 0.2  # of the horizon


def completed(problem: Problem, controls: Controls) -> Controls:
    """All five controls, with the held values where a start does not speak of one."""
    beta, nu = problem.held_momentum
    like = controls["eta"]
    held = {
        "eta": problem.eta_max,
        "beta": beta if "beta" not in problem.controls else 0.5,
        "nu": {"heavy-ball": 1.0, "nesterov": beta}.get(problem.momentum, nu),
        "batch_size": problem.batch_size,
        "ema": problem.ema or 0.0,
    }
    return {name: controls.get(name, np.full_like(like, held[name])) for name in CONTROLS}


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
    horizon, spectrum = problem.horizon, problem.spectrum
    assert spectrum is not None
    togo = (horizon - steps) / horizon
    cooled = np.minimum(1.0, togo / COOLDOWN) ** 2
    unit = min(problem.plain.stability_limit, problem.eta_cap)
    found: dict[str, Controls] = {}
    if problem.momentum in ("qhm", "nesterov") and problem.scheduled_momentum:
        # Memory that grows with time, and a momentum rate that grows slowly (DANA).
        forget = 1.0 / (1.2 + steps / 3.0)
        growth = 1.0 / (problem.b or 2.0)
        direct, carried = CALM * unit * cooled, CALM * unit * cooled * (1.0 + steps) ** growth
        if problem.momentum == "nesterov":
            carried = direct * (1.0 / forget - 1.0)
        eta = direct + carried
        found["growing memory"] = {"eta": eta, "nu": carried / eta, "beta": 1.0 - forget}
    if sgd is not None:
        eta = np.asarray(sgd(steps.astype(np.int64)), float)
        sub = {"eta": eta}
        if problem.momentum == "heavy-ball":
            sub["beta"] = np.full_like(eta, 0.1)
        elif problem.scheduled_momentum:
            sub |= {"beta": np.full_like(eta, 0.5), "nu": np.full_like(eta, 0.1)}
        if "ema" in problem.controls:
            sub["ema"] = np.full_like(eta, 0.1)
        found["sgd"] = sub
    if problem.momentum != "none":
        limit = min(noise_limit(spectrum, problem.batch_size), 1e3 * unit)
        eta = np.minimum(CALM * max(limit, unit) * cooled, problem.eta_cap)
        full = np.ones_like(eta)
        found["heavy ball"] = {"eta": eta, "beta": 0.8 * full, "nu": 0.9 * full}
        if problem.momentum == "heavy-ball":
            forget = np.maximum(3.0 / (3.0 + steps), 1.0 / np.sqrt(horizon))
            found["growing memory"] = {"eta": eta, "beta": 1.0 - forget}
    if "batch_size" in problem.controls and problem.b is not None:
        shape = (horizon - steps + 1.0) ** (1.0 / (2.0 * problem.b) - 1.0)
        level = np.full_like(
            steps, min(unit, problem.eta_cap) * (1.0 if problem.rate_held else CALM)
        )
        found["ramp"] = {"eta": level, "batch_size": 1.0 + shape / shape.min()}
    if "ema" in problem.controls or problem.ema is not None:
        long = 1.0 - np.maximum(5.0 / horizon, 1.0 / (5.0 + steps))
        found["constant and average"] = {"eta": np.full_like(steps, CALM * unit), "ema": long}
    return {name: completed(problem, start) for name, start in found.items()}
