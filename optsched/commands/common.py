"""What several commands do: build a problem, keep compiled code, save a figure, show progress."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optsched.commands.options import ABOVE_ONE
from optsched.errors import InvalidProblem

if TYPE_CHECKING:
    from optsched.studies.sweep import Progress

__all__ = ["make_problem", "save_figure", "sweep_progress", "use_compilation_cache"]


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


@contextmanager
def sweep_progress(what: str) -> Iterator[Callable[[Progress], None] | None]:
    """Bar for a sweep with an estimate of the time left: on stderr, if that is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task(what, total=None, failed="", left="")

        def report(now: Progress) -> None:
            failed = f"{now.failed} failed" if now.failed else ""
            left = "" if math.isnan(now.seconds_left) else f"{_duration(now.seconds_left)} left"
            bar.update(task, completed=now.done, total=now.total, failed=failed, left=left)

        yield report


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, with two units at most."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"
