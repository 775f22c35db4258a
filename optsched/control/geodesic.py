r"""The relaxed geodesic: a start close to the optimum, and a lower bound that nothing can beat.

In intrinsic time :math:`\tau = \sum \eta` the final excess loss of plain SGD is

.. math:: E = F(\tau_f) + \frac1m \int_0^{\tau_f} K(\tau_f - u)\, \eta(u) L(u)\, du,
   \qquad T = \int_0^{\tau_f} du / \eta(u) .

On every schedule :math:`L(u) \ge L_{low}(u) = \sigma^2 + F(u) + V_{low}(u)`. With L replaced by
:math:`L_{low}` the problem separates: for a given :math:`\tau_f` the best rate is
:math:`\eta(u) = \min(\eta_{max}, C/\sqrt{K(\tau_f-u) L_{low}(u)})` with C fixed by T, and one
scalar minimisation over :math:`\tau_f` is left. Its value bounds the loss of *every* schedule
from below.

**Valid for the recursion too.** A step multiplies mode j by
:math:`r = (1-x)^2 + x^2/m`, x = eta lam, which can be less than :math:`e^{-2x}`. With
:math:`\varphi_j = \max_{0 < x \le \eta_{max}\lambda_j} -\log r(x) / 2x` (at least 1) every product
of steps is at least :math:`e^{-2 \varphi_j \lambda_j \tau}`. Speeding up each mode by its
:math:`\varphi_j` in F and K, and using that K decreases and :math:`L_{low}` decreases, each step
costs at least the integral over its own intrinsic time. Slow modes, which decide the loss, have
:math:`\varphi \to 1`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from optsched.model.spectrum import Modes

__all__ = ["Geodesic", "relaxed_geodesic"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Geodesic:
    """Solution of the relaxed problem.

    Attributes
    ----------
    value : float
        Relaxed excess loss: the global lower bound.
    tau, eta, t, low : numpy.ndarray, shape (n,)
        Intrinsic time, learning rate, time (in steps) and lower bound of the loss on the path.
    """

    value: float
    tau: Floats
    eta: Floats
    t: Floats
    low: Floats


class _LogTable:
    """Positive function of intrinsic time, tabulated as a spline in log-log."""

    def __init__(self, lam: Floats, masses: Floats, low: float, high: float) -> None:
        x = np.linspace(math.log(low), math.log(high), 400)
        values = np.exp(-2.0 * np.multiply.outer(np.exp(x), lam)) @ masses
        self.low, self.spline = x[0], CubicSpline(x, np.log(np.maximum(values, 1e-290)))

    def __call__(self, tau: Floats) -> Floats:
        return np.exp(self.spline(np.log(np.maximum(tau, math.exp(self.low)))))


def _speed_up(x_max: Floats, batch_size: float) -> Floats:
    r"""Running maximum of -log((1-x)^2 + x^2/m) / 2x over (0, x_max], at least 1."""
    grid = np.concatenate([[0.0], np.geomspace(1e-6, max(float(x_max.max()), 1e-5), 4000)])
    fall = 2.0 * grid[1:] - (1.0 + 1.0 / batch_size) * grid[1:] ** 2
    value = np.concatenate([[1.0], -np.log1p(-fall) / (2.0 * grid[1:])])
    return np.interp(x_max, grid, np.maximum.accumulate(value))


def relaxed_geodesic(
    modes: Modes,
    batch_size: float,
    sigma2: float,
    eta_max: float,
    horizon: float,
    *,
    recursion: bool = True,
    sweeps: int = 3,
    points: int = 320,
) -> Geodesic:
    """Solve the relaxed problem.

    Parameters
    ----------
    modes : Modes
        Quadrature nodes, accurate up to ``eta_max * horizon``.
    batch_size, sigma2, eta_max, horizon : float
        Batch size m, label-noise variance, upper bound of the rate, number of steps T.
    recursion : bool
        Bound the exact recursion (and the ODE); if false, the small-step ODE only.
    sweeps : int
        Rounds of tightening: each adds to L_low a lower bound of the variance.
    points : int
        Points of the intrinsic-time grid.

    Returns
    -------
    Geodesic
    """
    lam = np.array(modes.lam)
    if recursion:
        lam = lam * _speed_up(eta_max * lam, batch_size)
    fast = 1e-3 / lam.max()
    longest = eta_max * horizon
    bias = _LogTable(lam, modes.mu, fast, 2.0 * longest + 2.0 * fast)
    kernel = _LogTable(lam, modes.nu, fast, 2.0 * longest + 2.0 * fast)
    v_end = max(math.log(longest / fast), 3.0)
    v = np.linspace(-v_end, v_end, points)
    s = 1.0 / (1.0 + np.exp(-v))
    rest = 1.0 / (1.0 + np.exp(v))
    weight = s * rest * (v[1] - v[0])
    weight[[0, -1]] *= 0.5
    weight[0] += s[0]
    weight[-1] += rest[-1]
    weight /= weight.sum()

    def solve_for(tau_f: Floats, variance: tuple[Floats, Floats] | None) -> tuple[Floats, ...]:
        """Bias, relaxed variance and rate for every final intrinsic time in ``tau_f``."""
        u = tau_f[:, None] * s
        low = sigma2 + bias(u)
        if variance is not None:
            low += np.exp(np.interp(np.log(u), np.log(variance[0]), np.log(variance[1])))
        h = np.sqrt(kernel(tau_f[:, None] * rest) * low)
        du = tau_f[:, None] * weight
        # T(C) = sum du max(1/eta_max, h/C) falls with C: bisection in log C.
        lower = np.log(h.min(1) * eta_max) - 1e-9
        upper = np.maximum(np.log(h.max(1) * eta_max), lower) + 1e-9
        # Below h.min the whole path is uncapped, and C is explicit.
        lower = np.minimum(lower, np.log((h * du).sum(1) / horizon))
        for _ in range(60):
            middle = 0.5 * (lower + upper)
            total = (du * np.maximum(1.0 / eta_max, h / np.exp(middle)[:, None])).sum(1)
            late = total > horizon
            lower, upper = np.where(late, middle, lower), np.where(late, upper, middle)
        eta = np.minimum(eta_max, np.exp(upper)[:, None] / h)
        return bias(tau_f), (du * h**2 * eta).sum(1) / batch_size, u, eta, du, low

    coarse = np.geomspace(min(1e-2 / lam.max(), 0.1 * longest), longest, 72)
    variance: tuple[Floats, Floats] | None = None
    best: Geodesic | None = None
    for sweep in range(sweeps):
        drop, noise, *_ = solve_for(coarse, variance)
        if sweep + 1 < sweeps:
            # Chords of the table in log-log, lowered by its interpolation error.
            variance = (coarse, 0.998 * np.maximum(noise, 1e-290))
            continue
        i = int(np.argmin(drop + noise))
        edges = coarse[max(i - 1, 0)], coarse[min(i + 1, len(coarse) - 1)]
        for _ in range(3):
            fine = np.geomspace(edges[0], edges[1], 16)
            drop, noise, u, eta, du, low = solve_for(fine, variance)
            i = int(np.argmin(drop + noise))
            edges = fine[max(i - 1, 0)], fine[min(i + 1, len(fine) - 1)]
        t = np.cumsum(du[i] / eta[i])
        t -= 0.5 * du[i] / eta[i]
        t *= horizon / (t[-1] + 0.5 * du[i, -1] / eta[i, -1])
        best = Geodesic(float(drop[i] + noise[i]), u[i], eta[i], t, low[i])
    assert best is not None
    return best
