r"""Scaling exponents: solve a problem along horizons, fit how its loss falls, say how surely.

A loss that falls as :math:`T^{-p}` does so only in the limit: with a correction,
:math:`E = A T^{-p} (1 + B T^{-w} + \dots)`, the local slope drifts to p as T grows. `fit_exponent`
therefore states two errors. The *scatter* of the points about a smooth curve is a jackknife over
the horizons; the *drift* is the difference between the slope of the whole range and that of its
longest horizon. Neither alone is the error of p, as points without noise can lie on a curve that is
far from straight.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optsched.control.mesh import log_mesh
from optsched.control.nodes import log_clock
from optsched.control.problem import Problem
from optsched.control.solution import Solution
from optsched.control.solve import solve
from optsched.errors import InvalidProblem, SolveFailed
from optsched.schedules.schedule import Schedule

__all__ = ["SCHEDULES", "ExponentFit", "Scaling", "ScalingPoint", "fit_exponent", "scaling"]

Floats = NDArray[np.float64]

METHOD = (
    "weighted least squares in log-log; standard error: jackknife over the horizons about a"
    " parabola, and in quadrature twice the drift of the slope to the longest horizon"
)
CORRECTIONS = np.linspace(0.15, 1.0, 18)  # exponents w of the correction T^-w that are tried
LEAST_EXTRAPOLATED, ROUNDING = 5, 1e-9
MISSING_SHARE = 0.01  # of the loss: more in features that are left out is a bias
DRIFT_WARNING = 0.03


@dataclass(frozen=True)
class ExponentFit:
    r"""A fitted power law, :math:`\log E \approx \log A - p \log T`.

    Attributes
    ----------
    horizons, losses : numpy.ndarray, shape (n,)
        The points that were fitted.
    exponent, amplitude : float
        p, positive where the loss falls: the mean slope of the range; and A.
    stderr : float
        ``hypot(scatter, 2 drift)``, meant as the standard error of the limit of large T, as if
        the slope had as far to go as it went; NaN for two points without errors.
    scatter : float
        Standard error of ``exponent`` from the scatter of the points.
    drift : float
        Slope at the longest horizon, of a parabola in log T, minus ``exponent``; NaN below 4
        points.
    local_slopes : numpy.ndarray, shape (n - 1,)
        Exponents between neighbours.
    extrapolated, extrapolated_stderr : float
        Limit of a fit with one correction :math:`T^{-w}`, w from 0.15 to 1. Its error: the spread
        over all w that fit as well, the scatter, and the distance to the last local slope. NaN
        where that is not defensible.
    remark, method : str
        What the extrapolation rests on, or why there is none; how the errors were made.
    """

    horizons: Floats
    losses: Floats
    exponent: float
    stderr: float
    scatter: float
    drift: float
    amplitude: float
    local_slopes: Floats
    extrapolated: float
    extrapolated_stderr: float
    remark: str
    method: str = METHOD

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict; None where one is not known."""
        return {name: _plain(value) for name, value in vars(self).items()}


def _plain(value: Any) -> Any:
    """JSON-able, with None for what is not finite."""
    if isinstance(value, np.ndarray):
        return [_plain(x) for x in value.tolist()]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _least_squares(columns: Floats, y: Floats, weight: Floats) -> tuple[Floats, float]:
    """Coefficients, and the weighted sum of squared residuals."""
    root = np.sqrt(weight)
    solution = np.linalg.lstsq(columns * root[:, None], y * root, rcond=None)[0]
    return np.asarray(solution, float), float((weight * (y - columns @ solution) ** 2).sum())


def _powers(x: Floats, degree: int) -> Floats:
    return np.vander(x - x.mean(), degree + 1, increasing=True)


def _scatter(x: Floats, y: Floats, weight: Floats) -> float:
    """Jackknife standard error of the slope; curvature is no scatter."""
    n = len(x)
    if n > 3:
        smooth = _powers(x, 2)
        curve = smooth @ _least_squares(smooth, y, weight)[0]
        # A parabola takes three of n degrees of freedom, a line two.
        y = (y - curve) * math.sqrt((n - 2) / (n - 3))
    without = [[np.delete(v, i) for v in (x, y, weight)] for i in range(n)]
    slopes = np.array([_least_squares(_powers(u, 1), v, w)[0][1] for u, v, w in without])
    return math.sqrt((n - 1) * float(slopes.var()))


def _extrapolation(
    x: Floats, y: Floats, weight: Floats, fit: float, drift: float, scatter: float
) -> tuple[float, float, str]:
    """Limit of the exponent with a correction T^-w; its error; a remark."""
    n = len(x)
    if n < LEAST_EXTRAPOLATED:
        return math.nan, math.nan, f"not extrapolated: fewer than {LEAST_EXTRAPOLATED} horizons"
    turns = np.diff(np.diff(y) / np.diff(x)) * np.sign(-drift)
    if abs(drift) <= 2.0 * scatter + ROUNDING:
        return (
            fit,
            math.hypot(scatter, 2.0 * drift),
            "no drift beyond the scatter: the fit is the limit",
        )
    if turns.min() < 0.0 or turns[-1] > turns[0]:
        return math.nan, math.nan, "not extrapolated: the local slopes do not settle steadily"
    line = _powers(x, 1)
    bent = [np.column_stack([line, np.exp(-w * (x - x[0]))]) for w in CORRECTIONS]
    tried = [_least_squares(columns, y, weight) for columns in bent]
    limit, misfit = np.array([(-solution[1], rest) for solution, rest in tried]).T
    best = int(misfit.argmin())
    # As good: above the best by no more than the 95 % region of one parameter allows.
    near = misfit <= misfit[best] * (1.0 + 4.0 / max(n - 4, 1)) + 1e-18
    spread = float(np.abs(limit[near] - limit[best]).max())
    # One correction stands for several: doubt all that it moves beyond the last slope.
    doubt = abs(float(limit[best]) + float((y[-1] - y[-2]) / (x[-1] - x[-2])))
    remark = f"one correction, T^-{CORRECTIONS[best]:.2f}"
    return float(limit[best]), math.hypot(scatter, spread, doubt), remark


