"""Command line: ``optsched`` and its commands, which live in `optsched.commands`."""

from __future__ import annotations

import sys

import click

from optsched.commands.lazy import LazyGroup

__all__ = ["main"]

HERE = "optsched.commands"
SECTIONS = {
    "Schedules of the model": {
        "solve": (f"{HERE}.solve:solve", "The schedule of the least loss after T steps, proven."),
        "verify": (f"{HERE}.verify:verify", "Replay a schedule file on the exact recursion."),
        "compare": (f"{HERE}.compare:compare", "Tune what people use; how far it is from best."),
        "explore": ("optsched.explore.command:explore", "All of it on a page in the browser."),
    },
    "Real runs": {
        "pilots": (f"{HERE}.pilots:pilots", "Which pilot runs to make for a budget of steps."),
        "fit": (f"{HERE}.fit:fit", "Fit a law of the loss to the logs of pilot runs."),
        "predict": (f"{HERE}.predict:predict", "Predict the loss of schedules, with intervals."),
        "plan": (f"{HERE}.plan:plan", "The schedule of the least predicted loss."),
        "track": (f"{HERE}.track:track", "A run beside its law: on track? Where will it end?"),
        "dashboard": (f"{HERE}.dashboard:dashboard", "What the log of a run warns of, on a page."),
        "export": (f"{HERE}.export:export", "A schedule as code for torch, optax, Keras, or csv."),
        "rules": (f"{HERE}.rules.group:rules", "Transfer, batch size, averaging, stability, ..."),
    },
    "Studies": {
        "scaling": (f"{HERE}.scaling:scaling", "How loss, rate and annealing scale with steps."),
        "compute": (f"{HERE}.compute:compute", "Split budgets of compute: features and steps."),
        "phase-diagram": (f"{HERE}.phases:phase_diagram", "Exponents and regrets on a plane."),
        "spectrum": (f"{HERE}.spectrum:spectrum", "Measure a and b from features and targets."),
        "reproduce": (f"{HERE}.reproduce:reproduce", "The figures of the paper, with numbers."),
    },
}


@click.group(
    cls=LazyGroup,
    sections=SECTIONS,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="optsched", prog_name="optsched")
def cli() -> None:
    """Optimal learning-rate schedules for SGD on power-law random features."""


def _fail(message: str, code: int) -> int:
    click.echo("optsched: " + " ".join(message.split()), err=True)
    return code


def main(argv: list[str] | None = None) -> int:
    """Run the command line; errors are one line on stderr.

    Returns
    -------
    int
        0; 1 if a solve did not converge; 2 for bad input; 130 if interrupted; 141 if nobody reads
        the output.
    """
    try:
        code = cli.main(argv, prog_name="optsched", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message())
        return 2
    except click.UsageError as error:
        return _fail(error.format_message(), 2)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except OSError as error:  # standard output is gone or full
        return _fail(f"output: {error.strerror or error}", 1)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", 130)
    return code or 0


if __name__ == "__main__":
    sys.exit(main())
