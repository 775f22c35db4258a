"""A group of commands that are imported when they are called, not when they are listed."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import click
from click.shell_completion import CompletionItem

__all__ = ["Interrupted", "LazyGroup"]

CLOSED = 141  # as of a program that ends by SIGPIPE


class Interrupted(click.ClickException):
    """Ctrl-C."""

    exit_code = 130


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

    def make_context(self, *args: Any, **extra: Any) -> click.Context:
        with _ends():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _ends():
            return super().invoke(ctx)

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


@contextmanager
def _ends() -> Iterator[None]:
    """Make Ctrl-C an error of one line, and end quietly when nobody reads, as with ``| head``."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted") from None
    except BrokenPipeError:
        if not _nobody_reads():
            raise
        # What is still to be flushed has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise click.exceptions.Exit(CLOSED) from None


def _nobody_reads() -> bool:
    """Whether the standard output is a pipe without a reader, not a connection of ours."""
    if not hasattr(select, "poll"):  # Windows
        return True
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
    except (OSError, ValueError, AttributeError):
        return False
    return any(event & select.POLLERR for _, event in poll.poll(0))
