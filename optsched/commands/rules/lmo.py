"""``optsched rules lmo``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from optsched.commands.command import Command
from optsched.commands.common import save_figure
from optsched.commands.options import Choice, Number
from optsched.commands.rules.common import json_option, required, show
from optsched.errors import InvalidProblem

if TYPE_CHECKING:
    from optsched.rules.lmo.transfer import Transfer

__all__ = ["lmo"]

BUDGET = "a finite number >= 1"


@click.command(cls=Command)
@click.option(
    "--regime",
    type=Choice(("fixed-momentum", "fixed-batch", "joint")),
    help="fixed-momentum, fixed-batch or joint: what is tuned. Required.",
)
@click.option("--from-tokens", type=Number(BUDGET), help="Tokens of the run that was tuned.")
@click.option("--to-tokens", type=Number(BUDGET), help="Tokens of the run to come.")
@click.option(
    "--from-horizon", "from_steps", type=Number(BUDGET), help="Steps of the run that was tuned."
)
@click.option("--to-horizon", "to_steps", type=Number(BUDGET), help="Steps of the run to come.")
@click.option("--lr", type=Number("a finite number > 0"), help="Its learning rate. Required.")
@click.option("--momentum", type=Number("a number in [0, 1)"), help="Its momentum. Required.")
@click.option("--batch", type=Number(BUDGET), help="Its batch size, in tokens.")
@click.option("--plot", type=click.Path(), help="Figure of the flat valley at the new budget.")
@json_option
@click.option("--force", is_flag=True, help="Overwrite an existing figure.")
def lmo(as_json: bool, plot: str | None, force: bool, **options: Any) -> None:
    """Carry rate, momentum and batch size to another budget (Adam, Muon, normalised SGD)."""
    from optsched.files import PLOT_SUFFIXES, check_writable
    from optsched.rules.lmo.transfer import transfer

    required(**{name: options[name] for name in ("lr", "momentum")})
    if plot:
        check_writable(plot, force, suffixes=PLOT_SUFFIXES)
    moved = transfer(**options)
    if plot:
        _plot(moved, plot, force)
    names = ("lr", "momentum", "batch")
    show(
        moved.summary(),
        as_json,
        title=f"{moved.regime}: {moved.start:g} -> {moved.end:g} {moved.budget}",
        columns=("", "before", "after", "power of the budget"),
        rows=[(name, options[name], getattr(moved, name), _power(moved, name)) for name in names],
        notes=[f"warning: {line}" for line in moved.warnings] + ([f"wrote {plot}"] if plot else []),
    )


def _power(moved: Transfer, name: str) -> str:
    if name == "momentum":
        return f"1 - momentum: {moved.exponents['alpha']:+.4g}"
    return f"{moved.exponents[name]:+.4g}"


def _plot(moved: Transfer, path: str, force: bool) -> None:
    """The valley of the problem of which the new values are a leading-order optimum."""
    import numpy as np
    from matplotlib.figure import Figure

    from optsched.plots.lmo import plot_valley
    from optsched.rules.lmo.bound import LMOBound
    from optsched.rules.lmo.valley import valley

    if moved.batch is None or moved.steps is None:
        raise InvalidProblem("plot", path, "a batch size too; give --batch")
    tokens = moved.steps * moved.batch
    problem = LMOBound.from_tuned(moved.lr, moved.momentum, moved.batch, tokens)
    batches = moved.batch * np.geomspace(1e-2, 1e2, 41)
    figure = Figure(figsize=(5.2, 4.0), layout="constrained")
    shown = valley(problem, tokens, batches[batches <= tokens])
    plot_valley(figure.subplots(), shown, point=(moved.batch, moved.alpha))
    save_figure(figure, path, force)
