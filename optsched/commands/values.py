"""Types of the values of options: numbers, names, ranges."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import click
from click.shell_completion import CompletionItem

from optsched.errors import InvalidProblem

__all__ = ["Budgets", "Choice", "Grid", "Horizons", "Number", "Peaks"]

MOST_POINTS, LONGEST = 10_000, 10**15


def _float(text: Any) -> float:
    """A number as people write it: Python's 1_0 is a slip of the keyboard here."""
    if "_" in str(text):
        raise ValueError(f"{text!r} is no number")
    return float(text)


class Number(click.ParamType):
    """A number that only has to parse; `Problem` checks its range."""

    name = "number"

    def __init__(self, allowed: str) -> None:
        self.allowed = allowed

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        try:
            return _float(value)
        except ValueError:
            field = param.name if param is not None else "value"
            raise InvalidProblem(field, value, self.allowed) from None


class Choice(click.ParamType):
    """One of several names.

    Parameters
    ----------
    names : sequence of str or callable
        The names, or what looks them up when they are needed.
    old : mapping, optional
        Earlier names, which still work, with those of today.
    many : bool
        Names with commas, which the command takes apart.
    free : bool
        Only completed: the command checks them, as it takes more than the names.
    """

    name = "name"

    def __init__(
        self,
        names: Sequence[str] | Callable[[], Sequence[str]],
        old: Mapping[str, str] | None = None,
        *,
        many: bool = False,
        free: bool = False,
    ) -> None:
        self.look_up = names if callable(names) else lambda: names
        self.known = () if callable(names) else tuple(names)  # without an import
        self.old = old or {}
        self.many, self.free = many, free or many

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "NAME,..." if self.many else "NAME"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        value = self.old.get(value, value)
        if not self.free and value not in (names := self.look_up()):
            field = param.name if param is not None else "value"
            raise InvalidProblem(field, value, "one of " + ", ".join(names))
        return value

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",") if self.many else ("", "", incomplete)
        given = before.split(",")
        names = [x for x in self.look_up() if x.startswith(last) and x not in given]
        return [CompletionItem(before + comma + name) for name in names]


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
            field = param.name if param is not None else "value"
            raise InvalidProblem(field, value, str(error)) from None

    def _between(self, text: str) -> tuple[Any, ...]:
        parts = text.split(":")
        if len(parts) != 3:
            raise ValueError(f"three numbers in LOW:HIGH:COUNT, such as {self.example}")
        low, high = self.number(parts[0]), self.number(parts[1])
        try:
            count = _float(parts[2])
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
            value = _float(text)
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


class Peaks(Budgets):
    """Increasing rates: ``LOW:HIGH:COUNT``, geometric, or a list with commas."""

    unit, example = "rates", "1e-4:1e-3:4 or 1e-4,3e-4"
    rule = "finite numbers > 0"

    def allows(self, value: float) -> bool:
        return 0.0 < value < math.inf


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
