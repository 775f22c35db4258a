"""Settings of NumPy and JAX for our code, and small tools that cost less than importing SciPy."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np

from optsched.arrays import Floats
from optsched.errors import OptschedError

__all__ = ["EvenSpline", "halfway", "jax_settings", "monotone_root", "quiet", "zeta"]

# For functions, as a decorator: what is not finite is handled where it appears.
quiet = np.errstate(all="ignore")


@contextmanager
def jax_settings() -> Iterator[None]:
    """Double precision, and nothing that a process may forbid for its own code.

    Raises
    ------
    OptschedError
        If JAX has no device to compute on, as where ``JAX_PLATFORMS`` names one that is not there.
    """
    import jax

    try:
        jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # the latter where no backend is there at all
        wanted = os.environ.get("JAX_PLATFORMS", "")
        reason = str(error) or "none of the platforms is there"
        raise OptschedError(
            f"JAX has no device to compute on (JAX_PLATFORMS={wanted!r}): {reason}"
        ) from None
    with ExitStack() as stack:
        for setting in (
            np.errstate(all="ignore"),
            jax.enable_x64(True),
            jax.numpy_rank_promotion("allow"),
            jax.numpy_dtype_promotion("standard"),
            jax.transfer_guard("allow"),
            jax.debug_nans(False),
            jax.debug_infs(False),
        ):
            stack.enter_context(setting)
        yield


ROOT = 2.0 - math.sqrt(3.0)  # of x^2 - 4 x + 1: how bends of a spline die out from knot to knot
REACH = 30  # knots until they are below rounding
# Bernoulli numbers B_2k over (2k)!
BERNOULLI = tuple(
    b / math.factorial(2 * k)
    for k, b in enumerate(
        (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510, 43867 / 798),
        start=1,
    )
)


class EvenSpline:
    """Cubic spline through values at even knots, with the third derivative continuous next to
    both ends ("not a knot"); outside, the end pieces go on.

    Parameters
    ----------
    first, last : float
        Range of the knots.
    values : numpy.ndarray, shape (n,)
        With n >= 4.
    """

    def __init__(self, first: float, last: float, values: Floats) -> None:
        n = len(values)
        self.first, self.per_step, self.last_piece = first, (n - 1) / (last - first), n - 2
        bends = _bends(values)
        left, right = values[:-1], values[1:]
        self.coefficients = np.stack(
            [
                left,
                (right - left) - (2.0 * bends[:-1] + bends[1:]) / 6.0,
                0.5 * bends[:-1],
                np.diff(bends) / 6.0,
            ],
            1,
        )

    def __call__(self, x: Floats) -> Floats:
        at = (x - self.first) * self.per_step
        piece = np.clip(at.astype(np.int64), 0, self.last_piece)
        at = at - piece
        c = self.coefficients.take(piece, axis=0)
        return c[..., 0] + at * (c[..., 1] + at * (c[..., 2] + at * c[..., 3]))


def _bends(values: Floats) -> Floats:
    """Second derivatives at the knots, a unit apart.

    They obey ``M[i-1] + 4 M[i] + M[i+1] = 6 (second difference)``. At the knots next to the ends
    the condition there leaves ``6 M = 6 (second difference)``; between these two the solution is
    that without ends plus two parts that die out from either side.
    """
    n = len(values)
    second = np.diff(values, 2)
    bends = np.empty(n)
    distance = np.arange(n - 2.0)
    kernel = (-ROOT) ** np.abs(np.arange(-REACH, REACH + 1)) / (2.0 * math.sqrt(3.0))
    inner = np.convolve(6.0 * second, kernel)[REACH : REACH + n - 2]
    fade = (-ROOT) ** np.minimum(distance, 3.0 * REACH)
    across = fade[-1]
    left, right = second[0] - inner[0], second[-1] - inner[-1]
    det = 1.0 - across**2
    inner = inner + (left - right * across) / det * fade
    bends[1:-1] = inner + (right - left * across) / det * fade[::-1]
    bends[0], bends[-1] = 2.0 * bends[1] - bends[2], 2.0 * bends[-2] - bends[-3]
    return bends


def halfway(count: int) -> Floats:
    """Matrix (count, count - 1): values at even knots times it are those of the spline between."""
    identity = np.eye(count)
    bends = np.stack([_bends(row) for row in identity])
    return 0.5 * (identity[:, :-1] + identity[:, 1:]) - (bends[:, :-1] + bends[:, 1:]) / 16.0


def zeta(s: float, first: float = 1.0) -> float:
    """Hurwitz zeta function, the sum of ``(first + k)^-s`` over k >= 0, for s > 1, first > 0.

    By the Euler-Maclaurin formula from a term on at which its error is below rounding.
    """
    count = max(0, math.ceil(30.0 + s - first))
    x = first + count
    total = math.fsum((first + k) ** -s for k in range(count))
    power = x**-s
    total += power * (x / (s - 1.0) + 0.5)
    factor = power * s / x
    for k, number in enumerate(BERNOULLI, start=1):
        total += number * factor
        factor *= (s + 2.0 * k - 1.0) * (s + 2.0 * k) / x**2
    return total


def monotone_root(function: Callable[[float], float], low: float, high: float) -> float:
    """Root of a function that is monotone from ``low`` to ``high``, to the last digits.

    Secants, with a halved value at an end that stays twice (Illinois); halves where that is slow.
    """
    at_low, at_high = function(low), function(high)
    if at_low == 0.0 or at_high == 0.0:
        return low if at_low == 0.0 else high
    if (at_low > 0.0) == (at_high > 0.0):
        raise ValueError("the function has one sign at both ends")
    stuck, kept = 0, 0
    while True:
        width = high - low
        x = high - at_high * width / (at_high - at_low)
        if not low < x < high or stuck > 3:
            x, stuck = 0.5 * (low + high), 0
        if not low < x < high:
            return x
        value = function(x)
        if value == 0.0:
            return x
        if (value > 0.0) == (at_high > 0.0):
            high, at_high = x, value
            at_low, kept = (0.5 * at_low if kept < 0 else at_low), -1
        else:
            low, at_low = x, value
            at_high, kept = (0.5 * at_high if kept > 0 else at_high), 1
        stuck = stuck + 1 if high - low > 0.5 * width else 0
        if high - low <= 4.0 * np.finfo(float).eps * abs(x):
            return x
