"""Measured exponents: from features, a kernel, a spectrum or a model to (a, b) and a problem."""
