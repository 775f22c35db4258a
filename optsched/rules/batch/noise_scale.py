r"""The gradient noise scale, estimated without bias, and the noise scale of SGD.

With the true gradient G and the covariance :math:`\Sigma` of the gradient of one example, the
*simple noise scale* :math:`B_{\rm simple} = \mathrm{tr}\,\Sigma / |G|^2` is the batch size at which
noise and signal are equal (McCandlish et al., arXiv 1812.06162). Numerator and denominator are each
estimated without bias; the ratio is not, so average them first and divide last.

It stands in for :math:`B_{\rm noise} = \mathrm{tr}(H\Sigma) / G^T H G`, which it equals where the
Hessian H is a multiple of the identity; the two are often within a small factor, and one does not
bound the other.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from optsched.arrays import Floats
from optsched.checks import at_least, decay, positive, real_array, whole
from optsched.errors import InvalidProblem

__all__ = ["NoiseScale", "RunningNoiseScale", "per_example", "sgd_noise_scale", "two_batch"]


LARGEST = 1e60  # entry of a gradient: products of squared norms are far from overflow
MOST = 1e150  # average along a run, whose square is taken


@dataclass(frozen=True)
class NoiseScale:
    r"""Estimates of :math:`\mathrm{tr}\,\Sigma` and :math:`|G|^2`, and their ratio.

    Attributes
    ----------
    trace, gradient_square : float
        Unbiased estimates, in squared units of the gradient. ``gradient_square`` can be negative
        where noise drowns the signal.
    trace_stderr, gradient_square_stderr : float
        Standard errors; NaN for a single measurement.
    covariance : float
        Of the two estimates.
    count : float
        Independent measurements behind them; effective ones for a moving average.
    """

    trace: float
    gradient_square: float
    trace_stderr: float
    gradient_square_stderr: float
    covariance: float
    count: float

    @property
    def value(self) -> float:
        """Ratio of the two, in examples; NaN where ``gradient_square`` is not positive."""
        return self.trace / self.gradient_square if self.gradient_square > 0.0 else math.nan

    @property
    def stderr(self) -> float:
        r"""Standard error of the ratio, to first order in the errors of its parts.

        .. math:: \frac{s^2}{B^2} = \frac{s_S^2}{S^2} + \frac{s_G^2}{G^4} - \frac{2 c}{S G^2}
        """
        if not self.gradient_square > 0.0:
            return math.nan
        slope = self.value
        variance = self.trace_stderr**2 + (slope * self.gradient_square_stderr) ** 2
        variance -= 2.0 * slope * self.covariance
        return math.sqrt(max(variance, 0.0)) / self.gradient_square

    @property
    def resolved(self) -> bool:
        """Whether the gradient stands out: its square is above twice its standard error.

        Below that the ratio says no more than that the noise scale is large.
        """
        return bool(self.gradient_square > 2.0 * self.gradient_square_stderr)

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict."""
        names = ("trace", "trace_stderr", "gradient_square", "gradient_square_stderr", "count")
        head = {"noise_scale": self.value, "stderr": self.stderr, "resolved": self.resolved}
        return head | {name: getattr(self, name) for name in names}


def _sizes(small: Any, big: Any) -> tuple[float, float]:
    """Two batch sizes, the first below the second."""
    small, big = at_least("small", small, 1.0), at_least("big", big, 1.0)
    if not small < big:
        raise InvalidProblem("small", small, f"a batch size below the big one, {big:g}")
    return small, big


def _squares(field: str, values: ArrayLike) -> Floats:
    array = np.atleast_1d(real_array(field, values)).astype(np.float64)
    if array.ndim != 1 or not array.size:
        raise InvalidProblem(field, f"shape {array.shape}", "shape (n,), n >= 1")
    bad = np.flatnonzero(~((array >= 0.0) & (array <= LARGEST**2)))
    if bad.size:
        allowed = f"squared norms, numbers from 0 to {LARGEST**2:g} (at {bad[0]})"
        raise InvalidProblem(field, float(array[bad[0]]), allowed)
    return array


def _parts(
    small_square: ArrayLike, big_square: ArrayLike, small: Any, big: Any
) -> tuple[Floats, Floats]:
    """Estimates of the trace and of the squared gradient, pair by pair."""
    b, large = _sizes(small, big)
    s, g = _squares("small_square", small_square), _squares("big_square", big_square)
    if s.shape != g.shape:
        raise InvalidProblem("big_square", f"{g.size} numbers", f"{s.size}, as small_square")
    return (s - g) / (1.0 / b - 1.0 / large), (large * g - b * s) / (large - b)


