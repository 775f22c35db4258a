"""Whether a schedule keeps what its problem asks for, in words where it does not."""

from __future__ import annotations

import numpy as np

from optsched.control.problem import Problem
from optsched.schedules.schedule import Schedule

__all__ = ["beyond_words", "violations"]


def violations(problem: Problem, schedule: Schedule) -> tuple[str, ...]:
    """Constraints of the learning rate that a schedule breaks, beyond rounding.

    Between knots a schedule is linear, and so is every constraint: the knots decide.

    Parameters
    ----------
    problem : Problem
    schedule : Schedule
        Of the same horizon.

    Returns
    -------
    tuple of str
    """
    steps, eta = schedule.steps, schedule.controls["eta"]
    cap = problem.eta_max if problem.rate_only else problem.eta_cap
    slack = 1e-9 * min(cap, float(eta.max()))
    found = []
    if eta.max() > cap + slack:
        found.append(f"the rate reaches {eta.max():.6g}, above {cap:.6g}")
    after = eta[steps >= problem.warmup]
    if after.size and after.min() < problem.eta_min - slack:
        found.append(f"the rate falls to {after.min():.6g}, below eta_min {problem.eta_min:g}")
    if problem.max_change is not None and len(eta) > 1:
        change = float(np.abs(np.diff(eta) / np.diff(steps)).max())
        if change > problem.max_change * (1.0 + 1e-6):
            found.append(f"the rate changes by {change:.6g} a step, over {problem.max_change:g}")
    if problem.warmup:
        top = float(schedule(problem.warmup))
        inside = steps < problem.warmup
        ramp = (steps[inside] + 1.0) / (problem.warmup + 1.0) * top
        # The last piece of the ramp ends at its top, at a knot or within a longer piece.
        last = float(schedule(problem.warmup - 1)) - problem.warmup / (problem.warmup + 1.0) * top
        off = np.append(np.abs(eta[inside] - ramp), abs(last))
        if off.max() > 1e-6 * top + slack:
            found.append(f"the first {problem.warmup} steps are no linear warm-up")
    return tuple(found)


def beyond_words(problem: Problem) -> str:
    """What became of a largest rate above the stability limit."""
    limit = f"{problem.eta_max:g} is above the stability limit"
    if not problem.rate_only:
        return f"{limit}: rates are bounded by {problem.eta_cap:.6g}"
    return (
        f"{limit} of a constant rate, {problem.stability_limit:.6g}:"
        f" rates up to {problem.eta_top:.6g} were tried for a few steps each"
    )