def fit_exponent(
    horizons: ArrayLike, losses: ArrayLike, *, errors: ArrayLike | None = None, skip: int = 0
) -> ExponentFit:
    """Fit the exponent of a power law, with an error that knows about corrections to scaling.

    Parameters
    ----------
    horizons, losses : array_like, shape (n,)
        Positive; horizons increase.
    errors : array_like, shape (n,), optional
        Relative standard errors of the losses; the weights are ``errors**-2``. Without them all
        horizons count the same.
    skip : int
        Number of the shortest horizons that are left out.

    Raises
    ------
    InvalidProblem
        If fewer than two points are left, horizons do not increase, or a number is not positive.
    """
    steps, loss, error = _points(horizons, losses, errors, skip)
    x, y, n = np.log(steps), np.log(loss), len(steps)
    weight = np.ones(n) if error is None else error**-2.0
    line, _ = _least_squares(_powers(x, 1), y, weight)
    exponent = -float(line[1])
    scatter = _scatter(x, y, weight) if n > 2 else math.nan
    if error is not None:
        centre = x - weight @ x / weight.sum()
        known = 1.0 / math.sqrt(weight @ centre**2)
        scatter = known if n == 2 else max(scatter, known)
    drift = math.nan
    if n > 3:
        parabola, _ = _least_squares(_powers(x, 2), y, weight)
        drift = -float(parabola[1] + 2.0 * parabola[2] * (x[-1] - x.mean())) - exponent
    limit, doubt, remark = _extrapolation(x, y, weight, exponent, drift, scatter)
    return ExponentFit(
        horizons=steps,
        losses=loss,
        exponent=exponent,
        stderr=math.hypot(scatter, 0.0 if math.isnan(drift) else 2.0 * drift),
        scatter=scatter,
        drift=drift,
        amplitude=math.exp(float(line[0]) - float(line[1]) * x.mean()),
        local_slopes=-np.diff(y) / np.diff(x),
        extrapolated=limit,
        extrapolated_stderr=doubt,
        remark=remark,
    )


def _points(
    horizons: ArrayLike, losses: ArrayLike, errors: ArrayLike | None, skip: int
) -> tuple[Floats, Floats, Floats | None]:
    """Valid points that are left after ``skip``."""
    steps, loss = _vector("horizons", horizons), _vector("losses", losses)
    error = None if errors is None else _vector("errors", errors)
    for name, values in (("losses", loss), ("errors", error)):
        if values is not None and len(values) != len(steps):
            raise InvalidProblem(name, f"{len(values)} numbers", f"{len(steps)}, as horizons")
    if not np.all(np.diff(steps) > 0.0):
        raise InvalidProblem("horizons", steps.tolist(), "increasing numbers")
    if skip not in range(len(steps) + 1):
        raise InvalidProblem("skip", skip, "a whole number >= 0")
    if len(steps) - skip < 2:
        raise InvalidProblem("horizons", f"{len(steps)} with skip {skip}", "two points or more")
    return steps[skip:], loss[skip:], None if error is None else error[skip:]


def _vector(name: str, values: ArrayLike) -> Floats:
    try:
        out = np.asarray(values, float)
    except (TypeError, ValueError):
        raise InvalidProblem(name, values, "finite numbers > 0") from None
    if out.ndim != 1 or not np.all((out > 0.0) & np.isfinite(out)):
        raise InvalidProblem(name, values, "a list of finite numbers > 0")
    return out


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
        return {name: _plain(value) for name, value in vars(self).items() if name != "solution"}


# Makes the point of a problem, with options of its own, and the solution of a shorter horizon.
Finder = Callable[[Problem, Mapping[str, Any], Solution | None], ScalingPoint]


def _stretched(shorter: Solution, horizon: int) -> Schedule:
    """The schedule of another horizon, relative to the length of the log clock."""
    steps, old = log_mesh(horizon, 112).steps, shorter.schedule
    clock = log_clock(steps.astype(float), horizon)
    before = log_clock(old.steps.astype(float), old.horizon)
    places = clock / clock[-1] * before[-1]
    values = {name: np.interp(places, before, v) for name, v in old.controls.items()}
    return Schedule.from_knots(steps, values, horizon=horizon)


def _optimal(
    problem: Problem, options: Mapping[str, Any], shorter: Solution | None
) -> ScalingPoint:
    """The optimum; an iterate that did not converge is a row too."""
    found = solve(problem, **{**options, "throw": False})
    if not found.converged and shorter is not None:
        start = _stretched(shorter, problem.horizon)
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
            "exponent": _plain(self.exponent),
            "stderr": None if self.fit is None else _plain(self.fit.stderr),
            "theory": dict(self.theory),
            "local_slopes": [] if self.fit is None else self.fit.local_slopes.tolist(),
            "horizons": [point.horizon for point in self.points],
            "excess_loss": [_plain(point.excess_loss) for point in self.points],
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
    _points(list(horizons), np.ones(len(horizons)), None, skip)
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