def two_batch(
    small_square: ArrayLike, big_square: ArrayLike, small: float, big: float
) -> NoiseScale:
    r"""Noise scale from squared norms of gradients at two batch sizes.

    .. math:: |G|^2 \approx \frac{B |G_B|^2 - b |G_b|^2}{B - b}, \qquad
       \mathrm{tr}\,\Sigma \approx \frac{|G_b|^2 - |G_B|^2}{1/b - 1/B}

    Parameters
    ----------
    small_square, big_square : array_like, shape (n,)
        :math:`|G_b|^2` and :math:`|G_B|^2` of n measurements at the same weights (nearly). The
        small batch may be part of the big one, and :math:`|G_b|^2` the mean over its parts, as
        gradients before and after the all-reduce of data-parallel training give it.
    small, big : float
        Batch sizes b < B.

    Returns
    -------
    NoiseScale
        Its standard errors take the measurements as independent.

    Raises
    ------
    InvalidProblem
        Sizes that do not increase; norms that are negative, not finite or not pairs.

    Notes
    -----
    McCandlish et al., arXiv 1812.06162, appendix A.1.

    Examples
    --------
    >>> two_batch([4.0], [1.75], small=1, big=4).value
    3.0
    """
    trace, square = _parts(small_square, big_square, small, big)
    n = trace.size
    cov = np.cov(trace, square) / n if n > 1 else np.full((2, 2), np.nan)
    return _made(float(trace.mean()), float(square.mean()), cov, float(n))


def _made(trace: float, square: float, cov: Floats, count: float) -> NoiseScale:
    errors = np.sqrt(np.diag(cov))
    return NoiseScale(trace, square, float(errors[0]), float(errors[1]), float(cov[0, 1]), count)


def per_example(gradients: ArrayLike, *, size: int = 1) -> NoiseScale:
    r"""Noise scale from the gradients of n examples, or of n micro-batches.

    With the mean :math:`\bar g` of rows that are means of ``size`` examples each,

    .. math:: \mathrm{tr}\,\Sigma \approx \frac{\text{size}}{n-1} \sum_i |g_i - \bar g|^2, \qquad
       |G|^2 \approx |\bar g|^2 - \frac{\mathrm{tr}\,\Sigma}{n\,\text{size}} .

    Both are unbiased: with the empirical mean, n in place of n - 1 would give a trace that is too
    small, and without the second term the squared gradient is too large.

    Parameters
    ----------
    gradients : array_like, shape (n, parameters)
        Two rows or more; standard errors, a jackknife over the rows, need three.
    size : int
        Examples that each row is the mean of.

    Raises
    ------
    InvalidProblem
        Fewer than two gradients, another shape, or numbers that are not finite.
    """
    rows = real_array("gradients", gradients).astype(np.float64)
    size = whole("size", size, 1, 2**53)
    if rows.ndim != 2 or rows.shape[0] < 2 or rows.shape[1] < 1:
        allowed = "shape (n, parameters) with 2 gradients or more"
        raise InvalidProblem("gradients", f"shape {rows.shape}", allowed)
    if not np.isfinite(rows).all():
        at = int(np.flatnonzero(~np.isfinite(rows).all(1))[0])
        raise InvalidProblem("gradients", f"a number that is not finite in row {at}", "finite ones")
    if np.abs(rows).max() > LARGEST:
        raise InvalidProblem("gradients", float(np.abs(rows).max()), f"at most {LARGEST:g} in size")
    n = rows.shape[0]
    mean = rows.mean(0)
    off = rows - mean
    spread, along = (off**2).sum(1), off @ mean

    def estimates(total: Any, square: Any, count: int) -> tuple[Any, Any]:
        row = total / (count - 1)  # variance of a row
        return size * row, square - row / count

    trace, square = estimates(spread.sum(), float(mean @ mean), n)
    cov = np.full((2, 2), np.nan)
    if n > 2:
        # Without row i: sums about the mean that is left, and that mean's square.
        left = spread.sum() - n / (n - 1) * spread
        squares = mean @ mean - 2.0 * along / (n - 1) + spread / (n - 1) ** 2
        cov = (n - 1) ** 2 / n * np.cov(*estimates(left, squares, n - 1))
    return _made(float(trace), float(square), cov, float(n))


