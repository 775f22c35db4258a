"""The names meant for others; a module is imported when a name of it is used."""

from .assemble import RateLog as RateLog
from .formats.base import LogFormat as LogFormat
from .formats.file import File as File
from .formats.registry import FORMATS as FORMATS
from .formats.table import Column as Column, Table as Table
from .read import (
    read_rates as read_rates,
    read_run as read_run,
    read_runs as read_runs,
    read_schedule as read_schedule,
)
from .run import Run as Run
from .seeds import SeedGroup as SeedGroup, average_seeds as average_seeds
