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


def _running_max(x_max: Floats, batch_size: float, order: int) -> Floats:
    r"""Running maximum over (0, x_max] of how much faster a step decays than e^{-2x}.

    order 1: :math:`-\log r(x) / 2x`, at least 1; order 2: :math:`(-\log r(x) - 2x) / 2x^2`, at
    least 0, with :math:`r(x) = (1-x)^2 + x^2/m`.
    """
    top = max(float(np.max(x_max)), 1e-4)
    grid = np.concatenate([[0.0], np.geomspace(1e-5, top, 4000)])
    x = grid[1:]
    rate = -np.log1p(-(2.0 * x - (1.0 + 1.0 / batch_size) * x**2))
    value = rate / (2.0 * x) if order == 1 else (rate - 2.0 * x) / (2.0 * x**2)
    if order == 2:  # cancellation: the limit at 0 is (1 - 1/m)/2, and the function grows from it
        value = np.where(x < 1e-3, 0.5 * (1.0 - 1.0 / batch_size) + 2.0 * x, value)
    first = 1.0 if order == 1 else 0.0
    value = np.maximum.accumulate(np.concatenate([[first], value]))
    # The next grid value bounds everything below it: round up, never down.
    return value[np.minimum(np.searchsorted(grid, x_max), len(grid) - 1)]


def relaxed_geodesic(
    modes: Modes,
    batch_size: float,
    sigma2: float,
    eta_max: float,
    horizon: float,
    *,
    recursion: bool = True,
    incumbent: float = math.inf,
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
    incumbent : float
        Excess loss of a known schedule: a better one has no step noisier than that, which bounds
        the rates near the end and tightens the bound for the recursion.
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
    span = fast, 2.0 * (longest + fast)
    quick = lam * _running_max(eta_max * lam, batch_size, 1) if recursion else lam
    bias = _LogTable(quick, modes.mu, *span)
    kernel_quick = _LogTable(quick, modes.nu, *span)
    if recursion and math.isfinite(incumbent):
        kernel_plain = _LogTable(lam, modes.nu, *span)
        kernel_second = _LogTable(lam, modes.nu * lam**2, *span)

    def kernel(togo: Floats, tau_f: Floats) -> Floats:
        """Lower bound of the noise kernel of the recursion at intrinsic times to go."""
        best = kernel_quick(togo)
        if not recursion or math.isinf(incumbent):
            return best
        plain = kernel_plain(togo)
        pull = kernel_second(togo) / plain
        least = (sigma2 + bias(tau_f))[:, None]
        budget = batch_size * np.maximum(incumbent - bias(tau_f), 1e-12 * incumbent)[:, None]
        for _ in range(3):
            # No step, and no sum of steps, of a better schedule is noisier than the incumbent.
            squares = budget / (least * best)
            cap = np.minimum(eta_max, np.sqrt(squares))
            chi = _running_max(cap * top, batch_size, 2)
            slower = plain * np.exp(-2.0 * chi * np.minimum(squares, cap * togo) * pull)
            # Columns run from the longest to the shortest time to go; keep the bound monotone.
            slower = np.minimum.accumulate(slower[:, ::-1], axis=1)[:, ::-1]
            best = np.maximum(best, slower)
        return best

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
        h = np.sqrt(kernel(tau_f[:, None] * rest, tau_f) * low)
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
    grid = np.linspace(math.log(min(1e-2 / (top * longest), 0.1)), math.log(1e9), 96)

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
