"""Code that JAX has compiled, kept between processes; entries that are damaged are taken out."""

from __future__ import annotations

import glob
import os
import re
import sys
import warnings
from pathlib import Path
from typing import Any

__all__ = ["cache_folder", "heal_cache", "use_compilation_cache"]

UNREADABLE = r"Error reading persistent compilation cache entry for '(.+?)'"


def cache_folder() -> Path:
    """``optsched/jax`` in the user's folder for caches, ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "optsched" / "jax"


def use_compilation_cache() -> Path | None:
    """Keep compiled code between processes in `cache_folder`, and heal it: see `heal_cache`.

    JAX is not imported for it: its environment variables are set, or its configuration if it is
    loaded. Call it before the first solve; the command line does.

    Returns
    -------
    Path or None
        The folder; None where nothing is changed, as ``$JAX_COMPILATION_CACHE_DIR`` names another,
        ``$OPTSCHED_NO_CACHE`` is set, or the folder cannot be written.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.environ.get("OPTSCHED_NO_CACHE"):
        return None
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None  # a read-only home costs compile time, nothing else
    if not os.access(folder, os.W_OK):
        return None
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in settings.items():
        if "jax" in sys.modules:
            sys.modules["jax"].config.update(name, value)
        else:  # read if JAX is imported at all
            os.environ[name.upper()] = str(value)
    heal_cache()
    return folder


def heal_cache() -> None:
    """Take out the entries of `cache_folder` that JAX cannot read, from now on in this process.

    A process that is killed while it writes leaves half an entry. JAX then warns, compiles, and
    does not write over what is there: every later process pays again. Its warning, which names
    the function, is taken as the sign to delete the entries of that function before it is compiled.
    """
    show = warnings.showwarning
    if getattr(show, "heals", False):
        return

    def heal(message: Any, category: Any, *where: Any, **more: Any) -> None:
        found = re.match(UNREADABLE, str(message))
        if not (found and _removed(found[1])):
            show(message, category, *where, **more)

    heal.heals = True  # type: ignore[attr-defined]
    warnings.showwarning = heal
    # Each time, not once a place, and also where warnings are errors.
    warnings.filterwarnings("always", message=UNREADABLE)


def _removed(function: str) -> bool:
    """Whether there were entries of a function, which are gone now."""
    entries = list(cache_folder().glob(f"{glob.escape(function)}-*"))
    for entry in entries:
        entry.unlink(missing_ok=True)
    return bool(entries)
