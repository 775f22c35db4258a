"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import click

from optsched.commands.values import Budgets, Choice, Grid, Horizons, Number
from optsched.optimisers.registry import OPTIMISERS

__all__ = [
    "ABOVE_ONE",
    "Budgets",
    "Choice",
    "Grid",
    "Horizons",
    "Number",
    "all_features",
    "control_option",
    "families_type",
    "family_names",
    "points_option",
    "problem_options",
    "problem_options_without",
    "schedule_type",
]


ABOVE_ONE = "a finite number greater than 1, up to 50"
PROBLEM_OPTIONS = {
    "a": click.option(
        "--a", type=Number(ABOVE_ONE), help="Exponent of the target, a > 1. Required."
    ),
    "b": click.option(
        "--b", type=Number(ABOVE_ONE), help="Exponent of the covariance, b > 1. Required."
    ),
    "horizon": click.option(
        "--horizon",
        type=Number("a whole number of steps, 1 to 10^15"),
        help="Number of training steps T. Required; verify takes it from the file, and with"
        " batch a control, solve chooses it for --samples or --cost.",
    ),
    "features": click.option(
        "--features",
        type=Number("a whole number >= 1, or inf"),
        default=1000,
        show_default=True,
        help="Number of features N, or inf.",
    ),
    "batch_size": click.option(
        "--batch",
        "batch_size",
        type=Number("a number >= 1"),
        default=5.0,
        show_default=True,
        help="Minibatch size m.",
    ),
    "noise": click.option(
        "--noise",
        type=Number("a number >= 0"),
        default=0.5,
        show_default=True,
        help="Standard deviation sigma of the label noise.",
    ),
    "eta_max": click.option(
        "--peak",
        "eta_max",
        type=Number("a number > 0"),
        default=None,
        help="Largest rate that is allowed; the rate itself if it is no control.  [default:"
        " 1; none where momentum is a control]",
    ),
    "warmup": click.option(
        "--warmup",
        type=Number("a whole number >= 0"),
        default=0,
        show_default=True,
        help="Steps of a forced linear warm-up.",
    ),
    "eta_min": click.option(
        "--floor",
        "eta_min",
        type=Number("a number >= 0"),
        default=0.0,
        show_default=True,
        help="Least rate after the warm-up.",
    ),
    "max_change": click.option(
        "--max-change",
        type=Number("a number > 0"),
        default=None,
        help="Largest change of the rate from one step to the next.",
    ),
    "momentum": click.option(
        "--optimiser",
        "momentum",
        type=Choice(tuple(OPTIMISERS), {"none": "sgd"}),
        callback=lambda ctx, param, value: "none" if value == "sgd" else value,
        help="Rule of the update; follows from the controls if not given.",
    ),
    "beta": click.option(
        "--momentum", "beta", type=Number("a number in [0, 1)"), help="Its beta, where it is held."
    ),
    "nu": click.option(
        "--nu",
        type=Number("a number in [0, 1]"),
        help="Weight nu of the momentum, where it is held.",
    ),
    "ema": click.option(
        "--ema",
        type=Number("a number in [0, 1)"),
        help="Decay of the average of the weights, where it is held; its loss then counts.",
    ),
    "weight_decay": click.option(
        "--weight-decay",
        type=Number("a number >= 0"),
        default=0.0,
        show_default=True,
        help="Decoupled weight decay.",
    ),
    "samples": click.option(
        "--samples",
        type=Number("a number >= the horizon"),
        default=None,
        help="Budget of samples where batch is a control.  [default: batch size times horizon]",
    ),
}


def family_names() -> list[str]:
    """Names and short names of the schedule families."""
    from optsched.schedules.families.registry import ALIASES, FAMILIES

    return [*FAMILIES, *ALIASES]


families_type = Choice(family_names, many=True)
schedule_type = Choice(lambda: ["optimal", *family_names()])


def control_option(help: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """``--control``, with what it means for a command."""
    names = ("eta", "beta", "nu", "batch", "ema")
    kind = Choice(names, many=True)
    return click.option(
        "--control", "controls", type=kind, default="eta", show_default=True, help=help
    )


# Of studies along horizons or planes, in place of the option of a problem.
all_features = click.option(
    "--features",
    type=Number("a whole number >= 1, or inf"),
    default=math.inf,
    show_default=True,
    help="Number of features N; what a finite one leaves out bends long horizons.",
)


points_option = click.option(
    "--points",
    type=Number("a whole number >= 2"),
    help="Rows (npz, csv) or knots (json) to write, instead of all.",
)


def problem_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that describe a problem."""
    return problem_options_without()(command)


def problem_options_without(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorator that adds the options of a problem but some, by parameter name.

    A command leaves out what it has in another form, ``horizon`` where it takes several, and what
    it gives another default.
    """

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for name, option in reversed(PROBLEM_OPTIONS.items()):
            if name not in names:
                command = option(command)
        return command

    assert {*names} <= {*PROBLEM_OPTIONS}
    return decorate
