"""From pilots of a small real model to a run four times as long, planned, trained and compared.

Three settings (``--setting``): a transformer language model on the sources of Python's standard
library with AdamW, at two sizes, and a residual network on handwritten digits with SGD and
momentum. At the short horizon the peak rate, the final rate of a cosine and the cooldown of WSD are
tuned, and pilots are logged; a law is fitted to their logs (``optsched fit``), the schedule of the
long horizon planned (``optsched plan``), and trained beside cosine, WSD and linear decay with the
same peak, data and first parameters. Final weights are compared on 8,192 validation blocks.

Run: ``python -m benchmarks.real_training --setting NAME --output DIR``, four to seven minutes on
two cores. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import jax

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
    block_shift,
    final_losses,
    run_stage,
    seed_cells,
    write_logs,
)
from benchmarks.real_training.report import (
    PLAN,
    Prediction,
    comparison,
    figure,
    forecast,
    order,
    shown,
    verdict,
)
from benchmarks.real_training.settings import BUDGETS, SETTINGS
from benchmarks.real_training.transformer import parameter_count
from optsched import InvalidProblem, OptschedError, Schedule
from optsched.commands.common import save_figure, sweep_progress
from optsched.pilot.laws.registry import DEFAULT, made_law
from optsched.studies.tables import write_table

__all__ = ["main"]


@dataclass(frozen=True)
class _Run:
    """The stages of one comparison, in one folder."""

    protocol: Protocol
    output: Path
    workers: int | None

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

    def long(self, name: str, schedules: Mapping[str, Schedule]) -> Results:
        """Runs of the long horizon, a folder a seed, so that more seeds can be added later."""
        rows: Results = ()
        for seed in range(self.protocol.long_seeds):
            rows += self.stage(f"{name}/seed{seed}", seed_cells(schedules, seed))
        return rows

    def tell(self, what: str, losses: Mapping[str, Sequence[float]]) -> None:
        """Print final losses."""
        rows = [
            {what: name, "final loss": with_error(*mean_error(values))}
            for name, values in losses.items()
        ]
        print(f"\n{markdown(rows)}\n", flush=True)


@dataclass(frozen=True)
class _Pilots:
    """What the short horizon says."""

    logs: list[Path]
    peak: float
    shift: float
    rivals: dict[str, Schedule]


def _pilots(run: _Run) -> _Pilots:
    protocol = run.protocol
    peak = run.peak()
    rows, losses = run.short(peak)
    logs = write_logs(run.output / "logs", rows, protocol.warmup)
    return _Pilots(logs, peak, block_shift(rows), protocol.rivals(losses, peak))


def _predictions(
    run: _Run, pilots: _Pilots, law: str, schedules: Mapping[str, Schedule]
) -> dict[str, Prediction]:
    """Losses of the final weights by a law that is fitted already."""
    path = _law_file(run.output, law)
    told = predict_losses(path, schedules, run.output / "schedules")
    return {name: one.shifted(pilots.shift) for name, one in told.items()}


def _compare(run: _Run, laws: Sequence[str]) -> None:
    """Plan by the first law, train, compare; the others only predict."""
    protocol, output, pilots = run.protocol, run.output, _pilots(run)
    for law in laws:
        path = _law_file(output, law)
        fit_law(pilots.logs, protocol.warmup, path, protocol.recipe, law)
    first = laws[0]
    path, law = output / "plan.npz", _law_file(output, first)
    planned = plan_schedule(law, protocol.long, pilots.peak, protocol.warmup, path)
    schedules = {PLAN: planned.schedule} | pilots.rivals
    predictions = {law: _predictions(run, pilots, law, schedules) for law in laws}
    said = forecast(predictions[first], planned.lower_bound + pilots.shift)
    print(f"plan: {planned.words}")
    print(f"before the long runs, law {first}: {said} (0.001 nats)")
    for line in planned.warnings:
        print(f"optsched plan: {line}")
    sys.stdout.flush()
    # Apart, as the rivals do not depend on the law; another plan has another folder.
    rows = run.long("rivals", pilots.rivals)
    rows += run.long(f"planned/{_digest(planned.schedule)}", {PLAN: planned.schedule})
    losses = final_losses(rows)
    table = comparison(losses, predictions[first])
    write_table(output / "results.csv", table, overwrite=True)
    drawn = figure(schedules, rows, table, protocol.warmup)
    save_figure(drawn, str(output / "results.png"), force=True)
    text = markdown([shown(row) for row in table])
    print(f"\n{protocol.long} steps, {protocol.long_seeds} seeds, law {first}\n\n{text}\n")
    judged = [_judged(name, losses, predictions[name]) for name in laws]
    print(f"{markdown(judged)}\n")
    rival, gap, error = verdict(losses)
    print(f"plan above {rival}, the best of the others: {with_error(1e3 * gap, 1e3 * error)}")
    print("differences in 0.001 nats, paired by seed; +-: one standard error")
    print(f"blocks of the final weights are {1e3 * pilots.shift:+.1f} to those of the logs")


def _judged(
    law: str, losses: Mapping[str, Sequence[float]], told: Mapping[str, Prediction]
) -> dict[str, str]:
    """A law as a row: its errors, and whether it orders the schedules as measured."""
    errors = [1e3 * (told[name].loss - mean_error(losses[name])[0]) for name in losses]
    rank = order(losses, told)
    return {
        "law": law,
        "mean error": f"{sum(errors) / len(errors):+.1f}",
        "largest": f"{max(errors, key=abs):+.1f}",
        "pairs ordered right": f"{rank.right} of {rank.pairs}",
        "of those apart": f"{rank.right_apart} of {rank.apart}",
    }


def _law_file(folder: Path, law: str) -> Path:
    return folder / f"law-{law.replace(':', '-')}.json"


def _digest(schedule: Schedule) -> str:
    knots = schedule.steps.tolist(), schedule.controls["eta"].tolist()
    return hashlib.sha256(json.dumps(knots).encode()).hexdigest()[:12]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_training",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    output_folder(parser)
    budgets = ", ".join(f"{name} {minutes}" for name, minutes in BUDGETS.items())
    parser.add_argument(
        "--setting", choices=SETTINGS, default="text", help=f"minutes of one core: {budgets}"
    )
    parser.add_argument(
        "--law",
        nargs="+",
        default=[DEFAULT],
        metavar="LAW",
        help=f"as of optsched fit; the first plans, the others only predict; default: {DEFAULT}",
    )
    for name, sample in _samples().items():
        many = isinstance(sample, tuple)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type(sample[0] if isinstance(sample, tuple) else sample),
            nargs="+" if many else None,
            help=f"default: the setting's, {sample} in most" if not many else None,
        )
    return parser


def _samples() -> dict[str, Any]:
    """A value of everything that an option changes, by name."""
    made = list(SETTINGS.values())
    parts = [part for p in made for part in (p, p.recipe, p.recipe.shape)]
    skip = {"recipe", "shape"}
    return {
        field.name: getattr(part, field.name)
        for part in reversed(parts)
        for field in fields(part)
        if field.name not in skip
    }


def _protocol(args: argparse.Namespace) -> Protocol:
    """The setting with what the options change.

    Raises
    ------
    InvalidProblem
        An option that the setting's model does not have.
    """
    setting = SETTINGS[args.setting]
    given = {name: getattr(args, name) for name in _samples()}
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if v is not None}

    def part(now: Any) -> dict[str, Any]:
        return {f.name: given.pop(f.name) for f in fields(now) if f.name in given}

    shape = replace(setting.recipe.shape, **part(setting.recipe.shape))
    recipe = replace(setting.recipe, shape=shape, **part(setting.recipe))
    protocol = replace(setting, recipe=recipe, **part(setting))
    for name, value in given.items():
        raise InvalidProblem(name, value, f"nothing: the model of {args.setting} has no {name}")
    return protocol


def _main(argv: Sequence[str] | None) -> None:
    args = _parser().parse_args(argv)
    protocol = _protocol(args)
    for law in args.law:
        made_law(law)  # a wrong name is told before anything is trained
    began = time.perf_counter()
    recipe = protocol.recipe
    model = jax.eval_shape(lambda: recipe.model.initialise(jax.random.key(0), recipe.shape))
    print(
        f"{args.setting}: {parameter_count(model):,} parameters, {recipe.optimizer}, "
        f"data {recipe.settings()['data']}"
    )
    _compare(_Run(protocol, args.output, args.workers), args.law)
    print(f"{time.perf_counter() - began:.0f} s")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit code."""
    return command_line(_main, argv)


if __name__ == "__main__":
    sys.exit(main())
