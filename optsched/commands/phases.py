"""``optsched phase-diagram``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optsched.cache import use_compilation_cache
from optsched.commands.command import Command
from optsched.commands.common import draw, sweep_progress
from optsched.commands.options import (
    Grid,
    Horizons,
    Number,
    all_features,
    control_option,
    families_type,
    problem_options_without,
)
from optsched.commands.page import report_option
from optsched.commands.show import print_lines, print_table, tell
from optsched.errors import InvalidProblem

if TYPE_CHECKING:
    from optsched.studies.sweep.shards import Stopping

__all__ = ["phase_diagram"]

TABLE = "phases.csv"


@click.command("phase-diagram", cls=Command)
@click.option(
    "--a", "grid_a", type=Grid(1), help="Exponents of the target, LOW:HIGH:COUNT. Required."
)
@click.option(
    "--b", "grid_b", type=Grid(1), help="Exponents of the covariance, LOW:HIGH:COUNT. Required."
)
@click.option(
    "--horizons",
    type=Horizons(),
    default="1e3:1e8:6",
    show_default=True,
    help="Horizons of every cell, LOW:HIGH:COUNT, evenly spaced in their logarithm.",
)
@all_features
@problem_options_without("a", "b", "horizon", "samples", "features")
@control_option("What is scheduled, with commas; with beta or nu, also where that pays.")
@click.option(
    "--families",
    type=families_type,
    default="constant,linear,cosine,wsd",
    show_default=True,
    help="Families whose regret is measured at the longest horizon, with commas.",
)
@click.option("--output", type=click.Path(), help="Folder of the sweep, which resumes. Required.")
@click.option("--plot", type=click.Path(), help="Figure of the maps: .png, .pdf, .svg.")
@click.option(
    "--workers",
    type=Number("a whole number >= 1"),
    default=None,
    help="Number of processes.  [default: one a core]",
)
@click.option("--dask", default=None, help="Address of the scheduler of a Dask cluster to run on.")
@click.option(
    "--shard",
    help="Do part I/N of the cells only, as a task of an array job; others share the folder.",
)
@click.option("--retry-failed", is_flag=True, help="Do cells again that failed in an earlier run.")
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--force", is_flag=True, help="Overwrite an existing figure.")
def phase_diagram(**options: Any) -> None:
    """Map exponents, annealing and regrets over a plane of (a, b).

    SIGTERM and SIGUSR1 finish the cells in hand; the exit code is then 143.
    """
    from optsched.studies.sweep.shards import STOPPED, stopping

    with stopping() as stop:
        _map(stop, options)
    if stop.by:
        raise click.exceptions.Exit(STOPPED)


def _map(stop: Stopping, options: dict[str, Any]) -> None:
    from optsched.control.problem import Problem
    from optsched.files import PLOT_SUFFIXES, check_writable
    from optsched.studies.sweep.shards import Shard

    for field in ("grid_a", "grid_b", "output"):
        if options[field] is None:
            allowed = "a folder" if field == "output" else "LOW:HIGH:COUNT, such as 1.2:4:15"
            raise InvalidProblem(field, None, allowed)
    if options["plot"]:
        check_writable(options["plot"], options["force"], suffixes=PLOT_SUFFIXES)
    shard = None if options["shard"] is None else Shard.parse(options["shard"])
    names = ("features", "batch_size", "noise", "eta_max", "warmup", "eta_min", "max_change")
    names += ("momentum", "beta", "nu", "ema", "weight_decay", "controls")
    given = {name: options[name] for name in names}
    # Exponents of its own only have to be allowed: a cell brings its own.
    like = Problem(options["grid_a"][0], options["grid_b"][0], options["horizons"][-1], **given)
    families = [name.strip() for name in options["families"].split(",") if name.strip()]
    use_compilation_cache()
    with _place(options) as place, sweep_progress("cells") as report:
        from optsched.studies.phases import phase_diagram as run

        diagram = run(
            options["grid_a"],
            options["grid_b"],
            options["horizons"],
            like=like,
            families=families,
            folder=options["output"],
            retry_failed=options["retry_failed"],
            shard=shard,
            stop=stop,
            progress=report,
            **place,
        )
    missing = len(diagram.sweep.missing)
    if not missing:
        # Shards that end at once may all write it: each time it is the whole.
        diagram.save(Path(options["output"]) / TABLE, overwrite=True)

        def figure() -> Any:
            from optsched.plots.phases import plot_phase_diagram

            return plot_phase_diagram(diagram)

        draw(figure, options["plot"], options["force"])
    tell(options["as_json"], diagram.summary(), lambda: _report(diagram, options))
    if stop.by:
        click.echo(f"optsched: stopped by {stop.by}; run the same again to go on", err=True)


def _place(options: dict[str, Any]) -> Any:
    """Context of the keywords that say where the cells run."""
    address, workers = options["dask"], options["workers"]
    if address is None:
        if workers is not None and not (workers >= 1 and float(workers).is_integer()):
            raise InvalidProblem("workers", workers, "a whole number >= 1")
        return nullcontext({"workers": None if workers is None else int(workers)})
    if workers is not None:
        raise InvalidProblem("workers", workers, "nothing beside --dask, which has its own")
    return _on_dask(address)


@contextmanager
def _on_dask(address: str) -> Iterator[dict[str, Any]]:
    from optsched.studies.sweep.run import dask_executor

    with dask_executor(address) as executor:
        yield {"executor": executor}


def _report(diagram: Any, options: dict[str, Any]) -> None:
    """A few lines about the whole, and what failed."""
    import numpy as np

    from optsched.studies.phases import FIELDS

    rows, sweep = diagram.sweep.rows, diagram.sweep
    there = [row for row in rows if row.status != "missing"]
    left = f"{len(sweep.missing)} left, " if sweep.missing else ""
    each = sum(row.seconds for row in there) / max(len(there), 1)
    print_lines(
        f"{len(rows)} cells, {left}{len(diagram.failed)} failed, {sweep.resumed} found finished;"
        f" {each:.2g} s a cell",
        *(f"{name} could not be used and was done again" for name in sweep.corrupt),
    )
    if sweep.missing:
        print_lines(f"cells so far in {Path(options['output']) / 'manifest.csv'}")
        return
    table = []
    for name in diagram.names:
        numbers = np.nanquantile(diagram.field(name), [0.0, 0.5, 1.0])
        table.append((FIELDS[name].label, *(f"{x:.3g}" for x in numbers)))
    print_table(("over the cells", "least", "median", "largest"), table)
    for row in diagram.failed:
        print_lines(f"a = {row.cell['a']:g}, b = {row.cell['b']:g} failed: {row.error}")
    print_lines(f"table in {Path(options['output']) / TABLE}")
    if options["plot"]:
        print_lines(f"figure in {options['plot']}")
