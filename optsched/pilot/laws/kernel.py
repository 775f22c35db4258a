r"""Laws with one clock and one tail, in the rates as they are.

.. math:: L = L_0 + A\, F(T_n) + B \sum_{i<n} u_i\, [P(x_{i+1}) - P(x_i)], \qquad
   x_i = C\,(T_n - T_i), \quad T_n = \sum_{i<n} \eta_i^g, \quad u_i = \eta_i^p ,

with rates over a reference rate: training runs along the clock T, the bias F falls with it, a step
adds noise in proportion to u, and the tail P says what is left of it later. `KernelLaw` covers the
functional scaling law (Li et al., arXiv 2509.19189), here with a clock exponent g below 1 for
adaptive optimisers, power-law features, whose F and P are incomplete-gamma integrals over the
spectrum, and the momentum law (Tissue et al., arXiv 2408.11029).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

import numpy as np

from optsched.arrays import Floats
from optsched.pilot.laws.law import Final, Law, Prior, known
from optsched.pilot.laws.tails import Tail, features_tail, power_tail, step_tail
from optsched.pilot.pieces import Pieces, Scale
from optsched.pilot.separable import Separable

__all__ = ["LEAST_CLOCK", "Kernel", "KernelLaw", "features", "fsl", "fsl_sgd", "momentum"]

LEAST_CLOCK = 1e-3  # of the clock at the first loss: where the bias stops to grow backwards
NOISE = Prior(math.log(0.05), 1.0)  # of its logarithm, over the loss, where runs do not show it


@dataclass(frozen=True)
class Kernel:
    """Parameters of a `KernelLaw` by name, in their order; of laws with more, the first ones."""

    level: float
    log_bias: float
    s: float
    log_noise: float
    log_speed: float
    q: float
    clock: float
    amplitude: float
    offset: float

    @property
    def bias(self) -> float:
        """A."""
        return math.exp(self.log_bias)

    @property
    def noise(self) -> float:
        """B."""
        return math.exp(self.log_noise)

    @property
    def speed(self) -> float:
        """C."""
        return math.exp(self.log_speed)

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Names of the parameters."""
        return tuple(field.name for field in fields(cls))


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

    parameters: ClassVar[tuple[str, ...]] = Kernel.names()
    low: ClassVar[Floats] = np.array([0.0, -20.0, 0.02, -20.0, -3.0, 0.02, 0.1, 0.1, -0.9])
    high: ClassVar[Floats] = np.array([1e3, 20.0, 4.0, 20.0, 15.0, 5.0, 2.0, 2.0, 9.0])
    plannable: ClassVar[bool] = True

    def named(self, theta: Floats) -> Kernel:
        """The parameters by name."""
        return Kernel(*theta.tolist())

    def for_runs(self, scale: Scale, losses: Sequence[float]) -> KernelLaw:
        """With a weak prior of the noise, which runs without a decay do not show at all."""
        if "log_noise" in self.priors or "q" not in self.priors or "q" in self.held:
            return self
        prior = Prior(NOISE.mean + math.log(float(np.median(losses))), NOISE.spread)
        return replace(self, priors={**self.priors, "log_noise": prior})

    def _clocks(self, p: Kernel, pieces: Pieces) -> tuple[Floats, Floats]:
        """Clock of the bias and of the noise at all edges, shapes (n + 1,)."""
        clock = np.append(0.0, np.cumsum(pieces.mean(p.clock) * pieces.length))
        steps = np.append(0.0, np.cumsum(pieces.length))
        return clock, steps if self.by_steps else clock

    def _time(self, clock: Floats, offset: float, first: float) -> Floats:
        """Clock of the bias, with its offset; F is a power of it, so that it stays above 0."""
        return np.maximum(clock + first * offset, LEAST_CLOCK * first)

    def separable(self, theta: Floats, first: float) -> Separable | None:
        if self.by_steps:
            return None
        p = self.named(theta)

        def tail(gap: Floats) -> tuple[Floats, Floats]:
            value, slope, _ = self.tail(p.speed * gap, p.q)
            return p.noise * value, p.noise * p.speed * slope

        return Separable(
            level=p.level,
            clock=p.clock,
            amplitude=p.amplitude,
            bias=lambda clock: p.bias * self._bias(p, self._time(clock, p.offset, first))[0],
            tail=tail,
        )

    def _bias(self, p: Kernel, time: Floats) -> tuple[Floats, Floats, Floats]:
        """F at the times, and its derivatives in the time and in s."""
        if self.bias is None:
            value = time**-p.s
            return value, -p.s * value / time, -np.log(time) * value
        value, slope, in_s = self.bias(p.speed * time, p.s)
        return value, p.speed * slope, in_s

    def curve(self, theta: Floats, pieces: Pieces) -> Floats:
        p = self.named(theta)
        clock, fade = self._clocks(p, pieces)
        seen = pieces.observed
        gap = np.maximum(fade[seen][:, None] - fade, 0.0)
        tail = self.tail(p.speed * gap, p.q)[0]
        noise = _differences(tail) @ pieces.mean(p.amplitude)
        bias = self._bias(p, self._time(clock[seen], p.offset, pieces.first))[0]
        return p.level + p.bias * bias + p.noise * noise

    def jacobian(self, theta: Floats, pieces: Pieces) -> tuple[Floats, Floats]:
        p = self.named(theta)
        clock, fade = self._clocks(p, pieces)
        seen, u = pieces.observed, pieces.mean(p.amplitude)
        speed, a, b = p.speed, p.bias, p.noise
        gap = fade[seen][:, None] - fade
        later = gap > 0.0
        gap = np.where(later, gap, 0.0)
        tail, slope, in_q = self.tail(speed * gap, p.q)
        noise = _differences(tail) @ u
        time = self._time(clock[seen], p.offset, pieces.first)
        bias, bias_slope, bias_in_s = self._bias(p, time)
        moved = np.append(0.0, np.cumsum(pieces.mean_log(p.clock) * pieces.length))
        inside = time > LEAST_CLOCK * pieces.first
        by_speed = b * (_differences(slope * speed * gap) @ u)
        if self.bias is not None:
            by_speed += a * bias_slope * time
        by_clock = a * bias_slope * inside * moved[seen]
        if not self.by_steps:
            shift = np.where(later, moved[seen][:, None] - moved, 0.0)
            by_clock += b * (_differences(slope * speed * shift) @ u)
        columns = {
            "level": np.ones(len(seen)),
            "log_bias": a * bias,
            "s": a * bias_in_s,
            "log_noise": b * noise,
            "log_speed": by_speed,
            "q": b * (_differences(in_q) @ u),
            "clock": by_clock,
            "amplitude": b * (_differences(tail) @ pieces.mean_log(p.amplitude)),
            "offset": a * bias_slope * inside * pieces.first,
        }
        return p.level + a * bias + b * noise, np.column_stack(
            [columns[name] for name in self.parameters]
        )

    def final(self, theta: Floats, rate: Floats, length: Floats, first: float) -> Final:
        p = self.named(theta)
        ticks, u = rate**p.clock * length, rate**p.amplitude
        # From the end backwards, so that short gaps are not lost in long clocks.
        togo = np.append(np.cumsum((length if self.by_steps else ticks)[::-1])[::-1], 0.0)
        tail, slope, _ = self.tail(p.speed * togo, p.q)
        weight = p.noise * _differences(tail)
        time = self._time(np.array([ticks.sum()]), p.offset, first)
        bias, bias_slope, _ = self._bias(p, time)
        inside = float(time[0] > LEAST_CLOCK * first)
        push = np.full(len(rate), p.bias * inside * bias_slope[0])
        if not self.by_steps:
            steps = np.diff(u, prepend=0.0) * slope[:-1]
            push -= p.noise * p.speed * np.cumsum(steps)
        loss = p.level + p.bias * bias[0] + float(weight @ u)
        return Final(float(loss), p.clock * ticks * push, p.amplitude * u * weight)

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


