"""Schedules made from something else: from a schedule, a family, or measured gradient norms."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from optsched.arrays import Floats, Ints
from optsched.checks import choice, number, real_array, whole
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem
from optsched.schedules.families.pieces import Span, check, span
from optsched.schedules.schedule import Sampling, Schedule

__all__ = ["Averaging", "averaging", "refined", "rewind", "schedule_free", "with_warmup"]

MAX_KNOTS = 100_000
MAX_AVERAGED = 10**7
OFFSETS = {"average": 0.5, "left": 0.0, "right": 1.0}  # of a line, from the start of the step


class Averaging(NamedTuple):
    """What a weighted average of the iterates amounts to; arrays of shape (T,).

    Attributes
    ----------
    weights : numpy.ndarray of float64
        Weight of the iterate after update k in the final average; they sum to 1.
    mixing : numpy.ndarray of float64
        :math:`c_k`: the running average becomes (1 - c) of itself and c of the new iterate.
    rates : numpy.ndarray of float64
        The rate with which the gradient of update k enters the final average.
    """

    weights: Floats
    mixing: Floats
    rates: Floats


def with_warmup(
    schedule: Schedule | Callable[..., Schedule],
    warmup: Span,
    horizon: int | None = None,
    peak: float | None = None,
    *,
    start: float = 0.0,
    sampling: Sampling = "average",
    **options: Any,
) -> Schedule:
    r"""Put a linear warm-up in front of a schedule or of a family.

    .. math:: \eta(t) = \eta_0 (s + (1 - s)\, t/W) \text{ for } t < W,

    then the schedule, from its first step.

    Parameters
    ----------
    schedule : Schedule or callable
        A schedule, which gets W steps longer; or a family, which is built for the T - W steps
        that remain: ``schedule(T - W, peak, sampling=sampling, **options)``.
    warmup : int or float
        W, in steps or as share of the horizon T, warm-up included. With a schedule the share is
        below 1.
    horizon : int
        T, only with a family.
    peak : float
        The rate :math:`\eta_0` at t = W. With a schedule: its first rate if not given.
    start : float
        Fraction s of the peak at t = 0, in [0, 1].
    sampling : {"average", "left"}
        Average over every step, or the rate at its start: the first rate is then
        :math:`s\,\eta_0`, and a step is wasted if s = 0.
    **options
        Of the family.

    Returns
    -------
    Schedule
        Momentum and batch size, if scheduled, keep their first value during the warm-up. Unit,
        rule past the end and metadata are the schedule's.

    Notes
    -----
    Goyal et al., "Accurate, large minibatch SGD", arXiv 1706.02677.
    """
    start = number("start", start, 0.0, 1.0)
    choice("sampling", sampling, ("average", "left"))
    if isinstance(schedule, Schedule):
        if horizon is not None:
            raise InvalidProblem("horizon", horizon, "None with a schedule, which has its own")
        if options:
            raise InvalidProblem("options", sorted(options), "none with a schedule")
        ramp = _in_front(warmup, schedule.horizon)
        top = schedule(0) if peak is None else number("peak", peak, 0.0)
        rest: Schedule | None = schedule
    elif callable(schedule):
        horizon, top, _ = check(horizon, peak)
        ramp = span("warmup", warmup, horizon)
        rest = None
        if ramp < horizon:
            rest = schedule(horizon - ramp, top, sampling=sampling, **options)
    else:
        raise InvalidProblem("schedule", type(schedule).__name__, "a Schedule or a family")
    if ramp == 0 and rest is not None:
        return rest
    steps = np.unique([0, ramp - 1])
    rise = start + (1.0 - start) * ((steps + OFFSETS[sampling]) / ramp)
    if rest is None:
        return Schedule.from_knots(steps, eta=top * rise, horizon=ramp)
    controls = {
        name: np.concatenate([np.full(len(steps), values[0]), values])
        for name, values in rest.controls.items()
    }
    controls["eta"][: len(steps)] = top * rise
    knots = np.concatenate([steps, rest.steps + ramp])
    return rest.replace(horizon=rest.horizon + ramp, steps=knots, controls=controls)


def _in_front(warmup: Any, length: int) -> int:
    """Steps to put in front of ``length`` steps."""
    room = MAX_HORIZON - length
    if isinstance(warmup, (float, np.floating)):
        share = float(warmup)
        if not 0.0 <= share < 1.0 or share / (1.0 - share) * length > room:
            raise InvalidProblem(
                "warmup", warmup, "an int, or a float in [0, 1): share of the total"
            )
        return math.floor(share / (1.0 - share) * length + 0.5)
    return whole("warmup", warmup, 0, room)


def rewind(schedule: Schedule, to: Span, *, at: Span | None = None, times: int = 1) -> Schedule:
    r"""Go back to a former step of a schedule and run it again from there, once or more often.

    With a = ``at`` and b = ``to``: the steps 0 .. a - 1, then b .. a - 1 again ``times - 1``
    times, and last b .. T - 1. The horizon is a + (times - 1)(a - b) + T - b.

    Parameters
    ----------
    schedule : Schedule
        Of T steps.
    to : int or float
        b, in steps or as share of T; below T, and below a if ``times`` is above 1.
    at : int or float, optional
        a: how many steps run before the first jump, 1 to T. The default is T.
    times : int
        How often to jump back.

    Returns
    -------
    Schedule
        With the unit, rule past the end and metadata of the schedule.

    Notes
    -----
    Learning-rate rewinding of Renda, Frankle & Carbin, "Comparing rewinding and fine-tuning in
    neural network pruning", ICLR 2020: after each pruning the rate goes back while the weights
    stay; ``times`` is the number of pruning rounds.
    """
    if not isinstance(schedule, Schedule):
        raise InvalidProblem("schedule", type(schedule).__name__, "a Schedule")
    total = schedule.horizon
    end = span("at", total if at is None else at, total, 1)
    times = whole("times", times, 1, MAX_KNOTS)
    target = span("to", to, total)
    if target >= (total if times == 1 else end):
        limit = f"T = {total}" if times == 1 else f"at = {end}"
        raise InvalidProblem("to", to, f"a step below {limit}")
    parts = [(0, end), *[(target, end)] * (times - 1), (target, total)]
    cut = {part: _part(schedule, *part) for part in set(parts)}
    count = sum(len(cut[part]) for part in parts)
    # A schedule that is long itself may be repeated once.
    if count > max(MAX_KNOTS, 2 * len(schedule.steps) + 4):
        raise InvalidProblem("times", times, f"fewer: {count} knots, at most {MAX_KNOTS}")
    inside = np.concatenate([cut[part] for part in parts])
    shift, shifts = 0, []
    for part in parts:
        shifts.append(np.full(len(cut[part]), shift - part[0]))
        shift += part[1] - part[0]
    controls = {name: schedule(inside, name) for name in schedule.controls}
    knots = inside + np.concatenate(shifts)
    return schedule.replace(horizon=shift, steps=knots, controls=controls)


def _part(schedule: Schedule, first: int, stop: int) -> Ints:
    """Knots of the steps first .. stop - 1."""
    steps = schedule.steps
    return np.union1d([first, stop - 1], steps[(steps >= first) & (steps < stop)])


def schedule_free(
    horizon: int,
    peak: float,
    *,
    warmup: Span = 0,
    sampling: Literal["average", "left", "right"] = "average",
) -> Schedule:
    r"""Rate of a schedule-free optimiser: a linear warm-up, then constant.

    .. math:: \eta_k = \eta_0 \min(1, (k + o)/W), \quad o = 1/2, 0, 1.

    This is no decay under another name: the method keeps the rate and returns a weighted average
    of its iterates instead of the last one. `averaging` gives the weights.

    Parameters
    ----------
    horizon : int
        Number of steps T; the method itself needs none.
    peak : float
        Rate :math:`\eta_0`.
    warmup : int or float
        W, in steps or as share of the horizon.
    sampling : {"average", "left", "right"}
        o = 1/2; 0, as optax; 1, as the authors' package.

    Notes
    -----
    Defazio et al., "The road less scheduled", arXiv 2405.15682.
    """
    choice("sampling", sampling, tuple(OFFSETS))
    horizon, peak, _ = check(horizon, peak)
    ramp = span("warmup", warmup, horizon)
    steps = np.unique([k for k in (0, ramp - 1, ramp, horizon - 1) if 0 <= k < horizon])
    share = np.ones(len(steps))
    np.divide(steps + OFFSETS[sampling], ramp, out=share, where=steps < ramp)
    return Schedule.from_knots(steps, eta=peak * share, horizon=horizon)


def averaging(schedule: Schedule, *, power: float = 2.0, r: float = 0.0) -> Averaging:
    r"""Averaging weights of a schedule-free run, and the decay they imply.

    Update k, with rate :math:`\eta_k`, takes the iterate :math:`z_k` to :math:`z_{k+1}`, which has
    weight :math:`\gamma_k` in the average x:

    .. math::
        \gamma_k = (k+1)^r \max_{j \le k} \eta_j^p, \quad
        c_k = \gamma_k / \sum_{i \le k} \gamma_i, \quad
        x_{k+1} = (1 - c_k) x_k + c_k z_{k+1}.

    As :math:`z_{k+1} = z_0 - \sum_{j \le k} \eta_j g_j`, gradient k enters the last average with

    .. math:: \rho_k = \eta_k \sum_{i \ge k} \gamma_i / \sum_i \gamma_i :

    a linear decay, once the rate is constant and with r = 0.

    Parameters
    ----------
    schedule : Schedule
        The rates, at most 10^7 of them; not all zero.
    power : float
        p, in [0, 100]: 2 gives the :math:`\eta^2` weights of the method.
    r : float
        Exponent of the step, in [0, 100].

    Returns
    -------
    Averaging
        Weights, :math:`c_k` and :math:`\rho_k`.

    Notes
    -----
    The rates :math:`\rho_k` are not a schedule that SGD could run with the same result: the
    gradients are those at the points that the schedule-free method visits, and the last iterate
    of SGD with the rates :math:`\rho` visits others.

    Source: as `schedule_free`; :math:`\eta` is the warm-up rate, its running maximum the authors'
    implementation.
    """
    if not isinstance(schedule, Schedule):
        raise InvalidProblem("schedule", type(schedule).__name__, "a Schedule")
    whole("horizon", schedule.horizon, 1, MAX_AVERAGED)
    power, r = number("power", power, 0.0, 100.0), number("r", r, 0.0, 100.0)
    if not schedule.peak > 0.0:
        raise InvalidProblem("schedule", schedule, "rates that are not all zero")
    eta = schedule.eta
    count = np.arange(1.0, len(eta) + 1.0)
    raw = (count / len(eta)) ** r * (np.maximum.accumulate(eta) / schedule.peak) ** power
    before, after = np.cumsum(raw), np.cumsum(raw[::-1])[::-1]
    mixing = np.divide(raw, before, out=np.zeros_like(raw), where=before > 0.0)
    return Averaging(raw / after[0], mixing, eta * (after / after[0]))


def refined(
    norms: ArrayLike,
    peak: float,
    *,
    optimiser: Literal["sgd", "adam"] = "sgd",
    horizon: int | None = None,
    smooth: float = 0.1,
    sampling: Literal["right", "average", "left"] = "right",
) -> Schedule:
    r"""Refined schedule: from the gradient norms of a run, the schedule for the next run.

    With weights :math:`w_t = G_t^{-2}` (SGD) or :math:`w_t = G_t^{-1}` (Adam), t = 0 .. T-1,

    .. math:: \eta_t \propto w_t \sum_{p > t} w_p,

    scaled so that the largest rate is the peak. Equal norms give linear decay; norms that fall at
    first give a warm-up.

    Parameters
    ----------
    norms : array_like, shape (M,)
        Norms :math:`G` of the stochastic gradients of a former run, in order, positive: l2 norms
        for SGD, l1 norms for Adam. M = T, or fewer: then each stands for T/M steps.
    peak : float
        Largest rate; to be tuned, as the bound fixes it only up to unknown constants.
    optimiser : {"sgd", "adam"}
        Which weights.
    horizon : int, optional
        T, at least M; M if not given.
    smooth : float
        Width of the running median over the norms, as share of M, in [0, 1]; 0 for none. The
        width is made odd. Before the start the first norm is repeated, after the end the norms
        are mirrored, so that the rate near the end follows the late norms.
    sampling : {"right", "average", "left"}
        The sum over later steps takes none of step t itself, half of it, or all of it. With
        ``"right"``, the paper's formula, the last rate is zero, and two steps are the least.

    Returns
    -------
    Schedule
        Two knots for each norm, or one.

    Notes
    -----
    Defazio, Cutkosky, Mehta & Mishchenko, "When, why and how much? Adaptive learning rate
    scheduling by refinement", arXiv 2310.07831. Their bound holds the last iterate to the regret
    of w-weighted steps,

    .. math:: \frac{1}{\sum w}\Big(\frac{D^2}{2} + \frac12 \sum_t w_t^2 G_t^2\Big),

    if the rates are :math:`w_t \sum_{p>t} w_p / \sum w`; its minimum over w has
    :math:`w_t \propto G_t^{-2}`. The sum is empty at the last step because the bound is for the
    iterate *before* a T-th update. For Adam the l1 norm with power -1 stands in for
    :math:`\sum_i g_i^2/\sqrt{v_i}`. The norms depend on the schedule they were measured with:
    the result is a refinement of that one, no fixed point.
    """
    choice("optimiser", optimiser, ("sgd", "adam"))
    choice("sampling", sampling, tuple(OFFSETS))
    peak = number("peak", peak, 0.0)
    given = np.atleast_1d(real_array("norms", norms)).astype(np.float64)
    if given.ndim != 1 or given.size < 1:
        raise InvalidProblem("norms", f"shape {given.shape}", "shape (M,), M >= 1")
    bad = np.flatnonzero(~(np.isfinite(given) & (given > 0.0)))
    if bad.size:
        raise InvalidProblem("norms", float(given[bad[0]]), f"finite, > 0 (at index {bad[0]})")
    size = len(given)
    total = size if horizon is None else whole("horizon", horizon, size, MAX_HORIZON)
    if total == 1 and sampling == "right":
        raise InvalidProblem("horizon", 1, "at least 2 with sampling 'right': the last rate is 0")
    median = _running_median(given, number("smooth", smooth, 0.0, 1.0))
    weights = (median.min() / median) ** (2.0 if optimiser == "sgd" else 1.0)
    # Norm m stands for the steps first[m] .. first[m + 1] - 1; the sum falls linearly there.
    each, rest = divmod(total, size)
    first = np.arange(size + 1) * each + np.arange(size + 1) * rest // size
    length = np.diff(first).astype(np.float64)
    later = np.append(np.cumsum((length * weights)[::-1])[-2::-1], 0.0)
    own = 1.0 - OFFSETS[sampling]
    begin = weights * (later + weights * (length - 1.0 + own))
    end = weights * (later + weights * own)
    steps, index = np.unique(np.stack([first[:-1], first[1:] - 1], 1), return_index=True)
    eta = np.stack([begin, end], 1).ravel()[index]
    top = eta.max()
    if not 0.0 < top < math.inf:
        raise InvalidProblem("norms", "norms too far apart", "norms whose weights do not vanish")
    return Schedule.from_knots(steps, eta=peak * (eta / top), horizon=total)


def _running_median(norms: Floats, share: float) -> Floats:
    from scipy.ndimage import median_filter

    half = int(share * len(norms)) // 2
    if half == 0:
        return norms
    before = np.full(half, norms[0])
    padded = np.concatenate([before, np.pad(norms, (0, half), mode="reflect")])
    return median_filter(padded, size=2 * half + 1)[half:-half]
