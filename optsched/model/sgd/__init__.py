"""Plain SGD: the map of a block of steps, in NumPy or JAX, and what follows from it in NumPy."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
