"""Exceptions of optsched: one base class, and one class per thing that can go wrong."""

from __future__ import annotations

from typing import Any

__all__ = [
    "BadFile",
    "BadLog",
    "BadPart",
    "InvalidProblem",
    "MissingExtra",
    "OptschedError",
    "SolveFailed",
    "SweepFailed",
]


class OptschedError(Exception):
    """Base class of every error that optsched raises on purpose."""


class InvalidProblem(OptschedError, ValueError):
    """A field of the input has a value that is not allowed.

    Parameters
    ----------
    field : str
        Name of the offending field.
    value : object
        The value that was given.
    allowed : str
        What is allowed instead, in words.
    """

    def __init__(self, field: str, value: Any, allowed: str) -> None:
        super().__init__(f"{field}: got {value!r}, allowed: {allowed}")
        self.field = field
        self.value = value
        self.allowed = allowed

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.field, self.value, self.allowed)


class BadFile(OptschedError, ValueError):
    """A file cannot be read or written as asked; the message names the file and the reason."""


class BadLog(BadFile):
    """The log of a run cannot be used; the message names the file, the line and the reason."""


class BadPart(OptschedError, TypeError):
    """An optimiser, objective or method of the user's breaks a rule of its contract.

    Parameters
    ----------
    part : str
        What it is, and its name.
    rule : str
        What it has to do.
    found : str
        What it does instead.
    """

    def __init__(self, part: str, rule: str, found: str) -> None:
        super().__init__(f"{part}: {rule}; {found}")
        self.part, self.rule, self.found = part, rule, found

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.part, self.rule, self.found)


class MissingExtra(OptschedError, ImportError):
    """An optional dependency is needed and not installed."""


class SolveFailed(OptschedError, RuntimeError):
    """A solve did not converge.

    Parameters
    ----------
    message : str
        What happened and what to try next.
    solution : Any, optional
        The best iterate that was reached, a `Solution` with its (unconverged) certificate.
    """

    def __init__(self, message: str, solution: Any = None) -> None:
        super().__init__(message)
        self.solution = solution

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.solution)


class SweepFailed(OptschedError, RuntimeError):
    """A sweep cannot go on, as its workers died or do not answer; the message says what is kept."""
