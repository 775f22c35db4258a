"""``optsched export``."""

from __future__ import annotations

import click

from optsched.commands.command import Command
from optsched.commands.common import kept_rows
from optsched.commands.options import Choice, Number
from optsched.errors import InvalidProblem

__all__ = ["export"]


def _formats() -> tuple[str, ...]:
    from optsched.schedules.exports.snippets import FORMATS

    return (*FORMATS, "csv")


@click.command(cls=Command)
@click.argument("file", type=click.Path())
@click.option(
    "--format",
    "form",
    type=Choice(_formats),
    help="torch-snippet, optax-snippet, keras-snippet or csv. Required.",
)
@click.option("--output", type=click.Path(), help="File to write; the code is printed without.")
@click.option(
    "--points",
    type=Number("a whole number >= 2"),
    help="Knots to keep in a snippet, rows in a csv.",
)
@click.option(
    "--momentum-as",
    "momentum",
    type=Choice(("ignore", "write", "heavy-ball")),
    help="What becomes of beta: ignore, write or heavy-ball.",
)
@click.option(
    "--per-update",
    "units",
    type=Number("a whole number >= 1"),
    help="Samples, tokens or steps that one update covers.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def export(
    file: str,
    form: str | None,
    output: str | None,
    points: float | None,
    momentum: str | None,
    units: float | None,
    force: bool,
) -> None:
    """Write a schedule FILE as stand-alone code for a framework, or as csv."""
    from optsched.files import atomic_path, check_writable
    from optsched.schedules.exports import common as exports
    from optsched.schedules.exports.snippets import csv_rows, snippet
    from optsched.schedules.schedule import Schedule

    if form is None:
        raise InvalidProblem("format", None, "one of " + ", ".join(_formats()))
    if form == "csv" and momentum is not None:
        raise InvalidProblem(
            "momentum", momentum, "none with csv, which has every control as it is"
        )
    kept = kept_rows(points)
    schedule = Schedule.load(file)
    if output is not None:
        check_writable(output, force)
    if units is not None:
        schedule = exports.per_update(schedule, units)  # type: ignore[arg-type]
    if form == "csv":
        parts = csv_rows(schedule, kept)
        told = f"{min(kept or schedule.horizon, schedule.horizon)} rows"
    else:
        code = snippet(schedule, form, points=kept, momentum=momentum)
        parts = iter([code.text])
        told = f"{code.knots} knots, " + (
            f"off by {code.error:.1e} of the peak at most" if code.error else "exact"
        )
    if output is None:
        for part in parts:
            click.echo(part, nl=False)
        return
    with (
        atomic_path(output, overwrite=force) as temporary,
        temporary.open("w", newline="\n") as target,
    ):
        target.writelines(parts)
    click.echo(f"{output}: {form}, {told}")
