"""The learning rate of plain SGD alone: its search, with a global bound."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
