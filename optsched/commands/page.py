"""What a command says, kept as it says it: sentences, tables, figures and numbers of one page."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import click

__all__ = [
    "REPORT",
    "Page",
    "Sentences",
    "Table",
    "current_page",
    "keep",
    "recorded",
    "report_option",
    "run_silently",
    "start_page",
]

KEY, REPORT = "optsched.page", "optsched.report"
report_option = click.option(
    "--report",
    type=click.Path(),
    expose_value=False,  # `Command` writes it
    callback=lambda context, _, path: context.meta.update({REPORT: path}),
    help="All of it on one page to send: .html.",
)


@dataclass(frozen=True)
class Sentences:
    """Lines that were printed after each other."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class Table:
    """A table that was printed.

    Attributes
    ----------
    titles : tuple of str
        Headings; all empty for none.
    rows : tuple of tuple of str
    words : int
        Number of columns, the first ones, that hold words.
    bold : frozenset of int
        Rows that stand out.
    """

    titles: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    words: int
    bold: frozenset[int]


@dataclass
class Page:
    """What one command has said.

    Attributes
    ----------
    blocks : list of Sentences or Table
        In the order in which they were printed.
    warnings : list of str
    figures : list
        Of Matplotlib, not attached to pyplot.
    numbers : dict
        The object that ``--json`` prints.
    results : dict
        Results of the library behind all of it.
    silent : bool
        Whether what is kept is not printed.
    draws : bool
        Whether figures are kept.
    """

    blocks: list[Sentences | Table] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    figures: list[Any] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    silent: bool = False
    draws: bool = False

    def add_lines(self, lines: Sequence[str]) -> None:
        """Keep sentences; those that follow others are one block with them."""
        said = tuple(part.strip() for line in lines for part in line.splitlines() if part.strip())
        if self.blocks and isinstance(self.blocks[-1], Sentences):
            self.blocks[-1] = Sentences((*self.blocks[-1].lines, *said))
        elif said:
            self.blocks.append(Sentences(said))

    def add_table(
        self,
        titles: Sequence[str],
        rows: Sequence[Sequence[str]],
        words: int,
        bold: Collection[int],
    ) -> None:
        """Keep a table of cells in words."""
        cells = tuple(tuple(row) for row in rows)
        self.blocks.append(Table(tuple(titles), cells, words, frozenset(bold)))

    @contextmanager
    def quiet(self, silent: bool) -> Iterator[None]:
        """Context in which nothing is printed, if so asked."""
        before, self.silent = self.silent, silent or self.silent
        try:
            yield
        finally:
            self.silent = before


def current_page() -> Page | None:
    """The page of the command that runs, if it keeps one."""
    context = click.get_current_context(silent=True)
    return None if context is None else context.meta.get(KEY)


def start_page(context: click.Context) -> Page:
    """The page of a command, from now on kept."""
    return context.meta.setdefault(KEY, Page())


def keep(**results: Any) -> None:
    """Leave results of the library on the page of the command that runs, if it keeps one."""
    page = current_page()
    if page is not None:
        page.results.update(results)


def run_silently(command: click.Command, arguments: Sequence[str]) -> Page:
    """Run a command that prints nothing; what it would have said is on its page.

    Raises
    ------
    click.ClickException
        As the command does.
    """
    page = Page(silent=True)
    with command.make_context(f"optsched {command.name}", [*arguments]) as context:
        context.meta[KEY] = page
        command.invoke(context)
    return page


@contextmanager
def recorded(command: click.Command, typed: Mapping[str, Any] | None = None) -> Iterator[Page]:
    """Context whose page keeps what is said in the words of a command, and prints nothing.

    Parameters
    ----------
    command : click.Command
        Whose options name the fields of the library.
    typed : mapping, optional
        Values of its options.
    """
    with click.Context(command) as context:
        context.params.update(typed or {})
        page = context.meta[KEY] = Page(silent=True)
        yield page
