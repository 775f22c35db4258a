r"""An extreme eigenvalue of a symmetric operator by ARPACK, with a bound of its error.

ARPACK is the implicitly restarted Lanczos iteration (Lehoucq, Sorensen & Yang, "ARPACK users'
guide", 1998), here through `scipy.sparse.linalg.eigsh`. For a symmetric A, a unit vector v and a
number :math:`\theta`, some eigenvalue is within :math:`\|A v - \theta v\|` of :math:`\theta`
(Parlett, "The symmetric eigenvalue problem", theorem 4.5.1). That it is the extreme one rests on
the random start, as for every method that knows products only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optsched.arrays import Brief, Floats
from optsched.checks import is_number, real_array, whole
from optsched.errors import InvalidProblem, OptschedError

__all__ = ["DiagnosticFailed", "Eigenvalue", "extreme_eigenvalue", "matrix_eigenvalue"]


SKEW = 1e3  # in units of the rounding of a product: more asymmetry than this is no rounding
DENSE = 8  # up to this size the matrix is formed


class DiagnosticFailed(OptschedError, RuntimeError):
    """A measurement did not converge; the message says what was reached and what to try."""


@dataclass(frozen=True, eq=False, repr=False)
class Eigenvalue(Brief):
    """An extreme eigenvalue.

    Attributes
    ----------
    value : float
        Rayleigh quotient of ``vector``.
    error : float
        Bound of the distance to an eigenvalue: norm of the residual, plus what rounding does to a
        product in the precision that was used.
    residual : float
        Norm of the residual alone.
    products : int
        Number of products with the operator.
    size : int
        Size of the operator.
    vector : numpy.ndarray of float64, shape (size,)
        Unit eigenvector.
    """

    value: float
    error: float
    residual: float
    products: int
    size: int
    vector: Floats = field(repr=False)


def extreme_eigenvalue(
    product: Callable[[Floats], Any],
    size: int,
    *,
    which: str = "LA",
    precision: float = float(np.finfo(np.float64).eps),
    tol: float | None = None,
    most_products: int = 1000,
    seed: int = 0,
) -> Eigenvalue:
    r"""Largest or smallest eigenvalue of a symmetric operator.

    Parameters
    ----------
    product : callable
        The operator: takes and returns an array of float64 of shape (size,).
    size : int
    which : {"LA", "SA"}
        Largest or smallest, by value.
    precision : float
        Relative rounding error of the products: the machine epsilon they are computed in.
    tol : float, optional
        Relative error at which the iteration stops; by default :math:`10^{-6}`, or 250 times the
        precision if that is more.
    most_products : int
        Bound on the number of products.
    seed : int
        Of the start vector.

    Returns
    -------
    Eigenvalue

    Raises
    ------
    InvalidProblem
        An operator that is not symmetric (its eigenvalues may be complex) or not finite.
    DiagnosticFailed
        Not converged within ``most_products``.
    """
    from scipy.sparse.linalg import ArpackError, ArpackNoConvergence, eigsh

    if which not in ("LA", "SA"):
        raise InvalidProblem("which", which, "LA or SA")
    size = whole("size", size, 1, 2**62)
    most_products = whole("most_products", most_products, 10, 10**9)
    if tol is not None and not (is_number(tol) and 0.0 < tol < 1.0):
        raise InvalidProblem("tol", tol, "a number > 0 and < 1")
    stop = max(1e-6, 250.0 * precision) if tol is None else float(tol)
    counted = _Counted(product, size, most_products)
    rng = np.random.default_rng(whole("seed", seed, 0, 2**63))
    scale = _check_symmetric(counted, rng, precision)
    if size <= DENSE:
        _, vectors = np.linalg.eigh(_dense(counted))
        vector = vectors[:, -1 if which == "LA" else 0]
    elif scale == 0.0:
        vector = np.eye(1, size)[0]
    else:
        # The low end may be near 0; a shift makes the stop relative to the size of the operator.
        shift = 0.0 if which == "LA" else scale
        operator = _shifted(counted, shift)
        start = rng.standard_normal(size)
        ncv = min(size, 20)
        try:
            # ARPACK's bound is on restarts; the count of products is bounded by `counted`.
            options: dict[str, Any] = {"ncv": ncv, "tol": stop, "maxiter": most_products}
            _, found = eigsh(operator, 1, which=which, v0=start, **options)
        except ArpackNoConvergence:
            raise _unfinished(most_products, stop) from None
        except ArpackError as error:
            raise DiagnosticFailed(f"ARPACK: {error}") from None
        vector = found[:, 0]
    vector = vector / np.linalg.norm(vector)
    image = counted(vector, last=True)
    value = float(vector @ image)
    residual = float(np.linalg.norm(image - value * vector))
    # Errors of a product are of the order of the precision times the norm of the operator.
    rounding = 10.0 * precision * max(scale, abs(value))
    return Eigenvalue(value, residual + rounding, residual, counted.count, size, vector)


def matrix_eigenvalue(matrix: Any, *, which: str = "LA", **options: Any) -> Eigenvalue:
    """Extreme eigenvalue of a symmetric matrix, dense or sparse; see `extreme_eigenvalue`.

    Raises
    ------
    InvalidProblem
        A matrix that is not square, not real, not finite or not symmetric.
    """
    if not hasattr(matrix, "tocsr"):
        matrix = real_array("matrix", matrix)
    elif matrix.dtype.kind not in "iuf":
        raise InvalidProblem("matrix", f"{matrix.dtype} array", "an array of numbers")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not matrix.shape[0]:
        raise InvalidProblem("matrix", f"shape {matrix.shape}", "shape (n, n), n >= 1")
    precision = np.finfo(matrix.dtype).eps if matrix.dtype.kind == "f" else np.finfo(float).eps
    options = {"precision": float(precision), **options}
    return extreme_eigenvalue(lambda v: matrix @ v, matrix.shape[0], which=which, **options)


class _Counted:
    """An operator that counts its products, and stops at too many."""

    def __init__(self, product: Callable[[Floats], Any], size: int, most: int) -> None:
        self.product, self.size, self.most, self.count = product, size, most, 0

    def __call__(self, v: Floats, *, last: bool = False) -> Floats:
        if self.count >= self.most and not last:
            raise _unfinished(self.most)
        self.count += 1
        image = np.asarray(self.product(np.asarray(v, np.float64).ravel()), np.float64).ravel()
        if image.shape != (self.size,):
            raise InvalidProblem("product", f"shape {image.shape}", f"shape ({self.size},)")
        if not np.isfinite(image).all():
            raise InvalidProblem("product", "nan or inf", "an operator with finite products")
        return image


def _shifted(product: _Counted, shift: float) -> Any:
    from scipy.sparse.linalg import LinearOperator

    make: Any = LinearOperator  # its annotations lack the keywords
    return make(
        (product.size, product.size),
        matvec=lambda v: product(v) - shift * v.ravel(),
        dtype=np.float64,
    )


def _check_symmetric(product: _Counted, rng: np.random.Generator, precision: float) -> float:
    """Refuse an operator with u.Av != v.Au; return an estimate of its Frobenius norm."""
    u, v = (rng.standard_normal(product.size) for _ in range(2))
    au, av = product(u), product(v)
    scale = max(float(np.linalg.norm(au)), float(np.linalg.norm(av)))
    # For random u and v of the order of the Frobenius norm of A - A^T.
    skew = abs(float(u @ av) - float(v @ au))
    if skew > SKEW * precision * scale:
        allowed = "a symmetric one: others may have complex eigenvalues (pass P of P^-1 H apart)"
        value = f"u.Av - v.Au = {skew / scale:.1e} of |Av| for random u, v"
        raise InvalidProblem("operator", value, allowed)
    return scale


def _dense(product: _Counted) -> Floats:
    matrix = np.column_stack([product(e) for e in np.eye(product.size)])
    return 0.5 * (matrix + matrix.T)


def _unfinished(most: int, tol: float | None = None) -> DiagnosticFailed:
    asked = "" if tol is None else f" to {tol:g}"
    return DiagnosticFailed(
        f"the eigenvalue did not converge{asked} in {most} products: raise most_products, or tol"
    )
