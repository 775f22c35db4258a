"""What the sub-commands of ``optsched rules`` share: one way to take options and to print."""

from __future__ import annotations

from typing import Any

import click

from optsched.commands.show import show
from optsched.errors import InvalidProblem

__all__ = ["json_option", "required", "show"]

json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")


def required(**options: Any) -> None:
    """Raise for the first option that is not given."""
    for field, value in options.items():
        if value is None:
            raise InvalidProblem(field, None, "a value")
