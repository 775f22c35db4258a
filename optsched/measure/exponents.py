r"""Measured exponents (a, b): from features, a kernel or a spectrum to a problem to solve.

The model of optsched has covariance eigenvalues :math:`\lambda_k \sim k^{-b}` and target energies
:math:`\lambda_k w_k^2 \sim k^{-a}` (Bordelon & Mori, arXiv 2602.04774). This module estimates both
exponents from n samples of real features and targets. Three things would bias a plain fit of a
straight line, and are corrected: sample eigenvalues are displaced by a relative k/n; modes of the
sample mix those of the population; and every coefficient carries the noise of the labels and of the
modes that are not resolved. See `optsched.measure.sample_spectrum` and
`optsched.measure.exponent_fits`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import zeta

from optsched.arrays import Brief, Floats
from optsched.checks import is_number
from optsched.control.problem import Problem
from optsched.errors import InvalidProblem
from optsched.measure.exponent_fits import LEAST_A, MOST_A, Sample
from optsched.measure.sample_checks import (
    LEAST_MODES,
    sample_of_features,
    sample_of_kernel,
    sample_of_spectrum,
)
from optsched.measure.window_fits import WindowFit, fit_windows
from optsched.model.spectrum import TabulatedSpectrum

__all__ = ["MeasuredSpectrum", "measure_features", "measure_kernel", "measure_spectrum"]


KINDS = ("measured", "power-law")
TOP_SHARE, TOP_RANK = 4, 2  # a window ends at n/4 and p/2 at the latest
LARGEST_TOP = 1000
LARGEST_TABLE = 10**5
FEW_MODES, OUTSTANDING = 5, 6.0
UNCERTAIN = 0.2  # a standard error above this deserves a sentence


@dataclass(frozen=True, eq=False, repr=False)
class MeasuredSpectrum(Brief):
    r"""Exponents of a measured spectrum and target, with their uncertainty.

    Attributes
    ----------
    a, a_stderr : float
        Exponent of the target, :math:`\lambda_k w_k^2 \approx A k^{-a}`, and its standard error:
        sampling, scatter of the coefficients about the law, and spread over windows, in quadrature;
        15, the largest a that is fitted, where nothing is known of it.
    b, b_stderr : float
        Exponent of the eigenvalues, :math:`\lambda_k \approx B k^{-b}`, and its standard error.
    target_scale, eigenvalue_scale : float
        A and B.
    noise, noise_stderr : float
        Standard deviation of the label noise (with what no feature can learn).
    window : tuple of int
        First and last mode, counted from 1, of the fit.
    samples, features : float
        Number of samples n and of features p; inf where there is no end.
    eigenvalues : numpy.ndarray, shape (last,)
        Eigenvalues up to the end of the window, corrected for the finite sample.
    target : numpy.ndarray, shape (last,)
        Sizes of the target coefficients :math:`|w_k|`, corrected; 0 where drowned.
    sample_eigenvalues, sample_energy : numpy.ndarray, shape (r,)
        Uncorrected eigenvalues and energies :math:`(v_k \cdot y)^2/n`.
    resolved : int
        Last mode whose energy stands out from noise and mixing: ``signal > means / 2``.
    means, signal : numpy.ndarray, shape (last,)
        Fitted energies of the sample's modes, and their part :math:`A k^{-a}`.
    windows : tuple of WindowFit
        The fit and those of smaller windows, which measure the spread.
    warnings : tuple of str
        What makes the numbers doubtful.
    """

    a: float
    a_stderr: float
    b: float
    b_stderr: float
    target_scale: float
    eigenvalue_scale: float
    noise: float
    noise_stderr: float
    window: tuple[int, int]
    samples: float
    features: float
    eigenvalues: Floats
    target: Floats
    sample_eigenvalues: Floats
    sample_energy: Floats
    resolved: int
    means: Floats
    signal: Floats
    windows: tuple[WindowFit, ...]
    warnings: tuple[str, ...]

    @property
    def phase(self) -> str:
        """``easy`` or ``hard``; ``unknown`` if b - a is within two standard errors of 0."""
        gap, error = self.b - self.a, math.hypot(self.a_stderr, self.b_stderr)
        if abs(gap) <= 2.0 * error:
            return "unknown"
        return "hard" if gap > 0.0 else "easy"

    def problem(
        self,
        horizon: int,
        *,
        kind: str = "measured",
        features: float | None = None,
        **options: Any,
    ) -> Problem:
        r"""The problem of SGD on these features and targets.

        Parameters
        ----------
        horizon : int
            Number of steps.
        kind : {"measured", "power-law"}
            ``measured``: the corrected eigenvalues and coefficients up to the last resolved mode
            and the fitted laws beyond it, in the units of the data: the rates are those of
            ``w -= eta * mean(phi * (phi @ w - y))``; energy beyond mode 10^5 counts as noise.
            ``power-law``: the fitted exponents alone; a
            rate is then in units of 1/B and a loss in units of A.
        features : int or math.inf, optional
            Number of features, if not that of the sample.
        **options
            Other fields of `Problem`, such as ``batch_size``, ``eta_max`` or ``noise``.

        Raises
        ------
        InvalidProblem
            For an exponent at or below 1 with ``power-law``, and whatever `Problem` refuses.
        """
        if kind not in KINDS:
            raise InvalidProblem("kind", kind, " or ".join(KINDS))
        size = self.features if features is None else features
        noise = self.noise
        if kind == "power-law":
            options = {"noise": noise / math.sqrt(self.target_scale), **options}
            return Problem(self.a, self.b, horizon, features=size, **options)
        if not (is_number(size) and size >= 1 and (math.isinf(size) or size == int(size))):
            raise InvalidProblem("features", size, "a whole number >= 1, or inf")
        spectrum = TabulatedSpectrum(*self._table(size))
        if size > LARGEST_TABLE:
            tail = zeta(self.a, LARGEST_TABLE + 1.0) if self.a > 1.0 else 0.0
            tail -= zeta(self.a, size + 1.0) if math.isfinite(size) and self.a > 1.0 else 0.0
            noise = math.sqrt(noise**2 + self.target_scale * float(tail))
        return Problem(horizon=horizon, spectrum=spectrum, **{"noise": noise, **options})

    def _table(self, size: float) -> tuple[Floats, Floats]:
        """Eigenvalues and coefficients: measured, then by the laws to the last feature."""
        count = int(min(size, LARGEST_TABLE))
        k = np.arange(1.0, count + 1.0)
        lam = self.eigenvalue_scale * k**-self.b
        energy = self.target_scale * k**-self.a
        known, resolved = min(count, len(self.eigenvalues)), min(count, self.resolved)
        lam[:known] = self.eigenvalues[:known]
        energy[:resolved] = (self.eigenvalues * self.target**2)[:resolved]
        return lam, np.sqrt(energy / lam)

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict; None where one is not known or infinite."""
        from optsched.exponents import json_ready

        names = ("a", "a_stderr", "b", "b_stderr", "target_scale", "eigenvalue_scale")
        names += ("noise", "noise_stderr", "samples", "features", "resolved", "phase")
        out = {name: json_ready(getattr(self, name)) for name in names}
        return out | {
            "window": list(self.window),
            "eigenvalues": json_ready(self.eigenvalues),
            "target": json_ready(self.target),
            "windows": [fit.summary() for fit in self.windows],
            "warnings": list(self.warnings),
        }


