"""Parts of a sweep for the tasks of an array job, and a way to stop between two cells."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from optsched.checks import is_number
from optsched.errors import InvalidProblem

__all__ = ["SIGNALS", "STOPPED", "Shard", "Stopping", "stopping"]

STOPPED = 143  # exit code of a program that SIGTERM ends
SIGNALS = ("SIGTERM", "SIGUSR1")  # of schedulers, some time before they kill


@dataclass(frozen=True)
class Shard:
    """Part ``index`` of ``count``: every ``count``-th cell.

    Parameters
    ----------
    index : int
        From 0 to ``count - 1``, or from 1 to ``count``: the last is the part 0.
    count : int

    Raises
    ------
    InvalidProblem
        Numbers that are not whole, or an index above the count.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        given = f"{self.index}/{self.count}"
        both = all(is_number(n) and n == int(n) for n in (self.index, self.count))
        if not (both and self.count >= 1 and 0 <= self.index <= self.count):
            raise InvalidProblem("shard", given, "I/N with whole numbers, 0 <= I <= N and N >= 1")

    @classmethod
    def parse(cls, text: str) -> Shard:
        """From ``I/N``, as ``$SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT``."""
        first, slash, second = text.partition("/")
        if not (slash and first.isdecimal() and second.isdecimal()):
            allowed = "I/N with whole numbers, such as 3/16 or"
            allowed += " $SLURM_ARRAY_TASK_ID/$SLURM_ARRAY_TASK_COUNT"
            raise InvalidProblem("shard", text, allowed)
        return cls(int(first), int(second))

    def of(self, keys: Sequence[str]) -> list[str]:
        """The part of the cells, by their names in any order."""
        return sorted(keys)[self.index % self.count :: self.count]


@dataclass
class Stopping:
    """Whether somebody asked for the end; call it to ask.

    Attributes
    ----------
    by : str
        Name of the signal that came, empty before one does.
    """

    by: str = field(default="")

    def __call__(self) -> bool:
        return bool(self.by)


@contextmanager
def stopping() -> Iterator[Stopping]:
    """Context in which SIGTERM and SIGUSR1 ask a sweep to stop after the cell in hand.

    For ``sweep(stop=...)``, in the main thread of a program; elsewhere it does nothing.

    >>> with stopping() as stop:
    ...     stop()
    False
    """
    asked = Stopping()

    def note(number: int, frame: Any) -> None:
        asked.by = signal.Signals(number).name

    known = [getattr(signal, name) for name in SIGNALS if hasattr(signal, name)]
    if threading.current_thread() is not threading.main_thread():
        known = []
    before = {number: signal.signal(number, note) for number in known}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            # None: set outside of Python, which cannot be put back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
