r"""Tails: what is left of the noise of a step after a while, and of the bias.

Each takes ``(z, q)`` and returns its value and its derivatives in z and q, shapes of z.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy.interpolate import CubicSpline
from scipy.special import gammainc, gammaln

from optsched.arrays import Floats

__all__ = ["Tail", "features_tail", "power_tail", "step_tail"]

Tail = Callable[[Floats, float], tuple[Floats, Floats, Floats]]

SMALL, TABLE = 1e-6, 2000  # least argument of a tabulated tail, and points of its table


def power_tail(z: Floats, q: float) -> tuple[Floats, Floats, Floats]:
    r""":math:`(1+z)^{-q}`, and its derivatives in z and q."""
    log = np.log1p(z)
    value = np.exp(-q * log)
    return value, -q * value / (1.0 + z), -log * value


def features_tail(z: Floats, q: float) -> tuple[Floats, Floats, Floats]:
    r"""Mean of :math:`e^{-z\lambda}` under :math:`q \lambda^{q-1}` on [0, 1].

    That is :math:`\Gamma(q+1)\, z^{-q}` times the regularised incomplete gamma function, what
    power-law features give; with its derivatives in z and q.
    """
    size = np.log(np.maximum(z, SMALL))
    grid = np.linspace(math.log(SMALL), max(float(size.max()), 1.0), TABLE)

    def table(q: float) -> CubicSpline:
        # The integral is smooth in ln z, and costly: a spline through a few hundred values of it.
        at = np.exp(grid)
        return CubicSpline(grid, np.exp(gammaln(q + 1.0) - q * grid) * gammainc(q, at))

    step = 1e-5 * max(q, 0.1)
    here = table(q)(size)
    in_q = CubicSpline(grid, (table(q + step)(grid) - table(q - step)(grid)) / (2.0 * step))
    # From q to q + 1 by parts, where that does not cancel.
    rise = np.where(z > 1e-3, q * (np.exp(-z) - here) / np.maximum(z, 1e-3), 0.0)
    series = -q / (q + 1.0) + z * q / (q + 2.0) - z**2 * q / (2.0 * (q + 3.0))
    near = 1.0 - z * q / (q + 1.0) + z**2 * q / (2.0 * (q + 2.0))
    value = np.where(z > SMALL, here, near)
    slope_in_q = np.where(z > SMALL, in_q(size), -z / (q + 1.0) ** 2)
    return value, np.where(z > 1e-3, rise, series), slope_in_q


def step_tail(z: Floats, q: float) -> tuple[Floats, Floats, Floats]:
    """``exp(-z)``, which has no exponent."""
    value = np.exp(-z)
    return value, -value, np.zeros_like(z)
