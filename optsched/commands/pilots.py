"""``optsched pilots``."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from optsched.commands.command import Command
from optsched.commands.options import Choice, Number
from optsched.commands.pilot_common import whole_steps
from optsched.commands.show import print_json, show
from optsched.commands.values import Horizons, Peaks
from optsched.errors import BadFile, InvalidProblem

if TYPE_CHECKING:
    from optsched.pilot.design import Design
    from optsched.pilot.fitting import Fit

__all__ = ["pilots"]

TABLE = "pilots.csv"
OF_THE_PRIOR = ("optimiser", "weight_decay", "init_std", "expected_loss")


@click.command(cls=Command)
@click.option(
    "--budget", type=Number("a whole number of steps"), help="Steps of all pilots. Required."
)
@click.option(
    "--horizon",
    type=Number("a whole number of steps"),
    help="Steps of the run that is to be planned. Required.",
)
@click.option(
    "--law",
    type=click.Path(),
    help="Law file of the first pilots, that optsched fit wrote; by priors alone if not given.",
)
@click.option(
    "--peaks",
    type=Peaks(1),
    help="Peak rates in question, LOW:HIGH:COUNT or a list. Required without --law.",
)
@click.option(
    "--lengths",
    type=Horizons(1),
    help="Lengths of the runs, a list.  [default: an eighth to a half of the budget]",
)
@click.option(
    "--shapes",
    type=Choice(("constant", "cosine", "wsd", "drop"), many=True),
    default="constant,cosine,wsd,drop",
    show_default=True,
    help="Schedules of the runs, with commas; drop: to a quarter, half-way.",
)
@click.option(
    "--count", type=Number("a whole number >= 1"), default=12, show_default=True, help="Most runs."
)
@click.option(
    "--warmup",
    type=Number("a whole number of steps >= 0"),
    help="Steps of a linear warm-up; that of the law, or a fiftieth of the horizon or less.",
)
@click.option(
    "--optimiser",
    type=Choice(("adamw", "adam", "sgd", "other")),
    help="Without --law: adamw, adam (no decay), sgd, or other: normalised updates."
    "  [default: adamw]",
)
@click.option("--weight-decay", type=Number("a number >= 0"), help="Without --law.  [default: 0.1]")
@click.option(
    "--init-std",
    type=Number("a number > 0"),
    help="Without --law: standard deviation of the weight matrices at the start.",
)
@click.option(
    "--expected-loss",
    type=Number("a number > 0"),
    help="Without --law: about what the longest pilot ends with.  [default: 3]",
)
@click.option("--output", type=click.Path(), help="Folder for a csv and the schedule files.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def pilots(
    budget: float | None,
    horizon: float | None,
    law: str | None,
    output: str | None,
    as_json: bool,
    force: bool,
    **options: Any,
) -> None:
    """Choose pilot runs: those that leave the plan of a run least uncertain, for their steps."""
    for name, value in (("budget", budget), ("horizon", horizon)):
        if value is None:
            raise InvalidProblem(name, None, "a whole number of steps")
    assert budget is not None and horizon is not None
    if law is not None:
        for name in OF_THE_PRIOR:
            if options[name] is not None:
                raise InvalidProblem(name, options[name], "nothing beside --law, which knows it")
    from optsched.pilot.design import design

    found = _fit(law)
    if output is not None:
        _check_folder(Path(output), force)
    count = options["count"]
    if not (count >= 1 and count == int(count)):
        raise InvalidProblem("count", count, "a whole number >= 1")
    result = design(
        whole_steps("budget", budget, 1),
        whole_steps("horizon", horizon, 1),
        fit=found,
        peaks=options["peaks"],
        lengths=options["lengths"],
        shapes=[one.strip() for one in options["shapes"].split(",")],
        warmup=None if options["warmup"] is None else whole_steps("warmup", options["warmup"]),
        law=None if found is not None else _law(options),
        loss=3.0 if options["expected_loss"] is None else options["expected_loss"],
        most=int(count),
    )
    files = [] if output is None else _write(result, Path(output), force)
    if as_json:
        print_json(_numbers(result, files))
    else:
        _report(result, found, int(horizon), output)


def _fit(law: str | None) -> Fit | None:
    from optsched.pilot.lawfile import load_fit

    return None if law is None else load_fit(law)


def _law(options: dict[str, Any]) -> Any:
    from optsched.pilot.laws import NormLaw

    return NormLaw(
        optimiser=options["optimiser"] or "adamw",
        weight_decay=options["weight_decay"],
        init_std=options["init_std"],
    )


def _check_folder(folder: Path, force: bool) -> None:
    """Refuse before the work what could not be written after it."""
    if folder.exists() and not folder.is_dir():
        raise BadFile(f"{folder}: is a file, expected a folder")
    if folder.is_dir() and os.listdir(folder) and not force:
        raise BadFile(f"{folder}: is not empty; give another folder, or pass overwrite=True")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadFile(f"{folder}: cannot be made: {error.strerror or error}") from None


def _rows(result: Design) -> list[dict[str, Any]]:
    return [
        {
            "name": run.name,
            "peak": run.peak,
            "shape": run.shape,
            "steps": run.steps,
            "warmup": run.warmup,
        }
        for run in result.runs
    ]


def _write(result: Design, folder: Path, force: bool) -> list[str]:
    """The table, and a schedule file a run; their paths."""
    from optsched.studies.tables import write_table

    rows = []
    for run, row in zip(result.runs, _rows(result), strict=True):
        file = f"{run.name}.json"
        run.schedule.save(folder / file, overwrite=force)
        rows.append(row | {"file": file})
    write_table(folder / TABLE, rows, overwrite=force)
    return [str(folder / TABLE), *(str(folder / row["file"]) for row in rows)]


def _numbers(result: Design, files: list[str]) -> dict[str, Any]:
    return {
        "runs": _rows(result),
        "cost": result.cost,
        "budget": result.budget,
        "error": result.error,
        "error_before": result.before,
        "error_three": result.three,
        "error_sweep": result.grid,
        "files": files,
    }


def _report(result: Design, found: Fit | None, horizon: int, output: str | None) -> None:
    rows = [
        (row["name"], f"{row['peak']:.4g}", row["shape"], f"{row['steps']:,}")
        for row in _rows(result)
    ]
    known = "the priors of the norm law" if found is None else f"the fit of {found.law.name}"
    usual = (("the usual three at one peak", result.three), ("a sweep of the peak", result.grid))
    beside = [f"{value:.4f} with {name}" for name, value in usual if not math.isnan(value)]
    notes = [
        f"standard error of the differences between plans of {horizon:,} steps, by {known},"
        f" linearised: {result.error:.4f} nats with these, {result.before:.4f} without",
        *([f"at that cost: {', '.join(beside)}"] if beside else []),
        "where training follows the law: it compares pilots, and is not the error of the plan",
        *([f"wrote {Path(output) / TABLE} and {len(rows)} schedule files"] if output else []),
    ]
    title = f"{len(rows)} pilots, {result.cost:,} of {result.budget:,} steps"
    show({}, False, title=title, columns=("run", "peak", "shape", "steps"), rows=rows, notes=notes)
