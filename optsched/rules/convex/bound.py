r"""The bound of convex optimisation for any schedule: what it promises of the last iterate.

For a convex function whose subgradients have norms :math:`G_t`, started at a distance D from a
minimiser, with the rates :math:`\gamma \eta_1, \dots, \gamma \eta_T` of subgradient descent,

.. math::
    f(x_T) - f_* \le \Omega(\gamma) = \frac{D^2}{2 \gamma S_1} + \frac{\gamma}{2} \Big(
    \sum_{t<T} \frac{\eta_t^2 G_t^2}{S_{t+1}} + \eta_T G_T^2 \Big), \quad
    S_t = \sum_{s \ge t} \eta_s .

This is theorem 10 of Defazio et al., arXiv 2310.07831, after one summation by parts. The theorem
has the sum over t as :math:`\sum_t \eta_t^2 G_t^2/S_1 + \sum_{k<T} (\eta_k/S_{k+1}) (1/S_k)
\sum_{t \ge k} \eta_t^2 G_t^2`. Schaipp et al., arXiv 2501.18965, find that it follows the losses of
real runs. In expectation it holds for stochastic subgradients with
:math:`\mathrm E\,|g_t|^2 = G_t^2` too.

The bound is for the iterate at which the last gradient is taken: the last rate enters as a weight.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from optsched.arrays import Floats, Ints
from optsched.checks import number, real_array, whole
from optsched.controls import MAX_DENSE, MAX_HORIZON
from optsched.errors import InvalidProblem
from optsched.rules.convex.sums import cut, knot_sums, weighted_sums
from optsched.schedules.families.pieces import spread_steps
from optsched.schedules.schedule import Schedule

__all__ = ["ConvexBound", "best_schedule", "bound_along", "convex_bound", "least_bound"]

MAX_EXACT = 10**6  # steps of the recursion for the best schedule
SHORT = 10**5  # steps of that for the least bound alone, if all norms are equal
MAX_POINTS = 10_000
LARGEST = 1e150  # its square is a float


@dataclass(frozen=True)
class ConvexBound:
    r"""The bound as a function of the factor :math:`\gamma` on the rates.

    Attributes
    ----------
    distance_term : float
        :math:`D^2/(2 S_1)`, which falls with the rates.
    gradient_term : float
        Half of the sum over the gradients, which grows with them.
    """

    distance_term: float
    gradient_term: float

    @property
    def value(self) -> float:
        """The bound with the rates as they are."""
        return self.distance_term + self.gradient_term

    @property
    def scale(self) -> float:
        r"""The best factor on the rates, :math:`\gamma_*`; for a peak of 1, the best peak."""
        return math.sqrt(self.distance_term) / math.sqrt(self.gradient_term)

    @property
    def best(self) -> float:
        r"""The bound with the best factor, :math:`\Omega_*`."""
        return 2.0 * math.sqrt(self.distance_term) * math.sqrt(self.gradient_term)

    def at(self, scale: float) -> float:
        """The bound with the rates multiplied by ``scale``, a number above 0."""
        scale = number("scale", scale, 0.0, above=True)
        return self.distance_term / scale + self.gradient_term * scale


def convex_bound(
    schedule: Schedule | ArrayLike, *, distance: float = 1.0, norms: ArrayLike = 1.0
) -> ConvexBound:
    r"""Evaluate the bound of a schedule.

    Parameters
    ----------
    schedule : Schedule or array_like, shape (T,)
        The learning rates, not all zero; other controls do not count. Zeros at the end are left
        out, as they move nothing. A schedule costs its knots, whatever T is; it is exact to
        rounding where the knots are at most 64 steps apart, and within 1e-9 relatively elsewhere.
    distance : float
        D, in the units of the weights, above 0 and at most 1e150.
    norms : float or array_like, shape (T,)
        G, or G at every step, in units of the loss over those of the weights; above 0 and at
        most 1e150. With an array T is at most 10^8.

    Returns
    -------
    ConvexBound
        With D = 1 and G = 1, rates are in units of D/G and bounds in units of D G.

    Raises
    ------
    InvalidProblem
        For rates that are all zero, and values out of range.

    Notes
    -----
    Theorem 10 of Defazio et al., arXiv 2310.07831; see the module.
    """
    plan, distance = _plan(schedule), _distance(distance)
    return _bound(plan, plan.horizon, distance, _squares(norms, plan.horizon))


def bound_along(
    schedule: Schedule | ArrayLike,
    *,
    distance: float = 1.0,
    norms: ArrayLike = 1.0,
    points: int = 200,
) -> tuple[Ints, Floats]:
    """Bound of the last iterate as a function of time: that of the first k steps, for some k.

    Parameters
    ----------
    schedule, distance, norms
        As for `convex_bound`; the rates are taken as they are. Multiply a schedule by its
        best factor with `Schedule.scaled` first.
    points : int
        About how many k, 2 to 10^4; more of them near both ends.

    Returns
    -------
    steps : numpy.ndarray of int64, shape (n,)
        Numbers of steps k, from 1 to T.
    bounds : numpy.ndarray of float64, shape (n,)
        Infinite while all rates are zero. Every one costs as much as `convex_bound`.
    """
    points = whole("points", points, 2, MAX_POINTS)
    plan, distance = _plan(schedule), _distance(distance)
    squares = _squares(norms, plan.horizon)
    steps = 1 + spread_steps(plan.horizon, points)
    found = (_bound(plan, int(count), distance, squares) for count in steps)
    bounds = np.array([bound.value for bound in found])
    return steps, bounds


def least_bound(horizon: int, *, distance: float = 1.0, norms: ArrayLike = 1.0) -> float:
    r"""Least value of the bound over all schedules: none has a lower one.

    .. math:: \Omega_{\min} = D \sqrt{v_1}, \quad v_T = G_T^2, \quad
        v_t = 2 G_t \Big(\sqrt{G_t^2 + v_{t+1}} - G_t\Big).

    Parameters
    ----------
    horizon : int
        T, 1 to 10^15; to 10^6 where the norms differ.
    distance, norms
        As for `convex_bound`.

    Notes
    -----
    With :math:`S_1` given, the bound is a chain in :math:`S_2, \dots, S_T`:
    :math:`\sum_t G_t^2 (S_t^2/S_{t+1} - 2 S_t + S_{t+1}) + G_T^2 S_T`. The least value from
    t on is :math:`v_t S_t`, which gives the recursion, and
    :math:`S_{t+1} = S_t G_t/\sqrt{G_t^2 + v_{t+1}}` the schedule: derived here; for equal norms
    :math:`v_1 \to 4 G^2/T`, twice the minimax rate :math:`D G/\sqrt T` of all methods. Beyond 10^5
    steps :math:`u = 4 G^2/v` follows :math:`u + \log(u - 1) = T + C`, with a relative error below
    1e-9.
    """
    horizon = whole("horizon", horizon, 1, MAX_HORIZON)
    distance = _distance(distance)
    squares = _squares(norms, horizon)
    if not isinstance(squares, np.ndarray):
        exact = min(horizon, SHORT)
        value = squares * _chain(np.ones(exact))[0]
        return distance * math.sqrt(_beyond(value / squares, horizon - exact) * squares)
    whole("horizon", horizon, 1, MAX_EXACT)
    top = float(squares.max())
    return distance * math.sqrt(top * _chain(squares / top)[0])


def best_schedule(horizon: int, *, distance: float = 1.0, norms: ArrayLike = 1.0) -> Schedule:
    r"""Build the schedule with the least bound, with its best rates.

    For equal norms it is linear decay but for the last few steps. For others it is, in the limit
    of many steps, the refined schedule :math:`\eta_t \propto G_t^{-2} \sum_{s>t} G_s^{-2}` of
    Defazio et al., which `optsched.schedules.families.refined` makes from noisy norms.

    Parameters
    ----------
    horizon : int
        T, 1 to 10^6.
    distance, norms
        As for `convex_bound`. The norms are taken as they are; smooth those of a run first.

    Returns
    -------
    Schedule
        Its last rate is a weight alone, as the bound is for the iterate before it, and about two
        and a half times the rate before.

    Notes
    -----
    See `least_bound`.
    """
    horizon = whole("horizon", horizon, 1, MAX_EXACT)
    distance = _distance(distance)
    given = _squares(norms, horizon)
    squares = given if isinstance(given, np.ndarray) else np.full(horizon, given)
    top = float(squares.max())
    squares = squares / top
    values = _chain(squares)
    # Logarithms of the sums to go, from S_1 = 1.
    falls = -0.5 * np.log1p(values[1:] / squares[:-1])
    rest = np.exp(np.concatenate([[0.0], np.cumsum(falls)]))
    eta = np.append(rest[:-1] * -np.expm1(falls), rest[-1])
    return Schedule.from_array(eta * (distance / math.sqrt(top * values[0])))


def _chain(squares: Floats) -> Floats:
    """Least values v_1 .. v_T for squared norms of order one."""
    values = [float(squares[-1])]
    for square in squares[-2::-1].tolist():
        # Without a difference of nearly equal numbers, as v falls below G^2.
        before = values[-1] / square
        values.append(2.0 * square * before / (math.sqrt(1.0 + before) + 1.0))
    return np.array(values[::-1])


def _beyond(value: float, more: int) -> float:
    """Value of v after ``more`` steps of the recursion with G = 1, from a small value."""
    if more == 0:
        return value
    start = 4.0 / value
    target = start + math.log(start - 1.0) + more
    u = target
    for _ in range(8):
        u -= (u + math.log(u - 1.0) - target) / (1.0 + 1.0 / (u - 1.0))
    return 4.0 / u


def _plan(schedule: Any) -> Schedule:
    """Check rates; the schedule."""
    if not isinstance(schedule, Schedule):
        values = np.atleast_1d(real_array("schedule", schedule))
        if values.ndim != 1 or values.size < 1:
            raise InvalidProblem("schedule", f"shape {values.shape}", "shape (T,), T >= 1")
        schedule = Schedule.from_array(values)
    if not schedule.peak > 0.0:
        raise InvalidProblem("schedule", schedule, "rates that are not all zero")
    return schedule


def _distance(distance: Any) -> float:
    return number("distance", distance, 0.0, LARGEST, above=True)


def _squares(norms: Any, horizon: int) -> float | Floats:
    """Squared gradient norms."""
    if np.ndim(norms) == 0:
        return number("norms", norms, 0.0, LARGEST, above=True) ** 2
    given = real_array("norms", norms).astype(np.float64)
    if given.shape != (horizon,):
        allowed = f"a number, or shape ({horizon},): one norm for every step"
        raise InvalidProblem("norms", f"shape {given.shape}", allowed)
    whole("horizon", horizon, 1, MAX_DENSE)
    bad = np.flatnonzero(~((given > 0.0) & (given <= LARGEST)))
    if bad.size:
        allowed = f"numbers > 0, at most {LARGEST:g} (at step {bad[0]})"
        raise InvalidProblem("norms", float(given[bad[0]]), allowed)
    return given**2


def _bound(plan: Schedule, count: int, distance: float, squares: float | Floats) -> ConvexBound:
    """Bound of the first ``count`` steps."""
    peak = plan.peak
    steps, values = cut(plan.steps, plan.controls["eta"] / peak, count)
    if not len(steps):
        return ConvexBound(math.inf, 0.0)
    if not isinstance(squares, np.ndarray):
        total, gradient = knot_sums(steps, values)
        gradient *= squares
    else:
        kept = int(steps[-1]) + 1
        eta = np.interp(np.arange(kept), steps, values)
        total, gradient = weighted_sums(eta, squares[:kept])
    return ConvexBound(0.5 * distance**2 / total / peak, 0.5 * peak * gradient)
