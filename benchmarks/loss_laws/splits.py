"""Which runs are pilots and which are predicted: fixed rules, for any folder of runs.

Pilots are what people have: two or three short runs of one peak rate, one constant, one that holds
and then decays, one that decays throughout. A constant run serves at any length, as its first part.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from optsched import OptschedError, Schedule
from optsched.logs import Run, read_runs

__all__ = ["SAME", "Model", "Split", "choices", "models", "peaks", "splits"]

# Steps of the warm-up where the logs begin after it, by the name of the folder.
WARMUP = {"25M": 2160, "100M": 2160, "llama-124m": 300}
PROTOCOL = ("cosine_24000", "constant_24000", "wsdcon_9")  # of the literature, for two models
SIZE = re.compile(r"(\d+(?:\.\d+)?[MB])-")
SAME = 0.02  # relative: one peak rate
SHORT = 0.55  # of the longest run of a peak: a pilot
SETS = 10  # of pilots, at one peak of one model
NEAR = 2.5  # of two peak rates: the next one
FAR = 5.0  # of two peak rates on both sides of a third


@dataclass(frozen=True, eq=False)
class Model:
    """Runs of one model."""

    name: str
    runs: tuple[Run, ...]


@dataclass(frozen=True, eq=False)
class Split:
    """Pilots and what is predicted from them.

    Attributes
    ----------
    kind : str
        protocol, same (the peak of the pilots), longer, up, down, between, or far between: from
        one run each at two peaks more than 5 times apart.
    pilots, targets : tuple of Run
    """

    kind: str
    pilots: tuple[Run, ...]
    targets: tuple[Run, ...]


def models(folder: Path) -> list[Model]:
    """Models in a folder: folders of csv files, or sizes that their names begin with (190M-x)."""
    found: dict[str, list[Run]] = {}
    for path in sorted(folder.rglob("*.csv")):
        size = SIZE.match(path.stem)
        name = size[1] if size else path.parent.name
        try:
            (run,) = read_runs([path], warmup=WARMUP.get(path.parent.name))
        except OptschedError as error:
            print(f"left out: {error}")
            continue
        found.setdefault(name, []).append(run)
    return [Model(name, tuple(runs)) for name, runs in found.items() if len(runs) > 2]


def peaks(model: Model) -> list[tuple[float, list[Run]]]:
    """Runs by their peak rate, the lowest first."""
    groups: list[tuple[float, list[Run]]] = []
    for run in sorted(model.runs, key=lambda run: run.schedule.peak):
        if not groups or run.schedule.peak > groups[-1][0] * (1.0 + SAME):
            groups.append((run.schedule.peak, []))
        groups[-1][1].append(run)
    return groups


def shape(run: Run) -> str:
    """constant, cooldown (held for more than half of the run) or decay."""
    end = int(run.steps[-1])
    at = np.linspace(run.warmup, end, 200).astype(np.int64)
    held = run.schedule(at) > 0.97 * run.schedule.peak
    if held.mean() > 0.97:
        return "constant"
    return "cooldown" if held[:100].mean() > 0.9 else "decay"


def first_part(run: Run, end: int) -> Run:
    """A run up to a step."""
    keep = run.schedule.steps < end
    steps = np.append(run.schedule.steps[keep], end)
    eta = np.append(run.schedule.controls["eta"][keep], run.schedule(end))
    late = run.steps <= end
    return replace(
        run,
        name=f"{run.name} to {end}",
        steps=run.steps[late],
        loss=run.loss[late],
        schedule=Schedule.from_knots(steps, eta=eta),
    )


def pilot_sets(runs: Sequence[Run]) -> list[tuple[Run, ...]]:
    """Two or three short runs of different shapes, or up to three lengths of the only shape."""
    longest = max(int(run.steps[-1]) for run in runs)
    short = [run for run in runs if run.steps[-1] <= SHORT * longest]
    by_shape: dict[str, list[Run]] = {"constant": [], "cooldown": [], "decay": []}
    for run in short:
        by_shape[shape(run)].append(run)
    ends = sorted({int(run.steps[-1]) for run in short})
    for run in [run for run in runs if shape(run) == "constant" and run not in short][:1]:
        by_shape["constant"] += [first_part(run, end) for end in ends[-1:]]
    kinds = [kind for kind, found in by_shape.items() if found]
    if len(kinds) < 2:
        lengths = {int(run.steps[-1]): run for run in reversed(short)}
        few = tuple(lengths[end] for end in sorted(lengths))
        return [few[:3]] if len(few) > 1 else []
    sets: list[tuple[Run, ...]] = []
    for count in (2, 3):
        for some in itertools.combinations(kinds, count):
            every = list(itertools.product(*(by_shape[kind] for kind in some)))
            # Spread over what there is, not the first few, which are alike.
            sets += [every[i] for i in np.unique(np.linspace(0, len(every) - 1, 4).astype(int))]
    keep = np.unique(np.linspace(0, len(sets) - 1, SETS).astype(int))
    return [sets[i] for i in keep]


def _new(pilots: Sequence[Run], runs: Sequence[Run]) -> tuple[Run, ...]:
    """Runs that are no pilot, nor the whole of one, as long as the shortest pilot at least."""
    used = {run.name.partition(" to ")[0] for run in pilots}
    least = min(int(run.steps[-1]) for run in pilots)
    return tuple(run for run in runs if run.name not in used and run.steps[-1] >= least)


def splits(model: Model) -> Iterator[Split]:
    """All splits of a model; those with equal pilots follow each other."""
    names = {run.name: run for run in model.runs}
    if all(name in names for name in PROTOCOL):
        pilots = tuple(names[name] for name in PROTOCOL)
        yield Split("protocol", pilots, _new(pilots, model.runs))
    groups = peaks(model)
    sets = [pilot_sets(runs) for _, runs in groups]
    for i, (peak, runs) in enumerate(groups):
        for pilots in sets[i]:
            targets = _new(pilots, runs)
            one_shape = len({shape(run) for run in pilots}) == 1
            if one_shape:
                most = max(int(run.steps[-1]) for run in pilots)
                targets = tuple(run for run in targets if run.steps[-1] > 1.5 * most)
            if targets:
                yield Split("longer" if one_shape else "same", pilots, targets)
            for kind, j in (("up", i + 1), ("down", i - 1)):
                if 0 <= j < len(groups) and 1 / NEAR < groups[j][0] / peak < NEAR:
                    yield Split(kind, pilots, tuple(groups[j][1]))
    for i in range(1, len(groups) - 1):
        for low, high in zip(sets[i - 1][:4], sets[i + 1][:4], strict=False):
            for pilots in ((low[0], *high[1:2]), (*low[1:2], high[0])):
                far = groups[i + 1][0] / groups[i - 1][0] > FAR
                yield Split("far between" if far else "between", pilots, tuple(groups[i][1]))


def choices(model: Model) -> list[list[Run]]:
    """Runs of the greatest length that differ in nothing but their peak, for at least three."""
    longest = max(int(run.steps[-1]) for run in model.runs)
    found: dict[tuple[float, ...], dict[float, Run]] = {}
    for peak, runs in peaks(model):
        for run in runs:
            if run.steps[-1] >= 0.95 * longest:
                at = np.linspace(run.warmup, run.steps[-1], 25).astype(np.int64)
                key = np.round(20.0 * run.schedule(at) / run.schedule.peak) / 20.0
                found.setdefault(tuple(key.tolist()), {}).setdefault(peak, run)
    return [list(by_peak.values()) for by_peak in found.values() if len(by_peak) > 2]
