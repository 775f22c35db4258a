"""A plan as a control problem: log rates at knots, and the score of what follows from them."""

from __future__ import annotations

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.control.mesh import StepMesh
from optsched.pilot.planning.score import Score, finals
from optsched.pilot.planning.task import PlanTask

__all__ = ["PlanObjective"]

EVERY_STEP = 4000  # horizons up to which every step is a piece of its own
PARTS = 12  # pieces between two knots
STRETCH = 1e-3  # relative change of the steps for the price of one


class PlanObjective:
    """Score in the log rates of the free knots."""

    def __init__(self, task: PlanTask, mesh: StepMesh, score: Score):
        self.task, self.mesh, self.score = task, mesh, score
        edges = _piece_edges(mesh)
        centre = 0.5 * (edges[:-1] + edges[1:] - 1)
        self.length = np.diff(edges) / task.found.scale.span
        right = np.clip(np.searchsorted(mesh.steps, centre, side="left"), 1, None)
        right = np.minimum(right, max(len(mesh.steps) - 1, 0))
        left = np.maximum(right - 1, 0)
        width = np.maximum(mesh.steps[right] - mesh.steps[left], 1)
        self.left, self.right = left, right
        self.share = np.clip((centre - mesh.steps[left]) / width, 0.0, 1.0)
        self.forced = edges[:-1] < task.warmup
        self.evaluations = 0

    def rates(self, x: Floats) -> Floats:
        """Rate of every piece over the reference rate."""
        knots = self.mesh.knots(np.exp(x)) / self.task.found.scale.rate
        return knots[self.left] * (1.0 - self.share) + knots[self.right] * self.share

    def losses(self, x: Floats) -> Floats:
        """Final losses (K,) under all parameters of the score."""
        found = finals(self.task, self.score.thetas, self.rates(x), self.length)
        return np.array([one.loss for one in found])

    def price(self, x: Floats) -> float:
        """Loss that a span of further steps would take, if all free steps were stretched."""
        theta, rate = self.score.thetas[:1], self.rates(x)
        more, less = (
            finals(self.task, theta, rate, self.length * np.where(self.forced, 1.0, stretch))[0]
            for stretch in (1.0 + STRETCH, 1.0 - STRETCH)
        )
        steps = float(self.length[~self.forced].sum())
        return (less.loss - more.loss) / (2.0 * STRETCH * steps)

    def __call__(self, x: Floats) -> tuple[float, Floats, Floats]:
        """Value, gradient and metric, as the descent wants them."""
        self.evaluations += 1
        rate, old = self.rates(x), len(self.task.past[0])
        found = finals(self.task, self.score.thetas, rate, self.length)
        value, weights = self.score(np.array([one.loss for one in found]))
        drift = weights @ np.array([one.drift[old:] for one in found])
        noise = np.array([one.noise[old:] for one in found])
        own, safe = np.exp(x), np.maximum(rate, 1e-300)

        def pull(pieces: Floats) -> Floats:
            """From log rates of pieces to log rates of free knots."""
            slope = pieces / safe / self.task.found.scale.rate
            at_knots = np.zeros(len(self.mesh.steps))
            np.add.at(at_knots, self.left, slope * (1.0 - self.share))
            np.add.at(at_knots, self.right, slope * self.share)
            total = np.zeros(self.mesh.controls)
            np.add.at(total, self.mesh.source, at_knots * self.mesh.scale)
            return total * own

        gradient = pull(drift + weights @ noise)
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
