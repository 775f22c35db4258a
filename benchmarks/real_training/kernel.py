"""Optimal and tuned schedules on a real kernel, predicted and trained.

Random ReLU features of scikit-learn's digits; labels: even or odd. The model is solved for the
measured spectrum, target and noise, as if the features were Gaussian, and real SGD is run along
the schedules, on samples drawn with replacement. Families are tuned twice: their peak by the
model, and on real runs other than those that the table is of.

Run: ``python -m benchmarks.real_training.kernel --output DIR``, about two minutes on two free
cores. The same command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.real_training.common import (
    command_line,
    markdown,
    mean_error,
    output_folder,
    with_error,
)
from benchmarks.real_training.digits import Kernel, digits_kernel, sgd
from optsched import BadFile, Problem, Schedule, replay, solve
from optsched.commands.common import sweep_progress
from optsched.measure.exponents import measure_features
from optsched.schedules.families import FAMILIES
from optsched.studies.compare.tuning import tune
from optsched.studies.sweep.executors import default_workers
from optsched.studies.sweep.run import Row, sweep
from optsched.studies.tables import write_table

__all__ = ["kernel_cell", "main", "table", "tuned_on_real"]

TUNED = ("constant", "linear", "cosine")
# Peaks that real runs choose from, over the model's: half an octave apart.
FACTORS = 2.0 ** (np.arange(-4, 5) / 2.0)
TUNING_SEED, TABLE_SEED = 1, 2
OPTIMAL = "optimal"
POWER_LAW = "optimal for (a, b)"


def kernel_cell(cell: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """One horizon: peak, prediction and the losses of the real runs, by schedule."""
    kernel = digits_kernel(settings["width"])
    batch, runs = settings["batch"], settings["runs"]
    problem = Problem(
        horizon=cell["horizon"],
        batch_size=batch,
        noise=kernel.noise,
        spectrum=kernel.spectrum,
        eta_max=settings["eta_max"],
    )
    solution = solve(problem)
    schedules = {(OPTIMAL, "model"): solution.schedule}
    schedules[POWER_LAW, "model"] = power_law_schedule(kernel, problem)
    for name in TUNED:
        member = tune(problem, name, free=())
        schedules[name, "model"] = member.schedule
        schedules[name, "real"] = tuned_on_real(
            kernel, name, cell["horizon"], member.peak, batch, runs
        )
    assert problem.spectrum is not None
    losses = sgd(kernel, _rates([*schedules.values()]), batch, runs, TABLE_SEED)
    found = [
        {
            "schedule": name,
            "tuned": by,
            "peak": schedule.peak,
            "predicted": replay(problem.spectrum, problem.dynamics, schedule).excess_loss,
            "losses": values.tolist(),
        }
        for ((name, by), schedule), values in zip(schedules.items(), losses, strict=True)
    ]
    return {"schedules": found, "certified_gap": solution.certificate.certified_gap}


def power_law_schedule(kernel: Kernel, problem: Problem) -> Schedule:
    """The optimum of the power law whose exponents and scales were measured on the kernel.

    With eigenvalues B k^-b and masses A k^-a the rate is that of k^-b over B, at a noise over the
    square root of A.
    """
    found = measure_features(kernel.features, kernel.labels)
    unit, mass = found.eigenvalue_scale, found.target_scale
    scaled = Problem(
        found.a,
        found.b,
        problem.horizon,
        features=len(kernel.eigenvalues),
        batch_size=problem.batch_size,
        noise=kernel.noise / math.sqrt(mass),
        eta_max=problem.eta_cap * unit,
    )
    schedule = solve(scaled).schedule
    return schedule.replace(controls={"eta": schedule.controls["eta"] / unit})


def tuned_on_real(
    kernel: Kernel, family: str, horizon: int, peak: float, batch: int, runs: int
) -> Schedule:
    """The family's member whose real runs have the least mean loss, around a peak."""
    members = [FAMILIES[family](horizon, factor * peak) for factor in FACTORS]
    losses = sgd(kernel, _rates(members), batch, runs, TUNING_SEED).mean(axis=1)
    return members[int(np.argmin(losses))]


