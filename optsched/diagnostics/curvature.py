r"""Curvature of any loss in JAX: extreme eigenvalues and trace of its Hessian.

The Hessian is never formed: its product with a vector is the derivative of the gradient along that
vector (Pearlmutter, "Fast exact multiplication by the Hessian", 1994), at about twice the cost of a
gradient. Eigenvalues come from ARPACK's Lanczos iteration (`optsched.diagnostics.lanczos`), the
trace from random signs z (Hutchinson, "A stochastic estimator of the trace of the influence
matrix", 1990): :math:`E z^T H z = \mathrm{tr} H`, with variance
:math:`2\sum_{i \ne j} H_{ij}^2`.

Parameters and arithmetic keep the dtype that they come with, unless ``float64=True``, which
computes in a local 64-bit context and changes no setting. In float32 an eigenvalue is good to about
:math:`10^{-5}` of the largest in size, which is what the edge of stability needs; the trace to that
share of the sum of the sizes of all eigenvalues. An eigenvalue that is smaller than the largest by
that factor wants float64.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optsched.arrays import Floats
from optsched.checks import is_number, whole
from optsched.controls import MAX_HORIZON
from optsched.diagnostics.lanczos import Eigenvalue, extreme_eigenvalue
from optsched.errors import InvalidProblem

__all__ = ["Hessian", "TraceEstimate", "adam_preconditioner"]

MOST_SAMPLES = 10**6


@dataclass(frozen=True)
class TraceEstimate:
    """Trace of a Hessian from random probes.

    Attributes
    ----------
    value : float
    stderr : float
        Standard error of ``value``, from the spread of the probes.
    samples : int
        Number of probes.
    products : int
        Number of products of the Hessian with a vector.
    size : int
        Number of parameters.
    """

    value: float
    stderr: float
    samples: int
    products: int
    size: int


class Hessian:
    """Hessian of a loss with respect to its parameters.

    Compiled once for all steps of a run: make it before the loop, and pass the data to its methods.

    Parameters
    ----------
    loss : callable
        ``loss(params, *data)``, a real scalar; twice differentiable by JAX.
    float64 : bool
        Compute with the parameters, and the floating data, in float64.

    Notes
    -----
    ``params`` is a pytree of real floating arrays. The curvature is that of the loss on the data
    that is passed: a small batch has a larger sharpness than the whole set. Loss functions must be
    deterministic: pass a fixed key for dropout, or switch it off.
    """

    def __init__(self, loss: Callable[..., Any], *, float64: bool = False) -> None:
        if not callable(loss):
            raise InvalidProblem("loss", type(loss).__name__, "a function of (params, *data)")
        self.float64 = float64

        def product(params: Any, vector: Any, *data: Any) -> Any:
            gradient = jax.grad(lambda p: loss(p, *data))
            return jax.jvp(gradient, (params,), (vector,))[1]

        self._product = jax.jit(product)

    def _context(self) -> AbstractContextManager[Any]:
        return jax.enable_x64(True) if self.float64 else nullcontext()

    def product(self, params: Any, vector: Any, *data: Any) -> Any:
        """Hessian times a vector, a pytree like ``params``; leaves are arrays of JAX."""
        with self._context():
            flat = _Flat(params, self.float64)
            data = self._data(data)
            return self._product(flat.params, flat.tree(flat.vector("vector", vector)), *data)

    def largest(
        self,
        params: Any,
        *data: Any,
        preconditioner: Any = None,
        tol: float | None = None,
        most_products: int = 1000,
        seed: int = 0,
    ) -> Eigenvalue:
        r"""Largest eigenvalue, the sharpness, of H or of :math:`P^{-1} H`.

        Parameters
        ----------
        params : pytree of arrays
        *data
            Passed on to the loss.
        preconditioner : pytree of arrays > 0, optional
            Diagonal of P, with the shape of ``params``: see `adam_preconditioner`.
        tol : float, optional
            Relative error at which the iteration stops; by default :math:`10^{-6}` in float64 and
            :math:`3\cdot10^{-5}` in float32.
        most_products : int
            Bound on the number of products.
        seed : int
            Of the start vector.

        Returns
        -------
        Eigenvalue
            With a bound of its error. ``vector`` is flat, in the order of the leaves.

        Raises
        ------
        InvalidProblem
            Parameters that are not real floating arrays, a preconditioner that is not positive or
            has another shape, a product that is not finite or not symmetric.
        DiagnosticFailed
            Not converged within ``most_products``.
        """
        return self._extreme("LA", params, data, preconditioner, tol, most_products, seed)

    def smallest(
        self,
        params: Any,
        *data: Any,
        preconditioner: Any = None,
        tol: float | None = None,
        most_products: int = 1000,
        seed: int = 0,
    ) -> Eigenvalue:
        """Smallest (most negative) eigenvalue; all else as for `largest`."""
        return self._extreme("SA", params, data, preconditioner, tol, most_products, seed)

    def _extreme(
        self,
        which: str,
        params: Any,
        data: tuple[Any, ...],
        preconditioner: Any,
        tol: float | None,
        most_products: int,
        seed: int,
    ) -> Eigenvalue:
        with self._context():
            flat = _Flat(params, self.float64)
            product = self._flat_product(flat, data)
            root: Any = 1.0
            if preconditioner is not None:
                # P^-1 H has the eigenvalues of the symmetric P^-1/2 H P^-1/2.
                root = 1.0 / np.sqrt(flat.vector("preconditioner", preconditioner, positive=True))
            return extreme_eigenvalue(
                lambda v: root * product(root * v),
                flat.size,
                which=which,
                precision=flat.precision,
                tol=tol,
                most_products=most_products,
                seed=seed,
            )

    def trace(
        self, params: Any, *data: Any, samples: int = 64, seed: int = 0, deflate: int = 0
    ) -> TraceEstimate:
        """Trace of the Hessian by random signs, with its standard error.

        Parameters
        ----------
        params : pytree of arrays
        *data
            Passed on to the loss.
        samples : int
            Number of probes, at least 2.
        seed : int
            Of the probes.
        deflate : int
            Number of directions whose part of the trace is computed exactly, from a random sketch
            of the range (Hutch++: Meyer, Musco, Musco & Woodruff, 2021): few probes suffice where
            few eigenvalues make up the spectrum. Costs twice as many products and holds as many
            vectors.

        Returns
        -------
        TraceEstimate
            Unbiased, with or without ``deflate``.

        Raises
        ------
        InvalidProblem
            Fewer than 2 samples, more directions than parameters, a product that is not finite.
        """
        samples = whole("samples", samples, 2, MOST_SAMPLES)
        seed = whole("seed", seed, 0, 2**63)
        with self._context():
            flat = _Flat(params, self.float64)
            deflate = whole("deflate", deflate, 0, flat.size)
            product = self._flat_product(flat, data)
            rng = np.random.default_rng(seed)

            def signs() -> Floats:
                return rng.choice(np.array([-1.0, 1.0]), flat.size)

            exact, basis = 0.0, np.zeros((flat.size, 0))
            if deflate:
                sketch = np.column_stack([product(signs()) for _ in range(deflate)])
                basis = np.linalg.qr(sketch)[0]
                exact = float(sum(q @ product(q) for q in basis.T))
            values = np.empty(samples)
            for i in range(samples):
                z = signs()
                z -= basis @ (basis.T @ z)
                values[i] = z @ product(z)
        return TraceEstimate(
            value=exact + float(values.mean()),
            stderr=float(values.std(ddof=1)) / math.sqrt(samples),
            samples=samples,
            products=samples + 2 * deflate,
            size=flat.size,
        )

    def _data(self, data: tuple[Any, ...]) -> tuple[Any, ...]:
        if not self.float64:
            return data

        def wide(leaf: Any) -> Any:
            kind = getattr(leaf, "dtype", None)
            floating = kind is not None and jnp.issubdtype(kind, jnp.floating)
            return jnp.asarray(leaf, jnp.float64) if floating else leaf

        return jax.tree.map(wide, data)

    def _flat_product(self, flat: _Flat, data: tuple[Any, ...]) -> Callable[[Floats], Floats]:
        data = self._data(data)

        def product(v: Floats) -> Floats:
            image = flat.flatten(self._product(flat.params, flat.tree(v), *data))
            if not np.isfinite(image).all():
                allowed = "a loss with finite second derivatives at these parameters"
                raise InvalidProblem("loss", "a product with nan or inf", allowed)
            return image

        return product


class _Flat:
    """Parameters as one vector of float64, and back to the tree with its own dtypes."""

    def __init__(self, params: Any, float64: bool) -> None:
        leaves, self.structure = jax.tree.flatten(params)
        if not leaves:
            raise InvalidProblem("params", "no arrays", "a pytree of real floating arrays")
        arrays = []
        for leaf in leaves:
            kind = getattr(leaf, "dtype", np.asarray(leaf).dtype)
            if not jnp.issubdtype(kind, jnp.floating):
                allowed = "real floating arrays; leave others to the loss or to data"
                raise InvalidProblem("params", f"{kind} array", allowed)
            arrays.append(jnp.asarray(leaf, jnp.float64 if float64 else None))
        self.params = jax.tree.unflatten(self.structure, arrays)
        self.shapes = [array.shape for array in arrays]
        self.dtypes = [array.dtype for array in arrays]
        self.ends = np.cumsum([array.size for array in arrays])
        self.size = int(self.ends[-1])
        self.precision = max(float(jnp.finfo(kind).eps) for kind in self.dtypes)

    def tree(self, v: Floats) -> Any:
        parts = np.split(v, self.ends[:-1])
        leaves = [
            jnp.asarray(part.reshape(shape), kind)
            for part, shape, kind in zip(parts, self.shapes, self.dtypes, strict=True)
        ]
        return jax.tree.unflatten(self.structure, leaves)

    def flatten(self, tree: Any) -> Floats:
        leaves = jax.tree.leaves(tree)
        return np.concatenate([np.asarray(leaf, np.float64).ravel() for leaf in leaves])

    def vector(self, field: str, tree: Any, *, positive: bool = False) -> Floats:
        """A tree of the user's, with the structure of the parameters, as a vector."""
        leaves, structure = jax.tree.flatten(tree)
        shapes = [np.shape(leaf) for leaf in leaves]
        if structure != self.structure or shapes != self.shapes:
            raise InvalidProblem(field, f"shapes {shapes}", f"those of params, {self.shapes}")
        flat = self.flatten(tree)
        good = np.isfinite(flat) & ((flat > 0.0) | (not positive))
        if not good.all():
            allowed = "finite numbers > 0" if positive else "finite numbers"
            raise InvalidProblem(field, float(flat[~good][0]), allowed)
        return flat


