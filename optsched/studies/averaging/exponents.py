"""How averaging and decay fall with the horizon."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from optsched.arrays import Brief, Floats
from optsched.control.problem import Problem
from optsched.errors import InvalidProblem
from optsched.model.replay import MAX_STEPS
from optsched.studies.averaging.against_decay import AveragingStudy, compare_averaging

__all__ = ["AveragingExponents", "averaging_exponents"]


@dataclass(frozen=True, eq=False, repr=False)
class AveragingExponents(Brief):
    """How the loss of each row falls with the horizon.

    Attributes
    ----------
    studies : list of AveragingStudy
        One a horizon, in order.
    slopes : dict of str to numpy.ndarray
        ``-d log E / d log T`` between neighbouring horizons, by row.
    predicted : float or None
        Exponent of the optimal decay: (a-1)/max(a, b).
    """

    studies: list[AveragingStudy]
    slopes: dict[str, Floats]
    predicted: float | None


def averaging_exponents(
    problem: Problem,
    horizons: Sequence[int],
    names: Iterable[str] = ("decay", "constant", "constant, ema", "constant, growing", "both"),
    *,
    replay_steps: int = MAX_STEPS,
) -> AveragingExponents:
    """Fall of the loss with the horizon, by row.

    Parameters
    ----------
    problem : Problem
        Its horizon is replaced.
    horizons : sequence of int
        At least two, increasing.
    names : iterable of str
        Rows, of `ROWS`.
    replay_steps : int
        Largest horizon that is replayed step by step.

    Returns
    -------
    AveragingExponents
    """
    if len(horizons) < 2 or any(x >= y for x, y in pairwise(horizons)):
        raise InvalidProblem("horizons", list(horizons), "two or more, increasing")
    wanted = list(names)
    studies = [
        compare_averaging(problem.replace(horizon=horizon), wanted, replay_steps=replay_steps)
        for horizon in horizons
    ]
    log_t = np.log(np.asarray(horizons, float))
    slopes = {}
    for name in studies[0].rows:
        log_loss = [math.log(study.rows[name].replay.excess_loss) for study in studies]
        slopes[name] = -np.diff(log_loss) / np.diff(log_t)
    a, b = problem.a, problem.b
    return AveragingExponents(
        studies, slopes, None if a is None or b is None else (a - 1.0) / max(a, b)
    )
