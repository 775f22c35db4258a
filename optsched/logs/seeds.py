"""Seeds: runs of one schedule, averaged, with the noise between them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import combinations, takewhile
from pathlib import Path

import numpy as np

from optsched.arrays import Brief
from optsched.errors import BadLog
from optsched.logs.run import MIN_POINTS, Run
from optsched.schedules.schedule import Schedule

__all__ = ["SeedGroup", "average_seeds", "label_seeds", "same_schedule", "unique_names"]

RTOL = 1e-6


@dataclass(frozen=True, eq=False, repr=False)
class SeedGroup(Brief):
    """Runs of one schedule.

    Attributes
    ----------
    runs : tuple of Run
    mean : Run
        Mean loss at the steps that all of them have; a single run as it is.
    noise : float or None
        Standard deviation of the loss of one run about what the schedule gives on average, from
        the spread between the runs, pooled over the steps; None for a single run. Seeds stay
        apart along a run, so it is not the noise between rows, ``Run.noise``.
    """

    runs: tuple[Run, ...]
    mean: Run
    noise: float | None


def average_seeds(runs: Sequence[Run]) -> list[SeedGroup]:
    """Group runs of equal schedules, in the order of their first, and average each group.

    Raises
    ------
    BadLog
        Runs of one schedule that share fewer than 4 steps.
    """
    groups: list[list[Run]] = []
    for run in runs:
        for group in groups:
            if same_schedule(group[0].schedule, run.schedule):
                group.append(run)
                break
        else:
            groups.append([run])
    names = Counter(_common_name(group) for group in groups)
    return [_average(group, names) for group in groups]


def label_seeds(runs: Sequence[Run]) -> list[Run]:
    """Give runs of one name the names ``name#1``, ``name#2``, ...

    Raises
    ------
    BadLog
        They have different schedules, so that they are no seeds.
    """
    for one, other in combinations(runs, 2):
        if one.name == other.name and not same_schedule(one.schedule, other.schedule):
            raise BadLog(
                f"{other.source}: run {other.name!r} has another schedule than that of "
                f"{one.source}, expected the same of two seeds"
            )
    total, used = Counter(run.name for run in runs), Counter[str]()
    labelled = []
    for run in runs:
        used[run.name] += 1
        several = total[run.name] > 1
        labelled.append(replace(run, name=f"{run.name}#{used[run.name]}") if several else run)
    return labelled


def unique_names(runs: Sequence[Run], *, refuse: bool = False) -> list[Run]:
    """Give runs of one name the folders that tell them apart: ``a/cosine``, ``b/cosine``.

    Parameters
    ----------
    runs : sequence of Run
    refuse : bool
        Raise instead.

    Raises
    ------
    BadLog
        One file is there twice, or ``refuse`` and a name is.
    """
    found = list(runs)
    groups: dict[str, list[int]] = {}
    for i, run in enumerate(found):
        groups.setdefault(run.name, []).append(i)
    for name, group in groups.items():
        if len(group) == 1:
            continue
        one, other = (found[i].source for i in group[:2])
        if refuse:
            raise BadLog(
                f"{other}: a run named {name!r} was read from {one} already, expected different "
                "names"
            )
        for i, label in zip(
            group, _apart([Path(found[i].source) for i in group], name), strict=True
        ):
            note = f"{name!r} in {Path(found[i].source).parent}, as other runs have that name."
            found[i] = replace(found[i], name=label, notes=(*found[i].notes, note))
    return found


def _apart(paths: Sequence[Path], name: str) -> list[str]:
    """Names with the folders from the first on that not all paths share."""
    parts = [path.resolve().parts for path in paths]
    if len(set(parts)) < len(parts):
        raise BadLog(f"{paths[0]}: is given twice, expected different runs")
    shared = len([*takewhile(lambda same: len({*same}) == 1, zip(*parts, strict=False))])
    labels = []
    for one in parts:
        folders = [part for part in one[shared:-1] if not part.startswith("checkpoint-")]
        if folders and folders[-1] == name:
            folders.pop()
        labels.append("/".join([*folders, name]))
    if len(set(labels)) < len(labels):  # they differ in the names of their files only
        labels = ["/".join([*one[shared:-1], one[-1]]) for one in parts]
    return labels


def same_schedule(one: Schedule, other: Schedule) -> bool:
    """Whether two schedules have the same length and the same rates, to 1e-6 of the peak."""
    if one.horizon != other.horizon:
        return False
    steps = np.union1d(one.steps, other.steps)
    return bool(np.allclose(one(steps), other(steps), rtol=RTOL, atol=RTOL * one.peak))


def _average(group: list[Run], names: Counter[str]) -> SeedGroup:
    if len(group) == 1:
        return SeedGroup((group[0],), group[0], None)
    steps = reduce(np.intersect1d, [run.steps for run in group])
    if len(steps) < MIN_POINTS:
        listed = ", ".join(run.source for run in group)
        raise BadLog(
            f"{listed}: seeds of one schedule that share {len(steps)} steps, expected "
            f"{MIN_POINTS} or more"
        )
    losses = np.array([run.loss[np.searchsorted(run.steps, steps)] for run in group])
    noise = float(np.sqrt(losses.var(axis=0, ddof=1).mean()))
    name = _common_name(group)
    note = (
        f"Mean of {len(group)} seeds ({', '.join(run.name for run in group)}) at {len(steps)} "
        f"common steps; a seed is off their mean by {noise:.2g}."
    )
    mean = replace(
        group[0],
        name=name if names[name] == 1 else group[0].name,
        steps=steps,
        loss=losses.mean(axis=0),
        source=", ".join(dict.fromkeys(run.source for run in group)),
        notes=(*group[0].notes, note),
    )
    return SeedGroup(tuple(group), mean, noise)


def _common_name(group: Sequence[Run]) -> str:
    """What the names share, without the word seed at its end."""
    if len(group) == 1:
        return group[0].name
    letters = zip(*(run.name for run in group), strict=False)
    shared = "".join(same[0] for same in takewhile(lambda same: len({*same}) == 1, letters))
    return re.sub(r"([\W_]*(seed|_s)[\W_]*\d*|[\W_]+)$", "", shared) or group[0].name
