r"""The relaxed geodesic: where a solve starts.

In intrinsic time :math:`\tau = \sum \eta` the final excess loss of plain SGD with small steps is

.. math:: E = F(\tau_f) + \frac1m \int_0^{\tau_f} K(\tau_f - u)\, \eta(u) L(u)\, du,
   \qquad T = \int_0^{\tau_f} du / \eta(u) .

On every schedule :math:`L(u) \ge L_{low}(u) = \sigma^2 + F(u) + V_{low}(u)`, with :math:`V_{low}`
the same relaxed problem stopped at u. With L replaced by :math:`L_{low}` the problem separates:
for a given :math:`\tau_f` the best rate is
:math:`\eta(u) = \min(\eta_{max}, C/\sqrt{K(\tau_f-u) L_{low}(u)})` with C fixed by T, and one
scalar minimisation over :math:`\tau_f` is left. The result is within a few percent of the optimum.
Its value bounds the small-step ODE from below; `optsched.control.bounds.certified` has the bound
for the recursion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats
from optsched.model.spectrum import Modes
from optsched.numerics import EvenSpline

__all__ = ["Geodesic", "LogTable", "graded_rule", "relaxed_geodesic", "time_level"]


ROWS = 40  # final intrinsic times of the first grid
POINTS = 110  # of a path


@dataclass(frozen=True, eq=False)
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
        self.low = x[0]
        self.spline = EvenSpline(x[0], x[-1], np.log(np.maximum(values, 1e-290)))

    def __call__(self, tau: Floats) -> Floats:
        return np.exp(self.spline(np.log(np.maximum(tau, math.exp(self.low)))))


def graded_rule(longest: float, fast: float, points: int) -> tuple[Floats, Floats, Floats]:
    """Shares s of a path from its start, 1 - s, and weights of a rule on it.

    Even in the logit of s, so that both ends are resolved down to ``fast / longest``; the
    trapezoidal rule is accurate there as for any integrand that is analytic in the logit.
    """
    v_end = max(math.log(longest / fast), 3.0)
    v = np.linspace(-v_end, v_end, points)
    s, rest = 1.0 / (1.0 + np.exp(-v)), 1.0 / (1.0 + np.exp(v))
    weight = s * rest * (v[1] - v[0])
    weight[[0, -1]] *= 0.5
    weight[0] += s[0]
    weight[-1] += rest[-1]
    return s, rest, weight / weight.sum()


def time_level(h: Floats, du: Floats, eta_max: float, horizon: float) -> Floats:
    """C of every row with ``sum du max(1/eta_max, h/C) = horizon``.

    The time is convex in C and falls: Newton from the left, where the cost is lower.
    """
    level = (h * du).sum(1) / horizon
    for _ in range(40):
        free = h * eta_max > level[:, None]
        spare = horizon - np.where(free, 0.0, du).sum(1) / eta_max
        new = np.where(free, h * du, 0.0).sum(1) / np.maximum(spare, 1e-12 * horizon)
        done = np.all(new <= level * (1.0 + 1e-7))
        level = np.maximum(level, new)
        if done:
            break
    return level


class _Relaxed:
    """The relaxed problem for given final intrinsic times."""

    def __init__(
        self, modes: Modes, batch_size: float, sigma2: float, eta_max: float, horizon: float
    ) -> None:
        self.batch_size, self.sigma2 = batch_size, sigma2
        self.eta_max, self.horizon = eta_max, horizon
        self.longest = eta_max * horizon
        fast = 1e-3 / float(modes.lam.max())
        lam, end = np.array(modes.lam), 2.0 * (self.longest + fast)
        self.bias, self.kernel = (LogTable(lam, w, fast, end) for w in (modes.mu, modes.nu))
        self.s, self.rest, self.weight = graded_rule(self.longest, fast, POINTS)
        self.variance: tuple[Floats, Floats] | None = None  # at some final times, from below

    def rows(self, tau_f: Floats) -> tuple[Floats, Floats, Floats, Floats, Floats, Floats]:
        """Bias and variance (n,), and path u, rate, du, L_low (n, points) of every final time."""
        u = tau_f[:, None] * self.s
        low = self.sigma2 + self.bias(u)
        if self.variance is not None:
            at, noise = self.variance
            low += np.exp(np.interp(np.log(u), np.log(at), np.log(noise)))
        h = np.maximum(np.sqrt(self.kernel(tau_f[:, None] * self.rest) * low), 1e-290)
        du = tau_f[:, None] * self.weight
        eta = np.minimum(self.eta_max, time_level(h, du, self.eta_max, self.horizon)[:, None] / h)
        return self.bias(tau_f), (du * h**2 * eta).sum(1) / self.batch_size, u, eta, du, low


def relaxed_geodesic(
    modes: Modes, batch_size: float, sigma2: float, eta_max: float, horizon: float
) -> Geodesic:
    """Solve the relaxed problem.

    Parameters
    ----------
    modes : Modes
        Quadrature nodes, accurate up to ``eta_max * horizon``.
    batch_size, sigma2, eta_max, horizon : float
        Batch size m, label-noise variance, upper bound of the rate, number of steps T.

    Returns
    -------
    Geodesic
    """
    relaxed = _Relaxed(modes, batch_size, sigma2, eta_max, horizon)
    longest = relaxed.longest
    # Final intrinsic times, graded towards 0 and towards eta_max T (where the hard phase ends).
    lowest = min(1e-2 / (float(modes.lam.max()) * longest), 0.1)
    grid = np.linspace(math.log(lowest), math.log(1e9), ROWS)

    def tau_at(w: Floats) -> Floats:
        return longest / (1.0 + np.exp(-w))

    noise = relaxed.rows(tau_at(grid))[1]
    # Chords of the table in log-log, lowered by its interpolation error.
    relaxed.variance = tau_at(grid), 0.998 * np.maximum(noise, 1e-290)
    for _ in range(3):  # narrow the grid around the best final time
        bias, noise, u, eta, du, low = relaxed.rows(tau_at(grid))
        i = int(np.argmin(bias + noise))
        value = float(bias[i] + noise[i])
        path = u[i], eta[i], du[i], low[i]
        grid = np.linspace(grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)], 16)
    u, eta, du, low = path  # pyright: ignore[reportPossiblyUnboundVariable]
    t = np.cumsum(du / eta) - 0.5 * du / eta
    t *= horizon / (t[-1] + 0.5 * du[-1] / eta[-1])
    return Geodesic(value, u, eta, t, low)  # pyright: ignore[reportPossiblyUnboundVariable]
