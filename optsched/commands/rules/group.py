"""``optsched rules``: its sub-commands live in the modules beside this one and are listed here."""

from __future__ import annotations

import click

from optsched.commands.lazy import LazyGroup

__all__ = ["rules"]

HERE = "optsched.commands.rules"


COMMANDS = {
    "lmo": (f"{HERE}.lmo:lmo", "Rate, momentum, batch at another budget (Adam, Muon)."),
    "noise-scale": (f"{HERE}.batch:noise_scale", "Noise scale of gradients, or of SGD."),
    "batch": (f"{HERE}.batch:batch", "Rate, steps and samples at another batch size."),
    "ema": (f"{HERE}.ema:ema", "Half-life, window, bias of a moving average."),
    "precision": (f"{HERE}.precision:precision", "Least rate that bf16 or fp16 weights can hold."),
    "stability": (f"{HERE}.stability:stability", "Largest stable rate, and a warm-up below it."),
    "extend": (f"{HERE}.convex:extend", "Continue a run to more steps: its second rate."),
    "cooldown": (f"{HERE}.convex:cooldown", "A tuned rate for another linear cooldown."),
    "convex": (f"{HERE}.convex:convex", "Worst-case bound of a schedule, best factor."),
    "diffusion": (f"{HERE}.diffusion:diffusion", "Noise schedules of diffusion models."),
    "compute-optimal": (
        f"{HERE}.compute_optimal:compute_optimal",
        "Best size and tokens, from a table of runs.",
    ),
    "invariance": (f"{HERE}.invariance:invariance", "Whether AdamW follows lr x weight decay."),
}


@click.group(cls=LazyGroup, sections={"Commands": COMMANDS})
def rules() -> None:
    """Rules around a schedule: transfer, batch size, averaging and more."""
