"""During a run: measured beside predicted, alarms, forecasts of its end, and callbacks."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
