r"""Trajectory invariance: where the loss follows the rate, and where rate times weight decay.

Early in a run of AdamW the loss depends on the learning rate eta alone, whatever the weight decay
lambda; later on the effective rate :math:`\gamma = \eta\lambda` alone, along which eta is free (Li
et al., arXiv 2509.25049). From a sweep over both this module measures how tightly curves collapse
along either,

.. math:: D(t) = \frac{\sum_i |L_i(t) - \bar L_{g(i)}(t)|}{\sum_i |z_i - \bar z_{g(i)}|} ,

with groups g of the same eta (z = log lambda) or of the same gamma (z = log eta): the change of the
loss per factor e in what the group leaves free, so that groups of any extent compare. The shift is
where the two cross.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Brief, Floats
from optsched.checks import positive
from optsched.errors import InvalidProblem
from optsched.rules.adamw.salient import SalientDirection, SweepPoint, salient_direction
from optsched.rules.adamw.sweep_runs import Cells, SweepRun, sweep_cells

__all__ = ["Collapse", "Invariance", "SweepRun", "measure_invariance"]


SAME = 1e-3  # values whose logarithms differ by less are equal
NEAR = 1.0  # the crossing is fitted where log(D_lr / D_gamma) is within this
LATE = 0.5  # the last half of the steps is late
RESAMPLES = 200
NUMBERS = 7  # that are resampled


@dataclass(frozen=True, eq=False, repr=False)
class Collapse(Brief):
    """How tightly curves of a group lie together.

    Attributes
    ----------
    per_efold : numpy.ndarray, shape (t,)
        D(t), the change of the loss per factor e of what is free in the group.
    residual : numpy.ndarray, shape (t,)
        Mean absolute residual to the mean curve of the group.
    late, late_stderr : float
        Mean of ``per_efold`` over the late steps.
    late_residual, late_residual_stderr : float
        Mean of ``residual`` over the late steps.
    groups : int
        Number of groups of two or more.
    """

    per_efold: Floats
    residual: Floats
    late: float
    late_stderr: float
    late_residual: float
    late_residual_stderr: float
    groups: int


@dataclass(frozen=True, eq=False, repr=False)
class Invariance(Brief):
    """What a sweep over rate and weight decay shows.

    Attributes
    ----------
    steps : numpy.ndarray, shape (t,)
    along_lr, along_gamma : Collapse
        Of runs with equal rate, and of runs with equal rate times decay.
    spread : numpy.ndarray, shape (t,)
        Mean absolute residual of all runs to their mean curve.
    seed_noise : float
        Mean absolute error of a setting's late loss by its seeds; NaN with one seed a setting.
    shift, shift_stderr : float
        Step at which the invariance goes over from the rate to gamma; NaN where it does not.
    shift_in_decays : float
        ``shift`` times the geometric mean of gamma.
    ratio, ratio_stderr : float
        Late collapse along the rate over that along gamma; above 1, gamma rules.
    direction : SalientDirection
        Where the final loss changes most in (log lr, log weight_decay).
    proposal : tuple of SweepPoint
        Next runs of a one-dimensional sweep along it.
    runs, settings : int
        Numbers of curves and of different (lr, weight_decay).
    notes : tuple of str
    """

    steps: Floats
    along_lr: Collapse
    along_gamma: Collapse
    spread: Floats
    seed_noise: float
    shift: float
    shift_stderr: float
    shift_in_decays: float
    ratio: float
    ratio_stderr: float
    direction: SalientDirection
    proposal: tuple[SweepPoint, ...]
    runs: int
    settings: int
    notes: tuple[str, ...] = field(default=())

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict; None where one is not known."""
        from optsched.exponents import json_ready

        names = ("shift", "shift_stderr", "shift_in_decays", "ratio", "ratio_stderr", "seed_noise")
        names += ("runs", "settings", "steps", "spread")
        out = {name: json_ready(getattr(self, name)) for name in names}
        for name in ("along_lr", "along_gamma"):
            out[name] = {key: json_ready(v) for key, v in vars(getattr(self, name)).items()}
        out["direction"] = {key: json_ready(v) for key, v in vars(self.direction).items()}
        out["proposal"] = [vars(point) for point in self.proposal]
        return out | {"notes": list(self.notes)}


