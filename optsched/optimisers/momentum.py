r"""SGD and its momenta: heavy ball, Nesterov, quasi-hyperbolic, each with averaging and decay.

.. math::
   v \leftarrow \beta v + (1-\beta) g, \qquad
   w \leftarrow w - \eta\,[(1-\nu) g + \nu v] - \eta\,\omega\, w, \qquad
   \bar w \leftarrow \rho\, \bar w + (1-\rho)\, w ,

with :math:`\nu = 0` for SGD, 1 for heavy ball, :math:`\beta` for Nesterov: see
`optsched.model.qhm`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from optsched.arrays import Floats
from optsched.checks import is_number
from optsched.errors import InvalidProblem
from optsched.model.spectrum import PowerLawSpectrum
from optsched.model.stability import momentum_limit, noise_limit
from optsched.optimisers.base import CALM, Limit, Optimiser, Setting, Start, cooled
from optsched.optimisers.coordinates import (
    Average,
    BoundedSplit,
    Chart,
    Constant,
    Forgetting,
    LogRate,
    SplitRate,
    Weight,
)
from optsched.schedules.schedule import Schedule

if TYPE_CHECKING:
    from optsched.model.dynamics import Dynamics

__all__ = ["QHM", "SGD", "HeavyBall", "Nesterov", "from_keywords", "is_plain", "keywords"]

# Problems of a study differ in their horizons alone, which the limit does not see.
_known_limit = lru_cache(maxsize=32)(momentum_limit)

_RANGES = {
    "beta": ("a number in [0, 1)", lambda x: 0.0 <= x < 1.0),
    "nu": ("a number in [0, 1]", lambda x: 0.0 <= x <= 1.0),
    "ema": ("a number in [0, 1)", lambda x: 0.0 <= x < 1.0),
    "weight_decay": ("a number >= 0, up to 1e9", lambda x: 0.0 <= x <= 1e9),
}


@dataclass(frozen=True)
class _Family(Optimiser):
    """What they share: their numbers, and one dynamics."""

    _: KW_ONLY
    ema: float | None = None
    weight_decay: float = 0.0

    kind: ClassVar[str]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is None and field.name != "weight_decay":
                continue
            allowed, check = _RANGES[field.name]
            if not (is_number(value) and math.isfinite(value) and check(value)):  # type: ignore[arg-type]
                raise InvalidProblem(field.name, value, allowed)
            object.__setattr__(self, field.name, float(value))  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        if type(self) not in _OWN:
            return type(self).__name__
        return "sgd" if self.kind == "none" else self.kind

    @property
    def momentum(self) -> tuple[float, float]:
        """Values of beta and nu where they are held."""
        return 0.0, 0.0

    def _scheduled(self, controls: Sequence[str]) -> bool:
        """Whether the momentum is scheduled."""
        return "beta" in controls or "nu" in controls

    def check(self, controls: Sequence[str]) -> None:
        super().check(controls)
        for name in self.controls:
            if name not in ("beta", "nu"):
                continue
            held = getattr(self, name)
            if held is None and name not in controls:
                allowed = f"a value, or {name} among the controls, with {self.name}"
                raise InvalidProblem(name, None, allowed)
            if held is not None and name in controls:
                raise InvalidProblem(name, held, f"nothing with {name} a control")

    def dynamics(self, setting: Setting) -> Dynamics:
        averaged = self.ema is not None or "ema" in setting.controls
        moving = self.kind != "none"
        if not (moving or averaged or self.weight_decay):
            from optsched.model import dynamics

            return dynamics.SGDDynamics(setting.batch_size, setting.sigma2)
        from optsched.model import qhm

        return qhm.QHMDynamics(
            setting.batch_size,
            setting.sigma2,
            *self.momentum,
            self.ema or 0.0,
            self.weight_decay,
            momentum=moving,
            averaged=averaged,
            decayed=self.weight_decay > 0.0,
        )

    def values(self, controls: Sequence[str]) -> dict[str, float]:
        found = {}
        if self.kind != "none":
            beta, nu = self.momentum
            found = {"beta": 0.5 if "beta" in controls else beta, "nu": nu}
        if self.ema is not None or "ema" in controls:
            found["ema"] = self.ema or 0.0
        return found

    def freed(self, names: Sequence[str]) -> Optimiser:
        kind: type[_Family] = type(self)
        if kind in _OWN and "nu" in names:
            kind = QHM
        elif kind is SGD and "beta" in names:
            kind = HeavyBall
        keep = [field.name for field in fields(kind) if field.name not in names]
        return kind(**{name: getattr(self, name) for name in keep if hasattr(self, name)})

    def limit(self, setting: Setting) -> Limit:
        if self._scheduled(setting.controls):
            # To leading order; larger rates are stable for a while.
            rate = noise_limit(setting.spectrum, setting.batch_size)
            return Limit(rate, "noise limit 2m/sum(lambda)", hard=False)
        known = isinstance(setting.spectrum, PowerLawSpectrum)
        find = _known_limit if known else momentum_limit
        return Limit(find(setting.spectrum, setting.batch_size, *self.momentum))

    def reach(self, setting: Setting) -> float:
        # A rate beyond the noise limit pays for free nu only, and then at most as T.
        return max(10.0 * setting.limit, setting.horizon / setting.spectrum.largest)

    def plain(self, controls: Sequence[str]) -> dict[str, float] | None:
        held = self.kind != "none" and not self._scheduled(controls)
        if held or self.ema is not None or self.weight_decay > 0.0:
            return None
        return {name: 0.0 for name in ("beta", "nu", "ema") if name in self.controls}

    def _wild(self, setting: Setting) -> float:
        """A rate that no optimum has."""
        return 10.0 * setting.horizon / setting.spectrum.largest

    def charts(self, setting: Setting, knots: int) -> list[Chart]:
        controls, cap = setting.controls, setting.cap
        charts: list[Chart] = []
        if "eta" not in controls:
            charts += [Weight()] if "nu" in controls else []
        elif "nu" not in controls:
            charts.append(LogRate(setting.floor, min(cap, self._wild(setting))))
        elif cap < math.inf:
            charts.append(BoundedSplit(cap))
        else:
            charts.append(SplitRate(4.0 / setting.spectrum.largest, self._wild(setting)))
        if "beta" in controls:
            charts += self._memory(setting, knots)
        if "ema" in controls:
            charts.append(Average(setting.horizon))
        return charts

    def _memory(self, setting: Setting, knots: int) -> list[Chart]:
        """Coordinates of a scheduled beta, and of a nu that follows from it."""
        return [Forgetting(setting.horizon, nesterov=False)]

    def starts(self, setting: Setting, steps: Floats, sgd: Schedule | None) -> dict[str, Start]:
        unit = self._unit(setting)
        found = self._growing(setting, steps, unit)
        if sgd is not None:
            eta = np.asarray(sgd(steps.astype(np.int64)), float)
            found["sgd"] = {"eta": eta} | self._beside(setting, eta)
            if "ema" in setting.controls:
                found["sgd"]["ema"] = np.full_like(eta, 0.1)
        if self.kind != "none":
            limit = min(noise_limit(setting.spectrum, setting.batch_size), 1e3 * unit)
            eta = np.minimum(CALM * max(limit, unit) * cooled(setting, steps), setting.cap)
            full = np.ones_like(eta)
            found["heavy ball"] = {"eta": eta, "beta": 0.8 * full, "nu": 0.9 * full}
            found |= self._annealed(setting, steps, eta)
        if "ema" in setting.controls or self.ema is not None:
            long = 1.0 - np.maximum(5.0 / setting.horizon, 1.0 / (5.0 + steps))
            found["constant and average"] = {"eta": np.full_like(steps, CALM * unit), "ema": long}
        return found

    def _unit(self, setting: Setting) -> float:
        """Largest rate of plain SGD."""
        known = isinstance(setting.spectrum, PowerLawSpectrum)
        find = _known_limit if known else momentum_limit
        return min(find(setting.spectrum, setting.batch_size, 0.0, 0.0), setting.cap)

    def _growing(self, setting: Setting, steps: Floats, unit: float) -> dict[str, Start]:
        return {}

    def _beside(self, setting: Setting, eta: Floats) -> Start:
        """A little momentum beside the rates of plain SGD."""
        return {}

    def _annealed(self, setting: Setting, steps: Floats, eta: Floats) -> dict[str, Start]:
        return {}

    def summary(self) -> dict[str, Any]:
        numbers = ("beta", "nu", "ema", "weight_decay")
        return {"momentum": self.kind} | {name: getattr(self, name, None) for name in numbers}

    def __str__(self) -> str:
        said = [f"momentum {self.kind}"] if self.kind != "none" else []
        for name in ("beta", "nu", "ema", "weight_decay"):
            if value := getattr(self, name, None):
                said.append(f"{name.replace('_', ' ')} {value:g}")
        return ", ".join(said)


@dataclass(frozen=True)
class SGD(_Family):
    """Plain SGD.

    Parameters
    ----------
    ema : float, optional
        Decay in [0, 1) of the exponential average of the iterates, whose loss then counts.
    weight_decay : float
        Decoupled weight decay, >= 0: ``w -= eta * weight_decay * w``.
    """

    kind = "none"
    controls = ("eta", "ema")


@dataclass(frozen=True)
class Momentum(_Family):
    """Momentum with a beta: what `HeavyBall`, `Nesterov` and `QHM` share.

    Parameters
    ----------
    beta : float, optional
        Momentum in [0, 1); not where it is scheduled.
    ema, weight_decay
        As for `SGD`.
    """

    beta: float | None = None

    def _growing(self, setting: Setting, steps: Floats, unit: float) -> dict[str, Start]:
        if not self._scheduled(setting.controls):
            return {}
        # Memory that grows with time, and a momentum rate that grows slowly (DANA).
        forget = 1.0 / (1.2 + steps / 3.0)
        power = isinstance(setting.spectrum, PowerLawSpectrum)
        growth = 1.0 / (setting.spectrum.b if power else 2.0)  # type: ignore[attr-defined]
        direct = CALM * unit * cooled(setting, steps)
        carried = self._carried(direct, steps, forget, growth)
        eta = direct + carried
        return {"growing memory": {"eta": eta, "nu": carried / eta, "beta": 1.0 - forget}}

    def _carried(self, direct: Floats, steps: Floats, forget: Floats, growth: float) -> Floats:
        return direct * (1.0 + steps) ** growth

    def _beside(self, setting: Setting, eta: Floats) -> Start:
        if not self._scheduled(setting.controls):
            return {}
        return {"beta": np.full_like(eta, 0.5), "nu": np.full_like(eta, 0.1)}


@dataclass(frozen=True)
class HeavyBall(Momentum):
    """Heavy ball (Polyak 1964): every gradient goes through the momentum.

    Parameters
    ----------
    beta, ema, weight_decay
        As for `Momentum`.
    """

    kind = "heavy-ball"
    controls = ("eta", "beta", "ema")

    @property
    def momentum(self) -> tuple[float, float]:
        return self.beta or 0.0, 1.0

    def reach(self, setting: Setting) -> float:
        return 10.0 * setting.limit

    def _wild(self, setting: Setting) -> float:
        return 1e4 * setting.limit

    def _memory(self, setting: Setting, knots: int) -> list[Chart]:
        return [*super()._memory(setting, knots), Constant({"nu": 1.0}, knots)]

    def _growing(self, setting: Setting, steps: Floats, unit: float) -> dict[str, Start]:
        return {}

    def _beside(self, setting: Setting, eta: Floats) -> Start:
        return {"beta": np.full_like(eta, 0.1)}

    def _annealed(self, setting: Setting, steps: Floats, eta: Floats) -> dict[str, Start]:
        forget = np.maximum(3.0 / (3.0 + steps), 1.0 / np.sqrt(setting.horizon))
        return {"growing memory": {"eta": eta, "beta": 1.0 - forget}}


@dataclass(frozen=True)
class Nesterov(Momentum):
    """Nesterov's momentum (Nesterov 1983), which is quasi-hyperbolic with nu = beta.

    Parameters
    ----------
    beta, ema, weight_decay
        As for `Momentum`.
    """

    kind = "nesterov"
    controls = ("eta", "beta", "ema")

    @property
    def momentum(self) -> tuple[float, float]:
        beta = self.beta or 0.0
        return beta, beta

    def _memory(self, setting: Setting, knots: int) -> list[Chart]:
        return [Forgetting(setting.horizon, nesterov=True)]

    def _carried(self, direct: Floats, steps: Floats, forget: Floats, growth: float) -> Floats:
        return direct * (1.0 / forget - 1.0)


@dataclass(frozen=True)
class QHM(Momentum):
    """Quasi-hyperbolic momentum (Ma & Yarats, ICLR 2019): a share nu of it, the rest the gradient.

    Parameters
    ----------
    nu : float, optional
        Weight of the momentum in [0, 1]; not where it is scheduled.
    beta, ema, weight_decay
        As for `Momentum`.
    """

    nu: float | None = None

    kind = "qhm"
    controls = ("eta", "beta", "nu", "ema")

    @property
    def momentum(self) -> tuple[float, float]:
        return self.beta or 0.0, self.nu or 0.0


_OWN: tuple[type[Any], ...] = (SGD, HeavyBall, Nesterov, QHM)


def from_keywords(
    controls: Sequence[str],
    momentum: str | None,
    beta: float | None,
    nu: float | None,
    ema: float | None,
    weight_decay: float,
) -> Optimiser:
    """The optimiser that the controls and held values ask for.

    Raises
    ------
    InvalidProblem
        If they contradict each other, or leave beta or nu without a value.
    """
    if momentum is None:
        if "nu" in controls or nu is not None:
            momentum = "qhm"
        else:
            momentum = "heavy-ball" if "beta" in controls or beta is not None else "none"
    kinds = {one.kind: one for one in _OWN}
    if not isinstance(momentum, str) or momentum not in kinds:
        raise InvalidProblem("momentum", momentum, "one of " + ", ".join(kinds))
    kind, held = kinds[momentum], {"beta": beta, "nu": nu}
    for name, value in held.items():
        if name in kind.controls:
            continue
        if name in controls:
            those = [other for other, one in kinds.items() if name in one.controls]
            allowed = f"{' or '.join(those)} with {name} a control"
            raise InvalidProblem("momentum", momentum, allowed)
        if value is not None:
            raise InvalidProblem(name, value, f"nothing with momentum {momentum}")
    own = {name: value for name, value in held.items() if name in kind.controls}
    return kind(**own, ema=ema, weight_decay=weight_decay)


def keywords(optimiser: Optimiser) -> dict[str, Any] | None:
    """Momentum, beta, nu, ema and weight decay of the library's own; None for any other."""
    return optimiser.summary() if type(optimiser) in _OWN else None


def is_plain(optimiser: Optimiser) -> bool:
    """Whether it is plain SGD and nothing else: of this very class, as a subclass may differ."""
    return type(optimiser) is SGD and optimiser.ema is None and not optimiser.weight_decay
