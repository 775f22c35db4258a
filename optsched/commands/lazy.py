"""A group of commands that are imported when they are called, not when they are listed."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

__all__ = ["LazyGroup"]


class LazyGroup(click.Group):
    """A group that knows its commands by name, home and first line of help.

    Parameters
    ----------
    sections : mapping
        For each heading its commands: by name the place, ``module:attribute``, and the line that
        the help of the group shows.
    **settings
        What `click.Group` takes.
    """

    def __init__(
        self, *, sections: Mapping[str, Mapping[str, tuple[str, str]]], **settings: Any
    ) -> None:
        members = {name: told for part in sections.values() for name, told in part.items()}
        # Stand-ins for lists, suggestions and completion.
        listed = {name: click.Command(name, short_help=help) for name, (_, help) in members.items()}
        super().__init__(commands=listed, **settings)
        self.homes = {name: home for name, (home, _) in members.items()}
        self.sections = {heading: [*part] for heading, part in sections.items()}

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.homes)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.homes:
            return None
        module, _, attribute = self.homes[cmd_name].partition(":")
        return getattr(import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, self.homes))
        for heading, names in self.sections.items():
            rows = [(f"{n:{width}}", self.commands[n].get_short_help_str(100)) for n in names]
            with formatter.section(heading):
                formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        names = [name for name in self.homes if name.startswith(incomplete)]
        items = [CompletionItem(n, help=self.commands[n].get_short_help_str()) for n in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)
