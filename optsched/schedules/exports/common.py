"""What the exports to training frameworks share: units, fewer knots, the import of a framework."""

from __future__ import annotations

import heapq
import importlib
from typing import Any

import numpy as np

from optsched.checks import whole
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem, MissingExtra
from optsched.schedules.schedule import Schedule

__all__ = ["check_exportable", "framework", "per_update", "simplified"]


ROUNDING = 8.0 * float(np.finfo(np.float64).eps)


def framework(module: str, extra: str) -> Any:
    """Import a module of a framework; `MissingExtra` says how to install it."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        name = module.split(".")[0]
        reason = "is not installed" if error.name == name else f"cannot be imported ({error})"
        raise MissingExtra(f"{name} {reason}: pip install 'optsched[{extra}]'") from None


def check_exportable(schedule: Schedule, control: str = "eta") -> None:
    """Raise unless the schedule counts updates and has the control."""
    if schedule.unit != "steps":
        allowed = "unit 'steps': convert with optsched.schedules.exports.common.per_update"
        raise InvalidProblem("schedule", f"unit {schedule.unit!r}", allowed)
    if control not in schedule.controls:
        raise InvalidProblem("control", control, "one of " + ", ".join(schedule.controls))


def per_update(schedule: Schedule, units: int) -> Schedule:
    r"""Schedule of the updates that each cover ``units`` samples, tokens or steps.

    Parameters
    ----------
    schedule : Schedule
        In any unit.
    units : int
        What one update covers: samples or tokens a batch, or the steps of an epoch where the
        rate is set once an epoch.

    Returns
    -------
    Schedule
        In updates, :math:`\lceil T / \text{units} \rceil` of them. Update j has the mean of the
        values of the units that it covers, so the mean rate of the run stays.

    Raises
    ------
    InvalidProblem
        ``units`` is not a whole number >= 1.
    """
    units = whole("units", units, 1, MAX_HORIZON)
    horizon = -(-schedule.horizon // units)
    # Between the updates that hold knots the means are linear too: knots at both ends.
    near = (schedule.steps // units)[:, None] + np.arange(-1, 2)
    updates = np.unique(np.clip(near, 0, horizon - 1))
    stops = np.minimum((updates + 1) * units, schedule.horizon)
    edges = np.unique(
        np.concatenate([updates * units, stops, schedule.steps, schedule.steps[:-1] + 1])
    )
    first, last = edges[:-1], edges[1:] - 1
    inside = np.isin(first // units, updates)
    first, last = first[inside], last[inside]
    owner = np.searchsorted(updates, first // units)
    share = (last - first + 1) / (stops - updates * units)[owner]
    controls = {}
    for name, values in schedule.controls.items():
        middle = 0.5 * schedule(first, name) + 0.5 * schedule(last, name)
        # Rounding must not carry a mean out of the range of what it averages.
        means = np.bincount(owner, share * middle)
        controls[name] = np.clip(means, values.min(), values.max())
    return schedule.replace(horizon=horizon, steps=updates, controls=controls, unit="steps")


def simplified(schedule: Schedule, points: int | None = None) -> tuple[Schedule, float]:
    """Schedule with fewer knots, where they matter least.

    Parameters
    ----------
    schedule : Schedule
    points : int, optional
        Most knots to keep; default: as many as rounding needs.

    Returns
    -------
    thinned : Schedule
        Its knots are some of those of ``schedule``.
    error : float
        Largest difference at any step, over the largest value of that control.
    """
    steps, count = schedule.steps, len(schedule.steps)
    most = count if points is None else whole("points", points, min(2, count), MAX_HORIZON)
    peaks = [float(v.max()) or 1.0 for v in schedule.controls.values()]
    values = np.stack([v / p for v, p in zip(schedule.controls.values(), peaks, strict=True)])

    def worst(low: int, high: int) -> tuple[float, int, int, int]:
        inner = slice(low + 1, high)
        way = (steps[inner] - steps[low]) / max(steps[high] - steps[low], 1)
        chord = values[:, low, None] * (1.0 - way) + values[:, high, None] * way
        off = np.abs(chord - values[:, inner]).max(0, initial=0.0)
        at = int(off.argmax()) if off.size else 0
        return (-float(off[at]) if off.size else 0.0, low, high, low + 1 + at)

    kept, heap = {0, count - 1}, [worst(0, count - 1)]
    while len(kept) < most and -heap[0][0] > ROUNDING:
        _, low, high, at = heapq.heappop(heap)
        kept.add(at)
        heapq.heappush(heap, worst(low, at))
        heapq.heappush(heap, worst(at, high))
    if len(kept) == count:
        return schedule, 0.0
    chosen = np.array(sorted(kept))
    controls = {name: v[chosen] for name, v in schedule.controls.items()}
    return schedule.replace(steps=steps[chosen], controls=controls), -heap[0][0]
