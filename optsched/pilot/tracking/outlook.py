"""What a law expects of the bins of a whole run, those to come too, and what faults would do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Brief, Floats, Ints
from optsched.pilot.fitting import Fit
from optsched.pilot.pieces import cut
from optsched.pilot.tracking.alarm import Fault
from optsched.pilot.tracking.anchor import linear, places, spread_of
from optsched.pilot.tracking.discrepancy import discrepancy
from optsched.pilot.tracking.rows import Bins
from optsched.schedules.schedule import Schedule

__all__ = ["Outlook", "changed", "held", "outlook"]

FAULTS = 20  # times at which a fault may begin
FACTOR = 2.0  # of the rate, in the fault that is a wrong rate
HELD = 0.02  # of the peak: a rate that changes by less later on is held anyway
TINY = 1e-12


@dataclass(frozen=True, eq=False, repr=False)
class Outlook(Brief):
    """What a law expects of the bins of a run.

    Attributes
    ----------
    off : numpy.ndarray, shape (n,)
        Measured minus law in logarithms, of the bins so far.
    law : numpy.ndarray, shape (n,)
        Logarithm of the loss that the law has there.
    covariance : numpy.ndarray, shape (m, m)
        Of all bins; the diagonal is the squared width of the band of the law.
    signatures : mapping of Fault to numpy.ndarray of shape (m,)
    """

    off: Floats
    law: Floats
    covariance: Floats
    signatures: Mapping[Fault, Floats]


def outlook(
    found: Fit,
    schedule: Schedule,
    bins: Bins,
    edges: Floats,
) -> Outlook:
    """What is expected of the bins so far and of those to come.

    Parameters
    ----------
    found : Fit
        Of the pilots.
    schedule : Schedule
        Of the whole run.
    bins : Bins
        So far.
    edges : numpy.ndarray
        Of all bins.
    """
    law = found.law
    last = int(bins.rows[-1])
    later = edges[edges > last + 1]
    to_come = np.unique(np.round(0.5 * (later[:-1] + later[1:])).astype(np.int64))
    to_come = to_come[(to_come > last) & (to_come <= schedule.horizon)]
    steps = np.append(bins.rows, to_come)
    n, m = len(bins.steps), len(bins.steps) + len(to_come)

    def mean(values: Floats) -> Floats:
        done = bins.mean(values[: len(bins.rows)])
        return np.concatenate([done, values[len(bins.rows) :]])

    pieces = cut(schedule, steps, found.scale)
    rows = linear(law, found.theta, spread_of(found), pieces, places(schedule, steps))
    off = bins.log_loss - rows.value[: len(bins.rows)]
    noise = bins.noise(off)
    times = type(rows.times)(*(mean(one) for one in vars(rows.times).values()))
    slope = mean(rows.slope)
    all_noise = np.append(noise, np.full(m - n, float(np.median(noise))))
    covariance = discrepancy(found, times, times, schedule) + slope @ slope.T
    covariance += np.diag(all_noise**2)

    def loss(other: Schedule) -> Floats:
        told = law.curve(found.theta, cut(other, steps, found.scale))
        return mean(np.log(np.maximum(told, TINY)) - rows.value)

    centre = np.append(bins.steps, to_come)
    starts = np.unique(np.round(np.linspace(0, m - 1, FAULTS)).astype(int))
    signatures: dict[Fault, Floats] = {}
    for i in starts:
        since = 1 if i == 0 else int(np.ceil(0.5 * (centre[i - 1] + centre[i])))
        if since >= schedule.horizon:
            continue
        if i:  # a level that is off from the start is one of the law
            signatures[Fault("loss", since)] = (np.arange(m) >= i).astype(float)
        higher, lower = (changed(schedule, since, x) for x in (FACTOR, 1.0 / FACTOR))
        signatures[Fault("rate", since)] = 0.5 * (loss(higher) - loss(lower)) / np.log(FACTOR)
        rate = schedule(since)
        if np.ptp(schedule.controls["eta"][schedule.steps >= since]) > HELD * schedule.peak:
            signatures[Fault("held", since)] = loss(held(schedule, since, float(rate)))
    law_there = mean(rows.value)[:n]
    return Outlook(bins.mean(bins.calm(off)), law_there, covariance, signatures)


def _with_knot(schedule: Schedule, since: int) -> tuple[Ints, Floats]:
    steps = np.unique(np.concatenate([schedule.steps, [since - 1, since]]))
    steps = steps[steps >= 0]
    return steps, np.asarray(schedule(steps), float)


def changed(schedule: Schedule, since: int, factor: float) -> Schedule:
    """The rate times a factor from a step on."""
    steps, eta = _with_knot(schedule, since)
    eta = np.where(steps >= since, factor * eta, eta)
    return Schedule.from_knots(steps, eta=eta, horizon=schedule.horizon)


def held(schedule: Schedule, since: int, rate: float) -> Schedule:
    """The rate held from a step on."""
    steps, eta = _with_knot(schedule, since)
    eta = np.where(steps >= since, rate, eta)
    return Schedule.from_knots(steps, eta=eta, horizon=schedule.horizon)
