"""optsched: the learning-rate schedule for a training horizon, solved and certified.

The public names are those of ``__init__.pyi`` beside this file. Each is imported when it is first
used, so that ``import optsched`` is quick.
"""

from __future__ import annotations

from typing import Any

import lazy_loader

_load, _, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name in __all__:
        return _load(name)
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from optsched.version import installed

    return installed()


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
