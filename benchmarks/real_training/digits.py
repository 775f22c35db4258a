r"""Linear model on a real kernel: random ReLU features of scikit-learn's handwritten digits.

The distribution is the finite set itself: SGD draws its samples with replacement, so that the
population is known. With features :math:`\phi` of second moment :math:`H` and labels :math:`y`,
the best linear prediction is :math:`w^* = H^{-1} E[\phi y]`; what it leaves,
:math:`y - w^* \cdot \phi`, is the noise of the labels: uncorrelated with the features, but neither
Gaussian nor independent of them. The excess loss :math:`\sum_k \lambda_k (w_k - w^*_k)^2` of any
iterate is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from optsched import InvalidProblem, MissingExtra, TabulatedSpectrum
from optsched.arrays import Floats

__all__ = ["Kernel", "digits_kernel", "kernel_of", "sgd"]


# Directions with less than this share of the largest eigenvalue are rounding.
LEAST_EIGENVALUE = 1e-9
GROUP = 32  # runs at a time, so that their features stay in the cache


@dataclass(frozen=True, eq=False)
class Kernel:
    """A finite set of features and labels, in the eigenbasis of the features.

    Attributes
    ----------
    features : numpy.ndarray, shape (n, N)
        In the eigenbasis, scaled so that the largest eigenvalue is 1; the columns are
        uncorrelated (uncentred), in the order of their eigenvalues.
    labels : numpy.ndarray, shape (n,)
    eigenvalues, target : numpy.ndarray, shape (N,)
        Mean square of each column, and coefficients of the best linear prediction.
    noise : float
        Root mean square of what that prediction leaves.
    """

    features: Floats
    labels: Floats
    eigenvalues: Floats
    target: Floats
    noise: float

    @property
    def spectrum(self) -> TabulatedSpectrum:
        """As optsched solves it."""
        return TabulatedSpectrum(self.eigenvalues, self.target)

    @property
    def start(self) -> float:
        """Excess loss of w = 0."""
        return float(self.eigenvalues @ self.target**2)


def kernel_of(features: Floats, labels: Floats) -> Kernel:
    """Eigenbasis, target and noise of features of shape (n, N) and labels of shape (n,)."""
    left, singular, _ = np.linalg.svd(features, full_matrices=False)
    keep = singular**2 >= LEAST_EIGENVALUE * singular[0] ** 2
    scale = singular[keep] / singular[0]
    # Columns of mean square lam_k = scale_k^2: left vectors have unit length.
    columns = left[:, keep] * (np.sqrt(len(labels)) * scale)
    eigenvalues = scale**2
    target = columns.T @ labels / (len(labels) * eigenvalues)
    noise = float(np.sqrt(np.mean((labels - columns @ target) ** 2)))
    return Kernel(columns, labels, eigenvalues, target, noise)


def digits_kernel(width: int = 256, seed: int = 0) -> Kernel:
    """Random ReLU features of the 1,797 digits; the label is +1 for even digits and -1 for odd.

    Both are centred: the mean of the features would be an eigenvector ten times above the rest,
    and the least Gaussian one.

    Parameters
    ----------
    width : int
        Number of features N.
    seed : int
        Of the random weights.
    """
    try:
        from sklearn.datasets import load_digits
    except ModuleNotFoundError:
        raise MissingExtra(
            "the digits need scikit-learn: pip install 'optsched[real-training]'"
        ) from None
    if isinstance(width, bool) or not isinstance(width, int) or not 2 <= width <= 1000:
        raise InvalidProblem("width", width, "a whole number, 2 to 1000")
    images, digits = load_digits(return_X_y=True)
    pixels = (images - images.mean()) / images.std()
    weights = np.random.default_rng(seed).standard_normal((pixels.shape[1], width))
    features = np.maximum(pixels @ weights / np.sqrt(pixels.shape[1]), 0.0)
    labels = np.where(digits % 2, -1.0, 1.0)
    return kernel_of(features - features.mean(axis=0), labels - labels.mean())


@partial(jax.jit, static_argnames=("batch", "runs"))
def _sgd(
    features: jax.Array,
    labels: jax.Array,
    target: jax.Array,
    eigenvalues: jax.Array,
    eta: jax.Array,
    key: jax.Array,
    batch: int,
    runs: int,
) -> jax.Array:
    """Excess loss at the end of ``runs`` runs for each row of ``eta``, shape (schedules, runs)."""

    def update(weights: jax.Array, now: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        step, rates = now
        draw = jax.random.fold_in(key, step)
        # The same samples for every schedule: differences between schedules are paired.
        index = jax.random.randint(draw, (runs, batch), 0, len(labels))
        x, y = features[index], labels[index]
        error = jnp.einsum("rbk,srk->srb", x, weights) - y
        gradient = jnp.einsum("srb,rbk->srk", error, x) / batch
        return weights - rates[:, None, None] * gradient, None

    start = jnp.zeros((len(eta), runs, features.shape[1]), features.dtype)
    steps = jnp.arange(eta.shape[1])
    weights, _ = jax.lax.scan(update, start, (steps, eta.T))
    return ((weights - target) ** 2) @ eigenvalues


def sgd(kernel: Kernel, eta: Floats, batch: int, runs: int, seed: int = 0) -> Floats:
    """Real minibatch SGD from w = 0 along several schedules at once.

    Parameters
    ----------
    kernel : Kernel
    eta : array_like, shape (schedules, T)
    batch : int
        Samples of an update, drawn with replacement from the set.
    runs : int
        Runs of each schedule, a multiple of 32 or less than that; run i of every schedule sees
        the same samples.
    seed : int

    Returns
    -------
    numpy.ndarray, shape (schedules, runs)
        Excess loss at the end, in float64; inf where it diverged.
    """
    eta = np.atleast_2d(np.asarray(eta, dtype=np.float64))
    group = min(runs, GROUP)
    if runs < 1 or runs % group:
        raise InvalidProblem("runs", runs, f"1 to {GROUP}, or a multiple of {GROUP}")
    with jax.enable_x64(True):
        arrays = [
            jnp.asarray(x)
            for x in (kernel.features, kernel.labels, kernel.target, kernel.eigenvalues, eta)
        ]
        keys = jax.random.split(jax.random.key(seed), runs // group)
        parts = [np.asarray(_sgd(*arrays, key, batch, group)) for key in keys]
    losses = np.concatenate(parts, axis=1)
    return np.where(np.isfinite(losses), losses, np.inf)
