"""Command line: ``optsched`` and its commands, which live in `optsched.commands`."""

from __future__ import annotations

import sys

import click

from optsched.commands.compare import compare
from optsched.commands.compute import compute
from optsched.commands.dashboard import dashboard
from optsched.commands.export import export
from optsched.commands.fit import fit
from optsched.commands.phases import phase_diagram
from optsched.commands.plan import plan
from optsched.commands.predict import predict
from optsched.commands.reproduce import reproduce
from optsched.commands.rules.group import rules
from optsched.commands.scaling import scaling
from optsched.commands.solve import solve
from optsched.commands.spectrum import spectrum
from optsched.commands.verify import verify
from optsched.errors import BadFile, InvalidProblem, OptschedError, SolveFailed

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="optsched", prog_name="optsched")
def cli() -> None:
    """Optimal learning-rate schedules for SGD on power-law random features."""


for command in (
    solve,
    verify,
    compare,
    scaling,
    compute,
    phase_diagram,
    reproduce,
    rules,
    fit,
    predict,
    plan,
    spectrum,
    export,
    dashboard,
):
    cli.add_command(command)


def _fail(message: str, code: int) -> int:
    click.echo("optsched: " + " ".join(message.split()), err=True)
    return code


def main(argv: list[str] | None = None) -> int:
    """Run the command line; errors are one line on stderr.

    Returns
    -------
    int
        0; 1 if a solve did not converge; 2 for bad input; 130 if interrupted.
    """
    try:
        cli.main(argv, prog_name="optsched", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.ClickException as error:
        return _fail(error.format_message(), 2)
    except SolveFailed as error:
        return _fail(str(error), 1)
    except (InvalidProblem, BadFile) as error:
        return _fail(str(error), 2)
    except OptschedError as error:
        return _fail(str(error), 1)
    except OSError as error:  # standard output is gone or full
        return _fail(f"output: {error.strerror or error}", 1)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    return 0


def run() -> None:
    """Entry point of the installed command."""
    sys.exit(main())


if __name__ == "__main__":
    run()
