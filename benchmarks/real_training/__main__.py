"""From pilots of a small real model to a run four times as long, planned, trained and compared.

A transformer language model on the sources of Python's standard library, with AdamW. At the short
horizon the peak rate, the final rate of a cosine and the cooldown of WSD are tuned, and pilots are
logged; a law is fitted to their logs (``optsched fit``), the schedule of the long horizon planned
(``optsched plan``) and trained beside cosine, WSD and linear decay with the same peak, data and
first parameters.

Run: ``python -m benchmarks.real_training --output DIR``, ten minutes on two cores. The
same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from benchmarks.real_training.carry import fit_law, plan_schedule, predict_losses
from benchmarks.real_training.common import (
    command_line,
    markdown,
    mean_error,
    output_folder,
    with_error,
)
from benchmarks.real_training.protocol import (
    Cell,
    Protocol,
    Results,
    best,
    final_losses,
    run_stage,
    write_logs,
)
from benchmarks.real_training.report import PLAN, comparison, figure, shown
from benchmarks.real_training.text import standard_library
from benchmarks.real_training.train import Recipe
from benchmarks.real_training.transformer import Shape, parameter_count, shapes
from optsched import OptschedError, Schedule
from optsched.commands.common import save_figure, sweep_progress
from optsched.studies.tables import write_table

__all__ = ["main"]

SIZES = (Protocol, Recipe, Shape)


class _Run:
    """The stages of one comparison, in one folder."""

    def __init__(self, protocol: Protocol, output: Path, workers: int | None) -> None:
        self.protocol, self.output, self.workers = protocol, output, workers

    def stage(self, name: str, cells: Sequence[Cell], *, may_fail: bool = False) -> Results:
        """Train what the stage does not have yet."""
        with sweep_progress(name) as progress:
            rows = run_stage(
                self.output / name, cells, self.protocol.recipe, self.workers, progress
            )
        failed = [row for row in rows if row.status == "failed"]
        if failed and not may_fail:
            cell = failed[0].cell
            raise OptschedError(f"{cell['name']}, seed {cell['seed']}: {failed[0].error}")
        return rows

    def peak(self) -> float:
        """The best of the peaks at the short horizon."""
        losses = final_losses(self.stage("peaks", self.protocol.peak_cells(), may_fail=True))
        if all(math.isinf(values[0]) for values in losses.values()):
            raise OptschedError("peaks: every run diverged: give smaller ones with --peaks")
        self.tell("peak rate, linear decay", losses)
        return float(best(losses))

    def short(self, peak: float) -> tuple[Results, dict[str, list[float]]]:
        """Runs of the pilots, and final losses of the shapes that are tuned."""
        pilots, shapes = self.protocol.pilots(peak), self.protocol.shapes(peak)
        rows = self.stage("short", self.protocol.cells(pilots | shapes))
        losses = final_losses(rows)
        self.tell(f"{self.protocol.short} steps, peak {peak:g}", losses)
        return tuple(row for row in rows if row.cell["name"] in pilots), losses

    def tell(self, what: str, losses: Mapping[str, Sequence[float]]) -> None:
        """Print final losses."""
        rows = [
            {what: name, "final loss": with_error(*mean_error(values))}
            for name, values in losses.items()
        ]
        print(f"\n{markdown(rows)}\n", flush=True)


def _compare(run: _Run) -> None:
    protocol, output = run.protocol, run.output
    peak = run.peak()
    pilots, losses = run.short(peak)
    logs = write_logs(output / "logs", pilots, protocol.warmup)
    law = output / "law.json"
    fit_law(logs, protocol.warmup, law)
    plan = plan_schedule(law, protocol.long, peak, protocol.warmup, output / "plan.npz")
    schedules: dict[str, Schedule] = {PLAN: plan} | protocol.rivals(losses, peak)
    rivals = {name: schedule for name, schedule in schedules.items() if name != PLAN}
    predictions = predict_losses(law, schedules, output / "schedules")
    # Apart, as the others do not depend on the law.
    rows = run.stage("rivals", protocol.cells(rivals))
    rows += run.stage("planned", protocol.cells({PLAN: plan}))
    table = comparison(final_losses(rows), predictions)
    write_table(output / "results.csv", table, overwrite=True)
    save_figure(
        figure(schedules, rows, table, protocol.warmup), str(output / "results.png"), force=True
    )
    text = markdown([shown(row) for row in table])
    print(f"\n{protocol.long} steps, {protocol.seeds} seeds\n\n{text}\n")
    print("differences in 0.001 nats, paired by seed; +-: one standard error")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    output_folder(parser)
    for kind in SIZES:
        for field in fields(kind):
            if field.default is MISSING:
                continue
            many = isinstance(field.default, tuple)
            sample: Any = field.default[0] if isinstance(field.default, tuple) else field.default
            parser.add_argument(
                f"--{field.name.replace('_', '-')}",
                type=type(sample),
                default=field.default,
                nargs="+" if many else None,
                help=f"default: {' '.join(map(str, field.default)) if many else field.default}",
            )
    return parser


def _protocol(args: argparse.Namespace) -> Protocol:
    """The protocol that the options describe."""

    def given(kind: type) -> dict[str, Any]:
        found = {f.name: getattr(args, f.name) for f in fields(kind) if hasattr(args, f.name)}
        return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}

    shape = Shape(**given(Shape))
    return Protocol(recipe=Recipe(shape=shape, **given(Recipe)), **given(Protocol))


def _main(argv: Sequence[str] | None) -> None:
    args = _parser().parse_args(argv)
    protocol = _protocol(args)
    text, began = standard_library(), time.perf_counter()
    print(
        f"{parameter_count(shapes(protocol.recipe.shape)):,} parameters; "
        f"{len(text.train):,} characters of {text.files[0]} files to train on, "
        f"{len(text.validation):,} of {text.files[1]} for validation, digest {text.digest}"
    )
    _compare(_Run(protocol, args.output, args.workers))
    print(f"{time.perf_counter() - began:.0f} s")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit code."""
    return command_line(_main, argv)


if __name__ == "__main__":
    sys.exit(main())
