"""What people use today, tuned under the same law: the rivals of a plan."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    peaks: Sequence[float] = (),
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
        Their peak rate.
    peaks : sequence of float
        Others that are tried once the shape is tuned, which is then tuned again at the best.
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
    tuner = _Tuner(found, horizon - start, start, history)
    out = {}
    for family in named_families(names):
        known = [p.name for p in family.parameters]
        fixed: dict[str, float] = {"warmup": warmup} if "warmup" in known else {}
        free = [p for p in family.parameters if p.name not in ("peak", "warmup")]
        rival = _Rival(family, free, fixed, peak, tuner)
        shares = rival.tuned()
        if peaks:
            rival = rival.at_best((*peaks, peak), shares)
            if rival.peak != peak:
                shares = rival.tuned(shares)
        out[family.name] = rival.run(shares)
    return out


@dataclass(frozen=True, eq=False)
class _Tuner:
    """What rivals are tuned for."""

    found: Fit
    steps: int
    start: int
    history: Schedule | None


@dataclass(frozen=True, eq=False)
class _Rival:
    """A family with its peak, free and fixed hyperparameters."""

    family: Family
    free: Sequence[Parameter]
    fixed: dict[str, float]
    peak: float
    of: _Tuner

    def run(self, shares: Floats) -> Schedule:
        """The whole run of the member at shares of the ranges of the free hyperparameters."""
        inside = np.clip(shares, 0.0, 1.0)
        options = {p.name: p.at(float(x)) for p, x in zip(self.free, inside, strict=True)}
        rest = self.family(self.of.steps, self.peak, **self.fixed, **options)
        return joined(self.of.history, self.of.start, rest)

    def loss(self, shares: Floats) -> float:
        """Its predicted final loss."""
        found, end = self.of.found, np.array([self.of.start + self.of.steps])
        return float(found.law.curve(found.theta, cut(self.run(shares), end, found.scale))[0])

    def at_best(self, peaks: Sequence[float], shares: Floats) -> _Rival:
        """The same with the best of these peaks for this shape."""
        return min((replace(self, peak=peak) for peak in peaks), key=lambda one: one.loss(shares))

    def tuned(self, near: Floats | None = None) -> Floats:
        """The best shares: a grid, if there is nothing to begin near, then a simplex search."""
        if not self.free:
            return np.zeros(0)
        rest = np.array([p.share(p.default) for p in self.free[1:]])
        grid = [np.append(x, rest) for x in np.linspace(0.0, 1.0, GRID)]
        # The end of a range is often best, of the final rate above all.
        grid += [np.append(x, np.zeros(len(rest))) for x in np.linspace(0.0, 1.0, GRID)]
        best = min(grid, key=self.loss) if near is None else near
        inward = np.where(best > 0.5, -0.1, 0.1)
        result = minimize(
            self.loss,
            best,
            method="Nelder-Mead",
            bounds=[(0.0, 1.0)] * len(self.free),
            options={
                "initial_simplex": np.vstack([best, best + np.diag(inward)]),
                "maxfev": SIMPLEX * len(self.free),
                "xatol": 1e-3,
                "fatol": 1e-6,
            },
        )
        return np.asarray(result.x) if result.fun < self.loss(best) else best
