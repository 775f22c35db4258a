"""Meshes of whole steps, graded towards both ends of training.

A mesh is a list of *knots*: steps at which the rate is a free value; between knots the rate moves
linearly. The loss lives on log-time at the start and on log-time-to-go at the end, so knots are
spread evenly in a monitor that measures both in intrinsic time, and their number does not depend
on the horizon. Up to about as many steps as knots, every step is a knot and nothing is lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optsched.control.bounds.geodesic import Geodesic
from optsched.model.grading import padded

__all__ = [
    "StepMesh",
    "graded_mesh",
    "joined_clock",
    "joined_mesh",
    "log_clock",
    "log_mesh",
    "node_places",
    "split_mesh",
]

FEWEST = 8  # knots of a stretch between two corners, if it has so many steps


@dataclass(frozen=True, eq=False)
class StepMesh:
    """Knots of a schedule.

    Attributes
    ----------
    steps : numpy.ndarray of int64, shape (n,)
        Steps of the knots, increasing, from 0 to ``horizon - 1``.
    horizon : int
        Number of steps T.
    source : numpy.ndarray of int64, shape (n,)
        Index of the free control that rules knot i (its own, but for the warm-up).
    scale : numpy.ndarray, shape (n,)
        Rate of knot i over that free control.
    """

    steps: NDArray[np.int64]
    horizon: int
    source: NDArray[np.int64]
    scale: NDArray[np.float64]

    @property
    def controls(self) -> int:
        """Number of free controls."""
        return int(self.source.max()) + 1

    @property
    def free_steps(self) -> NDArray[np.int64]:
        """Step of the knot that each free control is the rate of."""
        return self.steps[np.searchsorted(self.source, np.arange(self.controls))]

    @property
    def step_weights(self) -> NDArray[np.float64]:
        """Weights (padded + 1,) of the padded knots in the sum over all steps of a control."""
        gaps = np.diff(self.steps)
        weights = np.zeros(self.padded + 1)
        n = len(self.steps)
        # From a knot of value u over n steps to the next, of value v: n u + (n-1)(v-u)/2.
        weights[: n - 1] += (gaps + 1) / 2.0
        weights[1:n] += (gaps - 1) / 2.0
        weights[n - 1] += 1.0
        return weights

    @property
    def padded(self) -> int:
        """Number of blocks after padding."""
        return padded(len(self.steps))

    def knots(self, free: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rate at every knot from the free controls."""
        return self.scale * free[self.source]

    def rates(self, free: NDArray[np.float64], steps: NDArray[np.int64]) -> NDArray[np.float64]:
        """Rate at any steps, linear between knots."""
        return np.interp(steps, self.steps, self.knots(free))


def _with_warmup(steps: NDArray[np.int64], horizon: int, warmup: int) -> StepMesh:
    """Tie the knots of a forced linear ramp to the rate at its end."""
    inside = int(np.searchsorted(steps, warmup))
    source = np.maximum(np.arange(len(steps)) - inside, 0)
    scale = np.where(steps < warmup, (steps + 1.0) / (warmup + 1.0), 1.0)
    return StepMesh(steps, horizon, source, scale)