def fsl(**priors: Prior) -> KernelLaw:
    """Functional scaling law with a clock exponent.

    Priors, weak where the data speak: what language models trained with adaptive optimisers at one
    peak rate show (s near 0.5, clock near 0.55, see `docs/pilot.md`). ``fsl(clock=Prior(1, 0),
    amplitude=Prior(1, 0))`` is the law for SGD, named ``fsl-sgd``.
    """
    own = {
        "s": Prior(0.5, 0.1),
        "q": Prior(0.6, 0.2),
        "clock": Prior(0.55, 0.07),
        "amplitude": Prior(1.0, 0.07),
        "offset": Prior(0.0, 0.1),
    }
    return KernelLaw("fsl", known(own | priors, Kernel.names()))


def features(**priors: Prior) -> KernelLaw:
    r"""Mechanistic law: power-law features, whose bias and noise share their speed.

    ``s = (a - 1)/b`` and ``q = 1 - 1/b`` tie it to the exponents (a, b) of the model.
    """
    own = {
        "s": Prior(0.5, 0.1),
        "q": Prior(0.6, 0.2),
        "clock": Prior(0.55, 0.07),
        "amplitude": Prior(1.0, 0.07),
        "offset": Prior(0.0, 0.0),
    }
    return KernelLaw("features", known(own | priors, Kernel.names()), features_tail, features_tail)


def momentum(**priors: Prior) -> KernelLaw:
    r"""Momentum law (Tissue et al., arXiv 2408.11029): :math:`L_0 + A S_1^{-\alpha} - C S_2`.

    :math:`S_1 = \sum \eta`, :math:`S_2 = \sum m_i`,
    :math:`m_i = \lambda m_{i-1} + \eta_{i-1} - \eta_i`: noise fades with the number of steps, as
    :math:`\lambda^n = e^{-n C / span}`.
    """
    own = {name: Prior(1.0, 0.0) for name in ("q", "clock", "amplitude")}
    own |= {"offset": Prior(0.0, 0.0)}
    return KernelLaw("momentum", known(own | priors, Kernel.names()), step_tail, None, True)


def fsl_sgd(**priors: Prior) -> KernelLaw:
    """The functional scaling law as it is for SGD."""
    own = {
        "s": Prior(0.5, 0.3),
        "q": Prior(0.6, 0.3),
        "clock": Prior(1.0, 0.0),
        "amplitude": Prior(1.0, 0.0),
    }
    return KernelLaw("fsl-sgd", fsl(**(own | priors)).priors)
