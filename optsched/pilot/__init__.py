"""From pilot runs to the next run: laws fitted to them, predictions and plans."""

from __future__ import annotations

import lazy_loader

_own, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> object:
    if name not in __all__:
        # Readers of logs were here before they had a room.
        from optsched import logs

        if name in dir(logs):
            return getattr(logs, name)
    return _own(name)
