r"""What a finite sample does to a spectrum: where its eigenvalues lie and what its modes mix.

Of n samples of features with covariance eigenvalues :math:`\lambda_j`, the sample covariance has
eigenvalues that differ from the :math:`\lambda_j` by a relative amount of order k/n, with no noise
to average away. For every s > 0 let v(s) >= 0 solve

.. math:: \frac1n \sum_j \frac{\lambda_j^2}{(s - \lambda_j)^2 + v^2} = 1,

or v = 0 where the left-hand side is below 1 for every v. With u = s + iv the sample spectrum has,
at

.. math:: x(s) = s + \frac1n \sum_j \lambda_j
             + \frac1n \sum_j \frac{\lambda_j^2 (s - \lambda_j)}{|u - \lambda_j|^2},

exactly N(s) eigenvalues above x(s),

.. math:: \pi N = \sum_j \arg(u - \lambda_j) + (n - p) \arg u
             - v \sum_j \frac{\lambda_j}{|u - \lambda_j|^2},

and its mode there carries the share :math:`|u|^2 / (n |u - \lambda_j|^2)` of the energy
:math:`\mu_j = \lambda_j w_j^2` that a target has in mode j.

These are the Marchenko-Pastur equation z = u + (1/n) sum lambda u/(u - lambda) on the real axis
(Silverstein & Bai, J. Multivariate Anal. 54, 1995), its support in closed form (Silverstein & Choi,
same volume), the integral of its density, and the overlaps of Ledoit & Peche (Probab. Theory Relat.
Fields 151, 2011), rewritten in u. They hold to order 1/n also for single, isolated modes, and for
features that are not Gaussian as long as quadratic forms of a sample concentrate.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Floats

__all__ = ["Population", "Rows", "mode_rows", "overlaps", "power_law_nodes", "quantiles"]


SINGLE = 40  # modes up to this one are looked at one by one, later ones in bins of 5 %
BIN_WIDTH = 0.05
ISOLATED = 50  # modes whose intervals may be apart: the grid must not miss one
OFFSETS = np.array([-4.0, -2.0, -1.2, -0.6, 0.0, 0.6, 1.2, 2.0, 4.0])
FARTHEST = 1e4  # an infinite spectrum is cut at this many times the last exact mode


class Population(NamedTuple):
    """Modes of the features themselves; far ones are lumped.

    Attributes
    ----------
    at : numpy.ndarray, shape (J,)
        Index k of the modes; between whole numbers for lumps.
    number : numpy.ndarray, shape (J,)
        How many modes each stands for.
    lam : numpy.ndarray, shape (J,)
        Eigenvalues.
    """

    at: Floats
    number: Floats
    lam: Floats


class Rows(NamedTuple):
    """Bins of modes ``start .. stop - 1``, counted from 1, and their middle ranks."""

    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    rank: Floats

    @property
    def size(self) -> Floats:
        """Number of modes in each bin."""
        return (self.stop - self.start).astype(float)

    def sums(self, values: Floats) -> Floats:
        """Sums of ``values``, one for each mode from the first, over the bins."""
        return np.add.reduceat(values[: self.stop[-1] - 1], self.start - 1)


def mode_rows(first: int, last: int) -> Rows:
    """Bins of the modes ``first`` to ``last``: one by one at first, then 5 % wide."""
    edges = [first]
    while edges[-1] <= last:
        at = edges[-1]
        width = 1 if at < SINGLE else max(1, round(BIN_WIDTH * at))
        edges.append(min(at + width, last + 1))
    start, stop = np.array(edges[:-1]), np.array(edges[1:])
    return Rows(start, stop, np.sqrt(start * (stop - 1.0)))


def power_law_nodes(size: float, last: int) -> tuple[Floats, Floats]:
    """Indices and counts that stand for all modes 1..size: exact to twice ``last``, then lumps."""
    exact = int(min(size, 2 * last))
    index, count = np.arange(1.0, exact + 1.0), np.ones(exact)
    if size > exact:
        end = min(size, FARTHEST * exact)
        lumps = max(8, math.ceil(6.0 * math.log(end / exact)))
        edges = np.unique(np.round(np.geomspace(exact, end, lumps + 1)))
        index = np.append(index, np.sqrt((edges[:-1] + 0.5) * (edges[1:] + 0.5)))
        count = np.append(count, np.diff(edges))
    return index, count


def _imaginary(s: Floats, pop: Population, samples: float) -> Floats:
    """v(s): Newton on the reciprocal of the sum, concave in v^2, so that no step overshoots."""
    weight = pop.number * pop.lam**2 / samples
    square = (s[:, None] - pop.lam) ** 2
    t = 1e-20 * s**2
    for _ in range(80):
        term = weight / (square + t[:, None])
        total = term.sum(1)
        slope = (term / (square + t[:, None])).sum(1)
        new = np.maximum(t + (1.0 - 1.0 / total) * total**2 / slope, 0.0)
        if np.all(np.abs(new - t) <= 1e-9 * np.maximum(new, 1e-14 * s**2)):
            t = new
            break
        t = new
    return np.sqrt(t)


def _above(s: Floats, v: Floats, pop: Population, samples: float) -> Floats:
    """N(s): the number of sample eigenvalues above x(s)."""
    gap = s[:, None] - pop.lam
    turned = np.arctan2(v[:, None], gap) @ pop.number
    pulled = v * ((pop.number * pop.lam) / (gap**2 + v[:, None] ** 2)).sum(1)
    return (turned + (samples - pop.number.sum()) * np.arctan2(v, s) - pulled) / math.pi


def quantiles(
    pop: Population, samples: float, ranks: Floats
) -> tuple[NDArray[np.complex128], Floats]:
    """Where the sample eigenvalues of given ranks lie.

    Parameters
    ----------
    pop : Population
        The population; eigenvalues fall.
    samples : float
        Number of samples n; ``math.inf`` for the population itself.
    ranks : numpy.ndarray, shape (r,)
        Ranks from 1, at most a third of both n and p; need not be whole.

    Returns
    -------
    u, x : numpy.ndarray, shape (r,)
        The point u = s + iv above the real axis, and the sample eigenvalue x, in the middle of
        what belongs to the rank.
    """
    at_rank = np.exp(np.interp(np.log(ranks), np.log(pop.at), np.log(pop.lam)))
    if math.isinf(samples):
        return at_rank.astype(np.complex128), at_rank
    near = pop.lam[: min(ISOLATED, len(pop.lam))]
    fine = near[:, None] * (1.0 + OFFSETS / math.sqrt(samples))
    below = at_rank.min() * np.geomspace(1.0, 0.4, 16)
    grid = np.concatenate([fine.ravel(), at_rank, below, [1.5 * pop.lam[0]]])
    s = np.unique(grid[grid > 0.0])[::-1]
    above = np.maximum.accumulate(_above(s, _imaginary(s, pop, samples), pop, samples))
    rising = np.append(True, np.diff(above) > 1e-9)
    middle = np.exp(np.interp(ranks - 0.5, above[rising], np.log(s[rising])))
    v = _imaginary(middle, pop, samples)
    gap = middle[:, None] - pop.lam
    pulled = (pop.number * pop.lam**2 * gap / (gap**2 + v[:, None] ** 2)).sum(1)
    u = np.empty(len(middle), np.complex128)
    u.real, u.imag = middle, v
    return u, middle + (pop.number @ pop.lam + pulled) / samples


def overlaps(u: NDArray[np.complex128], pop: Population, samples: float) -> Floats:
    """Share of each population mode's energy in a sample mode at u, shape (r, J).

    For an infinite sample, the nearest mode alone.
    """
    if math.isinf(samples):
        nearest = np.abs(np.log(pop.lam) - np.log(u.real)[:, None]).argmin(1)
        return (np.arange(len(pop.lam)) == nearest[:, None]).astype(float)
    return (np.abs(u)[:, None] / np.abs(u[:, None] - pop.lam)) ** 2 / samples
