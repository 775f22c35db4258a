"""Runs under way: forecasts from half-way, false alarms, and faults that are found.

``python -m benchmarks.tracking [--data FOLDER ...] [--every 10] [--simulated 60]``: pilots and
targets are those of `benchmarks.loss_laws`. Of every target, forecasts of the last loss from the
pilots alone and from its first half too; whether the whole run, which nothing is wrong with, is
called off track; and, where runs branch from another (cooldowns at different times), the same with
the losses of one and the rates of the other. Simulated runs are drawn from what the fits allow,
with a fault from half-way on.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from benchmarks.loss_laws.splits import Model, models, splits
from optsched import Schedule
from optsched.logs import Run
from optsched.pilot import Fit, fit
from optsched.pilot.pieces import cut
from optsched.pilot.tracking.outlook import changed, held
from optsched.pilot.tracking.track import Track, track

DATA = Path(__file__).parents[1] / "tests" / "data"
SIMULATED = ("sound", "rate x2", "rate x1/2", "rate held", "loss +1 %", "loss drifts to +2 %")
CHANGES = 0.5  # of the rate at half-way: a schedule that a held rate is a fault of
PAIRS = 3  # of runs of which one branched off the other, for a set of pilots
BRANCH = 0.02  # of the rate: two schedules are the same up to there
KINDS = ("protocol", "same", "longer", "up", "down", "between", "far between")


@dataclass(frozen=True, eq=False)
class Case:
    """A run that is predicted from pilots."""

    model: str
    kind: str
    found: Fit
    run: Run


def cases(model: Model) -> Iterator[Case]:
    """All targets of the splits of a model."""
    fitted: dict[tuple[str, ...], Fit] = {}
    for split in splits(model):
        key = tuple(run.name for run in split.pilots)
        if key not in fitted:
            fitted[key] = fit(split.pilots)
        for run in split.targets:
            yield Case(model.name, split.kind, fitted[key], run)


def until(run: Run, end: int) -> Run:
    """The rows up to a step."""
    keep = run.steps <= end
    return replace(run, steps=run.steps[keep], loss=run.loss[keep])


def half_way(case: Case) -> Track:
    """The state at half of a run, its schedule known."""
    end = int(case.run.steps[-1])
    plan = Schedule.from_knots(
        case.run.schedule.steps, eta=case.run.schedule.controls["eta"], horizon=end + 1
    )
    return track(case.found, until(case.run, end // 2), plan)


def forecasts(found: Sequence[Case]) -> None:
    """Table of errors and coverage from the pilots alone and from half-way."""
    rows: dict[tuple[str, str], list[tuple[float, ...]]] = defaultdict(list)
    for case in found:
        if len(until(case.run, int(case.run.steps[-1]) // 2).steps) < 8:
            continue
        one, true = half_way(case), float(case.run.loss[-1])
        rows[case.model, case.kind].append(
            (
                abs(one.before.loss - true),
                one.before.lower <= true <= one.before.upper,
                abs(one.end.loss - true),
                one.end.lower <= true <= one.end.upper,
                0.5 * (one.end.upper - one.end.lower),
            )
        )
    print("| model | kind | runs | pilots alone | hold | from half-way | hold | half width |")
    print("|---|---|---|---|---|---|---|---|")
    near = [row for (_, kind), some in rows.items() for row in some if kind != "far between"]
    tables = [(*key, some) for key, some in sorted(rows.items(), key=_order)]
    for model, kind, some in [*tables, ("all", "but far between", near)]:
        a, b, c, d, e = np.array(some, float).T
        print(
            f"| {model} | {kind} | {len(some)} | {1e3 * a.mean():.1f} | {100 * b.mean():.0f} % |"
            f" {1e3 * c.mean():.1f} | {100 * d.mean():.0f} % | {1e3 * np.median(e):.1f} |"
        )


def _order(pair: tuple[tuple[str, str], object]) -> tuple[str, int]:
    (model, kind), _ = pair
    return model, KINDS.index(kind)


def sound(found: Sequence[Case]) -> None:
    """Share of the runs, which nothing is wrong with, that are called off track."""
    rows: dict[str, list[bool]] = defaultdict(list)
    for case in found:
        rows[case.kind].append(track(case.found, case.run).off_track)
    for kind in KINDS:
        if kind in rows:
            share = 100 * np.mean(rows[kind])
            print(f"| measured, nothing wrong: {kind} | {len(rows[kind])} | {share:.1f} % | |")


def same_until(one: Schedule, other: Schedule) -> int:
    """Step up to which two schedules are the same."""
    end = min(one.horizon, other.horizon)
    at = np.unique(np.append(one.steps[one.steps < end], other.steps[other.steps < end]))
    apart = np.flatnonzero(np.abs(one(at) - other(at)) > BRANCH * one.peak)
    return int(at[apart[0]]) if apart.size else end


def branches(found: Sequence[Case]) -> None:
    """Runs with the losses of one that branched off it: the rate in the log is not the true one."""
    flagged: dict[str, list[tuple[bool, float]]] = defaultdict(list)
    groups: dict[tuple[int, str], list[Case]] = defaultdict(list)
    for case in found:
        if case.kind in ("same", "protocol"):
            groups[id(case.found), case.model].append(case)
    for group in groups.values():
        pairs = 0
        for case in group:
            for other in group:
                run, wrong = case.run, other.run
                since = same_until(run.schedule, wrong.schedule)
                end = int(min(run.steps[-1], wrong.steps[-1]))
                if run is wrong or pairs == PAIRS or not 0.35 * end < since < 0.75 * end:
                    continue
                pairs += 1
                keep = wrong.steps <= end
                mixed = replace(
                    run,
                    name=f"rates of {run.name}, losses of {wrong.name}",
                    steps=wrong.steps[keep],
                    loss=wrong.loss[keep],
                )
                one = track(case.found, mixed)
                at = end if one.alarm.at is None else one.alarm.at
                flagged["all"].append((one.off_track, (at - since) / (end - since)))
    for _, some in flagged.items():
        on, late = np.array(some, float).T
        after = f"{100 * np.median(late[on > 0]):.0f} %" if on.any() else ""
        head = f"| measured, rates of a run that branched off | {len(some)}"
        print(f"{head} | {100 * on.mean():.0f} % | {after} |")


def simulated(found: Sequence[Case], count: int, rng: np.random.Generator) -> None:
    """Share of simulated runs that are called off track, by fault."""
    drawn = [found[i] for i in rng.choice(len(found), count, replace=len(found) < count)]
    for fault in SIMULATED:
        some = []
        for case in drawn:
            run = _simulated(case, fault, rng)
            if run is None:
                continue
            one, end = track(case.found, run), int(run.steps[-1])
            at = one.alarm.at
            some.append((one.off_track, 0.0 if at is None else (at - end / 2) / (end / 2)))
        if not some:
            continue
        on, late = np.array(some, float).T
        after = f"{100 * np.median(late[on > 0]):.0f} %" if on.any() and fault != "sound" else ""
        print(
            f"| simulated: {fault} | {len(some)} | {100 * on.mean():.1f} % | {after} |", flush=True
        )


def _simulated(case: Case, fault: str, rng: np.random.Generator) -> Run | None:
    """A run drawn from what a fit allows, with the rows and the noise of a measured one."""
    found, run, law = case.found, case.run, case.found.law
    steps = run.steps[run.steps > 0]
    half = int(steps[-1]) // 2
    true = run.schedule
    if fault == "rate held":
        if float(true(int(steps[-1]) - 1)) > CHANGES * float(true(half)):
            return None
        true = held(true, half, float(true(half)))
    elif fault.startswith("rate"):
        true = changed(true, half, 2.0 if fault == "rate x2" else 0.5)
    theta = found.members[rng.integers(len(found.members))]
    log_loss = np.log(law.curve(theta, cut(true, steps, found.scale)))
    # What the law cannot say: smooth along the run, of the size of its misfit.
    level = np.exp(np.mean(log_loss))
    at = np.linspace(np.log(steps[0]), np.log(steps[-1]), 6)
    log_loss += np.interp(np.log(steps), at, found.misfit / level * rng.standard_normal(6))
    log_loss += found.seed_noise * rng.standard_normal()
    log_loss += run.noise / level * rng.standard_normal(len(steps))
    late = np.clip((steps - half) / (steps[-1] - half), 0.0, 1.0)
    if fault == "loss +1 %":
        log_loss += 0.01 * (late > 0.0)
    elif fault == "loss drifts to +2 %":
        log_loss += 0.02 * late
    return replace(run, steps=steps, loss=np.exp(log_loss))


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--every", type=int, default=1, help="every so many targets only")
    parser.add_argument("--simulated", type=int, default=60, help="runs for each fault")
    parser.add_argument("--part", choices=("all", "forecasts", "alarms"), default="all")
    options = parser.parse_args()
    began = time.process_time()
    everything: list[Case] = []
    all_targets: list[Case] = []
    for folder in options.data or [DATA]:
        for model in models(folder):
            targets = list(cases(model))
            # Small models are few: all of theirs.
            everything += targets[:: options.every if len(targets) > 100 else 1]
            all_targets += targets
    if options.part != "alarms":
        forecasts(everything)
        print("\nerrors and half width in 1e-3 nats; 80 % intervals\n")
    if options.part != "forecasts":
        print("| runs | number | off track | of what was left, until it was said (median) |")
        print("|---|---|---|---|")
        near = [case for case in everything if case.kind != "far between"]
        sound(everything)
        branches(all_targets)
        simulated(near, options.simulated, np.random.default_rng(0))
    print(f"\n{time.process_time() - began:.0f} s of CPU")


if __name__ == "__main__":
    main()
