"""Schedules: what a solve returns, what people use today, and their files."""

from optsched.schedules.files import atomic_path, check_writable, load, save
from optsched.schedules.schedule import Schedule

__all__ = ["Schedule", "atomic_path", "check_writable", "load", "save"]
