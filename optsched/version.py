"""The version of the package, looked up when it is asked for."""

from importlib.metadata import PackageNotFoundError, version

__all__ = ["installed"]


def installed() -> str:
    """Version of the installed package; "0" for a source tree that is not installed."""
    try:
        return version("optsched")
    except PackageNotFoundError:
        return "0"
