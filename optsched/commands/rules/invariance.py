"""``optsched rules invariance``."""

from __future__ import annotations

import math
from typing import Any

import click

from optsched.commands.command import Command
from optsched.commands.common import save_figure
from optsched.commands.options import Number
from optsched.commands.rules.common import json_option, required, show

__all__ = ["invariance"]


@click.command(cls=Command)
@click.argument("runs", type=click.Path(), required=False)
@click.option(
    "--count", type=Number("a whole number"), default=5, help="Runs to propose.  [default: 5]"
)
@click.option("--plot", type=click.Path(), help="Figure of the collapse: .png, .pdf, .svg.")
@click.option("--force", is_flag=True, help="Overwrite an existing figure.")
@json_option
def invariance(as_json: bool, **options: Any) -> None:
    """Where a sweep over rate and weight decay follows their product; RUNS is a csv."""
    from optsched.checks import whole
    from optsched.files import PLOT_SUFFIXES, check_writable
    from optsched.rules.adamw.invariance import measure_invariance
    from optsched.rules.adamw.sweep_runs import read_sweep

    required(runs=options["runs"])
    count = whole("count", options["count"], 1, 1000)
    if options["plot"]:
        check_writable(options["plot"], options["force"], suffixes=PLOT_SUFFIXES)
    curves = read_sweep(options["runs"])
    found = measure_invariance(curves, count=count)
    if options["plot"]:
        from optsched.plots.invariance import plot_invariance

        save_figure(plot_invariance(curves, found), options["plot"], options["force"])
    pairs = (("equal lr", found.along_lr), ("equal lr * weight decay", found.along_gamma))
    rows = [(name, c.groups, c.late, c.late_stderr, c.late_residual) for name, c in pairs]
    angle = found.direction
    notes = [
        f"{found.ratio:.3g} +- {found.ratio_stderr:.2g} times tighter at equal lr * weight decay,"
        " in the last half of the steps"
        if found.ratio > 1.0
        else f"{1.0 / found.ratio:.3g} times tighter at equal lr, in the last half of the steps",
        *([] if math.isnan(found.seed_noise) else [f"noise of the seeds {found.seed_noise:.4g}"]),
    ]
    if not math.isnan(found.shift):
        notes.append(
            f"shift at step {found.shift:.4g} +- {found.shift_stderr:.2g},"
            f" {found.shift_in_decays:.3g} / (lr * weight decay)"
        )
    notes += [
        f"salient direction {angle.angle:.1f} +- {angle.angle_stderr:.1f} degrees from log lr"
        f" (45: their product), {angle.share:.1%} of the slope",
        "next: "
        + "; ".join(f"lr {p.lr:.3g}, weight decay {p.weight_decay:.3g}" for p in found.proposal),
        *found.notes,
        *([f"wrote {options['plot']}"] if options["plot"] else []),
    ]
    show(
        found.summary(),
        as_json,
        title=f"{found.runs} runs, {found.settings} settings, to step {found.steps[-1]:,.0f}",
        columns=("curves with", "groups", "change per factor e", "error", "mean residual"),
        rows=rows,
        notes=notes,
    )
