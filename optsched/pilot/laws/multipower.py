"""The multi-power law, for prediction only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

from optsched.arrays import Floats
from optsched.pilot.laws.law import Law, Prior, known
from optsched.pilot.laws.tails import power_tail
from optsched.pilot.pieces import Pieces

__all__ = ["MultiPower", "multi_power"]


class Powers(NamedTuple):
    """Parameters of a `MultiPower` law by name."""

    level: float
    log_bias: float
    alpha: float
    log_noise: float
    log_speed: float
    beta: float
    gamma: float


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

    parameters: ClassVar[tuple[str, ...]] = Powers._fields
    low: ClassVar[Floats] = np.array([0.0, -20.0, 0.02, -20.0, -3.0, 0.02, -1.0])
    high: ClassVar[Floats] = np.array([1e3, 20.0, 4.0, 20.0, 15.0, 5.0, 2.0])

    def curve(self, theta: Floats, pieces: Pieces) -> Floats:
        return self.jacobian(theta, pieces)[0]

    def jacobian(self, theta: Floats, pieces: Pieces) -> tuple[Floats, Floats]:
        p = Powers(*theta.tolist())
        rate = pieces.mean(1.0)
        clock = np.append(0.0, np.cumsum(rate * pieces.length))
        seen = pieces.observed
        a, b, speed = math.exp(p.log_bias), math.exp(p.log_noise), math.exp(p.log_speed)
        gap = np.maximum(clock[seen][:, None] - clock[:-1], 0.0)
        z = speed * rate**-p.gamma * gap
        tail, slope, in_q = power_tail(z, p.beta)
        change = np.diff(rate, prepend=0.0)
        noise = (1.0 - tail) @ change
        bias = clock[seen] ** -p.alpha
        columns = {
            "level": np.ones(len(seen)),
            "log_bias": a * bias,
            "alpha": -a * np.log(clock[seen]) * bias,
            "log_noise": b * noise,
            "log_speed": -b * ((slope * z) @ change),
            "beta": -b * (in_q @ change),
            "gamma": b * ((slope * z * np.log(rate)) @ change),
        }
        return p.level + a * bias + b * noise, np.column_stack(
            [columns[name] for name in self.parameters]
        )

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


def multi_power(**priors: Prior) -> MultiPower:
    """The multi-power law, without priors."""
    return MultiPower("multi-power", known(priors, Powers._fields))
