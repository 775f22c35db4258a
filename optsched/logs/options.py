"""How logs are read: the arguments of `read_run`, checked once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from optsched.checks import is_number, positive, whole
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem
from optsched.logs.formats.base import LogFormat
from optsched.logs.formats.table import RateOf

__all__ = ["Options", "PathLike", "RateSource", "Repeats", "Source", "Unit"]

PathLike = str | os.PathLike[str]
RateSource = PathLike | float
Source = PathLike | tuple[PathLike, RateSource]
Unit = Literal["steps", "samples", "tokens", "epochs"]
Repeats = Literal["later", "refuse"]

KEYS = ("step", "lr", "loss")
_CHOICES: dict[str, tuple[str | None, ...]] = {
    "unit": ("steps", "samples", "tokens", "epochs"),
    "rate_of": (None, "next", "last", "mean"),
    "repeats": ("later", "refuse"),
}


@dataclass(frozen=True)
class Options:
    """The arguments of `optsched.logs.read_run` that say how a file is read."""

    warmup: int | None = None
    columns: Mapping[str, str] | None = None
    unit: Unit = "steps"
    per_step: float | None = None
    steps_per_epoch: float | None = None
    loss: str = "loss"
    rate_of: RateOf | None = None
    repeats: Repeats = "later"
    rates: RateSource | None = None
    format: LogFormat | None = None
    names: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        if self.warmup is not None:
            whole("warmup", self.warmup, 0, MAX_HORIZON)
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                words = "one of " + ", ".join(filter(None, allowed))
                raise InvalidProblem(name, getattr(self, name), words)
        if self.per_step is None and self.unit in ("samples", "tokens"):
            raise InvalidProblem("per_step", None, f"how many {self.unit} an update covers")
        if self.steps_per_epoch is None and self.unit == "epochs":
            raise InvalidProblem("steps_per_epoch", None, "how many updates an epoch has")
        for name in ("per_step", "steps_per_epoch"):
            if getattr(self, name) is not None:
                positive(name, getattr(self, name))
        columns = {} if self.columns is None else dict(self.columns)
        unknown = [key for key in columns if key not in KEYS]
        if unknown:
            raise InvalidProblem("columns", unknown, "keys " + ", ".join(KEYS))
        object.__setattr__(self, "names", columns)
        if is_number(self.rates):
            positive("rates", self.rates)
        _check_rates(self.rates)
        if self.format is not None and not isinstance(self.format, LogFormat):
            allowed = "an object of a subclass of LogFormat"
            raise InvalidProblem("format", self.format, allowed)


def _check_rates(rates: Any) -> None:
    if rates is not None and not (is_number(rates) or isinstance(rates, str | os.PathLike)):
        raise InvalidProblem("rates", rates, "a file, or a constant rate > 0")
