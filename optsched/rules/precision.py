r"""Learning rates that the format of the weights can still hold, and scales of the loss.

Weights of p bits behind the point lie one unit in the last place apart,
:math:`h(w) = 2^{\lfloor \log_2 |w| \rfloor - p}`. Rounding to the nearest drops an update with
:math:`|u| < h(w)/2` whole: a schedule that ends below that trains nothing. Stochastic rounding
keeps the mean, at the price of noise. Where the optimiser holds a master copy of the weights in
fp32, the format that counts is fp32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np

from optsched.arrays import Floats
from optsched.checks import choice, number, positive
from optsched.errors import InvalidProblem
from optsched.schedules.schedule import Schedule

__all__ = [
    "FORMATS",
    "Format",
    "LastSteps",
    "Rounding",
    "Update",
    "last_steps",
    "least_rate",
    "loss_scale",
    "rounding",
    "skipped_share",
]

Update = Literal["sign", "normal"]
UPDATES: tuple[Update, ...] = ("sign", "normal")


@dataclass(frozen=True)
class Format:
    """A binary floating-point format.

    Attributes
    ----------
    bits : int
        Bits behind the point.
    lowest : int
        Exponent of the smallest normal number.
    largest : float
        Largest finite number.
    """

    bits: int
    lowest: int
    largest: float

    def spacing(self, value: float) -> float:
        """Distance of neighbouring numbers at ``value``."""
        exponent = self.lowest if value == 0.0 else math.frexp(value)[1] - 1
        return math.ldexp(1.0, max(exponent, self.lowest) - self.bits)


FORMATS = {
    "bf16": Format(7, -126, math.ldexp(2.0 - 2.0**-7, 127)),
    "fp16": Format(10, -14, 65504.0),
    "fp32": Format(23, -126, math.ldexp(2.0 - 2.0**-23, 127)),
}


@dataclass(frozen=True)
class Rounding:
    r"""What rounding does to the updates of normally distributed weights, at one rate.

    Attributes
    ----------
    lost : float
        Share of the updates that rounding to the nearest drops: :math:`P(|u| < h(w)/2)`.
    moved : float
        What is left of the mean movement:
        :math:`E[h\, \mathrm{round}(|u|/h)] / E|u|`; 1 with stochastic rounding.
    noise : float
        Standard deviation that stochastic rounding adds to an update, over the update's root mean
        square: :math:`\sqrt{E[h^2 f (1-f)] / E[u^2]}`, f the fractional part of u/h.
    """

    lost: float
    moved: float
    noise: float


def rounding(
    rate: float,
    dtype: str = "bf16",
    *,
    weight_rms: float = 0.02,
    update_rms: float = 1.0,
    update: Update = "sign",
) -> Rounding:
    r"""What rounding does to the updates at a rate.

    Parameters
    ----------
    rate : float
        Learning rate.
    dtype : str
        Format in which the weights are kept between steps: ``bf16``, ``fp16`` or ``fp32``.
    weight_rms : float
        Root mean square of the weights, which are taken for normal. 0.02 is a usual
        initialisation.
    update_rms : float
        Root mean square of an update at rate 1: at most about 1 for Adam, less where gradients are
        mostly noise; the rms of a gradient for SGD.
    update : {"sign", "normal"}
        Updates all of one size, as at the bound of Adam and with signed steps, or normal ones.

    Returns
    -------
    Rounding

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.

    Examples
    --------
    >>> at = rounding(3e-5, "bf16", weight_rms=0.02)
    >>> f"{at.lost:.2f} of the updates are lost"
    '0.70 of the updates are lost'
    """
    size = positive("rate", rate) * positive("update_rms", update_rms)
    mass, h = _binades(dtype, weight_rms)
    choice("update", update, UPDATES)
    sizes, shares = _sizes(update)
    u = size * sizes[:, None] / h  # in units of the last place, shape (sizes, binades)
    part = u - np.floor(u)
    kept = np.where(part == 0.5, u, np.floor(u + 0.5))  # a tie goes to the even one: half go up
    lost = shares @ np.where(u == 0.5, 0.5, u < 0.5) @ mass
    moved = (shares @ kept @ (mass * h)) / (size * shares @ sizes)
    scatter = shares @ (part * (1.0 - part)) @ (mass * h**2)
    return Rounding(float(lost), float(moved), math.sqrt(scatter) / size)


def _binades(dtype: str, weight_rms: float) -> tuple[Floats, Floats]:
    """Shares of normal weights between powers of two, and the spacing there."""
    form = FORMATS[choice("dtype", dtype, tuple(FORMATS))]
    rms = positive("weight_rms", weight_rms)
    top = math.frexp(rms)[1] + 4  # 8 standard deviations at least
    exponents = np.arange(top, top - 48, -1)
    below = np.array(
        [math.erf(math.ldexp(1.0, int(e)) / (rms * math.sqrt(2.0))) for e in exponents]
    )
    mass = below - np.append(below[1:], 0.0)  # the last one takes all that is smaller
    return mass, np.exp2(np.maximum(exponents - 1.0, form.lowest) - form.bits)


def _sizes(update: Update) -> tuple[Floats, Floats]:
    """Sizes of updates of mean square 1, and their shares."""
    if update == "sign":
        return np.ones(1), np.ones(1)
    count = 4000  # quantiles of |z|, from the middle of each
    middle = (np.arange(count) + 0.5) / count
    quantile = NormalDist().inv_cdf
    z = np.array([quantile(0.5 + 0.5 * float(q)) for q in middle])
    return z / math.sqrt(float(np.mean(z**2))), np.full(count, 1.0 / count)


def least_rate(
    dtype: str = "bf16",
    *,
    weight_rms: float = 0.02,
    update_rms: float = 1.0,
    update: Update = "sign",
    lost: float = 0.5,
) -> float:
    r"""The rate below which more than a share of the updates is lost to rounding.

    Parameters
    ----------
    dtype, weight_rms, update_rms, update
        As for `rounding`.
    lost : float
        The share, in (0, 1).

    Returns
    -------
    float
        :math:`\eta` with :math:`P(|u| < h(w)/2) = ` ``lost``.

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.

    Examples
    --------
    >>> f"{least_rate('bf16', weight_rms=0.02):.1e}", f"{least_rate('fp32', weight_rms=0.02):.1e}"
    ('3.1e-05', '4.7e-10')
    """
    share = number("lost", lost, 0.0, 1.0 - 1e-9, above=True)
    low, high = -200.0, 100.0  # exponents of two; the share falls with the rate
    for _ in range(60):
        middle = 0.5 * (low + high)
        at = rounding(
            math.exp2(middle), dtype, weight_rms=weight_rms, update_rms=update_rms, update=update
        )
        if at.lost > share:
            low = middle
        else:
            high = middle
    return math.exp2(high)


@dataclass(frozen=True)
class LastSteps:
    """Where a schedule stays below the least rate of a format until its end.

    Attributes
    ----------
    least : float
        The least rate.
    step : int or None
        The first step of that part; None if the last rate is above.
    share : float
        Its share of the steps.
    """

    least: float
    step: int | None
    share: float


def last_steps(schedule: Schedule, least: float) -> LastSteps:
    """The last part of a schedule, in which its rate stays below ``least``.

    Parameters
    ----------
    schedule : Schedule
    least : float
        As of `least_rate`.

    Returns
    -------
    LastSteps

    Raises
    ------
    InvalidProblem
        ``least`` is not a finite number > 0.
    """
    positive("least", least)
    rates = schedule(schedule.steps)
    above = np.flatnonzero(rates >= least)
    horizon = schedule.horizon
    if len(above) == 0:
        return LastSteps(least, 0, 1.0)
    low = int(schedule.steps[above[-1]])  # at or above there, below from the next knot on
    if low == horizon - 1:
        return LastSteps(least, None, 0.0)
    after = schedule.steps[schedule.steps > low]
    high = int(after[0]) if len(after) else horizon - 1
    if schedule(high) >= least:  # no knot after: the last value holds
        return LastSteps(least, None, 0.0)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if schedule(middle) >= least else (low, middle)
    return LastSteps(least, high, (horizon - high) / horizon)


def loss_scale(largest: float, dtype: str = "fp16") -> float:
    r"""The largest power of two by which a loss may be scaled before its gradients overflow.

    :math:`S = 2^{\lfloor \log_2 (M / g) \rfloor}` with M the largest finite number of the format.

    Parameters
    ----------
    largest : float
        Largest entry of a gradient, g, in the units of the unscaled loss.
    dtype : str

    Returns
    -------
    float

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.

    Examples
    --------
    >>> loss_scale(3.0)
    16384.0
    """
    form = FORMATS[choice("dtype", dtype, tuple(FORMATS))]
    found = math.frexp(form.largest / positive("largest", largest))[1] - 1
    return math.ldexp(1.0, min(found, 1000))


def skipped_share(interval: float = 2000, growth: float = 2.0, backoff: float = 0.5) -> float:
    r"""Share of the steps that a dynamic loss scale skips once it has found its level.

    The scale grows by a factor after n steps without overflow and falls at each overflow, where
    the step is skipped. At its level what k growths add one overflow takes:
    :math:`k = \ln(1/b) / \ln g`, and one step in :math:`1 + k n` is lost.

    Parameters
    ----------
    interval : float
        n, 1 or more.
    growth : float
        g > 1.
    backoff : float
        b in (0, 1).

    Returns
    -------
    float

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.
    """
    steps = number("interval", interval, 1.0)
    factor = number("growth", growth, 1.0, above=True)
    falls = number("backoff", backoff, 0.0, 1.0, above=True)
    if falls == 1.0:
        raise InvalidProblem("backoff", backoff, "a finite number > 0 and < 1")
    return 1.0 / (1.0 + steps * math.log(1.0 / falls) / math.log(factor))
