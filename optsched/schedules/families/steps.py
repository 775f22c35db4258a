"""Schedules with jumps: drops at equal distances, or at given steps.

Horizon, peak and durations are as in `optsched.schedules.families.decays`. The last step before a
drop and the first one after it are both knots, so that the values there are exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from optsched.checks import is_number, number
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem
from optsched.schedules.families.pieces import MAX_LINES, Span, check, limit_cycles, span
from optsched.schedules.schedule import Sampling, Schedule

__all__ = ["multi_step", "step"]


def step(
    horizon: int,
    peak: float,
    *,
    every: Span = 0.25,
    factor: float = 0.1,
    sampling: Sampling = "average",
) -> Schedule:
    r"""Staircase, :math:`\eta_k = \eta_0 g^{\lfloor k/S \rfloor}`.

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        Rate :math:`\eta_0` before the first drop.
    every : int or float
        S, in steps (at least one) or as share of the horizon; at most 10,000 stairs.
    factor : float
        g, in [0, 1].
    sampling : {"average", "left"}
        Makes no difference here: the drops are at the start of a step.
    """
    horizon, peak, _ = check(horizon, peak, sampling)
    length = span("every", every, horizon, 1, MAX_HORIZON)
    factor = number("factor", factor, 0.0, 1.0)
    stairs = -(-horizon // length)
    limit_cycles("every", every, stairs, MAX_LINES)
    return _staircase([i * length for i in range(1, stairs)], [factor] * stairs, horizon, peak)


def multi_step(
    horizon: int,
    peak: float,
    *,
    milestones: Sequence[Span] = (0.5, 0.75),
    factor: float | Sequence[float] = 0.1,
    sampling: Sampling = "average",
) -> Schedule:
    r"""Drops at given steps: :math:`\eta_k = \eta_0 \prod_{i: k \ge m_i} g_i`.

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        Rate :math:`\eta_0` before the first drop.
    milestones : sequence of int or float
        The :math:`m_i`, in order: the first step with the lower rate, or shares of the horizon; at
        most 10,000. One past the horizon has no effect, and equal ones take effect together.
    factor : float or sequence of float
        The factors :math:`g_i`, in [0, 1]: one for all, or one each.
    sampling : {"average", "left"}
        Makes no difference here: the drops are at the start of a step.

    Notes
    -----
    He et al., "Deep residual learning", CVPR 2016 (0.5 and 0.75, factor 0.1); DeepSeek LLM,
    arXiv 2401.02954, drops at 0.8 and 0.9 by :math:`\sqrt{0.1}` each.
    """
    horizon, peak, _ = check(horizon, peak, sampling)
    given = _list("milestones", milestones, "a sequence of steps or shares")
    limit_cycles("milestones", f"{len(given)} milestones", len(given), MAX_LINES)
    drops = [span("milestones", m, horizon, 0, MAX_HORIZON) for m in given]
    if any(after < drop for drop, after in pairwise(drops)):
        raise InvalidProblem("milestones", milestones, "steps or shares in increasing order")
    allowed = f"a number, or {len(drops)} of them, as there are milestones"
    each = [factor] * len(drops) if is_number(factor) else _list("factor", factor, allowed)
    if len(each) != len(drops):
        raise InvalidProblem("factor", factor, allowed)
    return _staircase(drops, [number("factor", g, 0.0, 1.0) for g in each], horizon, peak)


def _list(field: str, values: Any, allowed: str) -> list[Any]:
    try:
        return list(values)
    except TypeError:
        raise InvalidProblem(field, values, allowed) from None


def _staircase(drops: list[int], factors: list[float], horizon: int, peak: float) -> Schedule:
    """Level i lasts from drop i - 1 to drop i; both ends of a level are knots."""
    levels, starts = [1.0], [0]
    for drop, factor in zip(drops, factors, strict=False):
        if drop >= horizon:
            break
        level = levels[-1] * factor
        if drop == starts[-1]:
            levels[-1] = level
        else:
            levels.append(level)
            starts.append(drop)
    ends = [start - 1 for start in starts[1:]] + [horizon - 1]
    table = {k: v for a, b, v in zip(starts, ends, levels, strict=True) for k in (a, b)}
    eta = peak * np.array(list(table.values()))
    return Schedule.from_knots(list(table), eta=eta, horizon=horizon)
