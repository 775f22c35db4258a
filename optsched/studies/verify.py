"""Judge any schedule: replay it on the exact recursion and set it beside the global bound."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

from optsched.arrays import Brief
from optsched.control.certificate import global_bound, global_floor
from optsched.control.problem import Problem
from optsched.control.rate.constraints import violations
from optsched.errors import InvalidProblem
from optsched.model.replay import Replay, replay
from optsched.numerics import quiet
from optsched.schedules.schedule import Schedule

__all__ = ["Verification", "matching", "verify"]

GAP = 0.005  # at which the bound is refined no further


@dataclass(frozen=True, eq=False, repr=False)
class Verification(Brief):
    """A schedule replayed.

    Attributes
    ----------
    problem : Problem
    schedule : Schedule
    replay : Replay
    lower_bound : float
        Excess loss that no schedule with rates up to ``problem.eta_top`` can beat; 0 where no
        bound is known, as with momentum, scheduled batch sizes or averaging.
    gap : float or None
        ``excess_loss / lower_bound - 1``; None where the schedule exceeds ``eta_top`` (the bound
        does not speak of it), diverges, or no bound is known.
    violations : tuple of str
        Constraints of the problem that the schedule does not keep, in words.
    seconds : float
    floor : float
        Excess loss below which no optimiser that is linear in the labels gets with as many fresh
        samples; 0 where it says nothing.
    """

    problem: Problem
    schedule: Schedule
    replay: Replay
    lower_bound: float
    gap: float | None
    violations: tuple[str, ...]
    seconds: float
    floor: float = 0.0

    @property
    def status(self) -> str:
        """``"ok"``, or ``"diverges"`` where the recursion overflows."""
        return "ok" if math.isfinite(self.replay.excess_loss) else "diverges"

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict; infinite losses are None."""

        def finite(x: float) -> float | None:
            return x if math.isfinite(x) else None

        problem, played = self.problem, self.replay
        features = problem.features
        return {
            "a": problem.a,
            "b": problem.b,
            "horizon": problem.horizon,
            "features": int(features) if math.isfinite(features) else "inf",
            "batch_size": problem.batch_size,
            "noise": problem.noise,
            "control": ",".join(problem.controls),
            "optimiser": problem.optimiser.name,
            "momentum": problem.momentum,
            "samples": problem.samples,
            "eta_max": finite(problem.eta_max),
            "eta_cap": finite(problem.eta_cap),
            "eta_top": finite(problem.eta_top),
            "phase": problem.phase,
            "excess_loss": finite(played.excess_loss),
            "bias": finite(played.bias),
            "variance": finite(played.variance),
            "lower_bound": self.lower_bound,
            "floor": self.floor,
            "certified_gap": self.gap,
            "eta_peak": self.schedule.peak,
            "replay": played.how,
            "replay_error": played.error,
            "violations": list(self.violations),
            "status": self.status,
            "seconds": self.seconds,
        }


def matching(problem: Problem, schedule: Schedule) -> Problem:
    """The problem with the controls that a schedule carries.

    A schedule with beta and without nu is heavy ball, unless the problem says Nesterov.
    """
    names = tuple(schedule.controls)
    changes: dict[str, Any] = {"eta_max": problem.given_eta_max}
    if "batch_size" in names:
        changes["samples"] = max(schedule.sum("batch_size"), float(schedule.horizon))
    return problem.freed(names, **changes)


@quiet
def verify(problem: Problem, schedule: Schedule) -> Verification:
    """Replay a schedule on the exact recursion.

    Parameters
    ----------
    problem : Problem
        Its controls are replaced by those of the schedule.
    schedule : Schedule
        Of the same horizon.

    Returns
    -------
    Verification

    Raises
    ------
    InvalidProblem
        If the horizons differ, or the schedule has the weight of a momentum that has no value.
    """
    began = time.perf_counter()
    if schedule.horizon != problem.horizon:
        raise InvalidProblem("horizon", problem.horizon, f"{schedule.horizon}, as the schedule's")
    budget = problem.samples
    problem = matching(problem, schedule)
    played = replay(problem.spectrum, problem.dynamics, schedule)
    bound = global_bound(problem, played, GAP)
    inside = schedule.peak <= problem.eta_top * (1.0 + 1e-12)
    known = inside and math.isfinite(played.excess_loss) and bound > 0.0
    gap = played.excess_loss / bound - 1.0 if known else None
    given = "batch_size" in schedule.controls
    floor = global_floor(problem, schedule.sum("batch_size") if given else None)
    seconds = time.perf_counter() - began
    found = violations(problem, schedule)
    if budget is not None and (problem.samples or 0.0) > budget * (1.0 + 1e-9):
        found += (f"{problem.samples:.8g} samples are used, of {budget:.8g}",)
    return Verification(problem, schedule, played, bound, gap, found, seconds, floor)
