r"""What runs say about a plan: a law linearised, with what it errs by.

In :math:`\ln L` and around parameters :math:`\theta`, a run with the Jacobian J has the information
:math:`J^\top V^{-1} J`. V has the size of the residuals of a fit in the weight that a fit gives to
rows, and an offset of its own for every run: what the law cannot say of a schedule, more of a run
that is short against the target. Besides, laws
err with the peak rate: an error that is the same for all runs of a peak and moves with its
logarithm as a Brownian motion, of the size that predictions have for it. It is a parameter at every
peak of the candidates, so that a plan at a peak that no pilot had stays uncertain. In the same way
laws err with the shape: in what the rate of every eighth of a run does to its last loss, alike at
all peaks, so that a plan that decays is known best from pilots that do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.pilot.design.runs import Candidate
from optsched.pilot.fitting import EARLY
from optsched.pilot.identify import SHARED
from optsched.pilot.laws import Law
from optsched.pilot.pieces import Scale, cut
from optsched.pilot.search import PRIOR_ROWS, ROWS
from optsched.schedules.schedule import Schedule

__all__ = ["Around", "Prior", "linearised"]

SIZE = 2e-3  # relative: residuals of a fit to public runs
OFFSET = 1e-3  # relative: what a law errs by in one run, and two runs of a schedule differ by
FAR = 1e-3  # the same, for every factor of e that the target is longer than the run
WANDER = 3e-3  # relative, in a factor of e of the peak: see `optsched.pilot.prediction`
PARTS, SHAPE = 8, 1e-3  # of a run, and what a law errs by for the rate of each over the peak
SEEN = 12  # rows of a run; they weigh as the rows of a fit
SOFT = 0.01  # of the loss: plans this far above the best count e times less
SAME = 0.02  # relative: one peak


@dataclass(frozen=True, eq=False)
class Prior:
    """What is known before the pilots.

    Attributes
    ----------
    law : Law
    scale : Scale
    draws : numpy.ndarray, shape (K, p)
        Parameters around which the law is linearised.
    precision : numpy.ndarray, shape (p, p)
        Inverse of their covariance; held parameters have a large one.
    peaks : numpy.ndarray, shape (m,)
        Peak rates at which runs were made already; empty before the first.
    """

    law: Law
    scale: Scale
    draws: Floats
    precision: Floats
    peaks: Floats


@dataclass(frozen=True, eq=False)
class Around:
    """A linear model around each of K draws; parameters are those of the law and of the peaks.

    Attributes
    ----------
    prior : numpy.ndarray, shape (P, P)
        Precision before the pilots.
    runs : numpy.ndarray, shape (K, n, P, P)
        Information of every candidate.
    plans : numpy.ndarray, shape (K, j, P)
        Derivatives of the final losses of the plans, centred by their weights and times the roots
        of these, in nats: the sum of their variances is that of the differences.
    """

    prior: Floats
    runs: Floats
    plans: Floats

    def variance(self, information: Floats) -> Floats:
        """Weighted variance of the differences of plans, for information (..., K, P, P) added."""
        covariance = np.linalg.inv(self.prior + information)
        return np.einsum("kjp,...kpq,kjq->...k", self.plans, covariance, self.plans)

    def error(self, information: Floats) -> Floats:
        """Root mean square over the draws, in nats."""
        return np.sqrt(self.variance(information).mean(-1))


def linearised(
    prior: Prior, runs: Sequence[Candidate], plans: Sequence[tuple[Schedule, float]]
) -> Around:
    """The linear models of a prior.

    Parameters
    ----------
    prior : Prior
    runs : sequence of Candidate
    plans : sequence of tuple
        Schedules of the target horizon, between which a choice is to be made, and the peak of each.
    """
    knots = _distinct([*(run.peak for run in runs), *(peak for _, peak in plans), *prior.peaks])
    size = len(prior.law.parameters)
    tail = size + len(knots)
    full = tail + PARTS
    information = np.zeros((len(prior.draws), len(runs), full, full))
    slopes = np.zeros((len(prior.draws), len(plans), full))
    losses = np.zeros((len(prior.draws), len(plans)))
    target = max(schedule.horizon for schedule, _ in plans)
    for i, run in enumerate(runs):
        steps = _steps(run)
        pieces = cut(run.schedule, steps, prior.scale)
        at = size + _nearest(knots, run.peak)
        shape = _shape(run.schedule, steps)
        far = FAR * max(math.log(target / run.steps), 0.0)
        inverse = _weights(len(steps), math.hypot(OFFSET, far))
        for k, theta in enumerate(prior.draws):
            loss, jacobian = prior.law.jacobian(theta, pieces)
            rows = np.zeros((len(steps), full))
            rows[:, :size] = jacobian / np.maximum(loss, 1e-12)[:, None]
            rows[:, at], rows[:, tail:] = 1.0, shape
            information[k, i] = rows.T @ inverse @ rows
    for j, (schedule, peak) in enumerate(plans):
        pieces = cut(schedule, np.array([schedule.horizon]), prior.scale)
        at = size + _nearest(knots, peak)
        shape = _shape(schedule, np.array([schedule.horizon]))[0]
        for k, theta in enumerate(prior.draws):
            loss, jacobian = prior.law.jacobian(theta, pieces)
            losses[k, j], slopes[k, j, :size], slopes[k, j, at] = loss[0], jacobian[0], loss[0]
            slopes[k, j, tail:] = loss[0] * shape
    excess = losses - losses.min(1, keepdims=True)
    weights = np.exp(-excess / (SOFT * np.abs(losses.min(1, keepdims=True))))
    weights /= weights.sum(1, keepdims=True)
    mean = np.einsum("kj,kjp->kp", weights, slopes)
    centred = (slopes - mean[:, None]) * np.sqrt(weights)[..., None]
    precision = np.zeros((full, full))
    precision[:size, :size] = prior.precision
    precision[size:tail, size:tail] = _wander(knots, prior.peaks)
    precision[tail:, tail:] = np.eye(PARTS) / SHAPE**2
    return Around(precision, information, centred)


def _shape(schedule: Schedule, steps: Ints) -> Floats:
    """Mean rate in every part of a run that ends at the steps, over its peak: (n, parts)."""
    share = (np.arange(4 * PARTS) + 0.5) / (4 * PARTS)
    at = np.floor(steps[:, None] * share).astype(np.int64)
    rates = np.asarray(schedule(np.minimum(at, schedule.horizon - 1))) / schedule.peak
    return rates.reshape(len(steps), PARTS, 4).mean(2)


def _steps(run: Candidate) -> Ints:
    """Where its losses count: after the warm-up and early training, at its end."""
    first = max(math.ceil(EARLY * run.steps), run.warmup, 1)
    return np.unique(np.linspace(min(first, run.steps), run.steps, SEEN).round().astype(np.int64))


def _weights(rows: int, offset: float) -> Floats:
    """Inverse of V: independent residuals, and an offset that all rows share."""
    each = SIZE**2 * SHARED * PRIOR_ROWS * rows / ROWS
    # Woodbury: (a 1 + b e e^T)^-1.
    inner = offset**2 / (each * (each + rows * offset**2))
    return np.eye(rows) / each - inner


def _distinct(peaks: Sequence[float]) -> Floats:
    found: list[float] = []
    for peak in sorted(peaks):
        if not found or peak > found[-1] * (1.0 + SAME):
            found.append(float(peak))
    return np.array(found)


def _nearest(knots: Floats, peak: float) -> int:
    return int(np.argmin(np.abs(np.log(knots / peak))))


def _wander(knots: Floats, known: Floats) -> Floats:
    """Precision of a Brownian motion in the log peak, which is 0 where runs were made."""
    out = np.zeros((len(knots), len(knots)))
    for i, gap in enumerate(np.diff(np.log(knots))):
        step = np.array([1.0, -1.0])
        out[i : i + 2, i : i + 2] += np.outer(step, step) / (WANDER**2 * gap)
    # Else it would be one with the level of the loss; what is common to all plans does not matter.
    for peak in known if len(known) else [knots[len(knots) // 2]]:
        at = _nearest(knots, float(peak))
        out[at, at] += 1.0 / (0.1 * OFFSET) ** 2
    return out
