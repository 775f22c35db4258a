r"""Warnings from the log of a run: which number crossed its limit, and when first.

Each alarm looks back only, as it could have done during the run. The limits are rules of thumb, but
for the edge of stability (`optsched.rules.stability`); `benchmarks.early_warning` measures how
early each comes, and how often in healthy runs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from optsched.arrays import Floats, Ints
from optsched.checks import positive, whole
from optsched.diagnostics.log import Log
from optsched.rules.stability import UpdateRule

__all__ = ["ALARMS", "Alarm", "Limits", "alarms", "edge_ratio", "update_ratio"]

CHUNK = 1 << 14  # windows that are sorted at once


@dataclass(frozen=True)
class Limits:
    """Where the alarms go off.

    Parameters
    ----------
    window : int
        Rows to look back, at least 4; alarms that compare with the past start once it is full.
    spike : float
        Loss above the median of the window, in units of its scatter (1.4826 times the median
        absolute deviation, the standard deviation of a normal).
    growth : float
        Gradient norm over its median in the window.
    ratio : float
        Norm of the update over that of the parameters.
    noise : float
        Noise scale over the batch size: a note that the batch is small, no sign of failure.

    Raises
    ------
    InvalidProblem
        A window below 4, a limit that is not > 0.
    """

    window: int = 20
    spike: float = 6.0
    growth: float = 3.0
    ratio: float = 0.1
    noise: float = 10.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "window", whole("window", self.window, 4, 10**6))
        for field in ("spike", "growth", "ratio", "noise"):
            positive(field, getattr(self, field))


@dataclass(frozen=True)
class Alarm:
    """One alarm over a log.

    Attributes
    ----------
    name : str
        One of `ALARMS`.
    measured : int
        In how many rows it could have gone off.
    step : int or None
        First step at which it did.
    value : float or None
        What crossed the limit there.
    limit : float
        In the same units.
    text : str
        What it compares.
    """

    name: str
    measured: int
    step: int | None
    value: float | None
    limit: float
    text: str


Crossing = tuple[Ints, Floats, float]


def edge_ratio(log: Log, rule: UpdateRule) -> tuple[Ints, Floats]:
    """Learning rate over the largest stable one, where a sharpness was measured: 1 is the edge."""
    steps, sharpness = log.series("sharpness")
    if not len(steps) or "lr" not in log.columns:
        return np.empty(0, np.int64), np.empty(0)
    lr = log.columns["lr"][log.present["sharpness"]]
    good = np.isfinite(sharpness) & np.isfinite(lr)
    limit = rule.limit(np.maximum(sharpness[good], 0.0))
    return steps[good], lr[good] / limit


def update_ratio(log: Log) -> tuple[Ints, Floats]:
    """Norm of the update over that of the parameters, where both were measured."""
    return _ratio(log, "update_norm", "parameter_norm")


def alarms(log: Log, rule: UpdateRule | None = None, limits: Limits | None = None) -> list[Alarm]:
    """All alarms that a log allows, the earliest first, then those that did not go off.

    Parameters
    ----------
    log : Log
    rule : UpdateRule, optional
        Of the optimiser, for the edge of stability; gradient descent by default.
    limits : Limits, optional

    Returns
    -------
    list of Alarm
        Those without the columns they need are left out.
    """
    rule, limits = rule or UpdateRule(), limits or Limits()
    found = []
    for name, (text, measure) in ALARMS.items():
        steps, values, limit = measure(log, rule, limits)
        if not len(steps):
            continue
        over = np.flatnonzero(~(values <= limit))
        step, value = (int(steps[over[0]]), float(values[over[0]])) if over.size else (None, None)
        found.append(Alarm(name, len(steps), step, value, limit, text))
    return sorted(found, key=lambda one: math.inf if one.step is None else one.step)


def _ratio(log: Log, top: str, bottom: str) -> tuple[Ints, Floats]:
    if top not in log.columns or bottom not in log.columns:
        return np.empty(0, np.int64), np.empty(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = log.columns[top] / log.columns[bottom]
    kept = log.present[top] & log.present[bottom] & (log.columns[bottom] > 0.0)
    return log.steps[kept], ratio[kept]


def _past(values: Floats, window: int, reduce: Callable[[Floats], Floats]) -> Floats:
    """``reduce`` over the rows before each, nan until the window is full."""
    past = np.full(len(values), math.nan)
    if len(values) <= window:
        return past
    views = sliding_window_view(values[:-1], window)
    parts = [reduce(views[i : i + CHUNK]) for i in range(0, len(views), CHUNK)]
    past[window:] = np.concatenate(parts)
    return past


def _median(rows: Floats) -> Floats:
    return np.median(rows, axis=1)


def _scatter(rows: Floats) -> Floats:
    return 1.4826 * np.median(np.abs(rows - np.median(rows, axis=1, keepdims=True)), axis=1)


def _comparable(steps: Ints, values: Floats, scaled: Floats) -> tuple[Ints, Floats]:
    """Rows with a past to compare with, and those that are not finite."""
    scaled = np.where(np.isfinite(values), scaled, math.inf)
    kept = ~np.isnan(scaled)
    return steps[kept], scaled[kept]


def _spike(log: Log, _: UpdateRule, limits: Limits) -> Crossing:
    steps, loss = log.series("loss")
    with np.errstate(invalid="ignore", divide="ignore"):
        above = loss - _past(loss, limits.window, _median)
        scaled = above / _past(loss, limits.window, _scatter)
    scaled = np.where(above <= 0.0, 0.0, scaled)
    return *_comparable(steps, loss, scaled), limits.spike


def _growth(log: Log, _: UpdateRule, limits: Limits) -> Crossing:
    steps, norm = log.series("gradient_norm")
    with np.errstate(invalid="ignore", divide="ignore"):
        scaled = norm / _past(norm, limits.window, _median)
    return *_comparable(steps, norm, scaled), limits.growth


def _edge(log: Log, rule: UpdateRule, _: Limits) -> Crossing:
    return *edge_ratio(log, rule), 1.0


def _large_update(log: Log, _: UpdateRule, limits: Limits) -> Crossing:
    return *update_ratio(log), limits.ratio


def _small_batch(log: Log, _: UpdateRule, limits: Limits) -> Crossing:
    return *_ratio(log, "noise_scale", "batch_size"), limits.noise


def _nonfinite(log: Log, _: UpdateRule, __: Limits) -> Crossing:
    bad = log.nonfinite()
    values = np.where(log.steps >= (math.inf if bad is None else bad[0]), math.inf, 0.0)
    return log.steps, values, 0.0


Measure = Callable[[Log, UpdateRule, Limits], Any]
ALARMS: dict[str, tuple[str, Measure]] = {
    "edge": ("rate over the largest that the sharpness allows", _edge),
    "loss spike": ("loss above its recent median, in units of its scatter", _spike),
    "gradient growth": ("gradient norm over its recent median", _growth),
    "update ratio": ("norm of the update over that of the parameters", _large_update),
    "noise": ("noise scale over the batch size", _small_batch),
    "not finite": ("something is nan or infinite", _nonfinite),
}
