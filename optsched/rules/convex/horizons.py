r"""Carry a run's rate to a longer horizon or another cooldown, by the bound of `convex_bound`.

The best factor on the rates, :math:`\gamma_*`, of a shape depends on the shape and, nearly always
as :math:`T^{-1/2}`, on the horizon. A rate that was tuned for one run therefore gives the rate for
another: it changes as :math:`\gamma_*` does. Schaipp et al., arXiv 2501.18965, section 5, use this
to continue a run, and to set the rate for another cooldown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq, minimize_scalar

from optsched.checks import number, whole
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem
from optsched.rules.convex.bound import ConvexBound, convex_bound, least_bound
from optsched.schedules.families.decays import wsd
from optsched.schedules.families.pieces import Span, span
from optsched.schedules.schedule import Schedule

__all__ = ["Extension", "cooldown_scale", "extend_wsd", "two_stages"]

FEWEST = 10  # steps of a run: below, the weight of the last step counts more than the shape
LOWEST = 1e-8  # factor of the second stage


@dataclass(frozen=True)
class Extension:
    r"""Ways to continue a constant-then-cooldown run that was tuned for fewer steps.

    All bounds are over the least bound of the long horizon; 1 is the best of all schedules.

    Attributes
    ----------
    from_steps, to_steps : int
        Horizons :math:`T_1` and :math:`T_2`.
    cooldown : float
        Share of the cooldown in :math:`T_1`, as rounded to whole steps.
    switch_step : int
        K, the first step of the former cooldown: the run continues from the checkpoint there.
    factor : float, optional
        :math:`\rho`: the rate after step K over the one before, with a cooldown of the same
        share, such that the rate of the first stage is the best for the whole schedule. The
        published rule. None if no factor does that: after a very short cooldown, for a few
        more steps.
    factor_bound : float, optional
        Bound with that factor.
    least_factor : float
        The factor with the least bound at the rate of the first stage; not above 1.
    least_factor_bound : float
        Bound with that factor.
    longer_cooldown : float, optional
        Share of a cooldown in :math:`T_2` for which the rate may stay as it is; None if there is
        none, as even a cooldown over all steps wants a lower rate.
    longer_cooldown_start : int, optional
        Its first step. Before K it needs an earlier checkpoint.
    longer_cooldown_bound : float, optional
        Bound with that cooldown.
    unchanged_bound : float
        Bound if neither the rate nor the share of the cooldown changes.
    retuned_factor : float
        Rate over that of the first stage, if the run started anew, with the same share.
    retuned_bound : float
        Bound of that.
    """

    from_steps: int
    to_steps: int
    cooldown: float
    switch_step: int
    factor: float | None
    factor_bound: float | None
    least_factor: float
    least_factor_bound: float
    longer_cooldown: float | None
    longer_cooldown_start: int | None
    longer_cooldown_bound: float | None
    unchanged_bound: float
    retuned_factor: float
    retuned_bound: float

    @property
    def needs_earlier_checkpoint(self) -> bool:
        """Whether the longer cooldown begins before the checkpoint at ``switch_step``."""
        start = self.longer_cooldown_start
        return start is not None and start < self.switch_step

    def summary(self) -> dict[str, Any]:
        """All fields as a JSON-able dict."""
        return asdict(self) | {"needs_earlier_checkpoint": self.needs_earlier_checkpoint}


def two_stages(
    horizon: int, switch_step: int, factor: float, *, cooldown: Span = 0.2, peak: float = 1.0
) -> Schedule:
    r"""Build the continued run: a constant rate, then :math:`\rho` times it, and a linear cooldown.

    Parameters
    ----------
    horizon : int
        Number of steps :math:`T_2`.
    switch_step : int
        K: the steps before it have the peak rate; from 1 to the first step of the cooldown.
    factor : float
        :math:`\rho`, above 0.
    cooldown : int or float
        In steps, or as share of the horizon.
    peak : float
        Rate of the first stage.

    Returns
    -------
    Schedule
    """
    horizon = whole("horizon", horizon, 1, MAX_HORIZON)
    decay = span("cooldown", cooldown, horizon)
    switch_step = whole("switch_step", switch_step, 1, horizon - decay)
    factor = number("factor", factor, 0.0, above=True)
    peak = number("peak", peak, 0.0)
    second = wsd(horizon, factor, cooldown=decay)
    knots = [k for k in (switch_step - 1, switch_step) if k < horizon]
    steps = np.union1d(second.steps, knots)
    eta = np.where(steps < switch_step, 1.0, second(steps))
    return Schedule.from_knots(steps, eta=peak * eta, horizon=horizon)


def cooldown_scale(horizon: int, cooldown: Span) -> float:
    r"""Best peak of a constant rate with a linear cooldown, for D = 1 and G = 1.

    The ratio of two is by how much a tuned rate changes with the cooldown:
    :math:`\gamma_*(1)/\gamma_*(0.2) = 1.95`.

    Parameters
    ----------
    horizon : int
        T, 1 to 10^15.
    cooldown : int or float
        In steps, or as share of the horizon.
    """
    return _wsd(horizon, cooldown).scale


def extend_wsd(from_steps: int, to_steps: int, cooldown: Span = 0.2) -> Extension:
    r"""Continue a run with a constant rate and a linear cooldown to a longer horizon.

    Parameters
    ----------
    from_steps : int
        :math:`T_1`, for which the rate was tuned; 10 to 10^15.
    to_steps : int
        :math:`T_2`, above :math:`T_1`.
    cooldown : int or float
        In steps of :math:`T_1`, or as share of it; at least one step, and less than all. The long
        run has the same share.

    Returns
    -------
    Extension

    Raises
    ------
    InvalidProblem
        For a value out of range.

    Notes
    -----
    Schaipp et al., arXiv 2501.18965, section 5.1: keep the rate :math:`\gamma_1 = \gamma_*(T_1)`
    of what has been run, and choose the second stage, or the cooldown, such that
    :math:`\gamma_*` of the whole long schedule is :math:`\gamma_1`. That makes the first rate best
    for the schedule, and is not the same as the factor with the least bound.
    """
    from_steps = whole("from_steps", from_steps, FEWEST, MAX_HORIZON - 1)
    to_steps = whole("to_steps", to_steps, from_steps + 1, MAX_HORIZON)
    decay = span("cooldown", cooldown, from_steps)
    if not 1 <= decay < from_steps:
        allowed = f"1 to {from_steps - 1} steps, or a share of {from_steps} that comes to as many"
        raise InvalidProblem("cooldown", cooldown, allowed)
    share, switch = decay / from_steps, from_steps - decay
    rate, floor = _wsd(from_steps, decay).scale, least_bound(to_steps)
    # Rounding may not put the long cooldown before the end of the first stage.
    longer = min(span("cooldown", share, to_steps), to_steps - switch)

    def stages(factor: float) -> ConvexBound:
        return convex_bound(two_stages(to_steps, switch, factor, cooldown=longer))

    factor = _largest_root(lambda rho: stages(rho).scale / rate - 1.0)
    least = float(np.exp(_log_argmin(lambda x: stages(float(np.exp(x))).at(rate))))
    steps = _least_cooldown(to_steps, rate)
    unchanged = _wsd(to_steps, longer)
    return Extension(
        from_steps,
        to_steps,
        share,
        switch,
        factor,
        None if factor is None else stages(factor).at(rate) / floor,
        least,
        stages(least).at(rate) / floor,
        None if steps is None else steps / to_steps,
        None if steps is None else to_steps - steps,
        None if steps is None else _wsd(to_steps, steps).at(rate) / floor,
        unchanged.at(rate) / floor,
        unchanged.scale / rate,
        unchanged.best / floor,
    )


def _wsd(horizon: int, cooldown: Span) -> ConvexBound:
    return convex_bound(wsd(horizon, 1.0, cooldown=cooldown))


def _largest_root(f: Callable[[float], float]) -> float | None:
    """The largest factor up to 1 down to which f stays negative, if any.

    A very low second stage wants a low rate of the first one again: the factor next to 1 counts.
    """
    if f(1.0) >= 0.0:
        return 1.0
    grid = [1.0]
    values = [f(1.0)]
    while values[-1] < 0.0 and grid[-1] > LOWEST:
        grid.append(0.9 * grid[-1])
        values.append(f(grid[-1]))
    i = int(np.argmax(values))
    low, high = grid[min(i + 1, len(grid) - 1)], grid[max(i - 1, 0)]
    top = grid[i]
    if values[i] < 0.0:
        # Positive between two of the grid, if at all.
        top = _minimum(lambda x: -f(x), low, high)
        if f(top) < 0.0:
            return None
    return float(brentq(f, top, high, xtol=1e-12))  # type: ignore[arg-type]


def _log_argmin(f: Callable[[float], float]) -> float:
    """Where a function of the logarithm of the factor is least, up to 0."""
    grid = np.linspace(np.log(LOWEST), 0.0, 60)
    i = int(np.argmin([f(x) for x in grid]))
    x = _minimum(f, grid[max(i - 1, 0)], grid[min(i + 1, len(grid) - 1)])
    return min(x, 0.0) if f(x) < f(0.0) else 0.0


def _minimum(f: Callable[[float], float], low: float, high: float) -> float:
    """Where a function of one minimum between low and high is least."""
    found: Any = minimize_scalar(f, bounds=(low, high), method="bounded", options={"xatol": 1e-9})
    return float(found.x)


def _least_cooldown(horizon: int, rate: float) -> int | None:
    """Shortest cooldown, in steps, whose best rate is as high as this one."""
    if _wsd(horizon, horizon).scale < rate:
        return None
    low, high = 0, horizon
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _wsd(horizon, middle).scale >= rate else (middle, high)
    return high
