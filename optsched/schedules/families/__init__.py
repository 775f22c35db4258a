"""Schedules that people use, as `Schedule` objects, and families of them for tuning.

Functions of a horizon and a peak (`cosine`, `wsd`, `one_cycle`, ...), others that change a schedule
(`with_warmup`, `refined`, `rewind`), and `FAMILIES`, what studies tune: see `Family` for one's own.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
