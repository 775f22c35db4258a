"""What the sub-commands of ``optsched rules`` share: one way to take options and to print."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import click

from optsched.errors import InvalidProblem

__all__ = ["json_option", "required", "show"]

WIDTH = 200  # cells are not cut where the output is no terminal

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def required(**options: Any) -> None:
    """Raise for the first option that is not given."""
    for field, value in options.items():
        if value is None:
            raise InvalidProblem(field, None, "a value")


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
        The result; arrays become lists, and what is not finite null. Without ``columns`` each
        number, text or null of it is a row of the table.
    as_json : bool
    title : str
        Line above the table.
    columns, rows : sequence, iterable of sequences
        Headings and cells of a table of another form; numbers are shown with four digits.
    notes : iterable of str
        Lines below the table.
    """
    if as_json:
        click.echo(json.dumps(_plain(numbers)))
        return
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, soft_wrap=True, markup=False, width=WIDTH)
    if title:
        console.print(title)
    table = Table(box=None, pad_edge=False, header_style="bold", show_header=bool(columns))
    if not columns:
        columns = ("", "")
        simple = (int, float, str, type(None))
        rows = [(k.replace("_", " "), v) for k, v in numbers.items() if isinstance(v, simple)]
    for i, heading in enumerate(columns):
        table.add_column(heading, justify="right" if i else "left")
    for row in rows:
        table.add_row(*map(_cell, row))
    console.print(table)
    for line in notes:
        console.print(line)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _plain(value: Any) -> Any:
    """JSON-able, at any depth."""
    import numpy as np

    from optsched.exponents import json_ready

    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return json_ready(value.item() if isinstance(value, np.generic) else value)
