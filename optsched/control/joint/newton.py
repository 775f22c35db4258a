"""Newton's method within bounds, for objectives that know their Hessian: saddles are left."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from optsched.arrays import Floats
from optsched.control.methods.descent import projected_gradient
from optsched.control.task import Iterate

__all__ = ["Curved", "newton"]

RADIUS = 1.0  # of a step at first, and at most: largest change of a coordinate
LARGEST = 4.0
FLAT = 1e-9  # of the largest curvature: less counts as so much
SMALL = 1e-9  # a radius at which nothing is left to gain


class Curved(Protocol):
    """An objective with two derivatives."""

    def __call__(self, x: Floats) -> tuple[float, Floats, Floats]:
        """Value, gradient, and anything."""
        ...

    def hessian(self, x: Floats) -> Floats:
        """Second derivatives."""
        ...


def _step(slope: Floats, curvature: Floats, vectors: Floats, radius: float) -> Floats:
    """Newton's step with curvatures by their size, damped until no entry is beyond the radius."""
    along, size = vectors.T @ slope, np.abs(curvature)
    size = np.maximum(size, FLAT * max(float(size.max()), 1e-300))
    damping = 0.0
    while True:
        step = -(vectors @ (along / (size + damping)))
        longest = float(np.abs(step).max())
        if longest <= radius:
            return step
        # Each entry falls at least as 1 / damping once that rules.
        damping = max(2.0 * damping, float(np.abs(along).max()) / (4.0 * radius) * 1e-3)


def newton(
    objective: Curved,
    start: Floats,
    lower: Floats,
    upper: Floats,
    tol: float,
    max_iterations: int = 60,
) -> Iterate:
    """Minimise a smooth function within bounds.

    Steps are those of Newton's method in the variables that no bound holds, with the sizes of the
    curvatures in place of their signs, within a trust region, and projected on the bounds.

    Parameters
    ----------
    objective : Curved
    start, lower, upper : numpy.ndarray, shape (n,)
    tol : float
        Largest entry of the projected gradient at convergence.
    max_iterations : int
        Number of Hessians.

    Returns
    -------
    Iterate
    """
    x, radius = np.clip(start, lower, upper), RADIUS
    value, gradient, _ = objective(x)
    history: list[tuple[float, float]] = []
    message = f"No convergence in {max_iterations} steps of Newton's method."
    done = False
    for _ in range(max_iterations):
        pull = projected_gradient(x, gradient, lower, upper)
        residual = float(np.abs(pull).max())
        history.append((value, residual))
        if residual <= tol or not np.isfinite(residual):
            break
        hessian = objective.hessian(x)
        if not np.isfinite(hessian).all():
            message = "No second derivative: a schedule next to it diverges."
            break
        free = np.flatnonzero(pull != 0.0)
        curvature, vectors = np.linalg.eigh(hessian[np.ix_(free, free)])
        while True:
            moved = np.zeros_like(x)
            moved[free] = _step(pull[free], curvature, vectors, radius)
            trial = np.clip(x + moved, lower, upper)
            moved = trial - x
            promised = -float(gradient @ moved + 0.5 * moved @ (hessian @ moved))
            new = objective(trial)
            slack = 1e-14 * max(1.0, abs(value))
            gained = value - new[0]
            good = np.isfinite(new[0]) and np.isfinite(new[1]).all()
            if good and gained >= 1e-4 * promised - slack:
                break
            radius = 0.3 * min(radius, float(np.abs(moved).max()))
            if radius < SMALL:
                break
        if radius < SMALL:
            message = "Newton's method cannot lower the loss any further."
            break
        if gained > 0.7 * promised:
            radius = min(LARGEST, max(radius, 3.0 * float(np.abs(moved).max())))
        elif gained < 0.3 * promised:
            radius = 0.5 * float(np.abs(moved).max())
        x, (value, gradient, _) = trial, new
    residual = float(np.abs(projected_gradient(x, gradient, lower, upper)).max())
    if residual <= tol:
        done, message = True, "KKT residual below the tolerance."
    return Iterate(x, done, message, history, {"iterations": len(history)})
