"""Schedules people use, as `Schedule` objects."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from optsched.errors import InvalidProblem
from optsched.schedules.schedule import Schedule

__all__ = ["FAMILIES", "constant", "cosine", "linear"]

DENSE = 4096  # horizons up to this have a knot at every step


def _check(horizon: int, peak: float) -> None:
    if not horizon >= 1:
        raise InvalidProblem("horizon", horizon, "a whole number >= 1")
    if not (np.isfinite(peak) and peak >= 0.0):
        raise InvalidProblem("peak", peak, "a finite number >= 0")


def _graded_steps(horizon: int) -> NDArray[np.int64]:
    if horizon <= DENSE:
        return np.arange(horizon)
    part = np.geomspace(1, horizon / 2, DENSE // 4).round().astype(np.int64)
    even = np.linspace(0, horizon - 1, DENSE // 2).round().astype(np.int64)
    return np.unique(np.concatenate([[0], part, even, horizon - 1 - part, [horizon - 1]]))


def constant(horizon: int, peak: float) -> Schedule:
    r"""Constant rate, :math:`\eta_k = \eta_0`.

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        Rate :math:`\eta_0`.
    """
    _check(horizon, peak)
    steps = np.unique([0, horizon - 1])
    return Schedule.from_knots(steps, eta=np.full(len(steps), float(peak)), horizon=horizon)


def linear(horizon: int, peak: float) -> Schedule:
    r"""Linear decay to zero, :math:`\eta(t) = \eta_0 (1 - t/T)`, averaged over every step.

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        Rate :math:`\eta_0` at t = 0.
    """
    _check(horizon, peak)
    steps = np.unique([0, horizon - 1])
    values = peak * (1.0 - (steps + 0.5) / horizon)
    return Schedule.from_knots(steps, eta=values, horizon=horizon)


def cosine(horizon: int, peak: float) -> Schedule:
    r"""Cosine decay to zero, :math:`\eta(t) = \eta_0 (1 + \cos(\pi t/T))/2`, averaged over steps.

    Parameters
    ----------
    horizon : int
        Number of steps T; above 4096 the curve is linear between 4096 graded knots.
    peak : float
        Rate :math:`\eta_0` at t = 0.

    Notes
    -----
    Loshchilov & Hutter, "SGDR", ICLR 2017, without restarts.
    """
    _check(horizon, peak)
    steps = _graded_steps(horizon)
    # The average of the cosine over [k, k+1] is its value at the centre times sinc; written with
    # sin^2 so that the last rates keep their digits.
    togo = np.pi * (horizon - steps - 0.5) / horizon
    sinc = np.sinc(0.5 / horizon)
    values = 0.5 * peak * (2.0 * np.sin(0.5 * togo) ** 2 * sinc + (1.0 - sinc))
    return Schedule.from_knots(steps, eta=values, horizon=horizon)


FAMILIES: dict[str, Callable[[int, float], Schedule]] = {
    "constant": constant,
    "linear": linear,
    "cosine": cosine,
}
