r"""A lower bound on the final excess loss of every schedule, for the exact step recursion.

Two bounds by intrinsic time :math:`Y = \sum \eta_t`, which no schedule of that Y can beat:

**The relaxed geodesic** (see `optsched.control.bounds.geodesic`) is cheap. A step's decay is
bounded by speeding up each mode, :math:`r(x) \ge e^{-2 \varphi x}`, :math:`\varphi_j = \max_{x \le
\eta_{max} \lambda_j} -\log r(x) / 2x`, and near the end by the noise that a schedule better than
the incumbent can afford. K and :math:`L_{low}` decrease, so that each step costs at least the
integral over its own intrinsic time. Where this bound is within a part of the target gap, that Y
needs no refinement.

**The supporting inequality** (see `optsched.control.bounds.supporting`) is tight to second order
around a reference path, and one evaluation bounds a whole *cell* of Y. Cells cover every Y that the
relaxed geodesic does not exclude, each with its own reference: the relaxed geodesic with
quasi-steady variance, corrected as the nearest solved cell was, then moved towards stationarity;
the references of neighbours are tried first, as each bounds every cell. The worst cell is halved
until the gap is closed or stays. The bound is the least value of all cells and of the relaxed
geodesic elsewhere: a schedule below it would have to lie somewhere.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats
from optsched.control.bounds.geodesic import LogTable, graded_rule, time_level
from optsched.control.bounds.supporting import Case, Generators, SupportingBound
from optsched.model.spectrum import Modes

__all__ = ["CertifiedBound", "certified_bound"]


SAFETY = 1e-4  # relative, taken off a refined bound for the numerical error
AMPLE = 0.4  # of the target gap: closer than this is not looked for
CELL = 0.35  # first width of a cell in w = log Y - log(eta_max T - Y)
LAST_LOGIT = 20.0  # Y within 2e-9 of the largest
REUSED = 2  # references of the nearest cells that are tried before a new one
ROWS = 140  # points of intrinsic time of the relaxed geodesic


@dataclass(frozen=True)
class CertifiedBound:
    """Lower bound of the final excess loss of every schedule.

    Attributes
    ----------
    value : float
        The bound; never above the incumbent.
    relaxed : float
        Bound of the relaxed geodesic alone.
    cells : int
        Cells of intrinsic time that the refined bound was evaluated on.
    """

    value: float
    relaxed: float
    cells: int


def running_max(x_max: Floats, batch_size: float, order: int) -> Floats:
    r"""Running maximum over (0, x_max] of how much faster a step decays than e^{-2x}.

    order 1: :math:`-\log r(x) / 2x`, at least 1; order 2: :math:`(-\log r(x) - 2x) / 2x^2`, at
    least 0, with :math:`r(x) = (1-x)^2 + x^2/m`.
    """
    top = max(float(np.max(x_max)), 1e-4)
    # r has its minimum in a dip that is the narrower the larger the batch.
    vertex = batch_size / (1.0 + batch_size)
    dip = vertex * (1.0 + np.linspace(-8.0, 8.0, 1601) / math.sqrt(1.0 + batch_size))
    even = np.append(0.0, np.geomspace(1e-5, top, 4000))
    grid = np.unique(np.append(even, dip[(dip > 1e-5) & (dip < top)]))
    x = grid[1:]
    rate = -np.log1p(-(2.0 * x - (1.0 + 1.0 / batch_size) * x**2))
    value = rate / (2.0 * x) if order == 1 else (rate - 2.0 * x) / (2.0 * x**2)
    if order == 2:  # cancellation: the limit at 0 is (1 - 1/m)/2, and the function grows from it
        value = np.where(x < 1e-3, 0.5 * (1.0 - 1.0 / batch_size) + 2.0 * x, value)
    first = 1.0 if order == 1 else 0.0
    value = np.maximum.accumulate(np.concatenate([[first], value]))
    # The next grid value bounds everything below it: round up, never down.
    return value[np.minimum(np.searchsorted(grid, x_max), len(grid) - 1)]


class _Convexity:
    """`running_max` of order 2 on a fixed grid, looked up without a search."""

    def __init__(self, top: float, batch_size: float) -> None:
        self.low = 1e-5
        self.step = math.log(max(top, 1e-4) / self.low) / 3000
        grid = self.low * np.exp(self.step * np.arange(3001))
        self.value = running_max(grid, batch_size, 2)

    def __call__(self, x: Floats) -> Floats:
        # The next entry but for rounding, which goes up as well.
        at = np.log(np.maximum(x, self.low) / self.low) / self.step + (1.0 + 1e-6)
        return self.value[np.minimum(at.astype(np.int64), len(self.value) - 1)]


def _level(h: Floats, du: Floats, cap: float, horizon: float, floor: float = 0.0) -> float:
    """Log of C with ``sum du max(1/cap, h/C + floor) = horizon``."""
    low, high = math.log(h.min() * cap) - 50.0, math.log(h.max() * cap) + 50.0
    for _ in range(6):
        at = np.linspace(low, high, 32)
        rate = np.maximum(1.0 / cap, np.multiply.outer(np.exp(-at), h) + floor)
        k = min(max(int((rate @ du > horizon).sum()), 1), len(at) - 1)
        low, high = float(at[k - 1]), float(at[k])
    return high


class _Relaxed:
    """Bound of the relaxed geodesic for given intrinsic times Y, valid for the recursion."""

    def __init__(self, case: Case, spacing: float) -> None:
        lam, nu = np.array(case.modes.lam), case.modes.nu
        self.case, self.top = case, float(lam.max())
        fast = 1e-3 / self.top
        span = fast, 2.0 * (case.longest + fast)
        quick = lam * running_max(case.eta_max * lam, case.batch_size, 1)
        self.bias = LogTable(quick, case.modes.mu, *span)
        self.kernel_quick = LogTable(quick, nu, *span)
        self.kernel_plain = LogTable(lam, nu, *span)
        self.kernel_second = LogTable(lam, nu * lam**2, *span)
        self.convexity = _Convexity(case.eta_max * self.top, case.batch_size)
        self.variance: tuple[Floats, Floats] | None = None
        # Quasi-steady variance over loss, per unit of eta.
        x = (1.0 + 1.0 / case.batch_size) * case.eta_max * lam
        share = float((nu / lam / np.maximum(2.0 - x, 1e-3)).sum()) / case.batch_size
        self.share = 0.98 * min(share, 1.0 / case.eta_max)
        self.points = math.ceil(2.0 * max(math.log(50.0 * self.top * case.longest), 3.0) / spacing)
        self.s, self.rest, self.weight = graded_rule(case.longest, fast, ROWS)

    def low(self, tau: Floats) -> Floats:
        """Lower bound of the loss at intrinsic time ``tau`` of every schedule."""
        value = self.case.sigma2 + self.bias(tau)
        if self.variance is not None:
            at, noise = self.variance
            value += np.exp(np.interp(np.log(tau), np.log(at), np.log(noise)))
        # ``tau`` increases along the last axis; the step-against-integral argument needs a fall.
        return np.minimum.accumulate(value, axis=-1)

    def kernel(self, togo: Floats, tau_f: Floats) -> Floats:
        """Lower bound of the noise kernel of every schedule better than the incumbent."""
        case, best = self.case, self.kernel_quick(togo)
        plain = self.kernel_plain(togo)
        pull = self.kernel_second(togo) / plain
        bias = self.bias(tau_f)[:, None]
        budget = case.batch_size * np.maximum(case.incumbent - bias, 1e-12 * case.incumbent)
        # Where both factors below underflow nothing limits the noise, and that is what comes out.
        for _ in range(2):
            # No step, and no sum of steps, of a better schedule is noisier than the incumbent.
            squares = budget / ((case.sigma2 + bias) * best)
            cap = np.minimum(case.eta_max, np.sqrt(squares))
            chi = self.convexity(cap * self.top)
            slower = plain * np.exp(-2.0 * chi * np.minimum(squares, cap * togo) * pull)
            slower = np.minimum.accumulate(slower[:, ::-1], axis=1)[:, ::-1]
            best = np.maximum(best, slower)
        return best

    def rows(self, tau_f: Floats, kernel: Floats | None = None) -> tuple[Floats, Floats]:
        """Bias and relaxed variance for every Y in ``tau_f``."""
        case = self.case
        if kernel is None:
            kernel = self.kernel(tau_f[:, None] * self.rest, tau_f)
        h = np.sqrt(kernel * self.low(tau_f[:, None] * self.s))
        du = tau_f[:, None] * self.weight
        level = time_level(h, du, case.eta_max, case.horizon)
        eta = np.minimum(case.eta_max, level[:, None] / h)
        return self.bias(tau_f), (du * h**2 * eta).sum(1) / case.batch_size

    def path(self, tau_f: float) -> tuple[Floats, Floats]:
        """Intervals of intrinsic time and a rate for each: where to start a reference.

        The variance in the loss is modelled by its quasi-steady share rho * eta.
        """
        case = self.case
        v_end = max(math.log(50.0 * self.top * tau_f), 3.0)
        v = np.linspace(-v_end, v_end, self.points + 1)
        s, rest = 1.0 / (1.0 + np.exp(-v)), 1.0 / (1.0 + np.exp(v))
        s[0], rest[0], s[-1], rest[-1] = 0.0, 1.0, 1.0, 0.0
        du = tau_f * np.where(s[1:] < 0.5, np.diff(s), -np.diff(rest))
        middle, togo = 0.5 * tau_f * (s[1:] + s[:-1]), 0.5 * tau_f * (rest[1:] + rest[:-1])
        share = self.share
        h = np.sqrt(self.kernel_plain(togo) * self.low(middle))
        log_level = _level(h, du, case.eta_max, case.horizon, share)
        return du, np.minimum(case.eta_max, 1.0 / (h * math.exp(-log_level) + share))


def _active(relaxed: _Relaxed, ample: float) -> tuple[float, float, float, float]:
    """Relaxed bound, and where w = logit(Y / longest) may lead below ``ample``.

    The bound of paths shorter than every w, the relaxed bound of all, and the range of w.
    """
    longest = relaxed.case.longest
    w = np.linspace(math.log(min(1e-4 / (relaxed.top * longest), 0.1)), LAST_LOGIT, 72)
    tau = _unlogit(w, longest)
    kernel = relaxed.kernel(tau[:, None] * relaxed.rest, tau)
    for _ in range(2):
        # Chords of the table in log-log, lowered by its interpolation error.
        noise = np.maximum(relaxed.rows(tau, kernel)[1], 1e-290)
        relaxed.variance = tau, 0.998 * noise
    # On shorter paths than all of these, the bias alone bounds the excess.
    least = float(relaxed.bias(tau[:1])[0])
    _, low, high = _range(relaxed, w, ample, kernel)
    w = np.linspace(low, high, 64)
    best, low, high = _range(relaxed, w, ample)
    around = np.linspace(w[max(best - 1, 0)], w[min(best + 1, len(w) - 1)], 16)
    value = np.add(*relaxed.rows(_unlogit(around, longest)))
    return least, min(least, float(value.min())), low, high


def _range(
    relaxed: _Relaxed, w: Floats, ample: float, kernel: Floats | None = None
) -> tuple[int, float, float]:
    """Index of the least relaxed bound, and neighbours of the range below ``ample``."""
    value = np.add(*relaxed.rows(_unlogit(w, relaxed.case.longest), kernel))
    best = int(np.argmin(value))
    keep = np.append(np.flatnonzero(value < ample), best)
    return best, float(w[max(keep.min() - 1, 0)]), float(w[min(keep.max() + 1, len(w) - 1)])


def _unlogit(w: Floats, longest: float) -> Floats:
    """Intrinsic time of w; all of it at the end of the range."""
    return np.where(w >= LAST_LOGIT, longest, longest / (1.0 + np.exp(-w)))


class _Cells:
    """Refined bounds over cells of w, with references that learn from one another."""

    def __init__(self, relaxed: _Relaxed, low: float, high: float, density: float) -> None:
        self.relaxed = relaxed
        # w of a cell, and log(good path / path of _Relaxed) there
        self.known = [(0.0, np.zeros(relaxed.points))]
        self.supports: list[tuple[float, SupportingBound]] = []
        ends = _unlogit(np.linspace(low, high, 5), relaxed.case.longest)
        lowest = min(float(relaxed.path(float(tau))[1].min()) for tau in ends)
        self.table = Generators(relaxed.case, 0.2 * lowest, density)

    def value(self, low: float, high: float, enough: float, ample: float) -> float:
        """Lower bound of the excess over the cell from w = low to high."""
        case = self.relaxed.case
        edges = _unlogit(np.array([low, 0.5 * (low + high), high]), case.longest)
        best, w = 0.0, 0.5 * (low + high)
        # References of other cells bound this one as well.
        for _, support in sorted(self.supports, key=lambda item: abs(item[0] - w))[:REUSED]:
            best = max(best, support.cell(float(edges[0]), float(edges[2]), ample))
            if best >= 0.5 * (enough + ample):
                return best
        du, eta = self.relaxed.path(float(edges[1]))
        correction = min(self.known, key=lambda item: abs(item[0] - w))[1]
        current = np.clip(eta * np.exp(correction), self.table.rates[0], case.eta_max)
        found, top, latest = None, 0.0, None
        with np.errstate(all="ignore"):
            for i in range(4):
                support = SupportingBound(self.table, self.table.nearest(current), du)
                new = support.cell(float(edges[0]), float(edges[2]), ample)
                best = max(best, new)
                if new > top:
                    top, latest = new, support
                    if new > 0.9 * math.exp(support.log_excess):
                        found = w, np.log(current / eta)
                # More rounds only where the bound is poor, or the start has not been improved.
                if best >= enough or (i > 0 and best > 0.97 * case.incumbent):
                    break
                current = support.improved(self.relaxed.share)
        if latest is not None:
            self.supports.append((w, latest))
        if found is not None:
            self.known.append(found)
        return best


def _refine(cells: _Cells, low: float, high: float, target: float, max_cells: int) -> list[float]:
    """Lower bounds of the excess over cells that cover the range; the worst are halved."""
    incumbent = cells.relaxed.case.incumbent
    edges = np.linspace(low, high, min(max(1, math.ceil((high - low) / CELL)), max_cells) + 1)
    # From the middle outwards, so that references start from good neighbours.
    order = sorted(itertools.pairwise(edges), key=lambda x: abs(x[0] + x[1] - low - high))
    enough, ample = incumbent / (1.0 + target), incumbent / (1.0 + AMPLE * target)
    found = {key: cells.value(*key, enough, ample) for key in order}
    stuck = 0
    while len(found) < max_cells and stuck < 2:
        worst = min(found, key=lambda key: found[key])
        if found[worst] >= enough:
            break
        half = 0.5 * (worst[0] + worst[1])
        parent = found.pop(worst)
        for key in ((worst[0], half), (half, worst[1])):
            found[key] = max(parent, cells.value(*key, enough, ample))
        gain = min(found[worst[0], half], found[half, worst[1]]) - parent
        stuck = 0 if gain > 0.1 * (incumbent - parent) else stuck + 1
    return list(found.values())


def _cautious(value: float, incumbent: float) -> float:
    """Lower a bound by its numerical error, which is well below 1 % of its gap."""
    return value * (1.0 - 0.01 * max(1.0 - value / incumbent, 0.0))


def certified_bound(
    modes: Modes,
    batch_size: float,
    sigma2: float,
    eta_max: float,
    horizon: float,
    incumbent: float,
    *,
    continuous: bool = False,
    target: float = 5e-3,
    max_cells: int = 24,
    spacing: float = 0.35,
    density: float = 4.0,
) -> CertifiedBound:
    """Bound the final excess loss of every schedule of the exact recursion from below.

    Parameters
    ----------
    modes : Modes
        Quadrature nodes, accurate up to ``eta_max * horizon``.
    batch_size, sigma2, eta_max, horizon : float
        Batch size m, label-noise variance, upper bound of the rate, number of steps T.
    incumbent : float
        Excess loss of a known schedule.
    continuous : bool
        Bound the ODE with rate 2 eta lam - (1 + 1/m) (eta lam)^2 instead of the recursion.
    target : float
        Relative gap to the incumbent at which the refinement stops.
    max_cells : int
        Largest number of cells of intrinsic time to refine.
    spacing : float
        Intervals of a reference path, in log intrinsic time from the nearer end.
    density : float
        Entries of the table of generators per e-fold of the rate.

    Returns
    -------
    CertifiedBound
    """
    case = Case(modes, batch_size, sigma2, eta_max, horizon, incumbent, continuous)
    relaxed = _Relaxed(case, spacing)
    ample = incumbent / (1.0 + AMPLE * target)
    shortest, weak, low, high = _active(relaxed, ample)
    weak = min(_cautious(weak, incumbent), incumbent)
    if incumbent <= weak * (1.0 + target):
        return CertifiedBound(weak, weak, 0)
    found = _refine(_Cells(relaxed, low, high, density), low, high, target, max_cells)
    # No cell covers the shortest paths: to train hardly at all may beat a poor incumbent.
    refined = _cautious(min(ample, shortest, *found), incumbent) * (1.0 - SAFETY)
    return CertifiedBound(min(max(refined, weak), incumbent), weak, len(found))
