"""``optsched scaling``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from optsched.cache import use_compilation_cache
from optsched.commands.command import Command
from optsched.commands.common import (
    draw,
    make_problem,
    progress_bar,
)
from optsched.commands.options import (
    Horizons,
    Number,
    all_features,
    control_option,
    problem_options_without,
    schedule_type,
)
from optsched.commands.page import report_option
from optsched.commands.show import print_lines, print_table, tell
from optsched.errors import InvalidProblem, SolveFailed

if TYPE_CHECKING:
    from optsched.studies.scaling import Scaling

__all__ = ["scaling"]


@click.command(cls=Command)
@problem_options_without("horizon", "features")
@all_features
@click.option(
    "--horizons",
    type=Horizons(),
    help="LOW:HIGH:COUNT, evenly spaced in log T, or a list with commas. Required.",
)
@control_option("What the optimum schedules: any of eta, beta, nu, batch, ema, with commas.")
@click.option(
    "--schedule",
    type=schedule_type,
    default="optimal",
    show_default=True,
    help="optimal, constant, power, linear, cosine, wsd, or another family: what is followed.",
)
@click.option(
    "--skip",
    type=Number("a whole number >= 0"),
    default=0,
    show_default=True,
    help="Number of the shortest horizons that are not fitted.",
)
@click.option(
    "--plot",
    type=click.Path(),
    default=None,
    help="Figure of the losses, their fit and the local slopes: .png, .pdf, .svg.",
)
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--force", is_flag=True, help="Overwrite an existing figure.")
def scaling(**options: Any) -> None:
    """Follow a schedule along horizons, and fit how its loss falls."""
    from optsched.files import PLOT_SUFFIXES, check_writable

    horizons, skip = options["horizons"], options["skip"]
    if horizons is None:
        raise InvalidProblem("horizons", None, "LOW:HIGH:COUNT or a list")
    if not (skip >= 0 and float(skip).is_integer()):
        raise InvalidProblem("skip", skip, "a whole number >= 0")
    if options["plot"]:
        check_writable(options["plot"], options["force"], suffixes=PLOT_SUFFIXES)
    problem = make_problem({**options, "horizon": horizons[-1]})
    use_compilation_cache()
    from optsched.control.certificate import UNREFINED
    from optsched.studies.scaling import scaling as run

    with progress_bar("horizons", len(horizons)) as update:
        study = run(
            problem,
            horizons,
            schedule=options["schedule"],
            solve_options={"gap": UNREFINED},
            skip=int(skip),
            progress=lambda point: update(advance=1, description=f"T = {point.horizon:,}"),
        )
    if study.fit is None:
        raise SolveFailed("fewer than two horizons were solved: " + "; ".join(study.warnings))

    def figure() -> Any:
        from optsched.plots.scaling import plot_scaling

        return plot_scaling(study)

    draw(figure, options["plot"], options["force"])
    tell(options["as_json"], study.summary(), lambda: _report(study, options["plot"]))


def _report(study: Scaling, plot: str | None) -> None:
    """Print a row for each horizon, the exponents beside theory, and warnings."""
    p = study.problem
    print_lines(
        f"a = {p.a:g}, b = {p.b:g} ({p.phase} phase), N = {p.features:g}, m = {p.batch_size:g},"
        f" sigma = {p.noise:g}: {study.schedule} schedule, tuned: {', '.join(study.tuned)}"
    )
    assert study.fit is not None
    slopes = dict(zip(study.fit.horizons[1:].tolist(), study.fit.local_slopes, strict=True))
    rows = [
        (
            f"{point.horizon:,}",
            f"{point.excess_loss:.6g}",
            _number(slopes.get(float(point.horizon), math.nan)),
            f"{point.peak_eta:.4g}",
            "" if math.isnan(point.annealing_time) else f"{point.annealing_time:.4g}",
            "" if math.isnan(point.over_floor) else f"{point.over_floor:.4g}",
        )
        for point in study.points
    ]
    titles = "steps T", "excess loss", "local slope", "peak rate", "annealing time", "over floor"
    print_table(titles, rows, words=0)
    print_lines("")
    fits = study.fit, study.peak_fit, study.annealing_fit
    names = {
        "expected": "loss ~ T^-p",
        "expected_peak": "peak rate ~ T^-q",
        "expected_annealing": "annealing time ~ T^r",
    }
    fitted = []
    for (name, label), fit in zip(names.items(), fits, strict=True):
        if fit is None:
            continue
        sign = 1.0 if study.exponents[name][0] == fit.exponent else -1.0
        values = (sign * fit.exponent, fit.stderr, sign * fit.drift, sign * fit.extrapolated)
        theory = study.theory.get(name, math.nan)
        fitted.append((label, *map(_number, (*values, fit.extrapolated_stderr, theory))))
    titles = "exponent", "fitted", "standard error", "drift", "limit", "its error", "theory"
    print_table(titles, fitted)
    print_lines(*(f"warning: {line}" for line in study.warnings))
    if plot:
        print_lines(f"wrote {plot}")


def _number(value: float) -> str:
    # Plus 0, as a rate at its bound has an exponent of -0.
    return "" if math.isnan(value) else f"{round(value, 4) + 0.0:.4f}"
