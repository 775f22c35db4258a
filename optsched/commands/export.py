"""``optsched export``."""

from __future__ import annotations

import click

from optsched.errors import InvalidProblem

__all__ = ["export"]


@click.command()
@click.argument("file", type=click.Path())
@click.option(
    "--format", "form", help="torch-snippet, optax-snippet, keras-snippet or csv. Required."
)
@click.option("--output", type=click.Path(), help="File to write; the code is printed without.")
@click.option("--points", type=int, help="Knots to keep in a snippet, rows in a csv.")
@click.option("--momentum", help="What becomes of beta: ignore, write or heavy-ball.")
@click.option("--per-update", type=int, help="Samples, tokens or steps that one update covers.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def export(
    file: str,
    form: str | None,
    output: str | None,
    points: int | None,
    momentum: str | None,
    per_update: int | None,
    force: bool,
) -> None:
    """Write a schedule FILE as stand-alone code for a framework, or as csv."""
    from optsched.files import atomic_path, check_writable
    from optsched.schedules.exports import common as exports
    from optsched.schedules.exports.snippets import FORMATS, csv_rows, snippet
    from optsched.schedules.schedule import Schedule

    if form not in (*FORMATS, "csv"):
        raise InvalidProblem("format", form, "one of " + ", ".join((*FORMATS, "csv")))
    if form == "csv" and momentum is not None:
        raise InvalidProblem(
            "momentum", momentum, "none with csv, which has every control as it is"
        )
    schedule = Schedule.load(file)
    if output is not None:
        check_writable(output, force)
    if per_update is not None:
        schedule = exports.per_update(schedule, per_update)
    if form == "csv":
        parts = csv_rows(schedule, points)
        told = f"{min(points or schedule.horizon, schedule.horizon)} rows"
    else:
        code = snippet(schedule, form, points=points, momentum=momentum)
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
