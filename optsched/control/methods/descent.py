"""Projected quasi-Newton descent in a given metric, for bound constraints."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats

__all__ = ["Descent", "projected_descent", "projected_gradient", "strict_tolerance"]

Function = Callable[[Floats], tuple[float, Floats, Floats]]


@dataclass(frozen=True, eq=False)
class Descent:
    """Result of `projected_descent`; ``history`` has (value, residual) of every iterate."""

    x: Floats
    value: float
    gradient: Floats
    residual: float
    converged: bool
    history: list[tuple[float, float]]


def projected_gradient(x: Floats, gradient: Floats, lower: Floats, upper: Floats) -> Floats:
    """Gradient with the parts removed that only push against an active bound."""
    held = ((x <= lower) & (gradient > 0.0)) | ((x >= upper) & (gradient < 0.0))
    return np.where(held, 0.0, gradient)


def strict_tolerance(tol: float, metric: Floats) -> float:
    """Tolerance of the residual where the controls hardly move the value.

    The sum of the metric is the elasticity of the value in all controls together; where it is
    far below 1, a small gradient alone says nothing.
    """
    return tol * min(1.0, float(metric.sum()))


def _direction(pull: Floats, metric: Floats, pairs: list[tuple[Floats, Floats]]) -> Floats:
    """Two-loop L-BFGS recursion on the free variables, with 1/metric as first inverse Hessian."""
    free = pull != 0.0
    q = pull.copy()
    used = []
    for s, y in reversed(pairs):
        sy = float((s * y)[free].sum())
        if sy > 1e-14 * float(np.linalg.norm(s[free]) * np.linalg.norm(y[free])) and sy > 0.0:
            alpha = float((s * q)[free].sum()) / sy
            q = np.where(free, q - alpha * y, 0.0)
            used.append((s, y, sy, alpha))
    scale = 1.0
    if used:
        s, y, sy, _ = used[0]
        # Not y^2 over the metric first: both may be so small that squares underflow.
        scale = 1.0 / float((y / sy * (y / metric))[free].sum())
    r = scale * q / metric
    for s, y, sy, alpha in reversed(used):
        beta = float((y * r)[free].sum()) / sy
        r = np.where(free, r + (alpha - beta) * s, 0.0)
    return -r


def projected_descent(
    function: Function,
    x0: Floats,
    lower: Floats,
    upper: Floats,
    *,
    tol: float,
    max_iterations: int = 200,
    memory: int = 20,
) -> Descent:
    """Minimise a smooth function within bounds.

    Two-metric projection (Bertsekas 1982): an L-BFGS step on the variables that no bound holds,
    projected, with an Armijo search along the projection.

    Parameters
    ----------
    function : callable
        Returns value, gradient and a positive metric (an estimate of the diagonal curvature).
    x0, lower, upper : numpy.ndarray, shape (n,)
    tol : float
        Largest absolute entry of the projected gradient at convergence, times the sum of the
        metric where that is below 1.
    max_iterations : int
        Number of iterations.
    memory : int
        Number of curvature pairs.

    Returns
    -------
    Descent
    """
    x = np.clip(x0, lower, upper)
    value, gradient, metric = function(x)
    pairs: list[tuple[Floats, Floats]] = []
    history: list[tuple[float, float]] = []
    for _ in range(max_iterations):
        pull = projected_gradient(x, gradient, lower, upper)
        residual = float(np.abs(pull).max())
        history.append((value, residual))
        if residual <= strict_tolerance(tol, metric) or not np.isfinite(residual):
            break
        floor = max(1e-3 * float(np.median(metric)), 1e-300)
        step = _direction(pull, np.maximum(metric, floor), pairs)
        if float(step @ pull) >= 0.0:
            pairs.clear()
            step = -pull / np.maximum(metric, floor)
        step *= min(1.0, 2.0 / max(float(np.abs(step).max()), 1e-300))
        size = 1.0
        while True:
            trial = np.clip(x + size * step, lower, upper)
            moved = trial - x
            new = function(trial)
            # Rounding of log E is a few 1e-16; below it, decrease the gradient instead.
            slack = 1e-14 * max(1.0, abs(value))
            if np.isfinite(new[0]) and new[0] <= value + 1e-4 * float(gradient @ moved) + slack:
                break
            size *= 0.5 if np.isfinite(new[0]) else 0.1
            if size < 1e-6:
                break
        if size < 1e-6:
            if not pairs:
                break
            pairs.clear()
            continue
        pairs.append((moved, new[1] - gradient))
        pairs = pairs[-memory:]
        x, (value, gradient, metric) = trial, new
    pull = projected_gradient(x, gradient, lower, upper)
    residual = float(np.abs(pull).max())
    converged = bool(residual <= strict_tolerance(tol, metric))
    return Descent(x, value, gradient, residual, converged, history)
