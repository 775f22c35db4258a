r"""Fit a law to the logs of a few runs, with its uncertainty.

The objective is the Huber loss of the residuals of :math:`\ln L` plus the priors of the law.
Residuals of a law are smooth in time, since what is left is what the law cannot say, so that the
rows of a log are far from independent: a prior weighs as much as 60 rows. Uncertainty is an
ensemble of refits: runs weighted at random (Bayesian bootstrap), shifted by the noise between
seeds, with prior means drawn from the priors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from scipy.optimize import least_squares, nnls

from optsched.arrays import Floats
from optsched.checks import whole
from optsched.errors import InvalidProblem
from optsched.logs.run import Run
from optsched.logs.seeds import average_seeds
from optsched.pilot.identify import unidentified
from optsched.pilot.law import KernelLaw, Law, Prior, fsl
from optsched.pilot.pieces import Pieces, Scale, cut

__all__ = ["LOSSES", "Fit", "RunNote", "fit"]


MOST_ROWS, ALL_ROWS = 128, 600  # of a run, and of all; more are averaged in bins
FEWEST_ROWS = 30
HUBER = 1e-3  # relative: about the noise of a validation loss
PRIOR_ROWS = 60.0
SEED_NOISE = 4e-4  # relative, between two runs of one schedule: 1.2e-3 nats at a loss of 3
LOSSES = 1e-7, 1e3  # what the ranges of the parameters are for
NOISE = 0.05  # of the loss: what a constant rate adds to it, to a factor of e
TRIED = 3  # of the starts, the best before any fit
MEMBERS, MEMBER_TOL = 40, 1e-4


@dataclass(frozen=True)
class RunNote:
    """What a fit keeps of a run: name, steps, peak and last rate, last loss, steps of warm-up."""

    name: str
    horizon: int
    peak: float
    last_rate: float
    last_loss: float
    warmup: int = 0


@dataclass(frozen=True, eq=False)
class Fit:
    r"""A fitted law with its uncertainty.

    Attributes
    ----------
    law : Law
    theta : numpy.ndarray, shape (p,)
        Parameters, those of the smallest objective.
    members : numpy.ndarray, shape (K, p)
        Parameters of the ensemble.
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
        Objective, in units of the squared Huber width.
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
        if "s" not in names or "q" in self.law.held:
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


def _thinned(run: Run, rows: int) -> Run:
    """At most so many losses of a run, without one before the first update."""
    late = run.steps > 0
    return replace(run, steps=run.steps[late], loss=run.loss[late]).thin(rows, "equal")


def _width(runs: Sequence[Run]) -> float:
    """Relative residual from which a row counts as an outlier: its noise, `HUBER` at least."""
    noises = [run.noise / float(np.median(run.loss)) for run in runs if len(run.steps) > 2]
    return max([HUBER, *noises])


class _Objective:
    """Residuals and Jacobian of the free parameters; remembers the last point."""

    def __init__(
        self,
        law: Law,
        data: Sequence[_Data],
        width: float,
        *,
        weights: Floats | None = None,
        shifts: Floats | None = None,
        means: dict[str, float] | None = None,
    ) -> None:
        self.law, self.data, self.free = law, data, law.free
        self.weights = np.ones(len(data)) if weights is None else weights
        self.shifts = np.zeros(len(data)) if shifts is None else shifts
        self.held = law.held
        self.priors = []
        for row, i in enumerate(self.free):
            prior = law.priors.get(law.parameters[i])
            if prior is not None:
                mean = (means or {}).get(law.parameters[i], prior.mean)
                self.priors.append((row, mean, math.sqrt(PRIOR_ROWS) * width / prior.spread))
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
            for one, weight, shift in zip(self.data, self.weights, self.shifts, strict=True):
                loss, jacobian = self.law.jacobian(theta, one.pieces)
                # Far from a fit a law may be negative, which no logarithm forgives.
                floor = 1e-3 * one.loss
                safe = np.maximum(loss, floor)
                values.append(weight * (np.log(safe / one.loss) - shift))
                rows.append(weight * jacobian[:, self.free] / safe[:, None])
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
    """The start with its level, bias and noise solved for, and the squared residual of that."""
    theta = start.copy()
    names = [law.parameters.index(name) for name in law.linear]
    theta[names] = 0.0
    columns = [law.jacobian(theta, one.pieces)[1][:, names] for one in data]
    weight = np.concatenate([1.0 / one.loss for one in data])
    matrix = np.vstack(columns) * weight[:, None]
    size = np.linalg.norm(matrix, axis=0)
    if not np.all(np.isfinite(size) & (size > 0.0)):
        return start, math.inf
    found, rest = nnls(matrix / size, np.ones(len(matrix)))
    found = np.maximum(found / size, 1e-6)
    theta[names] = found[0], math.log(found[1]), math.log(found[2])
    return theta, float(rest) ** 2


