"""Studies: many solves or replays, compared."""
