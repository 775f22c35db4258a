"""Schedules that people use."""
