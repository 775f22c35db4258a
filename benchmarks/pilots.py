"""Chosen pilots against the usual ones, at equal cost: the regret of the plan that follows.

``python -m benchmarks.pilots [--laws 200] [--data FOLDER] [--replicates 100]``. A plan is the one
of least predicted loss, of five shapes at every peak; its regret is its true final loss minus the
least. On *simulated* laws, drawn from the priors of the norm law, chosen pilots
(`optsched.pilot.design`, from nothing) stand beside a constant, a cosine and a drop at the middle
peak and beside a sweep of the peak with cosines. On the *runs of the 124M model* all are chosen
among the runs of up to 25,000 steps that there are, of which each replicate has a random half:
three at one peak, drawn at random (constant, cooldown, decay), one decay at every peak, or those of
the design. The plan is one of the measured runs of 50,000 steps. Errors are standard errors over
laws and replicates; the latter share runs.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.loss_laws.splits import SAME, Model, first_part, models, peaks, shape
from optsched.arrays import Floats
from optsched.logs import Run
from optsched.pilot import Fit, fit
from optsched.pilot.design.choose import best_set, design, plans_at
from optsched.pilot.design.information import linearised
from optsched.pilot.design.prior import drawn, from_nothing, moments
from optsched.pilot.design.runs import Candidate, usual_grid, usual_three
from optsched.pilot.laws import Law, NormLaw
from optsched.pilot.pieces import Pieces, Scale, cut
from optsched.schedules.schedule import Schedule

GRID = np.geomspace(1e-4, 3.2e-3, 6)
HORIZON, WARMUP, LOSS = 50_000, 300, 3.0
BUDGETS = (30_000,)
ROWS, ROW_NOISE, RUN_NOISE = 60, 5e-4, 4e-4
NAMES = ("chosen", "three", "sweep")
SHORT, REAL_BUDGETS, REAL_END = 26_000, (45_000, 60_000, 75_000), 49_000


class Plans:
    """Schedules, cut once for every scale that a fit has."""

    def __init__(self, schedules: Sequence[Schedule]) -> None:
        self.schedules, self.known = schedules, dict[Scale, list[Pieces]]()

    def losses(self, law: Law, theta: Floats, scale: Scale) -> Floats:
        """Final losses by a law."""
        if scale not in self.known:
            self.known[scale] = [
                cut(one, np.array([one.horizon]), scale).fine for one in self.schedules
            ]
        return np.array([float(law.curve(theta, one)[0]) for one in self.known[scale]])

    def best(self, found: Fit) -> int:
        """The plan of least predicted loss; as of ``plan``, of no peak above the pilots'."""
        losses = self.losses(found.law, found.theta, found.scale)
        peaks = np.array([one.peak for one in self.schedules])
        return int(np.argmin(np.where(peaks > found.peaks[1] * (1.0 + SAME), np.inf, losses)))


def fitted(runs: Sequence[Run]) -> Fit:
    """The norm law, from one start: the means of its priors."""
    peak = max(run.schedule.peak for run in runs)
    span = float(max(run.steps[-1] for run in runs))
    law = NormLaw(weight_decay=0.1)
    start = from_nothing(law, peak, span, LOSS, draws=1).draws[0]
    return fit(runs, law, members=0, start=start)


