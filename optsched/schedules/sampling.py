"""Values of a schedule from a function of time, and at a traced JAX step."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from optsched.arrays import Floats
from optsched.errors import InvalidProblem

if TYPE_CHECKING:
    from optsched.schedules.schedule import Schedule

__all__ = ["evaluate", "step_rule", "traced_value"]


def step_rule(graded: bool) -> tuple[Floats, Floats]:
    """Nodes and weights of a composite Gauss-Legendre rule on [0, 1]."""
    x, w = np.polynomial.legendre.leggauss(8)
    half = np.concatenate([[0.0], 0.5 ** np.arange(50 if graded else 1, 0, -1.0)])
    edges = np.concatenate([half, 1.0 - half[-2::-1]])
    width = np.diff(edges)[:, None]
    return (edges[:-1, None] + 0.5 * width * (1.0 + x)).ravel(), (0.5 * width * w).ravel()


def evaluate(f: Callable[[Floats], ArrayLike], t: Floats) -> Floats:
    """Evaluate f at an array of times."""
    allowed = "a function of an array of times that returns finite rates >= 0 of its shape"
    try:
        values = np.asarray(f(t.ravel()), dtype=np.float64)
        return np.broadcast_to(values, t.size).reshape(t.shape)
    except (TypeError, ValueError) as error:
        raise InvalidProblem("f", f, f"{allowed} ({error})") from error


def traced_value(schedule: Schedule, step: Any, control: str, jnp: Any) -> Any:
    """Value at a traced JAX step; jnp.interp in float32 would merge knots above step 2^24."""
    integer, real = jnp.result_type(int), jnp.result_type(float)
    end = min(schedule.horizon - 1, int(jnp.iinfo(integer).max))
    steps, values = schedule.steps, schedule.controls[control]
    if end < schedule.horizon - 1:
        # Without 64-bit integers no step gets further than this.
        keep = steps < end
        values = np.append(values[keep], schedule(end, control))
        steps = np.append(steps[keep], end)
    if len(steps) == 1:
        steps, values = np.append(steps, 1), np.repeat(values, 2)
    slopes = jnp.asarray(np.diff(values) / np.diff(steps), real)
    knots, values = jnp.asarray(steps, integer), jnp.asarray(values, real)
    asked = step.astype(integer)
    k = jnp.clip(asked, 0, end)
    i = jnp.clip(jnp.searchsorted(knots, k, side="right") - 1, 0, len(steps) - 2)
    left, right = k - knots[i], knots[i + 1] - k
    # From the nearer knot: a decay to zero keeps its relative accuracy in float32.
    rise, fall = slopes[i] * left, slopes[i] * right
    value = jnp.where(left <= right, values[i] + rise, values[i + 1] - fall)
    value = jnp.clip(value, *schedule._ranges[control])
    past = asked > end
    if schedule.extend == "raise":
        value = jnp.where(past, jnp.nan, value)
    elif schedule.extend == "zero" and control == "eta":
        value = jnp.where(past, 0.0, value)
    return jnp.where(asked < 0, jnp.nan, value)
