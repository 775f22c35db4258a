"""The parameters of a law that describe runs best, by robust least squares, and their spread.

What is minimised is said in `optsched.pilot.fitting`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares, nnls

from optsched.arrays import Floats
from optsched.logs.run import Run
from optsched.pilot.identify import SHARED
from optsched.pilot.laws import Law
from optsched.pilot.pieces import Pieces, Scale

__all__ = ["ROWS", "Data", "Found", "ensemble", "fit_one", "scale_of"]

SIZES = 5e-4, 1e-2  # relative size of residuals: least and largest that the priors are weighed by
FIRST_SIZE = 2e-3
ROUNDS = 2  # in which that size is found
PRIOR_ROWS = 60.0
LOG_UNKNOWN = 3.0  # standard deviation of a logarithm of which nothing is known
ROWS = 40  # of a run; more are averaged in bins
TRIED = 3  # of the starts, the best before any fit


@dataclass(frozen=True, eq=False)
class Data:
    """One run as the fit sees it."""

    pieces: Pieces
    loss: Floats


class _Objective:
    """Residuals and Jacobian of the free parameters; remembers the last point."""

    def __init__(self, law: Law, data: Sequence[Data], size: float) -> None:
        self.law, self.data, self.free, self.size = law, data, law.free, size
        self.held = law.held
        self.priors = []
        for row, i in enumerate(self.free):
            prior = law.priors.get(law.parameters[i])
            if prior is not None:
                self.priors.append((row, prior.mean, math.sqrt(PRIOR_ROWS) / prior.spread))
        self._last: tuple[bytes, Floats, Floats] | None = None

    def full(self, z: Floats) -> Floats:
        """All parameters from the free ones."""
        theta = np.array([self.held.get(name, 0.0) for name in self.law.parameters])
        theta[self.free] = z
        return theta

    def _evaluate(self, z: Floats) -> tuple[Floats, Floats]:
        key = z.tobytes()
        if self._last is None or self._last[0] != key:
            theta = self.full(z)
            values, rows = [], []
            for one in self.data:
                loss, jacobian = self.law.jacobian(theta, one.pieces)
                # Far from a fit a law may be negative, which no logarithm forgives.
                safe = np.maximum(loss, 1e-3 * one.loss)
                values.append(np.log(safe / one.loss) / self.size)
                rows.append(jacobian[:, self.free] / (safe * self.size)[:, None])
            for row, mean, stiffness in self.priors:
                values.append(np.array([stiffness * (z[row] - mean)]))
                rows.append(stiffness * np.eye(len(z))[row][None])
            self._last = key, np.concatenate(values), np.vstack(rows)
        return self._last[1], self._last[2]

    def residuals(self, z: Floats) -> Floats:
        """Residuals of all rows and priors."""
        return self._evaluate(z)[0]

    def jacobian(self, z: Floats) -> Floats:
        """Their derivatives."""
        return self._evaluate(z)[1]


def _linear_start(law: Law, start: Floats, data: Sequence[Data]) -> tuple[Floats, float]:
    """The start with its linear parameters solved for, and the squared residual of that."""
    theta = start.copy()
    names = [law.parameters.index(name) for name in law.linear]
    if not names:
        return theta, 0.0
    theta[names] = 0.0
    columns = [law.jacobian(theta, one.pieces)[1][:, names] for one in data]
    weight = np.concatenate([1.0 / one.loss for one in data])
    matrix = np.vstack(columns) * weight[:, None]
    size = np.linalg.norm(matrix, axis=0)
    if not np.all(np.isfinite(size) & (size > 0.0)):
        return start, math.inf
    found, rest = nnls(matrix / size, np.ones(len(matrix)))
    found = np.maximum(found / size, 1e-6)
    logs = [law.parameters[i].startswith("log_") for i in names]
    theta[names] = np.where(logs, np.log(found), found)
    return theta, float(rest) ** 2


def _minimise(objective: _Objective, start: Floats, steps: int) -> Any:
    """Bounded robust least squares from one start."""
    law, free = objective.law, objective.free
    low, high = law.low[free], law.high[free]
    return least_squares(
        objective.residuals,
        np.clip(start[free], low + 1e-6, high - 1e-6),
        jac=objective.jacobian,  # type: ignore[arg-type]
        bounds=(low, high),
        loss="huber",
        x_scale="jac",
        max_nfev=steps,
        ftol=1e-7,
        xtol=1e-7,
    )


@dataclass(frozen=True, eq=False)
class Found:
    """The best parameters of a law, with what they leave."""

    law: Law
    theta: Floats
    cost: float
    size: float
    residuals: Floats
    curvature: Floats

    @property
    def score(self) -> float:
        """Minus the log of the probability of the runs, as far as laws can be compared by it."""
        return self.cost + len(self.residuals) * math.log(self.size)


def _relative(law: Law, theta: Floats, data: Sequence[Data]) -> Floats:
    """Residuals of the logarithm of the loss."""
    return np.concatenate(
        [np.log(np.maximum(law.curve(theta, d.pieces), 1e-3 * d.loss) / d.loss) for d in data]
    )


def fit_one(law: Law, data: Sequence[Data], start: Floats | None = None) -> Found:
    """The law with its parameters, from ``start`` or from its own starts."""
    if start is None:
        ranked = sorted(
            (_linear_start(law, one, data) for one in law.starts()), key=lambda pair: pair[1]
        )
        starts = [theta for theta, _ in ranked[:TRIED]]
    else:
        starts = [np.asarray(start, float)]
    size = FIRST_SIZE
    objective = _Objective(law, data, size)
    found = min((_minimise(objective, one, 100) for one in starts), key=lambda o: o.cost)
    for _ in range(ROUNDS):
        theta = objective.full(found.x)
        rest = _relative(law, theta, data)
        size = float(np.clip(np.sqrt(np.mean(rest**2)), *SIZES))
        objective = _Objective(law, data, size)
        found = _minimise(objective, theta, 50)
    theta = objective.full(found.x)
    rest = _relative(law, theta, data)
    return Found(law, theta, float(found.cost), size, rest, found.jac.T @ found.jac)


def ensemble(found: Found, level: float, members: int, rng: np.random.Generator) -> Floats:
    """Parameters whose covariance is exactly that of the curvature, if they are enough for it."""
    law, free = found.law, found.law.free
    out = np.tile(found.theta, (members, 1))
    if not members or not free:
        return out
    # Where the runs say nothing, no more is unknown than before them.
    loose = SHARED * PRIOR_ROWS / np.array([_unknown(law, i, level) for i in free]) ** 2
    covariance = np.linalg.inv(found.curvature + np.diag(loose)) * (SHARED * PRIOR_ROWS)
    values, vectors = np.linalg.eigh(covariance)
    draws = rng.standard_normal((members, len(free)))
    if members > len(free) + 1:
        draws -= draws.mean(0)
        draws = np.linalg.qr(draws)[0] * math.sqrt(members - 1.0)
    out[:, free] += draws @ (vectors * np.sqrt(np.maximum(values, 0.0))).T
    return np.clip(out, law.low, law.high)


def _unknown(law: Law, i: int, level: float) -> float:
    """Standard deviation of a parameter before the runs; ``level`` is a loss of theirs."""
    name = law.parameters[i]
    if name in law.priors:
        return law.priors[name].spread
    if name == "level":
        return level
    if name.startswith("log_"):
        return LOG_UNKNOWN
    return float(law.high[i] - law.low[i]) / math.sqrt(12.0)


def scale_of(used: Sequence[Run], runs: Sequence[Run]) -> Scale:
    """Units of the runs, of which the rows of ``used`` are fitted."""
    span = max(int(run.steps[-1]) for run in runs)
    first = min(int(run.steps[0]) for run in used)
    return Scale(max(run.schedule.peak for run in runs), float(span), first / span)
