"""``optsched rules convex``, ``extend`` and ``cooldown``: what the bound of convex theory says."""

from __future__ import annotations

from typing import Any

import click

from optsched.commands.command import Command
from optsched.commands.options import Number
from optsched.commands.rules.common import json_option, required, show

__all__ = ["convex", "cooldown", "extend"]

SHARE = "a share of the horizon, in [0, 1]"
STEPS = "a whole number of steps"
ABOVE_ZERO = "a number > 0"
force_option = click.option("--force", is_flag=True, help="Overwrite existing output files.")


@click.command(cls=Command)
@click.argument("file", type=click.Path())
@click.option("--distance", type=Number(ABOVE_ZERO), default=1.0, show_default=True, help="D.")
@click.option(
    "--norm", type=Number(ABOVE_ZERO), default=1.0, show_default=True, help="Gradient norm G."
)
@click.option(
    "--plot", type=click.Path(), help="Figure of the bound along the run: .png, .pdf, .svg."
)
@json_option
@force_option
def convex(
    file: str, distance: float, norm: float, plot: str | None, as_json: bool, force: bool
) -> None:
    """Bound of the schedule in FILE, and the best factor on its rates."""
    from optsched.checks import positive
    from optsched.files import PLOT_SUFFIXES, check_writable
    from optsched.rules.convex.bound import convex_bound, least_bound
    from optsched.schedules.schedule import Schedule

    distance, norm = positive("distance", distance), positive("norm", norm)
    if plot:
        check_writable(plot, force, suffixes=PLOT_SUFFIXES)
    schedule = Schedule.load(file)
    bound = convex_bound(schedule, distance=distance, norms=norm)
    least = least_bound(schedule.horizon, distance=distance, norms=norm)
    numbers: dict[str, Any] = {
        "horizon": schedule.horizon,
        "peak": schedule.peak,
        "bound": bound.value,
        "best_factor": bound.scale,
        "best_peak": bound.scale * schedule.peak,
        "best_bound": bound.best,
        "least_bound": least,
        "regret": bound.best / least - 1.0,
    }
    notes = ["the bound of the rates as they are and, with the best factor on them, at its best;"]
    notes += ["regret: the best bound over the least of all schedules, minus 1"]
    if plot:
        from optsched.commands.common import save_figure
        from optsched.plots.convex import plot_run_figure

        save_figure(plot_run_figure(schedule, distance=distance, norm=norm), plot, force)
        notes.append(f"wrote {plot}")
    show(numbers, as_json, notes=notes)


@click.command(cls=Command)
@click.option(
    "--from-horizon", "from_steps", type=Number(STEPS), help="Steps that the rate was tuned for."
)
@click.option("--to-horizon", "to_steps", type=Number(STEPS), help="Steps of the longer run.")
@click.option(
    "--cooldown",
    type=Number(SHARE),
    default=0.2,
    show_default=True,
    help="Share of the linear cooldown, before and after.",
)
@click.option("--peak", type=Number(ABOVE_ZERO), help="The tuned rate; then --output is in rates.")
@click.option("--output", type=click.Path(), help="Schedule of the long run: .npz, .csv, .json.")
@json_option
@force_option
def extend(
    from_steps: float | None,
    to_steps: float | None,
    cooldown: float,
    peak: float | None,
    output: str | None,
    as_json: bool,
    force: bool,
) -> None:
    """Continue a constant-then-cooldown run to more steps: the rate of its second stage."""
    from optsched.checks import positive
    from optsched.errors import OptschedError
    from optsched.files import SUFFIXES, check_writable
    from optsched.rules.convex.horizons import extend_wsd, two_stages

    required(from_steps=from_steps, to_steps=to_steps)
    if peak is not None:
        positive("peak", peak)
    if output:
        check_writable(output, force, suffixes=SUFFIXES)
    found = extend_wsd(from_steps, to_steps, cooldown)  # type: ignore[arg-type]
    notes = [f"keep the rate up to step {found.switch_step:,}, then multiply it by the factor"]
    notes += ["bounds over the least of all schedules; retuned: a new run with the same cooldown"]
    if found.needs_earlier_checkpoint:
        start = found.longer_cooldown_start
        notes.append(f"the longer cooldown needs a checkpoint of step {start:,} or before")
    if output:
        if found.factor is None:
            raise OptschedError("no factor keeps the rate, so there is no schedule to write")
        plan = two_stages(
            found.to_steps,
            found.switch_step,
            found.factor,
            cooldown=found.cooldown,
            peak=1.0 if peak is None else peak,
        )
        plan.save(output, overwrite=force)
        notes.append(f"wrote {output}")
    numbers = found.summary()
    if peak is not None and found.factor is not None:
        numbers["second_peak"] = peak * found.factor
    show(numbers, as_json, notes=notes)


@click.command(cls=Command)
@click.option("--horizon", type=Number(STEPS), help="Number of steps.")
@click.option("--from-cooldown", type=Number(SHARE), help="Share that the rate was tuned with.")
@click.option("--to-cooldown", type=Number(SHARE), help="Share that a rate is wanted for.")
@click.option("--peak", type=Number(ABOVE_ZERO), help="The tuned rate.")
@json_option
def cooldown(
    horizon: float | None,
    from_cooldown: float | None,
    to_cooldown: float | None,
    peak: float | None,
    as_json: bool,
) -> None:
    """Carry a tuned rate to a longer or shorter linear cooldown."""
    from optsched.checks import number, positive
    from optsched.rules.convex.horizons import cooldown_scale

    required(horizon=horizon, from_cooldown=from_cooldown, to_cooldown=to_cooldown)
    if peak is not None:
        positive("peak", peak)
    number("from_cooldown", from_cooldown, 0.0, 1.0)
    number("to_cooldown", to_cooldown, 0.0, 1.0)
    before = cooldown_scale(horizon, from_cooldown)  # type: ignore[arg-type]
    after = cooldown_scale(horizon, to_cooldown)  # type: ignore[arg-type]
    numbers = {
        "horizon": int(horizon or 0),
        "from_cooldown": from_cooldown,
        "to_cooldown": to_cooldown,
        "factor": after / before,
    }
    if peak is not None:
        numbers["peak"] = peak * after / before
    show(numbers, as_json)
