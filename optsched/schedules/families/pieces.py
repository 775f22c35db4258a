r"""From pieces of a continuous rate to the knots of a schedule.

A family is a list of `Piece` on the time axis, in steps. A piece knows the *mean* of its rate over
any interval inside it, in closed form where there is one, so that step k holds the average over
[k, k+1] also if a piece ends within the step. A mean over no width is the value there: this is
``sampling="left"``. Times are given as distances from both ends of the piece, as a rate that falls
to zero at :math:`T = 10^{15}` has no digits left in :math:`1 - t/T`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.checks import choice, is_number, number, whole
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem

__all__ = [
    "ANNEALS",
    "MAX_CURVES",
    "MAX_LINES",
    "Mean",
    "Piece",
    "Span",
    "anneal",
    "check",
    "exponential_decay",
    "flat",
    "gauss_mean",
    "spread_steps",
    "half_cosine",
    "limit_cycles",
    "line",
    "power_mean",
    "sample",
    "span",
]

Span = int | float
Mean = Callable[[Floats, Floats, Floats], Floats]

DENSE = 4096  # a curve of at most so many steps has a knot at every step
KNOTS = 1 << 16  # shared by the curves of a schedule that has many
MAX_CURVES = 1000
MAX_LINES = 10_000
ANNEALS = ("linear", "1-sqrt", "exponential", "power", "cosine")


class Piece(NamedTuple):
    """A stretch of a continuous rate.

    Attributes
    ----------
    start, end : float
        Times in steps.
    mean : callable
        ``mean(since, togo, width)``, arrays: the mean rate over ``[t, t + width]``, where t is
        ``since`` after the start and ``togo`` before the end; the rate at t if width is 0.
    straight : bool
        Whether the rate is linear in time, so that the ends are knots enough.
    """

    start: float
    end: float
    mean: Mean
    straight: bool = False


# Checks ---------------------------------------------------------------------------------------


def span(field: str, value: Any, horizon: int, low: int = 0, high: int | None = None) -> int:
    """Whole number of steps, from steps (an int) or from a share of the horizon (a float).

    A share is rounded to the nearest step, and up to ``low`` if it comes to less.
    """
    high = horizon if high is None else high
    if is_number(value) and not isinstance(value, (int, np.integer)):
        if 0.0 <= value <= 1.0:
            return max(low, min(high, math.floor(float(value) * horizon + 0.5)))
    elif is_number(value) and low <= value <= high:
        return int(value)
    allowed = f"an int from {low} to {high} (steps), or a float from 0 to 1 (share of the horizon)"
    raise InvalidProblem(field, value, allowed)


def check(horizon: Any, peak: Any, sampling: Any = "average") -> tuple[int, float, bool]:
    """Horizon, peak, and whether steps are averaged."""
    horizon = whole("horizon", horizon, 1, MAX_HORIZON)
    peak = number("peak", peak, 0.0)
    return horizon, peak, choice("sampling", sampling, ("average", "left")) == "average"


def limit_cycles(field: str, value: Any, count: int, limit: int) -> None:
    """Refuse a duration so short that the cycles would need too many knots."""
    if count > limit:
        raise InvalidProblem(field, value, f"at most {limit} cycles in the horizon, not {count}")


# Means ----------------------------------------------------------------------------------------


def power_mean(x: Any, width: Any, power: float) -> Floats:
    r"""Mean of :math:`y^p` over [x, x + width], x >= 0, to full relative accuracy.

    At x = 0 the power must be above -1.
    """
    x, width = np.broadcast_arrays(np.asarray(x, float), np.asarray(width, float))
    q = power + 1.0
    with np.errstate(all="ignore"):
        ratio = width / x
        rise = np.log1p(ratio)
        # Differences of powers cancel for narrow intervals, expm1 does not.
        bracket = np.expm1(q * rise) / (q * ratio) if q else rise / ratio
        narrow = x**power * bracket
        wide = ((x + width) ** q - x**q) / (q * width) if q else narrow
        value = np.where((width < x) | ((q < 0.5) & (x > 0.0)), narrow, wide)
        return np.where(width > 0.0, value, x**power)


def gauss_mean(f: Callable[[Floats], Floats], x: Floats, width: Floats) -> Floats:
    """Mean of a smooth function over [x, x + width], by 12 nodes."""
    nodes, weights = np.polynomial.legendre.leggauss(12)
    return f(x[:, None] + 0.5 * width[:, None] * (1.0 + nodes)) @ (0.5 * weights)


def flat(level: float) -> Mean:
    """Constant rate."""
    return lambda since, togo, width: np.full(since.shape, level)


def line(first: float, last: float, length: float) -> Mean:
    """Rate linear in time, from first to last."""
    return lambda since, togo, width: first + (last - first) * ((since + 0.5 * width) / length)


def half_cosine(first: float, last: float, length: float) -> Mean:
    r"""Half a period of a cosine: last + (first - last) (1 + cos(pi since/length))/2."""

    def mean(since: Floats, togo: Floats, width: Floats) -> Floats:
        # The average of a cosine is its value at the centre times sinc; written with sin^2 so
        # that the last rates keep their digits.
        angle = np.pi * (togo - 0.5 * width) / length
        sinc = np.sinc(0.5 * width / length)
        share = 0.5 * (2.0 * np.sin(0.5 * angle) ** 2 * sinc + (1.0 - sinc))
        return last + (first - last) * share

    return mean


def exponential_decay(rate: float) -> Mean:
    """exp(-rate * since)."""

    def mean(since: Floats, togo: Floats, width: Floats) -> Floats:
        x = rate * width
        loss = np.divide(-np.expm1(-x), x, out=np.ones_like(x), where=x > 0.0)
        return np.exp(-rate * since) * loss

    return mean


def _one_minus_sqrt(length: float) -> Mean:
    def mean(since: Floats, togo: Floats, width: Floats) -> Floats:
        value = 1.0 - power_mean(since / length, width / length, 0.5)
        # Towards the end both terms are nearly 1: there, the same curve without a difference.
        late = (togo < 0.5 * length) & (width < 1e-3 * length)
        left, share = np.maximum(togo - width, 0.0)[late] / length, width[late] / length
        value[late] = gauss_mean(lambda y: y / (1.0 + np.sqrt(1.0 - y)), left, share)
        return value

    return mean


def _power_to_end(length: float, power: float) -> Mean:
    def mean(since: Floats, togo: Floats, width: Floats) -> Floats:
        return power_mean(np.maximum(togo - width, 0.0) / length, width / length, power)

    return mean


def anneal(start: float, end: float, shape: str, final: float, power: float = 1.0) -> Piece:
    """Decay from 1 at ``start`` to ``final`` at ``end``, in one of the shapes in ``ANNEALS``."""
    length = end - start
    if shape == "linear":
        return Piece(start, end, line(1.0, final, length), straight=True)
    if shape == "cosine":
        return Piece(start, end, half_cosine(1.0, final, length))
    if shape == "exponential":
        return Piece(start, end, exponential_decay(-math.log(final) / length))
    unit = _one_minus_sqrt(length) if shape == "1-sqrt" else _power_to_end(length, power)
    return Piece(start, end, lambda s, g, w: final + (1.0 - final) * unit(s, g, w))


# Knots ----------------------------------------------------------------------------------------


def spread_steps(length: int, points: int = DENSE) -> Ints:
    """About ``points`` of the steps 0 .. length - 1: even ones, and more towards both ends."""
    if length <= points:
        return np.arange(length)
    part = np.geomspace(1, length / 2, points // 4).round().astype(np.int64)
    even = np.linspace(0, length - 1, points // 2).round().astype(np.int64)
    return np.unique(np.concatenate([[0], part, even, length - 1 - part, [length - 1]]))


def _knots(pieces: Sequence[Piece], horizon: int) -> Ints:
    curves = sum(not piece.straight for piece in pieces)
    points = min(DENSE, max(64, KNOTS // max(curves, 1)))
    steps = [np.array([0, horizon - 1])]
    for piece in pieces:
        first = max(math.ceil(piece.start), 0)
        last = min(math.floor(piece.end), horizon) - 1
        # The steps that lie whole in the piece, and those that its ends cut.
        ends = [math.floor(piece.start), first, last, math.ceil(piece.end) - 1]
        steps.append(np.array([k for k in ends if 0 <= k < horizon], dtype=np.int64))
        if not piece.straight and last > first:
            steps.append(first + spread_steps(last - first + 1, points))
    return np.unique(np.concatenate(steps))


def sample(
    pieces: Sequence[Piece],
    horizon: int,
    average: bool,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[Ints, Floats]:
    """Knots of a schedule that follows the pieces.

    Parameters
    ----------
    pieces : sequence of Piece
        In order and without gaps; together they cover [0, horizon].
    horizon : int
        Number of steps.
    average : bool
        Averages over the steps, or the values at their starts.
    bounds : tuple of float
        Range of the values; rounding is kept from leaving it.

    Returns
    -------
    steps : numpy.ndarray of int64, shape (n,)
    values : numpy.ndarray of float64, shape (n,)
    """
    steps = _knots(pieces, horizon)
    values = np.zeros(len(steps))
    for piece in pieces:
        if average:
            low = np.searchsorted(steps, piece.start - 1.0, side="right")
        else:
            low = np.searchsorted(steps, piece.start, side="left")
        near = slice(low, np.searchsorted(steps, piece.end, side="left"))
        k = steps[near].astype(np.float64)
        if k.size and average:
            left, right = np.maximum(k, piece.start), np.minimum(k + 1.0, piece.end)
            width = right - left
            values[near] += width * piece.mean(left - piece.start, piece.end - left, width)
        elif k.size:
            values[near] = piece.mean(k - piece.start, piece.end - k, np.zeros(k.shape))
    return steps, np.clip(values, *bounds)
