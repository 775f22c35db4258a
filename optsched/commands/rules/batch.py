"""``optsched rules noise-scale`` and ``optsched rules batch``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click

from optsched.commands.command import Command
from optsched.commands.options import Choice, Number
from optsched.commands.rules.common import json_option, required, show
from optsched.errors import BadFile, InvalidProblem
from optsched.files import check_input

__all__ = ["batch", "noise_scale"]

SIZE = "a number > 0"
# Options of each kind of input.
USED = {
    "npy": ("size",),
    "csv": ("small", "big", "decay"),
    "none": ("lr", "samples", "batch", "momentum"),
}


@click.command("noise-scale", cls=Command)
@click.argument("file", type=click.Path(), required=False)
@click.option("--small-batch", "small", type=Number("a number >= 1"), help="Small batch of a csv.")
@click.option("--big-batch", "big", type=Number("a number >= 1"), help="Big batch of a csv.")
@click.option(
    "--size",
    type=Number("a whole number >= 1"),
    help="Examples that each row of an npy is the mean of.  [default: 1]",
)
@click.option("--decay", type=Number("a number in [0, 1)"), help="Moving average along a csv.")
@click.option("--lr", type=Number(SIZE), help="Without FILE: rate of SGD.")
@click.option("--samples", type=Number("a number >= 1"), help="Without FILE: training examples.")
@click.option("--batch", type=Number("a number >= 1"), help="Without FILE: batch size.")
@click.option(
    "--momentum",
    type=Number("a number in [0, 1)"),
    help="Without FILE: heavy-ball momentum.  [default: 0]",
)
@json_option
def noise_scale(file: str | None, as_json: bool, **options: Any) -> None:
    """Gradient noise scale of a FILE, or the noise scale of SGD.

    FILE is an npy with a gradient in each row, or a csv with columns small_square and big_square:
    squared norms of gradients at two batch sizes. The gradient noise scale is the critical batch
    size, in examples: well below it a larger batch saves steps at no cost in examples, well above
    it saves none.
    """
    from optsched.rules.batch.noise_scale import sgd_noise_scale

    kind = "none" if file is None else Path(file).suffix[1:]
    if kind not in USED:
        raise InvalidProblem("file", file, "a name that ends in .npy or .csv")
    for field, value in options.items():
        if value is not None and field not in USED[kind]:
            what = "without FILE" if file is None else f"with {kind}"
            raise InvalidProblem(field, value, f"nothing {what}, which takes {_listed(kind)}")
    if file is None:
        given = {name: options[name] for name in ("lr", "samples", "batch")}
        required(**given)
        scale = sgd_noise_scale(**given, momentum=options["momentum"] or 0.0)
        show({"sgd_noise_scale": scale}, as_json)
        return
    found = _measured(file, options)
    note = "the gradient does not stand out of the noise: measure more, or at a larger batch"
    notes = [] if found.resolved else [f"warning: {note}"]
    show(found.summary(), as_json, notes=notes)


def _listed(kind: str) -> str:
    return ", ".join("--" + name for name in USED[kind])


def _measured(file: str, options: dict[str, Any]) -> Any:
    """Noise scale of a file."""
    check_input(Path(file), math.inf)
    from optsched.rules.batch.noise_scale import RunningNoiseScale, per_example, two_batch

    if file.endswith(".npy"):
        import numpy as np

        try:
            rows = np.load(file, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise BadFile(f"{file}: cannot be read as npy ({error})") from None
        return per_example(rows, size=options["size"] or 1)
    required(small=options["small"], big=options["big"])
    sizes = {"small": options["small"], "big": options["big"]}
    small, big = _squares(file)
    if options["decay"] is None:
        return two_batch(small, big, **sizes)
    running = RunningNoiseScale(options["decay"])
    for pair in zip(small, big, strict=True):
        running = running.updated(*pair, **sizes)
    return running.estimate


def _squares(file: str) -> tuple[list[float], list[float]]:
    """Columns of a csv."""
    import csv

    names = ("small_square", "big_square")
    try:
        with Path(file).open(encoding="utf-8", newline="") as source:
            reader = csv.DictReader(source)
            missing = [name for name in names if name not in (reader.fieldnames or ())]
            if missing:
                raise BadFile(f"{file}: no column {missing[0]}")
            columns: tuple[list[float], list[float]] = ([], [])
            for row in reader:
                for name, column in zip(names, columns, strict=True):
                    column.append(_float(row[name], f"{file}: line {reader.line_num}, {name}"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise BadFile(f"{file}: cannot be read as csv ({error})") from None
    if not columns[0]:
        raise BadFile(f"{file}: no rows")
    return columns


def _float(text: str | None, where: str) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise BadFile(f"{where}: {text!r} is not a number") from None


@click.command(cls=Command)
@click.option("--from-batch", type=Number(SIZE), help="Batch size that was tuned. Required.")
@click.option("--to-batch", "batch", type=Number(SIZE), help="Batch size to come. Required.")
@click.option("--lr", type=Number(SIZE), help="Rate at the first. Required.")
@click.option(
    "--rule",
    type=Choice(("linear", "sgd", "sqrt", "sign")),
    default="linear",
    show_default=True,
    help="linear or sgd for SGD, sqrt or sign for Adam and sign methods.",
)
@click.option("--noise-scale", type=Number(SIZE), help="Gradient noise scale, in the same unit.")
@json_option
def batch(as_json: bool, noise_scale: float | None, **options: Any) -> None:
    """Rate, steps and samples at another batch size."""
    from optsched.rules.batch.scaling import samples_factor, scale_rate, steps_factor

    sizes = options["from_batch"], options["batch"]
    required(**options)
    scaled = scale_rate(options["lr"], *sizes, options["rule"], noise_scale)
    numbers = scaled.summary() | {"steps_ratio": None, "samples_ratio": None}
    notes = []
    if noise_scale is None:
        notes.append("without --noise-scale it is not known whether the rule holds")
    else:
        for name, factor in (("steps_ratio", steps_factor), ("samples_ratio", samples_factor)):
            before, after = (float(factor(size, noise_scale)) for size in sizes)
            numbers[name] = after / before
        if not scaled.valid:
            notes.append(
                f"warning: with noise the factor would be {scaled.saturating:.4g}:"
                f" rule {scaled.rule} is for batches far below the noise scale"
            )
    show(numbers, as_json, notes=notes)
