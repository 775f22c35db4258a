"""Scaling studies: solve a problem along horizons, and fit how its loss falls."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from optsched.arrays import Brief
from optsched.control.certificate import global_floor
from optsched.control.problem import Problem
from optsched.errors import InvalidProblem, SolveFailed
from optsched.exponents import ExponentFit, checked_points, fit_exponent, json_ready
from optsched.optimisers.momentum import HeavyBall
from optsched.studies.finders import SCHEDULES, FamilyFinder, Finder, ScalingPoint, annealing_time

__all__ = [
    "SCHEDULES",
    "Finder",
    "Scaling",
    "ScalingPoint",
    "annealing_time",
    "scaling",
    "scaling_theory",
]

MISSING_SHARE = 0.01  # of the loss: more in features that are left out is a bias
DRIFT_WARNING = 0.03
DISAGREES, LEAST_OFF = 2.0, 2e-3  # standard errors from theory, and the least difference told
DRIFT_POINTS = 4  # fewer have no drift
AT_BOUND = 0.999
NOISE_SHARE = 0.1  # excess loss over label noise, above which theory has not begun
NEAR_LOGARITHM = 0.1  # in 1/b - 1/(g+1): corrections fall as T to less than this power
TAILS = {"constant": 0.0, "linear": 1.0, "cosine": 2.0}  # powers g of a shape's end (1 - t/T)^g


def scaling_theory(problem: Problem, schedule: str = "optimal") -> dict[str, float]:
    r"""Closed forms of exponents; empty without exponents a, b or without label noise.

    ``sgd``: (a-1)/a in the easy phase, (a-1)/b in the hard one. ``floor``: (a-1)/a, the minimax
    rate. ``growing_memory``: (a-1)(2b-1)/b^2 (Ferbach and others, arXiv 2505.16098, for memory
    that grows with time), no more than the floor. Where theory says something of this schedule
    under this problem's controls, ``expected`` is the exponent p of its loss :math:`T^{-p}`,
    ``expected_peak`` the q of its peak rate :math:`T^{-q}`, ``expected_annealing`` the r of its
    annealing time :math:`T^r`.

    Parameters
    ----------
    problem : Problem
    schedule : str
        A name in `SCHEDULES`.

    Notes
    -----
    With :math:`s = (a-1)/b`, a peak :math:`\eta_0` and a shape that ends as :math:`(1-t/T)^g`, let
    :math:`\tau = \eta_0 T` and :math:`\alpha = \min(b, g+1)`. The bias is :math:`\tau^{-s}`; the
    kernel :math:`x^{-(2-1/b)}` over the last intrinsic time x makes the variance
    :math:`\eta_0 \tau^{-(1-1/\alpha)}` (with a factor :math:`\log\tau` where
    :math:`g + 1 = b`). They balance at the loss :math:`T^{-s\alpha/(1+s\alpha)}` and the peak
    :math:`T^{-(1+s\alpha-\alpha)/(1+s\alpha)}` if :math:`s \ge 1-1/\alpha`; else the peak stays
    at its bound, and the loss is :math:`T^{-s}`. A decay over the last share of the steps, wsd,
    has that loss too; in the second case its bias rises by :math:`\ell\tau^{-s-1}` for an
    annealing of :math:`\ell`, whose noise is :math:`\ell^{-(1-1/\alpha)}`, and
    :math:`\ell = T^{\alpha(s+1)/(2\alpha-1)}`. A power law has the exponent of a constant, as its
    noise is set by its last rate; its peak goes to the bound. For the optimum see the page
    "Theory".
    """
    a, b = problem.a, problem.b
    if a is None or b is None or problem.noise == 0.0:
        return {}
    floor, memory = (a - 1.0) / a, (a - 1.0) * (2.0 * b - 1.0) / b**2
    sgd = min(floor, (a - 1.0) / b)
    found = {"sgd": sgd, "floor": floor, "growing_memory": max(sgd, min(floor, memory))}
    if problem.rate_only and problem.eta_min == 0.0:
        names = ("expected", "expected_peak", "expected_annealing")
        values = zip(names, _expected(a, b, schedule), strict=False)
        return found | {name: value for name, value in values if not math.isnan(value)}
    # Heavy ball at a fixed batch size is bounded by the noise like SGD: other constants only.
    heavy = type(problem.optimiser) is HeavyBall and problem.controls[0] == "eta"
    if heavy and schedule == "optimal":
        found["expected"] = sgd
    return found


def _expected(a: float, b: float, schedule: str) -> tuple[float, ...]:
    """Exponents of the loss, the peak and the annealing time, NaN where one is not known."""
    s = (a - 1.0) / b
    if schedule == "optimal":
        easy = (a - 1.0) / a, 1.0 - b / a, 1.0
        return easy if b <= a else (s, 0.0, (a + b - 1.0) / (2.0 * b - 1.0))
    if schedule == "power":
        return (a - 1.0) / (a + b - 1.0), 0.0
    if schedule not in TAILS and schedule != "wsd":
        return ()
    alpha = min(b, TAILS.get(schedule, 1.0) + 1.0)
    annealing = math.nan if schedule == "constant" else 1.0
    if s >= 1.0 - 1.0 / alpha:
        whole = 1.0 + s * alpha
        return s * alpha / whole, (whole - alpha) / whole, annealing
    if schedule == "wsd":
        annealing = alpha * (s + 1.0) / (2.0 * alpha - 1.0)
    return s, 0.0, annealing


@dataclass(frozen=True, eq=False, repr=False)
class Scaling(Brief):
    """Losses along horizons, and their exponents beside theory.

    ``fit``, ``peak_fit`` and ``annealing_fit`` are of the loss, the peak rate and the
    `annealing_time` over the converged points, None for fewer than two or where there is no such
    time; that time grows, so that its fit has a negative exponent. ``problem`` has the longest
    horizon, ``tuned`` names what was chosen at every horizon. ``warnings`` say what makes the
    exponent doubtful: features left out, slopes that drift, failed solves.
    """

    problem: Problem
    schedule: str
    points: tuple[ScalingPoint, ...]
    fit: ExponentFit | None
    peak_fit: ExponentFit | None
    annealing_fit: ExponentFit | None
    tuned: tuple[str, ...]
    theory: dict[str, float]
    warnings: tuple[str, ...]

    @property
    def exponent(self) -> float:
        """Fitted exponent of the loss, NaN without a fit."""
        return math.nan if self.fit is None else self.fit.exponent

    @property
    def exponents(self) -> dict[str, tuple[float, float]]:
        """Exponents that were fitted, with standard errors.

        Under the names of `scaling_theory`: ``expected`` of the loss, ``expected_peak``,
        ``expected_annealing``.
        """
        fits = {
            "expected": (1.0, self.fit),
            "expected_peak": (1.0, self.peak_fit),
            "expected_annealing": (-1.0, self.annealing_fit),
        }
        return {
            name: (sign * fit.exponent, fit.stderr) for name, (sign, fit) in fits.items() if fit
        }

    def summary(self) -> dict[str, Any]:
        """One JSON-able object."""
        problem, none = self.problem, (math.nan, math.nan)
        found = {"": "expected", "peak_": "expected_peak", "annealing_": "expected_annealing"}
        exponents = {
            prefix + part: json_ready(self.exponents.get(name, none)[i])
            for prefix, name in found.items()
            for i, part in enumerate(("exponent", "stderr"))
        }
        fits = ("fit", "peak_fit", "annealing_fit")
        return {
            **{name: getattr(problem, name) for name in ("a", "b", "batch_size", "noise")},
            "features": "inf" if problem.features == math.inf else int(problem.features),
            "control": ",".join(problem.controls),
            "momentum": problem.momentum,
            "schedule": self.schedule,
            "tuned": list(self.tuned),
            **exponents,
            "theory": dict(self.theory),
            "local_slopes": [] if self.fit is None else self.fit.local_slopes.tolist(),
            "horizons": [point.horizon for point in self.points],
            "excess_loss": [json_ready(point.excess_loss) for point in self.points],
            "over_floor": [json_ready(point.over_floor) for point in self.points],
            **{name: fit and fit.summary() for name in fits for fit in [getattr(self, name)]},
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
    """Solve a problem along horizons and fit how loss, peak rate and annealing time scale.

    Each optimum is solved from the solver's own starts, as neighbours that start from each other
    share a bad local optimum; where that fails, from the optimum of the horizon before. A family
    with two or more numbers besides its peak is tuned from the best of the horizon before, and
    again from nothing where a coarse look finds something better.

    Parameters
    ----------
    problem : Problem
        Its own horizon does not count; a budget of samples is kept per step.
    horizons : sequence of int
    schedule : str
        A name in `SCHEDULES`: ``optimal``; ``constant``, ``linear``, ``cosine``, peak tuned alone;
        ``power``, chi tuned too; ``wsd``, with a linear decay whose share is tuned too; or a
        family of `optsched.schedules.families.FAMILIES`, all its hyperparameters tuned.
    solve_options : mapping, optional
        Passed on to what makes a point, `optsched.solve` for the optimum. Unless they say
        otherwise, horizons above 10^4 are replayed by blocks.
    skip : int
        Number of the shortest horizons that are solved but not fitted.
    progress : callable, optional
        Called with each point as it is done.
    """
    problem.refuse_objective()
    checked_points(list(horizons), np.ones(len(horizons)), None, skip)
    if schedule not in SCHEDULES:
        raise InvalidProblem("schedule", schedule, ", ".join(SCHEDULES))
    options = {"replay_steps": 10_000, **(solve_options or {})}
    share = None if problem.samples is None else problem.samples / problem.horizon
    problems = [
        problem.replace(horizon=horizon, samples=share and share * horizon) for horizon in horizons
    ]
    points: list[ScalingPoint] = []
    shorter: ScalingPoint | None = None
    for one in problems:
        try:
            point = SCHEDULES[schedule](one, options, shorter)
        except SolveFailed as error:
            point = ScalingPoint(one.horizon, math.nan, math.nan, False, str(error))
        point = replace(point, floor=global_floor(one))
        shorter = point if point.converged else shorter
        points.append(point)
        if progress is not None:
            progress(point)
    return _assembled(problems[-1], schedule, tuple(points), skip)


def _assembled(
    problem: Problem, schedule: str, points: tuple[ScalingPoint, ...], skip: int
) -> Scaling:
    good = [point for point in points[skip:] if point.converged and point.excess_loss > 0.0]
    fit = peaks = times = None
    if len(good) > 1:
        rows = [(p.horizon, p.excess_loss, p.peak_eta, p.annealing_time) for p in good]
        steps, losses, rates, annealing = np.array(rows).T
        fit, peaks = fit_exponent(steps, losses), fit_exponent(steps, rates)
        if np.isfinite(annealing).all():
            times = fit_exponent(steps, annealing)
    finder = SCHEDULES.get(schedule)
    return Scaling(
        problem=problem,
        schedule=schedule,
        points=points,
        fit=fit,
        peak_fit=peaks,
        annealing_fit=times,
        tuned=finder.tuned if isinstance(finder, FamilyFinder) else tuple(problem.controls),
        theory=scaling_theory(problem, schedule),
        warnings=tuple(_warnings(problem, schedule, points, good, fit)),
    )


def _warnings(
    problem: Problem,
    schedule: str,
    points: Sequence[ScalingPoint],
    good: Sequence[ScalingPoint],
    fit: ExponentFit | None,
) -> list[str]:
    """What makes the exponent doubtful."""
    warnings = [
        f"T = {point.horizon} did not converge and is not fitted: {point.message}"
        for point in points
        if not point.converged
    ]
    for name in sorted({name for point in good for name in point.at_end}):
        where = ", ".join(f"{point.horizon:g}" for point in good if name in point.at_end)
        warnings.append(f"{name} was tuned to an end of its range at T = {where}")
    if good and problem.a is not None and problem.features != math.inf:
        missing = float(problem.features) ** (1.0 - problem.a) / (problem.a - 1.0)
        share = missing / min(point.excess_loss for point in good)
        if share > MISSING_SHARE:
            warnings.append(
                f"N = {int(problem.features)} leaves out {100 * share:.2g} % of the smallest loss:"
                " exponents are too large at long horizons; take N infinite"
            )
    warnings += _too_short(problem, good, fit)
    bound = max((p.horizon for p in good if p.peak_eta >= AT_BOUND * problem.eta_cap), default=0)
    falls = scaling_theory(problem, schedule).get("expected_peak", 0.0)
    if bound and falls > 0.0:
        warnings.append(
            f"the peak rate is at its bound up to T = {bound:g}, where theory has it fall as"
            f" T^-{falls:.3g}: horizons are too short for the limit"
        )
    if fit is not None:
        warnings += _disagreement(fit, scaling_theory(problem, schedule).get("expected"))
    slow = fit is not None and _logarithm(problem, schedule)
    return [*warnings, slow] if slow else warnings


def _disagreement(fit: ExponentFit, theory: float | None) -> list[str]:
    """A sentence where the loss falls otherwise than theory says, beyond the standard error."""
    if theory is None or math.isnan(fit.stderr):
        return []
    off = fit.exponent - theory
    if abs(off) <= max(DISAGREES * fit.stderr, LEAST_OFF):
        return []
    first, last = (float(fit.local_slopes[i]) for i in (0, -1))
    return [
        f"the fitted exponent of the loss is {off:+.4f} from theory, {abs(off) / fit.stderr:.2g}"
        f" standard errors: local slopes go from {first:.4f} to {last:.4f}, which is"
        f" {last - theory:+.4f} from it; corrections that such horizons do not show are in no error"
    ]


def _too_short(
    problem: Problem, good: Sequence[ScalingPoint], fit: ExponentFit | None
) -> list[str]:
    """Signs of horizons that are too few or too short."""
    warnings = []
    if fit is not None and len(good) < DRIFT_POINTS:
        warnings.append(
            f"{len(good)} horizons are too few to see whether the slope drifts: the standard error"
            " does not know about corrections to scaling"
        )
    if fit is not None and fit.spread > 2.0 * fit.scatter and fit.spread > abs(fit.drift):
        at = ", ".join(f"{slope:.4f}" for slope in fit.local_slopes)
        warnings.append(
            f"the local slopes do not settle on this range ({at}): the limit may be further off"
            " than they are apart"
        )
    if fit is not None and abs(fit.drift) > DRIFT_WARNING:
        warnings.append(
            f"the slope still drifts, by {fit.drift:+.3f} to the longest horizon: horizons are too"
            " short for the limit"
        )
    least = min((point.excess_loss for point in good), default=0.0)
    if least > NOISE_SHARE * problem.noise**2 > 0.0:
        warnings.append(
            f"the smallest excess loss is still {least / problem.noise**2:.2g} of the label noise:"
            " horizons are too short for the limit"
        )
    return warnings


def _logarithm(problem: Problem, schedule: str) -> str:
    """Where variances of two origins have nearly the same power of T, a sentence about it."""
    shape = {"wsd": "linear"}.get(schedule, schedule)
    if "expected" not in scaling_theory(problem, schedule) or shape not in ("linear", "cosine"):
        return ""
    assert problem.a is not None and problem.b is not None
    power, b = TAILS[shape] + 1.0, problem.b
    small = (problem.a - 1.0) / b < 1.0 - 1.0 / min(b, power)  # the bias, which has no such power
    if small or abs(1.0 / b - 1.0 / power) >= NEAR_LOGARITHM:
        return ""
    return (
        f"b = {b:g} is close to {power:g}, where theory has a logarithm for this schedule: slopes"
        " settle slowly, and the standard errors do not know it"
    )
