"""Lower bounds that hold for every schedule, and the relaxed problem they come from."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
