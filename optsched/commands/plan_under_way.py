"""``optsched plan --history`` and ``--until-loss``: what is said of a run that goes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from optsched.commands.options import Number
from optsched.commands.pilot_common import whole_steps
from optsched.errors import InvalidProblem

if TYPE_CHECKING:
    from optsched.pilot.fitting import Fit
    from optsched.pilot.planning.optimal import Plan
    from optsched.pilot.prediction import Ranking
    from optsched.pilot.tracking.under_way import Choice, Reached, UnderWay
    from optsched.schedules.schedule import Schedule

__all__ = [
    "anchored_losses",
    "asked_length",
    "gone_on",
    "measured_history",
    "said_under_way",
    "under_way_options",
    "until_reached",
    "way_notes",
]


def under_way_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--until-loss`` and ``--rewarm``."""
    for option in (
        click.option(
            "--rewarm",
            type=Number("a whole number of steps >= 1"),
            help="With --history: steps in which the rate rises to that of the plan.",
        ),
        click.option(
            "--until-loss",
            type=Number("a loss > 0"),
            help="In place of --horizon: the fewest steps that reach this loss.",
        ),
    ):
        command = option(command)
    return command


def asked_length(horizon: float | None, until: float | None) -> int | None:
    """Steps of the run; None where they are looked for."""
    if until is None:
        if horizon is None:
            raise InvalidProblem("horizon", None, "a whole number of steps")
        return whole_steps("horizon", horizon, 1)
    if horizon is not None:
        raise InvalidProblem("until_loss", until, "without a length, which it looks for")
    return None


def measured_history(
    found: Fit,
    path: str | None,
    warmup: float | None,
    options: dict[str, Any],
    how: dict[str, Any],
) -> UnderWay | None:
    """The run of a history with losses, which sets ``from_step``; None of rates alone."""
    if path is None:
        return None
    from pathlib import Path

    from optsched.errors import BadLog
    from optsched.logs.assemble import is_ours
    from optsched.logs.growing import read_growing
    from optsched.pilot.tracking.under_way import under_way

    if is_ours(Path(path)):
        return None
    try:
        ramp = None if warmup is None else whole_steps("history_warmup", warmup)
        run = read_growing(path, warmup=ramp, **how).run
    except BadLog:
        return None  # read as rates alone, whose reader says what is wrong with the file
    step = options["from_step"] or int(run.steps[-1])
    if not int(run.steps[0]) <= step <= run.schedule.horizon:
        return None  # the planner says which steps the history has
    options["from_step"] = step
    return under_way(found, run, step, level=options["level"])


def until_reached(
    found: Fit, loss: float | None, now: UnderWay | None, peak: Any, options: dict[str, Any]
) -> Reached | None:
    """The fewest steps to a loss, if that is asked for."""
    if loss is None:
        return None
    if peak == "auto":
        raise InvalidProblem("peak", peak, "a number with --until-loss")
    from optsched.pilot.tracking.under_way import steps_to

    names = ("warmup", "floor", "extrapolate", "level")
    asked = {name: options[name] for name in names}
    return steps_to(found, loss, now=now, peak=peak, **asked)


def gone_on(
    result: Plan, now: UnderWay | None, rewarm: float | None, past: Any, options: dict[str, Any]
) -> tuple[Plan, tuple[Choice, ...]]:
    """The plan, re-warmed if that is asked for, and simple ways to the same end."""
    from optsched.pilot.tracking.under_way import choices, rewarmed

    if rewarm is not None:
        if past is None:
            raise InvalidProblem("rewarm", rewarm, "none without a history")
        steps = whole_steps("rewarm", rewarm, 1)
        warmed = rewarmed(result.schedule, options["from_step"], steps)
        result = replace(result, schedule=warmed)
    if now is None:
        return result, ()
    end = result.schedule.horizon
    return result, choices(now, end, peak=result.cap, floor=options["floor"])


def anchored_losses(
    now: UnderWay | None, table: Ranking, schedules: Mapping[str, Schedule], result: Plan
) -> tuple[Ranking, Plan]:
    """Table and plan with last losses that the history was asked for too."""
    if now is None:
        return table, result
    table = now.ranked(table, schedules)
    (row,) = (one for one in table.rows if one.name == "plan")
    bound = result.lower_bound + row.loss - result.loss
    return table, replace(
        result, loss=row.loss, lower=row.lower, upper=row.upper, lower_bound=bound
    )


def said_under_way(
    now: UnderWay | None, ways: tuple[Choice, ...], until: Reached | None
) -> dict[str, Any]:
    """Numbers for JSON."""
    way = None
    if now is not None:
        state = now.state
        rows = 0 if state.measured is None else len(state.measured.steps)
        way = {"step": now.step, "bins": rows, "reasons": list(state.reasons),
               "outside_since": state.outside, "above": state.above}  # fmt: skip
    return {
        "under_way": way,
        "ways": [one._asdict() for one in ways],
        "until_loss": None if until is None else until._asdict(),
    }


def way_notes(
    now: UnderWay | None, ways: tuple[Choice, ...], until: Reached | None
) -> tuple[list[str], list[str]]:
    """Sentences, and warnings."""
    notes, warnings = [], []
    if until is not None:
        ends = [f"{x:,.0f}" if x < float("inf") else "never" for x in (until.lower, until.upper)]
        notes.append(
            f"loss {until.loss:g}: after {until.steps:,} steps, interval {ends[0]} to {ends[1]}"
        )
    if now is None:
        return notes, warnings
    state = now.state
    if state.measured is None:
        notes.append("the history ends too early to say anything of the law")
    else:
        notes.append(f"losses of the history up to step {state.step:,} are used")
        warnings += [f"the history is off track: {line}" for line in state.reasons]
        if state.outside is not None and not state.reasons:
            side = "above" if state.above else "below"
            warnings.append(f"the history is {side} its band since step {state.outside:,}")
    notes += [
        f"{one.name} (from step {one.since:,}): {one.loss:.4f}, {one.lower:.4f} to {one.upper:.4f}"
        for one in ways
    ]
    return notes, warnings
