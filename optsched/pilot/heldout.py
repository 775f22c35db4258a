"""Judge laws by runs that they have not seen.

A better fit of the training curves is not a better prediction: each run is left out in turn, the
law is fitted to the others, and judged where the schedule of that run has left all of theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Brief
from optsched.errors import InvalidProblem
from optsched.logs.run import Run
from optsched.logs.seeds import same_schedule
from optsched.pilot.fitting import early_rows, fit
from optsched.pilot.laws import Law
from optsched.pilot.pieces import cut
from optsched.schedules.schedule import Schedule

__all__ = ["HeldOut", "departure", "held_out"]

APART = 1e-3  # of the peak: rates that differ


@dataclass(frozen=True, eq=False, repr=False)
class HeldOut(Brief):
    """Errors of a law on runs that were left out in turn.

    Attributes
    ----------
    law : str
    runs : tuple of str
        Those with rows after they leave the others.
    errors : tuple of float
        Mean absolute error of each run there, in nats.
    final_errors : tuple of float
        Predicted minus measured last loss.
    """

    law: str
    runs: tuple[str, ...]
    errors: tuple[float, ...]
    final_errors: tuple[float, ...]

    @property
    def error(self) -> float:
        """Mean over the runs."""
        return float(np.mean(self.errors)) if self.errors else float("nan")


def departure(schedule: Schedule, others: Sequence[Schedule]) -> int:
    """First step at which a schedule differs from each of the others, or where they have ended."""
    return max((_first_difference(schedule, other) for other in others), default=0)


def _first_difference(one: Schedule, other: Schedule) -> int:
    end = min(one.horizon, other.horizon)
    even = np.linspace(0, end - 1, 2000).round().astype(np.int64)
    at = np.unique(np.concatenate([even, one.steps, other.steps]))
    at = at[at < end]
    apart: NDArray[np.bool_] = np.abs(one(at) - other(at)) > APART * max(one.peak, other.peak)
    if not apart.any():
        return end
    return int(at[int(np.argmax(apart))])


def held_out(runs: Sequence[Run], laws: Mapping[str, Law]) -> list[HeldOut]:
    """Leave every run out in turn, with its seeds.

    Parameters
    ----------
    runs : sequence of Run
        At least two with different schedules.
    laws : mapping of str to Law

    Returns
    -------
    list of HeldOut
        The best first.

    Raises
    ------
    InvalidProblem
        Fewer than two schedules.
    """
    # Before the first update no law says anything.
    runs = [
        replace(run, steps=run.steps[run.steps > 0], loss=run.loss[run.steps > 0]) for run in runs
    ]
    splits = []
    for run in runs:
        others = [one for one in runs if not same_schedule(one.schedule, run.schedule)]
        if others:
            after = run.steps >= departure(run.schedule, [one.schedule for one in others])
            if after.any():
                splits.append((run, others, after))
    if not splits:
        raise InvalidProblem("runs", len(runs), "two or more runs with different schedules")
    found = []
    for name, law in laws.items():
        errors, finals = [], []
        # Where the fit to all runs ends, a fit to fewer of them starts, with what it chose.
        whole = fit(runs, law, members=0)
        chosen = law.as_fitted(whole.law)
        for run, others, after in splits:
            part = fit(others, chosen, members=0, start=whole.theta)
            # What is left out of fits is not asked of them; the last loss always is.
            late = run.steps >= min(early_rows(others), int(run.steps[-1]))
            off = part.law.curve(part.theta, cut(run.schedule, run.steps[late], part.scale))
            off -= run.loss[late]
            errors.append(float(np.abs(off[after[late]]).mean()))
            finals.append(float(off[-1]))
        names = tuple(run.name for run, _, _ in splits)
        found.append(HeldOut(name, names, tuple(errors), tuple(finals)))
    return sorted(found, key=lambda one: one.error)
