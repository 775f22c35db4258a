"""Scaling studies: solve a problem along horizons, and fit how its loss falls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optsched.control.joint import stretched
from optsched.control.problem import Problem
from optsched.control.solution import Solution
from optsched.control.solve import solve
from optsched.errors import InvalidProblem, SolveFailed
from optsched.studies.exponents import ExponentFit, checked_points, fit_exponent, json_ready

__all__ = ["SCHEDULES", "Scaling", "ScalingPoint", "scaling", "scaling_theory"]

Floats = NDArray[np.float64]

MISSING_SHARE = 0.01  # of the loss: more in features that are left out is a bias
DRIFT_WARNING = 0.03


def scaling_theory(problem: Problem) -> dict[str, float]:
    """Closed forms of the loss exponent; empty without exponents a, b or without label noise.

    ``sgd``: (a-1)/a in the easy phase, (a-1)/b in the hard one. ``floor``: (a-1)/a, the minimax
    rate. ``growing_memory``: (a-1)(2b-1)/b^2 (Ferbach and others, arXiv 2505.16098, for memory
    that grows with time), no more than the floor. ``expected``: what theory says of the optimum of
    this problem's controls, where it says something.
    """
    a, b = problem.a, problem.b
    if a is None or b is None or problem.noise == 0.0:
        return {}
    floor, memory = (a - 1.0) / a, (a - 1.0) * (2.0 * b - 1.0) / b**2
    sgd = min(floor, (a - 1.0) / b)
    found = {"sgd": sgd, "floor": floor, "growing_memory": max(sgd, min(floor, memory))}
    # Heavy ball at a fixed batch size is bounded by the noise like SGD: other constants only.
    if problem.rate_only or (problem.momentum == "heavy-ball" and problem.controls[0] == "eta"):
        found["expected"] = sgd
    return found


@dataclass(frozen=True)
class ScalingPoint:
    """One horizon of a study: a row even if its solve failed, but then it is not fitted.

    ``excess_loss`` is replayed on the exact recursion, and NaN if nothing was found; ``message``
    says why the solve stopped.
    """

    horizon: int
    excess_loss: float
    peak_eta: float
    converged: bool
    message: str
    seconds: float = math.nan
    solution: Solution | None = field(default=None, repr=False, compare=False)

    def summary(self) -> dict[str, Any]:
        """The row as a JSON-able dict."""
        return {name: json_ready(value) for name, value in vars(self).items() if name != "solution"}


# Makes the point of a problem, with options of its own, and the solution of a shorter horizon.
Finder = Callable[[Problem, Mapping[str, Any], Solution | None], ScalingPoint]


def _optimal(
    problem: Problem, options: Mapping[str, Any], shorter: Solution | None
) -> ScalingPoint:
    """The optimum; an iterate that did not converge is a row too."""
    found = solve(problem, **{**options, "throw": False})
    if not found.converged and shorter is not None:
        start = stretched(shorter.schedule, problem.horizon)
        again = solve(problem, **{**options, "throw": False, "initial": start})
        found = again if again.converged else found
    return ScalingPoint(
        horizon=problem.horizon,
        excess_loss=found.excess_loss,
        peak_eta=found.schedule.peak,
        converged=found.converged and math.isfinite(found.excess_loss),
        message=found.message,
        seconds=float(found.stats["seconds"]),
        solution=found,
    )


# What can be followed along horizons: name -> how a point is made.
SCHEDULES: dict[str, Finder] = {"optimal": _optimal}


@dataclass(frozen=True)
class Scaling:
    """Losses along horizons, and their exponents beside theory.

    ``fit`` and ``peak_fit`` are of the loss and of the peak rate over the converged points, None
    for fewer than two; ``problem`` has the longest horizon. ``warnings`` say what makes the
    exponent doubtful: features left out, slopes that drift, failed solves.
    """

    problem: Problem
    schedule: str
    points: tuple[ScalingPoint, ...]
    fit: ExponentFit | None
    peak_fit: ExponentFit | None
    theory: dict[str, float]
    warnings: tuple[str, ...]

    @property
    def exponent(self) -> float:
        """Fitted exponent of the loss, NaN without a fit."""
        return math.nan if self.fit is None else self.fit.exponent

    def summary(self) -> dict[str, Any]:
        """One JSON-able object."""
        problem, fits = self.problem, {"fit": self.fit, "peak_fit": self.peak_fit}
        return {
            **{name: getattr(problem, name) for name in ("a", "b", "batch_size", "noise")},
            "features": "inf" if problem.features == math.inf else int(problem.features),
            "control": ",".join(problem.controls),
            "momentum": problem.momentum,
            "schedule": self.schedule,
            "exponent": json_ready(self.exponent),
            "stderr": None if self.fit is None else json_ready(self.fit.stderr),
            "theory": dict(self.theory),
            "local_slopes": [] if self.fit is None else self.fit.local_slopes.tolist(),
            "horizons": [point.horizon for point in self.points],
            "excess_loss": [json_ready(point.excess_loss) for point in self.points],
            **{name: fit and fit.summary() for name, fit in fits.items()},
            "points": [point.summary() for point in self.points],
            "warnings": list(self.warnings),
        }


def scaling(
    problem: Problem,
    horizons: Sequence[int],
    *,
    schedule: str = "optimal",
    solve_options: Mapping[str, Any] | None = None,
    skip: int = 0,
    progress: Callable[[ScalingPoint], None] | None = None,
) -> Scaling:
    """Solve a problem along horizons and fit how the loss and the peak rate scale.

    Each horizon is solved from the solver's own starts, as neighbours that start from each other
    share a bad local optimum; where that fails, from the optimum of the horizon before.

    Parameters
    ----------
    problem : Problem
        Its own horizon does not count; a budget of samples is kept per step.
    horizons : sequence of int
    schedule : str
        A name in `SCHEDULES`.
    solve_options : mapping, optional
        Passed on to what makes a point, `optsched.solve` for the optimum. Unless they say
        otherwise, horizons above 10^4 are replayed by blocks.
    skip : int
        Number of the shortest horizons that are solved but not fitted.
    progress : callable, optional
        Called with each point as it is done.
    """
    checked_points(list(horizons), np.ones(len(horizons)), None, skip)
    if schedule not in SCHEDULES:
        raise InvalidProblem("schedule", schedule, ", ".join(SCHEDULES))
    options = {"replay_steps": 10_000, **(solve_options or {})}
    share = None if problem.samples is None else problem.samples / problem.horizon
    problems = [
        problem.replace(horizon=horizon, samples=share and share * horizon) for horizon in horizons
    ]
    points, shorter = [], None
    for one in problems:
        try:
            point = SCHEDULES[schedule](one, options, shorter)
        except SolveFailed as error:
            point = ScalingPoint(one.horizon, math.nan, math.nan, False, str(error))
        shorter = point.solution if point.converged else shorter
        points.append(point)
        if progress is not None:
            progress(point)
    return _assembled(problems[-1], schedule, tuple(points), skip)


def _assembled(
    problem: Problem, schedule: str, points: tuple[ScalingPoint, ...], skip: int
) -> Scaling:
    good = [point for point in points[skip:] if point.converged and point.excess_loss > 0.0]
    fit = peaks = None
    if len(good) > 1:
        steps, losses, rates = np.array([(p.horizon, p.excess_loss, p.peak_eta) for p in good]).T
        fit, peaks = fit_exponent(steps, losses), fit_exponent(steps, rates)
    warnings = [
        f"T = {point.horizon} did not converge and is not fitted: {point.message}"
        for point in points
        if not point.converged
    ]
    if good and problem.a is not None and problem.features != math.inf:
        missing = float(problem.features) ** (1.0 - problem.a) / (problem.a - 1.0)
        share = missing / min(point.excess_loss for point in good)
        if share > MISSING_SHARE:
            warnings.append(
                f"N = {int(problem.features)} leaves out {100 * share:.2g} % of the smallest loss:"
                " exponents are too large at long horizons; give features=math.inf"
            )
    if fit is not None and abs(fit.drift) > DRIFT_WARNING:
        warnings.append(f"the slope still drifts, by {fit.drift:+.3f} to the longest horizon")
    return Scaling(problem, schedule, points, fit, peaks, scaling_theory(problem), tuple(warnings))
