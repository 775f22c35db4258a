"""Rules around a schedule: transfer, invariance, noise scale, stability, averaging, diffusion."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
