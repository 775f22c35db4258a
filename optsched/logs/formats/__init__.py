"""Formats of logs: each an object that recognises a file and reads it into tables of columns."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
