"""A plan for trainers that take numbers only: peak, warm-up, hold, decay and the decay's name."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar

from optsched.checks import at_least, whole
from optsched.errors import InvalidProblem
from optsched.pilot.fitting import Fit
from optsched.pilot.pieces import cut
from optsched.pilot.planning.rivals import joined
from optsched.pilot.prediction import compare
from optsched.schedules.families import wsd
from optsched.schedules.schedule import Schedule

__all__ = ["COOLDOWNS", "PlainNumbers", "plain_numbers"]

COOLDOWNS = ("linear", "cosine", "1-sqrt")  # what schedulers of trainers know by name
GRID = 9  # cooldowns that are tried before the search
FINAL = 0.1  # of the peak: the other last rate that trainers have, beside the floor


@dataclass(frozen=True)
class PlainNumbers:
    """Warm up, hold, decay: the schedule of this form that loses least against a plan.

    Attributes
    ----------
    peak : float
    warmup, hold, decay : int
        Steps of each part; they sum to the steps that are planned.
    shape : str
        Of the decay, in `COOLDOWNS`.
    final : float
        Last rate over the peak.
    loss : float
        Predicted final loss.
    cost, error : float
        That minus the plan's, and the standard error of the difference between two runs.
    """

    peak: float
    warmup: int
    hold: int
    decay: int
    shape: str
    final: float
    loss: float
    cost: float
    error: float

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict."""
        return asdict(self)

    @property
    def words(self) -> str:
        """In a line."""
        ramp = f"warm-up {self.warmup:,}, " if self.warmup else ""
        end = f"{self.final:.2g} of the peak" if self.final else "0"
        return (
            f"peak {self.peak:.4g}, {ramp}hold {self.hold:,}, decay {self.decay:,} steps"
            f" ({self.shape}) to {end}"
        )


def plain_numbers(
    found: Fit,
    plan: Schedule,
    *,
    warmup: int = 0,
    floor: float = 0.0,
    start: int = 0,
    history: Schedule | None = None,
) -> PlainNumbers:
    """The WSD schedule of a trainer that comes closest to a plan in predicted final loss.

    Parameters
    ----------
    found : Fit
    plan : Schedule
        Of the whole run.
    warmup : int
        Steps of its linear ramp.
    floor : float
        Least rate; the decay ends there or at a tenth of the peak, whichever is better.
    start, history
        Where a run is continued, which is held and decayed from there on.

    Returns
    -------
    PlainNumbers
        The peak is that of the plan from ``start`` on; length and shape of the decay are tuned
        under the law.
    """
    start = whole("start", start, 0, plan.horizon - 1)
    steps = plan.horizon - start
    warmup = whole("warmup", warmup, 0, steps - 1)
    peak = max(
        float(plan(start)), float(plan.controls["eta"][plan.steps >= start].max(initial=0.0))
    )
    if not peak > 0.0:
        raise InvalidProblem("plan", "rate 0 at every step", "a positive rate somewhere")
    least = at_least("floor", floor, 0.0) / peak
    free, end = steps - warmup, np.array([plan.horizon])

    def run(shape: str, decay: int, final: float) -> Schedule:
        one: Any = shape
        rest = wsd(steps, peak, warmup=warmup, cooldown=decay, shape=one, final=final)
        return joined(history, start, rest)

    def loss(shape: str, decay: int, final: float) -> float:
        pieces = cut(run(shape, decay, final), end, found.scale)
        return float(found.law.curve(found.theta, pieces)[0])

    best = (math.inf, COOLDOWNS[0], 1, least)
    for shape in COOLDOWNS:
        for final in sorted({least, max(least, FINAL)}):
            decay = _tuned(lambda n, a=shape, f=final: loss(a, n, f), free)
            best = min(best, (loss(shape, decay, final), shape, decay, final))
    _, shape, decay, final = best
    mine = run(shape, decay, final)
    rows = {row.name: row for row in compare(found, {"plan": plan, "numbers": mine}).rows}
    error = max(row.error for row in rows.values())
    cost = rows["numbers"].loss - rows["plan"].loss
    told = rows["numbers"].loss
    return PlainNumbers(peak, warmup, free - decay, decay, shape, final, told, cost, error)


def _tuned(loss: Any, free: int) -> int:
    """Steps of the decay of least loss: a grid, then Brent's method around its best point."""

    def at(share: float) -> float:
        return loss(min(max(round(share * free), 1), free))

    grid = np.linspace(1.0 / GRID, 1.0, GRID)
    i = int(np.argmin([at(float(x)) for x in grid]))
    ends = float(grid[max(i - 1, 0)]) if i else 0.0, float(grid[min(i + 1, GRID - 1)])
    found: Any = minimize_scalar(at, bounds=ends, method="bounded", options={"xatol": 2e-3})
    share = float(found.x) if found.fun < at(float(grid[i])) else float(grid[i])
    return min(max(round(share * free), 1), free)
