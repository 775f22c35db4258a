"""optsched: the learning-rate schedule for a training horizon, solved and certified.

The public names are those of ``__init__.pyi`` beside this file. Each is imported when it is first
used, so that ``import optsched`` is quick.
"""

from __future__ import annotations


def __getattr__(name: str) -> object:
    if name == "__version__":
        from optsched.version import installed

        return installed()
    if name.startswith("__") and name != "__all__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Also this only now: a command that is interrupted as it starts should know what to say.
    import lazy_loader

    load, _, names = lazy_loader.attach_stub(__name__, __file__)
    globals()["__all__"] = names
    if name == "__all__":
        return names
    if name not in names:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = load(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    from optsched import __all__

    return [*__all__, "__version__"]
