"""``optsched predict``."""

from __future__ import annotations

import math
from typing import Any

import click
from click.shell_completion import CompletionItem

from optsched.commands.command import Command
from optsched.commands.options import Number, family_names
from optsched.commands.pilot_common import (
    comparison_rows,
    level_option,
    log_options,
    reading,
    show_comparison,
    warn,
    whole_steps,
)
from optsched.commands.show import print_json
from optsched.commands.tokens import batch_option, short, steps_of, tokens_option
from optsched.errors import BadFile, InvalidProblem

__all__ = ["predict"]


def _names_and_files(ctx: Any, param: Any, incomplete: str) -> list[CompletionItem]:
    """Families, and what the shell knows of files."""
    families = [CompletionItem(name) for name in family_names() if name.startswith(incomplete)]
    return [*families, CompletionItem(incomplete, type="file")]


@click.command(cls=Command)
@click.argument("schedules", nargs=-1, type=click.Path(), shell_complete=_names_and_files)
@click.option("--law", type=click.Path(), help="Law file that optsched fit wrote. Required.")
@log_options("loss")
@click.option(
    "--horizon", type=Number("a whole number of steps"), help="Steps of a family given by name."
)
@tokens_option
@batch_option("Tokens of an update: lengths are told in tokens too.")
@click.option("--peak", type=Number("a number > 0"), help="Peak of a family given by name.")
@click.option(
    "--weight-decay",
    type=Number("a number >= 0"),
    help="Of the runs to predict, if not that of the pilot runs.",
)
@level_option
@click.option("--output", type=click.Path(), help="csv to write: step,lr,loss,lo,hi; one schedule.")
@click.option("--plot", type=click.Path(), help="Figure to write: .png, .pdf or .svg.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def predict(
    schedules: tuple[str, ...],
    law: str | None,
    horizon: float | None,
    tokens: float | None,
    batch: float | None,
    peak: float | None,
    weight_decay: float | None,
    level: float,
    output: str | None,
    plot: str | None,
    as_json: bool,
    force: bool,
    **options: Any,
) -> None:
    """Predict the loss of SCHEDULES: files (csv step,lr[,loss], or ours) or names of families.

    The last row of a csv is the last step. A family (cosine, linear, wsd_linear, ...) needs
    --horizon, and has the peak and the warm-up of the pilot runs unless told.
    """
    from optsched.files import PLOT_SUFFIXES, check_writable

    if law is None:
        raise InvalidProblem("law", None, "the file of a law, that optsched fit writes")
    if not schedules:
        raise InvalidProblem("schedules", "none", "schedule files or names of families")
    if output is not None and len(schedules) > 1:
        raise InvalidProblem("output", output, "one schedule")
    if output is not None:
        check_writable(output, force, suffixes=(".csv",))
    if plot is not None:
        check_writable(plot, force, suffixes=PLOT_SUFFIXES)
    horizon = steps_of(horizon, tokens, batch)
    if peak is not None and not 0.0 < peak < math.inf:
        raise InvalidProblem("peak", peak, "a finite number > 0")
    from optsched.pilot.lawfile import load_fit
    from optsched.pilot.prediction import compare
    from optsched.pilot.prediction import predict as run
    from optsched.schedules.families import find_family
    from optsched.studies.tables import write_table

    found = load_fit(law)
    warmup = found.warmup if options["warmup"] is None else options["warmup"]
    how = reading(options)
    given, files = {}, {}
    for text in schedules:
        name, schedule, steps = _schedule(text, how, horizon, peak or found.peaks[1], warmup)
        if name in given:
            raise InvalidProblem("schedules", name, "different names")
        given[name], files[name] = (schedule, steps), text
    how_sure = {"level": level, "weight_decay": weight_decay}
    table = compare(found, {name: one for name, (one, _) in given.items()}, **how_sure)
    curves = {name: run(found, one, steps, **how_sure) for name, (one, steps) in given.items()}
    if output is not None:
        (curve,) = curves.values()
        table_columns = {
            "step": curve.steps.tolist(),
            "lr": curve.rate.tolist(),
            "loss": curve.loss.tolist(),
            "lo": curve.lower.tolist(),
            "hi": curve.upper.tolist(),
        }
        rows: list[dict[str, Any]] = [
            dict(zip(table_columns, row, strict=True))
            for row in zip(*table_columns.values(), strict=True)
        ]
        write_table(output, rows, overwrite=force)
    if plot is not None:
        logs = {name: files[name] for name, (_, steps) in given.items() if steps is not None}
        _plot(curves, logs, how, plot, force)
    if as_json:
        warnings = list(table.warnings)
        shown = comparison_rows(table)
        if batch is not None:
            shown = [row | {"tokens": given[row["name"]][0].horizon * batch} for row in shown]
        print_json({"level": level, "schedules": shown, "warnings": warnings})
    else:
        notes = [f"wrote {path}" for path in (output, plot) if path]
        if batch is not None:
            lengths = {name: one.horizon for name, (one, _) in given.items()}
            notes = [
                *(f"{k}: {n:,} steps, {short(n * batch)} tokens" for k, n in lengths.items()),
                *notes,
            ]
        if any(map(find_family, given)):
            notes.insert(0, "families have their default shape")
        show_comparison(f"law {found.law.name} of {law}", table, notes)
    along = [w for c in curves.values() for w in c.warnings if len(curves) == 1]
    warn([*table.warnings, *(w for w in along if not any(t.endswith(w) for t in table.warnings))])