def measure_features(
    features: ArrayLike,
    targets: ArrayLike,
    *,
    window: tuple[int, int] | None = None,
    center: bool = False,
) -> MeasuredSpectrum:
    """Estimate (a, b) from features and targets.

    Parameters
    ----------
    features : array_like, shape (n, p)
        A row a sample; samples are independent.
    targets : array_like, shape (n,) or (n, C)
        Targets; several of a sample (classes as one-hot, say) add up their losses.
    window : tuple of int, optional
        First and last mode to fit. By default up to the smaller of n/4 and p/2, from the first mode
        on from which the exponents no longer depend on where the window starts.
    center : bool
        Take the mean off features and targets: for a model with a bias that is fitted apart.

    Returns
    -------
    MeasuredSpectrum

    Raises
    ------
    InvalidProblem
        Complex or infinite numbers, shapes that do not agree, fewer than 40 samples, fewer than
        20 modes above the rounding errors, or a window that does not fit.
    """
    return _measure(sample_of_features(features, targets, center), window)


def measure_kernel(
    kernel: ArrayLike,
    targets: ArrayLike,
    *,
    features: float | None = None,
    window: tuple[int, int] | None = None,
    center: bool = False,
) -> MeasuredSpectrum:
    r"""Estimate (a, b) from a kernel (Gram) matrix and targets.

    Parameters
    ----------
    kernel : array_like, shape (n, n)
        :math:`K_{ij} = \\phi(x_i) \\cdot \\phi(x_j)`, symmetric and positive semidefinite.
    targets : array_like, shape (n,) or (n, C)
    features : int or math.inf, optional
        Number of features behind the kernel: its rank where that is well below n, else infinite.
    window, center
        As for `measure_features`.

    Raises
    ------
    InvalidProblem
        As for `measure_features`, and a kernel that is not symmetric or has negative eigenvalues.
    """
    return _measure(sample_of_kernel(kernel, targets, features, center), window)


