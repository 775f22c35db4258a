"""Logs of real runs: from files to the loss at some steps and the rate of every step."""

from optsched.logs.assemble import RateLog
from optsched.logs.formats import FORMATS, File, LogFormat, Table
from optsched.logs.read import read_rates, read_run, read_runs, read_schedule
from optsched.logs.run import Run
from optsched.logs.seeds import SeedGroup, average_seeds

__all__ = [
    "FORMATS",
    "File",
    "LogFormat",
    "RateLog",
    "Run",
    "SeedGroup",
    "Table",
    "average_seeds",
    "read_rates",
    "read_run",
    "read_runs",
    "read_schedule",
]
