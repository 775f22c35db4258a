"""Measure a training run: curvature, gradient noise, a log of them, and warnings from the log.

Nothing is imported here, so that a training loop pays for what it uses alone.
"""
