"""The optimal-control problem: what is minimised, over which schedules."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from scipy.optimize import brentq

from optsched.errors import InvalidProblem
from optsched.model.dynamics import SGD
from optsched.model.spectrum import Modes, PowerLawSpectrum, Spectrum

__all__ = ["Problem", "stability_limit"]

MAX_EXPONENT = 50.0  # steeper power laws are one mode and nothing else


def stability_limit(spectrum: Spectrum, batch_size: float) -> float:
    r"""Largest constant learning rate for which the exact recursion does not diverge.

    The recursion :math:`e \leftarrow \mathrm{diag}(r)\, e + (\eta^2/m)\, \nu\, 1^T e` contracts
    if and only if every :math:`r_k < 1` and

    .. math:: \frac{\eta}{m} \sum_k \frac{\lambda_k}{2 - \eta (1 + 1/m) \lambda_k} < 1 .

    Parameters
    ----------
    spectrum : Spectrum
    batch_size : float
        Minibatch size m.

    Returns
    -------
    float
        Limit of the learning rate.

    Notes
    -----
    Bordelon & Pehlevan, "Learning curves for SGD on structured features" (2022).
    """
    m = float(batch_size)
    edge = 2.0 / ((1.0 + 1.0 / m) * spectrum.largest)  # every r_k < 1 below it
    modes = spectrum.modes(10.0 * edge)
    keep = modes.nu > 0.0
    lam, nu = modes.lam[keep], modes.nu[keep]
    # nu / lam is lam times the multiplicity of a node; modes lumped in the tail enter by the trace.
    weights = nu / lam
    weights = np.append(weights, max(spectrum.trace - weights.sum(), 0.0))
    lam = np.append(lam, 0.0)

    def excess(eta: float) -> float:
        return float((eta / m * weights / (2.0 - eta * (1.0 + 1.0 / m) * lam)).sum()) - 1.0

    return float(brentq(excess, 0.0, edge * (1.0 - 1e-12), xtol=1e-14))  # type: ignore[arg-type]


def _number(name: str, value: Any, allowed: str, check: Any) -> float:
    """``value`` as float if it is a finite number that passes ``check``."""
    good = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    if good and abs(value) <= sys.float_info.max and check(float(value)):
        return float(value)
    raise InvalidProblem(name, value, allowed)


@dataclass(frozen=True)
class Problem:
    r"""Minimise the excess loss after T steps over the schedule of the learning rate.

    .. math:: \min_{0 \le \eta_t \le \eta_{max}} E(T), \qquad
       e_j \leftarrow [1 - 2\eta\lambda_j + \eta^2 (1 + 1/m) \lambda_j^2] e_j
       + (\eta^2/m) \nu_j (E + \sigma^2) .

    Parameters
    ----------
    a, b : float, optional
        Exponents of the target and of the covariance, both > 1. Give these or ``spectrum``.
    horizon : int
        Number of steps T >= 1.
    features : int or math.inf
        Number of features N of the power-law spectrum.
    batch_size : float
        Minibatch size m >= 1.
    noise : float
        Standard deviation of the label noise, >= 0.
    eta_max : float
        Upper bound of the learning rate, > 0. Where it exceeds the stability limit of the
        recursion, that limit bounds the rate instead: see `eta_cap`.
    spectrum : Spectrum, optional
        Any spectrum instead of (a, b, features).
    warmup : int
        Steps of a forced linear ramp: the rate of step k < warmup is ``(k+1)/(warmup+1)`` times
        the rate of step ``warmup``.
    eta_min : float
        Floor of the rate after warm-up (final-rate floor).
    max_change : float, optional
        Largest change of the rate from one step to the next, ``abs(eta[k+1] - eta[k])``.

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.
    """

    a: float | None = None
    b: float | None = None
    horizon: int = None  # type: ignore[assignment]
    features: float = 1000
    batch_size: float = 5.0
    noise: float = 0.5
    eta_max: float = 1.0
    spectrum: Spectrum | None = field(default=None)
    warmup: int = 0
    eta_min: float = 0.0
    max_change: float | None = None

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        if self.spectrum is None:
            for name in ("a", "b"):
                rule = f"a finite number greater than 1, up to {MAX_EXPONENT:g}"
                value = getattr(self, name)
                put(name, _number(name, value, rule, lambda x: 1.0 < x <= MAX_EXPONENT))
            if self.features != math.inf:
                rule = "a whole number >= 1, or inf"
                whole = _number(
                    "features", self.features, rule, lambda x: x >= 1 and x.is_integer()
                )
                put("features", int(whole))
            put("spectrum", PowerLawSpectrum(self.a, self.b, self.features))  # type: ignore[arg-type]
        elif isinstance(self.spectrum, PowerLawSpectrum):
            for name, own in (("a", self.spectrum.a), ("b", self.spectrum.b)):
                given = getattr(self, name)
                if given is not None and given != own:
                    raise InvalidProblem(name, given, f"{own}, as in the given spectrum")
                put(name, own)
            put("features", self.spectrum.size)
        else:
            for name in ("a", "b"):
                if getattr(self, name) is not None:
                    raise InvalidProblem(name, getattr(self, name), "nothing beside a spectrum")
            put("features", self.spectrum.size)
        horizon = _number(
            "horizon",
            self.horizon,
            "a whole number of steps, 1 to 10^15",
            lambda x: 1 <= x <= 1e15 and x.is_integer(),
        )
        put("horizon", int(horizon))
        put(
            "batch_size",
            _number(
                "batch_size",
                self.batch_size,
                "a number >= 1, up to 1e15",
                lambda x: 1.0 <= x <= 1e15,
            ),
        )
        put(
            "noise",
            _number("noise", self.noise, "a number >= 0, up to 1e9", lambda x: 0.0 <= x <= 1e9),
        )
        rule = "a number > 0, 1e-100 or more"
        put("eta_max", _number("eta_max", self.eta_max, rule, lambda x: x >= 1e-100))
        warmup = _number(
            "warmup",
            self.warmup,
            f"a whole number, 0 to {self.horizon - 1}",
            lambda x: 0 <= x < self.horizon and x.is_integer(),
        )
        put("warmup", int(warmup))
        put(
            "eta_min",
            _number(
                "eta_min",
                self.eta_min,
                f"a number, 0 to below {self.eta_cap:.6g}",
                lambda x: 0.0 <= x < self.eta_cap,
            ),
        )
        if self.max_change is not None:
            put(
                "max_change",
                _number("max_change", self.max_change, "a number > 0", lambda x: x > 0.0),
            )

    @cached_property
    def stability_limit(self) -> float:
        """Largest stable constant rate of the exact recursion."""
        assert self.spectrum is not None
        return stability_limit(self.spectrum, self.batch_size)

    @property
    def eta_cap(self) -> float:
        """Upper bound in force: the smaller of ``eta_max`` and the stability limit."""
        return min(self.eta_max, self.stability_limit)

    @property
    def phase(self) -> str:
        """``easy`` (b < a), ``hard`` (b > a), ``boundary``, or ``unknown`` without exponents."""
        if self.a is None or self.b is None:
            return "unknown"
        return "easy" if self.b < self.a else "hard" if self.b > self.a else "boundary"

    @cached_property
    def modes(self) -> Modes:
        """Quadrature nodes, accurate up to the largest reachable intrinsic time."""
        assert self.spectrum is not None
        return self.spectrum.modes(self.eta_cap * self.horizon)

    @property
    def dynamics(self) -> SGD:
        """The exact recursion of this problem."""
        return SGD(self.batch_size, self.noise**2)

    def replace(self, **changes: Any) -> Problem:
        """A copy with some fields changed, validated again."""
        if isinstance(self.spectrum, PowerLawSpectrum) and "spectrum" not in changes:
            changes = {"spectrum": None, **changes}
        return replace(self, **changes)
