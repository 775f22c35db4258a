r"""Laws of the loss in the schedule, as interchangeable objects.

Every law has the loss after n steps as bias and noise,

.. math:: L = L_0 + A\, F(T_n) + B \sum_{i<n} u_i\, [P(x_{i+1}) - P(x_i)], \qquad
   x_i = C\,(T_n - T_i), \quad T_n = \sum_{i<n} \eta_i^g, \quad u_i = \eta_i^p ,

with rates over a reference rate: training runs along the clock T, the bias F falls with it, a step
adds noise in proportion to u, and the tail P says what is left of it later. `KernelLaw` covers the
functional scaling law (Li et al., arXiv 2509.19189), here with a clock exponent g below 1 for
adaptive optimisers, power-law features, whose F and P are incomplete-gamma integrals over the
spectrum, and the momentum law (Tissue et al., arXiv 2408.11029); `MultiPower` is the multi-power
law (Luo et al., arXiv 2503.12811).
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from optsched.arrays import Floats
from optsched.errors import InvalidProblem
from optsched.pilot.pieces import Pieces
from optsched.pilot.tails import Tail, features_tail, power_tail, step_tail

__all__ = [
    "LAWS",
    "Final",
    "KernelLaw",
    "Law",
    "MultiPower",
    "Prior",
    "features",
    "fsl",
    "momentum",
]


LEAST_CLOCK = 1e-3  # of the clock at the first loss: where the bias stops to grow backwards


@dataclass(frozen=True)
class Prior:
    """What is known of a parameter before the data; its uncertainty enters every interval.

    ``spread`` 0 holds the parameter.
    """

    mean: float
    spread: float


@dataclass(frozen=True, eq=False)
class Final:
    """The last loss of a run and its derivatives in the log rate of every piece.

    Attributes
    ----------
    loss : float
    drift, noise : numpy.ndarray, shape (n,)
        As the rate moves the clock, and as it makes noise; the derivative is their sum.
    """

    loss: float
    drift: Floats
    noise: Floats


class Law(abc.ABC):
    """A law of the loss: named parameters, their range, and the curve that they give."""

    name: str
    priors: Mapping[str, Prior]
    parameters: ClassVar[tuple[str, ...]]
    low: ClassVar[Floats]
    high: ClassVar[Floats]
    # Parameters in which the curve is linear once exponentials are taken: level, bias, noise.
    linear: ClassVar[tuple[str, str, str]] = ("level", "log_bias", "log_noise")

    @abc.abstractmethod
    def curve(self, theta: Floats, pieces: Pieces) -> Floats:
        """Loss at the observations, shape (k,)."""

    @abc.abstractmethod
    def jacobian(self, theta: Floats, pieces: Pieces) -> tuple[Floats, Floats]:
        """Loss (k,) and its derivatives in the parameters (k, len(theta))."""

    @abc.abstractmethod
    def starts(self) -> list[Floats]:
        """Where a fit may start; the linear parameters are solved for from there."""

    @property
    def held(self) -> dict[str, float]:
        """Parameters that are held, with their values."""
        return {name: p.mean for name, p in self.priors.items() if p.spread == 0.0}

    @property
    def free(self) -> list[int]:
        """Indices of the parameters that a fit may move."""
        return [i for i, name in enumerate(self.parameters) if name not in self.held]

    def describe(self) -> dict[str, Any]:
        """What a file needs to build the law again."""
        priors = {name: [p.mean, p.spread] for name, p in self.priors.items()}
        return {"name": self.name, "priors": priors}


def _differences(values: Floats) -> Floats:
    return values[..., 1:] - values[..., :-1]


@dataclass(frozen=True)
class KernelLaw(Law):
    r"""Bias and noise with one clock and one tail.

    Parameters of the law, in units of a `Scale`: ``level`` :math:`L_0`, ``log_bias``
    :math:`\ln A`, ``s`` (exponent of the bias), ``log_noise`` :math:`\ln B`, ``log_speed``
    :math:`\ln C`, ``q`` (exponent of the tail; that of the kernel is q + 1), ``clock`` g,
    ``amplitude`` p, and ``offset`` :math:`T_0`, a shift of the clock of the bias in units of the
    clock at the first loss: what the start of training is worth.

    Parameters
    ----------
    name : str
    priors : mapping of str to Prior
        Of any parameters; a spread of 0 holds one.
    tail, bias : callable
        P and F with their derivatives.
    by_steps : bool
        Whether noise fades with the number of steps instead of the clock.
    """

    name: str
    priors: Mapping[str, Prior]
    tail: Tail = field(default=power_tail, repr=False)
    bias: Tail | None = field(default=None, repr=False)
    by_steps: bool = False

    parameters: ClassVar[tuple[str, ...]] = (
        "level",
        "log_bias",
        "s",
        "log_noise",
        "log_speed",
        "q",
        "clock",
        "amplitude",
        "offset",
    )
    low: ClassVar[Floats] = np.array([0.0, -20.0, 0.02, -20.0, -3.0, 0.02, 0.1, 0.1, -0.9])
    high: ClassVar[Floats] = np.array([1e3, 20.0, 4.0, 20.0, 15.0, 5.0, 2.0, 2.0, 9.0])

    def _clocks(self, theta: Floats, pieces: Pieces) -> tuple[Floats, Floats]:
        """Clock of the bias and of the noise at all edges, shapes (n + 1,)."""
        clock = np.append(0.0, np.cumsum(pieces.mean(theta[6]) * pieces.length))
        steps = np.append(0.0, np.cumsum(pieces.length))
        return clock, steps if self.by_steps else clock

    def _time(self, clock: Floats, offset: float, first: float) -> Floats:
        """Clock of the bias, with its offset; F is a power of it, so that it stays above 0."""
        return np.maximum(clock + first * offset, LEAST_CLOCK * first)

    def bias_at(self, theta: Floats, time: Floats) -> Floats:
        """F at times of the clock, offset included, shape of ``time``."""
        return self._bias(theta, time)[0]

    def _bias(self, theta: Floats, time: Floats) -> tuple[Floats, Floats, Floats]:
        """F at the times, and its derivatives in the time and in s."""
        if self.bias is None:
            value = time ** -theta[2]
            return value, -theta[2] * value / time, -np.log(time) * value
        speed = math.exp(theta[4])
        value, slope, in_s = self.bias(speed * time, theta[2])
        return value, speed * slope, in_s

    def curve(self, theta: Floats, pieces: Pieces) -> Floats:
        clock, fade = self._clocks(theta, pieces)
        seen = pieces.observed
        gap = np.maximum(fade[seen][:, None] - fade, 0.0)
        tail = self.tail(math.exp(theta[4]) * gap, theta[5])[0]
        noise = _differences(tail) @ pieces.mean(theta[7])
        time = self._time(clock[seen], theta[8], pieces.first)
        bias = self._bias(theta, time)[0]
        return theta[0] + math.exp(theta[1]) * bias + math.exp(theta[3]) * noise

    def jacobian(self, theta: Floats, pieces: Pieces) -> tuple[Floats, Floats]:
        clock, fade = self._clocks(theta, pieces)
        seen, u = pieces.observed, pieces.mean(theta[7])
        speed, a, b = math.exp(theta[4]), math.exp(theta[1]), math.exp(theta[3])
        gap = fade[seen][:, None] - fade
        later = gap > 0.0
        gap = np.where(later, gap, 0.0)
        tail, slope, in_q = self.tail(speed * gap, theta[5])
        noise = _differences(tail) @ u
        time = self._time(clock[seen], theta[8], pieces.first)
        bias, bias_slope, bias_in_s = self._bias(theta, time)
        moved = np.append(0.0, np.cumsum(pieces.mean_log(theta[6]) * pieces.length))
        inside = time > LEAST_CLOCK * pieces.first
        out = np.empty((len(seen), 9))
        out[:, 0] = 1.0
        out[:, 1] = a * bias
        out[:, 2] = a * bias_in_s
        out[:, 3] = b * noise
        out[:, 4] = b * (_differences(slope * speed * gap) @ u)
        if self.bias is not None:
            out[:, 4] += a * bias_slope * time
        out[:, 5] = b * (_differences(in_q) @ u)
        out[:, 6] = a * bias_slope * inside * moved[seen]
        if not self.by_steps:
            shift = np.where(later, moved[seen][:, None] - moved, 0.0)
            out[:, 6] += b * (_differences(slope * speed * shift) @ u)
        out[:, 7] = b * (_differences(tail) @ pieces.mean_log(theta[7]))
        out[:, 8] = a * bias_slope * inside * pieces.first
        return theta[0] + a * bias + b * noise, out

    def final(self, theta: Floats, rate: Floats, length: Floats, first: float) -> Final:
        """Loss after all pieces of constant rate (n,) and length (n,), in units of a `Scale`."""
        g, p, speed = theta[6], theta[7], math.exp(theta[4])
        ticks, u = rate**g * length, rate**p
        # From the end backwards, so that short gaps are not lost in long clocks.
        togo = np.append(np.cumsum((length if self.by_steps else ticks)[::-1])[::-1], 0.0)
        tail, slope, _ = self.tail(speed * togo, theta[5])
        weight = math.exp(theta[3]) * _differences(tail)
        time = self._time(np.array([ticks.sum()]), theta[8], first)
        bias, bias_slope, _ = self._bias(theta, time)
        inside = float(time[0] > LEAST_CLOCK * first)
        push = np.full(len(rate), math.exp(theta[1]) * inside * bias_slope[0])
        if not self.by_steps:
            steps = np.diff(u, prepend=0.0) * slope[:-1]
            push -= math.exp(theta[3]) * speed * np.cumsum(steps)
        loss = theta[0] + math.exp(theta[1]) * bias[0] + float(weight @ u)
        return Final(float(loss), g * ticks * push, p * u * weight)

    def starts(self) -> list[Floats]:
        means = {name: prior.mean for name, prior in self.priors.items()}
        grids = {
            "s": (means["s"],) if "s" in means else (0.3, 0.6),
            "log_speed": (means["log_speed"],) if "log_speed" in means else (2.0, 4.0, 6.0),
            "q": (means["q"],) if "q" in means else (0.4, 1.0),
        }
        out = []
        for s in grids["s"]:
            for speed in grids["log_speed"]:
                for q in grids["q"]:
                    own = {"s": s, "log_speed": speed, "q": q, "offset": 0.0}
                    own = {"clock": 1.0, "amplitude": 1.0, **means, **own}
                    own |= self.held
                    out.append(np.array([own.get(name, 0.0) for name in self.parameters]))
        return out


@dataclass(frozen=True)
class MultiPower(Law):
    r"""Multi-power law (Luo et al., arXiv 2503.12811, eq. 1).

    .. math:: L = L_0 + A\,(T_n)^{-\alpha} - B \sum_{i<n} (\eta_{i-1} - \eta_i)
       \left[1 - (1 + C \eta_i^{-\gamma} (T_n - T_i))^{-\beta}\right], \quad
       T_n = \sum_{i<n} \eta_i ,

    where the warm-up, from a rate of 0, counts like every other change. Parameters: ``level``,
    ``log_bias``, ``alpha``, ``log_noise``, ``log_speed``, ``beta``, ``gamma``.
    """

    name: str
    priors: Mapping[str, Prior]

    parameters: ClassVar[tuple[str, ...]] = (
        "level",
        "log_bias",
        "alpha",
        "log_noise",
        "log_speed",
        "beta",
        "gamma",
    )
    low: ClassVar[Floats] = np.array([0.0, -20.0, 0.02, -20.0, -3.0, 0.02, -1.0])
    high: ClassVar[Floats] = np.array([1e3, 20.0, 4.0, 20.0, 15.0, 5.0, 2.0])

    def curve(self, theta: Floats, pieces: Pieces) -> Floats:
        return self.jacobian(theta, pieces)[0]

    def jacobian(self, theta: Floats, pieces: Pieces) -> tuple[Floats, Floats]:
        rate = pieces.mean(1.0)
        clock = np.append(0.0, np.cumsum(rate * pieces.length))
        seen = pieces.observed
        a, b, speed = math.exp(theta[1]), math.exp(theta[3]), math.exp(theta[4])
        gap = np.maximum(clock[seen][:, None] - clock[:-1], 0.0)
        z = speed * rate ** -theta[6] * gap
        tail, slope, in_q = power_tail(z, theta[5])
        change = np.diff(rate, prepend=0.0)
        noise = (1.0 - tail) @ change
        bias = clock[seen] ** -theta[2]
        out = np.empty((len(seen), 7))
        out[:, 0] = 1.0
        out[:, 1] = a * bias
        out[:, 2] = -a * np.log(clock[seen]) * bias
        out[:, 3] = b * noise
        out[:, 4] = -b * ((slope * z) @ change)
        out[:, 5] = -b * (in_q @ change)
        out[:, 6] = b * ((slope * z * np.log(rate)) @ change)
        return theta[0] + a * bias + b * noise, out

    def starts(self) -> list[Floats]:
        rows = [
            np.array([0.0, 0.0, alpha, 0.0, speed, beta, gamma])
            for alpha in (0.3, 0.6)
            for speed in (2.0, 4.0)
            for beta in (0.4, 1.0)
            for gamma in (0.0, 0.5)
        ]
        held = self.held
        for row in rows:
            for i, name in enumerate(self.parameters):
                row[i] = held.get(name, row[i])
        return rows


def fsl(**priors: Prior) -> KernelLaw:
    """Functional scaling law with a clock exponent: the default.

    Priors, weak where the data speak: what language models trained with adaptive optimisers show
    (s near 0.5, clock near 0.55, see `docs/pilot.md`). ``fsl(clock=Prior(1, 0),
    amplitude=Prior(1, 0))`` is the law for SGD, named ``fsl-sgd``.
    """
    known = {
        "s": Prior(0.5, 0.1),
        "q": Prior(0.6, 0.2),
        "clock": Prior(0.55, 0.07),
        "amplitude": Prior(1.0, 0.07),
        "offset": Prior(0.0, 0.1),
    }
    return KernelLaw("fsl", _known(known | priors))


def features(**priors: Prior) -> KernelLaw:
    r"""Mechanistic law: power-law features, whose bias and noise share their speed.

    ``s = (a - 1)/b`` and ``q = 1 - 1/b`` tie it to the exponents (a, b) of the model.
    """
    known = {
        "s": Prior(0.5, 0.1),
        "q": Prior(0.6, 0.2),
        "clock": Prior(0.55, 0.07),
        "amplitude": Prior(1.0, 0.07),
        "offset": Prior(0.0, 0.0),
    }
    return KernelLaw("features", _known(known | priors), features_tail, features_tail)


def momentum(**priors: Prior) -> KernelLaw:
    r"""Momentum law (Tissue et al., arXiv 2408.11029): :math:`L_0 + A S_1^{-\alpha} - C S_2`.

    :math:`S_1 = \sum \eta`, :math:`S_2 = \sum m_i`,
    :math:`m_i = \lambda m_{i-1} + \eta_{i-1} - \eta_i`: noise fades with the number of steps, as
    :math:`\lambda^n = e^{-n C / span}`.
    """
    known = {name: Prior(1.0, 0.0) for name in ("q", "clock", "amplitude")}
    known |= {"offset": Prior(0.0, 0.0)}
    return KernelLaw("momentum", _known(known | priors), step_tail, None, True)


def multi_power(**priors: Prior) -> MultiPower:
    """The multi-power law, without priors."""
    unknown = set(priors) - set(MultiPower.parameters)
    if unknown:
        raise InvalidProblem("priors", sorted(unknown), ", ".join(MultiPower.parameters))
    return MultiPower("multi-power", priors)


def _sgd(**priors: Prior) -> KernelLaw:
    """The functional scaling law as it is for SGD."""
    own = {
        "s": Prior(0.5, 0.3),
        "q": Prior(0.6, 0.3),
        "clock": Prior(1.0, 0.0),
        "amplitude": Prior(1.0, 0.0),
    }
    base = fsl(**(own | priors))
    return KernelLaw("fsl-sgd", base.priors)


def _known(priors: dict[str, Prior]) -> dict[str, Prior]:
    unknown = set(priors) - set(KernelLaw.parameters)
    if unknown:
        raise InvalidProblem("priors", sorted(unknown), ", ".join(KernelLaw.parameters))
    return priors


LAWS: dict[str, Callable[..., Law]] = {
    "fsl": fsl,
    "fsl-sgd": _sgd,
    "features": features,
    "multi-power": multi_power,
    "momentum": momentum,
}
