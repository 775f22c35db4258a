r"""What another batch size changes: the rate, and how many steps and samples training takes.

With the noise scale :math:`B_n`, a step of SGD at its best rate gains :math:`1/(1 + B_n/B)` of what
a step without noise would. So training takes :math:`S = S_{\min}(1 + B_n/B)` steps and
:math:`E = E_{\min}(1 + B/B_n)` samples: at the critical batch size,
:math:`B_n = E_{\min}/S_{\min}`, twice the least of each (McCandlish et al., arXiv 1812.06162).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from optsched.arrays import Floats
from optsched.checks import decay, positive, real_array
from optsched.errors import InvalidProblem, SolveFailed

__all__ = [
    "RULES",
    "AdamScaling",
    "CriticalBatch",
    "RateScaling",
    "fit_critical_batch",
    "rate_factor",
    "samples_factor",
    "samples_at_steps",
    "scale_adam",
    "scale_rate",
    "steps_factor",
]


RULES = ("linear", "sgd", "sqrt", "sign")
# The rule that saturates, for each of those that do not know about noise.
REFERENCE = {"linear": "sgd", "sqrt": "sign"}
LARGEST = 1e100  # batch size or noise scale
TRUSTED = 0.1  # difference between the two up to which the simple rule is called valid


def steps_factor(batch: ArrayLike, noise_scale: float) -> Floats:
    r"""Steps over their least number, :math:`S/S_{\min} = 1 + B_n/B`."""
    return 1.0 + positive("noise_scale", noise_scale) / _batches(batch)


def samples_factor(batch: ArrayLike, noise_scale: float) -> Floats:
    r"""Samples over their least number, :math:`E/E_{\min} = 1 + B/B_n`."""
    return 1.0 + _batches(batch) / positive("noise_scale", noise_scale)


def samples_at_steps(factor: ArrayLike) -> Floats:
    r"""Samples factor at a steps factor above 1: :math:`(S/S_{\min}-1)(E/E_{\min}-1) = 1`.

    >>> samples_at_steps([1.1, 2.0, 11.0]).round(6).tolist()
    [11.0, 2.0, 1.1]
    """
    steps = real_array("factor", factor).astype(np.float64)
    if not np.all(np.isfinite(steps) & (steps > 1.0)):
        raise InvalidProblem("factor", factor, "finite numbers > 1: no batch takes fewer steps")
    return 1.0 + 1.0 / (steps - 1.0)


def _batches(batch: ArrayLike, field: str = "batch") -> Floats:
    sizes = real_array(field, batch).astype(np.float64)
    bad = sizes[~(np.isfinite(sizes) & (sizes > 0.0))]
    if bad.size:
        raise InvalidProblem(field, float(bad[0]), "finite numbers > 0")
    return sizes


def _bounded(field: str, sizes: Any) -> Any:
    """``sizes`` > 0 as they are, if their ratios are far from overflow."""
    for worst in (float(np.min(sizes)), float(np.max(sizes))):
        if not 1.0 / LARGEST <= worst <= LARGEST:
            allowed = f"numbers from {1.0 / LARGEST:g} to {LARGEST:g}"
            raise InvalidProblem(field, worst, allowed)
    return sizes


@dataclass(frozen=True)
class CriticalBatch:
    r"""Trade-off of steps against samples, fitted to runs.

    Attributes
    ----------
    min_steps, min_samples : float
        :math:`S_{\min}`, :math:`E_{\min}`.
    min_steps_stderr, min_samples_stderr, stderr : float
        Standard errors of the two, and of ``value``, from the scatter about the fit; NaN for two
        runs.
    worst : float
        Largest relative difference between a run and the fit.
    """

    min_steps: float
    min_samples: float
    min_steps_stderr: float
    min_samples_stderr: float
    stderr: float
    worst: float

    @property
    def value(self) -> float:
        r"""Critical batch size :math:`E_{\min}/S_{\min}`."""
        return self.min_samples / self.min_steps

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict."""
        return {"critical_batch": self.value, **vars(self)}


def fit_critical_batch(batches: ArrayLike, steps: ArrayLike) -> CriticalBatch:
    r"""Fit :math:`S = S_{\min} + E_{\min}/B` to the steps that runs took to the same loss.

    Parameters
    ----------
    batches, steps : array_like, shape (n,)
        Two or more different batch sizes, each run at its best rate.

    Returns
    -------
    CriticalBatch
        Least squares of the relative differences.

    Raises
    ------
    InvalidProblem
        Fewer than two batch sizes, or numbers that are not positive.
    SolveFailed
        The runs show no trade-off: steps do not fall with the batch, or samples do not rise.
    """
    b, s = _batches(batches, "batches"), _batches(steps, "steps")
    if b.ndim != 1 or b.shape != s.shape or len(np.unique(b)) < 2:
        allowed = "pairs of batch and steps, of two batch sizes or more"
        raise InvalidProblem("batches", f"shapes {b.shape}, {s.shape}", allowed)
    columns = np.column_stack([np.ones_like(b), 1.0 / b]) / s[:, None]
    # Columns of like size: the two differ by a factor of the critical batch size.
    scale = np.linalg.norm(columns, axis=0)
    scaled = columns / scale
    found = np.linalg.lstsq(scaled, np.ones_like(s), rcond=None)[0]
    least = found / scale
    if not np.all(least > 0.0):
        raise SolveFailed(
            f"no trade-off in these runs: fitted least steps {least[0]:.4g}, samples {least[1]:.4g}"
        )
    rest = scaled @ found - 1.0
    cov = np.full((2, 2), np.nan)
    if len(s) > 2:
        cov = np.linalg.inv(scaled.T @ scaled) * (rest @ rest) / (len(s) - 2)
        cov = cov / np.outer(scale, scale)
    slope = np.array([-1.0 / least[0], 1.0 / least[1]])
    errors = np.sqrt(np.diag(cov))
    relative = math.sqrt(slope @ cov @ slope) if len(s) > 2 else math.nan
    return CriticalBatch(
        float(least[0]),
        float(least[1]),
        float(errors[0]),
        float(errors[1]),
        float(least[1] / least[0]) * relative,
        float(np.abs(rest).max()),
    )


