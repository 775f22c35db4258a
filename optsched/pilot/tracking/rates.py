"""The rates of a run beside those that were planned."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from optsched.logs.rates import ASSUMED, cut, ramp
from optsched.logs.run import Run
from optsched.schedules.schedule import Schedule

__all__ = ["OffPlan", "begun", "off_plan", "spliced"]

SLACK, OF_PEAK = 0.02, 1e-3  # relative, and of the peak: rounding, and what no law can see
MOST = 0.9  # of the rows since then
ROWS = 2  # in a row that are off: one may be of a restart


@dataclass(frozen=True)
class OffPlan:
    """Where the rates of a log leave the plan: the first row, and both rates there."""

    since: int
    logged: float
    planned: float

    @property
    def text(self) -> str:
        """In a sentence."""
        return (
            f"the rate is not the planned one from step {self.since:,} on: {self.logged:.6g} in the"
            f" log, {self.planned:.6g} in the schedule"
        )


def spliced(past: Schedule, step: int, plan: Schedule | None) -> Schedule:
    """The rates so far, up to a step, then those of a plan; without one the run ends there."""
    step = max(step, 1)
    if plan is None or plan.horizon <= step:
        return cut(past, step)
    before = np.unique(np.append(past.steps[past.steps < step], step - 1))
    after = np.unique(np.append(plan.steps[plan.steps >= step], step))
    eta = np.concatenate([past(before), plan(after)])
    return Schedule.from_knots(np.append(before, after), eta=eta, horizon=plan.horizon)


def begun(run: Run, plan: Schedule) -> Run:
    """The run with the rates of a plan before its first row, where its log shows no warm-up."""
    first = min(int(run.steps[0]), plan.horizon)
    if run.warmup or first < 1:
        return run
    ramp_end = ramp(plan.steps, plan.controls["eta"])
    warmup = 0 if ramp_end is None else int(plan.steps[ramp_end])
    return replace(
        run,
        schedule=spliced(plan, first, run.schedule),
        warmup=min(warmup, first),
        warnings=tuple(line for line in run.warnings if ASSUMED not in line),
    )


def off_plan(run: Run, plan: Schedule) -> OffPlan | None:
    """Where the rates of the rows of a run leave those of a plan, if they do to the last row.

    A row may be of any update between its neighbours, as loggers differ by some.
    """
    steps = run.steps[run.steps < plan.horizon]
    if len(steps) < ROWS:
        return None
    mine = np.asarray(run.schedule(steps))
    knots = np.unique(np.concatenate([steps, plan.steps[plan.steps <= steps[-1]]]))
    rates = np.asarray(plan(knots))
    at = np.searchsorted(knots, steps)
    low, high = np.empty(len(steps)), np.empty(len(steps))
    for i in range(len(steps)):
        near = rates[at[max(i - 1, 0)] : at[min(i + 1, len(steps) - 1)] + 1]
        low[i], high[i] = near.min(), near.max()
    slack = SLACK * mine + OF_PEAK * plan.peak
    wrong = (mine < low - slack) | (mine > high + slack)
    if not wrong[-ROWS:].all():
        return None
    # Rates that are off may cross the planned ones.
    spells = wrong & np.append(wrong[1:], True)
    share = np.cumsum(wrong[::-1])[::-1] / np.arange(len(wrong), 0, -1)
    since = int(np.flatnonzero(spells & (share >= MOST))[0])
    step = int(steps[since])
    return OffPlan(step, float(mine[since]), float(plan(step)))
