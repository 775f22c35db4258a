"""Which runs the comparison takes: peaks, pilots and shapes at a short horizon, then long runs.

Each stage is a sweep with a folder of its own, so a run that was killed goes on where it was.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.real_training.train import Recipe, run_cell
from optsched import InvalidProblem, Schedule
from optsched.schedules.families import (
    constant,
    cosine,
    linear,
    multi_step,
    with_warmup,
    wsd,
)
from optsched.studies.sweep.executors import default_workers
from optsched.studies.sweep.run import Progress, Row, sweep
from optsched.studies.tables import write_table

__all__ = [
    "Cell",
    "Protocol",
    "Results",
    "best",
    "block_shift",
    "final_losses",
    "make_cell",
    "run_stage",
    "seed_cells",
    "write_logs",
]

Cell = dict[str, Any]
Results = tuple[Row, ...]


@dataclass(frozen=True)
class Protocol:
    """Horizons, seeds and what is tuned.

    Attributes
    ----------
    recipe : Recipe
    short : int
        Horizon of the pilots and of everything that is tuned, in steps.
    factor : int
        Horizon of the long runs over ``short``.
    warmup : int
        Steps of the linear warm-up, the same at both horizons.
    seeds, long_seeds : int
        Of everything at the short horizon, the peaks apart, and of the long runs.
    peaks : tuple of float
        Peak rates to choose from, with a linear decay and one seed.
    finals : tuple of float
        Final rates of the cosine over the peak to choose from; the last is the pilot's.
    cooldowns : tuple of float
        Cooldown of WSD as a share of the horizon, to choose from.
    drop : tuple of float
        Of the pilot with a step: where, as a share of the horizon, and to what share of the peak.
    lower : float
        Rate of one more pilot, a constant one, over the peak; 0: none. It tells a law how much
        slower a lower rate learns, which shows in no other pilot before its rate falls.
    """

    recipe: Recipe = field(default_factory=Recipe)
    short: int = 2000
    factor: int = 4
    warmup: int = 200
    seeds: int = 3
    long_seeds: int = 3
    peaks: tuple[float, ...] = (2e-3, 4e-3, 8e-3, 16e-3, 32e-3)
    finals: tuple[float, ...] = (0.0, 0.03, 0.1)
    cooldowns: tuple[float, ...] = (0.2, 0.4, 0.7)
    drop: tuple[float, float] = (0.6, 0.2)
    lower: float = 0.0

    def __post_init__(self) -> None:
        every = self.recipe.every
        least_of = {"short": 4 * every, "factor": 1, "seeds": 2, "long_seeds": 2, "warmup": 1}
        for name, least in least_of.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise InvalidProblem(name, value, f"a whole number >= {least}")
        if self.short % every or self.warmup % every or 2 * self.warmup > self.short:
            allowed = f"multiples of {every} steps, short at least twice warmup"
            raise InvalidProblem("short, warmup", (self.short, self.warmup), allowed)
        if not 0.0 <= self.lower < 1.0:
            raise InvalidProblem("lower", self.lower, "a number >= 0 and < 1")

    @property
    def long(self) -> int:
        """Horizon of the long runs."""
        return self.factor * self.short

    def linear(self, horizon: int, peak: float) -> Schedule:
        return with_warmup(linear, self.warmup, horizon, peak)

    def cosine(self, horizon: int, peak: float, final: float) -> Schedule:
        return with_warmup(cosine, self.warmup, horizon, peak, final=final)

    def wsd(self, horizon: int, peak: float, cooldown: float) -> Schedule:
        steps = round(cooldown * horizon)
        return wsd(horizon, peak, warmup=self.warmup, cooldown=steps, shape="linear", final=0.0)

    def constant(self, horizon: int, peak: float) -> Schedule:
        return with_warmup(constant, self.warmup, horizon, peak)

    def step(self, horizon: int, peak: float) -> Schedule:
        every = self.recipe.every
        at = round(self.drop[0] * horizon / every) * every
        return with_warmup(
            multi_step(
                horizon - self.warmup,
                peak,
                milestones=[at - self.warmup],
                factor=self.drop[1],
            ),
            self.warmup,
        )

    def peak_cells(self) -> list[Cell]:
        """One run a peak."""
        return [make_cell(f"{peak:g}", self.linear(self.short, peak), 0) for peak in self.peaks]

    def pilots(self, peak: float) -> dict[str, Schedule]:
        """Schedules of the pilots by name; their logs are what the law is fitted to."""
        chosen = {
            "constant": self.constant(self.short, peak),
            f"cosine_{self.finals[-1]:g}": self.cosine(self.short, peak, self.finals[-1]),
            "step": self.step(self.short, peak),
        }
        if self.lower:
            chosen["constant_low"] = self.constant(self.short, self.lower * peak)
        return chosen

    def shapes(self, peak: float) -> dict[str, Schedule]:
        """Schedules by name that choose the final rate of the cosine and the cooldown of WSD."""
        chosen = {f"cosine_{x:g}": self.cosine(self.short, peak, x) for x in self.finals}
        chosen |= {f"wsd_{x:g}": self.wsd(self.short, peak, x) for x in self.cooldowns}
        return chosen

    def rivals(self, losses: Mapping[str, list[float]], peak: float) -> dict[str, Schedule]:
        """What people train at the long horizon, with the shapes that were best at the short one.

        ``losses`` are the final losses of `shapes`.
        """
        final = min(self.finals, key=lambda x: sum(losses[f"cosine_{x:g}"]))
        cooldown = min(self.cooldowns, key=lambda x: sum(losses[f"wsd_{x:g}"]))
        return {
            "linear": self.linear(self.long, peak),
            f"cosine_{final:g}": self.cosine(self.long, peak, final),
            f"wsd_{cooldown:g}": self.wsd(self.long, peak, cooldown),
        }

    def cells(self, schedules: Mapping[str, Schedule]) -> list[Cell]:
        """Every schedule with every seed of the short horizon, seed by seed."""
        return [cell for seed in range(self.seeds) for cell in seed_cells(schedules, seed)]


def seed_cells(schedules: Mapping[str, Schedule], seed: int) -> list[Cell]:
    """Every schedule with one seed."""
    return [make_cell(name, schedule, seed) for name, schedule in schedules.items()]


def make_cell(name: str, schedule: Schedule, seed: int) -> Cell:
    """A run as the cell of a sweep."""
    knots = schedule.steps.tolist(), schedule.controls["eta"].tolist()
    return {
        "name": name,
        "seed": seed,
        "horizon": schedule.horizon,
        "steps": knots[0],
        "eta": knots[1],
    }


def run_stage(
    folder: Path,
    cells: Iterable[Cell],
    recipe: Recipe,
    workers: int | None = None,
    progress: Callable[[Progress], None] | None = None,
    task: Callable[..., dict[str, Any]] = run_cell,
) -> Results:
    """Train the runs of a stage that its folder does not have yet."""
    return sweep(
        task,
        cells,
        kind="real training",
        settings=recipe.settings(),
        folder=folder,
        workers=workers or default_workers(),
        progress=progress,
    ).rows


def final_losses(rows: Results) -> dict[str, list[float]]:
    """Loss of the final weights of every schedule, by seed; inf for a run that diverged.

    On the final blocks where the recipe has them, else on those of every evaluation.
    """
    table: dict[str, list[float]] = {}
    for row in rows:
        value = math.inf
        if row.status == "done":
            value = float(row.result.get("final", row.result["loss"][-1]))
        table.setdefault(row.cell["name"], []).append(value)
    return table


def block_shift(rows: Results) -> float:
    """Mean of the loss on the final blocks minus that on the blocks of every evaluation.

    A law that is fitted to logs predicts losses on the blocks of the logs, and what makes one set
    of blocks harder than another is common to all runs: the pilots tell it. 0 without final
    blocks.
    """
    found = [r.result for r in rows if r.status == "done" and "final" in r.result]
    return float(np.mean([r["final"] - r["loss"][-1] for r in found])) if found else 0.0


def best(losses: Mapping[str, list[float]], start: str = "") -> str:
    """The schedule with the least mean loss among those whose name starts so."""
    return min((name for name in losses if name.startswith(start)), key=lambda n: sum(losses[n]))


def write_logs(folder: Path, rows: Results, warmup: int) -> list[Path]:
    """Logs of runs as csv ``step,lr,loss`` from the end of the warm-up on, a file a run.

    A row's rate is that of the next update, as the readers of optsched take it; after the last
    one, that of the line through the last two.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for row in rows:
        if row.status != "done":
            continue
        cell = row.cell
        path = folder / f"{cell['name']}_seed{cell['seed']}.csv"
        rates = np.interp(np.arange(cell["horizon"]), cell["steps"], cell["eta"])
        rates = np.append(rates, max(0.0, 2.0 * rates[-1] - rates[-2]))
        table = [
            {"step": int(step), "lr": float(rates[step]), "loss": loss}
            for step, loss in zip(row.result["step"], row.result["loss"], strict=True)
            if step >= warmup
        ]
        write_table(path, table, overwrite=True)
        paths.append(path)
    return paths
