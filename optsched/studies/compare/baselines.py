"""The best constant, linear and cosine schedule of a problem, beside its optimum."""

from __future__ import annotations

from optsched.control.problem import Problem
from optsched.model.replay import MAX_STEPS
from optsched.studies.compare.tuning import Tuned, tune

__all__ = ["best_baselines"]


def best_baselines(
    problem: Problem,
    families: tuple[str, ...] = ("constant", "linear", "cosine"),
    *,
    replay_steps: int = MAX_STEPS,
) -> list[Tuned]:
    """Tune the peak rate of each family, all else at its default, and replay the result.

    Parameters
    ----------
    problem : Problem
        Peaks are bounded by its ``eta_cap``.
    families : tuple of str
        Names in `optsched.schedules.families.FAMILIES`.
    replay_steps : int
        Largest horizon that is replayed step by step.

    Returns
    -------
    list of Tuned
    """
    return [tune(problem, name, free=(), replay_steps=replay_steps) for name in families]
