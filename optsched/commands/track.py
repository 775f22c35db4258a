"""``optsched track``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from optsched.commands.command import Command, spoken
from optsched.commands.options import Number
from optsched.commands.pilot_common import level_option, log_options, reading, warn
from optsched.commands.show import print_json, print_lines, print_table
from optsched.errors import BadLog, InvalidProblem

if TYPE_CHECKING:
    from optsched.pilot.tracking.track import Track
    from optsched.schedules.schedule import Schedule

__all__ = ["OFF_TRACK", "track"]

OFF_TRACK = 3
SHOWN = 10  # rows of the table


@click.command(cls=Command)
@click.argument("runs", nargs=-1, type=click.Path())
@click.option("--law", type=click.Path(), help="Law file that optsched fit wrote. Required.")
@click.option(
    "--schedule",
    type=click.Path(),
    help="Planned schedule of the whole run, a file of optsched or a log; the rates so far are"
    " those of the log.",
)
@log_options()
@click.option(
    "--rates",
    help="Rates of logs without any: a schedule file, another log or a constant; for all RUNS.",
)
@click.option(
    "--weight-decay",
    type=Number("a number >= 0"),
    help="Of the runs, if not that of the pilot runs.",
)
@level_option
@click.option(
    "--false-alarm",
    type=Number("a number above 0, up to 0.5"),
    default=0.02,
    show_default=True,
    help="Probability that a sound run is called off track at any time.",
)
@click.option("--follow", is_flag=True, help="Look again while the log grows, until the run ends.")
@click.option(
    "--every",
    type=Number("seconds > 0"),
    default=10.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--plot", type=click.Path(), help="Figure to write: .png, .pdf or .svg.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, a line a look.")
@click.option("--force", is_flag=True, help="Overwrite existing files.")
@click.pass_context
def track(
    ctx: click.Context,
    runs: tuple[str, ...],
    law: str | None,
    schedule: str | None,
    rates: str | None,
    follow: bool,
    every: float,
    plot: str | None,
    as_json: bool,
    force: bool,
    **options: Any,
) -> None:
    """Set RUNS, finished or under way, beside a law: whether they are on track, and where they end.

    Exits with 3 if a run is off track.
    """
    from optsched.files import PLOT_SUFFIXES, check_writable

    if law is None:
        raise InvalidProblem("law", None, "the file of a law, that optsched fit writes")
    if not runs:
        raise InvalidProblem("runs", "none", "log files of one run or more")
    path, *others = runs
    if follow and others:
        raise InvalidProblem("follow", f"{len(runs)} runs", "one run")
    if not every > 0.0:
        raise InvalidProblem("every", every, "seconds > 0")
    if plot is not None:
        check_writable(plot, force, suffixes=PLOT_SUFFIXES)
    from optsched.pilot.lawfile import load_fit
    from optsched.pilot.tracking.follow import Follower
    from optsched.pilot.tracking.track import track as run_track

    found = load_fit(law)
    how: dict[str, Any] = reading(options) | {"rates": None if rates is None else _rates(rates)}
    plan = None if schedule is None else _planned(schedule, how["warmup"])
    settings: dict[str, Any] = {"schedule": plan, **options}
    if follow:
        follower = Follower(found, path, **settings, **how)
        shown = [_followed(follower, every, as_json)]
    else:
        shown = [run_track(found, path, **settings, **how) for path in runs]
        _show(shown, as_json)
    if plot is not None:
        from optsched.commands.common import save_figure
        from optsched.plots.track import track_figure

        save_figure(track_figure(shown), plot, force or follow)
        if not as_json:
            print_lines(f"wrote {plot}")
    warn([f"{one.name}: {line}" for one in shown for line in one.warnings])
    if any(one.off_track for one in shown):
        ctx.exit(OFF_TRACK)


def _rates(text: str) -> str | float:
    """A file, or a constant."""
    try:
        return float(text)
    except ValueError:
        return text


def _planned(path: str, warmup: int | None) -> Schedule:
    """A schedule of ours, or the rates of a log, whose last row is the last step."""
    from pathlib import Path

    from optsched.logs.assemble import is_ours
    from optsched.logs.rates import cut
    from optsched.logs.read import read_rates

    log = read_rates(path, warmup=warmup)
    return log.schedule if is_ours(Path(path)) else cut(log.schedule, max(int(log.steps[-1]), 1))


def _followed(follower: Any, every: float, as_json: bool) -> Track:
    """Look until the run ends, stops or is off track; a line for every look with new rows."""
    said = ""
    while True:
        try:
            one = follower.look()
        except BadLog as error:
            # A log that is not there yet, or has too few rows, or is being written anew.
            if str(error) != said:
                said = str(error)
                click.echo(f"waiting: {spoken(said)}", err=True)
            one = None
        if one is not None:
            print_json(numbers(one)) if as_json else print_lines(one.line)
            if one.off_track or one.step >= one.horizon:
                return one
        time.sleep(every)


def numbers(one: Track) -> dict[str, Any]:
    """What ``--json`` prints of a run."""
    alarm, now = one.alarm, one.measured
    fault = alarm.fault if alarm.off else None
    return {
        "run": one.name,
        "step": one.step,
        "horizon": one.horizon,
        "off_track": one.off_track,
        "reasons": list(one.reasons),
        "score": alarm.score,
        "limit": alarm.limit,
        "off_since": alarm.at,
        "fault": None if fault is None else fault.kind,
        "fault_since": None if fault is None else fault.since,
        "fault_size": None if fault is None else alarm.size,
        "outside_since": one.outside,
        "above": one.above if one.outside is not None else None,
        "stopped": one.stopped,
        "level": one.level,
        "before": vars(one.before),
        "end": vars(one.end),
        "rows": None if now is None else vars(now),
        "notes": list(one.notes),
        "warnings": [spoken(line) for line in one.warnings],
    }


def _show(shown: list[Track], as_json: bool) -> None:
    if as_json:
        told = [numbers(one) for one in shown]
        print_json(told[0] if len(told) == 1 else {"runs": told})
        return
    for i, one in enumerate(shown):
        if i:
            print_lines("")
        _table(one)


def _table(one: Track) -> None:
    import numpy as np

    share = f"{100 * one.level:.0f} %"
    rows = []
    if one.measured is not None:
        m = one.measured
        few = np.unique(np.linspace(0, len(m.steps) - 1, SHOWN).round().astype(int))
        rows = [
            (
                f"{m.steps[i]:,}",
                f"{m.loss[i]:.4f}",
                f"{m.predicted[i]:.4f}",
                f"{m.lower[i]:.4f} to {m.upper[i]:.4f}",
                f"{m.residual[i]:+.1f}",
                f"{m.surprise[i]:+.1f}",
            )
            for i in few
        ]
    notes = []
    if one.outside is not None:
        side = "above" if one.above else "below"
        notes.append(f"{side} its {share} band since step {one.outside:,}")
    before, end = (
        f"{x.loss:.4f}, {share} interval {x.lower:.4f} to {x.upper:.4f}"
        for x in (one.before, one.end)
    )
    notes += [
        f"loss at step {one.horizon:,}, from the pilots alone: {before}",
        f"loss at step {one.horizon:,}, from this run too: {end}",
    ]
    if one.off_track:
        notes += [f"off track: {line}" for line in one.reasons]
    elif one.measured is not None:
        alarm = one.alarm
        notes.append(
            f"on track: score {alarm.score:.1f}, off track from {alarm.limit:.1f} on"
            if alarm.limit < float("inf")
            else "on track: too little to judge"
        )
    notes += [spoken(line) for line in one.notes]
    columns = ("step", "loss", "predicted", f"{share} band", "in sd", "surprise")
    title = f"{one.name}: step {one.step:,} of {one.horizon:,}"
    print_lines(title)
    if rows:
        print_table(columns, rows)
    print_lines(*notes)
