"""Runs of a sweep over rate and weight decay: from a table to mean curves on common steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from optsched.arrays import Brief, Floats
from optsched.checks import positive, real_array
from optsched.errors import BadFile, InvalidProblem
from optsched.files import read_rows

__all__ = ["Cells", "SweepRun", "read_sweep", "sweep_cells"]


COLUMNS = ("name", "lr", "weight_decay", "step", "loss")
LEAST_POINTS, LEAST_CELLS = 3, 4
GRID = 96


@dataclass(frozen=True, eq=False, repr=False)
class SweepRun(Brief):
    """One training run at a constant rate.

    Parameters
    ----------
    name : str
    lr, weight_decay : float
        Both > 0.
    steps, losses : array_like, shape (t,)
        Steps > 0 that increase, and the losses there.

    Raises
    ------
    InvalidProblem
        Naming the run, the field and what is allowed.
    """

    name: str
    lr: float
    weight_decay: float
    steps: Floats
    losses: Floats

    def __init__(
        self, name: str, lr: float, weight_decay: float, steps: ArrayLike, losses: ArrayLike
    ) -> None:
        at, loss = (
            real_array(f"{field} of {name}", values).astype(float)
            for field, values in (("steps", steps), ("losses", losses))
        )
        if at.ndim != 1 or len(at) < LEAST_POINTS or not np.all(np.diff(at) > 0.0) or at[0] <= 0.0:
            allowed = f"{LEAST_POINTS} or more numbers > 0 that increase"
            raise InvalidProblem(f"steps of {name}", at[:4].tolist(), allowed)
        if loss.shape != at.shape or not np.isfinite(loss).all() or not np.isfinite(at).all():
            raise InvalidProblem(
                f"losses of {name}", f"shape {loss.shape}", f"{len(at)} finite numbers, as steps"
            )
        values = {
            "name": name,
            "lr": positive(f"lr of {name}", lr),
            "weight_decay": positive(f"weight_decay of {name}", weight_decay),
            "steps": at,
            "losses": loss,
        }
        for field, value in values.items():
            object.__setattr__(self, field, value)


class Cells(NamedTuple):
    """Mean curves of the settings.

    Attributes
    ----------
    log_lr, log_wd : numpy.ndarray, shape (c,)
    replicas : numpy.ndarray, shape (c,)
        Number of seeds.
    steps : numpy.ndarray, shape (t,)
        Common steps, evenly spaced in their logarithm unless all runs have the same.
    losses : numpy.ndarray, shape (c, t)
    residuals : numpy.ndarray, shape (r, t)
        Curves of replicas about their mean, scaled to the size of one seed's error.
    """

    log_lr: Floats
    log_wd: Floats
    replicas: Floats
    steps: Floats
    losses: Floats
    residuals: Floats


def sweep_cells(runs: Sequence[SweepRun]) -> Cells:
    """Mean curves on common steps; equal (lr, weight_decay) are seeds of one setting."""
    by: dict[tuple[float, float], list[SweepRun]] = {}
    for run in runs:
        key = round(math.log(run.lr), 6), round(math.log(run.weight_decay), 6)
        by.setdefault(key, []).append(run)
    if len(by) < LEAST_CELLS:
        allowed = f"{LEAST_CELLS} or more different (lr, weight_decay)"
        raise InvalidProblem("runs", f"{len(by)} settings", allowed)
    first = max(float(run.steps[0]) for run in runs)
    last = min(float(run.steps[-1]) for run in runs)
    if not last > 2.0 * first:
        allowed = "runs that overlap over a factor of 2 in steps or more"
        raise InvalidProblem("steps", f"common to all: {first:g} to {last:g}", allowed)
    steps = runs[0].steps
    if not all(np.array_equal(run.steps, steps) for run in runs):
        steps = np.geomspace(first, last, GRID)
    log_steps = np.log(steps)
    means, residuals = [], []
    for group in by.values():
        curves = np.array([np.interp(log_steps, np.log(r.steps), r.losses) for r in group])
        means.append(curves.mean(0))
        if len(group) > 1:
            residuals.extend((curves - curves.mean(0)) * math.sqrt(len(group) / (len(group) - 1)))
    keys = np.array(list(by))
    return Cells(
        log_lr=keys[:, 0],
        log_wd=keys[:, 1],
        replicas=np.array([float(len(group)) for group in by.values()]),
        steps=np.asarray(steps, float),
        losses=np.array(means),
        residuals=np.array(residuals).reshape(-1, len(steps)),
    )


def read_sweep(path: str | Path) -> list[SweepRun]:
    """Read runs from a csv with columns name, lr, weight_decay, step, loss; others are ignored.

    Raises
    ------
    BadFile
        Naming the file, the line and what was expected.
    """
    rows: dict[str, list[list[float]]] = {}
    for row in read_rows(path, COLUMNS[1:], texts=COLUMNS[:1]):
        rows.setdefault(row["name"], []).append([row[name] for name in COLUMNS[1:]])
    runs = []
    for name, numbers in rows.items():
        table = np.array(numbers)
        if np.any(table[:, :2] != table[0, :2]):
            raise BadFile(f"{path}: run {name!r} has several lr or weight_decay; expected one each")
        table = table[np.argsort(table[:, 2], kind="stable")]
        table = table[table[:, 2] > 0.0]  # a loss before the first step has no place in log t
        lr, decay, *_ = numbers[0]
        runs.append(SweepRun(name, lr, decay, table[:, 2], table[:, 3]))
    return runs
