"""Checked eigendecompositions of features, kernels and spectra."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from optsched.arrays import Floats
from optsched.checks import is_number, real_array
from optsched.errors import InvalidProblem
from optsched.measure.exponent_fits import Sample

__all__ = [
    "LEAST_MODES",
    "LEAST_SAMPLES",
    "sample_of_features",
    "sample_of_kernel",
    "sample_of_spectrum",
]


LEAST_SAMPLES, LEAST_MODES = 40, 20
FULL = 0.95  # a rank below this share of n leaves directions of pure noise
SQUARED = 1e-12  # eigenvalues of a product are right down to this share of the first


def _matrix(field: str, values: ArrayLike) -> tuple[Floats, float]:
    """A matrix in float64, and the relative rounding error of its type."""
    given = real_array(field, values)
    if given.ndim != 2:
        raise InvalidProblem(field, f"shape {given.shape}", "a matrix, a row a sample")
    if given.shape[0] < LEAST_SAMPLES:
        allowed = f"{LEAST_SAMPLES} samples (rows) or more"
        raise InvalidProblem(field, f"shape {given.shape}", allowed)
    eps = float(np.finfo(given.dtype).eps) if given.dtype.kind == "f" else 2.3e-16
    matrix = given.astype(np.float64)
    bad = np.argwhere(~np.isfinite(matrix))
    if len(bad):
        row, column = (int(i) for i in bad[0])
        where = f"finite numbers (row {row}, column {column})"
        raise InvalidProblem(field, float(matrix[row, column]), where)
    return matrix, eps


def _targets(values: ArrayLike, samples: int, center: bool) -> Floats:
    given = real_array("targets", values)
    if given.ndim not in (1, 2) or given.shape[0] != samples or given.size == 0:
        allowed = f"({samples},) or ({samples}, C): a row for each sample"
        raise InvalidProblem("targets", f"shape {given.shape}", allowed)
    y = given.astype(np.float64).reshape(samples, -1)
    bad = ~np.isfinite(y).all(1)
    if bad.any():
        row = int(np.argmax(bad))
        raise InvalidProblem("targets", y[row].tolist(), f"finite numbers (row {row})")
    if center:
        y = y - y.mean(0)
    if not np.any(y != y[0]) and (center or not np.any(y)):
        raise InvalidProblem("targets", float(y[0, 0]), "numbers that are not all the same")
    largest = float(np.abs(y).max())
    if not 1e-100 < largest < 1e100:
        raise InvalidProblem("targets", largest, "a largest entry from 1e-100 to 1e100 in size")
    return y


def _resolved(lam: Floats, cut: float, field: str) -> int:
    """Number of eigenvalues above the rounding errors; an error if they are too few."""
    rank = int(np.sum(lam > cut * max(lam[0], 0.0)))
    if lam[0] <= 0.0 or rank < LEAST_MODES:
        allowed = f"{LEAST_MODES} or more eigenvalues above {cut:.1g} times the largest"
        raise InvalidProblem(field, f"rank {rank}", allowed)
    return rank


def _assemble(lam: Floats, vectors: Floats, y: Floats, features: float) -> Sample:
    n = len(y)
    energy = ((vectors.T @ y) ** 2).sum(1) / n
    rest = math.nan
    if len(lam) < FULL * n:
        rest = float(((y - vectors @ (vectors.T @ y)) ** 2).sum()) / n
    return Sample(lam, energy, float(n), features, y.shape[1], rest, vectors, y)


def sample_of_features(features: ArrayLike, targets: ArrayLike, center: bool) -> Sample:
    """Eigendecomposition of the sample covariance of features."""
    matrix, eps = _matrix("features", features)
    n, p = matrix.shape
    y = _targets(targets, n, center)
    if center:
        matrix = matrix - matrix.mean(0)
    largest = float(np.abs(matrix).max())
    if not 1e-100 < largest < 1e100:
        raise InvalidProblem("features", largest, "a largest entry from 1e-100 to 1e100 in size")
    lam, vectors, cut = _decompose(matrix)
    # Rounded entries are noise of relative size eps: its eigenvalues end the spectrum.
    rank = _resolved(lam, max(4.0 * eps**2 * max(n, p), cut), "features")
    size = rank if rank < FULL * min(n, p) else p
    return _assemble(lam[:rank], vectors[:, :rank], y, float(size))


def _decompose(matrix: Floats) -> tuple[Floats, Floats, float]:
    """Eigenvalues of the sample covariance, eigenvectors in sample space, rounding.

    The last is the least share of the first eigenvalue at which eigenvalues are still right.
    """
    n, p = matrix.shape
    half = min(n, p) // 2
    if p <= n:
        lam, basis = np.linalg.eigh(matrix.T @ matrix / n)
        lam, basis = lam[::-1], basis[:, ::-1]
        if lam[half] > SQUARED * lam[0]:
            seen = lam > SQUARED * lam[0]
            lam = lam[seen]
            return lam, matrix @ basis[:, seen] / np.sqrt(n * lam), SQUARED
    else:
        lam, vectors = np.linalg.eigh(matrix @ matrix.T / n)
        lam, vectors = lam[::-1], vectors[:, ::-1]
        if lam[half] > SQUARED * lam[0]:
            return lam, vectors, SQUARED
    # A steep spectrum: singular values are right to the square of what eigenvalues are.
    vectors, singular, _ = np.linalg.svd(matrix, full_matrices=False)
    return singular**2 / n, vectors, 1e-25


def sample_of_kernel(
    kernel: ArrayLike, targets: ArrayLike, features: float | None, center: bool
) -> Sample:
    """Eigendecomposition of a kernel matrix over n."""
    matrix, eps = _matrix("kernel", kernel)
    n = len(matrix)
    if matrix.shape != (n, n):
        raise InvalidProblem("kernel", f"shape {matrix.shape}", "a square matrix")
    y = _targets(targets, n, center)
    largest = float(np.abs(matrix).max())
    if not 1e-200 < largest < 1e200:
        raise InvalidProblem("kernel", largest, "a largest entry from 1e-200 to 1e200 in size")
    gap = np.abs(matrix - matrix.T)
    if gap.max() > 1e3 * eps * largest:
        i, j = np.unravel_index(int(gap.argmax()), gap.shape)
        pair = (float(matrix[i, j]), float(matrix[j, i]))
        raise InvalidProblem("kernel", pair, f"a symmetric matrix (entries {i},{j} and {j},{i})")
    matrix = 0.5 * (matrix + matrix.T)
    if center:
        matrix = matrix - matrix.mean(0) - matrix.mean(1)[:, None] + matrix.mean()
    lam, vectors = np.linalg.eigh(matrix / n)
    lam, vectors = lam[::-1], vectors[:, ::-1]
    cut = 10.0 * n * eps
    if lam[-1] < -cut * abs(lam[0]):
        raise InvalidProblem("kernel", float(lam[-1] * n), "a matrix with no negative eigenvalue")
    rank = _resolved(lam, cut, "kernel")
    if features is None:
        features = float(rank) if rank < FULL * n else math.inf
    elif not (is_number(features) and features >= rank):
        raise InvalidProblem("features", features, f"a number >= {rank}, the rank of the kernel")
    return _assemble(lam[:rank], vectors[:, :rank], y, float(features))


def sample_of_spectrum(
    eigenvalues: ArrayLike, target: ArrayLike, samples: float | None, features: float | None
) -> Sample:
    """A spectrum that is measured already."""
    lam = real_array("eigenvalues", eigenvalues).astype(float)
    w = real_array("target", target).astype(float)
    if lam.ndim != 1 or len(lam) < LEAST_MODES:
        allowed = f"a vector of {LEAST_MODES} numbers or more"
        raise InvalidProblem("eigenvalues", f"shape {lam.shape}", allowed)
    bad = ~(np.isfinite(lam) & (lam > 0.0))
    if bad.any():
        at = int(np.argmax(bad))
        raise InvalidProblem("eigenvalues", float(lam[at]), f"finite numbers > 0 (entry {at})")
    if w.shape != lam.shape:
        raise InvalidProblem("target", f"shape {w.shape}", f"shape {lam.shape}, as eigenvalues")
    if not np.isfinite(w).all() or not np.any(w):
        raise InvalidProblem("target", w[:3].tolist(), "finite numbers, not all 0")
    for field, value, least in (
        ("samples", samples, LEAST_SAMPLES),
        ("features", features, len(lam)),
    ):
        if value is not None and not (is_number(value) and value >= least):
            raise InvalidProblem(field, value, f"a number >= {least}")
    order = np.argsort(-lam, kind="stable")
    lam, energy = lam[order], (lam * w**2)[order]
    n = math.inf if samples is None else float(samples)
    return Sample(lam, energy, n, float(len(lam) if features is None else features))
