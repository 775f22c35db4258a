"""The next run: the schedule with the least predicted loss, and its rivals."""
