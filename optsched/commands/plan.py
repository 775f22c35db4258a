"""``optsched plan``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from optsched.commands.command import Command
from optsched.commands.common import check_rows, draw, kept_rows
from optsched.commands.options import Choice, Number, families_type, points_option
from optsched.commands.page import keep, report_option
from optsched.commands.pilot_common import (
    comparison_rows,
    level_option,
    log_options,
    reading,
    show_comparison,
    warn,
    whole_steps,
)
from optsched.commands.plan_ramp import (
    RAMP_OPTIONS,
    check_ramp,
    make_ramp,
    ramp_notes,
    ramp_options,
)
from optsched.commands.plan_under_way import (
    anchored_losses,
    asked_length,
    gone_on,
    measured_history,
    said_under_way,
    under_way_options,
    until_reached,
    way_notes,
)
from optsched.commands.show import tell
from optsched.commands.tokens import batch_option, in_tokens, short, steps_of, tokens_option
from optsched.errors import InvalidProblem

if TYPE_CHECKING:
    from optsched.pilot.fitting import Fit
    from optsched.pilot.planning.numbers import PlainNumbers
    from optsched.pilot.planning.optimal import Plan
    from optsched.pilot.planning.peaks import PeakChoice
    from optsched.pilot.prediction import Ranking
    from optsched.schedules.schedule import Schedule

__all__ = ["plan"]


@click.command(cls=Command)
@click.option("--law", type=click.Path(), help="Law file that optsched fit wrote. Required.")
@click.option(
    "--horizon",
    type=Number("a whole number of steps"),
    help="Steps of the whole run. Required, or --tokens.",
)
@tokens_option
@batch_option("Tokens of an update, with --tokens; the batch size, with --batch-ramp.")
@click.option(
    "--peak",
    help="Peak rate; auto: chosen with the schedule.  [default: the highest of the pilots]",
)
@click.option(
    "--warmup",
    type=Number("a whole number of steps >= 0"),
    help="Steps of a linear warm-up; that of the pilot runs if not given.",
)
@click.option(
    "--floor", type=Number("a number >= 0"), default=0.0, show_default=True, help="Least rate."
)
@click.option("--momentum", type=Number("a number in [0, 1)"), help="Held, written to the file.")
@click.option(
    "--robust",
    type=Choice(("none", "mean", "worst")),
    default="mean",
    show_default=True,
    help="Minimise for the fit (none), on average over its ensemble (mean), or the worst regret"
    " (worst).",
)
@click.option(
    "--shape",
    type=Choice(("auto", "simple", "free")),
    default="auto",
    show_default=True,
    help="free: any rates. simple: hold, then decay. auto: the simplest that costs hardly any.",
)
@click.option(
    "--from-step",
    type=Number("a whole number of steps"),
    default=0,
    help="Continue a run from here.",
)
@click.option("--history", type=click.Path(), help="Log or schedule of the run so far.")
@log_options("warmup", "loss")
@click.option(
    "--history-warmup",
    type=Number("a whole number of steps >= 0"),
    help="Steps of the ramp before the first row of the history.",
)
@click.option(
    "--families",
    type=families_type,
    help="Rivals, with commas.  [default: cosine, linear, WSD, polynomial]",
)
@under_way_options
@ramp_options
@click.option(
    "--weight-decay",
    type=Number("a number >= 0"),
    help="Of the run to plan, if not that of the pilot runs.",
)
@level_option
@click.option("--extrapolate", is_flag=True, help="Allow a peak above those of the pilots.")
@click.option("--output", type=click.Path(), help="Schedule file to write: .npz, .csv or .json.")
@points_option
@click.option("--plot", type=click.Path(), help="Figure to write: .png, .pdf or .svg.")
@report_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
def plan(
    law: str | None,
    horizon: float | None,
    tokens: float | None,
    batch: float | None,
    peak: str | None,
    families: str | None,
    history: str | None,
    history_warmup: float | None,
    until_loss: float | None,
    rewarm: float | None,
    output: str | None,
    points: float | None,
    plot: str | None,
    as_json: bool,
    weight_decay: float | None,
    force: bool,
    **options: Any,
) -> None:
    """Plan a run: the schedule that minimises the predicted final loss, beside what people use."""
    from optsched.files import PLOT_SUFFIXES, SUFFIXES, check_writable

    if law is None:
        raise InvalidProblem("law", None, "the file of a law, that optsched fit writes")
    horizon = steps_of(horizon, tokens, batch)
    steps = asked_length(horizon, until_loss)
    check_ramp(options, batch)
    critical = options["critical_batch"]
    rows = kept_rows(points)
    if output is not None:
        check_writable(output, force, suffixes=SUFFIXES)
        check_rows(output, rows, steps or 10**6)
    if plot is not None:
        check_writable(plot, force, suffixes=PLOT_SUFFIXES)
    from optsched.pilot.decays import at_decay
    from optsched.pilot.lawfile import load_fit
    from optsched.pilot.planning.numbers import plain_numbers
    from optsched.pilot.planning.optimal import plan as run
    from optsched.pilot.planning.rivals import RIVALS, rivals
    from optsched.pilot.prediction import compare, predict
    from optsched.schedules.families import Family, named_families

    names: Sequence[str | Family] = RIVALS
    if families is not None:
        names = named_families([name.strip() for name in families.split(",")])
    found = at_decay(load_fit(law), weight_decay)
    options["from_step"] = whole_steps("from_step", options["from_step"])
    how = reading(options, "warmup")
    past, assumed = _history(history, history_warmup, how)
    level = options["level"]
    now = measured_history(found, history, history_warmup, options, how)
    found = found if now is None else now.found
    told = options["warmup"] is None and past is None and found.warmup > 0
    if options["warmup"] is None:
        options["warmup"] = found.warmup if past is None else 0
    options["warmup"] = whole_steps("warmup", options["warmup"])
    start = options["from_step"]
    ramping = {name: options.pop(name) for name in RAMP_OPTIONS}
    until = until_reached(found, until_loss, now, _peak(peak), options)
    steps = until.steps if until is not None else steps or 0
    result = run(found, steps, peak=_peak(peak), history=past, **options)
    result, ways = gone_on(result, now, rewarm, past, options)
    ramp = make_ramp(ramping, batch, found, result.schedule, start)
    others = rivals(
        found,
        result.schedule.horizon,
        peak=result.cap if past is None else past(start),
        peaks=_rival_peaks(result, found.peaks[1]),
        warmup=options["warmup"],
        start=start,
        history=past,
        names=names,
    )
    schedules = {"plan": result.schedule, **others}
    simple = plain_numbers(
        found,
        result.schedule,
        warmup=options["warmup"],
        floor=options["floor"],
        start=start,
        history=past,
    )
    table = compare(found, schedules, level=level)
    table, result = anchored_losses(now, table, schedules, result)
    if output is not None:
        written = result.schedule if ramp is None else ramp.schedule
        check_rows(output, rows, written.horizon)
        written.save(output, points=rows, overwrite=force)

    def figure() -> Any:
        from optsched.plots.pilot import plan_figure

        curves = {name: predict(found, one, level=level) for name, one in schedules.items()}
        return plan_figure(schedules, curves)

    draw(figure, plot, force)
    told_in = batch if tokens is not None else None
    said = _words(schedules, start, told_in)
    numbers = _numbers(result, table, said) | {"numbers": simple.summary()}
    numbers |= said_under_way(now, ways, until)
    numbers["tokens"] = None if told_in is None else result.schedule.horizon * told_in
    numbers["ramp"] = None if ramp is None else ramp.summary()
    numbers["weight_decay"] = getattr(found.law, "weight_decay", None)

    def report() -> None:
        words = [f"{name}: {text}" for name, text in said.items()]
        usual = [f"warm-up of {found.warmup:,} steps, as the pilot runs had"] if told else []
        wrote = [f"wrote {path}" for path in (output, plot) if path]
        claims = _notes(result, table, bool(options["warmup"]), start, found)
        grown = [] if ramp is None else ramp_notes(ramp, critical)
        going = way_notes(now, ways, until)[0]
        notes = [*words, *usual, *going, *claims, _as_numbers(simple), *grown, *wrote]
        length = f"{result.schedule.horizon:,} steps"
        if told_in is not None:
            length += f", {short(result.schedule.horizon * told_in)} tokens"
        if found.pilot_decay is not None:
            length += f", weight decay {weight_decay:g} (pilots: {found.pilot_decay:g})"
        show_comparison(f"law {found.law.name}: {length}", table, notes)

    keep(fit=found, plan=result, schedules=schedules, table=table)
    tell(as_json, numbers, report)
    # The plan's own warnings are those of its row.
    others_say = [line for line in table.warnings if not line.startswith("plan: ")]
    warn(
        [
            *assumed,
            *way_notes(now, ways, until)[1],
            *result.warnings,
            *(others_say if past is None else []),
        ]
    )


def _peak(text: str | None) -> Any:
    if text is None or text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        raise InvalidProblem("peak", text, "auto or a number > 0") from None


def _history(path: str | None, warmup: float | None, how: dict[str, Any]) -> tuple[Any, list[str]]:
    """The schedule of the run so far, and what was assumed of it."""
    from optsched.logs.read import read_rates

    if path is None:
        return None, []
    ramp = None if warmup is None else whole_steps("history_warmup", warmup)
    log = read_rates(path, warmup=ramp, **how)
    # What was assumed of the steps before the first row moves the plan.
    return log.schedule, [line.replace("warmup=N", "history_warmup=N") for line in log.warnings]


def _words(schedules: Mapping[str, Schedule], start: int, batch: float | None) -> dict[str, str]:
    """What every schedule does from ``start``, in words; in tokens too, of so many an update."""
    from optsched.schedules.words import in_words

    found = {name: in_words(one, start) for name, one in schedules.items()}
    return (
        found if batch is None else {name: in_tokens(said, batch) for name, said in found.items()}
    )


def _as_numbers(simple: PlainNumbers) -> str:
    """The plan for a trainer that takes numbers only, and what that loses."""
    return f"in numbers: {simple.words}: {simple.cost:+.4f} ± {simple.error:.4f} nats to the plan"


def _numbers(result: Plan, table: Ranking, words: Mapping[str, str]) -> dict[str, Any]:
    bound, choice = result.lower_bound, result.choice
    out: dict[str, Any] = {
        "loss": result.loss,
        "lower": result.lower,
        "upper": result.upper,
        "level": result.level,
        "lower_bound": bound,
        "residual": result.residual,
        "replay_gap": result.replay_gap,
        "robust": result.robust,
        "shape": result.shape,
        "cost": result.cost,
        "peak": result.cap,
        "words": words["plan"],
        "schedules": [row | {"words": words[row["name"]]} for row in comparison_rows(table)],
        "warnings": list(result.warnings),
    }
    if choice is not None:
        out["choice"] = {
            "peaks": choice.peaks,
            "losses": choice.losses,
            "regret": choice.regret,
            "regret_90": choice.high,
            "at_end": choice.at_end,
        }
    return out


def _notes(result: Plan, table: Ranking, ramp: bool, start: int, found: Fit) -> list[str]:
    """What is claimed of the plan, and how it was found."""
    from optsched.pilot.planning.bound import without_bound

    out = []
    if result.choice is not None:
        out.append(_chosen(result.choice, found.peaks[1]))
    if result.shape != "free rates":
        out.append(
            f"{result.shape}: {max(result.cost, 0.0):.1e} nats above the best of 80 free rates"
        )
    if not math.isnan(result.lower_bound):
        after = " after this warm-up" if ramp else f" from step {start:,} on" if start else ""
        out.append(
            f"no schedule with rates up to {result.cap:.4g}{after} is below"
            f" {result.lower_bound:.5f} under this law: the plan is {result.gap:.1e} nats above"
        )
        out += _flat(result, table)
    else:
        why = without_bound(found)
        out.append(f"what any schedule could gain is not known: no lower bound, as {why}")
    peaks = "the same peak and warm-up" if result.choice is None else "the same warm-up"
    tuned = "their shape" if result.choice is None else "their shape and peak"
    out.append(f"rivals: {peaks}, {tuned} tuned under the law")
    out.append(
        f"KKT residual {result.residual:.1e}; replay {result.replay_gap:+.1e} nats to the solver"
    )
    return out


def _flat(result: Plan, table: Ranking) -> list[str]:
    """What is to gain over the best rival at all, where its peak is not above the bound's."""
    others = [row for row in table.rows if row.name != "plan"]
    if not others or result.choice is not None:
        return []
    best = min(others, key=lambda row: row.loss)
    gain = max(best.loss - result.lower_bound, 0.0)
    flat = "" if best.apart else "flat: "
    return [f"{flat}at most {gain:.4f} to gain over {best.name} at this peak"]


def _rival_peaks(result: Plan, high: float) -> list[float]:
    """Peaks of the grid for the rivals: above the pilots none but that of the plan."""
    if result.choice is None:
        return []
    most = max(high, result.cap)
    return [peak for peak in result.choice.peaks.tolist() if peak <= most]


def _chosen(choice: PeakChoice, high: float) -> str:
    ends = f"{choice.peaks[0]:.3g} to {choice.peaks[-1]:.3g}"
    text = f"peak {choice.peak:.4g}, of {len(choice.peaks)} from {ends}"
    if choice.high == 0.0:
        text += ": the best of them under all that the fit allows"
    elif not math.isnan(choice.regret):
        text += (
            f": regret {_nats(choice.regret)} on average over what the fit allows,"
            f" {_nats(choice.high)} or more with a chance of a tenth"
        )
    if choice.at_end:
        where = "above the pilots, where laws err" if choice.peak >= high else "outside"
        text += f"; it is an end of that range: a better one may lie {where}"
    return text


def _nats(value: float) -> str:
    """A small loss that is never shown as none."""
    return f"{value:.4f}" if value >= 5e-5 else "below 0.0001"
