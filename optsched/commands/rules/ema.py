"""``optsched rules ema``."""

from __future__ import annotations

from typing import Any

import click

from optsched.commands.command import Command
from optsched.commands.options import Number
from optsched.commands.rules.common import json_option, show
from optsched.errors import InvalidProblem

__all__ = ["ema"]

STEPS = "a number of steps > 0"


@click.command(cls=Command)
@click.option("--decay", type=Number("a number in [0, 1)"), help="Decay d of the average.")
@click.option("--half-life", type=Number(STEPS), help="Steps in which its weights halve.")
@click.option("--time-constant", type=Number(STEPS), help="Steps in which they fall by e.")
@click.option("--window", type=Number("a number of steps >= 1"), help="Window 1 / (1 - d).")
@click.option("--for-decay", type=Number(STEPS), help="Steps of a linear decay it stands for.")
@click.option("--from-batch", type=Number("a number > 0"), help="Batch size that this is for.")
@click.option(
    "--to-batch", "batch", type=Number("a number > 0"), help="Batch size to carry it to: d^(B/B0)."
)
@click.option("--at-step", "steps", type=Number(STEPS), help="Updates after which bias is shown.")
@json_option
def ema(as_json: bool, **options: Any) -> None:
    """Half-life, window and bias of an exponential moving average, at any batch size."""
    from optsched.rules.averaging import MovingAverage

    ways = {
        "decay": MovingAverage,
        "half_life": MovingAverage.from_half_life,
        "time_constant": MovingAverage.from_time_constant,
        "window": MovingAverage.from_window,
        "for_decay": MovingAverage.for_linear_decay,
    }
    given = [name for name in ways if options[name] is not None]
    if len(given) != 1:
        words = {name: "--" + name.replace("_", "-") for name in ways}
        allowed = "exactly one of " + ", ".join(words.values())
        raise InvalidProblem(
            "options", " and ".join(words[name] for name in given) or None, allowed
        )
    average = ways[given[0]](options[given[0]])
    batch, from_batch = options["batch"], options["from_batch"]
    if (batch is None) != (from_batch is None):
        raise InvalidProblem("batch", batch, "--from-batch and --to-batch together")
    if batch is not None:
        average = average.scaled(batch, from_batch)
    numbers = average.summary()
    if options["steps"] is not None:
        numbers["memory"] = average.memory(options["steps"])
        numbers["correction"] = average.correction(options["steps"])
    show(numbers, as_json)
