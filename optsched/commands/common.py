"""What several commands do: build a problem, keep compiled code, save a figure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from optsched.commands.options import ABOVE_ONE
from optsched.errors import InvalidProblem

__all__ = ["make_problem", "save_figure", "use_compilation_cache"]


def make_problem(options: dict[str, Any]) -> Any:
    """The problem that the options describe."""
    from dataclasses import fields

    from optsched.control.problem import Problem

    whole = "a whole number of steps, 1 to 10^15"
    for field, allowed in (("a", ABOVE_ONE), ("b", ABOVE_ONE), ("horizon", whole)):
        if options[field] is None:
            raise InvalidProblem(field, None, f"{allowed}; give --{field}")
    return Problem(**{f.name: options[f.name] for f in fields(Problem) if f.name in options})


def use_compilation_cache() -> None:
    """Keep compiled code between runs, in the user's cache folder, unless the user set one."""
    import jax

    if os.environ.get("JAX_COMPILATION_CACHE_DIR") or os.environ.get("OPTSCHED_NO_CACHE"):
        return
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base) / "optsched" / "jax"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a read-only home costs compile time, nothing else
    if not os.access(folder, os.W_OK):
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def save_figure(figure: Any, path: str, force: bool) -> None:
    """Write a figure as a whole or not at all."""
    from optsched.schedules.files import atomic_path

    with atomic_path(path, overwrite=force) as temporary:
        figure.savefig(temporary, dpi=200)
