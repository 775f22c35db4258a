"""``optsched compare``."""

from __future__ import annotations

from typing import Any

import click

from optsched.cache import use_compilation_cache
from optsched.commands.bounds import compare_bounds, horizon_alone
from optsched.commands.command import Command
from optsched.commands.common import (
    draw,
    make_problem,
    progress_bar,
)
from optsched.commands.options import Choice, control_option, family_names, problem_options_without
from optsched.commands.page import report_option
from optsched.commands.show import percent, print_lines, print_table, tell
from optsched.errors import InvalidProblem

__all__ = ["compare"]

JUDGES = ("power-law", "convex")


@click.command(cls=Command)
@problem_options_without("warmup", "eta_min", "max_change")
@control_option("What the optimum schedules, with commas; the families schedule the rate alone.")
@click.option(
    "--families",
    type=Choice(lambda: ["all", *family_names()], many=True),
    help="Names with commas, or all.  [default: the common ones]",
)
@click.option(
    "--judge",
    type=Choice(JUDGES),
    default="power-law",
    show_default=True,
    help="power-law: the loss on the problem. convex: the worst-case bound of convex optimisation,"
    " to which only --horizon matters.",
)
@click.option("--peak-only", is_flag=True, help="Tune the peak rate alone, all else at defaults.")
@click.option("--output", type=click.Path(), default=None, help="Table of the families: .csv.")
@click.option(
    "--plot",
    type=click.Path(),
    default=None,
    help="Figure of the best schedules and all regrets: .png, .pdf, .svg.",
)
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--force", is_flag=True, help="Overwrite existing output files.")
@click.pass_context
def compare(context: click.Context, **options: Any) -> None:
    """Tune the schedules people use, and say how far each is from the optimum."""
    from optsched.files import PLOT_SUFFIXES, check_writable

    convex = options["judge"] == "convex"
    problem: Any = horizon_alone(context) if convex else make_problem(options)
    families = _families(options["families"])
    for key, suffixes in (("output", (".csv",)), ("plot", PLOT_SUFFIXES)):
        if options[key]:
            check_writable(options[key], options["force"], suffixes=suffixes)
    free = () if options["peak_only"] else None
    if convex:
        compare_bounds(problem, families, free, options)
        return
    use_compilation_cache()
    from optsched.studies.compare.families import compare as run

    with progress_bar() as update:
        result = run(
            problem,
            families,
            free=free,
            progress=lambda what, done, total: update(
                description=what, completed=done, total=total
            ),
        )
    if options["output"]:
        _write(result, options["output"], options["force"])

    def figure() -> Any:
        from optsched.plots.compare import plot_comparison_figure

        return plot_comparison_figure(result)

    draw(figure, options["plot"], options["force"])
    written = options["output"], options["plot"]
    tell(options["as_json"], result.summary(), lambda: _report(result, *written))


def _families(names: str | None) -> list[str] | None:
    from optsched.schedules.families import FAMILIES

    if names is None:
        return None
    if names.strip() == "all":
        return list(FAMILIES)
    given = [name.strip() for name in names.split(",")]
    if "" in given:
        raise InvalidProblem("families", names, "all, or names with commas: " + ", ".join(FAMILIES))
    return given


def _write(result: Any, path: str, force: bool) -> None:
    """The optimum and every family as rows of a table."""
    from optsched.studies.tables import write_table

    optimum = result.optimum
    first = {
        "schedule": "optimal",
        "peak": float(optimum.controls["eta"].max()),
        "excess_loss": optimum.excess_loss,
        "bias": optimum.bias,
        "variance": optimum.variance,
        "regret": 0.0,
        "replay_error": optimum.replay.error,
    }
    rows = [first, *(row | row.pop("options", {}) for row in result.rows())]
    own = {name: None for member in result.members for name in member.options}
    numbers = ["excess_loss", "bias", "variance", "regret", "replay_error", "evaluations"]
    columns = ["schedule", "peak", "at_bound", *own, *numbers, "failed"]
    write_table(path, rows, columns, overwrite=force)


def _report(result: Any, output: str | None, plot: str | None) -> None:
    """Print the table for people."""
    from optsched.commands.report import cells, describe, floor_words

    problem, optimum = result.problem, result.optimum
    titles = ["schedule", "peak rate", "excess loss", "bias", "variance", "regret"]
    titles += ["other hyperparameters"] if result.free is None else []
    best = "optimal" if problem.rate_only else "best found"
    rows = [cells(best, optimum.controls["eta"].max(), optimum)]
    for member in result.members:
        name = member.name + (" (at bound)" if member.at_bound else "")
        options = ", ".join(f"{name} {value:.3g}" for name, value in member.options.items())
        row = [*cells(name, member.peak, member.replay), percent(result.regret(member)), options]
        rows.append(row[: len(titles)])
    print_lines(describe(problem))
    print_table(titles, rows, bold=(0,))
    if result.free is not None:
        print_lines("the peak rate alone is tuned, all else at defaults")
    proof = optimum.certificate
    if problem.rate_only:
        print_lines(
            f"no schedule with rates up to {problem.eta_top:.6g} is below {proof.lower_bound:.6g}: "
            f"certified within {100 * proof.certified_gap:.2g} % of optimal"
        )
    print_lines(*floor_words(proof.floor, optimum.excess_loss))
    print_lines(
        *(f"warning: {line}" for line in result.warnings),
        f"KKT residual {proof.kkt_residual:.1e}; {len(result.members)} families from"
        f" {sum(m.evaluations for m in result.members):,} losses, {result.seconds:.1f} s",
        *(f"wrote {path}" for path in (output, plot) if path),
    )
