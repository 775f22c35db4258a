"""``optsched rules compute-optimal``."""

from __future__ import annotations

from typing import Any

import click

from optsched.commands.command import Command
from optsched.commands.options import Number
from optsched.commands.rules.common import json_option, required, show

__all__ = ["compute_optimal"]


@click.command("compute-optimal", cls=Command)
@click.argument("runs", type=click.Path(), required=False)
@click.option("--compute", type=Number("a number > 0"), help="Floating-point operations C = 6ND.")
@click.option(
    "--vocabulary",
    type=Number("a number >= 0"),
    help="Words of the embedding to count, where RUNS has width and depth.  [default: 0]",
)
@click.option(
    "--batch", type=Number("a number > 0"), help="Tokens of an update, to count the steps."
)
@click.option(
    "--level",
    type=Number("a number in (0, 1)"),
    default=0.8,
    show_default=True,
    help="Probability of the intervals.",
)
@json_option
def compute_optimal(as_json: bool, **options: Any) -> None:
    """Best size and tokens for a compute, from trained models; RUNS is a csv.

    It has a row a run: parameters (or width and depth), tokens and the final loss.
    """
    from optsched.measure.compute_law import compute_optimal as find

    required(runs=options["runs"], compute=options["compute"])
    sizes, tokens, losses = _read(options["runs"], options["vocabulary"])
    found = find(sizes, tokens, losses, options["compute"], level=options["level"])
    numbers = found.summary()
    low, high = found.loss_interval
    notes = [
        *(f"{way.name}: {way.note}" for way in found.ways),
        f"at C = {found.compute:.4g}: {found.parameters:.4g} parameters, {found.tokens:.4g} tokens,"
        f" {found.tokens / found.parameters:.3g} a parameter",
        f"loss {found.loss:.4f}, {100 * found.level:.4g} % interval {low:.4f} to {high:.4f}, if the"
        f" law holds at {found.reach:.3g} times the largest compute of the table",
    ]
    if options["batch"] is not None:
        numbers["steps"] = found.tokens / options["batch"]
        notes.append(f"{numbers['steps']:,.0f} steps of {options['batch']:,.0f} tokens")
    show(
        numbers,
        as_json,
        title=f"{len(losses)} runs: L = {found.law.floor:.4g} + {found.law.size:.4g} N^-"
        f"{found.law.alpha:.3f} + {found.law.tokens:.4g} D^-{found.law.beta:.3f}",
        columns=("way", "N grows as C^", "interval", "parameters", "interval"),
        rows=[
            (
                way.name,
                way.exponent,
                _range(way.exponent_interval),
                way.parameters,
                _range(way.parameters_interval),
            )
            for way in found.ways
        ],
        notes=[*notes, *(f"warning: {text}" for text in found.warnings)],
    )


def _range(ends: tuple[float, float]) -> str:
    return f"{ends[0]:.3g} to {ends[1]:.3g}"


def _read(path: str, vocabulary: float | None) -> tuple[list[float], list[float], list[float]]:
    """Sizes, tokens and losses of the rows."""
    from optsched.errors import BadFile, InvalidProblem
    from optsched.files import read_rows
    from optsched.measure.compute_law import model_size

    try:
        rows = read_rows(path, ("parameters", "tokens", "loss"))
    except BadFile as reason:
        if "no column parameters" not in str(reason):
            raise
        try:
            rows = read_rows(path, ("width", "depth", "tokens", "loss"))
        except BadFile as other:
            if "no column" not in str(other):
                raise
            text = "no column parameters, and not width and depth; or no tokens, or no loss"
            raise BadFile(f"{path}: {text}") from None
        sizes = [model_size(row["width"], row["depth"], vocabulary or 0.0) for row in rows]
    else:
        if vocabulary is not None:
            raise InvalidProblem(
                "vocabulary", vocabulary, "nothing where the file has parameters"
            ) from None
        sizes = [row["parameters"] for row in rows]
    return sizes, [row["tokens"] for row in rows], [row["loss"] for row in rows]
