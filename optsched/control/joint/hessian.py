"""Second-order evidence: the Hessian of an objective in its free variables."""

from __future__ import annotations

import math

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.control.methods.descent import Function

__all__ = ["lowest_curvature"]

STEP = 1e-5  # of a log control: truncation and rounding of the gradient are both far below


def lowest_curvature(
    function: Function, x: Floats, lower: Floats, upper: Floats
) -> tuple[float, Floats]:
    """Lowest eigenvalue of the Hessian, in units of the largest, and its eigenvector.

    Variables at a bound are held. Where the function has no ``hessian`` its columns are differences
    of the gradient, one evaluation each.

    Parameters
    ----------
    function : callable
        Returns value, gradient and metric.
    x, lower, upper : numpy.ndarray, shape (n,)

    Returns
    -------
    float
        0 if every variable is at a bound; -inf where the objective is not finite nearby.
    numpy.ndarray, shape (n,)
        Unit vector; 0 for the variables that are held.
    """
    free = np.flatnonzero((x > lower) & (x < upper))
    direction = np.zeros_like(x)
    if free.size == 0:
        return 0.0, direction
    if hasattr(function, "hessian"):
        return _lowest(function.hessian(x), free)  # type: ignore[attr-defined]
    base, columns = function(x)[1], []
    for i in free:
        moved = x.copy()
        # Away from a bound that is near.
        moved[i] += STEP if x[i] + STEP <= upper[i] else -STEP
        columns.append((function(moved)[1] - base)[free] / (moved[i] - x[i]))
    hessian = np.zeros((len(x), len(x)))
    hessian[np.ix_(free, free)] = columns
    return _lowest(hessian, free)


def _lowest(hessian: Floats, free: Ints) -> tuple[float, Floats]:
    direction, own = np.zeros(len(hessian)), hessian[np.ix_(free, free)]
    if not np.isfinite(own).all():  # next to schedules that diverge: nothing is shown
        return -math.inf, direction
    values, vectors = np.linalg.eigh(0.5 * (own + own.T))
    direction[free] = vectors[:, 0]
    top = float(np.abs(values).max())
    return (float(values[0]) / top if top > 0.0 else 0.0), direction
