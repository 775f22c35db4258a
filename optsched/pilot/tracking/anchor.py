r"""A law re-anchored on what a run has measured: a Gaussian condition on its rows.

With the parameters :math:`\theta = \theta_0 + S w`, w standard normal and :math:`S S^\top` the
covariance of the ensemble, the bins of a run measure
:math:`z = \ln L_\theta + \delta + \epsilon`, where :math:`\delta` is the discrepancy
(`optsched.pilot.tracking.discrepancy`) and :math:`\epsilon` the noise of the rows. The parameters
given z are found by Gauss-Newton steps, and the forecast of any schedule from there on is that of
the linear model at the result.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from scipy.linalg import cho_factor, cho_solve
from scipy.special import ndtri

from optsched.arrays import Brief, Floats, Ints
from optsched.logs.run import Run
from optsched.pilot.fitting import Fit
from optsched.pilot.laws import Law
from optsched.pilot.pieces import Pieces, cut
from optsched.pilot.tracking.discrepancy import Times, discrepancy
from optsched.pilot.tracking.rows import Bins
from optsched.schedules.schedule import Schedule

__all__ = ["Anchor", "Forecast", "anchored", "linear", "spread_of"]

TINY = 1e-12  # nats: the least that a loss may be
TURNS = 6  # of Gauss-Newton
SMALL = 1e-10  # of the largest direction of the ensemble: none


@dataclass(frozen=True, eq=False, repr=False)
class Linear(Brief):
    """The logarithm of a law at some steps of a schedule, linear in w.

    Attributes
    ----------
    times : Times
    value : numpy.ndarray, shape (n,)
    slope : numpy.ndarray, shape (n, r)
        Derivative in w.
    """

    times: Times
    value: Floats
    slope: Floats


@dataclass(frozen=True, eq=False, repr=False)
class Forecast(Brief):
    """Loss along a schedule, given what was measured.

    Attributes
    ----------
    steps : numpy.ndarray of int64, shape (k,)
    loss, lower, upper : numpy.ndarray, shape (k,)
    covariance : numpy.ndarray, shape (k, k)
        Of the logarithm of the loss.
    """

    steps: Ints
    loss: Floats
    lower: Floats
    upper: Floats
    covariance: Floats


def spread_of(found: Fit) -> Floats:
    """S, a root of the covariance of the ensemble, shape (p, r)."""
    if len(found.members) < 2:
        return np.zeros((len(found.theta), 0))
    off = (found.members - found.members.mean(0)) / math.sqrt(len(found.members) - 1.0)
    _, size, axes = np.linalg.svd(off, full_matrices=False)
    keep = size > SMALL * max(float(size[0]), 1e-300)
    return (axes[keep] * size[keep, None]).T


def _moved(law: Law, theta: Floats, root: Floats, w: Floats) -> Floats:
    return np.clip(theta + root @ w, law.low, law.high)


def linear(
    law: Law, theta: Floats, root: Floats, pieces: Pieces, times: tuple[Floats, Floats]
) -> Linear:
    """The law at the observations of pieces; ``times``: their log steps and rates over the peak."""
    loss, jacobian = law.jacobian(theta, pieces)
    safe = np.maximum(loss, TINY)
    return Linear(Times(*times, safe), np.log(safe), (jacobian / safe[:, None]) @ root)


def places(schedule: Schedule, steps: Ints | Floats) -> tuple[Floats, Floats]:
    """Log steps, and the rate of the last update over the peak."""
    at = np.asarray(steps, float)
    last = np.clip(np.round(at).astype(np.int64) - 1, 0, schedule.horizon - 1)
    return np.log(np.maximum(at, 1.0)), np.asarray(schedule(last)) / max(schedule.peak, 1e-300)


@dataclass(frozen=True, eq=False, repr=False)
class Anchor(Brief):
    """What is known of a run after some of its rows.

    Attributes
    ----------
    found : Fit
        Of the pilots.
    schedule : Schedule
        Of the run so far.
    theta : numpy.ndarray, shape (p,)
        Parameters given the rows.
    root : numpy.ndarray, shape (p, r)
        S.
    at : Times
        Of the bins; none before any row.
    slope : numpy.ndarray, shape (n, r)
    rest : numpy.ndarray, shape (n,)
        Measured minus law, in logarithms.
    noise : numpy.ndarray, shape (n,)
    """

    found: Fit
    schedule: Schedule
    theta: Floats
    root: Floats
    at: Times
    slope: Floats
    rest: Floats
    noise: Floats

    @cached_property
    def _solved(self) -> tuple[Floats, Floats]:
        """Inverse of the covariance about the law, and the covariance of w."""
        own = discrepancy(self.found, self.at, self.at, self.schedule) + np.diag(self.noise**2)
        inverse = cho_solve(cho_factor(own), np.eye(len(own))) if len(own) else own
        size = self.root.shape[1]
        precision = np.eye(size) + self.slope.T @ inverse @ self.slope
        return inverse, cho_solve(cho_factor(precision), np.eye(size)) if size else precision

    @cached_property
    def fit(self) -> Fit:
        """The fit with the parameters, and the ensemble, given the rows."""
        found = self.found
        if not len(self.rest) or not self.root.shape[1]:
            return found
        _, covariance = self._solved
        inward = np.linalg.cholesky(covariance)
        # Members in the directions of S, moved and narrowed as a whole.
        off = found.members - found.members.mean(0)
        w = off @ np.linalg.pinv(self.root).T
        moved = self.theta + w @ inward.T @ self.root.T
        return replace(
            found, theta=self.theta, members=np.clip(moved, found.law.low, found.law.high)
        )

    def forecast(self, schedule: Schedule, steps: Ints, level: float) -> Forecast:
        """Loss at steps of a schedule whose first part is what was measured."""
        pieces = cut(schedule, steps, self.found.scale)
        new = linear(self.found.law, self.theta, self.root, pieces, places(schedule, steps))
        own = discrepancy(self.found, new.times, new.times, schedule)
        value, slope = new.value, new.slope
        if len(self.rest):
            inverse, covariance = self._solved
            shared = discrepancy(self.found, new.times, self.at, schedule)
            gain = shared @ inverse
            value = value + gain @ self.rest
            slope = slope - gain @ self.slope
            own = own - gain @ shared.T + slope @ covariance @ slope.T
        else:
            own = own + slope @ slope.T
        half = float(ndtri(0.5 + 0.5 * level)) * np.sqrt(np.maximum(np.diag(own), 0.0))
        loss = np.exp(value)
        return Forecast(steps, loss, loss * np.exp(-half), loss * np.exp(half), own)


def anchored(found: Fit, run: Run, bins: Bins | None) -> Anchor:
    """Anchor a fit on the bins of a run; without any it is the fit itself."""
    law, root = found.law, spread_of(found)
    none = np.zeros(0)
    start = Anchor(
        found, run.schedule, found.theta, root, Times(none, none, none),
        np.zeros((0, root.shape[1])), none, none,
    )  # fmt: skip
    if bins is None:
        return start
    pieces = cut(run.schedule, bins.rows, found.scale)
    where = places(run.schedule, bins.steps)

    first = bins.log_loss - np.log(np.maximum(law.curve(found.theta, pieces), TINY))
    noise = bins.noise(first)

    def at(w: Floats) -> tuple[Anchor, float]:
        theta = _moved(law, found.theta, root, w)
        rows = linear(law, theta, root, pieces, places(run.schedule, bins.rows))
        off = bins.log_loss - rows.value
        rest = bins.mean(bins.calm(off))
        times = Times(*where, np.exp(bins.mean(rows.value)))
        one = replace(
            start, theta=theta, at=times, slope=bins.mean(rows.slope), rest=rest, noise=noise
        )
        return one, float(w @ w + rest @ one._solved[0] @ rest)

    w = np.zeros(root.shape[1])
    best, cost = at(w)
    for _ in range(TURNS if root.shape[1] else 0):
        inverse, covariance = best._solved
        wanted = covariance @ best.slope.T @ inverse @ (best.rest + best.slope @ w)
        step, size = wanted - w, 1.0
        while size > 0.1:
            one, value = at(w + size * step)
            if value < cost:
                break
            size *= 0.5
        else:
            break
        gained, w, best, cost = cost - value, w + size * step, one, value
        if gained < 1e-3:
            break
    return best
