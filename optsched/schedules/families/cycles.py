r"""Cyclical schedules: cosine with restarts, one cycle, triangular cycles.

Times, durations, ``final`` and ``sampling`` are as in `optsched.schedules.families.decays`. At a
jump the last step before and the first step after are both knots, so that values there are exact.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from optsched.arrays import Floats
from optsched.checks import choice, number, whole
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem
from optsched.schedules.families.pieces import (
    MAX_CURVES,
    MAX_LINES,
    Mean,
    Piece,
    Span,
    check,
    exponential_decay,
    flat,
    half_cosine,
    limit_cycles,
    line,
    sample,
    span,
)
from optsched.schedules.schedule import Sampling, Schedule

__all__ = ["cosine_restarts", "cyclical", "one_cycle"]

Mode = Literal["triangular", "triangular2", "exp_range"]


def cosine_restarts(
    horizon: int,
    peak: float,
    *,
    cycles: int | None = None,
    first: Span | None = None,
    t_mult: float = 1.0,
    decay: float = 1.0,
    final: float = 0.0,
    sampling: Sampling = "average",
) -> Schedule:
    r"""Cosine decay with warm restarts (SGDR).

    Cycle i, of length :math:`T_i = T_0 m^i`, starts at :math:`t_i = T_0 + \dots + T_{i-1}`; in it

    .. math:: \eta(t) = \eta_0 (f + (1 - f) d^i (1 + \cos(\pi (t - t_i)/T_i))/2).

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        Rate :math:`\eta_0` at t = 0.
    cycles : int, optional
        Number of cycles that fill the horizon, at most 1000; 4 if ``first`` is not given. A restart
        may fall within a step, which then averages the end of a cycle and the start of the next.
    first : int or float, optional
        Instead of ``cycles``: :math:`T_0`, in steps (at least one) or as share of the horizon. The
        last cycle is cut off by the horizon.
    t_mult : float
        m, in [1, 1000].
    decay : float
        d, in (0, 1].
    final : float
        Fraction f of the peak at the end of each cycle, in [0, 1].
    sampling : {"average", "left"}
        Average over every step, or the rate at its start.

    Notes
    -----
    Loshchilov & Hutter, "SGDR", ICLR 2017; the decay of the peaks is a later addition.
    """
    horizon, peak, average = check(horizon, peak, sampling)
    t_mult = number("t_mult", t_mult, 1.0, 1000.0)
    decay = number("decay", decay, 0.0, 1.0, above=True)
    final = number("final", final, 0.0, 1.0)
    if first is not None and cycles is not None:
        raise InvalidProblem("first", first, "None, as cycles is given")
    if first is not None:
        length = float(span("first", first, horizon, 1, MAX_HORIZON))
        if t_mult == 1.0:
            limit_cycles("first", first, math.ceil(horizon / length), MAX_CURVES)
        count = MAX_CURVES
    else:
        count = whole("cycles", 4 if cycles is None else cycles, 1, MAX_CURVES)
        # In units of the last cycle: powers of 1/m cannot overflow.
        length = horizon * t_mult ** (1 - count) / sum(t_mult**-i for i in range(count))
    pieces, start = [], 0.0
    for i in range(count):
        end = start + length * t_mult**i
        if first is None and i == count - 1:
            end = float(horizon)
        if end > start:
            top = final + (1.0 - final) * decay**i
            pieces.append(Piece(start, end, half_cosine(top, final, end - start)))
        start = end
        if start >= horizon:
            break
    else:
        limit_cycles("first", first, count + 1, MAX_CURVES)
    steps, values = sample(pieces, horizon, average)
    return Schedule.from_knots(steps, eta=peak * values, horizon=horizon)


def one_cycle(
    horizon: int,
    peak: float,
    *,
    rise: Span = 0.3,
    fall: Span | None = None,
    start: float = 0.04,
    final: float = 4e-6,
    shape: Literal["cosine", "linear"] = "cosine",
    beta: tuple[float, float] | None = None,
    closed: bool = False,
    sampling: Sampling = "average",
) -> Schedule:
    r"""One cycle: up from :math:`s \eta_0` to :math:`\eta_0`, then down to :math:`f \eta_0`.

    The phases end at R and T, or at R, F and T, where the rate is s again at F. Each is half a
    period of a cosine, or a line. The momentum mirrors it: from the higher value to the lower one
    at R, and back.

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        Rate :math:`\eta_0` at t = R.
    rise : int or float
        R, in steps or as share of the horizon.
    fall : int or float, optional
        F, likewise, not before R: makes it three phases.
    start, final : float
        Fractions s and f of the peak, in [0, 1].
    shape : {"cosine", "linear"}
        Of every phase.
    beta : tuple of float, optional
        Lowest and highest momentum, in [0, 1): the schedule then has the control ``beta``.
    closed : bool
        Phases as `torch.optim.lr_scheduler.OneCycleLR` has them: they end at R - 1, F - 2 and
        T - 1, and shares of the horizon are not rounded. So the last step has the final rate.
    sampling : {"average", "left"}
        Average over every step, or the rate at its start.

    Notes
    -----
    Smith & Topin, "Super-convergence", arXiv 1708.07120; the momentum from Smith, arXiv 1803.09820.
    """
    horizon, peak, average = check(horizon, peak, sampling)
    start, final = number("start", start, 0.0, 1.0), number("final", final, 0.0, 1.0)
    choice("shape", shape, ("cosine", "linear"))
    if not isinstance(closed, bool):
        raise InvalidProblem("closed", closed, "True or False")
    ends, levels, momenta = [0.0], [start, 1.0], [1.0, 0.0]
    ends.append(_phase_end("rise", rise, horizon, closed))
    if fall is not None:
        ends.append(_phase_end("fall", fall, horizon, closed))
        levels.append(start)
        momenta.append(1.0)
        if span("fall", fall, horizon) < span("rise", rise, horizon):
            raise InvalidProblem("fall", fall, f"not before rise, {rise}")
        if ends[1] > 0.0:  # else both phases are over before the first step
            ends[2] = max(ends[1], ends[2])
    stop = float(horizon - closed)
    ends, levels, momenta = [*ends, stop], [*levels, final], [*momenta, 1.0]

    def pieces(values: list[float]) -> list[Piece]:
        made = [
            _phase(a, b, u, v, shape)
            for a, b, u, v in zip(ends, ends[1:], values, values[1:], strict=False)
            if b > max(a, 0.0)
        ]
        if closed:
            made.append(Piece(stop, stop + 1.0, flat(values[-1]), straight=True))
        return made

    steps, values = sample(pieces(levels), horizon, average)
    controls = {"eta": peak * values}
    if beta is not None:
        low, high = _momenta(beta)
        controls["beta"] = low + (high - low) * sample(pieces(momenta), horizon, average)[1]
    return Schedule.from_knots(steps, controls, horizon=horizon)


def _phase_end(field: str, value: Span, horizon: int, closed: bool) -> float:
    end = float(span(field, value, horizon))
    if not closed:
        return end
    if not isinstance(value, (int, np.integer)):
        end = float(value) * horizon
    return end - (1.0 if field == "rise" else 2.0)


def _phase(start: float, end: float, first: float, last: float, shape: str) -> Piece:
    if shape == "linear":
        return Piece(start, end, line(first, last, end - start), straight=True)
    return Piece(start, end, half_cosine(first, last, end - start))


def _momenta(beta: Any) -> tuple[float, float]:
    try:
        low, high = (number("beta", b, 0.0, 1.0) for b in beta)
    except (TypeError, ValueError):
        low, high = 1.0, 1.0
    if not low <= high < 1.0:
        raise InvalidProblem("beta", beta, "a pair of numbers, 0 <= lowest <= highest < 1")
    return low, high


def cyclical(
    horizon: int,
    peak: float,
    *,
    mode: Mode = "triangular",
    up: Span = 0.1,
    down: Span | None = None,
    floor: float = 0.25,
    gamma: float | None = None,
    beta: tuple[float, float] | None = None,
    sampling: Sampling = "average",
) -> Schedule:
    r"""Triangular cycles between a floor and the peak.

    .. math:: \eta(t) = \eta_0 (r + (1 - r)\, \Lambda(t)\, a(t)),

    where :math:`\Lambda` rises from 0 to 1 in U steps and falls back in D, again and again. In
    cycle i = 0, 1, ... the amplitude a is 1 (triangular), :math:`2^{-i}` (triangular2) or
    :math:`\gamma^t` (exp_range).

    Parameters
    ----------
    horizon : int
        Number of steps T.
    peak : float
        Largest rate :math:`\eta_0`.
    mode : {"triangular", "triangular2", "exp_range"}
        The amplitude.
    up, down : int or float
        U and D, in steps (at least one) or as share of the horizon; D is U if not given. At most
        5000 cycles, in mode exp_range 500.
    floor : float
        r, in [0, 1].
    gamma : float, optional
        For exp_range, and needed there: the factor of one step, in (0, 1].
    beta : tuple of float, optional
        Lowest and highest momentum, in [0, 1): the schedule then has the control ``beta``,
        highest - (highest - lowest) :math:`\Lambda(t)\, a(t)`.
    sampling : {"average", "left"}
        Average over every step, or the rate at its start.

    Notes
    -----
    Smith, "Cyclical learning rates for training neural networks", WACV 2017.
    """
    horizon, peak, average = check(horizon, peak, sampling)
    choice("mode", mode, ("triangular", "triangular2", "exp_range"))
    if (gamma is None) == (mode == "exp_range"):
        allowed = "a number in (0, 1]" if gamma is None else "None"
        raise InvalidProblem("gamma", gamma, f"{allowed}, as mode is {mode!r}")
    gamma = 1.0 if gamma is None else number("gamma", gamma, 0.0, 1.0, above=True)
    floor = number("floor", floor, 0.0, 1.0)
    rise = span("up", up, horizon, 1, MAX_HORIZON)
    fall = rise if down is None else span("down", down, horizon, 1, MAX_HORIZON)
    count = -(-horizon // (rise + fall))
    curved = mode == "exp_range" and gamma < 1.0
    limit_cycles("up", up, count, (MAX_CURVES if curved else MAX_LINES) // 2)
    rate = -math.log(gamma)
    pieces: list[Piece] = []
    for i in range(count):
        start, top = i * (rise + fall), 0.5**i if mode == "triangular2" else 1.0
        for a, b, u, v in (
            (start, start + rise, 0.0, top),
            (start + rise, start + rise + fall, top, 0.0),
        ):
            if a < horizon:
                if curved:
                    pieces.append(Piece(a, b, _damped(u, v, b - a, a, rate)))
                else:
                    pieces.append(Piece(a, b, line(u, v, b - a), straight=True))
    steps, wave = sample(pieces, horizon, average)
    controls = {"eta": peak * (floor + (1.0 - floor) * wave)}
    if beta is not None:
        low, high = _momenta(beta)
        controls["beta"] = high - (high - low) * wave
    return Schedule.from_knots(steps, controls, horizon=horizon)


def _damped(first: float, last: float, length: float, start: float, rate: float) -> Mean:
    """A line times exp(-rate t), where t counts from 0 and the line from ``start``."""
    slope = (last - first) / length
    decay = exponential_decay(rate)

    def mean(since: Floats, togo: Floats, width: Floats) -> Floats:
        x = rate * width
        # The integral of y exp(-x y) over [0, 1]; its closed form cancels for small x.
        small = np.minimum(x, 0.5)
        series = sum((-small) ** n / (math.factorial(n) * (n + 2.0)) for n in range(14))
        large = np.maximum(x, 0.5)
        moment = np.where(x < 0.5, series, (1.0 - np.exp(-large) * (1.0 + large)) / large**2)
        level = (first + slope * since) * decay(start + since, togo, width)
        return level + slope * width * moment * np.exp(-rate * (start + since))

    return mean
