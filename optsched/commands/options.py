"""Options that several commands share."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import click

from optsched.errors import InvalidProblem

__all__ = [
    "ABOVE_ONE",
    "Budgets",
    "Grid",
    "Horizons",
    "Number",
    "all_features",
    "points_option",
    "problem_options",
    "problem_options_without",
]

MOMENTA = ("none", "heavy-ball", "nesterov", "qhm")
MOST_POINTS, LONGEST = 10_000, 10**15


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


class Grid(click.ParamType):
    """Increasing numbers: ``LOW:HIGH:COUNT``, evenly spaced, or a list with commas.

    Parameters
    ----------
    least : int
        Fewest numbers that are allowed.
    """

    name = "low:high:count"
    unit, example = "numbers", "1.2:4:15 or 1.5,2,3"
    rule: str = "finite numbers"
    kind: Callable[[float], Any] = float

    def __init__(self, least: int = 2) -> None:
        self.least = least

    def convert(self, value: Any, param: Any, ctx: Any) -> tuple[Any, ...]:
        if not isinstance(value, str):
            return tuple(value)
        try:
            return self._between(value) if ":" in value else self._listed(value)
        except ValueError as error:
            # As it is typed: --a of a plane is kept under another name.
            field = param.opts[-1].lstrip("-").replace("-", "_") if param is not None else "value"
            raise InvalidProblem(field, value, str(error)) from None

    def _between(self, text: str) -> tuple[Any, ...]:
        parts = text.split(":")
        if len(parts) != 3:
            raise ValueError(f"three numbers in LOW:HIGH:COUNT, such as {self.example}")
        low, high = self.number(parts[0]), self.number(parts[1])
        try:
            count = float(parts[2])
        except ValueError:
            count = math.nan
        least = max(self.least, 2)
        if not (least <= count <= MOST_POINTS and count == int(count)):
            raise ValueError(f"a whole COUNT from {least} to {MOST_POINTS} in LOW:HIGH:COUNT")
        if not low < high:
            raise ValueError("LOW below HIGH in LOW:HIGH:COUNT")
        return self.spread(low, high, int(count))

    def _listed(self, text: str) -> tuple[Any, ...]:
        numbers = tuple(self.number(part) for part in text.split(","))
        if len(numbers) < self.least:
            raise ValueError(f"{self.least} {self.unit} or more, such as {self.example}")
        if any(x >= y for x, y in pairwise(numbers)):
            raise ValueError(f"{self.unit} that increase, such as {self.example}")
        return numbers

    def number(self, text: str) -> Any:
        """One number; a ValueError says what is allowed."""
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not self.allows(value):
            raise ValueError(f"{self.rule}, such as {self.example}")
        return self.kind(value)

    def allows(self, value: float) -> bool:
        """Whether a number, or NaN for what is none, is allowed."""
        return math.isfinite(value)

    def spread(self, low: Any, high: Any, count: int) -> tuple[Any, ...]:
        """Numbers from low to high."""
        inner = (self.between(low, high, i / (count - 1)) for i in range(1, count - 1))
        return (low, *(self.rounded(x) for x in inner), high)

    def rounded(self, value: float) -> Any:
        """Without noise, as 1.2:4:15 means 1.4, not 1.4000000000000001."""
        return float(f"{value:.12g}")

    def between(self, low: float, high: float, share: float) -> float:
        """The number at a share of the way from low to high."""
        return low + (high - low) * share


class Budgets(Grid):
    """Increasing budgets: ``LOW:HIGH:COUNT``, geometric, or a list with commas."""

    unit, example = "budgets", "1e6:1e12:4 or 1e6,1e8"
    rule = "numbers from 1 to 1e30"

    def allows(self, value: float) -> bool:
        return 1.0 <= value <= 1e30

    def between(self, low: float, high: float, share: float) -> float:
        return low * (high / low) ** share


class Horizons(Budgets):
    """Increasing whole numbers of steps: ``LOW:HIGH:COUNT``, geometric, or a list with commas."""

    unit, example = "horizons", "1e2:1e8:13 or 1000,3162,1e4"
    rule, kind = "whole numbers of steps, 1 to 10^15", int

    def allows(self, value: float) -> bool:
        return 1.0 <= value <= LONGEST and value == int(value)

    def rounded(self, value: float) -> int:
        return round(value)

    def spread(self, low: Any, high: Any, count: int) -> tuple[Any, ...]:
        """Whole numbers of steps from low to high."""
        steps = super().spread(low, high, count)
        same = [x for x, y in pairwise(steps) if x == y]
        if same:
            raise ValueError(f"a lower COUNT: two of {count} horizons round to {same[0]}")
        return steps


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
        "--batch-size",
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
        "--eta-max",
        type=Number("a number > 0"),
        default=None,
        help="Upper bound of the learning rate; the rate itself if it is no control.  [default:"
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
        "--eta-min",
        type=Number("a number >= 0"),
        default=0.0,
        show_default=True,
        help="Floor of the rate after warm-up.",
    ),
    "max_change": click.option(
        "--max-change",
        type=Number("a number > 0"),
        default=None,
        help="Largest change of the rate from one step to the next.",
    ),
    "momentum": click.option(
        "--momentum",
        default=None,
        help=f"One of {', '.join(MOMENTA)}; follows from the controls if not given.",
    ),
    "beta": click.option(
        "--beta", type=Number("a number in [0, 1)"), help="Momentum, where it is held."
    ),
    "nu": click.option(
        "--nu", type=Number("a number in [0, 1]"), help="Its weight, where it is held."
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
