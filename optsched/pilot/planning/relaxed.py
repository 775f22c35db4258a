r"""The best noise for a given clock: where a plan starts, and a bound that no schedule can beat.

The noise of a `Separable` law is additive, so that for a given final clock :math:`\tau` the best
rate at clock-to-go z is the minimum, point by point, of a Lagrangian,

.. math:: \min_x \int_0^\tau k(z)\, x^p\, dz \quad\text{with}\quad
   \int_0^\tau x^{-g}\, dz = S, \qquad
   x(z) = \min\left(x_{max}, \left(\frac{\mu g}{p\, k(z)}\right)^{1/(p+g)}\right),

with S the number of steps; one scalar search over :math:`\tau` is left. A schedule of whole steps
is a piecewise constant rate here, exactly, so that where x is the rate itself the least value is a
global lower bound for every schedule with rates up to the cap, but for quadrature errors near
1e-7. A forced warm-up is given its largest clock and no noise, which keeps the bound below.
Where the norm of the weights counts, this is where a plan starts, and
`optsched.pilot.planning.verified` has the bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from optsched.arrays import Floats
from optsched.pilot.separable import Separable

__all__ = ["Relaxed", "relaxed_plan"]


POINTS = 601  # of the clock-to-go
ROWS = 60  # final clocks of the first grid
# Simpson's rule, over the spacing.
WEIGHTS = np.array([1.0, *([4.0, 2.0] * (POINTS // 2))[:-1], 1.0]) / 3.0


@dataclass(frozen=True, eq=False)
class Relaxed:
    """Solution of the relaxed problem, in units of a `Scale`.

    Attributes
    ----------
    loss : float
        Least final loss: a lower bound.
    togo, rate, left : numpy.ndarray, shape (n,)
        Clock to go, rate and time to go (in spans) along the path, from the end backwards.
    """

    loss: float
    togo: Floats
    rate: Floats
    left: Floats


def relaxed_plan(
    law: Separable,
    *,
    steps: float,
    cap: float,
    floor: float = 0.0,
    clock: float = 0.0,
    residue: Callable[[float], float] | None = None,
) -> Relaxed:
    """Solve the relaxed problem.

    Parameters
    ----------
    law : Separable
    steps : float
        Free steps, over the span.
    cap, floor : float
        Bounds of x.
    clock : float
        Clock before the free steps.
    residue : callable, optional
        Noise that is left, after a further clock, of what was done before the free steps.

    Returns
    -------
    Relaxed
    """
    g, p, speed = law.clock, law.amplitude, law.speed

    def path(tau: float) -> tuple[float, Floats, Floats, Floats]:
        v = np.linspace(0.0, math.log1p(speed * tau), POINTS)
        togo = np.expm1(v) / speed
        stretch = np.exp(v) / speed
        kernel = np.maximum(-law.tail(togo)[1], 1e-300)
        free = np.log(g / (p * kernel)) / (p + g)
        area = WEIGHTS * (v[1] - v[0]) * stretch
        rate = _path_rate(free, area, p + g, g, math.log(cap), floor, steps)
        noise = float((kernel * rate**p) @ area)
        spent = rate**-g * stretch
        left = np.append(0.0, np.cumsum(0.5 * (spent[1:] + spent[:-1]) * np.diff(v)))
        return noise, togo, rate, left

    def loss(tau: float) -> float:
        bias = float(law.bias(np.array([clock + tau]))[0])
        before = 0.0 if residue is None else residue(tau)
        return law.level + bias + before + path(tau)[0]

    longest = steps * cap**g
    # The last clocks below the longest matter where the rate is at its cap nearly all the time.
    w = np.linspace(-12.0, 16.0, ROWS)
    grid = longest / (1.0 + np.exp(-w))
    i = int(np.argmin([loss(float(tau)) for tau in grid]))
    low, high = w[max(i - 1, 0)], w[min(i + 1, ROWS - 1)]
    found: Any = minimize_scalar(
        lambda z: loss(longest / (1.0 + math.exp(-z))),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 1e-6},
    )
    tau = longest / (1.0 + math.exp(-float(found.x)))
    _, togo, rate, left = path(tau)
    return Relaxed(min(float(found.fun), loss(tau)), togo, rate, left)


def _path_rate(
    free: Floats, area: Floats, power: float, g: float, log_cap: float, floor: float, steps: float
) -> Floats:
    """Rates of the path whose time is that of the steps, by the multiplier's logarithm.

    Where no multiplier gives it, rates at the cap take longest for their clock or are too slow:
    the nearest path is returned.
    """
    # Small enough to be nothing, large enough that its powers are numbers.
    log_floor = math.log(floor) if floor > 0.0 else -250.0

    def rate(level: float) -> Floats:
        return np.exp(np.clip(free + level / power, log_floor, log_cap))

    def excess(level: float) -> float:
        return math.log(float(rate(level) ** -g @ area) / steps)

    low, high = (power * (bound - extreme) for bound, extreme in (
        (log_floor, float(free.max())), (log_cap, float(free.min()))))  # fmt: skip
    if excess(high) >= 0.0:
        return rate(high)
    if excess(low) <= 0.0:
        return rate(low)
    level = brentq(excess, low, high, xtol=1e-11, rtol=1e-14)  # type: ignore[arg-type]
    return rate(float(level))  # type: ignore[arg-type]
