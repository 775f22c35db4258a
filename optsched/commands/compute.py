"""``optsched compute``."""

from __future__ import annotations

import math
from typing import Any

import click

from optsched.cache import use_compilation_cache
from optsched.commands.command import Command
from optsched.commands.common import make_problem, save_figure
from optsched.commands.options import Budgets, Number, problem_options_without, schedule_type
from optsched.commands.show import print_json, print_lines, print_table
from optsched.errors import InvalidProblem

__all__ = ["compute"]


@click.command(cls=Command)
@problem_options_without("horizon", "features", "samples")
@click.option(
    "--budgets",
    type=Budgets(1),
    help="Budgets C = N T, LOW:HIGH:COUNT, evenly spaced in log C, or a list. Required.",
)
@click.option(
    "--samples",
    type=Number("a number >= the batch size"),
    default=None,
    help="Number of samples there are, which bounds steps times batch size.  [default: no bound]",
)
@click.option(
    "--schedule",
    type=schedule_type,
    default="optimal",
    show_default=True,
    help="optimal, constant, power, linear, cosine, wsd, or another family.",
)
@click.option("--plot", type=click.Path(), help="Figure of losses and splits: .png, .pdf, .svg.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--force", is_flag=True, help="Overwrite an existing figure.")
def compute(**options: Any) -> None:
    """Split budgets of compute into features N and steps T."""
    from optsched.files import PLOT_SUFFIXES, check_writable

    budgets = options["budgets"]
    if budgets is None:
        raise InvalidProblem("budgets", None, "LOW:HIGH:COUNT or a list")
    if options["plot"]:
        check_writable(options["plot"], options["force"], suffixes=PLOT_SUFFIXES)
    fields = {name: value for name, value in options.items() if name != "samples"}
    problem = make_problem({**fields, "horizon": 1})
    use_compilation_cache()
    from optsched.studies.compute import compute_optimal

    study = compute_optimal(
        problem, budgets, schedule=options["schedule"], samples=options["samples"]
    )
    if options["plot"]:
        save_figure(_figure(study), options["plot"], options["force"])
    if options["as_json"]:
        print_json(study.summary())
    else:
        _report(study, options["plot"])


def _figure(study: Any) -> Any:
    from matplotlib.figure import Figure

    from optsched.plots.compute import plot_compute, plot_split

    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_compute(left, study)
    plot_split(right, study)
    return figure


def _report(study: Any, plot: str | None) -> None:
    """Print a row for each budget, the exponents beside theory, and warnings."""
    p = study.problem
    print_lines(
        f"a = {p.a:g}, b = {p.b:g} ({p.phase} phase), m = {p.batch_size:g}, sigma = {p.noise:g}:"
        f" {study.schedule} schedule"
    )
    titles = "compute C", "features N", "within 1 %", "steps T", "excess loss", "peak rate"
    rows = [
        (
            f"{split.budget:.4g}",
            f"{split.best.features:,.0f}",
            f"{split.features_low:,.0f} to {split.features_high:,.0f}",
            f"{split.best.horizon:,}",
            f"{split.best.excess_loss:.6g}",
            f"{split.best.peak_eta:.4g}",
        )
        for split in study.splits
    ]
    print_table(titles, rows, words=0)
    fitted = []
    for name, fit in study.fits.items():
        numbers = (study.exponent(name), fit.stderr, study.theory.get(name, math.nan))
        shown = ("" if math.isnan(x) else f"{x:.4f}" for x in numbers)
        fitted.append((name.replace("_", " "), *shown))
    if fitted:
        print_table(("exponent in C", "fitted", "standard error", "theory"), fitted)
    print_lines(*(f"warning: {line}" for line in study.warnings))
    if plot:
        print_lines(f"wrote {plot}")
