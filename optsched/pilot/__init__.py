"""From pilot runs to the next run: logs, laws fitted to them, predictions and plans."""

from optsched.pilot.logs import Run, read_run, read_runs, read_schedule

__all__ = ["Run", "read_run", "read_runs", "read_schedule"]
