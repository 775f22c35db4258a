"""Measure a training run: curvature, gradient noise, a log of them, and warnings from the log.

Names are imported when they are used, so that a training loop pays for what it uses alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
