"""Measured exponents: from features, a kernel, a spectrum or a model to (a, b) and a problem."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
