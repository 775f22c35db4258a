"""Split a compute budget: solve runs of N features and T steps, and search for the best N."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.optimize import minimize_scalar
from scipy.special import zeta

from optsched.arrays import Brief
from optsched.checks import is_number, within
from optsched.control.problem import Problem
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem, SolveFailed
from optsched.exponents import json_ready
from optsched.model.spectrum import PowerLawSpectrum
from optsched.studies.scaling import SCHEDULES

__all__ = ["SplitRun", "Split", "Study", "best_split"]

Found = dict[int, "SplitRun"]

LOG_TOL = 0.01  # of N in the search; the loss is flat to 1e-4 over several times this
FEW = 16  # whole numbers in a bracket that are all tried
SMALL = 32  # features up to which all near the best are tried
NEAR = 0.01  # loss above the best that counts as good
FAILED = 1e30  # stands for the loss of a failed solve: the search needs finite numbers


@dataclass(frozen=True)
class SplitRun:
    """One number of features N and of steps T.

    ``excess_loss`` is ``learnt + tail``, NaN where the solve failed; ``learnt`` is replayed on the
    exact recursion of N modes.
    """

    features: float
    horizon: int
    excess_loss: float
    learnt: float
    tail: float
    peak_eta: float
    converged: bool
    message: str
    seconds: float

    def summary(self) -> dict[str, Any]:
        """The run as a JSON-able dict."""
        return {
            name: "inf" if name == "features" and value == math.inf else json_ready(value)
            for name, value in vars(self).items()
        }


@dataclass(frozen=True, eq=False, repr=False)
class Split(Brief):
    """The best run of a budget.

    Attributes
    ----------
    budget : float
        C in features times steps.
    best : SplitRun
    features_low, features_high : float
        Numbers of features within 1 % of the best loss, interpolated between solves;
        the loss there is 1 % above the best to about 0.2 %.
    data_limited : bool
        Whether the samples, not the compute, bound the steps, to 1 %; N T may be below the budget.
    bracketed : bool
        Whether converged runs with fewer and with more features are worse.
    runs : tuple of SplitRun
        All that were solved, by features.
    """

    budget: float
    best: SplitRun
    features_low: float
    features_high: float
    data_limited: bool
    bracketed: bool
    runs: tuple[SplitRun, ...] = field(repr=False)

    def summary(self) -> dict[str, Any]:
        """The split as a JSON-able dict, without its other runs."""
        own = ("budget", "features_low", "features_high", "data_limited", "bracketed")
        seconds = sum(run.seconds for run in self.runs)
        return {
            **self.best.summary(),
            **{name: json_ready(getattr(self, name)) for name in own},
            "solves": len(self.runs),
            "seconds": json_ready(seconds),
        }


@dataclass(frozen=True)
class Study:
    """What all runs share."""

    problem: Problem
    schedule: str
    samples: float | None
    tail_noise: bool
    options: Mapping[str, Any]

    def __post_init__(self) -> None:
        problem = self.problem
        if not isinstance(problem.spectrum, PowerLawSpectrum):
            raise InvalidProblem(
                "spectrum", type(problem.spectrum).__name__, "a power law, a and b"
            )
        if "batch_size" in problem.controls:
            raise InvalidProblem("controls", problem.controls, "a batch size that is held")
        if self.schedule not in SCHEDULES:
            raise InvalidProblem("schedule", self.schedule, ", ".join(SCHEDULES))
        least, samples = problem.batch_size * self.least_steps, self.samples
        if samples is not None and not (is_number(samples) and least <= samples <= 1e30):
            allowed = f"a number from {least:g}, a batch for each of the fewest steps, to 1e30"
            raise InvalidProblem("samples", samples, allowed)

    @property
    def least_steps(self) -> int:
        return self.problem.warmup + 1

    @property
    def most_steps(self) -> int:
        if self.samples is None:
            return MAX_HORIZON
        return int(min(self.samples // self.problem.batch_size, MAX_HORIZON))

    def checked(self, budget: Any) -> float:
        allowed = f"a number from {self.least_steps} to 1e30"
        return within("budget", budget, self.least_steps, 1e30, allowed)

    def all_checked(self, budgets: Sequence[float], skip: Any) -> list[float]:
        found = [self.checked(budget) for budget in budgets]
        if not found or any(x >= y for x, y in pairwise(found)):
            raise InvalidProblem("budgets", found, "one or more numbers that increase")
        if skip not in range(len(found)):
            raise InvalidProblem("skip", skip, f"a whole number from 0 to {len(found) - 1}")
        return found

    def range(self, budget: float) -> tuple[int, int]:
        """Fewest and most features: all of the compute is used unless samples run out."""
        fewest = 1 if self.samples is not None else math.ceil(budget / MAX_HORIZON)
        return max(1, fewest), int(budget // self.least_steps)

    def run(self, features: float, horizon: int) -> SplitRun:
        """Solve one run."""
        problem = self.problem
        assert problem.a is not None
        tail = 0.0 if features == math.inf else float(zeta(problem.a, features + 1.0))
        noise = math.sqrt(problem.noise**2 + tail) if self.tail_noise else problem.noise
        learnt = peak = seconds = math.nan
        try:
            one = problem.replace(features=features, horizon=horizon, noise=noise)
            point = SCHEDULES[self.schedule](one, self.options, None)
        except (InvalidProblem, SolveFailed) as error:
            converged, message = False, str(error)
        else:
            converged, message, seconds = point.converged, point.message, point.seconds
            if converged:
                learnt, peak = point.excess_loss, point.peak_eta
        return SplitRun(
            features, horizon, learnt + tail, learnt, tail, peak, converged, message, seconds
        )

    def at(self, budget: float, features: int, found: Found) -> float:
        """Loss of a split of the budget, inf where the solve failed."""
        if features not in found:
            steps = min(int(budget // features), self.most_steps)
            found[features] = self.run(features, steps)
        run = found[features]
        return run.excess_loss if run.converged else math.inf


def _walk(
    loss: Callable[[int], float], n: int, edge: int, enough: Callable[[int, float], bool]
) -> int:
    """From ``n`` towards ``edge`` by factors of 2, to the first number where ``enough``."""
    while n != edge:
        n = min(2 * n, edge) if edge > n else max(n // 2, edge)
        # A failed solve brackets nothing.
        if math.isfinite(value := loss(n)) and enough(n, value):
            break
    return n


def best_split(study: Study, budget: float, start: float) -> Split:
    """Bracket the best number of features by factors of 2, then Brent in log N."""
    low, high = study.range(budget)
    found: Found = {}

    def loss(n: int) -> float:
        return study.at(budget, n, found)

    def past(n: int, value: float) -> bool:
        """Whether ``n`` is past the best; if not, it is the best now."""
        nonlocal best
        if value < loss(best):
            best = n
        return best != n

    best = int(min(max(round(start), low), high))
    loss(best)
    left = _walk(loss, best, low, past)
    right = _walk(loss, best, high, past)
    if right - left <= FEW:
        for n in range(left + 1, right):
            loss(n)
    elif math.isfinite(loss(best)):
        # Where the samples run out the loss has a kink, which a smooth search misses.
        kink = int(budget // study.most_steps)
        if left < kink < right:
            loss(kink)
        minimize_scalar(
            lambda x: math.log(min(loss(round(math.exp(x))), FAILED)),
            bounds=(math.log(left), math.log(right)),
            method="bounded",
            options={"xatol": LOG_TOL},
        )
    best = min(found, key=loss)
    if best <= SMALL:
        # Whole numbers of steps make the loss a sawtooth with more than one minimum.
        for n in range(max(low, best * 3 // 4), min(high, best * 4 // 3) + 1):
            loss(n)
        best = min(found, key=loss)
    if math.isfinite(least := loss(best)):
        for edge in (low, high):
            _walk(loss, best, edge, lambda _, value: value > (1.0 + NEAR) * least)
    return _chosen(study, budget, found)


def _chosen(study: Study, budget: float, found: Found) -> Split:
    """The best of the runs that converged, and what is nearly as good."""
    runs = tuple(found[n] for n in sorted(found))
    good = [run for run in runs if run.converged]
    if not good:
        return Split(budget, runs[0], math.nan, math.nan, False, False, runs)
    best = min(good, key=lambda run: run.excess_loss)
    # Where the walk met an edge, all up to there is good.
    low, high = float(good[0].features), float(good[-1].features)
    if len(good) > 1:
        x = np.log([run.features for run in good])
        y = np.log([run.excess_loss / best.excess_loss for run in good]) - math.log1p(NEAR)
        ends = np.exp(PchipInterpolator(x, y).roots(extrapolate=False))
        low = max(ends[ends < best.features], default=low)
        high = min(ends[ends > best.features], default=high)
    limited = best.horizon * (1.0 + LOG_TOL) >= study.most_steps
    inside = good[0] is not best and good[-1] is not best
    return Split(budget, best, float(low), float(high), limited, inside, runs)
