"""Schedules: what a solve returns, what people use today, and their files."""

from optsched.schedules.schedule import Schedule

__all__ = ["Schedule"]
