r"""The relaxed geodesic: where a solve starts.

In intrinsic time :math:`\tau = \sum \eta` the final excess loss of plain SGD with small steps is

.. math:: E = F(\tau_f) + \frac1m \int_0^{\tau_f} K(\tau_f - u)\, \eta(u) L(u)\, du,
   \qquad T = \int_0^{\tau_f} du / \eta(u) .

On every schedule :math:`L(u) \ge L_{low}(u) = \sigma^2 + F(u) + V_{low}(u)`, with :math:`V_{low}`
the same relaxed problem stopped at u. With L replaced by :math:`L_{low}` the problem separates:
for a given :math:`\tau_f` the best rate is
:math:`\eta(u) = \min(\eta_{max}, C/\sqrt{K(\tau_f-u) L_{low}(u)})` with C fixed by T, and one
scalar minimisation over :math:`\tau_f` is left. The result is within a few percent of the optimum.
Its value bounds the small-step ODE from below; `optsched.control.bound` has the bound for the
recursion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from optsched.model.spectrum import Modes

__all__ = ["Geodesic", "LogTable", "relaxed_geodesic"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Geodesic:
    """Solution of the relaxed problem.

    Attributes
    ----------
    value : float
        Relaxed excess loss: a lower bound for the small-step ODE.
    tau, eta, t, low : numpy.ndarray, shape (n,)
        Intrinsic time, learning rate, time (in steps) and lower bound of the loss on the path.
    """

    value: float
    tau: Floats
    eta: Floats
    t: Floats
    low: Floats


class LogTable:
    """Sum of ``masses * exp(-2 lam tau)``, tabulated as a spline in log-log of tau."""

    def __init__(self, lam: Floats, masses: Floats, low: float, high: float) -> None:
        x = np.linspace(math.log(low), math.log(high), 400)
        values = np.exp(-2.0 * np.multiply.outer(np.exp(x), lam)) @ masses
        self.low, self.spline = x[0], CubicSpline(x, np.log(np.maximum(values, 1e-290)))

    def __call__(self, tau: Floats) -> Floats:
        return np.exp(self.spline(np.log(np.maximum(tau, math.exp(self.low)))))


def relaxed_geodesic(
    modes: Modes,
    batch_size: float,
    sigma2: float,
    eta_max: float,
    horizon: float,
    *,
    sweeps: int = 2,
    points: int = 140,
) -> Geodesic:
    """Solve the relaxed problem.

    Parameters
    ----------
    modes : Modes
        Quadrature nodes, accurate up to ``eta_max * horizon``.
    batch_size, sigma2, eta_max, horizon : float
        Batch size m, label-noise variance, upper bound of the rate, number of steps T.
    sweeps : int
        Rounds of tightening: each adds to L_low a lower bound of the variance.
    points : int
        Points of the intrinsic-time grid.

    Returns
    -------
    Geodesic
    """
    lam, top = np.array(modes.lam), float(modes.lam.max())
    fast, longest = 1e-3 / top, eta_max * horizon
    bias, kernel = (LogTable(lam, w, fast, 2.0 * (longest + fast)) for w in (modes.mu, modes.nu))
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
        h = np.maximum(np.sqrt(kernel(tau_f[:, None] * rest) * low), 1e-290)
        du = tau_f[:, None] * weight
        # T(C) = sum du max(1/eta_max, h/C) is convex and falls with C: Newton from the left.
        level = (h * du).sum(1) / horizon
        for _ in range(40):
            free = h * eta_max > level[:, None]
            spare = horizon - np.where(free, 0.0, du).sum(1) / eta_max
            new = np.where(free, h * du, 0.0).sum(1) / np.maximum(spare, 1e-12 * horizon)
            done = np.all(new <= level * (1.0 + 1e-14))
            level = np.maximum(level, new)
            if done:
                break
        eta = np.minimum(eta_max, level[:, None] / h)
        return bias(tau_f), (du * h**2 * eta).sum(1) / batch_size, u, eta, du, low

    # Final intrinsic times, graded towards 0 and towards eta_max T (where the hard phase ends).
    grid = np.linspace(math.log(min(1e-2 / (top * longest), 0.1)), math.log(1e9), 72)

    def tau_at(w: Floats) -> Floats:
        return longest / (1.0 + np.exp(-w))

    coarse = tau_at(grid)
    variance: tuple[Floats, Floats] | None = None
    best: Geodesic | None = None
    for sweep in range(sweeps):
        drop, noise, *_ = solve_for(coarse, variance)
        if sweep + 1 < sweeps:
            # Chords of the table in log-log, lowered by its interpolation error.
            variance = (coarse, 0.998 * np.maximum(noise, 1e-290))
            continue
        i = int(np.argmin(drop + noise))
        edges = grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)]
        for _ in range(3):
            fine = np.linspace(edges[0], edges[1], 16)
            drop, noise, u, eta, du, low = solve_for(tau_at(fine), variance)
            i = int(np.argmin(drop + noise))
            edges = fine[max(i - 1, 0)], fine[min(i + 1, len(fine) - 1)]
        t = np.cumsum(du[i] / eta[i])
        t -= 0.5 * du[i] / eta[i]
        t *= horizon / (t[-1] + 0.5 * du[i, -1] / eta[i, -1])
        best = Geodesic(float(drop[i] + noise[i]), u[i], eta[i], t, low[i])
    assert best is not None
    return best
