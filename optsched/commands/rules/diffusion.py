"""``optsched rules diffusion``."""

from __future__ import annotations

from typing import Any

import click

from optsched.commands.command import Command
from optsched.commands.options import Choice, Number
from optsched.commands.rules.common import json_option, required, show
from optsched.errors import InvalidProblem

__all__ = ["diffusion"]

EDM = ("sigma_min", "sigma_max", "rho")


@click.command(cls=Command)
@click.option(
    "--schedule",
    "kind",
    type=Choice(("linear", "cosine", "edm")),
    help="linear (DDPM), cosine or edm. Required.",
)
@click.option(
    "--levels", "steps", type=Number("a whole number of levels"), help="Levels T. Required."
)
@click.option(
    "--sigma-min", type=Number("a number > 0"), help="edm: least noise.  [default: 0.002]"
)
@click.option("--sigma-max", type=Number("a number > 0"), help="edm: most noise.  [default: 80]")
@click.option("--rho", type=Number("a number > 0"), help="edm: exponent.  [default: 7]")
@click.option(
    "--form",
    type=Choice(("preserving", "exploding")),
    help="preserving or exploding: what alpha and sigma of the file are.",
)
@click.option(
    "--weighting",
    "loss",
    type=Choice(("epsilon", "x0", "v", "min-snr", "edm")),
    help="Weigh the levels by a loss: epsilon, x0, v, min-snr or edm.",
)
@click.option("--output", type=click.Path(), help="All levels: .npz, .csv or .json.")
@click.option("--plot", type=click.Path(), help="Log SNR and capacity: .png, .pdf, .svg.")
@json_option
@click.option("--force", is_flag=True, help="Overwrite existing output files.")
def diffusion(as_json: bool, force: bool, **options: Any) -> None:
    """Noise schedule of a diffusion model: alpha-bar, sigma, log SNR, and where it has capacity."""
    from optsched.files import PLOT_SUFFIXES, SUFFIXES, check_writable
    from optsched.rules.diffusion.capacity import loss_weight
    from optsched.rules.diffusion.files import save

    for key, suffixes in (("output", SUFFIXES), ("plot", PLOT_SUFFIXES)):
        if options[key]:
            check_writable(options[key], force, suffixes=suffixes)
    schedule, loss = _schedule(options), options["loss"]
    if loss is not None:
        loss_weight(schedule.log_snr, loss)
    notes = []
    if options["output"]:
        save(schedule, options["output"], overwrite=force)
        notes.append(f"wrote {options['output']}")
    if options["plot"]:
        from optsched.commands.common import save_figure
        from optsched.plots.diffusion import plot_noise_figure

        label = f"{schedule.kind}, T = {len(schedule):,}"
        save_figure(plot_noise_figure([(label, schedule)], loss), options["plot"], force)
        notes.append(f"wrote {options['plot']}")
    show(_numbers(schedule, loss), as_json, notes=notes)


def _schedule(options: dict[str, Any]) -> Any:
    from dataclasses import replace

    from optsched.rules.diffusion.schedules import KINDS

    kind = options["kind"]
    if kind not in KINDS:
        raise InvalidProblem("kind", kind, "one of " + ", ".join(KINDS))
    required(steps=options["steps"])
    own = {name: options[name] for name in EDM if options[name] is not None}
    if kind != "edm":
        for name, value in own.items():
            raise InvalidProblem(name, value, f"none with the kind {kind}")
    schedule = KINDS[kind](options["steps"], **own)
    return schedule if options["form"] is None else replace(schedule, form=options["form"])


def _numbers(schedule: Any, loss: str | None) -> dict[str, Any]:
    """The ends of a schedule, and the middle of its capacity."""
    import numpy as np

    from optsched.rules.diffusion.capacity import capacity

    numbers: dict[str, Any] = {
        "kind": schedule.kind,
        "form": schedule.form,
        "steps": len(schedule),
        "log_snr_first": schedule.log_snr[0].item(),
        "log_snr_last": schedule.log_snr[-1].item(),
        "alpha_bar_first": schedule.alpha_bar[0].item(),
        "alpha_bar_last": schedule.alpha_bar[-1].item(),
        "sigma_first": schedule.sigma_exploding[0].item(),
        "sigma_last": schedule.sigma_exploding[-1].item(),
        "largest_beta": float(schedule.betas.max()),
    }
    if len(schedule) > 1:
        found = capacity(schedule, loss)
        share = np.cumsum(found.density * found.width)
        for name, part in (("10", 0.1), ("50", 0.5), ("90", 0.9)):
            numbers[f"log_snr_{name}_percent"] = float(found.log_snr[np.searchsorted(share, part)])
    return numbers
