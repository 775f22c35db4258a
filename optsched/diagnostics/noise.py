"""Noise scale of a step from gradients that a training loop has anyway.

The mean over parts of a batch (micro-batches, or the ranks of a data-parallel run) has a smaller
square than the parts: the difference is the noise. `optsched.rules.batch.noise_scale` has the
unbiased estimators; here they take gradients as trees of arrays, of JAX or torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from optsched.checks import at_least
from optsched.diagnostics.norms import mean_and_squares, tree_norm
from optsched.errors import InvalidProblem
from optsched.rules.batch.noise_scale import NoiseScale, two_batch

__all__ = ["from_micro_batches", "from_two_batches"]


def from_two_batches(small: Any, small_batch: float, big: Any, big_batch: float) -> NoiseScale:
    """Estimate from the mean gradients of a small and of a big batch.

    Parameters
    ----------
    small, big : tree of arrays
        Gradients; see `optsched.diagnostics.norms.tree_norm`.
    small_batch, big_batch : float
        Numbers of samples, 1 <= small < big.

    Returns
    -------
    NoiseScale
        Of nan where a gradient is not finite.

    Raises
    ------
    InvalidProblem
        Batches that are not in order; trees without arrays.
    """
    return _estimate(tree_norm(small) ** 2, tree_norm(big) ** 2, small_batch, big_batch)


def from_micro_batches(gradients: Iterable[Any], micro_batch: float) -> NoiseScale:
    """Estimate from the mean gradients of equal parts of a batch.

    Parameters
    ----------
    gradients : iterable of trees of arrays
        At least 2, each the mean over its part; taken one by one, so a generator need not hold
        them all.
    micro_batch : float
        Samples in each part, >= 1.

    Returns
    -------
    NoiseScale
        Of nan where a gradient is not finite.

    Raises
    ------
    InvalidProblem
        Fewer than two gradients, or of different shapes; a batch below 1.
    """
    part = at_least("micro_batch", micro_batch, 1.0)
    mean_square, square_of_mean, count = mean_and_squares(gradients)
    if count < 2:
        raise InvalidProblem("gradients", f"{count} of them", "at least 2, of parts of the batch")
    return _estimate(mean_square, square_of_mean, part, count * part)


def _estimate(small_square: float, big_square: float, small: float, big: float) -> NoiseScale:
    if math.isfinite(small_square) and math.isfinite(big_square):
        return two_batch([small_square], [big_square], small, big)
    nan = math.nan
    return NoiseScale(nan, nan, nan, nan, nan, 1.0)
