"""AdamW: equilibrium of the norm, trajectory invariance, sweeps over rate and decay."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
