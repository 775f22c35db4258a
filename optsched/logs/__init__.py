"""Logs of real runs: from files to the loss at some steps and the rate of every step."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
