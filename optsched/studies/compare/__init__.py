"""Families of schedules, tuned, beside the optimum."""
