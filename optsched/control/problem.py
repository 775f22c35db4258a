"""The optimal-control problem: what is minimised, over which schedules."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

from optsched.checks import is_number
from optsched.controls import control_names, momentum_name
from optsched.errors import InvalidProblem
from optsched.model.dynamics import SGD, Dynamics
from optsched.model.spectrum import Modes, PowerLawSpectrum, Spectrum
from optsched.model.stability import momentum_limit, noise_limit

__all__ = ["Problem"]

PLAIN: dict[str, Any] = {
    "controls": ("eta",),
    "momentum": "none",
    "beta": None,
    "nu": None,
    "ema": None,
    "weight_decay": 0.0,
}
JOINT_NODES = 4  # a bin of eigenvalues, good to 1e-4: the replay runs all of them anyway
MAX_EXPONENT = 50.0  # steeper power laws are one mode and nothing else


# Problems of a study differ in their horizons alone, which the limit does not see.
_known_limit = lru_cache(maxsize=32)(momentum_limit)


def _number(name: str, value: Any, allowed: str, check: Callable[[float], bool]) -> float:
    """``value`` as float if it is a finite number that passes ``check``."""
    if is_number(value) and abs(value) <= sys.float_info.max and check(float(value)):
        return float(value)
    raise InvalidProblem(name, value, allowed)


@dataclass(frozen=True)
class Problem:
    r"""Minimise the excess loss after T steps over the schedules of the controls.

    For the learning rate of plain SGD alone, the default,

    .. math:: \min_{0 \le \eta_t \le \eta_{max}} E(T), \qquad
       e_j \leftarrow [1 - 2\eta\lambda_j + \eta^2 (1 + 1/m) \lambda_j^2] e_j
       + (\eta^2/m) \nu_j (E + \sigma^2) ;

    for momentum, averaging and weight decay see `optsched.model.qhm.QHM`.

    Parameters
    ----------
    a, b : float, optional
        Exponents of the target and of the covariance, both > 1. Give these or ``spectrum``.
    horizon : int
        Number of steps T >= 1.
    features : int or math.inf
        Number of features N of the power-law spectrum.
    batch_size : float
        Minibatch size m >= 1; where the batch size is a control, the mean that sets the default
        of ``samples``.
    noise : float
        Standard deviation of the label noise, >= 0.
    eta_max : float, optional
        Upper bound of the learning rate, > 0; 1 if not given, and none where momentum is a
        control. Where it exceeds the stability limit of the recursion, that limit bounds the rate
        instead: see `eta_cap`. Where eta is not a control it is held at this value.
    spectrum : Spectrum, optional
        Any spectrum instead of (a, b, features).
    warmup : int
        Steps of a forced linear ramp: the rate of step k < warmup is ``(k+1)/(warmup+1)`` times
        the rate of step ``warmup``.
    eta_min : float
        Floor of the rate after warm-up (final-rate floor).
    max_change : float, optional
        Largest change of the rate from one step to the next, ``abs(eta[k+1] - eta[k])``.
    controls : sequence of str, or str with commas
        What is scheduled: any of ``eta``, ``beta``, ``nu``, ``batch_size`` (``batch``), ``ema``.
    momentum : {"none", "heavy-ball", "nesterov", "qhm"}, optional
        Kind of momentum: nu = 0, nu = 1, nu = beta, or nu free. Follows from the controls and
        fixed values if not given.
    beta, nu : float, optional
        Momentum in [0, 1) and its weight in [0, 1] where they are held.
    samples : float, optional
        Budget of samples, the sum of the batch sizes, where the batch size is a control; at
        least one a step, ``batch_size * horizon`` if not given.
    ema : float, optional
        Decay in [0, 1) of the exponential average of the iterates, whose loss then counts.
    weight_decay : float
        Decoupled weight decay, >= 0: ``w -= eta * weight_decay * w``.

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
    eta_max: float = None  # type: ignore[assignment]
    spectrum: Spectrum | None = field(default=None)
    warmup: int = 0
    eta_min: float = 0.0
    max_change: float | None = None
    controls: Sequence[str] = ("eta",)
    momentum: str = None  # type: ignore[assignment]
    beta: float | None = None
    nu: float | None = None
    samples: float | None = None
    ema: float | None = None
    weight_decay: float = 0.0
    _default_cap: bool = field(init=False, repr=False, compare=False, default=True)

    def _put(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check(
        self, name: str, allowed: str, check: Callable[[float], bool], *, whole: bool = False
    ) -> None:
        """Replace a field by its value as a number."""
        value = _number(
            name, getattr(self, name), allowed, lambda x: check(x) and (not whole or x.is_integer())
        )
        self._put(name, int(value) if whole else value)

    def __post_init__(self) -> None:
        self._check_spectrum()
        self._check(
            "horizon", "a whole number of steps, 1 to 10^15", lambda x: 1 <= x <= 1e15, whole=True
        )
        self._check("batch_size", "a number >= 1, up to 1e15", lambda x: 1.0 <= x <= 1e15)
        self._check("noise", "a number >= 0, up to 1e9", lambda x: 0.0 <= x <= 1e9)
        self._check_update()
        self._check_samples()
        self._check_rate()

    def _check_spectrum(self) -> None:
        if self.spectrum is None:
            rule = f"a finite number greater than 1, up to {MAX_EXPONENT:g}"
            for name in ("a", "b"):
                self._check(name, rule, lambda x: 1.0 < x <= MAX_EXPONENT)
            if self.features != math.inf:
                rule = "a whole number >= 1, or inf"
                self._check("features", rule, lambda x: x >= 1, whole=True)
            self._put("spectrum", PowerLawSpectrum(self.a, self.b, self.features))  # type: ignore[arg-type]
            return
        own = isinstance(self.spectrum, PowerLawSpectrum)
        for name in ("a", "b"):
            given = getattr(self, name)
            value = getattr(self.spectrum, name) if own else None
            if given is not None and given != value:
                allowed = (
                    f"{value}, as in the given spectrum" if own else "nothing beside a spectrum"
                )
                raise InvalidProblem(name, given, allowed)
            self._put(name, value)
        self._put("features", self.spectrum.size)

    def _check_update(self) -> None:
        """Which optimiser it is, and which of its parameters are free."""
        controls = control_names(self.controls)
        self._put("controls", controls)
        self._put("momentum", momentum_name(self.momentum, controls, self.beta, self.nu))
        for name, allowed, below in (("beta", "[0, 1)", 1.0), ("nu", "[0, 1]", math.inf)):
            if getattr(self, name) is not None:
                self._check(name, f"a number in {allowed}", lambda x: 0.0 <= x <= 1.0 and x < below)  # noqa: B023
        if self.ema is not None:
            self._check("ema", "a number in [0, 1)", lambda x: 0.0 <= x < 1.0)
        self._check("weight_decay", "a number >= 0, up to 1e9", lambda x: 0.0 <= x <= 1e9)

    def _check_samples(self) -> None:
        if "batch_size" not in self.controls:
            if self.samples is not None:
                raise InvalidProblem("samples", self.samples, "nothing, unless batch is a control")
            return
        if self.samples is None:
            self._put("samples", self.batch_size * self.horizon)
        rule = f"a number >= {self.horizon}, one a step, up to 1e30"
        self._check("samples", rule, lambda x: self.horizon <= x <= 1e30)
        assert self.samples is not None
        self._put("batch_size", self.samples / self.horizon)

    def _check_rate(self) -> None:
        self._put("_default_cap", self.eta_max is None)
        if self.eta_max is None:
            free = self.scheduled_momentum and "eta" in self.controls
            self._put("eta_max", math.inf if free else 1.0)
        if self.eta_max != math.inf or not self.scheduled_momentum:
            self._check("eta_max", "a number > 0, 1e-100 or more", lambda x: x >= 1e-100)
        if "eta" not in self.controls and self.eta_max >= self.stability_limit:
            limit = f"below {self.stability_limit:.6g}, the {self.limit_name}, as eta is held there"
            raise InvalidProblem("eta_max", self.eta_max, limit)
        rule = f"a whole number, 0 to {self.horizon - 1}"
        self._check("warmup", rule, lambda x: 0 <= x < self.horizon, whole=True)
        rule = f"a number, 0 to below {self.eta_cap:.6g}"
        self._check("eta_min", rule, lambda x: 0.0 <= x < self.eta_cap)
        if self.max_change is not None:
            self._check("max_change", "a number > 0", lambda x: x > 0.0)
        for name in ("warmup", "eta_min", "max_change"):
            self._refuse_where_unknown(name)

    def _refuse_where_unknown(self, name: str) -> None:
        """Constraints of the rate that the joint solver does not keep."""
        value = getattr(self, name)
        unheld = "eta" not in self.controls or (name == "eta_min" and "nu" in self.controls)
        if value and (unheld or (name == "max_change" and not self.rate_only)):
            alone = "0" if name != "max_change" else "nothing"
            raise InvalidProblem(name, value, f"{alone} with controls {','.join(self.controls)}")

    @property
    def given_eta_max(self) -> float | None:
        """``eta_max`` if it was given, else None."""
        return None if self._default_cap else self.eta_max

    @property
    def scheduled_momentum(self) -> bool:
        """Whether beta or nu is a control."""
        return "beta" in self.controls or "nu" in self.controls

    @property
    def rate_held(self) -> bool:
        """Whether the learning rate is no control."""
        return "eta" not in self.controls

    @property
    def rate_only(self) -> bool:
        """Whether this is the learning rate of plain SGD alone, with its global bound."""
        return self.controls == ("eta",) and isinstance(self.dynamics, SGD)

    @cached_property
    def stability_limit(self) -> float:
        """Largest stable constant rate of the exact recursion.

        Where beta or nu is a control, the noise limit 2m/trace of heavy ball, to leading order;
        where the batch size is one, the limit without noise.
        """
        assert self.spectrum is not None
        m = 1e15 if "batch_size" in self.controls else self.batch_size
        if self.scheduled_momentum:
            return noise_limit(self.spectrum, m)
        limit = _known_limit if isinstance(self.spectrum, PowerLawSpectrum) else momentum_limit
        return limit(self.spectrum, m, *self.held_momentum)

    @property
    def contains_plain(self) -> bool:
        """Whether plain SGD with its rate scheduled is one of several choices."""
        held = self.momentum != "none" and not self.scheduled_momentum
        extra = held or self.ema is not None or self.weight_decay > 0.0
        return "eta" in self.controls and not self.rate_only and not extra

    @property
    def limit_name(self) -> str:
        """What bounds a constant rate, in words."""
        if self.scheduled_momentum:
            return "noise limit 2m/sum(lambda)"
        return "limit without noise" if "batch_size" in self.controls else "stability limit"

    @property
    def held_momentum(self) -> tuple[float, float]:
        """Values of beta and nu where they are held."""
        beta = 0.0 if self.beta is None else self.beta
        nu = {"none": 0.0, "heavy-ball": 1.0, "nesterov": beta}.get(self.momentum)
        return beta, (self.nu if self.nu is not None else 0.0) if nu is None else nu

    @property
    def eta_cap(self) -> float:
        """Upper bound in force: the smaller of ``eta_max`` and the stability limit.

        With scheduled momentum ``eta_max`` alone: large rates are stable there for a while.
        """
        return self.eta_max if self.scheduled_momentum else min(self.eta_max, self.stability_limit)

    @property
    def phase(self) -> str:
        """``easy`` (b < a), ``hard`` (b > a), ``boundary``, or ``unknown`` without exponents."""
        if self.a is None or self.b is None:
            return "unknown"
        return "easy" if self.b < self.a else "hard" if self.b > self.a else "boundary"

    @cached_property
    def modes(self) -> Modes:
        """Quadrature nodes, accurate up to the largest reachable intrinsic time.

        With scheduled momentum fewer of them: they are not used for replays.
        """
        assert self.spectrum is not None
        rate = self.eta_cap
        if not self.scheduled_momentum:
            return self.spectrum.modes(rate * self.horizon)
        # A rate beyond the noise limit pays for free nu only, and then at most as T.
        free = self.horizon / self.spectrum.largest if self.momentum != "heavy-ball" else 0.0
        rate = min(rate, max(10.0 * self.stability_limit, free))
        return self.spectrum.modes(rate * self.horizon, nodes=JOINT_NODES)

    @property
    def dynamics(self) -> Dynamics:
        """The exact recursion of this problem."""
        averaged = self.ema is not None or "ema" in self.controls
        if self.momentum == "none" and not averaged and not self.weight_decay:
            return SGD(self.batch_size, self.noise**2)
        from optsched.model.qhm import QHM

        beta, nu = self.held_momentum
        return QHM(
            self.batch_size,
            self.noise**2,
            beta,
            nu,
            self.ema or 0.0,
            self.weight_decay,
            momentum=self.momentum != "none",
            averaged=averaged,
            decayed=self.weight_decay > 0.0,
        )

    @property
    def plain(self) -> Problem:
        """The same for the learning rate of plain SGD alone, at the mean batch size."""
        changes = {**PLAIN, "eta_max": self.given_eta_max}
        return self if self.rate_only else self.replace(**changes)

    def replace(self, **changes: Any) -> Problem:
        """A copy with some fields changed, validated again; defaults follow the changes."""
        if isinstance(self.spectrum, PowerLawSpectrum) and "spectrum" not in changes:
            changes = {"spectrum": None, **changes}
        if self._default_cap:
            changes = {"eta_max": None, **changes}
        if "controls" in changes:
            changes = {"momentum": None, "samples": None, **changes}
        return replace(self, **changes)