def measure_spectrum(
    eigenvalues: ArrayLike,
    target: ArrayLike,
    *,
    samples: float | None = None,
    features: float | None = None,
    window: tuple[int, int] | None = None,
) -> MeasuredSpectrum:
    """Estimate (a, b) from a spectrum: of a Hessian or a tangent kernel, say.

    Parameters
    ----------
    eigenvalues : array_like, shape (r,)
        Eigenvalues > 0, in any order.
    target : array_like, shape (r,)
        Coefficients w of the target in the eigenbasis: for residuals r and unit eigenvectors v of
        a sample's covariance, ``(v @ r) / sqrt(n * eigenvalue)``.
    samples : int, optional
        Number of samples that eigenvalues and target were measured on, to correct for; by default
        they count as exact.
    features : int or math.inf, optional
        Number of features; that of the eigenvalues by default.
    window : tuple of int, optional
        As for `measure_features`.

    Raises
    ------
    InvalidProblem
        Complex, infinite or non-positive eigenvalues, fewer than 20 of them, shapes that do not
        agree.
    """
    return _measure(sample_of_spectrum(eigenvalues, target, samples, features), window)


def _measure(sample: Sample, window: tuple[int, int] | None) -> MeasuredSpectrum:
    """Choose the window, fit, and say what is doubtful."""
    rank = len(sample.lam)
    whole = math.isinf(sample.samples)
    share = sample.samples / TOP_SHARE
    top = int(min(share, rank if whole else rank / TOP_RANK, LARGEST_TOP))
    most = rank if whole else int(min(sample.samples, rank) // 2)
    if window is not None:
        window = _checked_window(window, most)
    fits, notes = fit_windows(sample, window, top)
    main = fits[0]
    eigen, target = main.eigen, main.fit
    lam = sample.lam[: main.last] * np.exp(-eigen.bias)
    mixed = np.maximum(target.means - target.signal, 0.0)
    if whole:
        mixed = np.zeros_like(mixed)
    energy = np.maximum(sample.energy[: main.last] - mixed, 0.0)
    clear = target.signal > 0.5 * target.means
    resolved = int(np.argmin(clear)) if not clear.all() else main.last
    # How many modes stand out, whatever the fit; of pure noise, 1.4 % would.
    out = sample.energy[main.first - 1 : main.last] > OUTSTANDING * mixed[main.first - 1 :]
    seen = float(out.sum() - 0.0143 * len(out))
    unknown = resolved < main.first or seen < 1.0 or not LEAST_A < main.a < 0.99 * MOST_A
    a_stderr = MOST_A if unknown else min(main.a_total, MOST_A)
    for array in (lam, energy):
        array.setflags(write=False)
    target_size = np.sqrt(energy / lam)
    target_size.setflags(write=False)
    return MeasuredSpectrum(
        a=main.a,
        a_stderr=a_stderr,
        b=main.b,
        b_stderr=main.b_total,
        target_scale=target.scale,
        eigenvalue_scale=eigen.scale,
        noise=math.sqrt(target.noise),
        noise_stderr=0.5 * target.noise_stderr / math.sqrt(max(target.noise, 1e-300)),
        window=(main.first, main.last),
        samples=sample.samples,
        features=sample.size,
        eigenvalues=lam,
        target=target_size,
        sample_eigenvalues=sample.lam,
        sample_energy=sample.energy,
        resolved=resolved,
        means=target.means,
        signal=target.signal,
        windows=tuple(fits),
        warnings=tuple(notes + _warnings(main, a_stderr, resolved, seen)),
    )


def _checked_window(window: tuple[int, int], most: int) -> tuple[int, int]:
    try:
        first, last = (int(k) for k in window if is_number(k) and k == int(k))
    except (TypeError, ValueError):
        raise InvalidProblem("window", window, "two whole numbers: first, last") from None
    if first < 1 or last > most or last - first + 1 < LEAST_MODES // 2:
        allowed = f"first >= 1, last <= {most}, and {LEAST_MODES // 2} modes or more"
        raise InvalidProblem("window", (first, last), allowed)
    return first, last


def _warnings(main: WindowFit, a_stderr: float, resolved: int, seen: float) -> list[str]:
    notes = []
    if resolved < main.first + FEW_MODES or seen < FEW_MODES:
        count = max(0, min(resolved - main.first + 1, round(seen)))
        notes.append(f"only about {count} modes stand out from the noise: a rests on few of them")
    for name, value, error in (("a", main.a, a_stderr), ("b", main.b, main.b_total)):
        if error > UNCERTAIN:
            notes.append(f"{name} = {value:.2f} is known to {error:.2f} only")
        if value - 2.0 * error <= 1.0:
            notes.append(f"{name} = {value:.3f} may be at or below 1, where the model ends")
    return notes
