r"""Noise schedules of diffusion models: how much noise each of T levels has.

A level mixes a data point x with Gaussian noise, :math:`z = \alpha x + \sigma \epsilon`. All that
matters of it is the signal-to-noise ratio :math:`\mathrm{SNR} = \alpha^2/\sigma^2`; a schedule
keeps its logarithm :math:`\lambda`, from which everything follows without cancellation:

* variance preserving, :math:`\alpha^2 + \sigma^2 = 1`: :math:`\alpha = \sqrt{s(\lambda)}`,
  :math:`\sigma = \sqrt{s(-\lambda)}`;
* variance exploding, :math:`\alpha = 1`: :math:`\sigma = e^{-\lambda/2}`;

with the logistic function :math:`s`. The variance-preserving :math:`\alpha^2` is known as
:math:`\bar\alpha`. Going from one form to the other only scales z, by the variance-preserving
:math:`\alpha`; level, noise and what a model has to learn stay the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Brief, Floats
from optsched.checks import choice, number, real_array, whole
from optsched.errors import InvalidProblem

__all__ = ["KINDS", "NoiseSchedule", "cosine", "edm", "from_alpha_bar", "from_sigmas", "linear"]

Form = Literal["preserving", "exploding"]

FORMS = ("preserving", "exploding")
MAX_LEVELS = 10**7
EXTREME = 700.0  # of a log SNR: beyond, the SNR is no float


@dataclass(frozen=True, eq=False, repr=False)
class NoiseSchedule(Brief):
    r"""Levels of noise of a diffusion model, from the least noise to the most.

    Attributes
    ----------
    log_snr : numpy.ndarray of float64, shape (T,)
        :math:`\lambda`, strictly falling, within 700 of zero; read-only.
    form : {"preserving", "exploding"}
        Variance preserving or exploding: what `alpha` and `sigma` are.
    kind : str
        Where it comes from.

    Raises
    ------
    InvalidProblem
        For values that are not finite or do not fall, and other forms.
    """

    log_snr: Floats
    form: Form = "preserving"
    kind: str = "custom"

    def __post_init__(self) -> None:
        values = np.atleast_1d(real_array("log_snr", self.log_snr)).astype(np.float64)
        if values.ndim != 1 or not 1 <= values.size <= MAX_LEVELS:
            allowed = f"shape (T,), T from 1 to {MAX_LEVELS}"
            raise InvalidProblem("log_snr", f"shape {values.shape}", allowed)
        bad = np.flatnonzero(~(np.abs(values) <= EXTREME))
        if bad.size:
            allowed = f"from -{EXTREME:g} to {EXTREME:g} (at level {bad[0]})"
            raise InvalidProblem("log_snr", float(values[bad[0]]), allowed)
        rises = np.flatnonzero(np.diff(values) >= 0.0)
        if rises.size:
            at = int(rises[0]) + 1
            allowed = f"less than {values[at - 1]:g}, that of the level before (at level {at})"
            raise InvalidProblem("log_snr", float(values[at]), allowed)
        choice("form", self.form, FORMS)
        values.setflags(write=False)
        object.__setattr__(self, "log_snr", values)

    def __len__(self) -> int:
        """Return the number of levels T."""
        return len(self.log_snr)

    @property
    def snr(self) -> Floats:
        r"""Signal-to-noise ratio :math:`e^\lambda`."""
        return np.exp(self.log_snr)

    @property
    def log_alpha_bar(self) -> Floats:
        r"""Logarithm of `alpha_bar`."""
        return -np.logaddexp(0.0, -self.log_snr)

    @property
    def alpha_bar(self) -> Floats:
        r"""Share of the variance that is signal, :math:`\bar\alpha = s(\lambda)`."""
        return np.exp(self.log_alpha_bar)

    @property
    def noise_share(self) -> Floats:
        r"""Share that is noise, :math:`1 - \bar\alpha`, to full relative accuracy."""
        return np.exp(-np.logaddexp(0.0, self.log_snr))

    @property
    def betas(self) -> Floats:
        r"""Variance that each level adds, :math:`1 - \bar\alpha_t/\bar\alpha_{t-1}`.

        Before the first level there is no noise.
        """
        return -np.expm1(np.diff(self.log_alpha_bar, prepend=0.0))

    @property
    def sigma_exploding(self) -> Floats:
        r"""Standard deviation of the noise on data that are not scaled, :math:`e^{-\lambda/2}`."""
        return np.exp(-0.5 * self.log_snr)

    @property
    def alpha(self) -> Floats:
        r"""Factor :math:`\alpha` of the data, in this form."""
        if self.form == "exploding":
            return np.ones(len(self))
        return np.exp(0.5 * self.log_alpha_bar)

    @property
    def sigma(self) -> Floats:
        r"""Standard deviation :math:`\sigma` of the noise, in this form."""
        if self.form == "exploding":
            return self.sigma_exploding
        return np.exp(-0.5 * np.logaddexp(0.0, self.log_snr))

    def variance_preserving(self) -> NoiseSchedule:
        """The same levels with alpha^2 + sigma^2 = 1."""
        return replace(self, form="preserving")

    def variance_exploding(self) -> NoiseSchedule:
        """The same levels with alpha = 1."""
        return replace(self, form="exploding")

    def sampling_sigmas(self) -> Floats:
        """Noise on unscaled data in the order of a sampler, from the most to none: T + 1 values."""
        return np.append(self.sigma_exploding[::-1], 0.0)

    def shifted(self, factor: float) -> NoiseSchedule:
        r"""Multiply every SNR by ``factor``, a number > 0.

        For images of d times the side, :math:`d^{-2}` keeps the noise that remains after averaging
        over d by d pixels (Hoogeboom et al., "simple diffusion", arXiv 2301.11093).
        """
        shift = math.log(number("factor", factor, 0.0, above=True))
        return replace(self, log_snr=self.log_snr + shift, kind=f"{self.kind}, shifted")


def from_alpha_bar(
    alpha_bar: Any, *, form: Form = "preserving", kind: str = "custom"
) -> NoiseSchedule:
    r"""Schedule with given shares of signal :math:`\bar\alpha` in (0, 1), falling.

    A share near 1 has lost the digits of the noise: where it is known, `from_sigmas` keeps them.
    """
    values = real_array("alpha_bar", alpha_bar).astype(np.float64)
    _inside("alpha_bar", values, (values > 0.0) & (values < 1.0), "numbers in (0, 1)")
    return NoiseSchedule(np.log(values) - np.log1p(-values), form, kind)


def from_sigmas(sigmas: Any, *, form: Form = "exploding", kind: str = "custom") -> NoiseSchedule:
    r"""Schedule with given noise on unscaled data, :math:`\sigma > 0`, rising."""
    values = real_array("sigmas", sigmas).astype(np.float64)
    _inside("sigmas", values, (values > 0.0) & np.isfinite(values), "finite numbers > 0")
    return NoiseSchedule(-2.0 * np.log(values), form, kind)


def linear(
    steps: int = 1000, *, first: float = 1e-4, last: float = 0.02, reference: int = 1000
) -> NoiseSchedule:
    r"""Linear variances of DDPM.

    .. math:: \beta_i = \frac{R}{T} \Big(\beta_0 + \frac{i}{T-1} (\beta_1 - \beta_0)\Big), \quad
        \bar\alpha_i = \prod_{j \le i} (1 - \beta_j), \quad i = 0, \dots, T-1.

    Parameters
    ----------
    steps : int
        T; at least 21 with the defaults, as no variance may reach 1.
    first, last : float
        :math:`\beta_0 \le \beta_1` for T = R.
    reference : int
        R: the variances scale as R/T, so that the noise at the end stays about the same.

    Notes
    -----
    Ho et al., "Denoising diffusion probabilistic models", arXiv 2006.11239; the factor R/T is that
    of Nichol & Dhariwal's code.
    """
    steps = whole("steps", steps, 1, MAX_LEVELS)
    first = number("first", first, 0.0, 1.0, above=True)
    last = number("last", last, first, 1.0)
    scale = whole("reference", reference, 1, MAX_LEVELS) / steps
    least = math.floor(scale * steps * last) + 1
    if scale * last >= 1.0:
        raise InvalidProblem("steps", steps, f"at least {least}, so that every variance is below 1")
    betas = scale * np.linspace(first, last, steps)
    return _from_log_ratios(np.log1p(-betas), "linear")


def cosine(steps: int = 1000, *, offset: float = 0.008, most: float = 0.999) -> NoiseSchedule:
    r"""Cosine schedule of Nichol and Dhariwal.

    .. math::
        f(t) = \cos^2\Big(\frac{t/T + s}{1 + s} \frac{\pi}{2}\Big), \quad
        \beta_i = \min\Big(1 - \frac{f(i+1)}{f(i)}, \beta_{\max}\Big), \quad
        \bar\alpha_i = \prod_{j \le i} (1 - \beta_j).

    Parameters
    ----------
    steps : int
        T, from 1.
    offset : float
        s, in [0, 1]: keeps the first variances from being too small.
    most : float
        :math:`\beta_{\max}`, in (0, 1): without it the last level would have no signal at all.

    Notes
    -----
    Nichol & Dhariwal, "Improved denoising diffusion probabilistic models", arXiv 2102.09672,
    equation 17.
    """
    steps = whole("steps", steps, 1, MAX_LEVELS)
    offset = number("offset", offset, 0.0, 1.0)
    most = number("most", most, 0.0, 1.0, above=True)
    if most == 1.0:
        raise InvalidProblem("most", most, "a number in (0, 1)")
    angle = 0.5 * math.pi * (np.arange(steps + 1) / steps + offset) / (1.0 + offset)
    # cos(b)/cos(a) - 1 without a difference of nearly equal numbers.
    middle, half = 0.5 * (angle[1:] + angle[:-1]), 0.5 * np.diff(angle)
    change = -2.0 * np.sin(middle) * np.sin(half) / np.cos(angle[:-1])
    ratios = 2.0 * np.log1p(np.maximum(change, math.sqrt(1.0 - most) - 1.0))
    return _from_log_ratios(ratios, "cosine")


def edm(
    steps: int = 18, *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> NoiseSchedule:
    r"""Noise levels of EDM.

    .. math:: \sigma_i = \Big(\sigma_{\min}^{1/\rho} + \frac{i}{T-1}
        (\sigma_{\max}^{1/\rho} - \sigma_{\min}^{1/\rho})\Big)^\rho, \quad i = 0, \dots, T-1.

    Parameters
    ----------
    steps : int
        T, from 1; a single level is the one with the most noise.
    sigma_min, sigma_max : float
        :math:`0 < \sigma_{\min} < \sigma_{\max}`.
    rho : float
        :math:`\rho`, in (0, 1000]; more of it puts more levels at little noise.

    Returns
    -------
    NoiseSchedule
        Variance exploding, from the least noise; `NoiseSchedule.sampling_sigmas` has the order of
        the sampler, with a zero at its end.

    Notes
    -----
    Karras et al., "Elucidating the design space of diffusion-based generative models", arXiv
    2206.00364, equation 5, which counts from the most noise.
    """
    steps = whole("steps", steps, 1, MAX_LEVELS)
    sigma_min = number("sigma_min", sigma_min, 0.0, above=True)
    sigma_max = number("sigma_max", sigma_max, sigma_min, above=True)
    rho = number("rho", rho, 0.0, 1000.0, above=True)
    place = np.arange(steps)[::-1] / max(steps - 1, 1)
    # In units of the largest, so that small exponents do not overflow.
    root = (sigma_min / sigma_max) ** (1.0 / rho)
    sigmas = sigma_max * (1.0 + place * (root - 1.0)) ** rho
    return from_sigmas(sigmas, kind="edm")


KINDS: dict[str, Callable[..., NoiseSchedule]] = {"linear": linear, "cosine": cosine, "edm": edm}


def _from_log_ratios(ratios: Floats, kind: str) -> NoiseSchedule:
    """Variance-preserving schedule from the logarithms of 1 - beta."""
    log_bar = np.cumsum(ratios)
    return NoiseSchedule(log_bar - np.log(-np.expm1(log_bar)), "preserving", kind)


def _inside(field: str, values: Floats, good: NDArray[np.bool_], allowed: str) -> None:
    bad = np.flatnonzero(~good)
    if bad.size:
        raise InvalidProblem(field, float(values.flat[bad[0]]), f"{allowed} (at level {bad[0]})")
