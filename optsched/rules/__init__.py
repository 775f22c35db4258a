"""Rules around a schedule: transfer, invariance, noise scale, stability, averaging, diffusion."""
