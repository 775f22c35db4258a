"""Batch size: noise scale, scaling of the rate, gradient accumulation."""
