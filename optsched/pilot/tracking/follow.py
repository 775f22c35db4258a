"""Follow a log that grows: look again, and keep the rows that a rotated log no longer has."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from optsched.logs.growing import read_growing
from optsched.logs.options import PathLike
from optsched.logs.run import Run
from optsched.pilot.fitting import Fit
from optsched.pilot.tracking.rates import spliced
from optsched.pilot.tracking.track import Track, track
from optsched.schedules.schedule import Schedule

__all__ = ["Follower", "continued"]


class Follower:
    """Looks at the log of a run that is going on.

    Parameters
    ----------
    found : Fit
    path : path-like
    schedule : Schedule, optional
    level, false_alarm, weight_decay
        As for `optsched.pilot.tracking.track.track`.
    **reading
        As for `optsched.logs.read.read_run`.
    """

    def __init__(
        self,
        found: Fit,
        path: PathLike,
        schedule: Schedule | None = None,
        *,
        level: float = 0.8,
        false_alarm: float = 0.02,
        weight_decay: float | None = None,
        **reading: Any,
    ) -> None:
        self.found, self.path, self.schedule = found, path, schedule
        self.settings = {
            "level": level, "false_alarm": false_alarm, "weight_decay": weight_decay,
        }  # fmt: skip
        self.reading = reading
        self.seen: Run | None = None
        self.stopped: int | None = None

    def look(self) -> Track | None:
        """The state of the run; None if there is nothing new.

        Raises
        ------
        BadLog
            The log is not there yet, has too few rows, or cannot be read.
        """
        log = read_growing(self.path, **self.reading)
        run = log.run if self.seen is None else continued(self.seen, log.run)
        old = self.seen
        if old is not None and log.stopped == self.stopped and len(old.steps) == len(run.steps):
            return None
        self.seen, self.stopped = run, log.stopped
        one = track(self.found, run, self.schedule, stopped=log.stopped, **self.settings)
        return replace(one, notes=(*log.notes, *one.notes))


def continued(seen: Run, run: Run) -> Run:
    """A run that was read again, with the rows from before that its log no longer has.

    A log that was rotated begins where the rows that were seen end, or later.
    """
    first = int(run.steps[0])
    lost = seen.steps < first
    if first <= int(seen.steps[0]) or not lost.any():
        return run
    note = f"Rows before step {first:,} are no longer in the log, and are those seen before."
    return replace(
        run,
        steps=np.append(seen.steps[lost], run.steps),
        loss=np.append(seen.loss[lost], run.loss),
        schedule=spliced(seen.schedule, first, run.schedule),
        warmup=seen.warmup,
        notes=(*run.notes, note),
        warnings=seen.warnings,
    )
