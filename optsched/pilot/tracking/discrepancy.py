r"""What a law and a run are apart by, beyond the parameters: how it goes along the run.

Relative to the loss, the covariance of the discrepancy at two times of a run, t steps at a rate
that is the share r of the peak, is

.. math:: m m' [(1 - w)\,\kappa_l + w\,\kappa_s\,\chi] + s^2 \kappa_s
   + p^2 (1 + 2 r)(1 + 2 r') [(1 - v) + v\,\chi]\,\kappa_l + \sum_j d_j d_j' \kappa_j ,

with :math:`\kappa = e^{-|\ln t - \ln t'|/\ell}` of several lengths,
:math:`\chi = e^{-|r - r'|/\rho}`, m the misfit of the law, s the noise between seeds and p what
laws err by at other peaks and weight decays. Early in training the misfit is larger,
:math:`m (1 + 8 (t_1/t)^2)` with :math:`t_1` the first step of the fit. After a jump of the rate
at :math:`t_j` the loss follows faster or slower than a law has it:
:math:`d_j = .003\,|\ln r_+/r_-|\,(t_j/t)^{1/\ell_j}`. At a rate of 0, late and without a jump its
variance is that of `optsched.pilot.prediction.predict`. Lengths and shares were chosen on one in
thirteen of the public runs of ``benchmarks.tracking``; the likelihood is flat about them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Brief, Floats
from optsched.logs.rates import jumps
from optsched.pilot.fitting import Fit
from optsched.pilot.prediction import MISFIT, OTHER_DECAY, peak_error
from optsched.schedules.schedule import Schedule

__all__ = ["Times", "discrepancy"]

SHAPE, PEAK = 0.5, 0.6  # w, v: shares that go with the rate
LONG, SHORT = 5.0, 0.4  # lengths, in the logarithm of the step
RATE = 0.5  # length in the rate, of the peak
ROUGH = 2.0  # at other peaks laws err by three times as much at the peak as at a rate of 0


EARLY = 8.0
JUMP, LAG = 3e-3, 0.08  # after a jump by a factor of e, and its length
LEAST_RATE = 1e-3  # of the peak: from there down a jump is one to nothing


@dataclass(frozen=True, eq=False, repr=False)
class Times(Brief):
    """Places along a run.

    Attributes
    ----------
    log_step : numpy.ndarray, shape (n,)
    rate : numpy.ndarray, shape (n,)
        Over the peak.
    loss : numpy.ndarray, shape (n,)
        As the law has it.
    """

    log_step: Floats
    rate: Floats
    loss: Floats


def discrepancy(found: Fit, one: Times, other: Times, schedule: Schedule) -> Floats:
    """Covariance (n, m) of the logarithm of the loss at two sets of places along a schedule."""
    apart = np.abs(one.log_step[:, None] - other.log_step[None])
    turned = np.exp(-np.abs(one.rate[:, None] - other.rate[None]) / RATE)
    long, short = np.exp(-apart / LONG), np.exp(-apart / SHORT)
    size = _misfit(found, one)[:, None] * _misfit(found, other)[None]
    rough = (1.0 + ROUGH * one.rate[:, None]) * (1.0 + ROUGH * other.rate[None])
    above = rough * ((1.0 - PEAK) + PEAK * turned) * long
    out = size * ((1.0 - SHAPE) * long + SHAPE * turned * short)
    carried = peak_error(found, schedule.peak) ** 2 + (OTHER_DECAY * found.decay_shift) ** 2
    out += found.seed_noise**2 * short + carried * above
    out += _slipped(found, one)[:, None] * _slipped(found, other)[None]
    for at, jump in _jumps(schedule):
        mine, theirs = (_after(times, at, jump) for times in (one, other))
        out += mine[:, None] * theirs[None] * np.exp(-apart / LAG)
    return out


def _misfit(found: Fit, at: Times) -> Floats:
    """Standard deviation of what the law cannot say, relative."""
    first = math.log(found.scale.first * found.scale.span)
    return MISFIT * found.misfit / at.loss * (1.0 + EARLY * np.exp(2.0 * (first - at.log_step)))


def _slipped(found: Fit, at: Times) -> Floats:
    """What the fit slips by in the doublings past its longest run, all along to one side."""
    doublings = (at.log_step - math.log(found.horizon)) / math.log(2.0)
    return found.slip * np.maximum(doublings, 0.0)


def _jumps(schedule: Schedule) -> Iterator[tuple[float, float]]:
    """Log steps of the jumps of the rate, and by how much its logarithm changes."""
    steps, eta = schedule.steps, schedule.controls["eta"]
    least = LEAST_RATE * schedule.peak
    for i in jumps(steps, eta):
        if steps[i + 1] - steps[i] == 1 and steps[i + 1] > 1:
            change = np.log(np.maximum(eta[i : i + 2], least))
            yield math.log(steps[i + 1]), abs(float(change[1] - change[0]))


def _after(times: Times, at: float, jump: float) -> Floats:
    since = times.log_step - at
    return np.where(since >= 0.0, JUMP * jump * np.exp(-np.maximum(since, 0.0) / LAG), 0.0)
