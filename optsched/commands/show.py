"""What commands print: one JSON object for programs, lines and tables for people.

Lines are as long as they are: a number is never cut or wrapped to fit a terminal.
"""

from __future__ import annotations

import json
import math
import unicodedata
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import click

from optsched.commands.command import is_quiet
from optsched.commands.page import current_page

__all__ = ["percent", "plain", "print_json", "print_lines", "print_table", "show", "tell"]

GAP = "  "


def print_json(numbers: Mapping[str, Any]) -> None:
    """Print one JSON object; arrays become lists, and what is not finite null."""
    click.echo(json.dumps(plain(numbers)))


def print_lines(*lines: str) -> None:
    """Print sentences, one a line."""
    page = current_page()
    if page is not None:
        page.add_lines(lines)
    if not (is_quiet() or (page is not None and page.silent)):
        for line in lines:
            click.echo(line)


def print_table(
    titles: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    words: int = 1,
    bold: Collection[int] = (),
) -> None:
    """Print a table without lines.

    Parameters
    ----------
    titles : sequence of str
        Headings; no row of headings if all are empty.
    rows : iterable of sequences
        Cells: text as it is, numbers with four digits, None as ``-``; those left out are empty.
    words : int
        Number of columns, the first ones, that hold words; the others are flush right.
    bold : collection of int
        Rows that stand out, on a terminal.
    """
    count = len(titles)
    table = [[*map(_cell, row)] + [""] * (count - len(row)) for row in rows]
    page = current_page()
    if page is not None:
        page.add_table(titles, table, words, bold)
        if page.silent:
            return
    if is_quiet():
        return
    head = [[*titles]] if any(titles) else []
    widths = [max(map(_width, column)) for column in zip(*head, *table, strict=True)]
    heavy = {*range(len(head)), *(len(head) + row for row in bold)}
    for i, row in enumerate([*head, *table]):
        cells = [
            cell + " " * (width - _width(cell))
            if j < words
            else " " * (width - _width(cell)) + cell
            for j, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = GAP.join(cells).rstrip()
        click.echo(click.style(line, bold=True) if i in heavy else line)


def tell(as_json: bool, numbers: Mapping[str, Any], report: Callable[[], None]) -> None:
    """Print a result: one JSON object, or a report for people; a page has both.

    Parameters
    ----------
    as_json : bool
    numbers : mapping
        The object.
    report : callable
        Prints the report.
    """
    page = current_page()
    if page is not None:
        page.numbers = plain(numbers)
    if as_json:
        print_json(numbers)
    if page is not None:
        with page.quiet(as_json):
            report()
    elif not as_json:
        report()


def show(
    numbers: Mapping[str, Any],
    as_json: bool,
    *,
    title: str = "",
    columns: Sequence[str] = (),
    rows: Iterable[Sequence[Any]] = (),
    notes: Iterable[str] = (),
) -> None:
    """Print a result: one JSON object, or a short table for a person.

    Parameters
    ----------
    numbers : mapping
        The result. Without ``columns`` each number, text or null of it is a row of the table.
    as_json : bool
    title : str
        Line above the table.
    columns, rows : sequence, iterable of sequences
        Headings and cells of a table of another form.
    notes : iterable of str
        Lines below the table.
    """
    if as_json:
        print_json(numbers)
        return
    if title:
        print_lines(title)
    if not columns:
        columns = ("", "")
        simple = (int, float, str, type(None))
        rows = [(k.replace("_", " "), v) for k, v in numbers.items() if isinstance(v, simple)]
    print_table(columns, rows)
    print_lines(*notes)


def percent(share: float) -> str:
    """A relative change, with its sign."""
    # Rounded, as 1e-16 is rounding; plus 0, as -0 is 0.
    return f"{round(100.0 * share, 9) + 0.0:+.3g} %"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        # Names come from files: no line breaks, and nothing that a terminal would obey.
        return "".join(c if c.isprintable() else " " for c in value)
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _width(text: str) -> int:
    """Columns that a text takes on a terminal."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def plain(value: Any) -> Any:
    """JSON-able, at any depth."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "tolist"):  # an array or a scalar of NumPy
        return plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value
