"""What a plan minimises: the predicted final loss as a function of log rates at knots."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.control.mesh import StepMesh
from optsched.pilot.fitting import Fit
from optsched.pilot.laws import KernelLaw, Law
from optsched.pilot.planning.relaxed import Relaxed, relaxed_plan

__all__ = ["Past", "PlanObjective", "PlanTask"]


EVERY_STEP = 4000  # horizons up to which every step is a piece of its own
PARTS = 12  # pieces between two knots


@dataclass(frozen=True, eq=False)
class Past:
    """Pieces before the free steps, over the units of the scale."""

    rate: Floats
    length: Floats

    def clock(self, g: float) -> float:
        """Their clock."""
        return float((self.rate**g) @ self.length)


@dataclass(frozen=True, eq=False)
class PlanTask:
    """What is planned: bounds, horizon and past, in absolute rates and steps."""

    found: Fit
    horizon: int
    start: int
    warmup: int
    cap: float
    floor: float
    past: Past

    @property
    def law(self) -> Law:
        """The law, which can be planned with."""
        return self.found.law

    @property
    def steps(self) -> int:
        """Number of free steps, a forced warm-up included."""
        return self.horizon - self.start

    def relaxed(self, theta: Floats) -> Relaxed | None:
        """Relaxed optimum of a law of the rates themselves, whose noise fades with the clock."""
        law, scale = self.law, self.found.scale
        if not isinstance(law, KernelLaw) or law.by_steps:
            return None
        named = law.named(theta)
        g, p, speed = named.clock, named.amplitude, named.speed
        cap = self.cap / scale.rate
        ramp = (np.arange(self.warmup) + 1.0) / (self.warmup + 1.0)
        reach = float(((cap * ramp) ** g).sum()) / scale.span
        behind = np.append(np.cumsum((self.past.rate**g * self.past.length)[::-1])[::-1], 0.0)

        def residue(tau: float) -> float:
            tail = law.tail(speed * (behind + tau + reach), named.q)[0]
            return named.noise * float(np.diff(tail) @ self.past.rate**p)

        return relaxed_plan(
            law,
            theta,
            steps=(self.steps - self.warmup) / scale.span,
            cap=cap,
            floor=self.floor / scale.rate,
            first=scale.first,
            clock=self.past.clock(g) + reach,
            residue=residue if len(self.past.rate) else None,
        )


class PlanObjective:
    """Logarithm of the predicted excess loss in the log rates of the free knots."""

    def __init__(self, task: PlanTask, mesh: StepMesh, thetas: Sequence[Floats], floors: Floats):
        self.task, self.mesh, self.thetas, self.floors = task, mesh, thetas, floors
        edges = _piece_edges(mesh)
        centre = 0.5 * (edges[:-1] + edges[1:] - 1)
        self.length = np.diff(edges) / task.found.scale.span
        right = np.clip(np.searchsorted(mesh.steps, centre, side="left"), 1, None)
        right = np.minimum(right, max(len(mesh.steps) - 1, 0))
        left = np.maximum(right - 1, 0)
        width = np.maximum(mesh.steps[right] - mesh.steps[left], 1)
        self.left, self.right = left, right
        self.share = np.clip((centre - mesh.steps[left]) / width, 0.0, 1.0)
        self.evaluations = 0
        self.soft = 0.0  # width of a soft maximum over the laws; 0 for their mean
        self.size = 1.0

    def rates(self, x: Floats) -> Floats:
        """Rate of every piece over the reference rate."""
        knots = self.mesh.knots(np.exp(x)) / self.task.found.scale.rate
        return knots[self.left] * (1.0 - self.share) + knots[self.right] * self.share

    def losses(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """Final losses (K,) under all laws, and derivatives in the log rates of pieces (K, n)."""
        task, rate = self.task, self.rates(x)
        full = np.concatenate([task.past.rate, rate])
        length = np.concatenate([task.past.length, self.length])
        law, first, old = task.law, task.found.scale.first, len(task.past.rate)
        finals = [law.final(theta, full, length, first) for theta in self.thetas]
        return (
            np.array([one.loss for one in finals]),
            np.array([one.drift[old:] for one in finals]),
            np.array([one.noise[old:] for one in finals]),
        )

    def __call__(self, x: Floats) -> tuple[float, Floats, Floats]:
        """Value, gradient and metric, as the descent wants them."""
        self.evaluations += 1
        losses, drift, noise = self.losses(x)
        excess = losses - self.floors
        if self.soft:
            top = excess.max()
            weights = np.exp((excess - top) / self.soft)
            value = (top + self.soft * math.log(weights.mean())) / self.size
            weights = weights / weights.sum() / self.size
        else:
            mean = float(excess.mean())
            value = math.log(max(mean, 1e-300))
            weights = np.full(len(excess), 1.0 / (len(excess) * max(mean, 1e-300)))
        own = np.exp(x)
        rate = np.maximum(self.rates(x), 1e-300)

        def pull(pieces: Floats) -> Floats:
            """From log rates of pieces to log rates of free knots."""
            slope = pieces / rate / self.task.found.scale.rate
            count = len(self.mesh.steps)
            at_knots = np.zeros(count)
            np.add.at(at_knots, self.left, slope * (1.0 - self.share))
            np.add.at(at_knots, self.right, slope * self.share)
            total = np.zeros(self.mesh.controls)
            np.add.at(total, self.mesh.source, at_knots * self.mesh.scale)
            return total * own

        gradient = pull(weights @ (drift + noise))
        return value, gradient, np.abs(pull(weights @ np.abs(noise))) + 1e-12


def _piece_edges(mesh: StepMesh) -> Ints:
    """Edges of the pieces, in free steps."""
    if mesh.horizon <= EVERY_STEP:
        return np.arange(mesh.horizon + 1)
    edges = [np.array([0, mesh.horizon])]
    for low, high in zip(mesh.steps[:-1], mesh.steps[1:], strict=True):
        parts = min(PARTS, int(high - low))
        edges.append(low + np.arange(parts + 1) * (high - low) // parts)
    return np.unique(np.concatenate(edges)).astype(np.int64)