@dataclass(frozen=True)
class RunningNoiseScale:
    r"""Noise scale along a run: moving averages of numerator and denominator, each on its own.

    Parameters
    ----------
    decay : float
        d of both averages, in [0, 1). The start is no bias: weights are normalised, as by a
        bias correction of :math:`1/(1 - d^t)`.
    trace, gradient_square : float
        The averages so far.
    spread : tuple of float
        Weighted variances of the two, and their covariance.
    weight, weight_square : float
        Sums of the weights and of their squares.

    Examples
    --------
    >>> running = RunningNoiseScale(0.9)
    >>> for small, big in ((4.2, 1.8), (3.9, 1.7), (4.1, 1.75)):
    ...     running = running.updated(small, big, small=1, big=4)
    >>> round(running.estimate.value, 2)
    3.16
    """

    decay: float = 0.99
    trace: float = math.nan
    gradient_square: float = math.nan
    spread: tuple[float, float, float] = (0.0, 0.0, 0.0)
    weight: float = 0.0
    weight_square: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "decay", decay("decay", self.decay))

    def updated(
        self, small_square: float, big_square: float, small: float, big: float
    ) -> RunningNoiseScale:
        """Averages with one more pair of squared norms, as in `two_batch`."""
        trace, square = _parts(small_square, big_square, small, big)
        return self.added(float(trace.mean()), float(square.mean()))

    def added(self, trace: float, gradient_square: float) -> RunningNoiseScale:
        """Averages with one more pair of estimates, of `per_example` for example."""
        for field, value in (("trace", trace), ("gradient_square", gradient_square)):
            if not abs(value) <= MOST:
                raise InvalidProblem(field, value, f"a number up to {MOST:g} in size")
        d = self.decay
        weight = d * self.weight + (1.0 - d)
        new = (1.0 - d) / weight
        first = self.weight == 0.0
        off = (
            0.0 if first else trace - self.trace,
            0.0 if first else gradient_square - self.gradient_square,
        )
        products = (off[0] ** 2, off[1] ** 2, off[0] * off[1])
        spread = [(1.0 - new) * (s + new * p) for s, p in zip(self.spread, products, strict=True)]
        return RunningNoiseScale(
            d,
            trace if first else self.trace + new * off[0],
            gradient_square if first else self.gradient_square + new * off[1],
            (spread[0], spread[1], spread[2]),
            weight,
            d**2 * self.weight_square + (1.0 - d) ** 2,
        )

    @property
    def estimate(self) -> NoiseScale:
        """The noise scale; its errors take measurements in the window as independent and alike."""
        if self.weight == 0.0:
            raise InvalidProblem("estimate", "no measurement yet", "one or more: use updated")
        count = self.weight**2 / self.weight_square
        cov = np.full((2, 2), np.nan)
        if count > 1.0 + 1e-9:
            a, b, c = self.spread
            # As n / (n - 1) / n with equal weights.
            cov = np.array([[a, c], [c, b]]) / (count - 1.0)
        return _made(self.trace, self.gradient_square, cov, count)


def sgd_noise_scale(lr: float, samples: float, batch: float, momentum: float = 0.0) -> float:
    r"""Scale of the fluctuations that SGD adds: :math:`\frac{\eta}{1-\beta}\frac{N - B}{B}`.

    Runs over the same N training examples with the same value behave alike, where the rate is
    small: for :math:`B \ll N`, larger batches need rates larger in proportion.

    Parameters
    ----------
    lr : float
    samples : float
        Number N of training examples.
    batch : float
        B <= N; all of them make no noise.
    momentum : float
        Heavy ball, :math:`v \leftarrow \beta v + g`.

    Raises
    ------
    InvalidProblem
        A value is out of range.

    Notes
    -----
    Smith & Le, arXiv 1710.06451; with momentum, Smith et al., arXiv 1711.00489.

    >>> sgd_noise_scale(0.1, samples=50_000, batch=500)
    9.9
    """
    samples, batch = at_least("samples", samples, 1.0), at_least("batch", batch, 1.0)
    if batch > samples:
        raise InvalidProblem("batch", batch, f"at most the number of samples, {samples:g}")
    rate = positive("lr", lr) / (1.0 - decay("momentum", momentum))
    return rate * (samples - batch) / batch
