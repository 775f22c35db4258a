"""Fits over several windows of modes: where the law starts, and how far windows disagree."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optsched.arrays import Brief, Floats
from optsched.measure.exponent_errors import eigenvalue_influence, target_influence
from optsched.measure.exponent_fits import (
    FEW,
    EigenvalueFit,
    Sample,
    TargetFit,
    fit_eigenvalues,
    fit_target,
)

__all__ = ["WindowFit", "fit_windows"]


STARTS = (1, 2, 4, 8, 16, 32, 64)
LEAST_RATIO = 8  # a window spans at least this factor in k
SIGMAS, TOLERANCE = 3.0, 0.05  # a start is late enough if a later one agrees as well as this
FEWEST = 3.5  # effective rows, below which the correction for few of them is held


@dataclass(frozen=True, eq=False, repr=False)
class WindowFit(Brief):
    """Exponents of one window of modes.

    Attributes
    ----------
    first, last : int
        The window.
    a, a_stderr, b, b_stderr : float
        Exponents and their standard errors within this window.
    a_spread, b_spread : float
        Spread over smaller windows beyond what sampling explains; 0 for those windows.
    """

    first: int
    last: int
    a: float
    a_stderr: float
    b: float
    b_stderr: float
    eigen: EigenvalueFit
    fit: TargetFit
    a_influence: Floats | None
    b_influence: Floats | None
    a_spread: float = 0.0
    b_spread: float = 0.0

    @property
    def a_total(self) -> float:
        """Standard error of a with the spread over windows."""
        return math.hypot(self.a_stderr, self.a_spread)

    @property
    def b_total(self) -> float:
        """Standard error of b with the spread over windows."""
        return math.hypot(self.b_stderr, self.b_spread)

    def summary(self) -> dict[str, Any]:
        """Window and exponents as a JSON-able dict."""
        names = ("first", "last", "a", "a_stderr", "b", "b_stderr")
        return {name: getattr(self, name) for name in names}


def _fit(sample: Sample, first: int, last: int) -> WindowFit:
    eigen = fit_eigenvalues(sample, first, last)
    fit = fit_target(sample, eigen)
    b_scatter = eigen.scatter * float(eigen.weights @ eigen.weights)
    few = max(fit.effective, FEWEST)
    # The scatter is estimated from these rows: the widening of Student's t.
    scatter = math.sqrt(few / (few - 2.0)) * fit.scatter_stderr
    a_influence = b_influence = None
    if sample.vectors is None:
        own = 0.0 if math.isinf(sample.samples) else 2.0 / sample.samples
        a_error, b_own = fit.stderr, own * float(eigen.weights @ eigen.weights)
    else:
        a_influence = target_influence(sample, fit)
        b_influence = eigenvalue_influence(sample, eigen)
        a_own, b_own = (float(x @ x) / sample.samples**2 for x in (a_influence, b_influence))
        # A jackknife counts the part that is quadratic in the samples twice (Efron & Stein 1981).
        a_error = math.hypot(math.sqrt(a_own / (1.0 + fit.quadratic)), scatter)
    if few < FEW:  # few rows are no place for linear errors
        a_error = max(a_error, fit.stderr)
    b_error = math.sqrt(b_own + b_scatter)
    exponents = fit.a, a_error, eigen.b, b_error
    return WindowFit(first, last, *exponents, eigen, fit, a_influence, b_influence)


def _gap(name: str, whole: WindowFit, part: WindowFit, samples: float) -> tuple[float, float]:
    """Difference of an exponent between windows, and the variance that sampling gives it."""
    gap = getattr(part, name) - getattr(whole, name)
    one, two = (getattr(fit, f"{name}_stderr") ** 2 for fit in (whole, part))
    # That of a part and an efficient whole, or more if the samples say so.
    variance = max(two - one, 0.0)
    one, two = (getattr(fit, f"{name}_influence") for fit in (whole, part))
    if one is not None and two is not None:
        variance = max(variance, float(np.sum((two - one) ** 2)) / samples**2)
    return gap, variance


def _agrees(whole: WindowFit, part: WindowFit, samples: float) -> bool:
    pairs = [_gap(name, whole, part, samples) for name in ("a", "b")]
    return all(abs(gap) <= SIGMAS * math.sqrt(var) + TOLERANCE for gap, var in pairs)


def fit_windows(
    sample: Sample, window: tuple[int, int] | None, top: int
) -> tuple[list[WindowFit], list[str]]:
    """The fit, with its spread, and those of smaller windows; remarks.

    Parameters
    ----------
    sample : Sample
    window : tuple of int or None
        First and last mode; None to choose the first.
    top : int
        Last mode where the window is chosen.
    """
    if window is None:
        starts = [k for k in STARTS if k * LEAST_RATIO <= top] or [1]
        last = top
    else:
        starts, last = [window[0]], window[1]
    notes: list[str] = []
    main, later = _fit(sample, starts[0], last), None
    for k in starts:
        if k > main.first:
            main, later = _fit(sample, k, last), None
        if (2 * k + 1) * LEAST_RATIO // 2 <= last:
            later = _fit(sample, 2 * k + 1, last)
            if _agrees(main, later, sample.samples):
                break
    else:
        notes.append(
            f"no power law: the exponents depend on the window also from mode {main.first} on"
        )
    parts = [] if later is None else [later]
    half = max(last // 2, main.first + 10)
    if half < last and half >= main.first + LEAST_RATIO:
        parts.append(_fit(sample, main.first, half))
    spread = {}
    for name in ("a", "b"):
        excess = [gap**2 - var for gap, var in (_gap(name, main, p, sample.samples) for p in parts)]
        spread[f"{name}_spread"] = math.sqrt(max(0.0, float(np.mean(excess)))) if parts else 0.0
    return [replace(main, **spread), *parts], notes
