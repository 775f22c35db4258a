"""Sampling errors of fitted exponents by the infinitesimal jackknife: no refits.

The derivative of an exponent by the weight of one sample follows from first-order perturbation
theory of the eigendecomposition; the variance is the sum of its squares over samples, over n^2
(Efron, Biometrika 68, 1981). The ordinary bootstrap would not do: it repeats samples, which lowers
their effective number and moves the very eigenvalues that are measured.
"""

from __future__ import annotations

import numpy as np

from optsched.arrays import Floats
from optsched.measure.exponent_fits import EigenvalueFit, Sample, TargetFit

__all__ = ["eigenvalue_influence", "target_influence"]


BEYOND = 2.0  # modes up to this many times the window take part in the mixing


def eigenvalue_influence(sample: Sample, fit: EigenvalueFit) -> Floats:
    r"""Influence of every sample on b: :math:`\sum_k h_k (n v_{ki}^2 - 1)`, shape (n,)."""
    assert sample.vectors is not None
    last = len(fit.weights)
    return (sample.samples * sample.vectors[:, :last] ** 2 - 1.0) @ fit.weights


def target_influence(sample: Sample, fit: TargetFit) -> Floats:
    r"""Influence of every sample on a, shape (n,).

    With :math:`\hat h = \Phi^T y/n`, the sum :math:`\sum_k f_k \hat c_k^2` is the quadratic form
    :math:`\hat h^T F(S) \hat h`, :math:`F = f/\lambda`, of the sample covariance S. Its derivative
    takes that of h, the shift of eigenvalues, and the turn of eigenvectors, by the divided
    differences of F (Daleckii & Krein, 1965).
    """
    assert sample.vectors is not None and sample.targets is not None
    n, last = sample.samples, len(fit.weights)
    used = min(len(sample.lam), int(BEYOND * last))
    vectors, lam = sample.vectors[:, :used], sample.lam[:used]
    weight = np.zeros(used)
    weight[:last] = fit.weights
    ratio = weight / lam
    gap = lam[:, None] - lam
    np.fill_diagonal(gap, 1.0)
    gap[gap == 0.0] = np.inf  # equal eigenvalues share a weight, or nearly so
    turn = (ratio[:, None] - ratio) / gap
    np.fill_diagonal(turn, -weight / lam**2)
    influence = np.zeros(len(vectors))
    for y in sample.targets.T:
        h = np.sqrt(lam / n) * (vectors.T @ y)
        projected = np.sqrt(lam) * h
        pull = 2.0 * np.sqrt(n) * (vectors @ (np.sqrt(lam) * ratio * h)) * y
        influence += pull - 2.0 * (ratio @ h**2)
        matrix = n * projected[:, None] * turn * projected
        influence += ((vectors @ matrix) * vectors).sum(1) - np.trace(matrix) / n
        if fit.rest_weight:
            outside = y - sample.vectors @ (sample.vectors.T @ y)
            influence += fit.rest_weight * (outside**2 - float(outside @ outside) / n)
    return influence
