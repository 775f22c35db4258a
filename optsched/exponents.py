r"""Exponents of power laws: fit how a loss falls with the horizon, and say how surely.

A loss that falls as :math:`T^{-p}` does so only in the limit: with a correction,
:math:`E = A T^{-p} (1 + B T^{-w} + \dots)`, the local slope drifts to p as T grows. `fit_exponent`
therefore states two errors. The *scatter* of the points about a smooth curve is a jackknife over
the horizons; the *drift* is the difference between the slope of the whole range and that of its
longest horizon. Neither alone is the error of p, as points without noise can lie on a curve that is
far from straight, and one whose slopes turn has no drift: so the *spread* of the local slopes
counts as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from optsched.arrays import Brief, Floats
from optsched.errors import InvalidProblem

__all__ = ["ExponentFit", "checked_points", "fit_exponent", "json_ready"]


METHOD = (
    "weighted least squares in log-log; standard error: jackknife over the horizons about a"
    " parabola, and in quadrature twice the drift of the slope to the longest horizon, or twice the"
    " spread of the local slopes"
)
CORRECTIONS = np.linspace(0.15, 1.0, 18)  # exponents w of the correction T^-w that are tried
LEAST_EXTRAPOLATED, ROUNDING = 5, 1e-9
SLOW, FAST = 0.1, 1.0  # exponents w of the correction, where the local slopes have turned
NOISY = 5.0  # standard errors of a local slope that noise alone spreads them by


@dataclass(frozen=True, eq=False, repr=False)
class ExponentFit(Brief):
    r"""A fitted power law, :math:`\log E \approx \log A - p \log T`.

    Attributes
    ----------
    horizons, losses : numpy.ndarray, shape (n,)
        The points that were fitted.
    exponent, amplitude : float
        p, positive where the loss falls: the mean slope of the range; and A.
    stderr : float
        ``hypot(scatter, 2 drift)``, or with the spread in place of the drift where that is more:
        meant as the standard error of the limit of large T, as if the slope had as far to go as
        it went; NaN for two points without errors.
    scatter : float
        Standard error of ``exponent`` from the scatter of the points.
    drift : float
        Slope at the longest horizon, of a parabola in log T, minus ``exponent``; NaN below 4
        points.
    spread : float
        Range of local slopes that turn, beyond what the noise of the points makes of them.
    local_slopes : numpy.ndarray, shape (n - 1,)
        Exponents between neighbours.
    extrapolated, extrapolated_stderr : float
        Limit of a fit with one correction :math:`T^{-w}`, w from 0.15 to 1. Its error: the spread
        over all w that fit as well, the scatter, and the distance to the last local slope. Where
        the local slopes turn, no such fit is defensible: then what the last two of them leave to
        go for any w from 0.1 to 1. NaN where points are too few or too noisy for that.
    remark, method : str
        What the extrapolation rests on, or why there is none; how the errors were made.
    """

    horizons: Floats
    losses: Floats
    exponent: float
    stderr: float
    scatter: float
    drift: float
    spread: float
    amplitude: float
    local_slopes: Floats
    extrapolated: float
    extrapolated_stderr: float
    remark: str
    method: str = METHOD

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict; None where one is not known."""
        return {name: json_ready(value) for name, value in vars(self).items()}


def json_ready(value: Any) -> Any:
    """JSON-able, with None for what is not finite."""
    if isinstance(value, np.ndarray):
        return [json_ready(x) for x in value.tolist()]
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


def _noise(x: Floats, y: Floats) -> float:
    """Standard error of a local slope from the noise of the points about a smooth curve."""
    n = len(x)
    if n < LEAST_EXTRAPOLATED:
        return math.inf
    degree = min(n - 3, 4)
    smooth = _powers(x, degree)
    _, rest = _least_squares(smooth, y, np.ones(n))
    return math.sqrt(2.0 * rest / (n - degree - 1)) / float(np.diff(x).min())


def _known_noise(x: Floats, error: Floats) -> float:
    """Largest standard error of a local slope from those of the points."""
    return float((np.hypot(error[1:], error[:-1]) / np.diff(x)).max())


def _turning(x: Floats, slopes: Floats, noise: float) -> tuple[float, float, str]:
    """Limit where the slopes have turned: as if they went on with a correction T^-w.

    Differences of the slopes then fall by the factor T^-w from one to the next: what is left is a
    geometric sum, for any w from `SLOW` to `FAST`.
    """
    before, last = np.diff(slopes[-3:]).tolist()
    if abs(last) < 2.0 * noise or last * before < 0.0:
        return math.nan, math.nan, "not extrapolated: the local slopes do not settle steadily"
    step = float(x[-1] - x[0]) / (len(x) - 1)
    most, least = (last / math.expm1(w * step) for w in (SLOW, FAST))
    doubt = 0.5 * abs(most - least) * max(abs(last / before), 1.0)  # more while they accelerate
    remark = f"the local slopes turn: one correction, T^-{SLOW:g} to T^-{FAST:g}, from the last two"
    return float(slopes[-1]) + 0.5 * (most + least), math.hypot(noise, doubt), remark


def _extrapolation(
    x: Floats,
    y: Floats,
    weight: Floats,
    fit: float,
    drift: float,
    scatter: float,
    spread: float,
) -> tuple[float, float, str]:
    """Limit of the exponent with a correction T^-w; its error; a remark."""
    n = len(x)
    if n < LEAST_EXTRAPOLATED:
        return math.nan, math.nan, f"not extrapolated: fewer than {LEAST_EXTRAPOLATED} horizons"
    turns = np.diff(np.diff(y) / np.diff(x)) * np.sign(-drift)
    if abs(drift) <= 2.0 * scatter + ROUNDING and spread <= 2.0 * scatter + ROUNDING:
        return (
            fit,
            math.hypot(scatter, 2.0 * drift),
            "no drift beyond the scatter: the fit is the limit",
        )
    if turns.min() < 0.0 or turns[-1] > turns[0]:
        return _turning(x, -np.diff(y) / np.diff(x), _noise(x, y))
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
    steps, loss, error = checked_points(horizons, losses, errors, skip)
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
    slopes = -np.diff(y) / np.diff(x)
    noise = _noise(x, y) if error is None else _known_noise(x, error)
    turns = np.diff(slopes) * np.sign(slopes[-1] - slopes[0])
    spread = 0.0  # of slopes that rise or fall throughout the drift says it all
    if turns.size and turns.min() < 0.0:
        spread = max(float(np.ptp(slopes)) - NOISY * noise, 0.0)
    far = max(0.0 if math.isnan(drift) else abs(drift), spread)
    limit, doubt, remark = _extrapolation(x, y, weight, exponent, drift, scatter, spread)
    return ExponentFit(
        horizons=steps,
        losses=loss,
        exponent=exponent,
        stderr=math.hypot(scatter, 2.0 * far),
        scatter=scatter,
        drift=drift,
        spread=spread,
        amplitude=math.exp(float(line[0]) - float(line[1]) * x.mean()),
        local_slopes=slopes,
        extrapolated=limit,
        extrapolated_stderr=doubt,
        remark=remark,
    )


def checked_points(
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
