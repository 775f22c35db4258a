r"""Schedules that decay: one formula from the first step to the last, or a warm-up and a cooldown.

In all formulas t is the time in steps, :math:`T` the horizon, :math:`\eta_0` the peak rate and
``final`` the fraction :math:`f` of it that is reached at :math:`t = T`. With
``sampling="average"`` step k holds the average over :math:`[k, k+1]`, with ``"left"`` the value at
:math:`t = k`, as torch, optax and transformers have it. A duration is an int (steps) or a float in
[0, 1] (share of the horizon, rounded to the nearest step).
"""

from __future__ import annotations

import math
from typing import Literal

from optsched.checks import choice, is_number, number
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem
from optsched.schedules.families.pieces import (
    ANNEALS,
    Piece,
    Span,
    anneal,
    check,
    exponential_decay,
    flat,
    line,
    power_mean,
    sample,
    span,
)
from optsched.schedules.schedule import Sampling, Schedule

__all__ = [
    "capped_power_law",
    "constant",
    "cosine",
    "exponential",
    "inverse_sqrt",
    "inverse_time",
    "linear",
    "polynomial",
    "power_law",
    "wsd",
]

Anneal = Literal["linear", "1-sqrt", "exponential", "power", "cosine"]


def _schedule(pieces: list[Piece], horizon: int, peak: float, average: bool) -> Schedule:
    steps, values = sample(pieces, horizon, average)
    return Schedule.from_knots(steps, eta=peak * values, horizon=horizon)


def constant(horizon: int, peak: float, *, sampling: Sampling = "average") -> Schedule:
    r"""Constant rate, :math:`\eta_k = \eta_0`.

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        Rate :math:`\eta_0`.
    sampling : {"average", "left"}
        Makes no difference here.
    """
    horizon, peak, average = check(horizon, peak, sampling)
    return _schedule([Piece(0.0, horizon, flat(1.0), straight=True)], horizon, peak, average)


def linear(
    horizon: int, peak: float, *, final: float = 0.0, sampling: Sampling = "average"
) -> Schedule:
    r"""Linear decay, :math:`\eta(t) = \eta_0 (1 - (1 - f)\, t/T)`.

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        Rate :math:`\eta_0` at t = 0.
    final : float
        Fraction f of the peak at t = T, in [0, 1].
    sampling : {"average", "left"}
        Average over every step, or the rate at its start.

    Notes
    -----
    Minimises the worst-case bound of Defazio et al., arXiv 2310.07831, for equal gradient norms.
    """
    horizon, peak, average = check(horizon, peak, sampling)
    final = number("final", final, 0.0, 1.0)
    return _schedule([anneal(0.0, horizon, "linear", final)], horizon, peak, average)


def polynomial(
    horizon: int,
    peak: float,
    *,
    power: float = 2.0,
    final: float = 0.0,
    sampling: Sampling = "average",
) -> Schedule:
    r"""Power decay, :math:`\eta(t) = \eta_0 (f + (1 - f)(1 - t/T)^p)`.

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        Rate :math:`\eta_0` at t = 0.
    power : float
        Exponent p, in (0, 100].
    final : float
        Fraction f of the peak at t = T, in [0, 1].
    sampling : {"average", "left"}
        Average over every step, or the rate at its start.

    Notes
    -----
    The "poly" policy of Caffe and DeepLab (Chen et al., arXiv 1606.00915, p = 0.9); p = 2b - 1 is
    the form of the optimum in the easy phase.
    """
    horizon, peak, average = check(horizon, peak, sampling)
    power = number("power", power, 0.0, 100.0, above=True)
    final = number("final", final, 0.0, 1.0)
    return _schedule([anneal(0.0, horizon, "power", final, power)], horizon, peak, average)


def cosine(
    horizon: int, peak: float, *, final: float = 0.0, sampling: Sampling = "average"
) -> Schedule:
    r"""Cosine decay, :math:`\eta(t) = \eta_0 (f + (1 - f)(1 + \cos(\pi t/T))/2)`.

    Parameters
    ----------
    horizon : int
        Number of steps T; above 4096 the curve is linear between about 4096 graded knots.
    peak : float
        Rate :math:`\eta_0` at t = 0.
    final : float
        Fraction f of the peak at t = T, in [0, 1].
    sampling : {"average", "left"}
        Average over every step, or the rate at its start.

    Notes
    -----
    Loshchilov & Hutter, "SGDR", ICLR 2017, without restarts.
    """
    horizon, peak, average = check(horizon, peak, sampling)
    final = number("final", final, 0.0, 1.0)
    return _schedule([anneal(0.0, horizon, "cosine", final)], horizon, peak, average)


