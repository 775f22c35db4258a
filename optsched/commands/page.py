"""What a command says, kept as it says it: sentences, tables, figures and numbers of one page."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import click

__all__ = ["Page", "Sentences", "Table", "current_page", "recorded"]

KEY = "optsched.page"


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
    silent : bool
        Whether what is kept is not printed.
    """

    blocks: list[Sentences | Table] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    figures: list[Any] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)
    silent: bool = False

    def add_lines(self, lines: Sequence[str]) -> None:
        """Keep sentences; those that follow others are one block with them."""
        said = tuple(line for line in lines if line)
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
