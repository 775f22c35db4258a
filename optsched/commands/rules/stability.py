"""``optsched rules stability``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from optsched.commands.command import Command
from optsched.commands.options import Choice, Number
from optsched.commands.rules.common import json_option, show
from optsched.errors import InvalidProblem

if TYPE_CHECKING:
    from optsched.rules.stability import UpdateRule

__all__ = ["rule_options", "stability", "update_rule"]

RATE = "a finite number > 0"


def rule_options(command: Any) -> Any:
    """Options that say how an optimiser moves; `update_rule` makes a rule of them."""
    options = (
        click.option(
            "--optimiser",
            type=Choice(("gd", "heavy-ball", "nesterov", "adam", "adamw"), {"sgd": "gd"}),
            default="gd",
            show_default=True,
            help="gd, heavy-ball, nesterov, adam or adamw (of a preconditioned sharpness).",
        ),
        click.option("--momentum", type=Number("a number in [0, 1)"), help="beta; Adam's beta1."),
        click.option(
            "--convention",
            type=Choice(("average", "sum")),
            default="average",
            show_default=True,
            help="average: v = beta v + (1 - beta) g; sum: v = beta v + g, as in torch's SGD.",
        ),
        click.option(
            "--weight-decay", type=Number("a finite number >= 0"), default=0.0, show_default=True
        ),
    )
    for option in reversed(options):
        command = option(command)
    return command


def update_rule(options: dict[str, Any]) -> UpdateRule:
    """The update rule that the options describe."""
    from optsched.rules.stability import UpdateRule

    name, momentum = options["optimiser"], options["momentum"]
    if momentum is None:
        if name in ("heavy-ball", "nesterov", "adam", "adamw"):
            raise InvalidProblem("momentum", None, "a number in [0, 1)")
        momentum = 0.0
    return UpdateRule(name, momentum, options["convention"], options["weight_decay"])


@click.command(cls=Command)
@click.option("--sharpness", type=Number(RATE), help="Largest eigenvalue of the Hessian.")
@click.option(
    "--sharpness-error",
    "error",
    type=Number("a finite number >= 0"),
    help="Uncertainty of the sharpness; 0.",
)
@click.option("--trace", type=click.Path(), help="csv with step,sharpness, in place of one number.")
@rule_options
@click.option("--lr", type=Number(RATE), help="A learning rate to judge.")
@click.option("--edge", "c", type=Number(RATE), help="Edge for the warm-up; the optimiser's.")
@click.option("--margin", type=Number("a number > 0 and < 1"), default=0.9, show_default=True)
@click.option("--peak", type=Number(RATE), help="Largest rate of the warm-up.")
@click.option("--horizon", type=Number("a whole number >= 1"), help="Steps of the warm-up.")
@click.option("--output", type=click.Path(), help="Write the warm-up: .csv, .npz or .json.")
@click.option("--force", is_flag=True, help="Overwrite an existing file.")
@json_option
def stability(as_json: bool, **options: Any) -> None:
    """Largest stable learning rate at a sharpness, and the warm-up below a measured one."""
    from optsched.checks import positive
    from optsched.diagnostics.trace import read_trace
    from optsched.files import SUFFIXES, check_writable
    from optsched.rules.stability import (
        SharpnessTrace,
        stable_rate,
        stable_warmup,
    )

    one, path, output = options["sharpness"], options["trace"], options["output"]
    if (one is None) == (path is None):
        raise InvalidProblem("sharpness", one, "exactly one of --sharpness and --trace")
    for field, name in (("output", "output"), ("edge", "c"), ("peak", "peak"), ("horizon",) * 2):
        if path is None and options[name] is not None:
            raise InvalidProblem(field, options[name], "none without --trace: it is of a warm-up")
    if path is not None and options["error"] is not None:
        allowed = "none with --trace: a column sharpness_error"
        raise InvalidProblem("error", options["error"], allowed)
    rule = update_rule(options)
    if output is not None:
        check_writable(output, options["force"], suffixes=SUFFIXES)
    if path is None:
        trace = SharpnessTrace([0], [one], options["error"] or 0.0)
    else:
        trace = read_trace(path)
    found = stable_rate(trace, rule)
    numbers: dict[str, Any] = {
        "lr": found.rate,
        "lr_low": found.low,
        "lr_high": found.high,
        "edge": found.edge,
        "sharpness": found.sharpness,
        "sharpness_error": found.error,
        "optimiser": rule.optimiser,
        "momentum": float(rule.momentum),
        "convention": rule.convention,
        "weight_decay": float(rule.weight_decay),
        "preconditioned": rule.preconditioned,
    }
    notes = []
    if rule.preconditioned:
        notes.append("the sharpness is taken as that of the preconditioned Hessian, P^-1 H")
    if options["lr"] is not None:
        numbers["sharpest"] = rule.sharpest(positive("lr", options["lr"]))
        numbers["stable"] = options["lr"] < found.rate
    if path is not None:
        numbers |= {"step": found.step, "at_edge": trace.at_edge(rule)}
        if numbers["at_edge"]:
            notes.append(
                "warning: this run was near the edge itself, so its sharpness tells of its rate: "
                "measure below it"
            )
        names = ("c", "margin", "peak", "horizon")
        schedule = stable_warmup(trace, rule, **{name: options[name] for name in names})
        numbers |= {"peak": schedule.peak, "horizon": schedule.horizon}
        if output is not None:
            schedule.save(output, overwrite=options["force"])
            numbers["output"] = output
    show(numbers, as_json, notes=notes)
