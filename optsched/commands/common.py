"""What several commands do: build a problem, save a figure, show progress."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from optsched.commands.command import is_quiet
from optsched.commands.options import ABOVE_ONE
from optsched.commands.page import current_page
from optsched.errors import BadFile, InvalidProblem

if TYPE_CHECKING:
    from optsched.studies.sweep.run import Progress

__all__ = [
    "check_rows",
    "draw",
    "kept_rows",
    "make_problem",
    "progress_bar",
    "save_figure",
    "sweep_progress",
]


def make_problem(options: dict[str, Any]) -> Any:
    """The problem that the options describe."""
    from dataclasses import fields

    from optsched.control.problem import UNSAID, Problem
    from optsched.optimisers.registry import MOMENTA, find_optimiser

    whole = "a whole number of steps, 1 to 10^15"
    for field, allowed in (("a", ABOVE_ONE), ("b", ABOVE_ONE), ("horizon", whole)):
        if options[field] is None:
            raise InvalidProblem(field, None, allowed)
    given = {f.name: options[f.name] for f in fields(Problem) if f.name in options}
    if given.get("momentum") in (None, *MOMENTA):
        return Problem(**given)
    name = given.pop("momentum")
    numbers = {n: v for n in UNSAID if n != "momentum" and (v := given.pop(n, None))}
    kind = find_optimiser(name)
    for number, value in numbers.items():
        if number not in {f.name for f in fields(kind)}:
            raise InvalidProblem(number, value, f"nothing with {name}")
    return Problem(**given, optimiser=kind(**numbers))


def save_figure(figure: Any, path: str, force: bool) -> None:
    """Write a figure as a whole or not at all."""
    from optsched.files import atomic_path

    with atomic_path(path, overwrite=force) as temporary:
        figure.savefig(temporary, dpi=200)


def draw(figure: Callable[[], Any], path: str | None, force: bool) -> None:
    """Make a figure if it is to be written to a file, or stands on the page of the command."""
    page = current_page()
    draws = page is not None and page.draws
    if path is None and not draws:
        return
    made = figure()
    if path is not None:
        save_figure(made, path, force)
    if page is not None and draws:
        page.figures.append(made)


@contextmanager
def progress_bar(
    what: str = "", total: int | None = None, columns: Sequence[Any] = (), **fields: Any
) -> Iterator[Callable[..., None]]:
    """A bar on the standard error, if that is a terminal; gives what updates it.

    Parameters
    ----------
    what : str
        Description of the bar.
    total : int, optional
        Number of parts.
    columns : sequence, optional
        Columns of rich, its usual ones if not given.
    **fields : str
        First values of the fields that the columns show.
    """
    from rich.console import Console
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = columns or Bar.get_default_columns()
    hidden = is_quiet() or not console.is_terminal
    with Bar(*columns, console=console, transient=True, disable=hidden) as bar:
        yield partial(bar.update, bar.add_task(what, total=total, **fields))


@contextmanager
def sweep_progress(what: str) -> Iterator[Callable[[Progress], None]]:
    """Bar for a sweep with an estimate of the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn(what),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[failed]}"),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with progress_bar(what, columns=columns, failed="", left="") as update:

        def report(now: Progress) -> None:
            failed = f"{now.failed} failed" if now.failed else ""
            left = "" if math.isnan(now.seconds_left) else f"{_duration(now.seconds_left)} left"
            update(completed=now.done, total=now.total, failed=failed, left=left)

        yield report


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, with two units at most."""
    whole = round(seconds)
    if whole >= 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 60} min {whole % 60} s" if whole >= 60 else f"{whole} s"


def kept_rows(points: float | None) -> int | None:
    """The value of ``--points``."""
    if points is None:
        return None
    if not (points >= 2 and float(points).is_integer()):
        raise InvalidProblem("points", points, "a whole number >= 2")
    return int(points)


def check_rows(output: str | None, points: int | None, horizon: int) -> None:
    """Refuse a table that would not fit before the solve, not after it."""
    from optsched.schedules.files import MAX_ROWS

    table = output is not None and not output.endswith(".json")
    if table and points is None and horizon > MAX_ROWS:
        raise BadFile(
            f"{output}: a row for each of {horizon} steps is too much; give --points N to keep N"
            " rows, or write .json"
        )
