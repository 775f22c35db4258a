r"""A lower bound for rate and batch size together, at a fixed number of samples.

In intrinsic time :math:`\tau = \sum \eta_t` the noise of a step enters through
:math:`q = \eta/m`, its rate per sample, and a step spends :math:`m = \eta/q` samples. With q in
place of the rate and the number of samples D in place of the number of steps, rate and batch size
relax to the rate alone at a batch size of 1:

.. math:: E \ge \min_{\tau_f \le \eta_{max} T} \Big[ F(\tau_f) + \min_{0 < q \le \eta_{max}}
   \int_0^{\tau_f} K(\tau_f - u)\, q(u)\, L_{low}(u)\, du \Big] , \qquad
   \int_0^{\tau_f} du / q \le D .

The page "Theory" proves it. What a step contracts is bounded as in
`optsched.control.bounds.certified`, for the largest batch that the samples allow: F and K are those
of modes that are faster by :math:`\varphi`. Inner minimum and :math:`L_{low}` are those of
`optsched.control.bounds.geodesic`, at the final times of a grid that is narrowed twice.
"""

from __future__ import annotations

import math

import numpy as np

from optsched.arrays import Floats
from optsched.control.bounds.certified import running_max
from optsched.control.bounds.geodesic import LogTable, graded_rule, time_level
from optsched.model.spectrum import Modes

__all__ = ["sample_bound"]

SAFETY = 2e-3  # relative, taken off for the numerical error: tables, quadrature, grid
ROWS = 140  # points of a path
GRID = 96  # final times
LAST_LOGIT = 20.0  # of a final time, as a share of the longest


def sample_bound(
    modes: Modes,
    sigma2: float,
    eta_max: float,
    horizon: int,
    samples: float,
    *,
    held: bool = False,
) -> float:
    r"""Bound the final excess loss of every schedule of rate and batch size from below.

    Parameters
    ----------
    modes : Modes
        Quadrature nodes, accurate up to ``eta_max * horizon``.
    sigma2 : float
        Label-noise variance.
    eta_max : float
        Upper bound of the rate.
    horizon : int
        Number of steps T.
    samples : float
        Sum of the batch sizes, each of which is at least 1.
    held : bool
        The rate is ``eta_max`` at every step.

    Returns
    -------
    float
        No schedule of plain SGD on the exact recursion with these numbers of steps and samples is
        below it.
    """
    relaxed = _Relaxed(modes, sigma2, eta_max, horizon, samples)
    if held:
        return (1.0 - SAFETY) * float(relaxed.values(np.array([relaxed.longest]))[0])
    w = np.linspace(relaxed.shortest, LAST_LOGIT, GRID)
    # On shorter paths than all of these the bias alone is at least this.
    least = float(relaxed.bias(relaxed.final(w[:1]))[0])
    for _ in range(3):
        values = relaxed.values(relaxed.final(w))
        best = int(np.argmin(values))
        least = min(least, float(values[best]))
        w = np.linspace(w[max(best - 2, 0)], w[min(best + 2, len(w) - 1)], GRID)
    return (1.0 - SAFETY) * least


class _Relaxed:
    """The relaxed problem at given final times."""

    def __init__(
        self, modes: Modes, sigma2: float, eta_max: float, horizon: int, samples: float
    ) -> None:
        self.sigma2, self.eta_max, self.samples = sigma2, eta_max, samples
        self.longest = eta_max * horizon
        lam = np.where(modes.lam > 0.0, modes.lam, 1.0)  # padding carries no mass
        largest = samples - (horizon - 1.0)  # batch, where every other step has one sample
        quick = lam * running_max(eta_max * lam, largest, 1)
        fast = 1e-3 / float(lam.max())
        span = fast, 2.0 * (self.longest + fast)
        self.bias, self.kernel = (LogTable(quick, w, *span) for w in (modes.mu, modes.nu))
        self.s, self.rest, self.weight = graded_rule(self.longest, fast, ROWS)
        self.shortest = math.log(min(1e-4 / (float(lam.max()) * self.longest), 0.1))
        tau = self.final(np.linspace(self.shortest, LAST_LOGIT, GRID))
        self.noise: tuple[Floats, Floats] | None = None
        for _ in range(2):
            # Chords of the table in log-log, lowered by its interpolation error.
            self.noise = tau, 0.998 * np.maximum(self.variance(tau), 1e-290)

    def final(self, w: Floats) -> Floats:
        """Final times from the logit of their share of the longest."""
        return np.where(w >= LAST_LOGIT, self.longest, self.longest / (1.0 + np.exp(-w)))

    def low(self, tau: Floats) -> Floats:
        """Lower bound of the loss at intrinsic times of every schedule, which never rises."""
        value = self.sigma2 + self.bias(tau)
        if self.noise is not None:
            at, noise = self.noise
            value = value + np.exp(np.interp(np.log(tau), np.log(at), np.log(noise)))
        return np.minimum.accumulate(value, axis=-1)

    def variance(self, tau: Floats) -> Floats:
        """Least noise of the paths that end at each of ``tau``."""
        kernel = self.kernel(tau[:, None] * self.rest)
        h = np.maximum(np.sqrt(kernel * self.low(tau[:, None] * self.s)), 1e-290)
        du = tau[:, None] * self.weight
        level = time_level(h, du, self.eta_max, self.samples)
        rate = np.minimum(self.eta_max, level[:, None] / h)
        return (du * h**2 * rate).sum(1)

    def values(self, tau: Floats) -> Floats:
        """Relaxed excess loss."""
        return self.bias(tau) + self.variance(tau)
