"""Monte Carlo of real SGD on sampled Gaussian features: the check of the moments themselves."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from optsched.arrays import Brief, Floats
from optsched.errors import InvalidProblem
from optsched.model.spectrum import Spectrum
from optsched.numerics import jax_settings

__all__ = ["MonteCarlo", "monte_carlo"]


@dataclass(frozen=True, eq=False, repr=False)
class MonteCarlo(Brief):
    """Mean excess loss of repeated training runs.

    Attributes
    ----------
    steps : numpy.ndarray, shape (T + 1,)
        Number of updates done.
    mean, stderr : numpy.ndarray, shape (T + 1,)
        Mean over the runs of the excess loss of the iterate, and its standard error.
    averaged_mean, averaged_stderr : numpy.ndarray, shape (T + 1,), or None
        The same for the averaged iterate; None where nothing was averaged.
    """

    steps: NDArray[np.int64]
    mean: Floats
    stderr: Floats
    averaged_mean: Floats | None = None
    averaged_stderr: Floats | None = None


class _State(NamedTuple):
    """Errors of iterate and average, and momentum, of one run."""

    error: Array
    average: Array
    v: Array


class _Step(NamedTuple):
    """Controls of every step, shape (T,) each."""

    eta: Array
    beta: Array
    nu: Array
    ema: Array
    batch_size: Array


def monte_carlo(
    spectrum: Spectrum,
    batch_size: ArrayLike,
    noise: float,
    eta: ArrayLike,
    *,
    beta: ArrayLike = 0.0,
    nu: ArrayLike = 0.0,
    ema: ArrayLike | None = None,
    weight_decay: float = 0.0,
    runs: int = 256,
    seed: int = 0,
) -> MonteCarlo:
    r"""Train linear models with quasi-hyperbolic SGD on fresh Gaussian samples.

    Every update draws m samples :math:`\psi_k = \sqrt{\lambda_k} z_k`, labels
    :math:`y = w^* \cdot \psi + \sigma \xi`, takes the minibatch gradient g of the squared loss
    (with the factor 1/2), and moves

    .. math::
       v \leftarrow \beta v + (1-\beta) g, \qquad
       w \leftarrow w - \eta\,[(1-\nu) g + \nu v] - \eta\,\omega\, w, \qquad
       \bar w \leftarrow \rho\, \bar w + (1-\rho)\, w ,

    from :math:`w = \bar w = v = 0`. The excess loss :math:`\sum_k \lambda_k (w_k - w_k^*)^2` is
    exact for each run. The defaults are plain SGD.

    Parameters
    ----------
    spectrum : Spectrum
        A finite one; memory is ``runs * max(batch_size) * N`` numbers.
    batch_size : int or array_like of int, shape (T,)
        Minibatch size m. Where it varies, every step draws the largest batch and masks the rest.
    noise : float
        Standard deviation sigma of the label noise.
    eta : array_like, shape (T,)
        Learning rate of every step.
    beta, nu : float or array_like, shape (T,)
        Momentum and its weight, 0 to 1: nu = 0 is SGD, 1 heavy ball, beta Nesterov's momentum.
    ema : float or array_like, shape (T,), optional
        Decay rho of the average, 0 to 1.
    weight_decay : float
        Decoupled decay omega, >= 0.
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
        If ``runs`` < 2, a batch size is not a whole number >= 1, a control is not a number of its
        range or not of shape (T,), or the spectrum is infinite.

    Notes
    -----
    Ma & Yarats, "Quasi-hyperbolic momentum and Adam for deep learning" (ICLR 2019).
    """
    if runs < 2:
        raise InvalidProblem("runs", runs, "a whole number >= 2")
    rates = _real_array("eta", eta, "a vector of finite numbers")
    if rates.ndim != 1:
        raise InvalidProblem("eta", f"shape {rates.shape}", "a vector, one rate a step")
    count = len(rates)
    sizes = _per_step("batch_size", batch_size, count, "whole numbers >= 1 for Monte Carlo")
    if np.any(sizes < 1.0) or np.any(sizes != np.floor(sizes)):
        raise InvalidProblem("batch_size", batch_size, "whole numbers >= 1 for Monte Carlo")
    omega = _per_step("weight_decay", weight_decay, 1, "a finite number >= 0")
    if omega[0] < 0.0:
        raise InvalidProblem("weight_decay", weight_decay, "a finite number >= 0")
    shares = [
        _share(name, value, count)
        for name, value in (("beta", beta), ("nu", nu), ("ema", 0.0 if ema is None else ema))
    ]
    modes = spectrum.full()
    with jax_settings():
        curves, averaged = (
            np.asarray(curve)
            for curve in _train(
                jax.random.split(jax.random.key(seed), runs),
                _Step(*map(jnp.asarray, (rates, *shares, sizes))),
                jnp.asarray(modes.lam),
                jnp.sqrt(jnp.asarray(modes.mu / modes.lam)),
                float(noise),
                float(omega[0]),
                largest=int(sizes.max(initial=1.0)),
            )
        )
    steps = np.arange(count + 1)
    if ema is None:
        return MonteCarlo(steps, *_summary(curves))
    return MonteCarlo(steps, *_summary(curves), *_summary(averaged))


def _real_array(name: str, value: Any, allowed: str) -> Floats:
    """``value`` as an array of finite numbers."""
    try:
        array = np.array(value, dtype=float)
    except (TypeError, ValueError):
        raise InvalidProblem(name, value, allowed) from None
    if not np.all(np.isfinite(array)):
        raise InvalidProblem(name, value, allowed)
    return array


def _per_step(name: str, value: Any, count: int, allowed: str) -> Floats:
    """A control at every step, from a number or a vector."""
    array = _real_array(name, value, allowed)
    if array.shape not in ((), (count,)):
        raise InvalidProblem(name, f"shape {array.shape}", f"a number, or {count}, one a step")
    return np.broadcast_to(array, (count,))


def _share(name: str, value: Any, count: int) -> Floats:
    array = _per_step(name, value, count, "numbers from 0 to 1")
    if np.any((array < 0.0) | (array > 1.0)):
        raise InvalidProblem(name, value, "numbers from 0 to 1")
    return array


def _summary(curves: Floats) -> tuple[Floats, Floats]:
    """Mean over the runs, and its standard error."""
    return curves.mean(0), curves.std(0, ddof=1) / np.sqrt(len(curves))


@partial(jax.jit, static_argnames="largest")
def _train(
    keys: Array,
    controls: _Step,
    lam: Array,
    target: Array,
    noise: Array | float,
    omega: Array | float,
    *,
    largest: int,
) -> tuple[Array, Array]:
    """Excess loss of iterate and average of every run after 0..T updates, (runs, T + 1) each."""

    def excess(error: Array) -> Array:
        return (lam * error**2).sum()

    def update(state: _State, data: tuple[_Step, Array]) -> tuple[_State, tuple[Array, Array]]:
        (error, average, v), (now, key) = state, data
        k_features, k_noise = jax.random.split(key)
        psi = jnp.sqrt(lam) * jax.random.normal(k_features, (largest, lam.size), lam.dtype)
        residual = psi @ error - noise * jax.random.normal(k_noise, (largest,), lam.dtype)
        drawn = jnp.arange(largest) < now.batch_size
        g = psi.T @ jnp.where(drawn, residual, 0.0) / now.batch_size
        v = now.beta * v + (1.0 - now.beta) * g
        decay = now.eta * omega * (error + target)
        error = error - now.eta * ((1.0 - now.nu) * g + now.nu * v) - decay
        average = now.ema * average + (1.0 - now.ema) * error
        return _State(error, average, v), (excess(error), excess(average))

    def run(key: Array) -> tuple[Array, Array]:
        start = _State(-target, -target, jnp.zeros_like(target))
        split = jax.random.split(key, controls.eta.size)
        _, curves = jax.lax.scan(update, start, (controls, split))
        first = excess(target)[None]
        return jnp.concatenate([first, curves[0]]), jnp.concatenate([first, curves[1]])

    return jax.vmap(run)(keys)
