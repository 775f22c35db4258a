"""Pilots, fit, plan and long runs of a small real model; see docs/real-training.md."""
