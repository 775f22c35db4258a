r"""Fits of power laws to the eigenvalues and the target coefficients of a sample.

Eigenvalues: least squares of :math:`\log \hat\lambda_k - g_k(b)` on log k, where g is what the
sample does to a power law of exponent b (`optsched.measure.sample_spectrum`), to a fixed point.
Target: the energies :math:`\hat c_k^2 = (v_k \cdot y)^2 / n` of the targets in the sample's modes
have the means

.. math:: m_k = \sum_j O_{kj} A j^{-a} + \sigma^2 / n ,

with the overlaps O; A, a and sigma solve quasi-score equations, which are unbiased whatever the
weights. The weights are those of a noncentral chi-square, plus a scatter of the coefficients about
the law, tau, that is estimated as in a random-effects meta-analysis (DerSimonian & Laird, 1986).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaln

from optsched.arrays import Floats
from optsched.measure.sample_spectrum import (
    Population,
    Rows,
    mode_rows,
    overlaps,
    power_law_nodes,
    quantiles,
)

__all__ = ["EigenvalueFit", "Sample", "TargetFit", "fit_eigenvalues", "fit_target"]


LEAST_B, MOST_B = 0.05, 30.0
LEAST_A, MOST_A = 0.05, 15.0
MOST_SCATTER = 5.0  # variance of an energy over its squared mean; 2 for Gaussian coefficients
FEW = 8.0  # effective rows; with fewer the error of a comes from its likelihood as well
PROFILE = (0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)  # distances in a
LEAST_NOISE = 1e-12  # sigma^2 over the mean square of the targets, where no noise is seen


class Sample(NamedTuple):
    r"""Eigendecomposition of a sample.

    Attributes
    ----------
    lam : numpy.ndarray, shape (r,)
        Sample eigenvalues, falling, all above the rounding errors.
    energy : numpy.ndarray, shape (r,)
        Energies of the targets in the modes, :math:`(v_k \cdot y)^2/n`, summed over targets.
    samples, size : float
        Number of samples n (inf: the spectrum is that of the population) and of features p.
    columns : int
        Number of targets of a sample.
    rest : float
        Energy of the targets outside of all features; NaN if the features fill the sample.
    vectors, targets : numpy.ndarray or None
        Unit eigenvectors in sample space, shape (n, r), and targets, shape (n, columns).
    """

    lam: Floats
    energy: Floats
    samples: float
    size: float
    columns: int = 1
    rest: float = math.nan
    vectors: Floats | None = None
    targets: Floats | None = None


class EigenvalueFit(NamedTuple):
    """Fitted eigenvalues: scale * k^-b from mode ``first`` to ``last``.

    Attributes
    ----------
    b, scale : float
    pop : Population
        The fitted population; modes before the window as measured.
    rows : Rows
    u : numpy.ndarray
        Complex positions of the rows' ranks.
    bias : numpy.ndarray, shape (last,)
        log of sample eigenvalue over population eigenvalue, for all modes up to ``last``.
    weights : numpy.ndarray, shape (last,)
        Derivative of b by the logarithm of each sample eigenvalue; 0 before the window.
    scatter : float
        Variance of log eigenvalues about the law, beyond that of the sample.
    """

    b: float
    scale: float
    pop: Population
    rows: Rows
    u: NDArray[np.complex128]
    bias: Floats
    weights: Floats
    scatter: float


def fit_eigenvalues(sample: Sample, first: int, last: int) -> EigenvalueFit:
    """Fit the exponent b over the modes ``first`` to ``last``.

    Parameters
    ----------
    sample : Sample
    first, last : int
        The window, both included, counted from 1.
    """
    rows = mode_rows(first, last)
    index, count = power_law_nodes(sample.size, last)
    ranks = np.arange(1.0, last + 1.0)
    log_k = np.log(ranks[first - 1 :])
    line = np.column_stack([np.ones_like(log_k), -log_k])
    solve = np.linalg.pinv(line)
    logs = np.log(sample.lam[:last])

    def at(b: float, scale: float) -> tuple[Population, NDArray[np.complex128], Floats]:
        lam = scale * index**-b
        lam[: first - 1] = sample.lam[: first - 1]
        pop = Population(index, count, lam)
        u, x = quantiles(pop, sample.samples, rows.rank)
        shift = np.log(x) - math.log(scale) + b * np.log(rows.rank)
        bias = np.interp(np.log(ranks), np.log(rows.rank), shift)
        bias[: first - 1] = 0.0
        return pop, u, bias

    def regress(bias: Floats) -> tuple[float, float]:
        level, b = solve @ (logs - bias)[first - 1 :]
        return float(np.clip(b, LEAST_B, MOST_B)), math.exp(level)

    b, scale = regress(np.zeros(last))
    step = 0.02
    moved = at(b + step, scale)[2] - at(b, scale)[2]
    gain = 1.0 / max(1.0 + float(solve[1] @ moved[first - 1 :]) / step, 0.2)
    for _ in range(8):
        pop, u, bias = at(b, scale)
        wanted, scale = regress(bias)
        change = gain * (wanted - b)
        b = float(np.clip(b + change, LEAST_B, MOST_B))
        if abs(change) < 1e-4:
            break
    else:
        pop, u, bias = at(b, scale)
    weights = np.zeros(last)
    weights[first - 1 :] = gain * solve[1]
    rest = (logs - bias)[first - 1 :] - math.log(scale) + b * log_k
    own = 0.0 if math.isinf(sample.samples) else 2.0 / sample.samples
    scatter = max(0.0, float(rest @ rest) / max(len(rest) - 2, 1) - own)
    return EigenvalueFit(b, scale, pop, rows, u, bias, weights, scatter)


class TargetFit(NamedTuple):
    """Fitted energies of the target: scale * k^-a, and noise.

    Attributes
    ----------
    a, scale, noise : float
        Exponent, amplitude and variance of the noise, all targets of a sample together.
    means, signal : numpy.ndarray, shape (last,)
        Expected energies of the sample's modes, and the part that is their own.
    weights : numpy.ndarray, shape (last,)
        Derivative of a by the energy of each sample mode.
    rest_weight : float
        The same for the energy outside of all features.
    stderr, noise_stderr : float
        Standard errors by the weights alone, as if rows were independent; that of a by its
        likelihood where it rests on few rows.
    scatter, scatter_stderr : float
        tau, and its share in the standard error of a.
    effective : float
        Number of rows that a rests on.
    quadratic : float
        Share of the variance of a that is of second order in the samples: noise times noise.
    """

    a: float
    scale: float
    noise: float
    means: Floats
    signal: Floats
    weights: Floats
    rest_weight: float
    stderr: float
    noise_stderr: float
    scatter: float
    scatter_stderr: float
    effective: float
    quadratic: float


class _Model:
    """Means and variances of the rows' energies, and their derivatives."""

    def __init__(self, sample: Sample, lam: EigenvalueFit) -> None:
        self.n, self.columns = sample.samples, sample.columns
        self.noisy = math.isfinite(self.n)
        self.rows, self.pop, self.first = lam.rows, lam.pop, int(lam.rows.start[0])
        self.share = overlaps(lam.u, lam.pop, self.n)
        self.log_k = np.log(lam.pop.at)
        self.observed = self.rows.sums(sample.energy)
        self.total = float(sample.energy.sum()) + (0.0 if math.isnan(sample.rest) else sample.rest)
        self.floor = LEAST_NOISE * self.total
        nearest = np.abs(self.log_k - np.log(self.rows.rank)[:, None]).argmin(1)
        self.own = self.share[np.arange(len(nearest)), nearest]
        # Directions of the sample that no feature reaches: pure noise.
        self.null = self.n - len(sample.lam) if self.noisy and math.isfinite(sample.rest) else 0.0
        if self.null:
            self.observed = np.append(self.observed, sample.rest)
        guess = self._first_noise(sample)
        self.head = np.maximum(sample.energy[: self.first - 1] - guess / self.n, 0.0)
        self.guess = guess

    def _first_noise(self, sample: Sample) -> float:
        if not self.noisy:
            return 0.0
        if self.null:
            return max(sample.rest * self.n / self.null, self.floor)
        late = self.rows.start > self.rows.start[-1] // 2
        mean = self.observed[: len(late)][late].sum() / self.rows.size[late].sum()
        return max(0.5 * self.n * float(mean), self.floor)

    def energies(self, log_scale: float, a: float) -> Floats:
        mu = np.exp(log_scale - a * self.log_k)
        mu[: self.first - 1] = self.head
        return mu * self.pop.number

    def __call__(self, theta: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Means, their derivatives by (log A, a, log sigma^2), variances, and scatter.

        Of the variances, ``self.second`` is the part that is quadratic in noise and mixing;
        ``self.unmixed`` is the scatter if every mode were apart: mixing shares the scatter of a
        mode out among neighbours, no longer independent, and a smooth sum is as before.
        """
        size, mu = self.rows.size, self.energies(theta[0], theta[1])
        parts = self.share * mu
        fitted = parts[:, self.first - 1 :]
        noise = math.exp(theta[2]) / self.n if self.noisy else 0.0
        mean = parts.sum(1) + noise
        slopes = np.column_stack(
            [fitted.sum(1), -(fitted @ self.log_k[self.first - 1 :]), np.full(len(size), noise)]
        )
        law = np.exp(theta[0] - theta[1] * np.log(self.rows.rank))
        fixed = np.minimum(np.minimum(self.own * law, law), mean)
        free = mean - fixed
        second = size * 2.0 * free**2 / self.columns
        variance = (4.0 * fixed * free + 2.0 * free**2) / self.columns
        if self.noisy:
            variance = variance + 2.0 * fixed**2 / self.n
        mixed = parts.sum(1) ** 2 / np.maximum((parts**2 / self.pop.number).sum(1), 1e-300)
        scatter = (size * parts.sum(1)) ** 2 / np.maximum(size, mixed)
        unmixed = size * parts.sum(1) ** 2
        mean, slopes, variance = size * mean, size[:, None] * slopes, size * variance
        if self.null:
            rest = math.exp(theta[2]) * self.null / self.n
            mean, scatter = np.append(mean, rest), np.append(scatter, 0.0)
            slopes = np.vstack([slopes, [0.0, 0.0, rest]])
            variance = np.append(variance, 2.0 * rest**2 / (self.null * self.columns))
            second = np.append(second, 0.0)  # a mean over samples
            unmixed = np.append(unmixed, 0.0)
        self.second, self.unmixed = second, unmixed
        return mean, slopes, variance, scatter

    def start(self) -> Floats:
        """The best of several exponents by the deviance of a gamma law, amplitude by moments."""
        best, chosen = math.inf, np.zeros(3)
        size = np.append(self.rows.size, self.null) if self.null else self.rows.size
        for a in np.concatenate([np.linspace(0.6, 4.0, 18), [5.0, 6.5, 9.0]]):
            for share in (1.0, 0.3, 0.0):
                noise = max(share * self.guess, self.floor)
                theta = np.array([0.0, a, math.log(noise) if self.noisy else 0.0])
                for _ in range(4):
                    mean, slopes, _, _ = self(theta)
                    weight = size / mean**2
                    own = weight * slopes[:, 0]
                    theta[0] += np.clip(own @ (self.observed - mean) / (own @ slopes[:, 0]), -4, 4)
                ratio = np.maximum(self.observed, 1e-300) / self(theta)[0]
                deviance = float(np.minimum(size, 4.0) @ (ratio - 1.0 - np.log(ratio)))
                if deviance < best:
                    best, chosen = deviance, theta
        return chosen


def _iterate(model: _Model) -> tuple[Floats, Floats, float]:
    """Quasi-score equations by scoring; parameters, weights of the rows, scatter."""
    theta, tau = model.start(), 1.0
    bounds = (
        np.array([-math.inf, LEAST_A, math.log(model.floor) if model.noisy else 0.0]),
        np.array([math.inf, MOST_A, math.inf if model.noisy else 0.0]),
    )
    weight = np.zeros(0)
    for turn in range(100):
        mean, slopes, variance, scatter = model(theta)
        weight = 1.0 / np.maximum(variance + tau * scatter, 1e-300)
        off = model.observed - mean
        step = np.linalg.solve(_information(slopes, weight), slopes.T @ (weight * off))
        new = np.clip(theta + np.clip(step, -0.4, 0.4), *bounds)
        relative = scatter * weight
        moment = relative @ ((off**2 - variance) * weight) / max(relative @ relative, 1e-300)
        target = float(np.clip(moment, 0.0, MOST_SCATTER))
        moved = np.abs(new - theta).max() + abs(target - tau)
        theta, tau = new, 0.5 * (tau + target)
        if turn > 10 and moved < 1e-5:
            break
    return theta, weight, tau


def _information(slopes: Floats, weight: Floats) -> Floats:
    """Information matrix; what the data do not show at all is held."""
    matrix = slopes.T @ (weight[:, None] * slopes)
    return matrix + 1e-9 * np.eye(3)


def _log_likelihood(model: _Model, theta: Floats, tau: float) -> float:
    """Gamma laws with the rows' means and variances: exact where all is noise."""
    mean, _, variance, scatter = model(theta)
    spread = np.maximum(variance + tau * scatter, 1e-12 * mean**2)
    shape, scale = mean**2 / spread, spread / mean
    seen = np.maximum(model.observed, 1e-300)
    return float(
        ((shape - 1.0) * np.log(seen) - seen / scale - gammaln(shape) - shape * np.log(scale)).sum()
    )


def _profile_error(model: _Model, theta: Floats, tau: float) -> float:
    """How far a can go, either way, before the log likelihood has fallen by a half."""
    best = _log_likelihood(model, theta, tau)
    farthest = 0.0
    for sign in (1.0, -1.0):
        held, low, fall = theta.copy(), 0.0, 0.0
        for distance in PROFILE:
            held[1] = np.clip(theta[1] + sign * distance, LEAST_A, MOST_A)
            for _ in range(12):
                mean, slopes, variance, scatter = model(held)
                weight = 1.0 / np.maximum(variance + tau * scatter, 1e-300)
                free = slopes[:, [0, 2]]
                matrix = free.T @ (weight[:, None] * free) + 1e-9 * np.eye(2)
                step = np.linalg.solve(matrix, free.T @ (weight * (model.observed - mean)))
                held[[0, 2]] += np.clip(step, -0.5, 0.5)
                held[2] = max(held[2], math.log(model.floor) if model.noisy else 0.0)
            fallen = best - _log_likelihood(model, held, tau)
            if fallen >= 0.5:
                share = (0.5 - fall) / max(fallen - fall, 1e-12)
                farthest = max(farthest, low + share * (distance - low))
                break
            low, fall = distance, fallen
        else:
            farthest = max(farthest, PROFILE[-1])
    return farthest


def fit_target(sample: Sample, lam: EigenvalueFit) -> TargetFit:
    """Fit the exponent a over the window of ``lam``."""
    total = float(sample.energy.sum())
    model = _Model(sample._replace(energy=sample.energy / total, rest=sample.rest / total), lam)
    theta, weight, tau = _iterate(model)
    mean, slopes, variance, scatter = model(theta)
    covariance = np.linalg.inv(_information(slopes, weight))
    by_row = (weight[:, None] * slopes) @ covariance[:, 1]
    parts = by_row**2 * (variance + tau * scatter)
    effective = float(parts.sum() ** 2 / max(float(parts @ parts), 1e-300))
    quadratic = float(by_row**2 @ model.second / max(float(by_row**2 @ variance), 1e-300))
    scatter_error = math.sqrt(tau * float(by_row**2 @ model.unmixed))
    error = math.sqrt(covariance[1, 1])
    if effective < FEW:
        error = max(error, _profile_error(model, theta, tau))
    rows, last = lam.rows, int(lam.rows.stop[-1]) - 1
    ranks = np.log(np.arange(1.0, last + 1.0))
    weights = np.interp(ranks, np.log(rows.rank), by_row[: len(rows.rank)])
    weights[: model.first - 1] = 0.0
    weights /= total
    per_mode = mean[: len(rows.rank)] / rows.size
    noise = total * math.exp(theta[2]) if model.noisy else 0.0
    return TargetFit(
        a=float(theta[1]),
        scale=total * math.exp(theta[0]),
        noise=noise,
        means=total * np.exp(np.interp(ranks, np.log(rows.rank), np.log(per_mode))),
        signal=total * np.exp(theta[0] - theta[1] * ranks),
        weights=weights,
        rest_weight=float(by_row[-1]) / total if model.null else 0.0,
        stderr=error,
        noise_stderr=noise * math.sqrt(covariance[2, 2]) if model.noisy else 0.0,
        scatter=tau,
        scatter_stderr=scatter_error,
        effective=effective,
        quadratic=quadratic,
    )