def exponential(
    horizon: int,
    peak: float,
    *,
    final: float | None = None,
    gamma: float | None = None,
    sampling: Sampling = "average",
) -> Schedule:
    r"""Exponential decay, :math:`\eta(t) = \eta_0 f^{t/T}` or :math:`\eta(t) = \eta_0 \gamma^t`.

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        Rate :math:`\eta_0` at t = 0.
    final : float, optional
        Fraction f of the peak at t = T, in (0, 1]; 0.01 if ``gamma`` is not given either.
    gamma : float, optional
        Instead of ``final``: the factor of one step, in (0, 1].
    sampling : {"average", "left"}
        Average over every step, or the rate at its start.

    Raises
    ------
    InvalidProblem
        Also if both ``final`` and ``gamma`` are given.
    """
    horizon, peak, average = check(horizon, peak, sampling)
    if final is not None and gamma is not None:
        raise InvalidProblem("gamma", gamma, "None, as final is given")
    if gamma is not None:
        rate = -math.log(number("gamma", gamma, 0.0, 1.0, above=True))
    else:
        value = 0.01 if final is None else final
        rate = -math.log(number("final", value, 0.0, 1.0, above=True)) / horizon
    return _schedule([Piece(0.0, horizon, exponential_decay(rate))], horizon, peak, average)


def inverse_sqrt(
    horizon: int,
    peak: float,
    *,
    warmup: Span = 0.05,
    timescale: Span | None = None,
    sampling: Sampling = "average",
) -> Schedule:
    r"""Linear warm-up, then inverse square root.

    .. math::
        \eta(t) = \eta_0 t/W \text{ for } t < W, \quad
        \eta(t) = \eta_0 \sqrt{\frac{\tau}{t - W + \tau}} \text{ after}.

    With the default :math:`\tau = W` this is :math:`\eta_0 \min(t/W, \sqrt{W/t})`.

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        Rate :math:`\eta_0` at t = W.
    warmup : int or float
        W, in steps or as share of the horizon.
    timescale : int or float, optional
        :math:`\tau`, at least one step; ``warmup`` if not given.
    sampling : {"average", "left"}
        Average over every step, or the rate at its start.

    Notes
    -----
    Vaswani et al., "Attention is all you need", NeurIPS 2017; the separate time-scale is from
    Zhai et al., "Scaling vision transformers", CVPR 2022.
    """
    horizon, peak, average = check(horizon, peak, sampling)
    ramp = span("warmup", warmup, horizon)
    if timescale is None and ramp == 0:
        if is_number(warmup) and warmup > 0:  # a share that is less than half a step
            timescale = 1
        else:
            raise InvalidProblem("timescale", None, "at least one step, as warmup is 0")
    tau = ramp if timescale is None else span("timescale", timescale, horizon, 1, MAX_HORIZON)
    pieces = [Piece(0.0, ramp, line(0.0, 1.0, ramp), straight=True)] if ramp else []
    pieces.append(Piece(ramp, horizon, lambda s, g, w: power_mean(1.0 + s / tau, w / tau, -0.5)))
    return _schedule(pieces, horizon, peak, average)


def inverse_time(
    horizon: int,
    peak: float,
    *,
    timescale: Span = 0.1,
    power: float = 1.0,
    sampling: Sampling = "average",
) -> Schedule:
    r"""Inverse time, :math:`\eta(t) = \eta_0 (1 + t/\tau)^{-p}`.

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        Rate :math:`\eta_0` at t = 0.
    timescale : int or float
        :math:`\tau`, in steps (at least one) or as share of the horizon.
    power : float
        Exponent p, in [0, 100].
    sampling : {"average", "left"}
        Average over every step, or the rate at its start.

    Notes
    -----
    With p = 1 the rates of Robbins & Monro (1951). Keras' InverseTimeDecay has
    :math:`\tau` = decay_steps / decay_rate.
    """
    horizon, peak, average = check(horizon, peak, sampling)
    tau = span("timescale", timescale, horizon, 1, MAX_HORIZON)
    power = number("power", power, 0.0, 100.0)
    piece = Piece(0.0, horizon, lambda s, g, w: power_mean(1.0 + s / tau, w / tau, -power))
    return _schedule([piece], horizon, peak, average)


def power_law(
    horizon: int,
    c: float,
    *,
    xi: float = 0.0,
    chi: float = 0.5,
    sampling: Sampling = "average",
) -> Schedule:
    r"""Power law in horizon and time, :math:`\eta(t) = c\, T^{-\xi} t^{-\chi}`.

    Parameters
    ----------
    horizon : int
        Number of steps T.
    c : float
        Prefactor, >= 0.
    xi : float
        Exponent :math:`\xi` of the horizon, in [-10, 10].
    chi : float
        Exponent :math:`\chi` of the time, in [0, 1), or in [0, 10] with ``sampling="left"``.
    sampling : {"average", "left"}
        Average over every step; the first is :math:`c\, T^{-\xi}/(1-\chi)`. The rate is infinite
        at t = 0, so ``"left"`` counts steps from one: :math:`\eta_k = c\, T^{-\xi} (k+1)^{-\chi}`.

    Notes
    -----
    One of the families in which the optimum on power-law features is compared; see the theory
    page of the documentation. With :math:`\chi` = 0 a constant whose value depends on T.
    """
    horizon, c, average = check(horizon, c, sampling)
    xi = number("xi", xi, -10.0, 10.0)
    chi = number("chi", chi, 0.0, 10.0)
    if average and chi >= 1.0:
        raise InvalidProblem("chi", chi, "below 1 with sampling 'average': the integral diverges")
    shift = 0.0 if average else 1.0
    # In units of the largest rate.
    top = 1.0 / (1.0 - chi) if average else 1.0
    piece = Piece(0.0, horizon, lambda s, g, w: power_mean(s + shift, w, -chi) / top)
    return _schedule([piece], horizon, c * float(horizon) ** -xi * top, average)


