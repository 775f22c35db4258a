"""What the runs of a fit do not determine, in sentences that say what to do."""

from __future__ import annotations

import math

import numpy as np

from optsched.arrays import Floats
from optsched.pilot.laws import Law

__all__ = ["ONE_RUN", "SHARED", "at_ends", "ruled", "unidentified"]


ONE_RUN = "One run only"  # how the warning begins that predictions repeat
VAGUE = 1.0  # standard error of a logarithm from which a parameter counts as unknown
STEADY = 0.9  # of the peak: a run that ends above has shown no decay
RULED = 0.8  # of what its prior alone would leave: a parameter of which the runs say nothing
# Rows that stand for one independent one, over those that a prior weighs: chosen so that 80 %
# intervals hold 80 % on models that were left out (`benchmarks.loss_laws`).
SHARED = 0.12


def unidentified(law: Law, theta: Floats, members: Floats, ends: Floats) -> tuple[str, ...]:
    """Warnings about a fit.

    Parameters
    ----------
    law : Law
    theta : numpy.ndarray, shape (p,)
    members : numpy.ndarray, shape (K, p)
        The ensemble; with fewer than three members nothing is said of spreads.
    ends : numpy.ndarray, shape (runs,)
        Last rate of every run over its peak.
    """
    out = []
    if len(ends) < 2:
        out.append(
            f"{ONE_RUN}: how the loss depends on the schedule is guessed. Add runs with other"
            " schedules."
        )
    if np.all(ends > STEADY):
        out.append(
            "No run ends at a rate below its peak: what a decay gains is not determined, whatever"
            " the intervals say. Add a run that decays."
        )
    for name in at_ends(law, theta):
        out.append(f"{name} is at the end of its range, {theta[law.parameters.index(name)]:.3g}.")
    if len(members) > 2:
        out += _vague(law, members.std(0, ddof=1))
    level = law.parameters.index("level")
    if level in law.free and theta[level] < 1e-6:
        out.append("The loss at infinite time is fitted as 0: it is not determined.")
    return tuple(out)


def at_ends(law: Law, theta: Floats) -> list[str]:
    """Parameters, but for the level, that a fit has moved to the end of their range."""
    out = []
    for i in law.free:
        room = min(theta[i] - law.low[i], law.high[i] - theta[i])
        if law.parameters[i] != "level" and room < 1e-4 * (law.high[i] - law.low[i]):
            out.append(law.parameters[i])
    return out


def _vague(law: Law, spread: Floats) -> list[str]:
    """Parameters whose spread over the ensemble is that of knowing nothing."""
    out = []
    for name in ("log_noise", "log_speed", "log_bias"):
        i = law.parameters.index(name) if name in law.parameters else -1
        if i in law.free and spread[i] > VAGUE:
            factor = math.exp(min(float(spread[i]), 20.0))
            out.append(
                f"{name} is known to a factor of {factor:.2g} only: these runs hardly determine"
                " it. Losses right behind a drop of the rate would."
            )
    return out


def ruled(law: Law, members: Floats) -> str | None:
    """A note on the parameters that the runs leave as their priors say; None if there is none.

    With fewer than three members nothing is known of spreads.
    """
    if len(members) < 3:
        return None
    spread = members.std(0, ddof=1)
    names = [
        name
        for name, prior in law.priors.items()
        if spread[law.parameters.index(name)] > RULED * math.sqrt(SHARED) * prior.spread > 0.0
    ]
    return f"set by their priors more than by the runs: {', '.join(names)}" if names else None
