"""What ``optsched fit``, ``predict`` and ``plan`` share: how logs are read, and tables."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import click

from optsched.commands.command import spoken
from optsched.commands.options import Choice, Number
from optsched.commands.page import current_page
from optsched.commands.show import print_lines, print_table
from optsched.errors import InvalidProblem

if TYPE_CHECKING:
    from optsched.pilot.prediction import Ranking

__all__ = [
    "comparison_rows",
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
        "--steps-per-epoch",
        type=Number("a number > 0"),
        help="Updates of an epoch, for logs whose rows count epochs.",
    ),
    click.option(
        "--loss",
        type=Choice(("loss", "train", "eval"), free=True),
        default="loss",
        show_default=True,
        help="loss, train, eval, or a column's name.",
    ),
    click.option(
        "--rate-of",
        type=Choice(("next", "last", "mean")),
        help="Which update the rate of a row is of, or a mean since the row before; found if not"
        " given.",
    ),
    click.option(
        "--repeats",
        type=Choice(("later", "refuse")),
        default="later",
        show_default=True,
        help="Of steps that come again, as after a restart: keep the later pass, or refuse.",
    ),
    click.option(
        "--log-format", "format", help="A reader of your own, module:Class, asked before ours."
    ),
)

NAMES = (
    *("warmup", "columns", "unit", "per_step", "steps_per_epoch", "loss", "rate_of", "repeats"),
    "format",
)

level_option = click.option(
    "--level",
    type=Number("a number between 0 and 1"),
    default=0.8,
    show_default=True,
    help="Probability of the intervals.",
)


def log_options(*without: str) -> Callable[..., Any]:
    """Add the options that say how a log is read, but for some."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option, name in zip(reversed(LOG_OPTIONS), reversed(NAMES), strict=True):
            command = command if name in without else option(command)
        return command

    return add


def reading(options: dict[str, Any], *without: str) -> dict[str, Any]:
    """Arguments of the readers of logs from the options, which are taken out, but for some."""
    given = {name: options.pop(name) for name in NAMES if name in options and name not in without}
    if given.get("warmup") is not None:
        given["warmup"] = whole_steps("warmup", given["warmup"])
    columns = given["columns"]
    if columns is not None:
        pairs = [part.partition("=") for part in columns.split(",")]
        if any(not (key and middle and value) for key, middle, value in pairs):
            raise InvalidProblem("columns", columns, "step=NAME,lr=NAME,loss=NAME")
        given["columns"] = {key.strip(): value for key, _, value in pairs}
    if given["format"] is not None:
        given["format"] = _own_format(given["format"])
    return given


def _own_format(text: str) -> Any:
    """An object of the class at ``module:Class``."""
    from optsched.logs.formats import LogFormat

    allowed = "module:Class, a subclass of optsched.logs.LogFormat that can be imported"
    module, _, name = text.partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidProblem("format", text, f"{allowed} ({error})") from None
    if not (isinstance(found, type) and issubclass(found, LogFormat)):
        raise InvalidProblem("format", text, allowed)
    return found()


def whole_steps(field: str, value: float, low: int = 0) -> int:
    """An option that counts steps, as a whole number of ``low`` or more."""
    if not (math.isfinite(value) and value == int(value) and value >= low):
        raise InvalidProblem(field, value, f"a whole number of steps >= {low}")
    return int(value)


def warn(lines: Iterable[str]) -> None:
    """Warnings on stderr, one a line, each once, in the words of the command."""
    page, said = current_page(), list(dict.fromkeys(map(spoken, lines)))
    if page is not None:
        page.warnings += said
    if page is None or not page.silent:
        for line in said:
            click.echo(f"warning: {line}", err=True)


def comparison_rows(found: Ranking) -> list[dict[str, Any]]:
    """Rows for JSON."""
    return [vars(row) for row in found.rows]


def show_comparison(title: str, found: Ranking, notes: Sequence[str] = ()) -> None:
    """Table of predicted final losses, the best first."""
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
    print_lines(title)
    print_table(columns, rows)
    print_lines(*notes)
