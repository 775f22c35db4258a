"""The recipe of docs/recipe.md as one script: every choice of a training run, in order.

From a compute budget: width and characters, batch (gradient noise scale), peak rate, warm-up
(sharpness), weight decay (time-scale of the weights), decay (fit and plan), averaging of the
weights, and what to change for the next run (noise scale again).

Run: ``python -m benchmarks.real_training.recipe --output DIR``, about three minutes of one core's
time. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real_training.carry import fit_law, plan_schedule, predict_losses
from benchmarks.real_training.common import command_line, markdown, output_folder
from benchmarks.real_training.measure import gradient_noise, measured_cell, sharpness
from benchmarks.real_training.protocol import (
    Cell,
    Protocol,
    Results,
    final_losses,
    make_cell,
    run_stage,
    write_logs,
)
from benchmarks.real_training.train import Recipe, run_cell, train
from benchmarks.real_training.transformer import Shape, matrix_count
from optsched import InvalidProblem, OptschedError, Schedule
from optsched.commands.common import sweep_progress
from optsched.files import atomic_path
from optsched.rules.averaging import MovingAverage
from optsched.rules.batch.scaling import samples_factor, scale_adam
from optsched.rules.stability import SharpnessTrace, UpdateRule, stable_warmup

__all__ = ["Choices", "batch_for", "main", "widths_for"]

WIDTHS = (16, 24, 32)
WIDTH_STEP = 8
EXPONENT = 0.5  # of parameters in compute: Hoffmann et al., arXiv 2203.15556
SMALL = 1.0 / 8.0  # compute of a run that chooses the width, over the budget
SHORT = 1.0 / 4.0  # steps of the pilots, over those of the run
FIRST_BATCH = 8
FIRST_PEAK, FIRST_WIDTH = 0.016, 48  # the rate of Adam goes as 1 / width
EXTRA = 1.0  # samples that a larger batch may cost: twice as many at the critical batch size
PEAKS = (0.5, 1.0, 2.0)
DECAYS = (0.3, 1.0, 3.0)  # steps of a pilot over 1 / (rate x decay)
LEAST_MEMORY = 0.2  # 1 - beta of Adam at a larger batch
SHARPNESS_POINTS = 8  # along the ramp
WINDOWS = (1.0 / 40.0, 1.0 / 10.0)  # of averages, over the steps of the run


@dataclass
class Choices:
    """What has been chosen so far, with the numbers behind it."""

    compute: float
    recipe: Recipe = field(default_factory=lambda: Recipe(batch=FIRST_BATCH, every=25, blocks=64))
    peak: float = FIRST_PEAK
    steps: int = 0
    warmup: int = 0
    lines: list[dict[str, str]] = field(default_factory=list)
    numbers: dict[str, Any] = field(default_factory=dict)

    def chose(self, what: str, value: str, why: str, **numbers: Any) -> None:
        """Keep a choice, and tell it."""
        self.lines.append({"choice": what, "value": value, "from": why})
        self.numbers |= numbers
        print(f"{what}: {value} ({why})", flush=True)

    @property
    def short(self) -> int:
        """Steps of a pilot."""
        return rounded(SHORT * self.steps, self.recipe.every)


def rounded(steps: float, every: int) -> int:
    """A number of steps that evaluations divide, at least eight of them."""
    return max(8, round(steps / every)) * every


def steps_for(compute: float, recipe: Recipe) -> int:
    """Steps that a budget of 6 x parameters x characters allows."""
    per_step = 6.0 * matrix_count(recipe.language) * recipe.batch * recipe.language.context
    return rounded(compute / per_step, recipe.every)


def widths_for(width: int, factor: float) -> int:
    """Width at ``factor`` times the compute: parameters as its square root, so width as its fourth.

    Rounded to a multiple of 8.
    """
    return max(1, round(width * factor ** (EXPONENT / 2.0) / WIDTH_STEP)) * WIDTH_STEP


def batch_for(noise_scale: float, most: int = 64) -> int:
    """Largest power of two that costs at most twice the samples of tiny batches."""
    if not noise_scale > 0.0:
        raise InvalidProblem("noise_scale", noise_scale, "a number > 0: measure on more batches")
    batch = 1
    while 2 * batch <= most and float(samples_factor(2 * batch, noise_scale)) <= 1.0 + EXTRA:
        batch *= 2
    return batch


class _Script:
    """The steps of the recipe, in one folder."""

    def __init__(self, choices: Choices, output: Path, workers: int | None) -> None:
        self.choices, self.output, self.workers = choices, output, workers

    def runs(
        self,
        name: str,
        cells: Sequence[Cell],
        recipe: Recipe | None = None,
        task: Callable[..., dict[str, Any]] = run_cell,
    ) -> Results:
        """Train what the stage does not have yet; diverged runs count as infinitely bad."""
        with sweep_progress(name) as progress:
            return run_stage(
                self.output / name,
                cells,
                recipe or self.choices.recipe,
                self.workers,
                progress,
                task,
            )

    def protocol(self) -> Protocol:
        """Schedules at the sizes chosen so far; two seeds are the least it knows, one is run."""
        chosen = self.choices
        warmup = chosen.warmup or rounded(0.0, chosen.recipe.every) // 8
        return Protocol(recipe=chosen.recipe, short=chosen.short, warmup=warmup, seeds=2)

    def best(self, name: str, schedules: Mapping[str, Schedule]) -> tuple[str, dict[str, float]]:
        """Name of the schedule with the least final loss, and all of them."""
        cells = [make_cell(key, schedule, 0) for key, schedule in schedules.items()]
        return least(name, final_losses(self.runs(name, cells)))

    def width(self) -> None:
        """Runs of equal compute at several widths, and the width at the whole budget."""
        chosen, losses = self.choices, {}
        small = SMALL * chosen.compute
        for width in WIDTHS:
            recipe = replace(chosen.recipe, shape=Shape(width=width))
            steps = steps_for(small, recipe)
            protocol = Protocol(recipe=recipe, short=max(steps, 8 * recipe.every), warmup=25)
            schedule = protocol.linear(protocol.short, FIRST_PEAK * FIRST_WIDTH / width)
            rows = self.runs(f"width_{width}", [make_cell(f"{width}", schedule, 0)], recipe)
            losses |= final_losses(rows)
        name, found = least("width", losses)
        width = widths_for(int(name), 1.0 / SMALL)
        chosen.recipe = replace(chosen.recipe, shape=Shape(width=width))
        chosen.peak = FIRST_PEAK * FIRST_WIDTH / width
        chosen.steps = steps_for(chosen.compute, chosen.recipe)
        chosen.chose(
            "width",
            f"{width}",
            f"best of equal compute at C/8: {name}; parameters as C^{EXPONENT:g}",
            width=width,
            width_losses=found,
        )

    def batch(self) -> None:
        """Noise scale after a pilot, and the batch that it allows."""
        chosen = self.choices
        rates = self.protocol().constant(chosen.short, chosen.peak).array("eta")
        _, parameters = train(rates, 0, chosen.recipe)
        noise = gradient_noise(parameters, chosen.recipe)
        if not noise.resolved:
            raise OptschedError("noise scale: the gradient is drowned in noise; use more batches")
        batch = batch_for(noise.value)
        chosen.recipe = replace(chosen.recipe, batch=batch)
        chosen.peak *= math.sqrt(batch / FIRST_BATCH)
        chosen.steps = steps_for(chosen.compute, chosen.recipe)
        chosen.chose(
            "batch",
            f"{batch} blocks, {chosen.steps} steps",
            f"noise scale {noise.value:.0f} +- {noise.stderr:.0f} blocks",
            batch=batch,
            steps=chosen.steps,
            noise_scale=noise.value,
            noise_scale_stderr=noise.stderr,
        )

    def rate(self) -> None:
        """The peak rate, tuned around the one carried to this width and batch."""
        chosen, protocol = self.choices, self.protocol()
        schedules = {
            f"{factor * chosen.peak:.3g}": protocol.linear(chosen.short, factor * chosen.peak)
            for factor in PEAKS
        }
        name, losses = self.best("peaks", schedules)
        chosen.peak = float(name)
        why = f"best of {', '.join(losses)} at {chosen.short} steps"
        chosen.chose("peak rate", name, why, peak=chosen.peak, peak_losses=losses)

    def warm(self) -> None:
        """Sharpness along a slow ramp to the peak, and the fastest warm-up that stays below it."""
        chosen = self.choices
        recipe, length = chosen.recipe, chosen.short // 2 // chosen.recipe.every
        ramp = chosen.peak * np.arange(1, length * recipe.every + 1) / (length * recipe.every)
        stride = math.ceil(length / SHARPNESS_POINTS) * recipe.every
        seen: list[tuple[int, float, float]] = []

        def visit(step: int, parameters: Any, state: Any) -> None:
            if step and step % stride == 0:
                found = sharpness(parameters, state, recipe)
                seen.append((step, found.value, found.error))

        train(ramp, 0, recipe, visit)
        steps, values, errors = (np.array(column) for column in zip(*seen, strict=True))
        rule = UpdateRule("adamw", recipe.beta1, weight_decay=recipe.weight_decay)
        trace = SharpnessTrace(steps.astype(int), values, errors)
        safe = stable_warmup(trace, rule, peak=chosen.peak).array("eta")
        reached = int(np.argmax(safe >= 0.999 * safe.max()))
        chosen.warmup = max(1, math.ceil(reached / recipe.every)) * recipe.every
        top = f"{rule.edge:.0f} / {values.max():.0f}"
        why = f"sharpness {values[0]:.0f} at step {steps[0]}, {values[-1]:.0f} at {steps[-1]}"
        if safe.max() < 0.999 * chosen.peak:
            chosen.peak = float(safe.max())
            why += f"; the peak falls to {chosen.peak:.3g}, 0.9 of the edge {top}"
        chosen.warmup = min(chosen.warmup, chosen.short // 4 // recipe.every * recipe.every)
        chosen.chose(
            "warm-up",
            f"{chosen.warmup} steps",
            why,
            warmup=chosen.warmup,
            sharpness=values.tolist(),
            sharpness_steps=steps.tolist(),
            edge=rule.edge,
        )

    def weight_decay(self) -> None:
        """Weight decay by its time-scale 1 / (rate x decay), as a share of the run."""
        chosen, losses = self.choices, {}
        schedule = self.protocol().linear(chosen.short, chosen.peak)
        for share in DECAYS:
            decay = share / (chosen.peak * chosen.short)
            recipe = replace(chosen.recipe, weight_decay=decay)
            rows = self.runs(f"decay_{share:g}", [make_cell(f"{share:g}", schedule, 0)], recipe)
            losses |= final_losses(rows)
        name, found = least("weight decay", losses)
        decay = float(name) / (chosen.peak * chosen.steps)
        chosen.recipe = replace(chosen.recipe, weight_decay=decay)
        chosen.chose(
            "weight decay",
            f"{decay:.3g}",
            f"rate x decay x steps = {name} is best at {chosen.short} steps, and kept",
            weight_decay=decay,
            weight_decay_losses=found,
        )

    def decay(self) -> Schedule:
        """Pilots, law, plan."""
        chosen, protocol = self.choices, self.protocol()
        # At the short horizon the time-scale is kept too.
        ratio = chosen.steps / chosen.short
        recipe = replace(chosen.recipe, weight_decay=chosen.recipe.weight_decay * ratio)
        cells = [make_cell(n, s, 0) for n, s in protocol.pilots(chosen.peak).items()]
        rows = self.runs("pilots", cells, recipe)
        least("pilots", final_losses(rows))
        logs, law = write_logs(self.output / "logs", rows, chosen.warmup), self.output / "law.json"
        fit_law(logs, chosen.warmup, law, recipe)
        path = self.output / "plan.npz"
        plan = plan_schedule(law, chosen.steps, chosen.peak, chosen.warmup, path).schedule
        eta = plan.array("eta")
        half = int(np.argmax((eta < 0.5 * plan.peak) & (np.arange(len(eta)) > chosen.warmup)))
        # The linear decay that chose the weight decay is a pilot that the law has not seen.
        held_out = {"linear": protocol.linear(chosen.short, chosen.peak)}
        told = predict_losses(law, held_out, self.output / "held-out")["linear"]
        measured = min(chosen.numbers["weight_decay_losses"].values())
        trusted = told.low <= measured <= told.high
        chosen.chose(
            "decay",
            f"plan: below half of the peak from step {half}" if trusted else "linear",
            f"law of {len(logs)} pilots says {told.loss:.3f} ({told.low:.3f} to {told.high:.3f}) "
            f"of a linear one, which had {measured:.3f}",
            plan_half=half,
            held_out=measured,
            held_out_predicted=[told.low, told.loss, told.high],
            decay="plan" if trusted else "linear",
        )
        return plan

    def train(self, plan: Schedule) -> None:
        """Plan, linear and constant rate at the whole budget, with averages of the weights."""
        chosen, protocol = self.choices, self.protocol()
        windows = [max(2.0 * chosen.recipe.every, share * chosen.steps) for share in WINDOWS]
        cells = [
            {**make_cell(name, schedule, 0), "windows": windows}
            for name, schedule in (
                ("plan", plan),
                ("linear", protocol.linear(chosen.steps, chosen.peak)),
                ("constant", protocol.constant(chosen.steps, chosen.peak)),
            )
        ]
        rows = self.runs("run", cells, task=measured_cell)
        _, losses = least("run", final_losses(rows))
        averaged = {row.cell["name"]: row.result["averaged"] for row in rows}
        kind = chosen.numbers["decay"]
        options = {"none": losses[kind]} | dict(
            zip((f"{window:.0f}" for window in windows), averaged[kind], strict=True)
        )
        name = min(options, key=lambda n: options[n])
        ema = "none" if name == "none" else f"window {name} steps"
        why = "; ".join(
            f"{key} {losses[key]:.3f}, averaged {min(averaged[key]):.3f}" for key in losses
        )
        chosen.chose("averaging", ema, why, losses=losses, averaged=averaged, windows=list(windows))
        last = next(row.result for row in rows if row.cell["name"] == kind)
        self.next_run(last, windows[0])

    def next_run(self, result: Mapping[str, Any], window: float) -> None:
        """What the noise scale at the end says of the next, longer run."""
        chosen, noise = self.choices, float(result["noise_scale"])
        recipe = chosen.recipe
        betas = (recipe.beta1, recipe.beta2)
        # Square-root scaling shortens the memories of Adam: no further than beta = 0.8.
        most = recipe.batch * LEAST_MEMORY / (1.0 - min(betas))
        batch = recipe.batch
        while noise > 0.0 and 2 * batch <= min(batch_for(noise), most * (1.0 + 1e-9)):
            batch *= 2
        scaled = scale_adam(chosen.peak, *betas, 1e-8, from_batch=recipe.batch, batch=batch)
        average = MovingAverage.from_window(window).scaled(batch, recipe.batch)
        why = f"noise scale {noise:.0f} +- {result['noise_scale_stderr']:.0f} blocks at the end"
        chosen.chose(
            "next run",
            f"batch {batch}, rate {scaled.lr:.3g}, beta1 {scaled.beta1:.3g}, beta2 "
            f"{scaled.beta2:.3g}, window {average.window:.0f} steps",
            why,
            next_batch=batch,
            next_peak=scaled.lr,
            noise_scale_end=noise,
        )


def least(what: str, losses: Mapping[str, Sequence[float]]) -> tuple[str, dict[str, float]]:
    """Name of the least mean loss, and the mean of each; an error if none is finite."""
    means = {name: float(np.mean(values)) for name, values in losses.items()}
    name = min(means, key=lambda n: means[n])
    if not math.isfinite(means[name]):
        raise OptschedError(f"{what}: every run diverged: give a smaller --peak")
    return name, means


def _main(argv: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_training.recipe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    output_folder(parser)
    parser.add_argument(
        "--compute", type=float, default=1.5e11, help="budget: 6 x parameters x characters"
    )
    args = parser.parse_args(argv)
    if not 1e8 <= args.compute <= 1e18:
        raise InvalidProblem("compute", args.compute, "a number of operations, 1e8 to 1e18")
    choices = Choices(args.compute)
    script = _Script(choices, args.output, args.workers)
    for step in (script.width, script.batch, script.rate, script.warm, script.weight_decay):
        step()
    script.train(script.decay())
    with atomic_path(args.output / "recipe.json") as path:
        path.write_text(json.dumps(choices.numbers, indent=1) + "\n", encoding="utf-8")
    print("\n" + markdown(choices.lines))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the recipe; returns the exit code."""
    return command_line(_main, argv)


if __name__ == "__main__":
    sys.exit(main())
