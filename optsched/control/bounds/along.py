r"""A lower bound of a weighted sum of the excess losses along training.

No schedule is below the optimum of step k after k steps, :math:`E_k \ge E^*(k)`, so that
:math:`J \ge \sum_k w_k E^*(k)` for weights :math:`w_k \ge 0`. Each :math:`E^*` is bounded by
`optsched.control.bounds.certified` at its own horizon. It never rises with k, as the next rate may
be 0: what bounds it at one step does so at all steps before, and a few steps bound a sum over all.
"""

from __future__ import annotations

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.control.bounds.certified import certified_bound
from optsched.model.spectrum import Modes
from optsched.objectives import MeanExcess, Terms

__all__ = ["sum_bound"]

GRID = 24  # steps whose optima are bounded, for weights of all steps
COUNTED = 2**22  # steps whose weights are all added up
ROUGH = 0.05  # target at each of the few steps: the sum over all is looser than that
ROOM = 1e-3  # a replay by blocks is not exact


def sum_bound(
    terms: Terms,
    modes: Modes,
    batch_size: float,
    sigma2: float,
    eta_max: float,
    steps: Ints,
    excess: Floats,
    target: float,
) -> float:
    """Bound the objective of every schedule of plain SGD from below.

    Parameters
    ----------
    terms : Terms
    modes : Modes
        Quadrature nodes, accurate up to ``eta_max * terms.horizon``.
    batch_size, sigma2, eta_max : float
        Batch size m, label-noise variance, upper bound of the rate.
    steps : numpy.ndarray of int, shape (n,)
        Numbers of steps done, from 0 to the horizon, the corners of the objective among them.
    excess : numpy.ndarray, shape (n,)
        Losses of a known schedule there.
    target : float
        Relative gap at which the refinement of the bounds of named steps stops.

    Returns
    -------
    float
    """

    def best(step: int, target: float) -> float:
        known = float(np.interp(step, steps, excess)) * (1.0 + ROOM)
        problem = (modes, batch_size, sigma2, eta_max, step)
        return certified_bound(*problem, known, target=target).value

    found = {step: best(step, target) for step in terms.points}
    total = sum(weight * found[step] for step, weight in terms.points.items())
    if terms.dense:
        ends = _grid(terms, steps)
        bounds = np.array([found.get(int(end)) or best(int(end), ROUGH) for end in ends])
        # A bound of a later step holds for the earlier ones as well.
        total += float(_masses(terms, ends) @ np.maximum.accumulate(bounds[::-1])[::-1])
    return float(total)


def _grid(terms: Terms, steps: Ints) -> Ints:
    """A few of the steps with known losses, the last one among them."""
    wanted = np.unique(np.geomspace(1.0, terms.horizon, GRID).round().astype(np.int64))
    near = np.searchsorted(steps, wanted)
    return np.unique(steps[np.minimum(near, len(steps) - 1)])


def _masses(terms: Terms, ends: Ints) -> Floats:
    """Sum of the weights of the steps up to each end and beyond the one before.

    Where they are too many to look at, 0 for weights that are not known: that is no more.
    """
    begins = np.append(0, ends[:-1])
    if terms.horizon <= COUNTED:
        total = np.cumsum(np.append(0.0, terms.weight(np.arange(1.0, terms.horizon + 1.0))))
        return total[ends] - total[begins]
    even = type(terms.objective) is MeanExcess
    return (ends - begins) / terms.horizon if even else np.zeros(len(ends))
