"""Whether a training run uses a schedule as it is meant: the same steps, the same rates."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from optsched.checks import integers, real_array, whole
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem
from optsched.schedules.exports.common import check_exportable
from optsched.schedules.schedule import Schedule

__all__ = ["check_alignment"]

MAX_FACTOR = 64


def check_alignment(
    schedule: Schedule,
    updates: int | None = None,
    rates: Mapping[int, float] | None = None,
    *,
    rtol: float = 1e-4,
) -> None:
    """Raise unless a run makes as many updates as the schedule has steps, at the right rates.

    Parameters
    ----------
    schedule : Schedule
        In updates.
    updates : int, optional
        Optimizer steps that the run will make: ``max_steps`` of a Trainer,
        ``trainer.estimated_stepping_batches`` of Lightning, ``len(loader) // accumulation`` an
        epoch of a loop.
    rates : mapping of int to float, optional
        Rates that were in force, by update from 0, as a log or a dry run of the loop has them.
    rtol : float
        Largest relative difference of a rate, and smallest that counts: float32 and rounded logs
        pass.

    Raises
    ------
    InvalidProblem
        Naming what does not fit and, where one explains every rate, the usual mistake: a scheduler
        that is stepped several times an update, or once in several, late or early by one, or a
        rate that is multiplied.
    """
    check_exportable(schedule)
    if updates is not None:
        updates = whole("updates", updates, 1, MAX_HORIZON)
        if updates != schedule.horizon:
            raise InvalidProblem("updates", updates, _wanted(schedule.horizon, updates))
    if rates:
        steps = integers("rates", list(rates))
        found = real_array("rates", list(rates.values())).astype(np.float64)
        steps, found = steps[np.argsort(steps)], found[np.argsort(steps)]
        off = ~_close(found, schedule(steps), rtol)
        if off.any():
            at = int(np.flatnonzero(off)[0])
            step = int(steps[at])
            raise InvalidProblem(
                "rates",
                float(found[at]),
                f"{schedule(step):.6g} at update {step}{_cause(schedule, steps, found, rtol)}",
            )


def _wanted(horizon: int, updates: int) -> str:
    text = f"{horizon}, the steps of the schedule"
    for more, fewer, advice in (
        (horizon, updates, "per_update(schedule, {0}) if its steps are micro-batches or samples"),
        (updates, horizon, "count updates, not micro-batches or the steps of {0} processes"),
    ):
        factor, rest = divmod(more, fewer)
        if rest == 0 and factor > 1:
            return f"{text}; a factor of {factor}: {advice.format(factor)}"
    return f"{text}; solve again for {updates} steps, as a cut schedule does not anneal"


def _close(
    found: NDArray[np.float64], wanted: NDArray[np.float64], rtol: float
) -> NDArray[np.bool_]:
    return np.isclose(found, wanted, rtol=rtol, atol=1e-12 * float(np.max(np.abs(wanted))))


def _cause(
    schedule: Schedule, steps: NDArray[np.int64], found: NDArray[np.float64], rtol: float
) -> str:
    """The mistake that explains every rate; nothing if none does, or if several rates are equal."""
    held = schedule.replace(extend="hold")
    if len(np.unique(found)) < 2:
        return ""
    guesses = [
        ("is one step early: is step() called before the first update?", steps + 1),
        ("is one step late: is step() called after every update?", np.maximum(steps - 1, 0)),
    ]
    for factor in range(2, MAX_FACTOR + 1):
        many = f"is {factor} times too fast: step() is called {factor} times an update (every=)"
        few = f"is {factor} times too slow: step() is called once in {factor} updates"
        guesses += [(many, factor * steps), (few, steps // factor)]
    for text, shifted in guesses:
        if _close(found, held(shifted), rtol).all():
            return f"; the schedule {text}"
    ratio = found / np.where(held(steps) > 0.0, held(steps), np.nan)
    if _close(ratio, np.full(ratio.shape, ratio[0]), rtol).all():
        return f"; every rate is {ratio[0]:.6g} times that: is it multiplied by a base rate?"
    return ""
