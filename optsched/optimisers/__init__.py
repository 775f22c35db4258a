"""Optimisers: what may be scheduled, and the dynamics that follow from it."""
