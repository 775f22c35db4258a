"""``optsched rules``: its sub-commands live in modules ``rules_*`` and are listed here."""

from __future__ import annotations

import click

from optsched.commands.rules.batch import batch, noise_scale
from optsched.commands.rules.convex import convex, cooldown, extend
from optsched.commands.rules.diffusion import diffusion
from optsched.commands.rules.ema import ema
from optsched.commands.rules.invariance import invariance
from optsched.commands.rules.lmo import lmo
from optsched.commands.rules.stability import stability

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
