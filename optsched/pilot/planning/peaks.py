r"""The peak rate of the next run, with the regret that the uncertainty of the law implies.

At every peak of a grid the best simple schedule is found; the peak is the one whose loss, averaged
over the parameters that the fit allows, is least. The regret of a peak under one set of parameters
is its loss minus the least over the grid; what laws err by at other peaks than those of the runs
counts as a line in the log peak with a random slope. Below the lowest peak of the runs only laws
are asked that carry there. Above the highest, laws err to one side: the runs end above what is
predicted, so that every factor of e adds to the loss there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from optsched.arrays import Brief, Floats
from optsched.pilot.planning.score import Score, finals
from optsched.pilot.planning.simple import best_shape
from optsched.pilot.planning.task import PlanTask
from optsched.pilot.prediction import peak_error

__all__ = ["PeakChoice", "choose_peak"]

BELOW, ABOVE = 4.0, 2.0  # times the lowest and the highest peak of the runs: ends of the grid
RATIO = 2.0**0.5  # between two peaks of the grid, at most
OPTIMISM = 6e-3  # of the loss, for a peak above those of the runs by a factor of e
HIGH = 0.9  # quantile of the regret that is told


@dataclass(frozen=True, eq=False, repr=False)
class PeakChoice(Brief):
    """What a choice of the peak rests on.

    Attributes
    ----------
    peak : float
        The chosen one.
    peaks, losses : numpy.ndarray, shape (n,)
        The grid, and the predicted final loss of the best simple schedule at each, averaged.
    regret, high : float
        Mean regret of the chosen peak over the parameters that the fit allows, and the value that
        it exceeds with a probability of a tenth, in nats; NaN for a fit without members.
    at_end : bool
        Whether the chosen peak is an end of the grid, so that a better one may lie outside.
    """

    peak: float
    peaks: Floats
    losses: Floats
    regret: float
    high: float
    at_end: bool


def choose_peak(task: PlanTask, thetas: list[Floats], above: bool) -> PeakChoice:
    """The peak of the least mean loss over the parameters.

    Parameters
    ----------
    task : PlanTask
        Its cap does not matter.
    thetas : list of numpy.ndarray
        Of the fit, then of its members.
    above : bool
        Whether peaks above those of the runs are tried.
    """
    low, high = task.found.peaks
    below = BELOW if task.found.law.carries else 1.0
    ends = max(low / below, 1.01 * task.floor), high * (ABOVE if above else 1.0)
    count = max(math.ceil(math.log(ends[1] / ends[0]) / math.log(RATIO) - 1e-9), 1) + 1
    grid = np.geomspace(*ends, count)
    # The highest peak of the runs is one of the grid, as it is what one would have taken.
    grid = np.unique(np.append(grid, high))
    losses = _losses(task, grid, thetas)
    losses += OPTIMISM * losses * np.log(np.maximum(grid / high, 1.0))[:, None]
    mean = losses.mean(1)
    i = int(np.argmin(mean))
    away = np.array([peak_error(task.found, float(peak)) for peak in grid])
    slopes = np.append(0.0, np.random.default_rng(0).standard_normal(len(thetas) - 1))
    losses *= 1.0 + away[:, None] * slopes
    regret = losses[i] - losses.min(0)
    known = len(thetas) > 1
    return PeakChoice(
        float(grid[i]),
        grid,
        mean,
        float(regret.mean()) if known else math.nan,
        float(np.quantile(regret, HIGH)) if known else math.nan,
        i in (0, len(grid) - 1),
    )


def _losses(task: PlanTask, grid: Floats, thetas: list[Floats]) -> Floats:
    """Losses of the best simple schedule at every peak, under all parameters, shape (n, K).

    The best shape changes little from a peak to the next.
    """
    out, shape = np.empty((len(grid), len(thetas))), None
    for i in reversed(range(len(grid))):
        at = replace(task, cap=float(grid[i]))
        shape = best_shape(at, Score.mean(at, thetas[:1]), near=shape)[0]
        out[i] = [one.loss for one in finals(at, thetas, *shape.pieces(at))]
    return out
