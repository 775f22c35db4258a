"""Averages that take the place of a decay, replayed beside it on the model.

`optsched.rules.averaging.average_for` is exact only where gradients do not depend on the iterate.
Here they do: the rows of `compare_decay` say what is left of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from optsched.arrays import Brief
from optsched.checks import positive, whole
from optsched.control.problem import Problem
from optsched.errors import InvalidProblem
from optsched.model.replay import MAX_STEPS, Replay, replay
from optsched.rules.averaging import MovingAverage, average_for
from optsched.schedules.schedule import Schedule
from optsched.studies.averaging.against_decay import check_plain

__all__ = ["DecayAverage", "compare_decay"]


@dataclass(frozen=True, eq=False, repr=False)
class DecayAverage(Brief):
    """A linear decay to zero, and averages at a constant rate in its place.

    Attributes
    ----------
    problem : Problem
    rate : float
        Before the decay, and all along with an average.
    steps : int
        Steps n of the decay.
    rows : dict of str to Replay
        ``constant``; ``decay``; ``uniform``, the average of the last n iterates; ``ema``, the
        moving average of the same lag.
    """

    problem: Problem
    rate: float
    steps: int
    rows: dict[str, Replay]

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict."""
        names = ("excess_loss", "bias", "variance")
        rows = {name: {n: getattr(row, n) for n in names} for name, row in self.rows.items()}
        return {"rate": self.rate, "steps": self.steps, "rows": rows}

    def table(self) -> str:
        """The rows as text; ratio is to the decay."""
        best = self.rows["decay"].excess_loss
        lines = [f"{'':9}{'excess loss':>12}{'bias':>10}{'variance':>10}{'ratio':>7}"]
        for name, row in self.rows.items():
            numbers = f"{row.excess_loss:12.4g}{row.bias:10.3g}{row.variance:10.3g}"
            lines.append(f"{name:9}{numbers}{row.excess_loss / best:7.2f}")
        return "\n".join(lines)


def compare_decay(problem: Problem, rate: float, steps: int) -> DecayAverage:
    """Replay a constant rate, its linear decay over the last steps, and averages in its place.

    Parameters
    ----------
    problem : Problem
        Of the rate of plain SGD alone.
    rate : float
        Constant rate, below the stability limit.
    steps : int
        Steps of the decay, at most the horizon.

    Raises
    ------
    InvalidProblem
        Another problem; values out of range.
    """
    check_plain(problem)
    rate = positive("rate", rate)
    if not rate < problem.stability_limit:
        raise InvalidProblem(
            "rate", rate, f"below the stability limit, {problem.stability_limit:g}"
        )
    horizon = whole("horizon", problem.horizon, 1, MAX_STEPS)
    steps = whole("steps", steps, 1, horizon)
    left = horizon - np.arange(horizon)
    decay = Schedule.from_array(rate * np.minimum(left / steps, 1.0))
    constant = Schedule.from_array(np.full(horizon, rate))
    held = np.full(horizon, MovingAverage.for_linear_decay(steps).decay)
    held[0] = 0.0  # starts at the first iterate
    schedules = {
        "constant": constant,
        "decay": decay,
        "uniform": average_for(decay),
        "ema": constant.replace(ema=held),
    }
    dynamics = problem.replace(controls="eta,ema", ema=None).dynamics
    rows = {}
    for name, schedule in schedules.items():
        full = schedule if "ema" in schedule.controls else schedule.replace(ema=0.0)
        rows[name] = replay(problem.spectrum, dynamics, full)
    return DecayAverage(problem, rate, steps, rows)