def rate_factor(
    batch: ArrayLike, from_batch: float, rule: str, noise_scale: float | None = None
) -> Floats:
    r"""Rate at another batch size, over that at ``from_batch``.

    Parameters
    ----------
    batch : array_like
    from_batch : float
    rule : str
        =======  ==================================================  ==============================
        rule     rate                                                source
        =======  ==================================================  ==============================
        linear   :math:`\propto B`                                   Goyal et al., arXiv 1706.02677
        sgd      :math:`\propto 1/(1 + B_n/B)`                       McCandlish et al., 1812.06162
        sqrt     :math:`\propto \sqrt B`                             Malladi et al., 2205.10287
        sign     :math:`\propto 1/(\sqrt{B_n/B} + \sqrt{B/B_n})`     Li et al., arXiv 2405.14578
        =======  ==================================================  ==============================

        ``linear`` is ``sgd`` far below the noise scale, ``sqrt`` is ``sign`` (and Adam) there.
        ``sign`` peaks at its :math:`B_n` and falls beyond it.
    noise_scale : float, optional
        :math:`B_n`, for ``sgd`` and ``sign``. That of ``sign`` weighs the Hessian otherwise,
        :math:`\tfrac\pi2 \sum_i H_{ii} / \sum_{i\ne j} H_{ij} G_i G_j / (\sigma_i\sigma_j)` plus
        corrections, and agrees with the gradient noise scale in order of magnitude only.

    Raises
    ------
    InvalidProblem
        A rule that is not known, one without its noise scale, or a size that is not positive.
    """
    if rule not in RULES:
        raise InvalidProblem("rule", rule, "one of " + ", ".join(RULES))
    ratio = _bounded("batch", _batches(batch)) / _bounded(
        "from_batch", positive("from_batch", from_batch)
    )
    if rule == "linear":
        return ratio
    if rule == "sqrt":
        return np.sqrt(ratio)
    if noise_scale is None:
        raise InvalidProblem("noise_scale", None, f"a number > 0, which rule {rule} needs")
    start = from_batch / _bounded("noise_scale", positive("noise_scale", noise_scale))
    end = ratio * start
    if rule == "sgd":
        return (1.0 + 1.0 / start) / (1.0 + 1.0 / end)
    return (start**-0.5 + start**0.5) / (end**-0.5 + end**0.5)


@dataclass(frozen=True)
class RateScaling:
    """A rate at another batch size.

    Attributes
    ----------
    lr, batch : float
    rule : str
    factor : float
        ``lr`` over the rate before.
    saturating : float or None
        Factor of the rule that knows about noise; None without a noise scale.
    valid : bool or None
        Whether ``factor`` is within 10 % of that; None where it is not known.
    """

    lr: float
    batch: float
    rule: str
    factor: float
    saturating: float | None
    valid: bool | None

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict."""
        return dict(vars(self))


def scale_rate(
    lr: float, from_batch: float, batch: float, rule: str, noise_scale: float | None = None
) -> RateScaling:
    """Carry a rate to another batch size, and say whether the rule may be trusted.

    Parameters
    ----------
    lr, from_batch : float
        A tuned rate and its batch size.
    batch, rule, noise_scale
        As in `rate_factor`.

    Examples
    --------
    >>> scale_rate(0.1, 256, 1024, "linear", noise_scale=50_000).valid
    True
    >>> scale_rate(0.1, 256, 8192, "linear", noise_scale=1000).valid
    False
    """
    factor = float(rate_factor(batch, from_batch, rule, noise_scale))
    saturating = None
    if noise_scale is not None:
        known = REFERENCE.get(rule, rule)
        saturating = float(rate_factor(batch, from_batch, known, noise_scale))
    valid = None if saturating is None else abs(factor / saturating - 1.0) <= TRUSTED
    return RateScaling(positive("lr", lr) * factor, float(batch), rule, factor, saturating, valid)


@dataclass(frozen=True)
class AdamScaling:
    """Hyperparameters of Adam at another batch size."""

    lr: float
    beta1: float
    beta2: float
    eps: float


def scale_adam(
    lr: float, beta1: float, beta2: float, eps: float, *, from_batch: float, batch: float
) -> AdamScaling:
    r"""Square-root scaling of Adam, all of it.

    With :math:`\kappa = B/B_0`,

    .. math:: \eta\sqrt\kappa, \quad 1 - \kappa(1-\beta_1), \quad 1 - \kappa(1-\beta_2), \quad
       \epsilon/\sqrt\kappa .

    Keeps the continuous limit of Adam the same in samples, where noise dominates the gradients
    (Malladi et al., arXiv 2205.10287). ``eps`` is that of gradients averaged over
    the batch.

    Raises
    ------
    InvalidProblem
        A value out of range; a batch so large that a decay would be negative.
    """
    ratio = positive("batch", batch) / positive("from_batch", from_batch)
    rest = [ratio * (1.0 - decay(n, b)) for n, b in (("beta1", beta1), ("beta2", beta2))]
    if max(rest) > 1.0:
        most = from_batch * ratio / max(rest)
        raise InvalidProblem("batch", batch, f"at most {most:.6g}: a decay would be below 0")
    root = math.sqrt(ratio)
    return AdamScaling(
        positive("lr", lr) * root, 1.0 - rest[0], 1.0 - rest[1], positive("eps", eps) / root
    )
