"""``optsched fit``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from optsched.commands.command import Command, spoken
from optsched.commands.common import draw
from optsched.commands.options import Choice, Number
from optsched.commands.page import keep, report_option
from optsched.commands.pilot_common import log_options, reading, warn
from optsched.commands.show import print_lines, print_table, tell
from optsched.commands.tokens import batch_option, check_batch, short
from optsched.errors import InvalidProblem

if TYPE_CHECKING:
    from optsched.pilot.fitting import Fit

__all__ = ["fit"]


def law_names() -> list[str]:
    """Names of the laws."""
    from optsched.pilot.laws import LAWS

    return [*LAWS]


@click.command(cls=Command)
@click.argument("runs", nargs=-1, type=click.Path())
@log_options()
@batch_option("Tokens of an update: lengths are told in tokens too, and logs in tokens read.")
@click.option(
    "--rates",
    multiple=True,
    help="Rates of logs without any: a schedule file, another log or a constant; for all RUNS, or"
    " once for each.",
)
@click.option(
    "--seeds",
    type=Choice(("apart", "refuse", "keep", "average")),
    default="apart",
    show_default=True,
    help="Runs of one name: told apart by their folders; refused; seeds of one schedule, kept or"
    " averaged.",
)
@click.option(
    "--law-name",
    "law",
    type=Choice(law_names, {"auto": "fsl-norm"}, free=True),
    default="fsl-norm",
    show_default=True,
    help="fsl-norm, fsl, fsl-sgd, features, multi-power, momentum, or module:Class of your own.",
)
@click.option(
    "--optimiser",
    type=Choice(("adamw", "adam", "sgd", "other")),
    default="adamw",
    show_default=True,
    help="adamw, adam (no decay), sgd, or other: normalised updates of unknown size.",
)
@click.option(
    "--weight-decay",
    default="unknown",
    show_default=True,
    help="A number >= 0; unknown: that of the configurations in the folders of runs, else that"
    " of 0, .01 and .1 which describes the runs best.",
)
@click.option(
    "--uncoupled-decay", is_flag=True, help="The decay is not multiplied by the learning rate."
)
@click.option(
    "--init-std",
    type=Number("a number > 0"),
    help="Standard deviation of the weight matrices at the start; usual if not given.",
)
@click.option("--output", type=click.Path(), help="Law file to write, .json.")
@click.option("--plot", type=click.Path(), help="Figure to write: .png, .pdf or .svg.")
@report_option
@click.option("--held-out", is_flag=True, help="Judge every law by runs left out in turn.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def fit(
    runs: tuple[str, ...],
    law: str,
    batch: float | None,
    output: str | None,
    plot: str | None,
    held_out: bool,
    as_json: bool,
    force: bool,
    **options: Any,
) -> None:
    """Fit a law of the loss to the logs of pilot RUNS: files, or folders of runs.

    The default law is the functional scaling law in rates over the norm of the weights. Peak rates
    of the runs may differ.
    """
    from optsched.files import PLOT_SUFFIXES, check_writable

    settings = _settings(law, options)
    check_batch(batch)
    if batch is not None and options["unit"] == "tokens" and options["per_step"] is None:
        options["per_step"] = batch
    if not runs:
        raise InvalidProblem("runs", "none", "log files of one run or more")
    if output is not None:
        check_writable(output, force, suffixes=(".json",))
    if plot is not None:
        check_writable(plot, force, suffixes=PLOT_SUFFIXES)
    from optsched.logs.read import read_runs
    from optsched.pilot.fitting import fit as run_fit
    from optsched.pilot.heldout import held_out as judge
    from optsched.pilot.lawfile import save_fit, summary
    from optsched.pilot.laws import LAWS, made_law

    mine = made_law(law, **settings)  # what is wrong with it is said before any log is read
    rates, seeds = options.pop("rates"), options.pop("seeds")
    logs = read_runs(runs, rates=_rates(rates), seeds=seeds, **reading(options))
    table = []
    if held_out:
        others = {name: make() for name, make in LAWS.items() if name != law}
        table = judge(logs, {law: mine, **others})
    found = run_fit(logs, mine)
    if output is not None:
        save_fit(found, output, overwrite=force)
    draw(lambda: _figure(found, logs), plot, force)
    written = [path for path in (output, plot) if path]
    assumed = [f"{log.name}: {line}" for log in logs for line in log.warnings]
    rows = {one.law: {"error": one.error, "runs": list(one.runs)} for one in table}
    told = {**summary(found), "held_out": rows}
    if batch is not None:
        told["tokens"] = {run.name: run.horizon * batch for run in found.runs}
    told["warnings"] = [*(spoken(one) for one in assumed), *told["warnings"]]

    def report() -> None:
        print_lines(*(spoken(log.summary()) for log in logs))
        if batch is not None:
            tokens = (f"{run.name} {short(run.horizon * batch)}" for run in found.runs)
            print_lines(f"tokens: {', '.join(tokens)}")
        _report(found, table, written)

    keep(fit=found, runs=logs)
    tell(as_json, told, report)
    warn([*assumed, *found.warnings])


def _rates(given: tuple[str, ...]) -> Any:
    """Files, or numbers, of which one is for all runs."""
    found: list[str | float] = []
    for text in given:
        try:
            found.append(float(text))
        except ValueError:
            found.append(text)
    return found if len(found) > 1 else (found or [None])[0]


def _settings(law: str, options: dict[str, Any]) -> dict[str, Any]:
    """What is known of the optimiser, taken out of the options; only the default law asks."""
    from optsched.pilot.laws.registry import DEFAULT

    optimiser, text = options.pop("optimiser"), options.pop("weight_decay")
    coupled, std = not options.pop("uncoupled_decay"), options.pop("init_std")
    given: dict[str, Any] = {}
    if optimiser != "adamw":
        given["optimiser"] = optimiser
    if text != "unknown":
        given["weight_decay"] = _decay(text)
    if not coupled:
        given["coupled"] = False
    if std is not None:
        given["init_std"] = std
    if given and law != DEFAULT:
        allowed = f"{DEFAULT} with --optimiser, --weight-decay, --uncoupled-decay or --init-std"
        raise InvalidProblem("law", law, allowed)
    return given


def _decay(text: str) -> float:
    from optsched.checks import at_least

    try:
        value = float(text)
    except ValueError:
        raise InvalidProblem("weight_decay", text, "unknown, or a number >= 0") from None
    return at_least("weight_decay", value, 0.0)


def _report(found: Fit, table: list[Any], written: list[str]) -> None:
    rows = [
        (name, f"{value:.4g}", "held" if name in found.law.held else f"{error:.2g}")
        for name, (value, error) in found.parameters.items()
    ]
    notes = [
        *found.notes,
        f"misfit {found.misfit:.2g} nats (rms)",
        f"noise between seeds {found.seed_noise:.1e}, relative",
        f"rates over {found.scale.rate:.6g}, steps over {found.scale.span:,.0f}",
    ]
    if found.exponents:
        text = ", ".join(f"{k} = {v:.2f} ± {e:.2f}" for k, (v, e) in found.exponents.items())
        notes.append(f"as power-law features: {text}")
    print_lines(f"law {found.law.name}, fitted to {len(found.runs)} runs")
    print_table(("parameter", "value", "stderr"), rows)
    print_lines(*notes)
    if table:
        rows = [(one.law, f"{1e3 * one.error:.2f}") for one in table]
        print_table(("law", "held-out error, 1e-3 nats"), rows)
    print_lines(*(f"wrote {path}" for path in written))


def _figure(found: Fit, logs: list[Any]) -> Any:
    from optsched.plots.pilot import fit_figure

    return fit_figure(found, logs)
