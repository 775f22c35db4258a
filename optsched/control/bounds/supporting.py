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

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Floats, Ints
from optsched.model.spectrum import Modes
from optsched.numerics import halfway

__all__ = ["Case", "Generators", "SupportingBound"]


LOGIT_TOP = 4.0  # densest spacing of the table of rates is at its top
SLOW = 1e-3  # modes with less lam * eta_max share one class
MOST_FEEDBACK = 0.92  # largest share of the variance in the loss on reference paths
GAUSS = 0.5 + 0.5 * np.array([-math.sqrt(0.6), 0.0, math.sqrt(0.6)])
GAUSS_WEIGHTS = np.array([5.0, 8.0, 5.0]) / 18.0
STEP_Z = 0.8  # trapezoidal rule in log z: error exp(-2 pi^2 / STEP_Z)


@functools.lru_cache(maxsize=64)
def _halfway(count: int) -> Floats:
    """Matrix that interpolates by a spline from ``count`` even knots to the points between."""
    return halfway(count)


def _interpolate(values: Floats) -> Floats:
    """Values at every knot and at the points between, along the last axis."""
    fine = np.empty((*values.shape[:-1], 2 * values.shape[-1] - 1))
    fine[..., ::2] = values
    fine[..., 1::2] = values @ _halfway(values.shape[-1])
    return fine


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
        self.decay = self.own_decay(self.rates)
        self.inner = self._inner(fast)
        self.fine_decay = self.own_decay(self.fine, protect=True)
        # Eigenbases of the symmetric generators, each computed at its first use.
        self.values = np.empty((count, len(lam)))
        self.vectors = np.empty((count, len(lam), len(lam)))
        self.ready = np.zeros(count, dtype=bool)
        each = np.arange(len(fast))
        self.fast, self.stay = fast, self.inner[:, each, each] * nu[fast]  # jumps to itself
        # Pairs of classes: rates are symmetric, and jumps of a fast mode to itself left out.
        one, two = np.triu_indices(len(fast) + 1, 1)
        self.pairs = np.append(one, len(fast)), np.append(two, len(fast))
        self.pair_inner = self.inner[:, self.pairs[0], self.pairs[1]]
        self.log_inner = np.log(self.pair_inner / self.rates[:, None])
        # Quasi-steady variance over loss; the recursion is stable below 1.
        x = (1.0 + 1.0 / case.batch_size) * np.multiply.outer(self.rates, lam)
        share = (nu / lam / np.maximum(2.0 - x, 1e-3)).sum(1) * self.rates / case.batch_size
        self.usable = max(int(np.searchsorted(share, MOST_FEEDBACK)) - 1, 0)

    def prepare(self, index: Ints) -> None:
        """Compute the eigenbases of some entries."""
        new = np.unique(index[~self.ready[index]])
        if len(new):
            own, each = self.classes[:-1], np.arange(len(self.root))
            symmetric = self.inner[new][:, own[:, None], own]
            symmetric *= np.multiply.outer(self.root, self.root)
            symmetric[:, each, each] += self.decay[new]
            self.values[new], self.vectors[new] = np.linalg.eigh(symmetric)
            self.ready[new] = True

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

    def _inner(self, fast: Ints) -> Floats:
        """Jump rates between classes over nu of the target, for every rate."""
        eta, classes = self.rates[:, None], len(fast) + 1
        c = eta**2 / self.case.batch_size
        if self.case.continuous:
            return np.repeat((c / eta)[:, :, None], classes, axis=1).repeat(classes, axis=2)
        decay, one = np.exp(self.decay * eta), np.ones_like(eta)
        r = np.append(decay[:, fast], one, axis=1)
        nu = np.append(self.nu[fast], self.nu.sum() - self.nu[fast].sum())
        z = np.exp(np.arange(math.log(r.min()) - 17.0, 17.0, STEP_Z))
        poles = 1.0 / (r[:, :, None] + z)
        # Slow modes enter the denominator at the least r among them: more of it, a lower rate.
        least = np.append(one, decay[:, self.slow], axis=1).min(1, keepdims=True)
        feedback = nu[:-1] @ poles[:, :-1] + nu[-1] / (least + z)
        weight = (c / eta) * STEP_Z * z / (1.0 + c * feedback)
        return (poles * weight[:, None]) @ poles.transpose(0, 2, 1)

    @property
    def slow(self) -> NDArray[np.bool_]:
        """Which modes belong to the slow class."""
        return self.classes[:-1] == self.members.shape[1] - 1

    def nearest(self, eta: Floats) -> Ints:
        """Index of the rate nearest to each of ``eta``, not too close to the stability limit."""
        middle = np.sqrt(self.rates[1:] * self.rates[:-1])
        return np.minimum(np.searchsorted(middle, eta), self.usable)


