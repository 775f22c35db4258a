"""``optsched dashboard``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from optsched.commands.command import Command
from optsched.commands.common import save_figure
from optsched.commands.options import Number
from optsched.commands.pilot_common import log_options, reading
from optsched.commands.rules.common import json_option
from optsched.commands.rules.stability import rule_options, update_rule
from optsched.commands.show import show

__all__ = ["dashboard"]


@click.command(cls=Command)
@click.argument("log", type=click.Path())
@log_options("warmup", "rate_of")
@rule_options
@click.option(
    "--rows", "window", type=Number("a whole number >= 4"), default=20, show_default=True,
    help="Rows that loss and gradient norm are compared with.",
)  # fmt: skip
@click.option("--plot", type=click.Path(), help="One-page figure: .png, .pdf, .svg.")
@click.option("--force", is_flag=True, help="Overwrite an existing figure.")
@json_option
def dashboard(log: str, as_json: bool, **options: Any) -> None:
    """What the LOG of a run, a file or its folder, warns of, and one page of its numbers."""
    from optsched.diagnostics.alarms import Limits, alarms
    from optsched.diagnostics.log import read_log
    from optsched.files import PLOT_SUFFIXES, check_writable

    rule, limits, plot = update_rule(options), Limits(window=options["window"]), options["plot"]
    if plot:
        check_writable(plot, options["force"], suffixes=PLOT_SUFFIXES)
    run = read_log(log, **reading(options))
    found = alarms(run, rule, limits)
    if plot:
        from optsched.plots.dashboard import plot_dashboard

        save_figure(plot_dashboard(run, rule, limits), plot, options["force"])
    fired = sum(one.step is not None for one in found)
    numbers = {
        "log": run.path,
        "run": run.run,
        "rows": len(run.steps),
        "last_step": int(run.steps[-1]),
        "alarms": [asdict(one) for one in found],
        "plot": plot,
    }
    show(
        numbers,
        as_json,
        title=f"{run.path}: {len(run.steps):,} rows to step {run.steps[-1]:,}; {fired} alarms",
        columns=("alarm", "first step", "value", "limit", "rows"),
        rows=[(one.name, one.step, one.value, one.limit, one.measured) for one in found],
        notes=[f"wrote {plot}"] if plot else [],
    )
