"""What a plan minimises over the parameters that a fit allows: loss, mean loss or regret."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats
from optsched.pilot.laws import Final
from optsched.pilot.planning.task import PlanTask

__all__ = ["Score", "finals"]

SOFT = 0.02  # of the excess loss: width of the soft maximum over the members


@dataclass(frozen=True, eq=False)
class Score:
    """Mean of the losses over what they cannot go below, or a soft maximum of it.

    Attributes
    ----------
    thetas : sequence of numpy.ndarray
        Parameters of the fit, or of several members.
    floors : numpy.ndarray, shape (K,)
        Level of the loss, or the least that is possible, under each.
    soft : float
        Width of the soft maximum; 0 for the mean.
    """

    thetas: Sequence[Floats]
    floors: Floats
    soft: float = 0.0

    @classmethod
    def mean(cls, task: PlanTask, thetas: Sequence[Floats]) -> Score:
        """The mean loss; its logarithm is over the level."""
        level = task.found.law.parameters.index(task.found.law.linear[0])
        return cls(thetas, np.array([theta[level] for theta in thetas]))

    def __call__(self, losses: Floats) -> tuple[float, Floats]:
        """The score, which falls with the losses, and its derivatives (K,)."""
        excess = losses - self.floors
        if self.soft:
            top = float(excess.max())
            weights = np.exp((excess - top) / self.soft)
            value = (top + self.soft * math.log(weights.mean())) / self.soft * SOFT
            return value, weights / weights.sum() / self.soft * SOFT
        mean = max(float(excess.mean()), 1e-300)
        return math.log(mean), np.full(len(excess), 1.0 / (len(excess) * mean))


def finals(task: PlanTask, thetas: Sequence[Floats], rate: Floats, length: Floats) -> list[Final]:
    """Final losses of the past and then these pieces under all parameters."""
    full = np.concatenate([task.past[0], rate])
    lengths = np.concatenate([task.past[1], length])
    law, first = task.found.law, task.found.scale.first
    return [law.final(theta, full, lengths, first) for theta in thetas]