class SupportingBound:
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
        one, two = table.pairs
        weights = sources.take(one, 1) * targets.take(two, 1)
        weights[:, :-1] += sources.take(two[:-1], 1) * targets.take(one[:-1], 1)
        weights *= table.pair_inner[each]
        self.count = weights.sum(1)
        occupied = costates * states[:, :-1] * scale
        fast = occupied[:, table.fast]
        self.jumps = _interpolate(weights @ table.log_inner.T)
        self.jumps += self.count[:, None] * np.log(table.fine)
        stay = _interpolate(fast @ table.stay.T)
        # What the jump rates at the lowest entry exceed their limit at eta = 0 by.
        surplus = np.maximum(table.log_inner[0] + math.log(table.case.batch_size), 0.0)
        self.below = weights @ surplus + fast @ table.stay[0]
        self.per_rate = self.time[:, None] / table.fine
        self.decay = stay + occupied @ table.fine_decay.T
        at = np.arange(len(each)), 2 * each
        own = float((occupied * table.decay[each]).sum()) + float((self.jumps + stay)[at].sum())
        self.base = self.log_excess - own
        # Of the time: where to start the search, and then the best so far.
        self.multiplier = max(float(self.count.sum()), 1e-6) / self.horizon

    def _propagate(self) -> tuple[Floats, Floats, Floats]:
        """State at the start and costate at the end of every interval, in its eigenbasis."""
        table, index = self.table, self.index
        table.prepare(index)
        root, vectors, n = table.root, table.vectors[index], len(index)
        grow = np.exp(table.values[index] * self.steps[:, None])
        own = table.classes[:-1]
        source = table.inner[index][:, own, -1] * (table.case.sigma2 * root)
        source = (source[:, None] @ vectors)[:, 0]
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
            states[:, g, :-1] = (vectors @ inside[:, :, None])[:, :, 0] * root
            inside = np.exp(values * (self.steps[:, None] - at)) * p
            costates[:, g] = (vectors @ inside[:, :, None])[:, :, 0] / root
        states, costates = np.maximum(states, 0.0), np.maximum(costates, 0.0)
        return states.reshape(-1, size + 1), costates.reshape(-1, size)

    def improved(self, share: float) -> Floats:
        """Rates after a damped step towards dlog E / dlog eta = multiplier * time."""
        table = self.table
        # Differences in the logit of the rate, of which log eta is a function.
        j, rows = 2 * np.repeat(self.index, len(GAUSS)), np.arange(len(self.time))
        right, left = np.minimum(j + 1, len(table.fine) - 1), np.maximum(j - 1, 0)
        slope = self.jumps[rows, right] + self.decay[rows, right]
        slope -= self.jumps[rows, left] + self.decay[rows, left]
        slope /= np.log(table.fine[right] / table.fine[left])
        slope = slope.reshape(len(self.steps), -1).sum(1)
        pull = np.maximum(slope, 1e-300)
        eta, cap = table.rates[self.index], float(table.rates[-1])
        # eta <- min(eta_max, eta (multiplier time / pull)^power), the multiplier from the time
        power = 0.5 * np.maximum(1.0 - share * eta, 0.05)
        ratio = np.clip(np.log(self.steps / eta / pull), -300.0, 300.0)
        new, low, high = eta, -700.0, 700.0
        for _ in range(5):
            shift = np.linspace(low, high, 32)[:, None]
            new = np.minimum(cap, eta * np.exp(np.clip(power * (shift + ratio), -40.0, 40.0)))
            late = (self.steps / new).sum(1) > self.horizon
            k = min(max(int(late.sum()), 1), len(late) - 1)
            low, high, new = float(shift[k - 1, 0]), float(shift[k, 0]), new[k]
        return new

    def minimum(self, stretch: float, multiplier: float) -> tuple[float, float]:
        """Minimum over the rates at Y = stretch * reference; time of the minimiser minus T."""
        total = (stretch * multiplier) * self.per_rate
        total += stretch * self.decay
        total += self.jumps
        rows, last = np.arange(len(total)), total.shape[1] - 1
        best = np.argmin(total, axis=1)
        j = np.clip(best, 1, last - 1)
        left, centre, right = total[rows, j - 1], total[rows, j], total[rows, j + 1]
        bend = np.maximum(left - 2.0 * centre + right, 1e-300)
        drop = np.where(best == j, (left - right) ** 2 / (8.0 * bend), 0.0)
        low = total[rows, best] - drop
        spent, longest = stretch * self.per_rate[rows, best], stretch * self.per_rate[:, 0]
        # Below the table: count * log(eta) + multiplier * time, everything else at its limit.
        less = np.minimum(multiplier * longest / np.maximum(self.count, 1e-300), 1.0)
        beyond = total[:, 0] - max(stretch, 1.0) * self.below + self.count * np.log(less)
        beyond = np.where(less < 1.0, beyond + multiplier * longest * (1.0 / less - 1.0), np.inf)
        spent = np.where(beyond < low, longest / less, spent)
        low = np.minimum(low, beyond)
        constant = self.base + float(self.count.sum()) * math.log(stretch)
        return (
            constant + float(low.sum()) - multiplier * self.horizon,
            float(spent.sum()) - self.horizon,
        )

    def cell(self, low: float, high: float, ample: float = math.inf) -> float:
        """Lower bound of the excess for all intrinsic times from ``low`` to ``high``.

        Any multiplier gives one. The least over both ends is concave in the multiplier: tangents
        on both sides of its maximum bound what is left to gain. Stops above ``ample``.
        """
        ends = low / float(self.steps.sum()), high / float(self.steps.sum())
        enough, best, x = math.log(ample), -math.inf, self.multiplier
        left: tuple[float, float, float] | None = None
        right: tuple[float, float, float] | None = None
        for _ in range(30):
            value, late = min(self.minimum(end, x) for end in ends)
            if value > best:
                best, self.multiplier = value, x
            if late > 0.0:
                left = x, value, late
            else:
                right = x, value, late
            if best >= enough or abs(math.log(x)) > 300.0:
                break
            if left is None or right is None:
                guess = 1.5 * math.log(max(1.0 + late / self.horizon, 1e-9))
                x *= math.exp(min(max(guess, -4.0), 4.0) + math.copysign(0.02, late))
                continue
            width = right[0] - left[0]
            rise = right[1] - left[1] - right[2] * width
            part = rise / max(left[2] - right[2], 1e-300) / width
            if left[1] + left[2] * part * width < best + 2e-5 or width < 1e-3 * left[0]:
                break
            x = left[0] + min(max(part, 0.03), 0.97) * width
        return math.exp(min(best, 600.0))
