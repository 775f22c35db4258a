"""Curves as lists of numbers, few enough to be drawn while a slider moves."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from optsched.arrays import Ints
from optsched.model.replay import Replay
from optsched.schedules.schedule import Schedule

__all__ = ["digits", "loss_curve", "rate_curve", "shown_steps"]

POINTS = 160  # at each end, and in between
DIGITS = 6


def digits(values: Iterable[Any]) -> list[float | None]:
    """Numbers with the digits that a curve shows; None where one is not finite."""
    return [
        float(f"{x:.{DIGITS}g}") if math.isfinite(x) else None
        for x in np.asarray(values, float).tolist()
    ]


def shown_steps(last: int, corners: Ints | None = None) -> Ints:
    """Steps from 0 to ``last``: even, dense at both ends as for a log axis, and corners."""
    part = np.geomspace(1, max(last, 1), POINTS)
    even = np.linspace(0, last, POINTS)
    parts = [part, last - part, even]
    if corners is not None:
        parts.append(corners[:: max(1, len(corners) // (4 * POINTS))].astype(float))
    return np.unique(np.clip(np.concatenate(parts).round(), 0, last).astype(np.int64))


def rate_curve(schedule: Schedule) -> dict[str, Any]:
    """Learning rate at some steps."""
    steps = shown_steps(schedule.horizon - 1, schedule.steps)
    return {"steps": steps.tolist(), "eta": digits(schedule(steps))}


def loss_curve(played: Replay) -> dict[str, Any]:
    """Excess loss and its two parts after some numbers of steps."""
    steps = np.asarray(played.steps)
    wanted = shown_steps(int(steps[-1]))
    keep = np.unique(np.searchsorted(steps, wanted).clip(0, len(steps) - 1))
    excess, bias = played.excess_curve[keep], played.bias_curve[keep]
    return {
        "steps": steps[keep].tolist(),
        "excess": digits(excess),
        "bias": digits(bias),
        "variance": digits(np.maximum(excess - bias, 0.0)),
    }
