"""``optsched export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optsched.commands.command import Command
from optsched.commands.common import kept_rows
from optsched.commands.options import Choice, Number
from optsched.commands.pilot_common import warn
from optsched.commands.rules.precision import lost_to_rounding, precision_options
from optsched.commands.show import print_lines
from optsched.errors import InvalidProblem

if TYPE_CHECKING:
    from optsched.schedules.exports.merging import MergeWeights

__all__ = ["export"]

MERGE = "merge-weights"


def _formats() -> tuple[str, ...]:
    from optsched.schedules.exports.snippets import FORMATS

    return (*FORMATS, "csv", MERGE)


@click.command(cls=Command)
@click.argument("file", type=click.Path())
@click.option(
    "--format",
    "form",
    type=Choice(_formats),
    help="torch-snippet, optax-snippet, keras-snippet, csv or merge-weights. Required.",
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
@click.option(
    "--every",
    type=Number("a whole number >= 1"),
    help="Of merge-weights: updates between checkpoints, back from the end.",
)
@click.option(
    "--checkpoints",
    help="Of merge-weights: how many in the cooldown, or their steps with commas.  [default: 20]",
)
@precision_options
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
def export(
    file: str,
    form: str | None,
    output: str | None,
    points: float | None,
    momentum: str | None,
    units: float | None,
    every: float | None,
    checkpoints: str | None,
    dtype: str | None,
    weight_rms: float | None,
    force: bool,
) -> None:
    """Write a schedule FILE as stand-alone code for a framework, as csv, or as merge weights.

    merge-weights: the weights of checkpoints of a run that holds its peak, which act as the decay
    of the file; as .csv, .json, or .py, code that merges.
    """
    from optsched.files import atomic_path, check_writable
    from optsched.schedules.exports import common as exports
    from optsched.schedules.exports.merging import MERGE_SUFFIXES, merge_weights
    from optsched.schedules.exports.snippets import csv_rows, snippet
    from optsched.schedules.schedule import Schedule

    if form is None:
        raise InvalidProblem("format", None, "one of " + ", ".join(_formats()))
    if form == "csv" and momentum is not None:
        raise InvalidProblem(
            "momentum", momentum, "none with csv, which has every control as it is"
        )
    kept = kept_rows(points)
    _check_merge(form, every, checkpoints, points, momentum)
    schedule = Schedule.load(file)
    warnings = lost_to_rounding(schedule, dtype, weight_rms)
    if output is not None:
        check_writable(output, force, suffixes=MERGE_SUFFIXES if form == MERGE else None)
    if units is not None:
        schedule = exports.per_update(schedule, units)  # type: ignore[arg-type]
    if form == MERGE:
        found = merge_weights(schedule, **_checkpoints(every, checkpoints))
        suffix = ".csv" if output is None else Path(output).suffix.lower()
        parts, told = iter([found.text(suffix)]), _told(found)
    elif form == "csv":
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
        warn(warnings)
        return
    with (
        atomic_path(output, overwrite=force) as temporary,
        temporary.open("w", newline="\n") as target,
    ):
        target.writelines(parts)
    print_lines(f"{output}: {form}, {told}")
    warn(warnings)


def _check_merge(form: str, every: Any, checkpoints: Any, points: Any, momentum: Any) -> None:
    """Refuse options of other formats."""
    if form != MERGE:
        for name, value in (("every", every), ("checkpoints", checkpoints)):
            if value is not None:
                raise InvalidProblem(name, value, f"nothing without --format {MERGE}")
        return
    if every is not None and checkpoints is not None:
        raise InvalidProblem("checkpoints", checkpoints, "nothing beside --every")
    for name, value in (("points", points), ("momentum", momentum)):
        if value is not None:
            raise InvalidProblem(name, value, f"nothing with {MERGE}, which has no rates")


def _checkpoints(every: float | None, text: str | None) -> dict[str, Any]:
    """Where the checkpoints are, as `merge_weights` takes it."""
    if text is None:
        return {} if every is None else {"every": every}
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        allowed = "a whole number, or steps with commas, such as 20 or 8000,9000,10000"
        raise InvalidProblem("checkpoints", text, allowed) from None
    return {"checkpoints": numbers[0] if len(numbers) == 1 else numbers}


def _told(found: MergeWeights) -> str:
    """What to train, and what few checkpoints cost."""
    return (
        f"{len(found.steps)} checkpoints of a run that holds {found.schedule.peak:.4g} from step"
        f" {found.begin:,} to {found.steps[-1]:,}; the rates that they act as are within"
        f" {found.error:.2g} of the peak of those of the file"
    )
