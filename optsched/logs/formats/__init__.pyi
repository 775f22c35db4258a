"""The names meant for others; a module is imported when a name of it is used."""

from .base import LogFormat as LogFormat
from .file import File as File
from .registry import FORMATS as FORMATS, read_tables as read_tables
from .table import Column as Column, Table as Table
