"""A schedule in words: what one would tell a colleague on the phone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from optsched.arrays import Floats
from optsched.schedules.schedule import Schedule

__all__ = ["in_words"]

SAME = 1e-3  # of the peak: the rate still holds
NEAR = 0.01  # of the peak: how far the rates may be from what is said
PLAIN = 0.3  # of that, for the first decay in the list that fits
NOTHING = 1e-3  # of the peak: a last rate that is called 0
BRIEF = 0.002  # of the horizon: a hold that is not worth a word
POWERS = 0.1, 20.0
POINTS = 129

# Decays g(r) from 1 at r = 0 to 0 at r = 1, the plainest first, and where they are 1 - SAME.
DECAYS: tuple[tuple[str, Callable[[Floats], Floats], float], ...] = (
    ("linearly", lambda r: 1.0 - r, SAME),
    ("as a cosine", lambda r: 0.5 * (1.0 + np.cos(np.pi * r)), math.acos(1 - 2 * SAME) / math.pi),
    ("as 1 - sqrt", lambda r: 1.0 - np.sqrt(r), SAME**2),
)


def in_words(schedule: Schedule, start: int = 0) -> str:
    """The learning rate of a schedule in one sentence.

    Parameters
    ----------
    schedule : Schedule
    start : int
        First step that is told of.

    Returns
    -------
    str
        Warm-up, hold and decay, by a name from which no rate is further than a hundredth of the
        peak; else by the steps at which the rate has fallen to a half and to a tenth.
    """
    steps, eta = _told(schedule, start)
    end, peak = schedule.horizon, float(eta.max())
    if peak == 0.0:
        return "a rate of 0"
    high = np.flatnonzero(eta >= (1.0 - SAME) * peak)
    first, last = int(high[0]), int(high[-1])
    parts = [] if first == 0 else [_rise(steps[: first + 1] - start, eta[: first + 1], peak)]
    rate = _rate(peak)
    if eta[first : last + 1].min() < (1.0 - NEAR) * peak:
        return ", ".join([*parts, f"then as in the table, up to {rate}"])
    if last == len(eta) - 1:
        return ", ".join([*parts, f"hold {rate} to the end"])
    begin, fall = _decay(steps[last:], eta[last:], peak, end)
    if begin - steps[first] > BRIEF * end:
        parts.append(f"hold {rate} to step {round(begin):,}")
    elif parts:
        parts[-1] += f" to {rate}"
    else:
        parts.append(f"start at {rate}")
    return ", ".join(parts) + ", " + fall


def _told(schedule: Schedule, start: int) -> tuple[Floats, Floats]:
    """Knots from the first step that is told of."""
    kept = schedule.steps > start
    steps = np.append(start, schedule.steps[kept]).astype(float)
    return steps, np.append(float(schedule(start)), schedule.controls["eta"][kept])


def _rise(steps: Floats, eta: Floats, peak: float) -> str:
    """The first part, up to the first knot at the peak."""
    # A ramp may end between two steps, as averages over a step do: where there are more knots
    # than two, the last is not on the line.
    line = slice(None, -1 if len(steps) > 2 else None)
    slope, offset = np.polyfit(steps[line], eta[line], 1)
    if slope > 0.0 and np.abs(offset + slope * steps[line] - eta[line]).max() <= NEAR * peak:
        crossing = math.ceil(round((peak - offset) / slope, 6))
        if abs(crossing - steps[-1]) <= 1.0 + BRIEF * steps[-1]:
            return f"warm up {crossing:,} steps"
    return f"rise by step {round(float(steps[-1])):,}"


def _decay(steps: Floats, eta: Floats, peak: float, end: int) -> tuple[float, str]:
    """Where the last part begins, and what it does."""
    # Knots may be far apart where the rate is a line between them.
    even = np.linspace(steps[0], steps[-1], POINTS)
    fine = np.unique(np.concatenate([steps, even]))
    y = np.interp(fine, steps, eta) / peak
    found = _named(fine, y, float(end))
    if found is not None:
        begin, how, final = found
        to = "0" if final <= NOTHING else _rate(final * peak)
        return begin, f"then decay {how} to {to} over {_last(begin, end)}"
    if np.any(np.diff(y) > NEAR):
        return float(fine[0]), f"then as in the table over {_last(fine[0], end)}"
    told = [
        f"{name} at step {round(float(np.interp(-level, -y, fine))):,}"
        for name, level in (("half", 0.5), ("a tenth", 0.1))
        if y[-1] < level
    ]
    told.append(f"{_rate(float(eta[-1]))} at the end")
    return float(fine[0]), f"then fall over {_last(fine[0], end)}: " + ", ".join(told)


def _last(begin: float, end: int) -> str:
    share = 100.0 * (end - begin) / end
    return "the whole run" if share > 99.95 else f"the last {share:.1f} %"


def _named(steps: Floats, y: Floats, end: float) -> tuple[float, str, float] | None:
    """Begin, name and last rate of the plainest decay that is near enough."""
    found = []
    for name, shape, gone in DECAYS:
        error, begin, final = _error(steps, y, end, shape, gone)
        if error <= PLAIN * NEAR:
            return begin, name, final
        found.append((error, begin, name, final))

    def power(at: float) -> tuple[float, float, float]:
        a = math.exp(at)
        return _error(steps, y, end, lambda r: (1.0 - r) ** a, -math.expm1(math.log1p(-SAME) / a))

    low, high = math.log(POWERS[0]), math.log(POWERS[1])
    best: Any = minimize_scalar(lambda at: power(at)[0], bounds=(low, high), method="bounded")
    error, begin, final = power(float(best.x))
    found.append((error, begin, f"with power {math.exp(float(best.x)):.2g}", final))
    if y[-1] > 0.0:
        speed = -math.log(y[-1]) / (steps[-1] - steps[0])
        error = float(np.abs(np.exp(-speed * (steps - steps[0])) - y).max())
        begin = max(float(steps[0]) - SAME / speed, 0.0)
        found.append((error, begin, "exponentially", float(y[-1])))
    error, begin, name, final = min(found)
    return (begin, name, final) if error <= NEAR else None


def _error(
    steps: Floats, y: Floats, end: float, shape: Callable[[Floats], Floats], gone: float
) -> tuple[float, float, float]:
    """Largest error of f + (1 - f) g, where it begins, and the last rate f that fits best.

    The first step is the last at the peak, for all that can be seen: g may be 1 - SAME there.
    """
    best = (math.inf, 0.0, 0.0)
    for begin in (max((steps[0] - gone * end) / (1.0 - gone), 0.0), float(steps[0])):
        g = shape((steps - begin) / (end - begin))
        rest = 1.0 - g
        f = float(np.clip(rest @ (y - g) / max(float(rest @ rest), 1e-300), 0.0, 1.0))
        error = float(np.abs(f + (1.0 - f) * g - y).max())
        best = min(best, (error, float(begin), f))
    return best


def _rate(value: float) -> str:
    return f"{value:.3g}"
