r"""Compute-optimal training: how many features and how many steps a budget should buy.

A model with the first N of infinitely many power-law features, trained for T steps, costs
:math:`C = N T` (times m for single samples; the exponents are the same). Its excess loss is

.. math:: E(N, T) = E_N(T; \sigma_N) + \sum_{k>N} k^{-a},
   \qquad \sigma_N^2 = \sigma^2 + \sum_{k>N} k^{-a} :

the N learnt modes, and the tail that is never learnt. As the features are independent and
Gaussian, the tail is label noise to the learnt modes. If the loss of enough features falls as
:math:`T^{-p}`, the modes learnt by T steps are about :math:`N = T^{p/(a-1)}`, and the best split is

.. math:: E \sim C^{-p(a-1)/(a-1+p)}, \quad N \sim C^{p/(a-1+p)}, \quad T \sim C^{(a-1)/(a-1+p)} .

The loss of the optimal schedule: (a-1)/(a+1) in the easy phase, (a-1)/(b+1) in the hard one (B.
Bordelon and F. Mori, arXiv 2602.04774; B. Li and others, arXiv 2509.19189, Table 1).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optsched.arrays import Brief, Floats
from optsched.checks import is_number
from optsched.control.certificate import UNREFINED
from optsched.control.problem import Problem
from optsched.errors import InvalidProblem
from optsched.exponents import ExponentFit, fit_exponent, json_ready
from optsched.studies.compute_split import Split, SplitRun, Study, best_split
from optsched.studies.scaling import scaling_theory

__all__ = [
    "ComputeOptimal",
    "DataLimit",
    "IsoFlop",
    "SplitRun",
    "Split",
    "compute_optimal",
    "compute_theory",
    "data_limit",
    "iso_flop",
]


OPTIONS = {"gap": UNREFINED, "replay_steps": 1000}  # a sweep needs neither bound nor long replays
QUANTITIES = {"loss": 1.0, "features": -1.0, "horizon": -1.0, "peak_eta": 1.0}  # 1: falls with C
TAILS = {"linear": 1.0, "cosine": 2.0}  # power of the last part of a schedule in the steps to go
MOST_FEATURES = 1e9  # of a search without a bound of compute
SETTLED, TRIES = 0.02, 12  # error of log T where data run out, and most attempts
LEAST_FEATURES = 10
JITTER = 1e-5  # relative, of the loss from one number of features to the next
DRIFT_WARNING = 0.03


def compute_theory(problem: Problem, schedule: str = "optimal") -> dict[str, float]:
    r"""Closed forms of the exponents of C = N T; empty where theory is silent.

    Parameters
    ----------
    problem : Problem
    schedule : str
        ``optimal``, ``constant``, ``power``, ``linear`` or ``cosine``.

    Returns
    -------
    dict of float
        ``loss`` and ``peak_eta`` (positive: falls with C), ``features`` and ``horizon`` (positive:
        grows), and ``steps_loss``, the exponent p of the loss in T alone. Without logarithms,
        which a tail with alpha = b has. Empty without a, b, or label noise, with momentum, and for
        other schedules.

    Notes
    -----
    p is (a-1)/max(a, b) for the optimum, (a-1)/(a+b-1) for a constant rate or a power of t, and
    for a fixed shape that ends as :math:`(1-t/T)^g`, with s = (a-1)/b and alpha = min(b, g+1),
    s alpha/(1 + s alpha) where s >= 1 - 1/alpha, else s. The peak rate falls as
    :math:`T^{-(1 - pb/(a-1))}`, since :math:`\eta T` is the intrinsic time that learns N modes.
    """
    known = scaling_theory(problem)
    if not known or not problem.rate_only:
        return {}
    assert problem.a is not None and problem.b is not None
    a, b = problem.a, problem.b
    s = (a - 1.0) / b
    if schedule == "optimal":
        p = known["sgd"]
    elif schedule in ("constant", "power"):
        p = (a - 1.0) / (a + b - 1.0)
    elif schedule in TAILS:
        alpha = min(b, TAILS[schedule] + 1.0)
        p = s * alpha / (1.0 + s * alpha) if s >= 1.0 - 1.0 / alpha else s
    else:
        return {}
    steps = (a - 1.0) / (a - 1.0 + p)
    return {
        "loss": p * steps,
        "features": 1.0 - steps,
        "horizon": steps,
        "peak_eta": max(0.0, 1.0 - p / s) * steps,
        "steps_loss": p,
    }


@dataclass(frozen=True, eq=False, repr=False)
class IsoFlop(Brief):
    """Loss against the number of features at one budget; arrays of shape (n,), NaN where failed."""

    budget: float
    split: Split
    features: Floats
    horizons: Floats
    losses: Floats
    tails: Floats

    def summary(self) -> dict[str, Any]:
        """The curve as a JSON-able dict."""
        own = {name: json_ready(value) for name, value in vars(self).items() if name != "split"}
        return {**own, "best": self.split.summary()}


@dataclass(frozen=True)
class DataLimit:
    r"""What a budget of samples D does to runs of any compute: :math:`T m \le D`.

    Attributes
    ----------
    samples, horizon : float, int
        D, and the most steps, floor(D/m).
    crossover, crossover_features : float
        Compute at which the best split takes all these steps, and its features: to 3 %, or to a
        whole number of features; NaN where none was found.
    enough_features : float
        Fewest features within 1 % of the best loss. More compute than ``enough_features *
        horizon`` is wasted.
    best : SplitRun
        The best run of any compute; ``features`` may be infinite.
    """

    samples: float
    horizon: int
    crossover: float
    crossover_features: float
    enough_features: float
    best: SplitRun

    def summary(self) -> dict[str, Any]:
        """The limit as a JSON-able dict."""
        own = {name: json_ready(value) for name, value in vars(self).items() if name != "best"}
        return {**own, "best": self.best.summary()}


@dataclass(frozen=True, eq=False, repr=False)
class ComputeOptimal(Brief):
    """Best splits along budgets, and their exponents beside theory.

    ``fits`` has an `ExponentFit` in C for each of ``loss``, ``features``, ``horizon`` and
    ``peak_eta``, empty for fewer than two budgets to fit: those that converged, were bracketed and
    had samples enough. ``warnings`` say what was left out or makes the exponents doubtful.
    """

    problem: Problem
    schedule: str
    tail_noise: bool
    splits: tuple[Split, ...]
    fits: dict[str, ExponentFit]
    theory: dict[str, float]
    limit: DataLimit | None
    warnings: tuple[str, ...]

    def exponent(self, name: str) -> float:
        """Fitted exponent; of features and horizon how they grow, else how it falls."""
        fit = self.fits.get(name)
        return math.nan if fit is None else QUANTITIES[name] * fit.exponent + 0.0

    def local_slopes(self, name: str) -> Floats:
        """Exponents between neighbouring budgets, with the sign of `exponent`."""
        fit = self.fits.get(name)
        return np.empty(0) if fit is None else QUANTITIES[name] * fit.local_slopes + 0.0

    def summary(self) -> dict[str, Any]:
        """One JSON-able object."""
        problem = self.problem
        return {
            **{name: getattr(problem, name) for name in ("a", "b", "batch_size", "noise", "phase")},
            "schedule": self.schedule,
            "tail_noise": self.tail_noise,
            "exponents": {name: json_ready(self.exponent(name)) for name in self.fits},
            "stderr": {name: json_ready(fit.stderr) for name, fit in self.fits.items()},
            "extrapolated": {
                name: json_ready(QUANTITIES[name] * fit.extrapolated)
                for name, fit in self.fits.items()
            },
            "local_slopes": {name: self.local_slopes(name).tolist() for name in self.fits},
            "theory": dict(self.theory),
            "splits": [split.summary() for split in self.splits],
            "limit": self.limit and self.limit.summary(),
            "warnings": list(self.warnings),
        }


def compute_optimal(
    problem: Problem,
    budgets: Sequence[float],
    *,
    schedule: str = "optimal",
    samples: float | None = None,
    tail_noise: bool = True,
    solve_options: Mapping[str, Any] | None = None,
    skip: int = 0,
    progress: Callable[[Split], None] | None = None,
) -> ComputeOptimal:
    """Best features and steps along compute budgets, and how they and the loss scale.

    Parameters
    ----------
    problem : Problem
        A power law; its own horizon and features do not count.
    budgets : sequence of float
        Compute C = N T in features times steps, increasing.
    schedule : str
        A name in `optsched.studies.scaling.SCHEDULES`; its best member is taken for every N and T.
    samples : float, optional
        Budget of samples: T is at most ``samples / batch_size``.
    tail_noise : bool
        Whether the features left out act as label noise, as they do in the model; without it the
        tail only adds to the loss.
    solve_options : mapping, optional
        Passed on to what solves a run. Unless they say otherwise, no certified gap is asked for
        and horizons above 1000 are replayed by blocks.
    skip : int
        Number of the smallest budgets that are solved but not fitted.
    progress : callable, optional
        Called with each split as it is done.

    Returns
    -------
    ComputeOptimal

    Raises
    ------
    InvalidProblem
        If the spectrum is no power law, the batch size is a control, a name is unknown, or
        numbers are out of range.
    """
    study = Study(problem, schedule, samples, tail_noise, {**OPTIONS, **(solve_options or {})})
    theory = compute_theory(problem, schedule)
    splits: list[Split] = []
    for budget in study.all_checked(budgets, skip):
        splits.append(best_split(study, budget, _guess(study, budget, splits[-1:])))
        if progress is not None:
            progress(splits[-1])
    limit = None if samples is None else _limit(study)
    fits = _fits(splits[skip:])
    warnings = _warnings(splits, skip, fits, limit)
    return ComputeOptimal(
        problem, schedule, tail_noise, tuple(splits), fits, theory, limit, warnings
    )


def _guess(study: Study, budget: float, before: Sequence[Split]) -> float:
    """Features to start from: the last best split, moved as theory says."""
    growth = compute_theory(study.problem, study.schedule).get("features", 1.0 / 3.0)
    if before and before[0].best.converged:
        growth = 1.0 if before[0].data_limited else growth
        return before[0].best.features * (budget / before[0].budget) ** growth
    return max(budget**growth, budget / study.most_steps)


def _fits(splits: Sequence[Split]) -> dict[str, ExponentFit]:
    used = [one for one in splits if one.bracketed and not one.data_limited]
    if len(used) < 2:
        return {}
    budgets = [one.budget for one in used]
    columns = np.array(
        [(s.best.excess_loss, s.best.features, s.best.horizon, s.best.peak_eta) for s in used]
    ).T
    return {
        name: fit_exponent(budgets, column)
        for name, column in zip(QUANTITIES, columns, strict=True)
    }


def _warnings(
    splits: Sequence[Split], skip: int, fits: Mapping[str, ExponentFit], limit: DataLimit | None
) -> tuple[str, ...]:
    said = [
        f"N = {run.features:g}, T = {run.horizon} (C = {split.budget:g}) failed and does not"
        f" count: {run.message}"
        for split in splits
        for run in split.runs
        if not run.converged
    ]
    for split in splits[skip:]:
        if not split.bracketed:
            said.append(f"C = {split.budget:g}: no runs on both sides of the best, not fitted")
        elif split.data_limited:
            said.append(f"C = {split.budget:g}: the samples bound the steps, not fitted")
        elif split.best.features < LEAST_FEATURES:
            said.append(
                f"C = {split.budget:g}: N = {split.best.features:g} is a small whole number"
            )
    if limit is not None and math.isnan(limit.crossover):
        said.append("the compute at which samples run out was not found")
    if "loss" in fits and abs(fits["loss"].drift) > DRIFT_WARNING:
        said.append(f"the slope of the loss still drifts, by {fits['loss'].drift:+.3f}")
    return tuple(said)


def data_limit(
    problem: Problem,
    samples: float,
    *,
    schedule: str = "optimal",
    tail_noise: bool = True,
    solve_options: Mapping[str, Any] | None = None,
) -> DataLimit:
    """Where a budget of samples stops compute from helping; parameters as `compute_optimal`."""
    options = {**OPTIONS, **(solve_options or {})}
    return _limit(Study(problem, schedule, samples, tail_noise, options))


def _limit(study: Study) -> DataLimit:
    """Crossover by steps of theory's slope; then all features that help."""
    steps, free = study.most_steps, replace(study, samples=None)
    assert study.samples is not None
    slope = compute_theory(study.problem, study.schedule).get("horizon", 2.0 / 3.0)
    budget, before = max(float(steps), 2.0) ** (1.0 / slope), []
    crossover = features = math.nan
    for _ in range(TRIES):
        split = best_split(free, budget, _guess(free, budget, before))
        if not split.best.converged:
            break
        miss = math.log(split.best.horizon / steps)
        if abs(miss) < max(SETTLED, 1.0 / split.best.features):
            crossover, features = budget, float(split.best.features)
            break
        before = [split]
        budget = min(max(budget * math.exp(-miss / slope), study.least_steps), 1e30)
    start = LEAST_FEATURES * (100.0 if math.isnan(features) else features)
    most = best_split(study, steps * MOST_FEATURES, start)
    endless = study.run(math.inf, steps)
    finite = most.best.excess_loss < (1.0 - JITTER) * endless.excess_loss
    best = most.best if finite or not endless.converged else endless
    return DataLimit(float(study.samples), steps, crossover, features, most.features_low, best)


