"""Formats of logs: each an object that recognises a file and reads it into tables of columns."""

from optsched.logs.formats.base import LogFormat
from optsched.logs.formats.file import File
from optsched.logs.formats.registry import FORMATS, read_tables
from optsched.logs.formats.table import Column, Table

__all__ = ["FORMATS", "Column", "File", "LogFormat", "Table", "read_tables"]