def adam_preconditioner(
    second_moment: Any, step: int, *, beta2: float = 0.999, eps: float = 1e-8
) -> Any:
    r"""Diagonal :math:`\sqrt{v/(1-\beta_2^t)} + \epsilon` of Adam after t updates.

    Parameters
    ----------
    second_moment : pytree of arrays >= 0
        v: ``nu`` in optax's ``ScaleByAdamState``, ``exp_avg_sq`` in torch.
    step : int
        t >= 1, the number of updates that v has seen.
    beta2, eps : float
        As for the optimiser.

    Returns
    -------
    pytree of numpy.ndarray of float64
        For ``preconditioner=`` of `Hessian.largest`.

    Raises
    ------
    InvalidProblem
        A negative or infinite second moment, beta2 outside [0, 1), eps <= 0, step < 1.
    """
    step = whole("step", step, 1, MAX_HORIZON)
    if not is_number(beta2) or not 0.0 <= beta2 < 1.0:
        raise InvalidProblem("beta2", beta2, "a number >= 0 and < 1")
    if not is_number(eps) or not 0.0 < eps < math.inf:
        raise InvalidProblem("eps", eps, "a finite number > 0")
    correction = -math.expm1(step * math.log(beta2)) if beta2 > 0.0 else 1.0

    def diagonal(leaf: Any) -> Floats:
        v = np.asarray(leaf, np.float64)
        if not (np.isfinite(v) & (v >= 0.0)).all():
            raise InvalidProblem("second_moment", float(v.min()), "finite numbers >= 0")
        return (np.sqrt(v / correction) + eps).astype(np.float64)

    return jax.tree.map(diagonal, second_moment)
