"""For those who count tokens: lengths of runs in tokens, with the tokens of an update."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import click

from optsched.commands.options import Number
from optsched.errors import InvalidProblem

__all__ = ["batch_option", "check_batch", "in_tokens", "short", "steps_of", "tokens_option"]

SUFFIXES = ("", "K", "M", "B", "T")

tokens_option = click.option(
    "--tokens",
    type=Number("a number > 0"),
    help="Tokens of the whole run, in place of --horizon; with --batch.",
)


def batch_option(help: str) -> Callable[..., Any]:
    """``--batch``, with what it means for a command."""
    return click.option("--batch", type=Number("a number > 0"), help=help)


def steps_of(horizon: float | None, tokens: float | None, batch: float | None) -> float | None:
    """Steps of a run: the horizon, or the fewest that see so many tokens.

    Raises
    ------
    InvalidProblem
        Both of them, tokens without their number in an update, or less than an update.
    """
    check_batch(batch)
    if tokens is None:
        return horizon
    if horizon is not None:
        raise InvalidProblem("tokens", tokens, "nothing beside --horizon")
    if batch is None:
        raise InvalidProblem("batch", None, "the tokens of an update, with --tokens")
    if not (batch <= tokens < math.inf):
        raise InvalidProblem("tokens", tokens, f"a finite number >= {batch:,.6g}, one update")
    return float(math.ceil(tokens / batch * (1.0 - 1e-12)))


def check_batch(batch: float | None) -> None:
    """Refuse what is no number of tokens in an update."""
    if batch is not None and not 0.0 < batch < math.inf:
        raise InvalidProblem("batch", batch, "a finite number > 0")


def short(count: float) -> str:
    """A number of tokens as people say it.

    >>> short(52_428_800_000), short(2_000), short(999_999)
    ('52.4B', '2K', '1M')
    """
    for power, suffix in enumerate(SUFFIXES):
        value = float(f"{count / 1000.0**power:.3g}")
        if value < 1000.0 or suffix == SUFFIXES[-1]:
            return f"{value:.15g}{suffix}"
    raise AssertionError("unreachable")


def in_tokens(text: str, batch: float) -> str:
    """A sentence in which steps are told in tokens too: ``step 1,000 (524M tokens)``."""

    def both(match: re.Match[str]) -> str:
        count = int((match[1] or match[2]).replace(",", ""))
        return f"{match[0]} ({short(count * batch)} tokens)"

    return re.sub(r"\bstep (\d[\d,]*\d|\d)|(\d[\d,]*\d|\d) steps\b", both, text)