def _groups(values: Floats) -> list[NDArray[np.int64]]:
    """Indices of runs whose values are equal, for all groups of two or more."""
    order = np.argsort(values, kind="stable")
    cuts = np.flatnonzero(np.diff(values[order]) > SAME) + 1
    return [part for part in np.split(order, cuts) if len(part) > 1]


def _collapse(
    losses: Floats, groups: Sequence[NDArray[np.int64]], free: Floats
) -> tuple[Floats, Floats]:
    """D(t) and the mean absolute residual of groups; NaN without any."""
    if not groups:
        none = np.full(losses.shape[1], math.nan)
        return none, none
    off = [np.abs(losses[part] - losses[part].mean(0)) for part in groups]
    extent = sum(float(np.abs(free[part] - free[part].mean()).sum()) for part in groups)
    total = np.sum([part.sum(0) for part in off], axis=0)
    return total / extent, total / sum(map(len, off))


def _crossing(steps: Floats, along_lr: Floats, along_gamma: Floats) -> float:
    """Step at which D along the rate comes to exceed that along gamma for good; NaN if never."""
    tiny = max(1e-12 * float(np.nanmax([along_lr, along_gamma])), 1e-300)
    y = np.log(np.maximum(along_lr, tiny) / np.maximum(along_gamma, tiny))
    width = min(5, len(y))
    smooth = np.convolve(np.pad(y, width // 2, mode="edge"), np.ones(width) / width, "valid")
    smooth = smooth[: len(y)]
    below = np.flatnonzero(smooth <= 0.0)
    if not len(below) or below[-1] == len(y) - 1:
        return math.nan
    low = high = int(below[-1])
    while low > 0 and abs(smooth[low - 1]) <= NEAR:
        low -= 1
    while high < len(y) - 1 and (high <= below[-1] or abs(smooth[high + 1]) <= NEAR):
        high += 1
    if high - low < 3:
        low, high = max(0, low - 1), min(len(y) - 1, high + 1)
    x = np.log(steps[low : high + 1])
    slope, level = np.polyfit(x - x.mean(), y[low : high + 1], 1)
    if slope <= 0.0:
        return math.nan
    return float(np.exp(np.clip(x.mean() - level / slope, x[0], x[-1])))


class _Measures:
    """All that is resampled, from losses of a set of cells."""

    def __init__(self, cells: Cells, kept: NDArray[np.bool_] | None = None) -> None:
        self.kept = np.ones(len(cells.log_lr), bool) if kept is None else kept
        self.log_lr, self.log_wd = cells.log_lr[self.kept], cells.log_wd[self.kept]
        self.steps = cells.steps
        self.by_lr, self.by_gamma = _groups(self.log_lr), _groups(self.log_lr + self.log_wd)
        self.late = self.steps >= LATE * self.steps[-1]

    @property
    def complete(self) -> bool:
        """Whether there are groups of either kind."""
        return bool(self.by_lr and self.by_gamma)

    def curves(self, losses: Floats) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Collapse along the rate and along gamma."""
        chosen = losses[self.kept]
        return (
            _collapse(chosen, self.by_lr, self.log_wd),
            _collapse(chosen, self.by_gamma, self.log_lr),
        )

    def numbers(self, losses: Floats) -> Floats:
        """Late collapses, two and two residuals, log of their ratio, log shift, angle."""
        (lr, lr_off), (gamma, gamma_off) = self.curves(losses)
        late = [float(x[self.late].mean()) for x in (lr, gamma, lr_off, gamma_off)]
        shift = _crossing(self.steps, lr, gamma)
        low = max(1e-12 * max(late[0], late[1]), 1e-300)  # of curves that fall on each other
        ratio = math.log(max(late[0], low) / max(late[1], low))
        chosen = losses[self.kept][:, self.late].mean(1)
        angle = salient_direction(self.log_lr, self.log_wd, chosen).angle
        return np.array(
            [
                *late,
                ratio,
                math.log(shift) if shift > 0.0 else math.nan,
                angle,
            ]
        )


def _jackknife(cells: Cells) -> Floats:
    """Variances by leaving out one rate, or one weight decay, at a time."""
    total = np.zeros(NUMBERS)
    for values in (cells.log_lr, cells.log_wd):
        levels = np.unique(np.round(values / SAME))
        parts = []
        for level in levels:
            measures = _Measures(cells, np.round(values / SAME) != level)
            if measures.complete:
                parts.append(measures.numbers(cells.losses))
        if len(parts) > 1:
            total += (len(parts) - 1.0) * _variance(np.array(parts))
    return total


def _variance(found: Floats) -> Floats:
    """Variances of the columns; those that are not numbers are left out, NaN if most are not."""
    seen = np.isfinite(found)
    count = np.maximum(seen.sum(0), 1)
    filled = np.where(seen, found, 0.0)
    mean = filled.sum(0) / count
    variance = np.where(seen, (filled - mean) ** 2, 0.0).sum(0) / count
    return np.where(seen.mean(0) > 0.5, variance, math.nan)


def _seed_variance(cells: Cells, measures: _Measures, resamples: int, seed: int) -> Floats:
    """Variances by the seeds: residual curves of the replicas are added to the means, signed."""
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples):
        pick = rng.integers(len(cells.residuals), size=len(cells.losses))
        sign = rng.choice([-1.0, 1.0], len(cells.losses)) / np.sqrt(cells.replicas)
        drawn.append(measures.numbers(cells.losses + sign[:, None] * cells.residuals[pick]))
    return _variance(np.array(drawn))


def _seed_noise(cells: Cells, late: NDArray[np.bool_]) -> float:
    """Mean absolute error of a setting's late loss; NaN with one seed a setting."""
    if not len(cells.residuals):
        return math.nan
    return float(np.abs(cells.residuals[:, late]).mean() / math.sqrt(cells.replicas.mean()))


def _no_shift(along_lr: Floats, along_gamma: Floats) -> str:
    if np.mean(along_lr > along_gamma) > 0.5:
        return "gamma rules from the first step that all runs have"
    return "the rate rules to the last step: run longer, to several 1 / (lr * weight_decay)"


def measure_invariance(
    runs: Iterable[SweepRun], *, count: int = 5, resamples: int = RESAMPLES, seed: int = 0
) -> Invariance:
    """Measure collapse, shift and salient direction of a sweep.

    Parameters
    ----------
    runs : iterable of SweepRun
        Curves at constant rate after warm-up; equal (lr, weight_decay) are seeds of one setting.
    count : int
        Number of runs to propose.
    resamples : int
        Draws for the errors by seeds.
    seed : int
        Of these draws.

    Returns
    -------
    Invariance
        Standard errors: by the seeds, or without seeds by the jackknife over rates and decays,
        which asks more: what other settings would have given.

    Raises
    ------
    InvalidProblem
        Fewer than four settings, no two that share a rate, no two that share rate times decay, or
        curves that do not overlap.
    """
    count, resamples = (
        int(positive(n, v)) for n, v in (("count", count), ("resamples", resamples))
    )
    cells = sweep_cells(list(runs))
    measures = _Measures(cells)
    for name, groups in (("lr", measures.by_lr), ("lr * weight_decay", measures.by_gamma)):
        if not groups:
            allowed = f"at least two settings with the same {name}"
            raise InvalidProblem("runs", f"{len(cells.losses)} settings", allowed)
    whole = measures.numbers(cells.losses)
    seeds = len(cells.residuals) > 0
    error = np.sqrt(
        _seed_variance(cells, measures, resamples, seed) if seeds else _jackknife(cells)
    )
    (lr, lr_off), (gamma, gamma_off) = measures.curves(cells.losses)
    final = cells.losses[:, measures.late].mean(1)
    direction = salient_direction(cells.log_lr, cells.log_wd, final, float(error[6]))
    shift = math.exp(whole[5])
    return Invariance(
        steps=cells.steps,
        along_lr=Collapse(lr, lr_off, whole[0], error[0], whole[2], error[2], len(measures.by_lr)),
        along_gamma=Collapse(
            gamma, gamma_off, whole[1], error[1], whole[3], error[3], len(measures.by_gamma)
        ),
        spread=np.abs(cells.losses - cells.losses.mean(0)).mean(0),
        seed_noise=_seed_noise(cells, measures.late),
        shift=shift,
        shift_stderr=shift * float(error[5]),
        shift_in_decays=shift * float(np.exp(np.mean(cells.log_lr + cells.log_wd))),
        ratio=math.exp(whole[4]),
        ratio_stderr=math.exp(whole[4]) * float(error[4]),
        direction=direction,
        proposal=direction.sweep(cells.log_lr, cells.log_wd, final, count),
        runs=int(cells.replicas.sum()),
        settings=len(cells.losses),
        notes=() if math.isfinite(shift) else (_no_shift(lr, gamma),),
    )
