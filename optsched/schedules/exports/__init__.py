"""Schedules in training frameworks, and as code without optsched."""
