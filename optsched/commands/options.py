"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from optsched.errors import InvalidProblem

__all__ = ["ABOVE_ONE", "Number", "problem_options"]

MOMENTA = ("none", "heavy-ball", "nesterov", "qhm")


class Number(click.ParamType):
    """A number that only has to parse; `Problem` checks its range."""

    name = "number"

    def __init__(self, allowed: str) -> None:
        self.allowed = allowed

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        try:
            return float(value)
        except ValueError:
            field = param.name if param is not None else "value"
            raise InvalidProblem(field, value, self.allowed) from None


ABOVE_ONE = "a finite number greater than 1, up to 50"
PROBLEM_OPTIONS = [
    click.option("--a", type=Number(ABOVE_ONE), help="Exponent of the target, a > 1. Required."),
    click.option(
        "--b", type=Number(ABOVE_ONE), help="Exponent of the covariance, b > 1. Required."
    ),
    click.option(
        "--horizon",
        type=Number("a whole number of steps, 1 to 10^15"),
        help="Number of training steps T. Required; verify takes it from the file, and with"
        " batch a control, solve chooses it for --samples or --cost.",
    ),
    click.option(
        "--features",
        type=Number("a whole number >= 1, or inf"),
        default=1000,
        show_default=True,
        help="Number of features N, or inf.",
    ),
    click.option(
        "--batch-size",
        type=Number("a number >= 1"),
        default=5.0,
        show_default=True,
        help="Minibatch size m.",
    ),
    click.option(
        "--noise",
        type=Number("a number >= 0"),
        default=0.5,
        show_default=True,
        help="Standard deviation sigma of the label noise.",
    ),
    click.option(
        "--eta-max",
        type=Number("a number > 0"),
        default=None,
        help="Upper bound of the learning rate; the rate itself if it is no control.  [default:"
        " 1; none where momentum is a control]",
    ),
    click.option(
        "--warmup",
        type=Number("a whole number >= 0"),
        default=0,
        show_default=True,
        help="Steps of a forced linear warm-up.",
    ),
    click.option(
        "--eta-min",
        type=Number("a number >= 0"),
        default=0.0,
        show_default=True,
        help="Floor of the rate after warm-up.",
    ),
    click.option(
        "--max-change",
        type=Number("a number > 0"),
        default=None,
        help="Largest change of the rate from one step to the next.",
    ),
    click.option(
        "--momentum",
        default=None,
        help=f"One of {', '.join(MOMENTA)}; follows from the controls if not given.",
    ),
    click.option("--beta", type=Number("a number in [0, 1)"), help="Momentum, where it is held."),
    click.option("--nu", type=Number("a number in [0, 1]"), help="Its weight, where it is held."),
    click.option(
        "--ema",
        type=Number("a number in [0, 1)"),
        help="Decay of the average of the weights, where it is held; its loss then counts.",
    ),
    click.option(
        "--weight-decay",
        type=Number("a number >= 0"),
        default=0.0,
        show_default=True,
        help="Decoupled weight decay.",
    ),
    click.option(
        "--samples",
        type=Number("a number >= the horizon"),
        default=None,
        help="Budget of samples where batch is a control.  [default: batch size times horizon]",
    ),
]


def problem_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that describe a problem."""
    for option in reversed(PROBLEM_OPTIONS):
        command = option(command)
    return command
