r"""Fit a law to the logs of a few runs, with its uncertainty.

The objective is the Huber loss of the residuals of :math:`\ln L`, over their own size, and of the
priors of the law, so that runs that contradict a prior win in the end. Residuals of a law are
smooth in time, since what is left is what the law cannot say, so that the rows of a log are far
from independent: a prior weighs as much as 60 rows.
Uncertainty is that of the objective's curvature (Laplace), by a factor that makes intervals hold
on models that were left out; it is carried by an ensemble of parameters with that covariance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.optimize import least_squares, nnls

from optsched.arrays import Brief, Floats
from optsched.checks import whole
from optsched.errors import InvalidProblem
from optsched.logs.run import Run
from optsched.logs.seeds import average_seeds
from optsched.pilot.identify import SHARED, at_ends, ruled, unidentified
from optsched.pilot.judge import judged
from optsched.pilot.laws import Law, NormLaw
from optsched.pilot.pieces import Pieces, Scale, cut
from optsched.pilot.stated import stated

__all__ = ["LOSSES", "Fit", "RunNote", "early_rows", "fit"]

ROWS = 40  # of a run; more are averaged in bins
LEAST_ROWS = 4  # that are kept of a run
EARLY = 0.08  # of the shortest run: early training, of which laws know nothing
SIZES = 5e-4, 1e-2  # relative size of residuals: least and largest that the priors are weighed by
FIRST_SIZE = 2e-3
ROUNDS = 2  # in which that size is found
PRIOR_ROWS = 60.0
SEED_NOISE = 4e-4  # relative, between two runs of one schedule: 1.2e-3 nats at a loss of 3
LOSSES = 1e-7, 1e3  # what the ranges of the parameters are for
TRIED = 3  # of the starts, the best before any fit
MEMBERS = 64
LOG_UNKNOWN = 3.0  # standard deviation of a logarithm of which nothing is known


@dataclass(frozen=True)
class RunNote:
    """What a fit keeps of a run: name, steps, peak and last rate, last loss, steps of warm-up."""

    name: str
    horizon: int
    peak: float
    last_rate: float
    last_loss: float
    warmup: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class Fit(Brief):
    r"""A fitted law with its uncertainty.

    Attributes
    ----------
    law : Law
        With the priors that it had of these runs.
    theta : numpy.ndarray, shape (p,)
        Parameters, those of the smallest objective.
    members : numpy.ndarray, shape (K, p)
        Ensemble about ``theta`` whose covariance is that of the parameters.
    scale : Scale
        Units of the parameters.
    runs : tuple of RunNote
    misfit : float
        Root mean square of the residuals, in nats: what the law cannot say.
    seed_noise : float
        Standard deviation of the loss between two runs of one schedule, relative.
    warnings : tuple of str
        What the runs do not determine, and what looks wrong, in sentences.
    cost : float
        Objective, in units of the squared size of the residuals.
    notes : tuple of str
        What the fit took for given and what it left out, in sentences.
    failed : str
        Why the law does not describe the runs, so that nothing should rest on it; else empty.
    pilot_decay : float, optional
        Weight decay of the runs, of a fit that was carried to another one (`at_decay`).
    decay_shift : float
        By what that moves the logarithm of the effective rate at the end of the longest run.
    """

    law: Law
    theta: Floats
    members: Floats
    scale: Scale
    runs: tuple[RunNote, ...]
    misfit: float
    seed_noise: float
    warnings: tuple[str, ...] = ()
    cost: float = field(default=math.nan)
    notes: tuple[str, ...] = ()
    failed: str = ""
    pilot_decay: float | None = None
    decay_shift: float = 0.0

    @property
    def parameters(self) -> dict[str, tuple[float, float]]:
        """Value and standard error of every parameter, in the units of the scale."""
        spread = self.members.std(0, ddof=1) if len(self.members) > 1 else np.zeros(len(self.theta))
        rows = zip(self.law.parameters, self.theta, spread, strict=True)
        return {name: (float(value), float(error)) for name, value, error in rows}

    @property
    def exponents(self) -> dict[str, tuple[float, float]]:
        r"""Exponents of the power-law model that the law would have.

        With :math:`s = (a-1)/b` and a tail :math:`q = 1 - 1/b`: a and b with standard errors, empty
        where the law has no such exponents or q >= 1, which no b gives.
        """
        names = self.law.parameters
        if "s" not in names or "q" not in names or "q" in self.law.held:
            return {}
        s, q = names.index("s"), names.index("q")
        rows = np.vstack([self.theta[None], self.members])
        rows = rows[rows[:, q] < 1.0]
        if len(rows) < 1 + 0.9 * len(self.members) or self.theta[q] >= 1.0:
            return {}
        b = 1.0 / (1.0 - rows[:, q])
        a = 1.0 + rows[:, s] * b
        error = (lambda v: float(v[1:].std(ddof=1))) if len(rows) > 2 else (lambda v: math.nan)
        return {"a": (float(a[0]), error(a)), "b": (float(b[0]), error(b))}

    @property
    def peaks(self) -> tuple[float, float]:
        """Smallest and largest peak rate of the runs."""
        peaks = [run.peak for run in self.runs]
        return min(peaks), max(peaks)

    @property
    def horizon(self) -> int:
        """Steps of the longest run."""
        return max(run.horizon for run in self.runs)

    @property
    def warmup(self) -> int:
        """Steps of warm-up of the runs; the longest, if they differ."""
        return max(run.warmup for run in self.runs)


@dataclass(frozen=True, eq=False)
class _Data:
    """One run as the fit sees it."""

    pieces: Pieces
    loss: Floats


def early_rows(runs: Sequence[Run]) -> int:
    """First step of the rows that are used: 8 % of the shortest run, at least the warm-ups."""
    shortest = min(int(run.steps[-1]) for run in runs)
    return max(math.ceil(EARLY * shortest), *(run.warmup for run in runs), 1)


def _late(run: Run, first: int) -> Run:
    """The rows from a step on, the last four in any case, without one before the first update."""
    keep = run.steps >= min(first, int(run.steps[-LEAST_ROWS:][0]))
    keep &= run.steps > 0
    return replace(run, steps=run.steps[keep], loss=run.loss[keep])


class _Objective:
    """Residuals and Jacobian of the free parameters; remembers the last point."""

    def __init__(self, law: Law, data: Sequence[_Data], size: float) -> None:
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


def _linear_start(law: Law, start: Floats, data: Sequence[_Data]) -> tuple[Floats, float]:
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
class _Found:
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


def _relative(law: Law, theta: Floats, data: Sequence[_Data]) -> Floats:
    """Residuals of the logarithm of the loss."""
    return np.concatenate(
        [np.log(np.maximum(law.curve(theta, d.pieces), 1e-3 * d.loss) / d.loss) for d in data]
    )


def _fit_one(law: Law, data: Sequence[_Data], start: Floats | None) -> _Found:
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
    return _Found(law, theta, float(found.cost), size, rest, found.jac.T @ found.jac)


def _checked(runs: Sequence[Run]) -> list[Run]:
    runs = list(runs)
    if not runs:
        raise InvalidProblem("runs", 0, "one run or more")
    for run in runs:
        if not isinstance(run, Run):
            raise InvalidProblem("runs", type(run).__name__, "runs as read_run returns them")
        for worst in (float(run.loss.min()), float(run.loss.max())):
            if not LOSSES[0] <= worst <= LOSSES[1]:
                allowed = f"{LOSSES[0]:g} to {LOSSES[1]:g}; multiply the column by a constant"
                raise InvalidProblem(f"loss of {run.name}", worst, allowed)
    return runs


def fit(
    runs: Sequence[Run],
    law: Law | None = None,
    *,
    members: int = MEMBERS,
    seed: int = 0,
    start: Floats | None = None,
) -> Fit:
    r"""Fit a law to pilot runs.

    Minimises :math:`\sum h((\ln L_\theta - \ln L)/\epsilon) + \text{priors}` with the Huber loss h
    over at most 40 bin means a run, from several starts in which level, bias and noise are solved
    for; :math:`\epsilon` is the root mean square of the residuals, found in two rounds. Rows of
    early training are left out: before 8 % of the shortest run, and within a warm-up.

    Parameters
    ----------
    runs : sequence of Run
        One or more; three with different schedules are a good start. Peak rates may differ.
    law : Law, optional
        The functional scaling law in rates over the norm of the weights if not given; see `LAWS`.
        Of a law that has alternatives (a decay of the weights that is not known), the one that
        describes the runs best.
    members : int
        Size of the ensemble that carries the uncertainty; 0 for none.
    seed : int
        Of the ensemble.
    start : numpy.ndarray, optional
        Parameters to start from, instead of several starts.

    Returns
    -------
    Fit

    Raises
    ------
    InvalidProblem
        No runs, what is none, or losses that are not from 1e-7 to 1e3.
    """
    runs = _checked(runs)
    members = whole("members", members, 0, 10_000)
    first = early_rows(runs)
    late = [_late(run, first) for run in runs]
    thin = [run.thin(ROWS, "equal") for run in late]
    scale = _scale(thin, runs)
    data = [_Data(cut(run.schedule, run.steps, scale), run.loss) for run in thin]
    finals = [float(run.loss[-1]) for run in runs]
    told = stated(NormLaw() if law is None else law, runs)
    laws = told.law.alternatives()
    tried = [_fit_one(one.for_runs(scale, finals), data, start) for one in laws]
    found = min(tried, key=lambda one: one.score)
    left_out = sum(len(run.steps) - len(kept.steps) for run, kept in zip(runs, late, strict=True))
    notes = [*found.law.assumptions(), *told.notes]
    if left_out:
        notes.append(
            f"rows before step {first:,} left out ({left_out} of"
            f" {sum(len(run.steps) for run in runs)}): early training"
        )
    ensemble = _ensemble(found, max(finals), members, np.random.default_rng(seed))
    priors = ruled(found.law, ensemble)
    notes += [] if priors is None else [priors]
    seen = tuple(_note(run) for run in runs)
    ends = np.array([run.last_rate / run.peak for run in seen])
    misfits = found.residuals * np.concatenate([run.loss for run in thin])
    verdict = judged(thin, found.residuals, at_ends(found.law, found.theta))
    return Fit(
        law=found.law,
        theta=found.theta,
        members=ensemble,
        scale=scale,
        runs=seen,
        misfit=float(np.sqrt(np.mean(misfits**2))),
        seed_noise=_seed_noise(runs),
        warnings=(
            *told.warnings,
            *verdict.warnings,
            *unidentified(found.law, found.theta, ensemble, ends),
        ),
        cost=found.cost,
        notes=tuple(notes),
        failed=verdict.failed,
    )


def _ensemble(found: _Found, level: float, members: int, rng: np.random.Generator) -> Floats:
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


def _scale(used: Sequence[Run], runs: Sequence[Run]) -> Scale:
    span = max(int(run.steps[-1]) for run in runs)
    first = min(int(run.steps[0]) for run in used)
    return Scale(max(run.schedule.peak for run in runs), float(span), first / span)


def _note(run: Run) -> RunNote:
    last = int(run.steps[-1])
    return RunNote(
        run.name,
        last,
        run.schedule.peak,
        float(run.schedule(last)),
        float(run.loss[-1]),
        min(run.warmup, last),
    )


def _seed_noise(runs: Sequence[Run]) -> float:
    """Relative noise between runs of one schedule: measured where there are such, else assumed."""
    found = [
        group.noise / float(np.median(group.mean.loss))
        for group in average_seeds(runs)
        if group.noise is not None
    ]
    return float(np.sqrt(np.mean(np.square(found)))) if found else SEED_NOISE