def _rates(schedules: Sequence[Schedule]) -> np.ndarray:
    return np.stack([schedule.array("eta") for schedule in schedules])


def table(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A row a horizon and schedule: prediction, loss of real runs, and paired differences.

    ``above_optimal`` is the mean over runs of the loss minus that of the optimal schedule on the
    same samples, over the mean loss of the latter.
    """
    found = []
    for row in rows:
        every = row.result["schedules"]
        base = np.array(next(one["losses"] for one in every if one["schedule"] == OPTIMAL))
        predicted = next(one["predicted"] for one in every if one["schedule"] == OPTIMAL)
        for one in every:
            mean, error = mean_error(one["losses"])
            above, above_error = mean_error((np.array(one["losses"]) - base) / base.mean())
            found.append(
                {
                    "horizon": row.cell["horizon"],
                    "schedule": one["schedule"],
                    "tuned_by": one["tuned"],
                    "peak": one["peak"],
                    "predicted": one["predicted"],
                    "loss": mean,
                    "stderr": error,
                    "predicted_above_optimal": one["predicted"] / predicted - 1.0,
                    "above_optimal": above,
                    "above_optimal_stderr": above_error,
                    "runs": len(one["losses"]),
                }
            )
    return found


def _shown(row: dict[str, Any]) -> dict[str, str]:
    """A row as text."""
    optimal = row["schedule"] == OPTIMAL
    expected = row["predicted_above_optimal"]
    above = with_error(100 * row["above_optimal"], 100 * row["above_optimal_stderr"], 1)
    tuned = ", tuned by the model" if row["schedule"] in TUNED else ""
    if row["tuned_by"] == "real":
        tuned = ", tuned on real runs"
    return {
        "T": f"{row['horizon']}",
        "schedule": row["schedule"] + tuned,
        "peak": f"{row['peak']:.3g}",
        "predicted": f"{row['predicted']:.4g}",
        "real": with_error(row["loss"], row["stderr"]),
        "predicted above optimal": "" if optimal else f"{100 * expected:.3g} %",
        "real above optimal": "" if optimal else f"{above} %",
    }


def _main(argv: Sequence[str] | None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.real_training.kernel", description=__doc__
    )
    output_folder(parser)
    parser.add_argument("--horizons", type=int, nargs="+", default=[300, 3000, 10_000])
    parser.add_argument("--width", type=int, default=256, help="random features")
    parser.add_argument("--batch", type=int, default=8, help="samples of an update")
    parser.add_argument("--runs", type=int, default=64, help="real runs of every schedule")
    parser.add_argument(
        "--eta-max",
        type=float,
        default=10.0,
        help="largest rate of the model, if below its limit of stability",
    )
    args = parser.parse_args(argv)
    kernel = digits_kernel(args.width)  # fails now if it has to
    settings = {name: getattr(args, name) for name in ("width", "batch", "runs", "eta_max")}
    cells = [{"horizon": horizon} for horizon in args.horizons]
    with sweep_progress("horizons") as progress:
        done = sweep(
            kernel_cell,
            cells,
            kind="real kernel",
            settings=settings,
            folder=args.output / "kernel",
            workers=args.workers or default_workers(),
            retry_failed=True,
            progress=progress,
        )
    measured = measure_features(kernel.features, kernel.labels)
    for row in done.failed:
        raise BadFile(f"horizon {row.cell['horizon']}: {row.error}")
    rows = table(done.rows)
    write_table(args.output / "kernel.csv", rows, overwrite=True)
    print(
        f"{len(kernel.labels)} digits, {len(kernel.eigenvalues)} features; noise of the labels "
        f"{kernel.noise:.4f}, excess loss at the start {kernel.start:.4f}; measured "
        f"a = {measured.a:.2f} +- {measured.a_stderr:.2f}, "
        f"b = {measured.b:.2f} +- {measured.b_stderr:.2f}\n"
    )
    print(markdown([_shown(row) for row in rows]))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison; returns the exit code."""
    return command_line(_main, argv)


if __name__ == "__main__":
    sys.exit(main())
