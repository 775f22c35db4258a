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
class Norm:
    """Squared norm at the first step, in the middle and at the end of every piece.

    Attributes
    ----------
    value : numpy.ndarray, shape (3, n)
    in_growth, in_decay : numpy.ndarray, shape (3, n)
        Derivatives in the logarithm of the growth and in the decay.
    kept, kept_half : numpy.ndarray, shape (n,)
        Share of the norm that a piece, and its first half, leaves.
    in_rate, in_rate_half : numpy.ndarray, shape (n,)
        Derivative of the norm at the end of a piece, and in its middle, in the logarithm of the
        rate of that piece, for the same norm at its start.
    """

    value: Floats
    in_growth: Floats
    in_decay: Floats
    kept: Floats
    kept_half: Floats
    in_rate: Floats
    in_rate_half: Floats

    def backwards(self, at: Floats) -> Floats:
        """Derivatives in the log rate of every piece (n,), from those in `value` (3, n)."""
        n = len(self.kept)
        pull = np.zeros(n + 1)
        pull[:-1] = at[0] + at[1] * self.kept_half
        pull[1:] += at[2]
        bands = np.ones((2, n + 1))
        bands[0, 1:] = -self.kept
        later = solve_banded((0, 1), bands, pull)
        return later[1:] * self.in_rate + at[1] * self.in_rate_half


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
    growth, decay : float
        Of a span at the reference rate.
    coupled : bool
        Whether the decay is multiplied by the rate.
    """
    first, middle = pieces.rate[0], pieces.rate[1]
    pace = pieces.mean(1.0) if coupled else np.ones_like(first)
    pace_half = 0.5 * (first + middle) if coupled else pace
    per_decay = 2.0 * pieces.decay * pace * pieces.length
    per_half = pieces.decay * pace_half * pieces.length
    gain = growth * pieces.mean(2.0) * pieces.length
    gain_half = growth * (first**2 + first * middle + middle**2) * pieces.length / 6.0
    kept, kept_half = np.exp(-decay * per_decay), np.exp(-decay * per_half)
    mean, slope = _mean_decay(decay * per_decay)
    mean_half, slope_half = _mean_decay(decay * per_half)
    grown = _chain(kept, gain * mean)
    start = np.exp(-decay * np.append(0.0, np.cumsum(per_decay)))
    norm = start + grown
    moved = _chain(kept, per_decay * (gain * slope - kept * norm[:-1]))
    in_half = kept_half * moved[:-1] + per_half * (gain_half * slope_half - kept_half * norm[:-1])
    grown_half = kept_half * grown[:-1] + gain_half * mean_half

    def rated(kept: Floats, gain: Floats, mean: Floats, slope: Floats, z: Floats) -> Floats:
        by_decay = z * (gain * slope - kept * norm[:-1]) if coupled else 0.0
        return 2.0 * gain * mean + by_decay

    return Norm(
        np.stack([norm[:-1], kept_half * start[:-1] + grown_half, norm[1:]]),
        np.stack([grown[:-1], grown_half, grown[1:]]),
        np.stack([moved[:-1], in_half, moved[1:]]),
        kept,
        kept_half,
        rated(kept, gain, mean, slope, decay * per_decay),
        rated(kept_half, gain_half, mean_half, slope_half, decay * per_half),
    )


def reference(growth: float, decay: float) -> Reference:
    """Squared norm after one span at the reference rate, where a fit measures its rates."""
    z = np.array([2.0 * decay])
    mean, slope = _mean_decay(z)
    kept = float(np.exp(-z[0]))
    grown = growth * float(mean[0])
    return Reference(kept + grown, grown, -2.0 * kept + 2.0 * growth * float(slope[0]))
