"""``optsched rules precision``, and the warning that ``export`` gives by the same rule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from optsched.commands.command import Command
from optsched.commands.options import Choice, Number
from optsched.commands.rules.common import json_option, show
from optsched.errors import InvalidProblem

if TYPE_CHECKING:
    from optsched.schedules.schedule import Schedule

__all__ = ["lost_to_rounding", "precision", "precision_options"]

DTYPES = ("bf16", "fp16", "fp32")
RMS = 0.02


def precision_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of a warning where rounding of the weights drops the updates."""
    dtype = click.option(
        "--dtype",
        type=Choice(DTYPES),
        help="Format that keeps the weights between steps: warn where it drops updates.",
    )
    rms = click.option(
        "--weight-rms",
        type=Number("a number > 0"),
        help=f"Root mean square of the weights, for --dtype.  [default: {RMS:g}]",
    )
    return dtype(rms(command))


def lost_to_rounding(
    schedule: Schedule, dtype: str | None, weight_rms: float | None
) -> tuple[str, ...]:
    """What to warn of: the steps at the end in which most updates are lost."""
    from optsched.rules.precision import last_steps, least_rate

    if dtype is None:
        if weight_rms is not None:
            raise InvalidProblem("weight_rms", weight_rms, "nothing without --dtype")
        return ()
    rms = RMS if weight_rms is None else weight_rms
    found = last_steps(schedule, least_rate(dtype, weight_rms=rms))
    if found.step is None:
        return ()
    return (
        f"from step {found.step:,} on, {100 * found.share:.2g} % of the steps, the rate is below "
        f"{found.least:.2g}: rounding to {dtype} drops more than half of updates of that size, for "
        f"weights of rms {rms:g}; end higher, round stochastically or keep a copy in fp32",
    )


@click.command(cls=Command)
@click.argument("file", type=click.Path(), required=False)
@click.option(
    "--dtype",
    type=Choice(DTYPES),
    default="bf16",
    show_default=True,
    help="Format that keeps the weights between steps.",
)
@click.option(
    "--weight-rms",
    type=Number("a number > 0"),
    default=RMS,
    show_default=True,
    help="Root mean square of the weights.",
)
@click.option(
    "--update-rms",
    type=Number("a number > 0"),
    default=1.0,
    show_default=True,
    help="Root mean square of an update at rate 1: up to 1 for Adam; of a gradient for SGD.",
)
@click.option(
    "--update",
    type=Choice(("sign", "normal")),
    default="sign",
    show_default=True,
    help="Updates all of one size, or normal ones.",
)
@click.option(
    "--lost",
    type=Number("a number in (0, 1)"),
    default=0.5,
    show_default=True,
    help="Share of lost updates at the least rate.",
)
@click.option("--rate", type=Number("a number > 0"), help="Rate to look at.")
@click.option(
    "--gradient-max",
    type=Number("a number > 0"),
    help="Largest entry of a gradient: shows the scale of the loss that fits.",
)
@json_option
def precision(
    file: str | None,
    dtype: str,
    lost: float,
    rate: float | None,
    gradient_max: float | None,
    as_json: bool,
    **how: Any,
) -> None:
    """The least rate that the format of the weights holds; where a schedule FILE ends below it."""
    from optsched.rules.precision import last_steps, least_rate, loss_scale, rounding
    from optsched.schedules.schedule import Schedule

    numbers: dict[str, Any] = {
        "dtype": dtype,
        "least_rate": least_rate(dtype, lost=lost, **how),
    }
    if rate is not None:
        at = rounding(rate, dtype, **how)
        numbers |= {"lost": at.lost, "moved": at.moved, "stochastic_noise": at.noise}
    if file is not None:
        found = last_steps(Schedule.load(file), numbers["least_rate"])
        numbers |= {"below_from_step": found.step, "below_share": found.share}
    if gradient_max is not None:
        numbers["loss_scale"] = loss_scale(gradient_max, dtype)
    show(numbers, as_json)
