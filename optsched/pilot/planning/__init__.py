"""The next run: the schedule with the least predicted loss, and its rivals."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