def capped_power_law(
    horizon: int,
    peak: float,
    *,
    hold: Span = 0.1,
    chi: float = 0.5,
    sampling: Sampling = "average",
) -> Schedule:
    r"""Power law below a cap, :math:`\eta(t) = \min(\eta_0, c\, t^{-\chi})`.

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        The cap :math:`\eta_0`.
    hold : int or float
        Where the power law falls below it, :math:`(c/\eta_0)^{1/\chi}`, in steps (at least one) or
        as share of the horizon.
    chi : float
        Exponent :math:`\chi`, in [0, 100].
    sampling : {"average", "left"}
        Average over every step, or the rate at its start.

    Notes
    -----
    The other reading of a power law with a largest rate: `power_law` scales all of it.
    """
    horizon, peak, average = check(horizon, peak, sampling)
    held = min(span("hold", hold, horizon, 1, MAX_HORIZON), horizon)
    chi = number("chi", chi, 0.0, 100.0)
    pieces = [Piece(0.0, held, flat(1.0), straight=True)]
    if held < horizon:
        fall = Piece(held, horizon, lambda s, g, w: power_mean(1.0 + s / held, w / held, -chi))
        pieces.append(fall)
    return _schedule(pieces, horizon, peak, average)


def wsd(
    horizon: int,
    peak: float,
    *,
    warmup: Span = 0,
    cooldown: Span = 0.2,
    shape: Anneal = "linear",
    final: float | None = None,
    power: float = 2.0,
    start: float = 0.0,
    sampling: Sampling = "average",
) -> Schedule:
    r"""Warm-up, stable rate, decay (also called trapezoid, or constant with cooldown).

    Linear from :math:`s \eta_0` to :math:`\eta_0` in W steps; constant; in the last C steps, with
    :math:`x = (t - T + C)/C`, the rate :math:`\eta(t)/\eta_0` is

    ============= =======================================
    shape
    ============= =======================================
    linear        :math:`f + (1 - f)(1 - x)`
    1-sqrt        :math:`f + (1 - f)(1 - \sqrt{x})`
    power         :math:`f + (1 - f)(1 - x)^p`
    cosine        :math:`f + (1 - f)(1 + \cos \pi x)/2`
    exponential   :math:`f^x`
    ============= =======================================

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        The stable rate :math:`\eta_0`.
    warmup, cooldown : int or float
        W and C, in steps or as share of the horizon; together at most the horizon.
    shape : {"linear", "1-sqrt", "exponential", "power", "cosine"}
        Of the cooldown.
    final : float, optional
        Fraction f of the peak at t = T, in [0, 1], for the exponential above 0. The default is 0,
        for the exponential 0.01.
    power : float
        Exponent p, in (0, 100].
    start : float
        Fraction s of the peak at t = 0, in [0, 1].
    sampling : {"average", "left"}
        Average over every step, or the rate at its start.

    Notes
    -----
    Hu et al., "MiniCPM", arXiv 2404.06395 (exponential); Hagele et al., "Scaling laws and
    compute-optimal training beyond fixed training durations", arXiv 2405.18392 (1-sqrt).
    """
    horizon, peak, average = check(horizon, peak, sampling)
    choice("shape", shape, ANNEALS)
    if final is None:
        final = 0.01 if shape == "exponential" else 0.0
    final = number("final", final, 0.0, 1.0, above=shape == "exponential")
    power = number("power", power, 0.0, 100.0, above=True)
    start = number("start", start, 0.0, 1.0)
    ramp, decay = span("warmup", warmup, horizon), span("cooldown", cooldown, horizon)
    if ramp + decay == horizon + 1 and float in (type(warmup), type(cooldown)):
        decay -= 1  # both shares were rounded up
    if ramp + decay > horizon:
        allowed = f"at most {horizon - ramp} steps, as {ramp} of {horizon} are warm-up"
        raise InvalidProblem("cooldown", cooldown, allowed)
    pieces = [
        Piece(0.0, ramp, line(start, 1.0, max(ramp, 1)), straight=True),
        Piece(ramp, horizon - decay, flat(1.0), straight=True),
    ]
    if decay:
        pieces.append(anneal(horizon - decay, horizon, shape, final, power))
    pieces = [piece for piece in pieces if piece.end > piece.start]
    return _schedule(pieces, horizon, peak, average)
