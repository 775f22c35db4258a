"""Options of commands from a request: some of them, in words and numbers, and no path."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import click

from optsched.commands.page import Page, run_silently
from optsched.errors import InvalidProblem

__all__ = ["FIT", "PLAN", "Options", "arguments", "run"]

Options = Mapping[str, Callable[[str], bool]]
MOST_LETTERS = 200


def _number(text: str) -> bool:
    return re.fullmatch(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?", text) is not None


def _word(text: str) -> bool:
    return re.fullmatch(r"[a-z]+", text) is not None


def _column(text: str) -> bool:
    """Names of columns, as a log may have them; never a module or a file of code."""
    return len(text) <= MOST_LETTERS and text.isprintable()


# A rate is a number here: of a file it would be a path.
FIT: Options = {
    "warmup": _number,
    "loss": _column,
    "columns": _column,
    "unit": _word,
    "per-update": _number,
    "steps-per-epoch": _number,
    "rates": _number,
    "rate-of": _word,
    "repeats": _word,
    "seeds": _word,
    "optimiser": _word,
    "weight-decay": lambda text: text == "unknown" or _number(text),
}
PLAN: Options = {
    "horizon": _number,
    "peak": lambda text: text == "auto" or _number(text),
    "warmup": _number,
    "floor": _number,
    "level": _number,
    "robust": _word,
    "shape": _word,
    "weight-decay": _number,
}


def arguments(given: Any, known: Options) -> list[str]:
    """Arguments of a command from options by their words.

    Raises
    ------
    InvalidProblem
        An option that may not be given here, or a value that is of another kind.
    """
    if given is None:
        return []
    if not isinstance(given, Mapping):
        raise InvalidProblem("options", given, "an object")
    found = []
    for name, value in given.items():
        text = "" if value is None else str(value).strip()
        if not text:
            continue
        if name not in known:
            raise InvalidProblem(str(name), value, "one of " + ", ".join(known))
        if not known[name](text):
            kind = "a word or a number" if known[name] is not _number else "a number"
            raise InvalidProblem(name.replace("-", "_"), value, kind)
        found.append(f"--{name}={text}")
    return found


def run(command: click.Command, words: list[str], files: list[str] | None = None) -> Page:
    """Run a command that prints nothing, on files of the working directory."""
    return run_silently(command, [*words, *(["--", *files] if files else [])])
