r"""Neighbouring local optima of rates beyond the inverse of the largest eigenvalue.

One step multiplies the leading mode by about :math:`(1 - \eta\lambda_1)^2 + \eta^2\lambda_1^2/m`,
which is least at the *fold* :math:`\eta = 1/((1 + 1/m)\lambda_1)`. The final loss is a convex
parabola in every single rate; but where the bound of the rate is beyond the fold, a schedule goes
from one side to the other at some step before the end, and that step can be one too early or too
late, or rates beyond the fold can zigzag: each is a local optimum of its own. So the neighbours
are tried: annealing that begins a step earlier or later, and the rates beyond the fold in rising
and in falling order.

Where rates above the stability limit of a constant rate are allowed, a good schedule is a string of
bursts and rests, and each order of them is a local optimum: there single rates are moved, exchanged
and redrawn, by a generator with a fixed seed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Floats
from optsched.control.methods.descent import projected_descent
from optsched.control.task import Iterate, Task

__all__ = ["has_fold", "rearranged", "switched"]

ROUGH = 1e-4  # KKT residual at which a neighbour shows what it is worth: to its square
GAIN = 1e-7  # of log E: less is not worth a neighbour of the neighbour
ITERATIONS = 30
MOVES = 20
DRAWS, IDLE = 60, 15  # orders of bursts that are tried, and so many in a row without a gain


def has_fold(task: Task) -> bool:
    """Whether rates beyond the inverse of the largest eigenvalue are allowed."""
    problem = task.problem
    return problem.eta_cap * problem.spectrum.largest > 1.0 and len(task.start) > 1


def switched(task: Task, iterate: Iterate) -> Floats | None:
    """Log rates of a better neighbour, roughly converged; None if there is none.

    Parameters
    ----------
    task : Task
    iterate : Iterate
        A local optimum.
    """
    problem = task.problem
    fold = -np.log((1.0 + 1.0 / problem.batch_size) * problem.spectrum.largest)
    x, value = iterate.x, task.objective(iterate.x)[0]
    single = np.diff(task.mesh.free_steps, append=problem.horizon) == 1
    better = None
    for _ in range(MOVES):
        for start in _neighbours(x, fold, task.upper, single):
            found = projected_descent(
                task.objective,
                start,
                task.lower,
                task.upper,
                tol=ROUGH,
                max_iterations=ITERATIONS,
            )
            # Rates that jump between distant knots can exploit the mesh.
            if found.value < value - GAIN and found.value < value - _doubt(task, found.x):
                better, x, value = found.x, found.x, found.value
                break
        else:
            break
    return better


def rearranged(task: Task, x: Floats) -> Floats | None:
    """Log rates of a better order of bursts, roughly converged; None if none was found.

    Parameters
    ----------
    task : Task
        Of which every step is a knot.
    x : numpy.ndarray, shape (n,)
        Log rates of a local optimum.
    """
    rng, best = np.random.default_rng(0), x
    value, idle, count = task.objective(x)[0], 0, len(x)
    for k in range(DRAWS):
        start = best.copy()
        one, two = rng.integers(count), rng.integers(count)
        if k % 4 == 0:
            start[[one, two]] = best[[two, one]]
        elif k % 4 == 1:
            start[one] = task.upper[one] + np.log(rng.uniform(0.05, 1.0))
        elif k % 4 == 2:
            after = (one + 1) % count
            start[[one, after]] = best[[after, one]]
        else:
            start = np.insert(np.delete(best, one), two, best[one])
        bounds = task.lower, task.upper
        found = projected_descent(
            task.objective, start, *bounds, tol=ROUGH, max_iterations=ITERATIONS
        )
        idle += 1
        if found.value < value - GAIN:
            best, value, idle = found.x, found.value, 0
        if idle >= IDLE:
            break
    return None if best is x else best


def _doubt(task: Task, x: Floats) -> float:
    """Error of log E on the mesh."""
    return float(np.abs(task.objective.audit(x).errors).sum())


def _neighbours(
    x: Floats, fold: float, upper: Floats, single: NDArray[np.bool_]
) -> Iterator[Floats]:
    """Log rates with another last step beyond the fold, or those beyond it in another order."""
    beyond = x > fold
    if not beyond.any():
        return
    last = int(np.flatnonzero(beyond)[-1])
    tail = x[last + 1 :]
    if single[last:].all():
        if len(tail):
            later = x.copy()
            later[last + 1], later[last + 2 :] = upper[last + 1], tail[:-1]
            yield later
        earlier = x.copy()
        # The new last knot goes on as the two before it do.
        slope = tail[-1] - tail[-2] if len(tail) > 1 else -0.7
        end = tail[-1] + min(slope, 0.0) if len(tail) else fold + slope
        earlier[last:] = np.append(tail, end)
        yield earlier
    if single.all():
        for order in (1, -1):
            ordered = x.copy()
            ordered[beyond] = np.sort(x[beyond])[::order]
            if not np.array_equal(ordered, x):
                yield ordered