def graded_mesh(
    path: Geodesic, horizon: int, knots: int, rate_of_top: float, warmup: int = 0
) -> StepMesh:
    """Mesh with about ``knots`` knots, graded along a path.

    Parameters
    ----------
    path : Geodesic
        Path in intrinsic time to adapt to.
    horizon : int
        Number of steps T.
    knots : int
        Number of knots; all steps are knots if the horizon is not larger.
    rate_of_top : float
        Largest eigenvalue: intrinsic times below its inverse need no resolution.
    warmup : int
        Steps of a forced linear ramp.
    """
    if horizon <= knots:
        return _with_warmup(np.arange(horizon), horizon, warmup)
    togo = np.maximum(path.tau[-1] - path.tau, 0.0)
    coordinate = np.log1p(2.0 * rate_of_top * path.tau) - np.log1p(2.0 * rate_of_top * togo)
    length = np.abs(np.diff(coordinate)) + np.abs(np.diff(np.log(path.eta)))
    length += np.abs(np.diff(np.log(path.low))) + 1e-3 * np.diff(path.t) / horizon
    arc = np.concatenate([[0.0], np.cumsum(length)])
    at = np.interp(np.linspace(0.0, arc[-1], knots), arc, path.t)
    special = [0, min(1, horizon - 1), warmup, horizon - 1]
    if warmup > 1:
        special += list(np.geomspace(1, warmup, max(4, knots // 16)).astype(int))
    steps = np.clip(np.round(at), 0, horizon - 1).astype(np.int64)
    return _with_warmup(np.unique(np.append(steps, special)), horizon, warmup)


def joined_mesh(meshes: list[StepMesh], warmup: int = 0) -> StepMesh:
    """Meshes of increasing horizons, each from the end of the one before it on.

    Where one ends the schedule may jump, and the next begins: it is graded from there too.
    """
    steps, begin = [np.zeros(1, np.int64)], 0
    for mesh in meshes:
        after = begin + 2 ** np.arange(max(mesh.horizon - begin, 1).bit_length())
        steps += [mesh.steps[mesh.steps >= begin], after[after < mesh.horizon]]
        steps.append(np.array([begin, mesh.horizon - 1]))
        begin = mesh.horizon
    return _with_warmup(np.unique(np.concatenate(steps)), begin, warmup)


def log_clock(t: NDArray[np.float64], horizon: int) -> NDArray[np.float64]:
    """Clock that runs as log-time at the start and as log-time-to-go at the end of T steps."""
    return np.log1p(t / 2.0) - np.log1p((horizon - 1.0 - t) / 2.0)


def joined_clock(t: NDArray[np.float64], corners: NDArray[np.int64]) -> NDArray[np.float64]:
    """`log_clock` of every stretch between two corners, one after the other with 1 between.

    Parameters
    ----------
    t : numpy.ndarray
        Steps, from 0 to below the last corner.
    corners : numpy.ndarray of int64, shape (s + 1,)
        Numbers of steps done at which a stretch ends and the next begins, 0 and T among them.
    """
    lengths = np.diff(corners)
    halves = np.log1p((lengths - 1.0) / 2.0)
    middle = np.append(0.0, np.cumsum(halves[:-1] + halves[1:] + 1.0))
    here = np.clip(np.searchsorted(corners, t, side="right") - 1, 0, len(lengths) - 1)
    return middle[here] + log_clock(t - corners[here], lengths[here])  # type: ignore[arg-type]


def node_places(corners: NDArray[np.int64], count: int) -> list[NDArray[np.float64]]:
    """Places on the `joined_clock` of ``count`` nodes or more, even in every stretch.

    A stretch has its ends among them, so that a control may jump from one to the next.
    """
    lengths = np.diff(corners)
    each = max(3, -(-2 * count // (len(lengths) + 1))) if len(lengths) > 1 else count
    ends = np.stack([corners[:-1], corners[1:] - 1]).astype(float)
    first, last = joined_clock(ends, corners)
    return [
        np.linspace(a, b, min(each, int(n))) for a, b, n in zip(first, last, lengths, strict=True)
    ]


def log_mesh(
    horizon: int, knots: int, warmup: int = 0, corners: NDArray[np.int64] | None = None
) -> StepMesh:
    """Mesh with about ``knots`` knots, even on the log clock; all steps if the horizon is short.

    Every block has a power of two of steps, so that its map is that of a step doubled again and
    again, and halves of blocks are such blocks too. Between corners every stretch is such a mesh
    of its own.
    """
    if horizon <= knots:
        return _with_warmup(np.arange(horizon), horizon, warmup)
    corners = np.array([0, horizon]) if corners is None else corners
    lengths = np.diff(corners)
    each = max(FEWEST, 2 * knots // (len(lengths) + 1)) if len(lengths) > 1 else knots
    steps = [
        first + _stretch(int(n), each, min(max(warmup - int(first), 0), int(n) - 1))
        for first, n in zip(corners, lengths, strict=False)
    ]
    return _with_warmup(np.concatenate(steps), horizon, warmup)


def _stretch(horizon: int, knots: int, warmup: int) -> NDArray[np.int64]:
    """Knots of a run of its own, ``knots`` of them at most."""
    if horizon <= knots:
        return np.arange(horizon)
    for target in range(knots, 0, -4):
        steps = _doubling_steps(horizon, target, warmup)
        if len(steps) <= knots:
            break
    return np.array(steps)  # pyright: ignore[reportPossiblyUnboundVariable]


def _doubling_steps(horizon: int, knots: int, warmup: int) -> list[int]:
    start, end = log_clock(np.array([0.0, horizon - 1.0]), horizon)
    share = (end - start) / knots
    steps, t = [0], 0
    while t < horizon - 1:
        wanted = share / (1.0 / (t + 2.0) + 1.0 / (horizon + 1.0 - t))
        limit = (warmup if t < warmup else horizon - 1) - t
        t += 2 ** max(0, min(round(math.log2(wanted)), limit.bit_length() - 1))
        steps.append(t)
    return steps


def split_mesh(
    mesh: StepMesh, worst: NDArray[np.bool_], warmup: int = 0, pieces: int = 2
) -> StepMesh:
    """Split the blocks marked in ``worst`` into so many pieces, or into their steps."""
    ends = np.append(mesh.steps[1:], mesh.horizon)
    length = (ends - mesh.steps)[worst]
    inner = [mesh.steps[worst] + length * k // pieces for k in range(1, pieces)]
    steps = np.unique(np.concatenate([mesh.steps, *inner]))
    return _with_warmup(steps, mesh.horizon, warmup)
