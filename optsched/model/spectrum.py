r"""Spectra of the random-feature model, and the few modes that stand for all of them.

The loss depends on the spectrum only through two positive measures on the eigenvalue
:math:`\lambda`: the *bias measure* with masses :math:`\mu_k = \lambda_k w_k^2` and the *noise
measure* with masses :math:`\nu_k = \lambda_k^2`. :meth:`Spectrum.modes` replaces both by a short
list of nodes: the leading eigenvalues exactly, and Gauss nodes of the discrete measure in every
geometric bin of the rest, so that the cost does not depend on the number of features.
"""

from __future__ import annotations

import abc
import math
import sys
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optsched.arrays import Brief
from optsched.checks import is_number
from optsched.errors import InvalidProblem
from optsched.numerics import quiet, zeta

__all__ = ["Modes", "PowerLawSpectrum", "Spectrum", "TabulatedSpectrum"]

# Ratio of eigenvalues across one bin, and Gauss nodes per bin: bias sum and noise kernel to 2e-7.
BIN_RATIO = 4.0
BIN_NODES = 7
# The last eigenvalues of a finite spectrum rule the exponential end of the decay: more nodes there.
END_EXTRA = 5
# Eigenvalues with 2 * lam * tau_max below this hardly move; three nodes a measure carry them.
TAIL_EXPONENT = 0.3
TAIL_NODES = 3
MODE_BUCKET = 16
# Modes up to this index are summed one by one; beyond it sums are midpoint-rule integrals.
DIRECT_MODES = 2**15


class Modes(NamedTuple):
    """Nodes of the spectral quadrature.

    Attributes
    ----------
    lam : numpy.ndarray, shape (n,)
        Eigenvalues of the nodes (inverse steps per unit of learning rate).
    mu : numpy.ndarray, shape (n,)
        Bias masses; ``mu.sum()`` is the excess loss at initialisation.
    nu : numpy.ndarray, shape (n,)
        Noise masses; ``nu.sum()`` is the trace of the squared covariance.
    """

    lam: NDArray[np.float64]
    mu: NDArray[np.float64]
    nu: NDArray[np.float64]

    def bias(self, tau: ArrayLike) -> NDArray[np.float64]:
        r"""Bias sum :math:`F(\tau) = \sum \mu e^{-2\lambda\tau}` at intrinsic times ``tau``."""
        return np.exp(-2.0 * np.multiply.outer(np.asarray(tau, float), self.lam)) @ self.mu

    def padded(self) -> Modes:
        """The same with massless modes added, so that compiled code is shared between spectra."""
        pad = -len(self.lam) % (
            MODE_BUCKET if len(self.lam) <= 4 * MODE_BUCKET else 2 * MODE_BUCKET
        )
        return Modes(*(np.concatenate([column, np.zeros(pad)]) for column in self))

    def kernel(self, tau: ArrayLike) -> NDArray[np.float64]:
        r"""Noise kernel :math:`K(\tau) = \sum \nu e^{-2\lambda\tau}` at intrinsic times ``tau``."""
        return np.exp(-2.0 * np.multiply.outer(np.asarray(tau, float), self.lam)) @ self.nu


class Spectrum(abc.ABC):
    """Eigenvalues and target of a linear model, as seen by SGD."""

    @property
    @abc.abstractmethod
    def size(self) -> float:
        """Number of features N; ``math.inf`` for an infinite spectrum."""

    @property
    @abc.abstractmethod
    def trace(self) -> float:
        r"""Trace :math:`\sum_k \lambda_k` of the feature covariance."""

    @property
    @abc.abstractmethod
    def largest(self) -> float:
        r"""Largest eigenvalue :math:`\lambda_1`."""

    @abc.abstractmethod
    def modes(self, tau_max: float = math.inf, nodes: int = BIN_NODES) -> Modes:
        r"""Quadrature nodes that are accurate for intrinsic times up to ``tau_max``.

        Parameters
        ----------
        tau_max : float
            Largest :math:`\tau = \sum_t \eta_t` that will be asked for. Eigenvalues that do not
            move within it are lumped.
        nodes : int
            Gauss nodes in a bin of eigenvalues; the default is good to 2e-7, 3 to about 2e-4.

        Returns
        -------
        Modes
        """

    @abc.abstractmethod
    def full(self) -> Modes:
        """All N modes, one node each. Raises `InvalidProblem` for an infinite spectrum."""