def made(
    run: Candidate, law: NormLaw, theta: Floats, scale: Scale, rng: np.random.Generator
) -> Run:
    """A run whose losses follow a law."""
    steps = np.unique(np.linspace(run.steps // 50, run.steps, ROWS).astype(np.int64))
    loss = law.curve(theta, cut(run.schedule, steps, scale))
    noise = RUN_NOISE * rng.standard_normal() + ROW_NOISE * rng.standard_normal(len(steps))
    return Run(run.name, steps, loss * np.exp(noise), run.schedule, run.warmup)


def simulated(seeds: range, budget: int, each: bool = False) -> dict[str, list[float]]:
    """Regrets on laws that are drawn from the priors."""
    own = NormLaw(weight_decay=0.1)
    chosen = design(budget, HORIZON, peaks=GRID, warmup=WARMUP, law=own, loss=LOSS)
    sets = {
        "chosen": [*chosen.runs],
        "three": usual_three(budget, float(GRID[len(GRID) // 2]), WARMUP),
        "sweep": usual_grid(budget, GRID.tolist(), WARMUP),
    }
    for name, runs in sets.items():
        cost = sum(run.steps for run in runs)
        print(f"  {name}: {', '.join(run.name for run in runs)}; {cost:,} steps", flush=True)
    span = float(max(run.steps for run in chosen.runs))
    prior = from_nothing(own, float(GRID[-1]), span, LOSS)
    law = prior.law
    assert isinstance(law, NormLaw)
    mean, spread = moments(law, LOSS)
    plans = Plans([plan for plan, _ in plans_at(HORIZON, GRID, WARMUP)])
    regrets: dict[str, list[float]] = {name: [] for name in NAMES}
    for seed in seeds:
        rng = np.random.default_rng(seed)
        theta = drawn(law, mean, spread, rng)
        true = plans.losses(law, theta, prior.scale)
        for name, runs in sets.items():
            noise = np.random.default_rng([seed, NAMES.index(name)])
            logs = [made(run, law, theta, prior.scale, noise) for run in runs]
            found = fitted(logs)
            regrets[name].append(float(true[plans.best(found)] - true.min()))
        if each:
            print(
                f"  law {seed}: {[round(1e3 * regrets[name][-1], 3) for name in NAMES]}", flush=True
            )
    return regrets


def chosen_of(runs: Sequence[Run], targets: Sequence[Run], budget: int) -> list[Run]:
    """The design among runs that there are."""
    law = NormLaw(weight_decay=0.1)
    some = [Candidate(run.name, cropped(run), run.warmup) for run in runs]
    plans = [(cropped(run), run.schedule.peak) for run in targets]
    most = max(plan.peak for plan, _ in plans)
    prior = from_nothing(law, most, float(max(one.steps for one in some)), LOSS)
    model = linearised(prior, some, plans)
    cost = np.array([one.steps for one in some])
    return [runs[i] for i in best_set(model, cost, budget)]


def cropped(run: Run) -> Schedule:
    return first_part(run, int(run.steps[-1])).schedule


def three_of(runs: Sequence[Run], rng: np.random.Generator) -> list[Run] | None:
    """One of each shape at a peak that is drawn at random among those that have them."""
    groups = []
    for _, group in peaks(Model("", tuple(runs))):
        kinds = {kind: [run for run in group if shape(run) == kind] for kind in KINDS}
        if all(kinds.values()):
            groups.append(kinds)
    if not groups:
        return None
    kinds = groups[rng.integers(len(groups))]
    return [some[rng.integers(len(some))] for some in kinds.values()]


KINDS = ("constant", "cooldown", "decay")


def sweep_of(runs: Sequence[Run], budget: int, rng: np.random.Generator) -> list[Run]:
    """A decay at every peak: the longest that fit the budget together, evenly."""
    groups = [
        [run for run in group if shape(run) != "constant"]
        for _, group in peaks(Model("", tuple(runs)))
    ]
    groups = [group for group in groups if group]
    some = []
    for group in groups:
        near = sorted(group, key=lambda run: abs(float(run.steps[-1]) - budget / len(groups)))
        length = near[0].steps[-1]
        equal = [run for run in group if run.steps[-1] == length]
        some.append(equal[rng.integers(len(equal))])
    while sum(int(run.steps[-1]) for run in some) > budget:
        some.pop(rng.integers(len(some)))
    return some


def measured(model: Model, replicates: int, budget: int) -> dict[str, list[float]]:
    """Regrets on runs that there are."""
    targets = [run for run in model.runs if run.steps[-1] >= REAL_END]
    true = np.array([run.loss[-1] for run in targets])
    plans = Plans([cropped(run) for run in targets])
    short = [run for run in model.runs if run.steps[-1] <= SHORT]
    constants = [run for run in targets if shape(run) == "constant"]
    highest = max(run.schedule.peak for run in short) * (1.0 + SAME)
    constants = [run for run in constants if run.schedule.peak <= highest]
    short += [first_part(run, end) for run in constants for end in (14_800, 24_800)]
    length = max(int(run.steps[-1]) for run in short if run.steps[-1] <= budget / 3)
    three_from = [run for run in short if run.steps[-1] == length]
    known: dict[tuple[str, ...], float] = {}
    regrets: dict[str, list[float]] = {name: [] for name in NAMES}
    for seed in range(replicates):
        rng = np.random.default_rng(seed)
        half = [short[i] for i in np.flatnonzero(rng.random(len(short)) < 0.5)]
        three = three_of([run for run in half if run in three_from], rng)
        if three is None:
            continue
        sets = {
            "chosen": chosen_of(half, targets, budget),
            "three": three,
            "sweep": sweep_of(half, budget, rng),
        }
        for name, runs in sets.items():
            key = tuple(sorted(run.name for run in runs))
            if key not in known:
                found = fitted(runs)
                known[key] = float(true[plans.best(found)] - true.min())
            regrets[name].append(known[key])
    return regrets


def report(title: str, regrets: dict[str, list[float]]) -> None:
    """A line of means, in 1e-3 nats, and the differences to what was chosen."""
    own = np.array(regrets["chosen"])
    parts = []
    for name, values in regrets.items():
        got = 1e3 * np.array(values)
        parts.append(f"{name} {got.mean():.1f} ± {got.std(ddof=1) / np.sqrt(len(got)):.1f}")
        if name != "chosen":
            gap = got - 1e3 * own
            error = gap.std(ddof=1) / np.sqrt(len(gap))
            parts[-1] += f" (above by {gap.mean():.1f} ± {error:.1f})"
    print(f"{title}, {len(own)}: {', '.join(parts)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--laws", type=int, default=200)
    parser.add_argument("--first", type=int, default=0, help="seed of the first law")
    parser.add_argument("--each", action="store_true", help="print the regrets of every law")
    parser.add_argument("--budgets", default=",".join(map(str, BUDGETS)))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--replicates", type=int, default=100)
    options = parser.parse_args()
    began = time.process_time()
    for budget in map(int, options.budgets.split(",") if options.laws else ()):
        seeds = range(options.first, options.first + options.laws)
        found = simulated(seeds, budget, options.each)
        report(f"simulated laws, {budget:,} steps of pilots", found)
    if options.data is not None:
        (model,) = (m for m in models(options.data) if m.name == "llama-124m")
        every: dict[str, list[float]] = {name: [] for name in NAMES}
        for budget in REAL_BUDGETS:
            found = measured(model, options.replicates, budget)
            report(f"runs of the 124M model, {budget:,} steps of pilots, replicates", found)
            every = {name: every[name] + found[name] for name in NAMES}
        report("all of these, replicates", every)
    print(f"regrets in 1e-3 nats; {time.process_time() - began:.0f} s of CPU")


if __name__ == "__main__":
    main()
