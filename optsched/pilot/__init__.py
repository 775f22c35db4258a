"""From pilot runs to the next run: logs, laws fitted to them, predictions and plans."""

from optsched.pilot.logs import RateLog, read_rates, read_run, read_runs, read_schedule
from optsched.pilot.run import Run
from optsched.pilot.seeds import SeedGroup, average_seeds

__all__ = [
    "RateLog",
    "Run",
    "SeedGroup",
    "average_seeds",
    "read_rates",
    "read_run",
    "read_runs",
    "read_schedule",
]
