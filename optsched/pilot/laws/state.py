r"""The squared norm of the weights along a schedule, and its derivatives.

A normalised update of size :math:`\eta` and a decoupled decay :math:`\lambda` move the squared norm
W of the weights, over that at the start, by

.. math:: \frac{dW}{dk} = -2 \lambda \eta W + c \eta^2 , \qquad W(0) = 1 ,

as updates are nearly orthogonal to the weights. In units of the runs (rates over their peak, steps
over those of the longest) c and lambda become the numbers `growth` and `decay`. Along a piece of
held rate the equation is linear, so that its solution is exact; all pieces of a run are one banded
system, and so are the derivatives, forwards and backwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.linalg import solve_banded

from optsched.arrays import Floats
from optsched.pilot.pieces import Pieces

__all__ = ["Norm", "Reference", "reference", "squared_norm"]

SMALL = 1e-4  # from there down a series is more accurate


@dataclass(frozen=True, eq=False)
class Reference:
    """Squared norm after one span at the reference rate, and its derivatives.

    Attributes
    ----------
    value : float
    in_growth : float
        In the logarithm of the growth.
    in_decay : float
    """

    value: float
    in_growth: float
    in_decay: float


@dataclass(frozen=True, eq=False)
class _Basis:
    """All that does not depend on the growth: the norm is linear in it.

    Attributes
    ----------
    kept, per_decay, gain, mean, slope : tuple of two numpy.ndarray, shape (n,)
        Over a piece and over its first half: share of the norm that is left, integral of the pace
        of the decay, growth at a growth of 1, the share of that which is left, and its derivative.
    start, unit : numpy.ndarray, shape (3, n)
        Norm without growth, and what a growth of 1 adds, at the nodes of every piece.
    """

    kept: tuple[Floats, Floats]
    per_decay: tuple[Floats, Floats]
    gain: tuple[Floats, Floats]
    mean: tuple[Floats, Floats]
    slope: tuple[Floats, Floats]
    start: Floats
    unit: Floats


@dataclass(frozen=True, eq=False)
class Norm:
    """Squared norm at the first step, in the middle and at the end of every piece.

    Attributes
    ----------
    basis : _Basis
    growth, decay : float
    coupled : bool
    """

    basis: _Basis
    growth: float
    decay: float
    coupled: bool

    @cached_property
    def value(self) -> Floats:
        """Squared norm, shape (3, n)."""
        return self.basis.start + self.in_growth

    @cached_property
    def in_growth(self) -> Floats:
        """Its derivative in the logarithm of the growth, shape (3, n)."""
        return self.growth * self.basis.unit

    @cached_property
    def in_decay(self) -> Floats:
        """Its derivative in the decay, shape (3, n)."""
        one, half = (self._moved(i) for i in (0, 1))
        edges = _chain(self.basis.kept[0], one)
        middle = self.basis.kept[1] * edges[:-1] + half
        return np.stack([edges[:-1], middle, edges[1:]])

    def _moved(self, i: int) -> Floats:
        """What a piece (i = 0) or its half (i = 1) adds to the derivative in the decay."""
        b = self.basis
        per, kept = b.per_decay[i], b.kept[i]
        return per * (self.growth * b.gain[i] * b.slope[i] - kept * self.value[0])

    def _rated(self, i: int) -> Floats:
        """Derivative in the log rate of the piece, for the same norm at its start."""
        grown = 2.0 * self.growth * self.basis.gain[i] * self.basis.mean[i]
        return grown + (self.decay * self._moved(i) if self.coupled else 0.0)

    def backwards(self, at: Floats) -> Floats:
        """Derivatives in the log rate of every piece (n,), from those in `value` (3, n).

        For pieces of held rate.
        """
        kept, kept_half = self.basis.kept
        pull = np.zeros(len(kept) + 1)
        pull[:-1] = at[0] + at[1] * kept_half
        pull[1:] += at[2]
        bands = np.ones((2, len(kept) + 1))
        bands[0, 1:] = -kept
        later = solve_banded((0, 1), bands, pull)
        return later[1:] * self._rated(0) + at[1] * self._rated(1)


def _mean_decay(z: Floats) -> tuple[Floats, Floats]:
    """``(1 - exp(-z)) / z`` and its derivative."""
    safe = np.maximum(z, SMALL)
    value = np.where(z > SMALL, -np.expm1(-safe) / safe, 1.0 - z / 2.0 + z**2 / 6.0)
    slope = np.where(z > SMALL, (np.exp(-safe) - value) / safe, -0.5 + z / 3.0 - z**2 / 8.0)
    return value, slope


def _chain(kept: Floats, added: Floats) -> Floats:
    """``w[i + 1] = kept[i] w[i] + added[i]`` from ``w[0] = 0``, shape (n + 1,)."""
    bands = np.ones((2, len(kept)))
    bands[1, :-1] = -kept[1:]
    return np.append(0.0, solve_banded((1, 0), bands, added))


def squared_norm(pieces: Pieces, growth: float, decay: float, *, coupled: bool) -> Norm:
    """Squared norm along pieces.

    Parameters
    ----------
    pieces : Pieces
        Which remember what does not depend on the growth.
    growth, decay : float
        Of a span at the reference rate.
    coupled : bool
        Whether the decay is multiplied by the rate.
    """
    key = ("norm", decay, coupled)
    basis = pieces.memo.get(key)
    if basis is None:
        basis = pieces.memo[key] = _basis(pieces, decay, coupled)
    return Norm(basis, growth, decay, coupled)


def _basis(pieces: Pieces, decay: float, coupled: bool) -> _Basis:
    first, middle = pieces.rate[0], pieces.rate[1]
    length = pieces.length
    pace = pieces.mean(1.0) if coupled else np.ones_like(first)
    pace_half = 0.5 * (first + middle) if coupled else pace
    per = 2.0 * pace * length, pace_half * length
    squares = (first**2 + first * middle + middle**2) / 3.0  # mean over the first half
    gain = pieces.mean(2.0) * length, 0.5 * squares * length
    kept = np.exp(-decay * per[0]), np.exp(-decay * per[1])
    (mean, slope), (mean_half, slope_half) = (_mean_decay(decay * one) for one in per)
    grown = _chain(kept[0], gain[0] * mean)
    start = np.exp(-decay * np.append(0.0, np.cumsum(per[0])))
    half = kept[1] * grown[:-1] + gain[1] * mean_half
    return _Basis(
        kept,
        per,
        gain,
        (mean, mean_half),
        (slope, slope_half),
        np.stack([start[:-1], kept[1] * start[:-1], start[1:]]),
        np.stack([grown[:-1], half, grown[1:]]),
    )


def reference(growth: float, decay: float) -> Reference:
    """Squared norm after one span at the reference rate, where a fit measures its rates."""
    z = np.array([2.0 * decay])
    mean, slope = _mean_decay(z)
    kept = float(np.exp(-z[0]))
    grown = growth * float(mean[0])
    return Reference(kept + grown, grown, -2.0 * kept + 2.0 * growth * float(slope[0]))