def iso_flop(
    problem: Problem,
    budget: float,
    features: Sequence[int] | None = None,
    *,
    schedule: str = "optimal",
    samples: float | None = None,
    tail_noise: bool = True,
    solve_options: Mapping[str, Any] | None = None,
    points: int = 17,
    span: float = 30.0,
) -> IsoFlop:
    """Loss against the number of features at one compute budget, for plots.

    Parameters
    ----------
    problem, budget, schedule, samples, tail_noise, solve_options
        As for `compute_optimal`.
    features : sequence of int, optional
        Numbers of features; else about ``points``, up to a factor ``span`` around the best.

    Returns
    -------
    IsoFlop
        With the solves of the search that are within the range, sorted by features.
    """
    study = Study(problem, schedule, samples, tail_noise, {**OPTIONS, **(solve_options or {})})
    budget = study.checked(budget)
    if points not in range(1, 10_001):
        raise InvalidProblem("points", points, "a whole number from 1 to 10000")
    if not (is_number(span) and 1.0 <= span < math.inf):
        raise InvalidProblem("span", span, "a number >= 1")
    low, high = study.range(budget)
    split = best_split(study, budget, _guess(study, budget, []))
    found = {int(run.features): run for run in split.runs}
    if features is None:
        ends = max(low, split.best.features / span), min(high, split.best.features * span)
        features = np.unique(np.geomspace(*ends, points).round()).astype(int).tolist()
    chosen: list[int] = sorted(features or [])
    for n in chosen:
        if not (is_number(n) and float(n).is_integer() and low <= n <= high):
            raise InvalidProblem("features", n, f"whole numbers from {low} to {high}")
        study.at(budget, int(n), found)
    runs = [found[int(n)] for n in chosen]
    table = np.array([(run.features, run.horizon, run.excess_loss, run.tail) for run in runs])
    return IsoFlop(budget, split, *(table.reshape(-1, 4)[:, i] for i in range(4)))
