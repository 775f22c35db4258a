"""What ``optsched fit``, ``predict`` and ``plan`` share: how logs are read, and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optsched.commands.options import Choice, Number
from optsched.errors import BadFile, InvalidProblem

if TYPE_CHECKING:
    from optsched.pilot.prediction import Comparison

__all__ = [
    "comparison_rows",
    "keep_inputs",
    "level_option",
    "log_options",
    "reading",
    "show_comparison",
    "warn",
    "whole_steps",
]

LOG_OPTIONS = (
    click.option(
        "--warmup",
        type=Number("a whole number of steps >= 0"),
        help="Steps of a linear ramp from 0 before the first row; inferred if not given.",
    ),
    click.option(
        "--columns", help="Columns of the file, as step=NAME,lr=NAME,loss=NAME; found if not given."
    ),
    click.option(
        "--unit",
        type=Choice(("steps", "samples", "tokens", "epochs")),
        default="steps",
        show_default=True,
        help="What a step counts: steps, samples, tokens, epochs.",
    ),
    click.option(
        "--per-update",
        "per_step",
        type=Number("a number > 0"),
        help="Samples or tokens that one update covers.",
    ),
    click.option(
        "--loss",
        type=Choice(("loss", "train", "eval"), free=True),
        default="loss",
        show_default=True,
        help="loss, train, eval, or a column's name.",
    ),
)

level_option = click.option(
    "--level",
    type=Number("a number between 0 and 1"),
    default=0.8,
    show_default=True,
    help="Probability of the intervals.",
)


def log_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say how a log is read."""
    for option in reversed(LOG_OPTIONS):
        command = option(command)
    return command


def reading(options: dict[str, Any], *, loss: bool = True) -> dict[str, Any]:
    """Keywords of `read_runs` and `read_rates` from the options, which are taken out."""
    warmup, columns = options.pop("warmup"), options.pop("columns")
    given = {"unit": options.pop("unit"), "per_step": options.pop("per_step")}
    name = options.pop("loss")
    if loss:
        given["loss"] = name
    if warmup is not None:
        given["warmup"] = whole_steps("warmup", warmup)
    if columns is not None:
        pairs = [part.partition("=") for part in columns.split(",")]
        if any(not (key and middle and value) for key, middle, value in pairs):
            raise InvalidProblem("columns", columns, "step=NAME,lr=NAME,loss=NAME")
        given["columns"] = {key.strip(): value for key, _, value in pairs}
    return given


def whole_steps(field: str, value: float, low: int = 0) -> int:
    """An option that counts steps, as a whole number of ``low`` or more."""
    if not (math.isfinite(value) and value == int(value) and value >= low):
        raise InvalidProblem(field, value, f"a whole number of steps >= {low}")
    return int(value)


def keep_inputs(outputs: Iterable[str | None], inputs: Iterable[str | None]) -> None:
    """Refuse to write over what is read: --force is for results, a log cannot be made again."""
    read = {Path(path).resolve() for path in inputs if path is not None}
    for path in outputs:
        if path is not None and Path(path).resolve() in read:
            raise BadFile(f"{path}: is read by this command; give another file to write")


def warn(lines: Iterable[str]) -> None:
    """Warnings on stderr, one a line, each once."""
    for line in dict.fromkeys(lines):
        click.echo(f"warning: {line}", err=True)


def comparison_rows(found: Comparison) -> list[dict[str, Any]]:
    """Rows for JSON."""
    return [vars(row) for row in found.rows]


def show_comparison(title: str, found: Comparison, notes: Sequence[str] = ()) -> None:
    """Table of predicted final losses, the best first."""
    from optsched.commands.rules.common import show

    small = min((abs(row.loss) for row in found.rows if row.loss), default=1.0)
    digits = max(4, 4 - math.floor(math.log10(small)))  # a loss of 1e-6 keeps its digits
    share = f"{100 * found.level:.0f} %"
    rows = [
        (
            row.name,
            f"{row.peak:.4g}",
            f"{row.loss:.{digits}f}",
            f"{row.lower:.{digits}f} to {row.upper:.{digits}f}",
            "" if i == 0 else f"{row.difference:+.{digits}f} ± {row.error:.{digits}f}",
            "" if i == 0 else ("yes" if row.apart else "cannot tell apart"),
        )
        for i, row in enumerate(found.rows)
    ]
    columns = (
        "schedule",
        "peak",
        "final loss",
        f"{share} interval",
        "to the best ± s.e.",
        "different",
    )
    show({}, False, title=title, columns=columns, rows=rows, notes=notes)