def _minimise(
    objective: _Objective, start: Floats, width: float, steps: int, tol: float = 1e-8
) -> Any:
    """Bounded robust least squares from one start."""
    law, free = objective.law, objective.free
    low, high = law.low[free], law.high[free]
    inside = np.clip(start[free], low + 1e-6, high - 1e-6)
    return least_squares(
        objective.residuals,
        inside,
        jac=objective.jacobian,  # type: ignore[arg-type]
        bounds=(low, high),
        loss="huber",
        f_scale=width,
        x_scale="jac",
        max_nfev=steps,
        ftol=tol,
        xtol=tol,
    )


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

    Minimises :math:`\sum h(\ln L_\theta - \ln L) + \text{priors}` with the Huber loss h, over all
    rows of all runs (at most 128 a run and about 600 in all,
    averaged in bins), from several starts in which level,
    bias and noise are solved for.

    Parameters
    ----------
    runs : sequence of Run
        One or more; three with different schedules are a good start.
    law : Law, optional
        The functional scaling law with a clock exponent if not given; see `LAWS`.
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
    law = _with_noise(fsl() if law is None else law, runs)
    scale = _scale(runs)
    rows = max(min(MOST_ROWS, ALL_ROWS // len(runs)), FEWEST_ROWS)
    thin = [_thinned(run, rows) for run in runs]
    data = [_Data(cut(run.schedule, run.steps, scale), run.loss) for run in thin]
    width = _width(thin)
    objective = _Objective(law, data, width)
    if start is None:
        ranked = sorted(
            (_linear_start(law, one, data) for one in law.starts()), key=lambda pair: pair[1]
        )
        starts = [theta for theta, _ in ranked[:TRIED]]
    else:
        starts = [np.asarray(start, float)]
    found = min((_minimise(objective, one, width, 100) for one in starts), key=lambda o: o.cost)
    theta = objective.full(found.x)
    noise = _seed_noise(runs)
    rng = np.random.default_rng(seed)
    ensemble = [_member(law, data, theta, width, noise, rng) for _ in range(members)]
    residuals = np.concatenate([law.curve(theta, one.pieces) - one.loss for one in data])
    drafted = Fit(
        law=law,
        theta=theta,
        members=np.array(ensemble).reshape(members, len(theta)),
        scale=scale,
        runs=tuple(_note(run) for run in runs),
        misfit=float(np.sqrt(np.mean(residuals**2))),
        seed_noise=noise,
        cost=float(found.cost) / width**2,
    )
    ends = np.array([run.last_rate / run.peak for run in drafted.runs])
    told = unidentified(law, theta, drafted.members, ends)
    return replace(drafted, warnings=told)


def _with_noise(law: Law, runs: Sequence[Run]) -> Law:
    """The law with a weak prior of its noise, which runs without a decay do not show at all."""
    if not isinstance(law, KernelLaw) or "q" not in law.priors or "log_noise" in law.priors:
        return law
    if law.priors["q"].spread == 0.0:
        return law
    loss = float(np.median([run.loss[-1] for run in runs]))
    prior = Prior(math.log(NOISE * loss), 1.0)
    return replace(law, priors={**law.priors, "log_noise": prior})


def _scale(runs: Sequence[Run]) -> Scale:
    span = max(int(run.steps[-1]) for run in runs)
    first = min(int(run.steps[run.steps > 0][0]) for run in runs)
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


def _member(
    law: Law,
    data: Sequence[_Data],
    theta: Floats,
    width: float,
    noise: float,
    rng: np.random.Generator,
) -> Floats:
    """Refit with random weights and shifts of the runs and prior means from the priors."""
    weights = rng.exponential(size=len(data))
    weights = np.sqrt(weights / weights.mean()) if len(data) > 1 else np.ones(1)
    shifts = noise * rng.standard_normal(len(data))
    means = {
        name: prior.mean + prior.spread * float(rng.standard_normal())
        for name, prior in law.priors.items()
        if prior.spread > 0.0
    }
    objective = _Objective(law, data, width, weights=weights, shifts=shifts, means=means)
    return objective.full(_minimise(objective, theta, width, 15, MEMBER_TOL).x)
