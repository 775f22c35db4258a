"""``optsched rules``: its sub-commands live in modules ``rules_*`` and are listed here."""

from __future__ import annotations

import click

from optsched.commands.rules_batch import batch, noise_scale
from optsched.commands.rules_convex import convex, cooldown, extend
from optsched.commands.rules_diffusion import diffusion
from optsched.commands.rules_ema import ema
from optsched.commands.rules_invariance import invariance
from optsched.commands.rules_lmo import lmo
from optsched.commands.rules_stability import stability

__all__ = ["rules"]


@click.group()
def rules() -> None:
    """Rules around a schedule: transfer, batch size, averaging and more."""


COMMANDS = (
    lmo,
    noise_scale,
    batch,
    ema,
    stability,
    extend,
    cooldown,
    convex,
    diffusion,
    invariance,
)

for command in COMMANDS:
    rules.add_command(command)
