"""Monte Carlo of real SGD on sampled Gaussian features: the check of the recursion itself."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from optsched.errors import InvalidProblem
from optsched.model.spectrum import Spectrum

__all__ = ["MonteCarlo", "monte_carlo"]


@dataclass(frozen=True)
class MonteCarlo:
    """Mean excess loss of repeated training runs.

    Attributes
    ----------
    steps : numpy.ndarray, shape (T + 1,)
        Number of updates done.
    mean, stderr : numpy.ndarray, shape (T + 1,)
        Mean over the runs and its standard error.
    """

    steps: NDArray[np.int64]
    mean: NDArray[np.float64]
    stderr: NDArray[np.float64]


def monte_carlo(
    spectrum: Spectrum,
    batch_size: int,
    noise: float,
    eta: ArrayLike,
    *,
    runs: int = 256,
    seed: int = 0,
) -> MonteCarlo:
    r"""Train linear models with plain SGD on fresh Gaussian samples.

    Every update draws ``batch_size`` samples :math:`\psi_k = \sqrt{\lambda_k} z_k`, labels
    :math:`y = w^* \cdot \psi + \sigma \xi`, and moves along the minibatch gradient of the squared
    loss (with the factor 1/2). The excess loss :math:`\sum_k \lambda_k (w_k - w_k^*)^2` is exact
    for each run.

    Parameters
    ----------
    spectrum : Spectrum
        A finite one; memory is ``runs * batch_size * N`` numbers.
    batch_size : int
        Minibatch size m.
    noise : float
        Standard deviation sigma of the label noise.
    eta : array_like, shape (T,)
        Learning rate of every step.
    runs : int
        Number of independent runs, at least 2.
    seed : int
        Seed of the random numbers.

    Returns
    -------
    MonteCarlo

    Raises
    ------
    InvalidProblem
        If ``runs`` < 2 or ``batch_size`` is not a whole number.
    """
    if runs < 2:
        raise InvalidProblem("runs", runs, "a whole number >= 2")
    if float(batch_size) != int(batch_size):
        raise InvalidProblem("batch_size", batch_size, "a whole number for Monte Carlo")
    modes = spectrum.full()
    with jax.enable_x64(True):
        curves = np.asarray(
            _train(
                jax.random.split(jax.random.key(seed), runs),
                jnp.asarray(np.asarray(eta, float)),
                jnp.asarray(modes.lam),
                jnp.sqrt(jnp.asarray(modes.mu / modes.lam)),
                float(noise),
                int(batch_size),
            )
        )
    return MonteCarlo(
        np.arange(curves.shape[1]),
        curves.mean(0),
        curves.std(0, ddof=1) / np.sqrt(runs),
    )


def _train(keys: Array, eta: Array, lam: Array, target: Array, noise: float, m: int) -> Array:
    """Excess loss of every run after 0..T updates, shape (runs, T + 1)."""

    def run(key: Array) -> Array:
        def update(error: Array, data: tuple[Array, Array]) -> tuple[Array, Array]:
            rate, key = data
            k_features, k_noise = jax.random.split(key)
            psi = jnp.sqrt(lam) * jax.random.normal(k_features, (m, lam.size), lam.dtype)
            residual = psi @ error - noise * jax.random.normal(k_noise, (m,), lam.dtype)
            error = error - rate / m * (psi.T @ residual)
            return error, (lam * error**2).sum()

        first = (lam * target**2).sum()
        _, curve = jax.lax.scan(update, -target, (eta, jax.random.split(key, eta.size)))
        return jnp.concatenate([first[None], curve])

    return jax.jit(jax.vmap(run))(keys)
