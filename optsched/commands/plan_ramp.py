"""``optsched plan --batch-ramp``: its options, and what is said of the ramp."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from optsched.commands.options import Choice, Number
from optsched.errors import InvalidProblem

if TYPE_CHECKING:
    from optsched.pilot.fitting import Fit
    from optsched.schedules.ramps import BatchRamp
    from optsched.schedules.schedule import Schedule

__all__ = ["RAMP_OPTIONS", "check_ramp", "make_ramp", "ramp_notes", "ramp_options"]

OF_LAWS = {"sgd": "sgd", "fsl-sgd": "sgd"} | dict.fromkeys(("adamw", "adam", "other"), "adaptive")
RAMP_OPTIONS = ("batch_ramp", "batch_sizes", "critical_batch")


def ramp_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a ramp."""
    for option in (
        click.option(
            "--critical-batch",
            type=Number("a number > 0"),
            help="With --batch-ramp: no larger batches, as there gradients are not mostly noise.",
        ),
        click.option(
            "--batch-sizes",
            help="With --batch-ramp: the sizes to use, with commas.  [default: doublings of"
            " --batch]",
        ),
        click.option(
            "--batch-ramp",
            type=Choice(("auto", "adaptive", "sgd")),
            is_flag=False,
            flag_value="auto",
            help="Grow the batch in place of the planned decay; needs --batch. For whose updates:"
            " adaptive, sgd, or auto, as the law says.",
        ),
    ):
        command = option(command)
    return command


def make_ramp(
    options: dict[str, Any], batch: float | None, found: Fit, planned: Schedule, start: int
) -> BatchRamp | None:
    """The ramp that was asked for; the options are taken out."""
    from optsched.schedules.ramps import batch_ramp

    asked, listed, critical = (options.pop(name) for name in RAMP_OPTIONS)
    if asked is None:
        return None
    assert batch is not None  # see check_ramp
    rule = _rule(found) if asked == "auto" else asked
    sizes = None if listed is None else _sizes(listed)
    size = int(batch)
    return batch_ramp(planned, size, sizes, rule=rule, start=start, critical=critical)


def check_ramp(options: dict[str, Any], batch: float | None) -> None:
    """Refuse now what would be refused after the plan is made."""
    if options["batch_ramp"] is None:
        for name in RAMP_OPTIONS[1:]:
            if options[name] is not None:
                raise InvalidProblem(name, options[name], "nothing without --batch-ramp")
        return
    if batch is None:
        raise InvalidProblem("batch", None, "the batch size of the plan, with --batch-ramp")
    if not (batch >= 1.0 and float(batch).is_integer()):
        raise InvalidProblem("batch", batch, "a whole number >= 1, with --batch-ramp")
    if options["batch_sizes"] is not None:
        _sizes(options["batch_sizes"])
    if options["critical_batch"] is not None and not batch <= options["critical_batch"]:
        allowed = f"{batch:g} or more: where --batch is above it already, a larger one wastes data"
        raise InvalidProblem("critical_batch", options["critical_batch"], allowed)


def _sizes(text: str) -> list[int]:
    try:
        sizes = [int(size) for size in text.split(",")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        allowed = "whole numbers >= 1 with commas, such as 256,512,1024"
        raise InvalidProblem("batch_sizes", text, allowed)
    return sizes


def _rule(found: Fit) -> str:
    """Whose updates the law is of."""
    told = found.law.settings().get("optimiser", found.law.name)
    if told not in OF_LAWS:
        allowed = f"adaptive or sgd: the law {found.law.name} does not say whose updates are meant"
        raise InvalidProblem("batch_ramp", "auto", allowed)
    return OF_LAWS[told]


def ramp_notes(ramp: BatchRamp, critical: float | None) -> list[str]:
    """What the ramp is, what it saves, and where that is so."""
    if len(ramp.stages) == 1:
        return ["batch ramp: none of the sizes fits the decay, so that the batch stays"]
    lead = f"batch ramp: {ramp.words}: {ramp.steps:,} steps in place of {ramp.steps_before:,}"
    lead += f" ({100.0 * ramp.saved:.1f} % fewer) on the same data"
    if ramp.rule == "sgd":
        rule = "the rate is held where the batch grows as the plan's rate falls"
        where = "plain SGD at small rates"
    else:
        rule = (
            "where the plan's rate falls by a factor, the rate falls by its root and the batch"
            " grows by it"
        )
        where = "normalised updates (Adam) at small rates, while gradients are mostly noise"
    largest = max(one.batch_size for one in ramp.stages)
    out = [lead, f"{rule}: equivalent to the plan for {where}"]
    if critical is None:
        out.append(
            f"do not where {largest:,} is near the critical batch (optsched rules batch), or where"
            " larger batches take as much longer: only serial steps are saved"
        )
    return out