def _schedule(
    text: str, how: dict[str, Any], horizon: float | None, peak: float, warmup: float | None
) -> tuple[str, Any, Any]:
    """Name, schedule, and steps of the rows, None but for a log, of a file or a family."""
    from pathlib import Path

    from optsched.logs.assemble import is_ours
    from optsched.logs.read import read_rates
    from optsched.schedules.families import FAMILIES, find_family

    family = find_family(text)
    if family is not None and not Path(text).exists():
        if horizon is None:
            raise InvalidProblem("horizon", None, f"a number of steps, for {text}")
        steps = whole_steps("horizon", horizon, 1)
        ramp = any(p.name == "warmup" for p in family.parameters)
        extra = {"warmup": int(warmup)} if warmup and ramp else {}
        return text, family(steps, peak, **extra), None
    if not (Path(text).exists() or Path(text).suffix):
        raise InvalidProblem("schedules", text, "a file, or one of " + ", ".join(FAMILIES))
    log = read_rates(text, **how)
    if is_ours(Path(text)):
        return log.name, log.schedule, None
    steps = log.steps[log.steps > 0]
    if not len(steps):
        raise BadFile(f"{text}: no row past step 0, expected one or more")
    schedule = log.schedule
    # The last row is the last step: its rate is that of no further update.
    end = int(steps[-1])
    if schedule.horizon > end:
        schedule = _shortened(schedule, end)
    return log.name, schedule, steps


def _plot(
    curves: dict[str, Any], logs: dict[str, str], how: dict[str, Any], path: str, force: bool
) -> None:
    from optsched.commands.common import save_figure
    from optsched.plots.pilot import prediction_figure

    measured = {name: run for name, file in logs.items() if (run := _measured(file, how))}
    save_figure(prediction_figure(curves, measured), path, force)


def _measured(path: str, how: dict[str, Any]) -> Any:
    """The run of a log whose rates could be read; None if it has no losses that could be drawn."""
    from optsched.logs import read_run

    try:
        return read_run(path, **how)
    except BadFile:
        return None


def _shortened(schedule: Any, horizon: int) -> Any:
    import numpy as np

    steps = np.unique(np.append(schedule.steps[schedule.steps < horizon], horizon - 1))
    values = {name: schedule(steps, name) for name in schedule.controls}
    return schedule.replace(horizon=horizon, steps=steps, controls=values)
