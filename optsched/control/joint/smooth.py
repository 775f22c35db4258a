"""The smoothest schedule that is nearly as good as the best one found."""

from __future__ import annotations

import math

from optsched.arrays import Floats
from optsched.control.joint.curved import CurvedObjective
from optsched.control.joint.newton import newton

__all__ = ["smoothest"]

FIRST = 1e-6  # weight of the roughness, in units of the log of the loss
ROUNDS = 7
STEPS = 12  # of Newton's method, each round
TOL = 1e-4
WANTED = 0.8  # of what may be given up: the rest is for the mesh and the replay
ENOUGH = 0.5
FURTHEST = 30.0  # of a weight, from round to round
STEEPEST = 2.0  # power of the weight with which the loss grows
FLATTEST = 0.4


class _Smoothed:
    """The log of the loss plus so much of the roughness of what plots show."""

    def __init__(self, objective: CurvedObjective, weight: float) -> None:
        self._objective, self._weight = objective, weight

    def __call__(self, x: Floats) -> tuple[float, Floats, Floats]:
        value, gradient, metric = self._objective(x)
        rough, slope, _ = self._objective.variables.bending(x)
        return value + self._weight * rough, gradient + self._weight * slope, metric

    def hessian(self, x: Floats) -> Floats:
        stiffness = self._objective.variables.bending(x)[2]
        return self._objective.hessian(x) + self._weight * stiffness


def smoothest(objective: CurvedObjective, best: Floats, share: float) -> Floats:
    r"""Variables of least roughness whose loss is within a share of that of the best.

    Minimises :math:`\log E + \rho R` with :math:`R = \frac12 \sum_c \int y_c''^2 ds` over the log
    clock s, where y is what plots show (log of the rate, :math:`\log(1-\beta)`, :math:`\nu`, ...),
    for weights :math:`\rho` until :math:`\log E` is by nearly :math:`\log(1 + share)` above that of
    the best: then :math:`1/\rho` is the multiplier of the loss as a constraint.

    Parameters
    ----------
    objective : CurvedObjective
        Without smoothing of its own.
    best : numpy.ndarray, shape (n,)
        A minimum.
    share : float
        Of the loss, that may be given up.

    Returns
    -------
    numpy.ndarray, shape (n,)
        The best itself where nothing smoother is found.
    """
    variables, least = objective.variables, objective(best)[0]
    allowed = math.log1p(share)
    found, roughness = best, variables.bending(best)[0]
    x, weight, before = best, FIRST, None
    for _ in range(ROUNDS):
        smoothed = _Smoothed(objective, weight)
        x = newton(smoothed, x, variables.lower, variables.upper, TOL, STEPS).x
        lost, smooth = objective(x)[0] - least, variables.bending(x)[0]
        if lost <= allowed and smooth < roughness:
            found, roughness = x, smooth
            if lost >= ENOUGH * allowed:
                break
        here = math.log(max(lost, 1e-3 * allowed)), math.log(weight)
        power = 1.0
        if before is not None and here[1] != before[1]:
            power = (here[0] - before[0]) / (here[1] - before[1])
            power = min(max(power, FLATTEST), STEEPEST)
        factor = math.exp((math.log(WANTED * allowed) - here[0]) / power)
        before = here
        weight *= min(max(factor, 1.0 / FURTHEST), FURTHEST)
    return found
