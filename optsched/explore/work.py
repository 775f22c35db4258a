"""What a worker process does for a request: one answer, or one sentence of what is wrong."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

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
}


def ready() -> None:
    """Load and run once what the first picture needs."""
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
        got = "nothing" if error.value is None else repr(error.value)
        text = f"got {got}, allowed: {error.allowed}"
        return {"error": {"field": error.field, "text": text}}
    except OptschedError as error:
        return {"error": {"text": " ".join(str(error).split())}}
    except MemoryError:
        return {"error": {"text": "this takes more memory than there is"}}
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        said = " ".join(str(error).split()) or type(error).__name__
        return {"error": {"text": f"this did not work: {said} ({type(error).__name__})"}}
