"""``optsched reproduce``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from optsched.cache import use_compilation_cache
from optsched.commands.command import Command, is_quiet
from optsched.commands.common import save_figure
from optsched.commands.options import Choice
from optsched.commands.show import print_json, print_lines, print_table
from optsched.errors import BadFile, InvalidProblem

__all__ = ["reproduce"]

NAMES = ("fig1b", "fig2", "fig3", "fig4", "fig5", "all")


@click.command(cls=Command)
@click.argument("figure", type=Choice(NAMES))
@click.option("--output", type=click.Path(), help="Folder for the figures and tables. Required.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def reproduce(figure: str, output: str | None, as_json: bool, force: bool) -> None:
    """Recompute a FIGURE of the paper: fig1b, fig2, fig3, fig4, fig5 or all."""
    if output is None:
        raise InvalidProblem("output", None, "a folder")
    names, folder = [*NAMES[:-1]] if figure == "all" else [figure], Path(output)
    _check_folder(folder, names, force)
    use_compilation_cache()
    from optsched.studies.figures import reproduce as run

    told = {}
    for name in names:
        with _status(name) as progress:
            paper = run(name, progress=progress)
        told[name] = _write(paper, folder, force)
        if not as_json:
            _report(paper, told[name]["files"])
    if as_json:
        print_json(told)


def _check_folder(folder: Path, names: list[str], force: bool) -> None:
    """Refuse before minutes of work what could not be written after it."""
    if folder.exists() and not folder.is_dir():
        raise BadFile(f"{folder}: is a file; give a folder")
    there = [f"{n}{end}" for n in names for end in (".png", ".csv", "-exponents.csv")]
    for file in there:
        if (folder / file).exists() and not force:
            raise BadFile(f"{folder / file}: exists already; give --force to overwrite it")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadFile(f"{folder}: cannot be made: {error.strerror}") from error


@contextmanager
def _status(name: str) -> Iterator[Any]:
    """A line on stderr about what is computed, if that is a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if is_quiet() or not console.is_terminal:
        yield None
        return
    with console.status(name) as status:
        yield lambda text: status.update(f"{name}: {text}")


def _write(paper: Any, folder: Path, force: bool) -> dict[str, Any]:
    from optsched.plots.figures import plot_paper_figure
    from optsched.studies.tables import write_table

    tables = paper.tables()
    for file, rows in tables.items():
        write_table(folder / file, rows, overwrite=force)
    picture = folder / f"{paper.name}.png"
    save_figure(plot_paper_figure(paper), str(picture), force)
    files = [str(picture), *(str(folder / file) for file in tables)]
    return {"caption": paper.caption, "exponents": paper.exponent_rows(), "files": files}


def _report(paper: Any, files: list[str]) -> None:
    print_lines(f"{paper.name}: {paper.caption}")
    titles = "exponent of", "phase", "points", "paper", "theory", "ours", "std. error"
    rows = []
    for row in paper.exponent_rows():
        numbers = (row[name] for name in ("paper", "theory", "ours", "stderr"))
        shown = ("" if x is None else f"{x:.4f}" for x in numbers)
        rows.append((row["quantity"], row["phase"], row["points"], *shown))
    if rows:
        print_table(titles, rows, words=3)
    print_lines(f"files: {', '.join(files)}")
