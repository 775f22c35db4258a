r"""A supporting inequality for the final excess loss, exact at a reference schedule.

**The recursion as a flow.** Add the label noise as a mode with :math:`\lambda = 0`,
:math:`e = \sigma^2`, :math:`\nu = 0`. A step of size :math:`\eta` is the positive matrix

.. math:: M(\eta) = \mathrm{diag}(r_j) + c\, \nu 1^T, \qquad
   r_j = (1 - x_j)^2 + x_j^2 / m, \quad x_j = \eta \lambda_j, \quad c = \eta^2 / m .

Its logarithm :math:`G = \log M` has, by :math:`\log M = \int_0^\infty [(1 + z)^{-1} -
(M + z)^{-1}] dz` and the Sherman-Morrison formula, the entries

.. math:: G_{ij} = \delta_{ij} \log r_i + c\, \nu_i \int_0^\infty
   \frac{dz}{(r_i + z)(r_j + z)\,(1 + c \sum_k \nu_k / (r_k + z))} ,

positive off the diagonal. In intrinsic time y, in which step t lasts :math:`\eta_t`, the recursion
is therefore *exactly* the flow :math:`de/dy = \Gamma(\eta(y))\, e`, :math:`\Gamma = G / \eta`, with
:math:`\eta(y)` constant within steps, and :math:`\int dy / \eta = T`, :math:`\int dy = Y`. The
relaxation: any function :math:`0 < \eta(y) \le \eta_{max}` with :math:`\int dy/\eta \le T`.

**The supporting inequality.** E is a sum, over the ways to jump from mode to mode, of products
:math:`\prod \Gamma_{ij}(\eta(y_n))\, \exp \int \Gamma_{ii}(\eta) dy`. For any reference path
:math:`\bar\eta`, with forward state e, costate p and excess :math:`\bar E`, Jensen's inequality
gives, with :math:`s = y / Y` and :math:`a_{ij} = \bar Y p_i \bar\Gamma_{ij} e_j / \bar E`,
:math:`b_i = \bar Y p_i e_i / \bar E`,

.. math:: \log \frac{E}{\bar E} \ge \int_0^1 ds \Big[ \sum_{i \ne j} a_{ij}
   \log \frac{Y\, \Gamma_{ij}(\eta)}{\bar Y\, \bar\Gamma_{ij}}
   + \sum_i b_i \Big( \frac{Y}{\bar Y} \Gamma_{ii}(\eta) - \bar\Gamma_{ii} \Big) \Big]

for *every* schedule: an equality for the reference, and exact to second order around it. With a
multiplier :math:`\Lambda \ge 0` for the time, :math:`+ \Lambda (Y \int ds/\eta - T)`, its minimum
is pointwise in s. For fixed :math:`\Lambda` and :math:`\eta(s)` it is concave in Y, and an infimum
of concave functions is concave: its values at both ends of a *cell* [Y_a, Y_b] bound the cell.

Jumps of a fast mode to itself count as part of its diagonal. Numerical error: tables in
:math:`\eta`, and three Gauss points an interval for the integral over s; both multiply differences
that vanish at the reference.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from optsched.model.spectrum import Modes

__all__ = ["Case", "Generators", "Support"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LOGIT_TOP = 4.0  # densest spacing of the table of rates is at its top
SLOW = 1e-3  # modes with less lam * eta_max share one class
MOST_FEEDBACK = 0.92  # largest share of the variance in the loss on reference paths
GAUSS = 0.5 + 0.5 * np.array([-math.sqrt(0.6), 0.0, math.sqrt(0.6)])
GAUSS_WEIGHTS = np.array([5.0, 8.0, 5.0]) / 18.0
STEP_Z = 0.8  # trapezoidal rule in log z: error exp(-2 pi^2 / STEP_Z)


@dataclass(frozen=True)
class Case:
    """What is bounded: arguments of `certified_bound`."""

    modes: Modes
    batch_size: float
    sigma2: float
    eta_max: float
    horizon: float
    incumbent: float
    continuous: bool

    @property
    def longest(self) -> float:
        """Largest intrinsic time."""
        return self.eta_max * self.horizon


class Generators:
    r"""Table of the generators :math:`\Gamma(\eta)`.

    Rates are even in the logit of :math:`\eta`: dense towards the upper bound, where the recursion
    may be close to its stability limit, and even in log far below. Modes with
    :math:`\lambda \eta_{max} < SLOW` share one class with the label noise: the integral over z is
    taken at r = 1 for them, which lowers their jump rates by less than ``SLOW``.
    """

    def __init__(self, case: Case, lowest: float, density: float) -> None:
        self.case, lam = case, case.modes.lam
        nu = np.maximum(case.modes.nu, 1e-8 * lam**2)  # nodes of the bias measure alone
        self.nu, self.root = nu, np.sqrt(nu)
        bottom = math.log(min(lowest, 0.02 / float(lam.max()), 0.5 * case.eta_max) / case.eta_max)
        count = math.ceil(density * (LOGIT_TOP - bottom)) + 8
        self.fine_knots = np.linspace(bottom, LOGIT_TOP, 2 * count - 1)
        scale = case.eta_max * (1.0 + math.exp(-LOGIT_TOP))
        self.fine = scale / (1.0 + np.exp(-self.fine_knots))
        self.knots, self.rates = self.fine_knots[::2], self.fine[::2].copy()
        fast = np.flatnonzero(lam * case.eta_max >= SLOW)
        self.classes = np.full(len(lam) + 1, len(fast))
        self.classes[fast] = np.arange(len(fast))
        self.members = np.equal.outer(self.classes, np.arange(len(fast) + 1)).astype(float)
        self.inner = np.array([self._inner(float(eta), fast) for eta in self.rates])
        self.decay = self.own_decay(self.rates)
        self.fine_decay = self.own_decay(self.fine, protect=True)
        own = self.classes[:-1]
        symmetric = self.inner[:, own[:, None], own] * np.multiply.outer(self.root, self.root)
        symmetric[:, np.arange(len(lam)), np.arange(len(lam))] += self.decay
        self.values, self.vectors = np.linalg.eigh(symmetric)
        each = np.arange(len(fast))
        self.fast, self.stay = fast, self.inner[:, each, each] * nu[fast]  # jumps to itself
        self.log_inner = np.log(self.inner / self.rates[:, None, None]).reshape(count, -1)
        # Quasi-steady variance over loss; the recursion is stable below 1.
        x = (1.0 + 1.0 / case.batch_size) * np.multiply.outer(self.rates, lam)
        share = (nu / lam / np.maximum(2.0 - x, 1e-3)).sum(1) * self.rates / case.batch_size
        self.usable = max(int(np.searchsorted(share, MOST_FEEDBACK)) - 1, 0)

    def own_decay(self, eta: Floats, protect: bool = False) -> Floats:
        r"""Rates :math:`\log r_j / \eta`; with ``protect`` the least within half a spacing.

        Only where r has its minimum there: for a large batch it is a narrow dip at x = 1.
        """
        case, bend = self.case, 1.0 + 1.0 / self.case.batch_size
        x = np.multiply.outer(eta, case.modes.lam)
        if case.continuous:
            return -(2.0 * x - bend * x**2) / eta[:, None]
        if protect:
            half = np.sqrt(eta[1:] * eta[:-1])
            low, high = np.append(0.0, half), np.append(half, eta[-1])
            vertex = 1.0 / (bend * case.modes.lam)
            dip = (low[:, None] < vertex) & (vertex < high[:, None])
            x = np.where(dip, 1.0 / bend, x)
        return np.log1p(-(2.0 * x - bend * x**2)) / eta[:, None]

    def _inner(self, eta: float, fast: Ints) -> Floats:
        """Jump rates between classes over nu of the target."""
        c = eta**2 / self.case.batch_size
        if self.case.continuous:
            return np.full((len(fast) + 1, len(fast) + 1), c / eta)
        decay = np.exp(self.own_decay(np.array([eta]))[0] * eta)
        r = np.append(decay[fast], 1.0)
        nu = np.append(self.nu[fast], self.nu.sum() - self.nu[fast].sum())
        z = np.exp(np.arange(math.log(r.min()) - 17.0, 17.0, STEP_Z))
        poles = 1.0 / (r[:, None] + z)
        # Slow modes enter the denominator at the least r among them: more of it, a lower rate.
        least = 1.0 / (np.append(decay[fast], decay.min(where=self.slow, initial=1.0))[:, None] + z)
        return (c / eta) * (poles * (STEP_Z * z / (1.0 + c * (nu @ least)))) @ poles.T

    @property
    def slow(self) -> NDArray[np.bool_]:
        """Which modes belong to the slow class."""
        return self.classes[:-1] == self.members.shape[1] - 1

    def nearest(self, eta: Floats) -> Ints:
        """Index of the rate nearest to each of ``eta``, not too close to the stability limit."""
        middle = np.sqrt(self.rates[1:] * self.rates[:-1])
        return np.minimum(np.searchsorted(middle, eta), self.usable)


class Support:
    """The supporting inequality at one reference path, constant on intervals ``steps``.

    Rows of ``jumps`` and ``decay`` are the Gauss points of the intervals.
    """

    def __init__(self, table: Generators, index: Ints, steps: Floats) -> None:
        self.table, self.index, self.steps = table, index, steps
        self.horizon = table.case.horizon
        each = np.repeat(index, len(GAUSS))
        self.time = (np.multiply.outer(steps, GAUSS_WEIGHTS)).ravel()
        states, costates = self._occupation(*self._propagate())
        scale = (self.time * math.exp(-self.log_excess))[:, None]
        sources = states @ table.members
        targets = (costates * table.nu * scale) @ table.members[:-1]
        weights = table.inner[each] * targets[:, :, None] * sources[:, None, :]
        alone = np.arange(len(table.fast))  # jumps of a fast mode to itself belong to its decay
        weights[:, alone, alone] = 0.0
        self.count = weights.sum((1, 2))
        jumps = weights.reshape(len(each), -1) @ table.log_inner.T
        occupied = costates * states[:, :-1] * scale
        smooth = np.stack([jumps, occupied[:, table.fast] @ table.stay.T])
        self.jumps, stay = CubicSpline(table.knots, smooth, axis=2)(table.fine_knots)
        self.jumps += self.count[:, None] * np.log(table.fine)
        # What the jump rates at the lowest entry exceed their limit at eta = 0 by.
        surplus = np.maximum(table.log_inner[0] + math.log(table.case.batch_size), 0.0)
        self.below = weights.reshape(len(each), -1) @ surplus
        self.below += occupied[:, table.fast] @ table.stay[0]
        self.decay = stay + occupied @ table.fine_decay.T
        at = np.arange(len(each)), 2 * each
        own = float((occupied * table.decay[each]).sum()) + float((self.jumps + stay)[at].sum())
        self.base = self.log_excess - own

    def _propagate(self) -> tuple[Floats, Floats, Floats]:
        """State at the start and costate at the end of every interval, in its eigenbasis."""
        table, index = self.table, self.index
        root, vectors, n = table.root, table.vectors[index], len(index)
        grow = np.exp(table.values[index] * self.steps[:, None])
        own = table.classes[:-1]
        source = table.inner[index][:, own, -1] * (table.case.sigma2 * root)
        source = np.einsum("kji,kj->ki", vectors, source)
        feed = source * self._integral(1.0)
        e, p = np.empty((2, n, len(root)))
        state, costate = table.case.modes.mu / root, root
        for k in range(n):
            e[k] = state @ vectors[k]
            state = vectors[k] @ (grow[k] * e[k] + feed[k])
        for k in range(n - 1, -1, -1):
            p[k] = costate @ vectors[k]
            costate = vectors[k] @ (grow[k] * p[k])
        self.log_excess = math.log(float(state @ root))
        return e, p, source

    def _integral(self, part: float) -> Floats:
        """Integral of the exponentials over the first ``part`` of every interval."""
        steps = part * self.steps[:, None]
        exponent = self.table.values[self.index] * steps
        flat = np.abs(exponent) < 1e-8
        return steps * np.where(flat, 1.0, np.expm1(exponent) / np.where(flat, 1.0, exponent))

    def _occupation(self, e: Floats, p: Floats, source: Floats) -> tuple[Floats, Floats]:
        """State (label noise last) and costate at the Gauss points."""
        table, root = self.table, self.table.root
        vectors, values = table.vectors[self.index], table.values[self.index]
        n, size = e.shape
        states = np.full((n, len(GAUSS), size + 1), table.case.sigma2)
        costates = np.empty((n, len(GAUSS), size))
        for g, part in enumerate(GAUSS):
            at = part * self.steps[:, None]
            inside = np.exp(values * at) * e + source * self._integral(part)
            states[:, g, :-1] = np.einsum("kij,kj->ki", vectors, inside) * root
            inside = np.exp(values * (self.steps[:, None] - at)) * p
            costates[:, g] = np.einsum("kij,kj->ki", vectors, inside) / root
        states, costates = np.maximum(states, 0.0), np.maximum(costates, 0.0)
        return states.reshape(-1, size + 1), costates.reshape(-1, size)

    def improved(self, share: float) -> Floats:
        """Rates after a damped step towards dlog E / dlog eta = multiplier * time."""
        table = self.table
        slope = np.gradient(self.jumps + self.decay, np.log(table.fine), axis=1)
        each = 2 * np.repeat(self.index, len(GAUSS))
        slope = slope[np.arange(len(slope)), each].reshape(len(self.steps), -1).sum(1)
        pull = np.maximum(slope, 1e-300)
        eta, cap = table.rates[self.index], float(table.rates[-1])
        # eta <- min(eta_max, eta (multiplier time / pull)^power), the multiplier from the time
        power = 0.5 * np.maximum(1.0 - share * eta, 0.05)
        ratio = np.clip(np.log(self.steps / eta / pull), -300.0, 300.0)
        new, low, high = eta, -700.0, 700.0
        for _ in range(50):
            middle = 0.5 * (low + high)
            new = np.minimum(cap, eta * np.exp(np.clip(power * (middle + ratio), -40.0, 40.0)))
            late = float((self.steps / new).sum()) > self.horizon
            low, high = (middle, high) if late else (low, middle)
        return new

    def minimum(self, stretch: float, multiplier: float) -> tuple[float, float]:
        """Minimum over the rates at Y = stretch * reference; time of the minimiser minus T."""
        table = self.table
        time = stretch * self.time[:, None] / table.fine
        total = self.jumps + stretch * self.decay + multiplier * time
        rows, last = np.arange(len(total)), total.shape[1] - 1
        best = np.argmin(total, axis=1)
        j = np.clip(best, 1, last - 1)
        left, centre, right = total[rows, j - 1], total[rows, j], total[rows, j + 1]
        bend = np.maximum(left - 2.0 * centre + right, 1e-300)
        drop = np.where(best == j, (left - right) ** 2 / (8.0 * bend), 0.0)
        low = total[rows, best] - drop
        spent = time[rows, best]
        # Below the table: count * log(eta) + multiplier * time, everything else at its limit.
        less = np.minimum(multiplier * time[:, 0] / np.maximum(self.count, 1e-300), 1.0)
        beyond = total[:, 0] - max(stretch, 1.0) * self.below + self.count * np.log(less)
        beyond = np.where(less < 1.0, beyond + multiplier * time[:, 0] * (1.0 / less - 1.0), np.inf)
        spent = np.where(beyond < low, time[:, 0] / less, spent)
        low = np.minimum(low, beyond)
        constant = self.base + float(self.count.sum()) * math.log(stretch)
        return (
            constant + float(low.sum()) - multiplier * self.horizon,
            float(spent.sum()) - self.horizon,
        )

    def cell(self, low: float, high: float) -> float:
        """Lower bound of the excess for all intrinsic times from ``low`` to ``high``."""
        reference = float(self.steps.sum())
        log_multiplier = math.log(max(float(self.count.sum()), 1e-6) / self.horizon)
        best, bracket = -math.inf, [-math.inf, math.inf]
        step = 1.0
        for _ in range(24):
            multiplier = math.exp(log_multiplier)
            value, late = min(self.minimum(end / reference, multiplier) for end in (low, high))
            best = max(best, value)
            bracket[0 if late > 0.0 else 1] = log_multiplier
            if bracket[1] - bracket[0] < 0.03 or abs(log_multiplier) > 80.0:
                break
            if math.isinf(bracket[1] - bracket[0]):
                log_multiplier += step if late > 0.0 else -step
                step *= 1.6
            else:
                log_multiplier = 0.5 * (bracket[0] + bracket[1])
        return math.exp(min(best, 600.0))
