"""What a worker process does for a request: one answer, or one sentence of what is wrong."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import click

from optsched.commands.show import plain
from optsched.errors import InvalidProblem, OptschedError

__all__ = ["ANSWERS", "answer", "ready"]

HERE = "optsched.explore"
# What can be asked, and where its answer is made.
ANSWERS = {
    "solve": f"{HERE}.model:optimum",
    "proof": f"{HERE}.model:proof",
    "baselines": f"{HERE}.model:baselines",
    "exponents": f"{HERE}.model:exponents",
    "fit": f"{HERE}.runs:fitted",
    "plan": f"{HERE}.runs:planned",
    "judge": f"{HERE}.own:judged",
    "export": f"{HERE}.files:exported",
    "report": f"{HERE}.files:reported",
}


def ready() -> None:
    """Load and run once what the first picture needs, in a process that the server ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer("solve", {"problem": {"a": 3.5, "b": 2.0, "horizon": 1000}})


def answer(name: str, body: Mapping[str, Any]) -> dict[str, Any]:
    """The answer to a request.

    Parameters
    ----------
    name : str
        In `ANSWERS`.
    body : mapping

    Returns
    -------
    dict
        JSON-able; ``error`` with ``text``, and ``field`` where it is about one, if there is none.
        Nothing is raised: what goes wrong is an answer too, and one that is not ours is also
        written to the standard error.
    """
    module, _, function = ANSWERS[name].partition(":")
    try:
        make: Callable[[Mapping[str, Any]], dict[str, Any]]
        make = getattr(import_module(module), function)
        return plain(make(body))
    except InvalidProblem as error:
        return _beside(error)
    except click.ClickException as error:
        if isinstance(error.__cause__, InvalidProblem):
            return _beside(error.__cause__)
        return {"error": {"text": " ".join(error.format_message().split())}}
    except OptschedError as error:
        return {"error": {"text": " ".join(str(error).split())}}
    except MemoryError:
        return {"error": {"text": "this takes more memory than there is"}}
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        said = " ".join(str(error).split()) or type(error).__name__
        return {"error": {"text": f"this did not work: {said} ({type(error).__name__})"}}


def _beside(error: InvalidProblem) -> dict[str, Any]:
    """What is wrong with a field."""
    got = "nothing" if error.value is None else repr(error.value)
    return {"error": {"field": error.field, "text": f"got {got}, allowed: {error.allowed}"}}
