r"""Exponents of a JAX model: its tangent kernel and residuals on a data sample.

To first order in the parameters a model is linear in the features
:math:`\phi(x) = \partial f(\theta, x)/\partial\theta`, and gradient descent on a squared loss fits
the residuals y - f with them (Jacot et al., arXiv 1806.07572). Their covariance is the Gauss-Newton
part of the Hessian of the loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optsched.arrays import Floats
from optsched.errors import InvalidProblem
from optsched.measure.exponents import MeasuredSpectrum, measure_features, measure_kernel

__all__ = ["measure_model", "tangent_features", "tangent_kernel"]


BLOCK = 256  # samples whose gradients are held at a time
LARGEST_FEATURES = 4  # more parameters than this times n: the kernel is the smaller matrix


def _gradients(model: Callable[[Any, Any], Any], params: Any, inputs: Any) -> Any:
    """Function of a block of inputs that gives their gradients, (block, P), and outputs."""
    import jax
    from jax.flatten_util import ravel_pytree

    flat, unravel = ravel_pytree(params)
    if np.dtype(flat.dtype).kind != "f":
        raise InvalidProblem("params", str(flat.dtype), "real floating-point parameters")
    shape = jax.eval_shape(model, params, inputs[0]).shape
    if shape != ():
        raise InvalidProblem("model", f"output of shape {shape}", "one number for one input")

    def single(theta: Any, x: Any) -> Any:
        return model(unravel(theta), x)

    rows = jax.jit(jax.vmap(jax.value_and_grad(single), in_axes=(None, 0)))
    return lambda block: rows(flat, block)


def _blocks(
    model: Callable[[Any, Any], Any], params: Any, inputs: ArrayLike
) -> tuple[list[Floats], Floats]:
    """Gradients of all samples, block by block, and the outputs."""
    import jax.numpy as jnp

    given = jnp.asarray(inputs)
    if given.ndim == 0 or len(given) == 0:
        raise InvalidProblem("inputs", f"shape {given.shape}", "one row a sample")
    rows = _gradients(model, params, given)
    parts = [rows(given[i : i + BLOCK]) for i in range(0, len(given), BLOCK)]
    values = np.concatenate([np.asarray(value, np.float64) for value, _ in parts])
    return [np.asarray(gradient) for _, gradient in parts], values


def tangent_features(
    model: Callable[[Any, Any], Any], params: Any, inputs: ArrayLike
) -> NDArray[Any]:
    """Gradients of a model's output by its parameters.

    Parameters
    ----------
    model : callable
        ``model(params, x)``, one number for one input; JAX differentiates it.
    params : pytree of arrays
    inputs : array_like, shape (n, ...)

    Returns
    -------
    numpy.ndarray, shape (n, P)
        In the type of the parameters.

    Raises
    ------
    InvalidProblem
        For a model with several outputs (choose one), no inputs, or parameters that are not real.
    """
    return np.concatenate(_blocks(model, params, inputs)[0])


def tangent_kernel(model: Callable[[Any, Any], Any], params: Any, inputs: ArrayLike) -> Floats:
    """The neural tangent kernel, shape (n, n): inner products of `tangent_features`."""
    return _gram(_blocks(model, params, inputs)[0])


def _gram(parts: list[Floats]) -> Floats:
    rows = [part.astype(np.float64) for part in parts]
    return np.block([[left @ right.T for right in rows] for left in rows])


def measure_model(
    model: Callable[[Any, Any], Any],
    params: Any,
    inputs: ArrayLike,
    targets: ArrayLike,
    *,
    window: tuple[int, int] | None = None,
) -> MeasuredSpectrum:
    """Estimate (a, b) of a model linearised at its parameters, and of its residuals.

    Parameters
    ----------
    model, params, inputs
        As for `tangent_features`.
    targets : array_like, shape (n,)
        What the model should give; the target is the residual, ``targets - model``.
    window : tuple of int, optional
        As for `optsched.measure.exponents.measure_features`.

    Returns
    -------
    MeasuredSpectrum
        Its ``noise`` has what the linearised model cannot learn.

    Raises
    ------
    InvalidProblem
        As `tangent_features` and `optsched.measure.exponents.measure_features`.
    """
    parts, values = _blocks(model, params, inputs)
    y = np.asarray(targets, np.float64)
    if y.shape != values.shape:
        raise InvalidProblem("targets", f"shape {y.shape}", f"shape {values.shape}")
    if parts[0].shape[1] <= LARGEST_FEATURES * len(values):
        return measure_features(np.concatenate(parts), y - values, window=window)
    # The rounding of single-precision gradients stays that of the kernel.
    kernel = _gram(parts).astype(parts[0].dtype)
    return measure_kernel(kernel, y - values, window=window)
