"""``optsched compare --judge convex``: the bound of convex optimisation as the judge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click
from click.core import ParameterSource

from optsched.commands.common import draw, progress_bar
from optsched.commands.show import show, tell
from optsched.errors import InvalidProblem

__all__ = ["compare_bounds", "horizon_alone"]

OTHERS = (
    "horizon",
    "judge",
    "families",
    "peak_only",
    "output",
    "plot",
    "report",
    "as_json",
    "force",
)
NUMBERS = ("bound", "regret", "scaled_peak", "scaled_bound", "evaluations")


def horizon_alone(context: click.Context) -> float:
    """The horizon, if no other option of a problem is given."""
    for option in context.command.params:
        name = str(option.name)
        given = context.get_parameter_source(name) is not ParameterSource.DEFAULT
        if given and name not in OTHERS:
            allowed = "none with --judge convex, whose bound knows the horizon alone"
            raise InvalidProblem(name, context.params[name], allowed)
    if context.params["horizon"] is None:
        raise InvalidProblem("horizon", None, "a whole number of steps")
    return context.params["horizon"]


def compare_bounds(
    horizon: float,
    families: Sequence[str] | None,
    free: Sequence[str] | None,
    options: Mapping[str, Any],
) -> None:
    """Run the comparison, write its files, and print it."""
    from optsched.studies.compare.convex import compare_convex

    def progress(what: str, done: int, total: int) -> None:
        update(description=what, completed=done, total=total)

    with progress_bar() as update:
        result = compare_convex(horizon, families, free=free, progress=progress)  # type: ignore[arg-type]
    if options["output"]:
        from optsched.studies.tables import write_table

        write_table(options["output"], _table(result), overwrite=options["force"])

    def figure() -> Any:
        from optsched.plots.compare import plot_bounds_figure

        return plot_bounds_figure(result)

    draw(figure, options["plot"], options["force"])
    written = [options["output"], options["plot"]]
    tell(options["as_json"], result.summary(), lambda: _report(result, written))


def _table(result: Any) -> list[dict[str, Any]]:
    """The optimum and every family as rows with the same columns."""
    own = {name: None for member in result.members for name in member.options}
    columns = ["schedule", "peak", *own, *NUMBERS, "failed"]
    rows = [result.row(result.optimum), *result.rows()]
    flat = [row | row.get("options", {}) for row in rows]
    return [{name: row.get(name) for name in columns} for row in flat]


def _report(result: Any, written: Sequence[str | None]) -> None:
    """Print the table for people."""
    columns = ["schedule", "peak rate", "bound", "regret"]
    columns += ["other hyperparameters"] if result.free is None else []
    rows = []
    for member in (result.optimum, *result.members):
        regret = "" if member is result.optimum else f"{100.0 * result.regret(member):+.3g} %"
        options = ", ".join(f"{name} {value:.3g}" for name, value in member.options.items())
        cells = [member.name, f"{member.peak:.4g}", f"{member.bound.value:.6g}", regret, options]
        rows.append(cells[: len(columns)])
    notes = [] if result.free is None else ["the peak rate alone is tuned, all else at defaults"]
    notes += ["rates in units of D/G, bounds in units of D G: any D and G give this order"]
    notes += [f"warning: {line}" for line in result.warnings]
    count = sum(member.evaluations for member in result.members)
    notes += [f"{len(result.members)} families from {count:,} bounds"]
    title = (
        f"T = {result.horizon:,} steps; worst-case bound of convex optimisation,"
        f" no schedule is below {result.least:.6g}"
    )
    notes += [f"wrote {path}" for path in written if path]
    show({}, False, title=title, columns=columns, rows=rows, notes=notes)
