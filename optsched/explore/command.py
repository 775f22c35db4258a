"""``optsched explore``."""

from __future__ import annotations

import sys
import threading
import webbrowser

import click

from optsched.commands.command import Command
from optsched.commands.options import Number
from optsched.commands.show import print_lines
from optsched.errors import InvalidProblem, MissingExtra

__all__ = ["explore"]

PORTS = "a whole number, 0 to 65535; 0 for any that is free"


@click.command(cls=Command)
@click.option(
    "--port",
    type=Number(PORTS),
    default=0,
    help="Port on this machine.  [default: one that is free]",
)
@click.option("--no-browser", is_flag=True, help="Print the address alone.")
def explore(port: float, no_browser: bool) -> None:
    """A page in the browser: play with the model, plan from logs, draw a schedule.

    It is served to this machine alone, needs no network, and ends with Ctrl-C.
    """
    if not (0 <= port <= 65535 and float(port).is_integer()):
        raise InvalidProblem("port", port, PORTS)
    try:
        from optsched.explore.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "optsched":
            raise
        raise MissingExtra(
            f"explore needs {error.name}: pip install 'optsched[explore]'"
        ) from error

    def started(address: str) -> None:
        click.echo(f"{address}\nCtrl-C ends it")  # also with --quiet, as nobody knows it else
        sys.stdout.flush()
        if not no_browser:
            # In a thread, as one in the terminal would hold up the server.
            threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()

    try:
        serve(int(port), started)
    except KeyboardInterrupt:
        print_lines("ended")