def _gauss(
    x: NDArray[np.float64], weights: NDArray[np.float64], count: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Gauss nodes and weights of a discrete positive measure, by Lanczos on diag(x)."""
    total = float(weights.sum())
    if len(x) <= count or total == 0.0:
        return x, weights
    centre = float(x @ weights) / total
    half = max(float(np.ptp(x)) / 2.0, np.finfo(float).tiny)
    z = (x - centre) / half
    basis = np.empty((count, len(x)))
    diagonal, off = np.empty(count), np.empty(count - 1)
    q = np.sqrt(weights / total)
    for j in range(count):
        basis[j] = q
        r = z * q
        diagonal[j] = q @ r
        # Full reorthogonalisation, twice: count is small, and positivity depends on it.
        for _ in range(2):
            r -= basis[: j + 1].T @ (basis[: j + 1] @ r)
        norm = float(np.linalg.norm(r))
        if j + 1 == count:
            break
        if norm < 1e-13:  # fewer distinct eigenvalues than nodes: the rule is exact already
            diagonal, off = diagonal[: j + 1], off[:j]
            break
        off[j], q = norm, r / norm
    nodes, vectors = np.linalg.eigh(np.diag(diagonal) + np.diag(off, -1))
    return centre + half * nodes, total * vectors[0] ** 2


def _stack(parts: list[Modes]) -> Modes:
    lam, mu, nu = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(-lam, kind="stable")
    return Modes(lam[order], mu[order], nu[order])


def _apart(points: Modes, count: int, *, in_log: bool = False) -> Modes:
    """Gauss nodes of each measure on its own; a node of one carries no mass of the other.

    In a bin, log(lam) is the better variable (decays are smooth in it on both sides); in the
    tail, where nothing moves, lam itself.
    """
    parts = []
    for which in ("mu", "nu"):
        weights = getattr(points, which)
        keep = weights > 0.0
        if keep.any():
            x = np.log(points.lam[keep]) if in_log else points.lam[keep]
            nodes, masses = _gauss(x, weights[keep], count)
            nodes = np.exp(nodes) if in_log else nodes
            zero = np.zeros_like(masses)
            parts.append(
                Modes(nodes, masses, zero) if which == "mu" else Modes(nodes, zero, masses)
            )
    return _stack(parts)


def _bins(lam_first: float, lam_last: float) -> NDArray[np.float64]:
    """Edges of the geometric bins from ``lam_first`` down to just below ``lam_last``."""
    count = max(1, math.ceil(math.log(lam_first / lam_last) / math.log(BIN_RATIO) + 1e-9))
    edges = lam_first * (1.0 + 1e-12) * BIN_RATIO ** -np.arange(count + 1.0)
    edges[-1] = min(edges[-1], lam_last * (1.0 - 1e-12))
    return edges


@dataclass(frozen=True)
class PowerLawSpectrum(Spectrum):
    r"""Power-law features: :math:`\lambda_k = k^{-b}`, :math:`\lambda_k w_k^2 = k^{-a}`, k = 1..N.

    Parameters
    ----------
    a : float
        Exponent of the target, a > 1.
    b : float
        Exponent of the covariance (capacity exponent), b > 1.
    size : int or math.inf
        Number of features N.

    Notes
    -----
    Model of Bordelon & Mori, arXiv 2602.04774. Easy phase b < a, hard phase b > a.
    """

    a: float
    b: float
    size: float = math.inf  # type: ignore[assignment]

    def __post_init__(self) -> None:
        for field in ("a", "b"):
            value = getattr(self, field)
            if not (is_number(value) and 1.0 < value <= sys.float_info.max):
                raise InvalidProblem(field, value, "a finite number greater than 1")
        if not (self.size == math.inf or (self.size >= 1 and float(self.size).is_integer())):
            raise InvalidProblem("features", self.size, "a whole number >= 1, or inf")

    @property
    def trace(self) -> float:
        return self._zeta(self.b)

    @property
    def largest(self) -> float:
        return 1.0

    def _zeta(self, s: float, first: float = 1.0) -> float:
        """Sum of k^-s over k = first..N, by Hurwitz zeta."""
        tail = zeta(s, self.size + 1.0) if math.isfinite(self.size) else 0.0
        return zeta(s, first) - tail

    @quiet
    def full(self) -> Modes:
        if not math.isfinite(self.size):
            raise InvalidProblem("features", self.size, "a finite number for the full spectrum")
        return self._points(np.arange(1.0, self.size + 1.0))

    def _points(self, k: NDArray[np.float64], width: ArrayLike = 1.0) -> Modes:
        width = np.asarray(width)
        return Modes(k**-self.b, k**-self.a * width, k ** (-2.0 * self.b) * width)

    @quiet
    def modes(self, tau_max: float = math.inf, nodes: int = BIN_NODES) -> Modes:
        a, b, size = self.a, self.b, float(self.size)
        # First index of the tail: every mode from there on has 2 lam tau_max < TAIL_EXPONENT.
        log_tail = math.log(2.0 * tau_max / TAIL_EXPONENT) / b if tau_max > 0 else 0.0
        if math.isinf(size) and log_tail > 600.0:
            raise InvalidProblem("tau_max", tau_max, "finite for an infinite spectrum")
        tail_from = float(np.ceil(math.exp(log_tail))) if log_tail < 600.0 else math.inf
        tail_from = min(max(1.0, tail_from), size + 1.0)
        parts = []
        if tail_from > 1.0:
            edges = _bins(1.0, (tail_from - 1.0) ** -b)
            ends = tail_from > size
            k_edges = np.minimum(np.floor(edges ** (-1.0 / b)) + 1.0, tail_from)
            k_edges[0] = 1.0
            k_edges[-1] = tail_from
            for i, (first, stop) in enumerate(pairwise(k_edges)):
                if stop > first:
                    last_two = ends and i >= len(edges) - 3
                    parts.append(self._bin(first, stop, nodes + END_EXTRA if last_two else nodes))
        if tail_from <= size:
            parts.append(self._tail(tail_from))
        modes = _stack(parts)
        # Restore the exact total masses, which the bins carry to about 1e-8.
        return Modes(
            modes.lam,
            modes.mu * (self._zeta(a) / modes.mu.sum()),
            modes.nu * (self._zeta(2.0 * b) / modes.nu.sum()),
        )

    def _sample(self, first: float, stop: float) -> tuple[NDArray[np.float64], ...]:
        """Indices and multiplicities that stand for the modes first..stop-1."""
        ks, widths = [], []
        direct = min(stop, max(first, DIRECT_MODES + 1.0))
        if direct > first:
            ks.append(np.arange(first, direct))
            widths.append(np.ones(len(ks[0])))
        if stop > direct:
            # Midpoint rule: the sum over whole k is the integral between half-integers.
            low, high = math.log(direct - 0.5), math.log(stop - 0.5)
            panels = max(1, math.ceil((high - low) / 1.5))
            x, w = np.polynomial.legendre.leggauss(24)
            grid = np.linspace(low, high, panels + 1)
            half = np.diff(grid)[:, None] / 2.0
            k = np.exp(grid[:-1, None] + half * (x + 1.0))
            ks.append(k.ravel())
            widths.append((half * w * k).ravel())
        return np.concatenate(ks), np.concatenate(widths)

    def _bin(self, first: float, stop: float, count: int) -> Modes:
        if stop - first <= count:
            return self._points(np.arange(first, stop))
        k, width = self._sample(first, stop)
        # Gauss nodes in log(lam) of the geometric mean of both measures; each measure's weight
        # then follows from its density, and both stay positive.
        mean = (self.a + 2.0 * self.b) / 2.0
        scale = (k / first) ** -mean * width
        nodes, weights = _gauss(np.log(k / first), scale, count)
        points = self._points(k, width)
        at = first * np.exp(nodes)
        mu = weights * (at / first) ** (mean - self.a)
        nu = weights * (at / first) ** (mean - 2.0 * self.b)
        mu *= points.mu.sum() / mu.sum()
        nu *= points.nu.sum() / nu.sum()
        return Modes(at**-self.b, mu, nu)

    def _tail(self, first: float) -> Modes:
        if math.isfinite(self.size):
            if self.size - first < 2 * TAIL_NODES:
                return self._points(np.arange(first, self.size + 1.0))
            k, width = self._sample(first, self.size + 1.0)
            return _apart(self._points(k, width), TAIL_NODES)
        from scipy.special import roots_jacobi

        split = max(first, DIRECT_MODES + 1.0)
        parts = []
        if split > first:
            parts.append(self._points(np.arange(first, split)))
        edge = split - 0.5
        for s in (self.a, 2.0 * self.b):
            # int_edge^inf k^-s g(k^-b) dk is a Jacobi weight in x = (k/edge)^-b on (0, 1).
            x, w = roots_jacobi(12, 0.0, (s - 1.0) / self.b - 1.0)
            mass = edge ** (1.0 - s) / (s - 1.0) * w / w.sum()
            lam = edge**-self.b * (1.0 + x) / 2.0
            zero = np.zeros_like(mass)
            parts.append(Modes(lam, mass, zero) if s == self.a else Modes(lam, zero, mass))
        return _apart(_stack(parts), TAIL_NODES)


@dataclass(frozen=True, eq=False, repr=False)
class TabulatedSpectrum(Brief, Spectrum):
    r"""A measured spectrum: eigenvalues and target coefficients, one pair a mode.

    Parameters
    ----------
    eigenvalues : array_like, shape (N,)
        Eigenvalues :math:`\lambda_k > 0` of the feature covariance, any order.
    target : array_like, shape (N,)
        Target coefficients :math:`w_k` in the eigenbasis; only squares matter.
    """

    eigenvalues: NDArray[np.float64]
    target: NDArray[np.float64]

    def __post_init__(self) -> None:
        arrays = []
        for field in ("eigenvalues", "target"):
            given = getattr(self, field)
            try:
                arrays.append(np.array(given, dtype=float))
            except (TypeError, ValueError):
                raise InvalidProblem(field, type(given).__name__, "a vector of numbers") from None
        lam, w = arrays
        if lam.ndim != 1 or lam.size == 0 or not np.all((lam >= 1e-100) & (lam <= 1e100)):
            allowed = "a non-empty vector of finite numbers, each 1e-100 to 1e100"
            raise InvalidProblem("eigenvalues", _brief(lam), allowed)
        if w.shape != lam.shape or not np.all(np.isfinite(w)) or not np.any(w != 0.0):
            raise InvalidProblem(
                "target", _brief(w), f"{lam.size} finite numbers, not all 0 (one per eigenvalue)"
            )
        order = np.argsort(-lam, kind="stable")
        for name, values in (("eigenvalues", lam[order]), ("target", w[order])):
            values.setflags(write=False)
            object.__setattr__(self, name, values)

    @property
    def size(self) -> float:
        return len(self.eigenvalues)

    @property
    def trace(self) -> float:
        return float(self.eigenvalues.sum())

    @property
    def largest(self) -> float:
        return float(self.eigenvalues[0])

    @quiet
    def full(self) -> Modes:
        lam = np.array(self.eigenvalues)
        return Modes(lam, lam * self.target**2, lam**2)

    @quiet
    def modes(self, tau_max: float = math.inf, nodes: int = BIN_NODES) -> Modes:
        points = self.full()
        if len(points.lam) <= 4 * nodes:
            return points
        floor = TAIL_EXPONENT / (2.0 * tau_max) if tau_max > 0 else math.inf
        tail = points.lam < floor
        parts = []
        if not tail.all():
            moving = points.lam[~tail]
            edges = _bins(float(moving[0]), float(moving[-1]))
            for i, (high, low) in enumerate(pairwise(edges)):
                inside = (points.lam <= high) & (points.lam > low) & ~tail
                last_two = not tail.any() and i >= len(edges) - 3
                count = nodes + END_EXTRA if last_two else nodes
                if inside.any():
                    chosen = Modes(*(column[inside] for column in points))
                    few = inside.sum() <= 2 * count
                    parts.append(chosen if few else _apart(chosen, count, in_log=True))
        if tail.any():
            chosen = Modes(*(column[tail] for column in points))
            parts.append(chosen if tail.sum() <= 6 else _apart(chosen, TAIL_NODES))
        return _stack(parts)


def _brief(values: NDArray[np.float64]) -> str:
    """A short form of an array for an error message."""
    bad = values[~(np.isfinite(values) & (values > 0.0))] if values.ndim == 1 else values
    shown = np.array2string(np.asarray(bad)[:3], separator=", ")
    return f"array of shape {values.shape} with {shown}" if bad.size else f"shape {values.shape}"
