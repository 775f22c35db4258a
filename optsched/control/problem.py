"""The optimal-control problem: what is minimised, over which schedules."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np

from optsched.arrays import Ints
from optsched.checks import is_number
from optsched.controls import control_names
from optsched.errors import InvalidProblem
from optsched.model.dynamics import Dynamics
from optsched.model.spectrum import Modes, PowerLawSpectrum, Spectrum
from optsched.objectives import FinalExcess, Objective, Terms, find_objective
from optsched.optimisers.base import Limit, Optimiser, Setting
from optsched.optimisers.contract import (
    check_dynamics,
    checked_limit,
    checked_values,
    switch_steps,
)
from optsched.optimisers.momentum import SGD, from_keywords, is_plain, keywords

__all__ = ["Problem"]

UNSAID: dict[str, Any] = {
    "momentum": None,
    "beta": None,
    "nu": None,
    "ema": None,
    "weight_decay": 0.0,
}
BEYOND = 100.0  # stability limits: higher rates are neither searched nor bounded
JOINT_NODES = 4  # a bin of eigenvalues, good to 1e-4: the replay runs all of them anyway
NO_NOISE = 1e15  # a batch size
FINAL = FinalExcess()
MOST_CORNERS = 4096  # every one is a knot of the mesh
MOST_JUMPS = 12  # corners, each with nodes of its own on both sides
MAX_EXPONENT = 50.0  # steeper power laws are one mode and nothing else


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

    for momentum, averaging and weight decay see `optsched.model.qhm.QHMDynamics`, and for an
    optimiser of your own `optsched.optimisers.base.Optimiser`.

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
    optimiser : Optimiser, optional
        Any optimiser, in place of ``momentum``, ``beta``, ``nu``, ``ema`` and ``weight_decay``,
        which are short for one of the library's own and say what that one is.

    objective : Objective, dict or str
        What is minimised in place of the excess loss after T steps: a weighted sum of the excess
        losses at several steps, or their mean. Also in words: ``final``, ``mean``,
        ``STEP:WEIGHT,...``, or as a dict of weights by steps.

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.
    BadPart
        If an optimiser or objective of the user's breaks its contract, naming the rule.
    """

    a: float | None = None
    b: float | None = None
    horizon: int = None  # type: ignore[assignment]
    features: float = 1000
    batch_size: float = 5.0
    noise: float = 0.5
    eta_max: float = None  # type: ignore[assignment]
    spectrum: Spectrum = None  # type: ignore[assignment]
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
    optimiser: Optimiser = None  # type: ignore[assignment]
    objective: Objective | Mapping[int, float] | str = FINAL
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
        self._put("objective", find_objective(self.objective))
        self._check_optimiser()
        self._check_samples()
        self._check_dynamics()
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
        if not isinstance(self.spectrum, Spectrum):
            allowed = "a Spectrum, such as TabulatedSpectrum(eigenvalues, target)"
            raise InvalidProblem("spectrum", self.spectrum, allowed)
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

    def _check_optimiser(self) -> None:
        """Which optimiser it is, and which of its parameters are free."""
        self._put("controls", control_names(self.controls))
        said = {name: getattr(self, name) for name in UNSAID}
        if self.optimiser is None:
            self._put("optimiser", from_keywords(self.controls, **said))
        else:
            for name, value in said.items():
                if value != UNSAID[name]:
                    raise InvalidProblem(name, value, "nothing beside an optimiser")
            if not isinstance(self.optimiser, Optimiser):
                allowed = "an Optimiser, such as HeavyBall(0.9)"
                raise InvalidProblem("optimiser", self.optimiser, allowed)
        self.optimiser.check(self.controls)
        for name, value in (keywords(self.optimiser) or UNSAID).items():
            self._put(name, value)

    def _check_dynamics(self) -> None:
        """Refuse an optimiser of the user's that breaks its contract."""
        if self.foreign:
            checked_values(self.optimiser, self.controls)
            check_dynamics(self.part, self.dynamics, self._given)
            switch_steps(self.part, self.dynamics, self.horizon)

    def _check_samples(self) -> None:
        if "batch_size" not in self.controls:
            if self.samples is not None:
                raise InvalidProblem("samples", self.samples, "nothing, unless batch is a control")
            return
        if self.samples is None:
            self._put("samples", self.batch_size * self.horizon)
        rule = f"a number >= {self.horizon}, one a step, up to 1e30"
        self._check("samples", rule, lambda x: self.horizon <= x <= 1e30)
        self._put("batch_size", self.samples / self.horizon)  # type: ignore[operator]

    def _check_rate(self) -> None:
        self._put("_default_cap", self.eta_max is None)
        bounded = self.limit.hard
        if self.eta_max is None:
            self._put("eta_max", 1.0 if bounded or self.rate_held else math.inf)
        if self.eta_max != math.inf or bounded:
            self._check("eta_max", "a number > 0, 1e-100 or more", lambda x: x >= 1e-100)
        if "eta" not in self.controls and self.eta_max >= self.stability_limit:
            limit = f"below {self.limit.rate:.6g}, the {self.limit.name}, as eta is held there"
            raise InvalidProblem("eta_max", self.eta_max, limit)
        if not (self.rate_held or min(self.eta_cap, self.optimiser.reach(self.setting)) < math.inf):
            allowed = f"a number > 0, as {self.optimiser.name} knows no largest rate of use"
            raise InvalidProblem("eta_max", self.given_eta_max, allowed)
        rule = f"a whole number, 0 to {self.horizon - 1}"
        self._check("warmup", rule, lambda x: 0 <= x < self.horizon, whole=True)
        rule = f"a number, 0 to below {self.eta_cap:.6g}"
        self._check("eta_min", rule, lambda x: 0.0 <= x < self.eta_cap)
        if self.max_change is not None:
            self._check("max_change", "a number > 0", lambda x: x > 0.0)
        for name in ("warmup", "eta_min", "max_change"):
            self._refuse_where_unknown(name)
        if len(self.corners) > MOST_CORNERS:
            allowed = f"so few that objective and {self.part} name at most {MOST_CORNERS} steps"
            raise InvalidProblem("horizon", self.horizon, allowed)

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
    def foreign(self) -> bool:
        """Whether any part of its dynamics is the user's: a subclass may differ in anything."""
        return type(self) is not Problem or keywords(self.optimiser) is None

    @property
    def part(self) -> str:
        """Whose dynamics it is, for messages."""
        name = "" if type(self) is Problem else f" in {type(self).__name__}"
        return f"optimiser {self.optimiser.name}{name}"

    def refuse_objective(self) -> None:
        """Refuse any other objective than the final excess loss, where that is what is studied.

        Raises
        ------
        InvalidProblem
        """
        if not self.terms.final:
            raise InvalidProblem("objective", self.terms.objective.name, "final, in this study")

    @cached_property
    def terms(self) -> Terms:
        """The objective at the horizon."""
        return Terms.of(find_objective(self.objective), self.horizon)

    @cached_property
    def corners(self) -> Ints:
        """Numbers of steps done, 0 and T among them, at which a mesh has to have a knot."""
        own = self.terms.corners
        if not self.foreign:  # what the library knows never changes its rule
            return own
        return np.union1d(own, switch_steps(self.part, self.dynamics, self.horizon))

    @property
    def jumps(self) -> Ints:
        """Those of the `corners` at which schedules may jump; of very many none."""
        few = len(self.corners) <= MOST_JUMPS
        return self.corners if few else np.array([0, self.horizon])

    @property
    def rate_held(self) -> bool:
        """Whether the learning rate is no control."""
        return "eta" not in self.controls

    @property
    def rate_only(self) -> bool:
        """Whether this is the learning rate of plain SGD alone, with its global bound."""
        own = type(self) is Problem and is_plain(self.optimiser)
        return own and self.controls == ("eta",)

    @cached_property
    def limit(self) -> Limit:
        """Stability limit of the optimiser; without noise where the batch size is scheduled."""
        if "batch_size" not in self.controls:
            return checked_limit(self.optimiser, self._given)
        found = checked_limit(self.optimiser, replace(self._given, batch_size=NO_NOISE))
        return found._replace(name="limit without noise") if found.hard else found

    @property
    def stability_limit(self) -> float:
        """Largest stable constant rate of the exact recursion.

        Where beta or nu is a control, the noise limit 2m/trace of heavy ball, to leading order;
        where the batch size is one, the limit without noise.
        """
        return self.limit.rate

    @property
    def contains_plain(self) -> bool:
        """Whether plain SGD with its rate scheduled is one of several choices."""
        inside = self.optimiser.plain(self.controls) is not None
        return inside and not (self.rate_held or self.rate_only)

    @property
    def eta_cap(self) -> float:
        """Upper bound in force: the smaller of ``eta_max`` and the stability limit.

        With scheduled momentum ``eta_max`` alone: large rates are stable there for a while.
        """
        return min(self.eta_max, self.limit.rate) if self.limit.hard else self.eta_max

    @property
    def phase(self) -> str:
        """``easy`` (b < a), ``hard`` (b > a), ``boundary``, or ``unknown`` without exponents."""
        if self.a is None or self.b is None:
            return "unknown"
        return "easy" if self.b < self.a else "hard" if self.b > self.a else "boundary"

    @property
    def eta_top(self) -> float:
        """Largest rate that the search and the lower bound cover.

        For the learning rate of plain SGD alone ``eta_max``, up to a hundred times the stability
        limit: for a few steps rates above the limit of a constant rate can pay. Else `eta_cap`.
        """
        if not self.rate_only:
            return self.eta_cap
        return min(self.eta_max, BEYOND * self.stability_limit)

    @cached_property
    def modes(self) -> Modes:
        """Quadrature nodes, accurate up to the largest reachable intrinsic time.

        Where the stability limit is not a hard one fewer of them: see `replay_modes`.
        """
        if self.limit.hard:
            return self.spectrum.modes(self.eta_top * self.horizon)
        rate = min(self.eta_cap, self.optimiser.reach(self.setting))
        return self.spectrum.modes(rate * self.horizon, nodes=JOINT_NODES)

    @property
    def replay_modes(self) -> Modes | None:
        """`modes` where they are good enough for a replay."""
        return self.modes if self.limit.hard else None

    @property
    def _given(self) -> Setting:
        """What an optimiser may know, before it is known which rates are stable."""
        m, sigma2 = self.batch_size, self.noise**2
        return Setting(self.spectrum, self.horizon, m, sigma2, self.controls)

    @property
    def setting(self) -> Setting:
        """What an optimiser may know of this problem."""
        ends = {"floor": self.eta_min, "cap": self.eta_cap, "limit": self.limit.rate}
        return replace(self._given, **ends)

    @property
    def dynamics(self) -> Dynamics:
        """The exact recursion of this problem."""
        return self.optimiser.dynamics(self._given)

    @property
    def plain(self) -> Problem:
        """The same for the learning rate of plain SGD alone, at the mean batch size."""
        if self.rate_only:
            return self
        # Of a subclass too: its dynamics may be another one.
        same = {f.name: getattr(self, f.name) for f in fields(Problem) if f.init}
        changes = {"controls": ("eta",), "optimiser": SGD(), "eta_max": self.given_eta_max}
        if isinstance(self.spectrum, PowerLawSpectrum):
            changes["spectrum"] = None
        return Problem(**{**same, **UNSAID, **changes, "samples": None})

    def freed(self, names: Sequence[str], **changes: Any) -> Problem:
        """A copy with these controls, none of which the optimiser holds any longer."""
        return self.replace(controls=names, optimiser=self.optimiser.freed(names), **changes)

    def replace(self, **changes: Any) -> Problem:
        """A copy with some fields changed, validated again; defaults follow the changes."""
        if isinstance(self.spectrum, PowerLawSpectrum) and "spectrum" not in changes:
            changes = {"spectrum": None, **changes}
        if self._default_cap:
            changes = {"eta_max": None, **changes}
        if "controls" in changes:
            changes = {"momentum": None, "samples": None, **changes}
        if "optimiser" in changes or keywords(self.optimiser) is None:
            changes = {**UNSAID, **changes}
        else:  # it follows from the others
            changes = {"optimiser": None, **changes}
        return replace(self, **changes)
