"""Schedules in Keras 3, on any of its backends.

The framework is imported when it is first needed, so this module imports without it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from optsched.checks import whole
from optsched.errors import InvalidProblem
from optsched.schedules.exports.common import check_exportable, framework
from optsched.schedules.schedule import MAX_HORIZON, Extend, Schedule

__all__ = ["to_keras"]

LAST = 2**31 - 1  # JAX and TensorFlow count in 32 bits here


def to_keras(schedule: Schedule, *, every: int = 1) -> Any:
    """Learning rate of a schedule, for ``keras.optimizers.SGD(learning_rate=...)`` and others.

    Parameters
    ----------
    schedule : Schedule
        In updates: for samples or tokens see `optsched.schedules.exports.common.per_update`. Only
        its rates count, as Keras has no schedule of the momentum: one with ``beta`` is refused.
    every : int
        Batches for one step of the schedule: ``gradient_accumulation_steps`` of the optimizer,
        as Keras counts batches and not updates.

    Returns
    -------
    ScheduleRate
        A ``keras.optimizers.schedules.LearningRateSchedule``, in float32. It is saved with a model
        as its knots. To load such a model, import this module, after Keras.

    Raises
    ------
    InvalidProblem
        A unit other than steps, ``every`` not whole or below 1, or a ``beta``: drop it with
        ``schedule.replace(beta=None)``.
    MissingExtra
        Keras, or its backend, is not installed.

    Notes
    -----
    Past the end: the last rate, or 0 with ``extend="zero"``; nan with ``extend="raise"``, as
    compiled code cannot raise.
    """
    check_exportable(schedule)
    if "beta" in schedule.controls:
        allowed = "no beta, which Keras cannot schedule: replace(beta=None, nu=None)"
        raise InvalidProblem("schedule", [*schedule.controls], allowed)
    rates = schedule.controls["eta"].tolist()
    every = whole("every", every, 1, MAX_HORIZON)
    return __getattr__("ScheduleRate")(schedule.steps.tolist(), rates, schedule.extend, every)


class _ScheduleRate:
    """A schedule in Keras but for its base class; see `to_keras`."""

    def __init__(
        self, steps: Sequence[int], rates: Sequence[float], extend: Extend, every: int = 1
    ) -> None:
        self.every = every
        self.schedule = Schedule(steps[-1] + 1, steps, {"eta": rates}, extend=extend)
        self.end = min(self.schedule.horizon - 1, LAST)
        kept = self.schedule.steps < self.end
        self._steps = np.append(self.schedule.steps[kept], self.end).astype(np.int32)
        self._rates = self.schedule(self._steps)

    def __call__(self, step: Any) -> Any:
        """Rate of the update that batch ``step`` is a part of, as a tensor."""
        ops = framework("keras", "keras").ops
        asked = ops.cast(step, "int32")
        if self.every > 1:
            asked = ops.floor_divide(asked, self.every)
        k = ops.clip(asked, 0, self.end)
        rate = ops.convert_to_tensor(self._rates[-1], "float32")
        if len(self._steps) > 1:
            rate = self._between(ops, k)
        if self.schedule.extend != "hold":
            past = 0.0 if self.schedule.extend == "zero" else np.nan
            rate = ops.where(asked > self.end, ops.cast(past, "float32"), rate)
        return rate

    def _between(self, ops: Any, k: Any) -> Any:
        slopes = np.diff(self._rates) / np.diff(self._steps)
        steps = ops.convert_to_tensor(self._steps, "int32")
        rates = ops.convert_to_tensor(self._rates, "float32")
        # Counting the knots is a search that every backend compiles for a scalar.
        i = ops.sum(ops.cast(steps[1:-1] <= ops.expand_dims(k, -1), "int32"), axis=-1)
        slope = ops.take(ops.convert_to_tensor(slopes, "float32"), i)
        left, right = k - ops.take(steps, i), ops.take(steps, i + 1) - k
        # From the nearer knot: a decay to zero keeps its relative accuracy in float32.
        rise = ops.take(rates, i) + slope * ops.cast(left, "float32")
        fall = ops.take(rates, i + 1) - slope * ops.cast(right, "float32")
        rate = ops.where(left <= right, rise, fall)
        return ops.clip(rate, float(self._rates.min()), float(self._rates.max()))

    def get_config(self) -> dict[str, Any]:
        """Knots, the rule past the end, and batches a step."""
        schedule = self.schedule
        rates = schedule.controls["eta"].tolist()
        known = {"steps": schedule.steps.tolist(), "rates": rates, "extend": schedule.extend}
        return known | {"every": self.every}


def __getattr__(name: str) -> Any:
    """Make the class when it is first asked for, and register it for loading."""
    if name != "ScheduleRate":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in globals():
        keras = framework("keras", "keras")
        base = keras.optimizers.schedules.LearningRateSchedule
        body = {"__module__": __name__, "__doc__": "Schedule that `to_keras` returns."}
        made = type(name, (_ScheduleRate, base), body)
        globals()[name] = keras.saving.register_keras_serializable("optsched")(made)
    return globals()[name]


if hasattr(sys.modules.get("keras"), "optimizers"):
    __getattr__("ScheduleRate")  # a model that is loaded asks for it by its name
