r"""Plans that can be said in a sentence: hold a rate, then decay.

After the warm-up the rate is :math:`\eta_h` for the first steps, and then, with r the share of the
decay that is done, :math:`\eta_h\,[f + (1 - f)(1 - r)^a]`. The predicted loss is flat around its
least, so that the best of these costs little; it also starts the search over free rates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize

from optsched.arrays import Floats, Ints
from optsched.pilot.planning.score import Score, finals
from optsched.pilot.planning.task import PlanTask

__all__ = ["Shape", "best_shape"]

EVERY_STEP = 400  # free steps up to which every one is a piece of its own
HELD_PIECES, DECAY_PIECES = 24, 160
STARTS = ((0.6, 1.5, 0.02), (0.88, 1.2, 0.1))  # held share, power, final rate over the held one
POWERS = 0.2, 12.0
LEAST = 1e-6  # of the held rate: 0 for all that a law can see
EVALUATIONS = 26  # of a search, for every number
FAR, NEAR = 0.7, 0.15  # size of a simplex in logarithms
KNOTS = 160  # of the decay, in a schedule
DIGITS = 2  # of power and final rate


@dataclass(frozen=True)
class Shape:
    """Hold, then decay.

    Attributes
    ----------
    held : int
        Free steps at the held rate.
    power, final : float
        Exponent of the decay, and its last rate over the held one.
    level : float
        Held rate over the cap.
    """

    held: int
    power: float
    final: float
    level: float = 1.0

    def rate(self, steps: Floats, free: int) -> Floats:
        """Rate over the cap at free steps after the warm-up."""
        left = np.clip((free - steps) / max(free - self.held, 1), 0.0, 1.0)
        return self.level * (self.final + (1.0 - self.final) * left**self.power)

    def edges(self, free: int, decay: int = DECAY_PIECES) -> Ints:
        """Steps between which the rate changes little, from 0 to ``free``."""
        if free <= EVERY_STEP:
            return np.arange(free + 1)
        last = free - self.held
        # Weights grow most in the first steps.
        held = np.append(
            np.linspace(0, self.held, HELD_PIECES + 1),
            np.geomspace(1, max(self.held, 1), HELD_PIECES + 1),
        )
        # Even in the rate near its start, in its logarithm near the end.
        even = free - np.linspace(0.0, last, decay // 2 + 1)
        graded = free - np.geomspace(1.0, max(last, 1), decay // 2 + 1)
        edges = np.concatenate([held, even, graded, [free]])
        return np.unique(np.round(edges).astype(np.int64))

    def pieces(self, task: PlanTask) -> tuple[Floats, Floats]:
        """Rates and lengths, in units of the scale, warm-up included."""
        edges = self.edges(task.free)
        centre = 0.5 * (edges[:-1] + edges[1:] - 1).astype(float)
        rate = np.maximum(task.unit_cap * self.rate(centre, task.free), 1e-12)
        ramp, length = task.ramp
        first = task.unit_cap * float(self.rate(np.zeros(1), task.free)[0])
        return (
            np.concatenate([ramp * first, rate]),
            np.concatenate([length, np.diff(edges) / task.found.scale.span]),
        )

    def knots(self, task: PlanTask) -> tuple[Ints, Floats]:
        """Steps and absolute rates of a schedule of all free steps, warm-up included."""
        steps = self.edges(task.free, KNOTS)[:-1]
        steps = np.unique(np.append(steps, task.free - 1))
        rate = task.cap * self.rate(steps.astype(float), task.free)
        if not task.warmup:
            return steps, rate
        # The ramp is a line to the rate at its end, which is a knot of its own.
        return (
            np.concatenate([[0], steps + task.warmup]),
            np.concatenate([[rate[0] / (task.warmup + 1.0)], rate]),
        )


def best_shape(
    task: PlanTask, score: Score, *, straight: bool = False, near: Shape | None = None
) -> tuple[Shape, float]:
    """The shape of the least score, and that score.

    Parameters
    ----------
    task : PlanTask
    score : Score
    straight : bool
        Whether the decay is a line to the floor, so that only its start is searched.
    near : Shape, optional
        Of a similar score: the search begins there and stays close.
    """
    free, floor = task.free, max(task.floor / task.cap, LEAST)

    def shape(z: Floats) -> Shape:
        held = round(free / (1.0 + math.exp(-float(np.clip(z[0], -20.0, 20.0)))))
        level = _level(z, straight, floor)
        least = min(floor / level, 1.0)
        if straight:
            return Shape(min(held, free - 1), 1.0, task.floor / task.cap / level, level)
        power = math.exp(float(np.clip(z[1], *np.log(POWERS))))
        final = math.exp(float(np.clip(z[2], math.log(least), 0.0)))
        return Shape(min(held, free - 1), power, final, level)

    def value(one: Shape) -> float:
        found = finals(task, score.thetas, *one.pieces(task))
        return score(np.array([each.loss for each in found]))[0]

    def start(held: float, power: float, final: float, level: float) -> Floats:
        held = min(max(held, 1e-3), 1.0 - 1e-3)
        out = [math.log(held / (1.0 - held))]
        out += [] if straight else [math.log(power), math.log(max(final, floor))]
        return np.array(out + ([math.log(level)] if task.start else []))

    def search(at: Floats, size: float) -> Floats:
        return _search(lambda z: value(shape(z)), at, size)

    if near is not None:
        at = search(start(near.held / free, near.power, near.final, near.level), NEAR)
    else:
        places = STARTS[:1] if straight else STARTS
        found = [search(start(*place, 1.0), FAR) for place in places]
        # Begun afresh once, as a simplex may stop on a ridge.
        at = search(min(found, key=lambda z: value(shape(z))), NEAR)
    one = _rounded(shape(at), floor)
    return one, value(one)


def _level(z: Floats, straight: bool, floor: float) -> float:
    """Held rate over the cap: free where a run is continued, as it may be past its peak."""
    at = 1 if straight else 3
    return math.exp(float(np.clip(z[at], math.log(floor), 0.0))) if len(z) > at else 1.0


def _search(loss: Any, start: Floats, size: float) -> Floats:
    """Nelder-Mead."""
    found = minimize(
        loss,
        start,
        method="Nelder-Mead",
        options={
            "initial_simplex": np.vstack([start, start + size * np.eye(len(start))]),
            "maxfev": EVALUATIONS * len(start),
            "xatol": 5e-3,
            "fatol": 1e-6,
        },
    )
    return np.asarray(found.x)


def _rounded(shape: Shape, floor: float) -> Shape:
    """The same with numbers of two digits, which nobody can tell apart."""

    def few(value: float) -> float:
        return float(f"{value:.{DIGITS}g}")

    level, final = few(shape.level), few(shape.final)
    if floor > LEAST:
        final = min(max(final, floor / level), 1.0)
    return Shape(shape.held, few(shape.power), 0.0 if final <= LEAST else final, level)
