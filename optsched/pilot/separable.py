r"""What a plan has to know of a law: its loss as a clock, a noise and the norm of the weights.

The final loss of these laws is, with rates over the reference rate and steps k over the span,

.. math:: L = L_0 + F(T) + \int_0^T k(T - \tau)\, x^p\, d\tau, \qquad
   \frac{dT}{dk} = \left(\frac{x}{1 + \sigma x}\right)^g ,

where x is the rate itself, or for laws that know the squared norm W of the weights

.. math:: x = \eta\,(W_*/W)^h , \qquad \frac{dW}{dk} = -2\Lambda\eta W + \Gamma\eta^2 .

In x the loss separates; of the norm it only knows that :math:`x \le \eta_{max} (W_*/W)^h`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats

__all__ = ["Separable", "Weights"]

NODES = np.array([1.0, 4.0, 1.0]) / 6.0  # of Simpson's rule


@dataclass(frozen=True)
class Weights:
    r"""How the squared norm of the weights moves, from 1, in the units of a `Scale`.

    Attributes
    ----------
    decay, growth : float
        :math:`\Lambda` and :math:`\Gamma`, >= 0.
    reference : float
        :math:`W_*`.
    power : float
        h.
    saturation : float
        :math:`\sigma \ge 0`.
    """

    decay: float
    growth: float
    reference: float
    power: float
    saturation: float = 0.0

    def highest(self, cap: float, steps: float, start: float) -> float:
        r"""What W is not above after any rates up to the cap.

        :math:`dW/dk` is convex in the rate, so that no rate makes W grow faster than 0 or the cap
        does: W stays below its start or the path of the held cap.
        """
        fade = 2.0 * self.decay * cap * steps
        share = -math.expm1(-fade) / fade if fade > 0.0 else 1.0
        held = start * math.exp(-fade) + self.growth * cap**2 * steps * share
        return max(start, held)

    def lowest(self, cap: float, steps: float, start: float) -> float:
        r"""What W is not below after any rates up to the cap.

        :math:`dW/dk` is least at :math:`\eta = \Lambda W/\Gamma`, where :math:`1/W` grows by
        :math:`\Lambda^2/\Gamma` a step; as long as that rate is above the cap it is so at the cap.
        """
        if self.decay == 0.0 or cap == 0.0:
            return start
        weight, left = start, steps
        even, turn = 0.5 * self.growth * cap / self.decay, self.growth * cap / self.decay
        if weight > turn:
            # The cap is held until W is down to `turn`, twice its rest `even`.
            until = math.inf if turn == 0.0 else math.log((weight - even) / (turn - even))
            held = min(until / (2.0 * self.decay * cap), steps)
            weight = even + (weight - even) * math.exp(-2.0 * self.decay * cap * held)
            left = steps - held
        if left > 0.0:
            weight = 1.0 / (1.0 / weight + self.decay**2 / self.growth * left)
        return weight

    def along(self, rate: Floats, length: Floats) -> Floats:
        """W at the start, in the middle and at the end of pieces of held rate, shape (3, n)."""
        out = np.empty((3, len(rate)))
        fade = self.decay * rate * length
        kept = np.exp(-fade)
        safe = np.maximum(fade, 1e-8)
        share = np.where(fade > 1e-8, -np.expm1(-safe) / safe, 1.0 - 0.5 * fade)
        grown = 0.5 * self.growth * rate**2 * length * share
        weight = 1.0
        for i in range(len(rate)):
            middle = weight * kept[i] + grown[i]
            end = middle * kept[i] + grown[i]
            out[:, i] = weight, middle, end
            weight = end
        return out


@dataclass(frozen=True)
class Separable:
    """A law with its parameters, as a plan and its bound take it.

    Attributes
    ----------
    level : float
        Loss at infinite time.
    clock, amplitude : float
        Exponents g and p, > 0.
    bias : callable
        F at clocks T, shape of the argument.
    tail : callable
        What is left of a unit of noise after a clock, times its size, and the derivative of that in
        the clock: shapes of the argument; it falls, and k is minus the derivative.
    weights : Weights, optional
        None where x is the rate itself and the clock does not saturate.
    """

    level: float
    clock: float
    amplitude: float
    bias: Callable[[Floats], Floats]
    tail: Callable[[Floats], tuple[Floats, Floats]]
    weights: Weights | None = None

    @property
    def speed(self) -> float:
        """One over the clock in which the youngest noise fades."""
        size, slope = self.tail(np.zeros(1))
        return max(-float(slope[0]), 1e-300) / max(float(size[0]), 1e-300)

    def play(self, rate: Floats, length: Floats) -> tuple[Floats, Floats, float]:
        """Ticks of the clock and noise of pieces of held rate, shapes (n,), and W at their end."""
        law = self.weights
        if law is None:
            return rate**self.clock * length, rate**self.amplitude, 1.0
        weight = law.along(rate, length)
        x = rate * (law.reference / weight) ** law.power
        ticks = NODES @ (x / (1.0 + law.saturation * x)) ** self.clock * length
        last = float(weight[2, -1]) if len(rate) else 1.0
        return ticks, NODES @ x**self.amplitude, last
