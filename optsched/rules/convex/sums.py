r"""Sums over the rates of a schedule that the convex bound needs, at a cost of its knots.

With the rates :math:`\eta_1, \dots, \eta_T` and their sums to go
:math:`S_t = \sum_{s \ge t} \eta_s`, the bound needs :math:`S_1` and

.. math:: \sum_{t < T} \eta_t^2 / S_{t+1} + \eta_T .

Between two knots the rate is linear and the sum to go a parabola, which falls to zero at the very
end. Where it changes little over a segment, the terms are added by one Gauss rule with the first
correction of Euler and Maclaurin; elsewhere those of the last steps before a knot one by one, and
those before by Gauss rules on intervals whose lengths double.
"""

from __future__ import annotations

import numpy as np

from optsched.arrays import Floats, Ints

__all__ = ["cut", "knot_sums", "weighted_sums"]


SINGLE = 64  # last steps before a knot that are added one by one: relative error below 1e-9
WHOLE = 64  # least length of a segment that one rule adds
BLOCK = 1 << 20  # terms that are held at once
NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)


def cut(steps: Ints, values: Floats, count: int | None = None) -> tuple[Ints, Floats]:
    """Knots of the first ``count`` steps, all if not given, without zeros at the end.

    Parameters
    ----------
    steps : numpy.ndarray of int64, shape (n,)
        Knots from 0 to T - 1.
    values : numpy.ndarray of float64, shape (n,)
        Rates there.
    count : int, optional
        1 to T.

    Returns
    -------
    steps, values : numpy.ndarray
        Empty if all rates are zero; else the last rate is positive.
    """
    if count is not None and count <= steps[-1]:
        before = steps < count - 1
        last = np.interp(count - 1, steps, values)
        steps, values = np.append(steps[before], count - 1), np.append(values[before], last)
    positive = np.flatnonzero(values > 0.0)
    if not positive.size:
        return steps[:0], values[:0]
    i = int(positive[-1])
    if i == len(steps) - 1:
        return steps, values
    # The rate falls to zero at the knot after the last positive one.
    length = int(steps[i + 1] - steps[i])
    steps, zero, values = steps[: i + 1], int(steps[i + 1]), values[: i + 1]
    if length > 1:
        steps, values = np.append(steps, zero - 1), np.append(values, values[-1] / length)
    return steps, values


def knot_sums(steps: Ints, values: Floats) -> tuple[float, float]:
    r"""Sum of the rates, and :math:`\sum_{t<T} \eta_t^2/S_{t+1} + \eta_T`.

    Parameters
    ----------
    steps : numpy.ndarray of int64, shape (n,)
        Knots from 0 to T - 1, between which the rate is linear.
    values : numpy.ndarray of float64, shape (n,)
        Rates there, the last above 0; of order one.

    Notes
    -----
    Exact to rounding where no two knots are more than 64 steps apart; else within 1e-9,
    relatively.
    """
    length = np.diff(steps).astype(np.float64)
    first, last = values[:-1], values[1:]
    # The steps from a knot up to the next, that one not included.
    parts = 0.5 * ((length + 1.0) * first + (length - 1.0) * last)
    after = values[-1] + np.append(np.cumsum(parts[::-1])[-2::-1], 0.0) if len(parts) else parts
    total = float(values[-1] + parts.sum())
    found = float(values[-1])
    segments = np.stack([length, first, last, after], 1)
    # The poles of the terms are then two segments away or more.
    whole = (length >= WHOLE) & (after >= 4.0 * parts)
    alone = np.where(whole, 0.0, np.minimum(length, SINGLE)).astype(np.int64)
    ends = np.cumsum(alone)
    start = 0
    while start < len(alone):
        done = ends[start - 1] if start else 0
        stop = max(int(np.searchsorted(ends, done + BLOCK, side="right")), start + 1)
        count = alone[start:stop]
        index = np.repeat(np.arange(start, stop), count)
        # How many steps lie between this one and the next knot: 0, 1, ..., in every segment.
        togo = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count)
        found += float(_terms(segments[index], togo.astype(np.float64))[0].sum())
        start = stop
    found += _even_part(segments[whole]) + _graded_part(segments[~whole & (length > SINGLE)])
    return total, found


def _terms(segments: Floats, togo: Floats) -> tuple[Floats, Floats]:
    r"""Terms :math:`\eta_t^2/S_{t+1}` with ``togo`` steps up to the next knot, and derivatives."""
    length, first, last, after = segments.T
    rate = (first * (1.0 + togo) + last * (length - 1.0 - togo)) / length
    mean = (first * (1.0 + togo) + last * (2.0 * length - 1.0 - togo)) / (2.0 * length)
    rest = after + togo * mean
    slope = (first - last) / length
    growth = mean + 0.5 * togo * slope
    ratio = rate / rest
    return rate * ratio, ratio * (2.0 * slope - ratio * growth)


def _gauss(segments: Floats, left: Floats, half: Floats) -> float:
    """Integral of the terms over intervals of the steps to go, from their left ends."""
    parts = zip(NODES, WEIGHTS, strict=True)
    return sum(
        float((w * half * _terms(segments, left + half * (1.0 + x))[0]).sum()) for x, w in parts
    )


def _correction(segments: Floats, low: Floats, high: Floats) -> float:
    """What a sum over steps has more than the integral, from half a step before to after."""
    return float((_terms(segments, low)[1] - _terms(segments, high)[1]).sum()) / 24.0


def _even_part(segments: Floats) -> float:
    """Sum of all terms of segments over which the sum to go changes by a quarter at most."""
    low, high = np.full(len(segments), -0.5), segments[:, 0] - 0.5
    return _gauss(segments, low, 0.5 * (high - low)) + _correction(segments, low, high)


def _graded_part(segments: Floats) -> float:
    """Sum of the terms that have `SINGLE` or more steps up to the next knot."""
    low, high = np.full(len(segments), SINGLE - 0.5), segments[:, 0] - 0.5
    count = np.ceil(np.log2(high / low)).astype(np.int64)
    index = np.repeat(np.arange(len(segments)), count)
    place = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count)
    ratio = ((high / low) ** (1.0 / count))[index]
    left = low[index] * ratio**place
    parts = _gauss(segments[index], left, 0.5 * left * (ratio - 1.0))
    return parts + _correction(segments, low, high)


def weighted_sums(eta: Floats, squares: Floats) -> tuple[float, float]:
    r"""Sum of the rates, and :math:`\sum_{t<T} \eta_t^2 G_t^2/S_{t+1} + \eta_T G_T^2`.

    Parameters
    ----------
    eta, squares : numpy.ndarray of float64, shape (T,)
        Rates, the last above 0, and squared gradient norms.
    """
    rest = np.cumsum(eta[::-1])[::-1]
    terms = eta[:-1] ** 2 * squares[:-1] / rest[1:]
    return float(rest[0]), float(terms.sum() + eta[-1] * squares[-1])
