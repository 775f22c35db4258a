"""Values of a schedule from a function of time, and at a traced JAX step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from optsched.arrays import Floats, Ints
from optsched.errors import InvalidProblem

__all__ = ["evaluate", "sampled", "step_rule", "traced_value"]


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


def sampled(f: Callable[[Floats], ArrayLike], horizon: int, average: bool) -> Floats:
    """Averages of f over every step, or its values at their starts, shape (horizon,)."""
    eta = np.empty(horizon)
    ends, inner = step_rule(graded=True), step_rule(graded=False)
    block = 1 << 14
    # First and last step apart: they have a rule of their own.
    starts = {0, horizon - 1, *range(1, horizon - 1, block)}
    for start in sorted(starts):
        single = start in (0, horizon - 1)
        k = np.arange(start, start + 1 if single else min(start + block, horizon - 1))
        nodes, weights = ends if single else inner
        if not average:
            eta[k] = evaluate(f, k.astype(np.float64))
            continue
        rates = evaluate(f, k[:, None] + nodes)
        # A mean stays in the range of what it averages; rounding alone would leave it.
        eta[k] = np.clip(rates @ weights, rates.min(1), rates.max(1))
    return eta


def traced_value(
    steps: Ints, values: Floats, step: Any, jnp: Any, beyond: float | None = None
) -> Any:
    """Value at a traced JAX step; jnp.interp in float32 would merge knots above step 2^24.

    Parameters
    ----------
    steps, values : numpy.ndarray, shape (n,)
        The knots; linear between them.
    step : jax.Array
        Traced, of an integer type. Negative ones give nan.
    jnp : module
        `jax.numpy`, so that it is not loaded here.
    beyond : float, optional
        Value past the last knot; default: the last value.
    """
    integer, real = jnp.result_type(int), jnp.result_type(float)
    least, most, final = values.min(), values.max(), int(steps[-1])
    end = min(final, int(jnp.iinfo(integer).max))
    if end < final:
        # Without 64-bit integers no step gets further than this.
        keep = steps < end
        values = np.append(values[keep], np.interp(end, steps, values))
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
    value = jnp.clip(value, least, most)
    if beyond is not None:
        value = jnp.where(asked > end, beyond, value)
    return jnp.where(asked < 0, jnp.nan, value)
