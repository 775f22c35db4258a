"""What people use today, tuned under the same law: the rivals of a plan."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize

from optsched.arrays import Floats
from optsched.pilot.fitting import Fit
from optsched.pilot.pieces import cut
from optsched.schedules.families import Family, Parameter, named_families
from optsched.schedules.schedule import Schedule

__all__ = ["RIVALS", "joined", "rivals"]


RIVALS = ("cosine", "linear", "wsd_linear", "wsd_sqrt", "polynomial")
GRID = 7  # values of the first hyperparameter that are tried
SIMPLEX = 40  # evaluations for each hyperparameter


def joined(history: Schedule | None, start: int, rest: Schedule) -> Schedule:
    """The first ``start`` steps of one schedule, then all of another."""
    if history is None or start == 0:
        return rest
    before = np.unique(np.append(history.steps[history.steps < start], start - 1))
    steps = np.concatenate([before, rest.steps + start])
    eta = np.concatenate([history(before), rest.controls["eta"]])
    return Schedule.from_knots(steps, eta=eta, horizon=start + rest.horizon)


def rivals(
    found: Fit,
    horizon: int,
    *,
    peak: float,
    warmup: int = 0,
    start: int = 0,
    history: Schedule | None = None,
    names: Sequence[str | Family] = RIVALS,
) -> dict[str, Schedule]:
    """Families with the same peak and warm-up, their shape tuned to the predicted final loss.

    Parameters
    ----------
    found : Fit
    horizon : int
        Steps of the whole run.
    peak : float
        Their peak rate, which is not tuned: laws do not know other peaks.
    warmup : int
        Steps of a linear ramp.
    start, history
        Where a run is continued; the families then begin there, at ``peak``.
    names : sequence of str or Family
        In `optsched.schedules.families.FAMILIES`, short names too, or families of one's own.

    Returns
    -------
    dict of str to Schedule
        Whole runs, by family.

    Raises
    ------
    InvalidProblem
        An unknown family.
    """
    out = {}
    for family in named_families(names):
        known = [p.name for p in family.parameters]
        fixed: dict[str, float] = {"warmup": warmup} if "warmup" in known else {}
        free = [p for p in family.parameters if p.name not in ("peak", "warmup")]
        shares = _tuned(found, family, free, horizon - start, peak, fixed, start, history)
        out[family.name] = joined(
            history, start, _member(family, free, shares, horizon - start, peak, fixed)
        )
    return out


def _member(
    family: Family, free: Sequence[Parameter], shares: Floats, steps: int, peak: float,
    fixed: dict[str, float],
) -> Schedule:  # fmt: skip
    options = {p.name: p.at(float(x)) for p, x in zip(free, np.clip(shares, 0.0, 1.0), strict=True)}
    return family(steps, peak, **fixed, **options)


def _tuned(
    found: Fit, family: Family, free: Sequence[Parameter], steps: int, peak: float,
    fixed: dict[str, float], start: int, history: Schedule | None,
) -> Floats:  # fmt: skip
    """Shares of the ranges of the free hyperparameters: a grid, then a simplex search."""
    if not free:
        return np.zeros(0)
    end = np.array([start + steps])

    def loss(shares: Floats) -> float:
        member = joined(history, start, _member(family, free, shares, steps, peak, fixed))
        return float(found.law.curve(found.theta, cut(member, end, found.scale))[0])

    rest = np.array([p.share(p.default) for p in free[1:]])
    grid = [np.append(x, rest) for x in np.linspace(0.0, 1.0, GRID)]
    # The end of a range is often best, of the final rate above all.
    grid += [np.append(x, np.zeros(len(rest))) for x in np.linspace(0.0, 1.0, GRID)]
    best = min(grid, key=loss)
    inward = np.where(best > 0.5, -0.1, 0.1)
    simplex = np.vstack([best, best + np.diag(inward)])
    result = minimize(
        loss,
        best,
        method="Nelder-Mead",
        bounds=[(0.0, 1.0)] * len(free),
        options={
            "initial_simplex": simplex,
            "maxfev": SIMPLEX * len(free),
            "xatol": 1e-3,
            "fatol": 1e-6,
        },
    )
    return np.asarray(result.x) if result.fun < loss(best) else best
