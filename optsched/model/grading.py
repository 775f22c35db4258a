"""Which steps to keep as the ends of blocks: graded ones, and those at which a schedule bends."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Floats, Ints

__all__ = ["BUNDLE", "Knots", "Replayable", "corners", "graded_steps", "padded"]

BUNDLE = 64  # blocks of a compiled call; padded numbers of blocks are multiples of it


class Knots(Protocol):
    """A schedule as its knots."""

    @property
    def horizon(self) -> int: ...
    @property
    def steps(self) -> Ints: ...
    @property
    def controls(self) -> Mapping[str, Floats]: ...


class Replayable(Knots, Protocol):
    """What a replay needs of a schedule."""

    def array(self, control: str = ..., start: int = ..., stop: int | None = ...) -> Floats: ...


def padded(blocks: int) -> int:
    """Number of blocks of whole bundles that so many blocks need."""
    return BUNDLE * -(-blocks // BUNDLE)


def graded_steps(horizon: int, count: int) -> Ints:
    """First steps of about ``count`` blocks, graded towards both ends."""
    if horizon <= count:
        return np.arange(horizon)
    part = np.geomspace(1, horizon / 2, count // 2 - 2).round().astype(np.int64)
    return np.unique(np.concatenate([[0], part, horizon - part, [horizon - 1]]))


def corners(steps: Ints, controls: Mapping[str, Floats], tol: float) -> NDArray[np.intp]:
    """Knots between which lines stay within ``tol`` of every control.

    Parameters
    ----------
    steps : numpy.ndarray of int64, shape (n,)
        Knots, increasing.
    controls : mapping of str to numpy.ndarray, shape (n,)
        Values there.
    tol : float
        Largest error, relative to the value; of decays (``beta``, ``ema``) to one minus it, as
        that is what acts.

    Returns
    -------
    numpy.ndarray of int, shape (k,)
        Indices into ``steps``, increasing; the first and the last are among them.
    """
    kept = np.unique([0, len(steps) - 1])
    while True:
        error = np.zeros(len(steps))
        for name, values in controls.items():
            exact = 1.0 - values if name in ("beta", "ema") else values
            line = np.interp(steps, steps[kept], exact[kept])
            scale = np.abs(exact) + 1e-12 * np.abs(exact).max()
            wrong = np.abs(line - exact) / np.where(scale > 0.0, scale, 1.0)
            error = np.maximum(error, wrong)
        worst = np.maximum.reduceat(error, kept[:-1]) if len(kept) > 1 else error[:1]
        if not worst.max() > tol:
            return kept
        # The worst knot of every gap that is off: kept knots are exact and never chosen twice.
        gap = np.searchsorted(kept, np.arange(len(steps)), side="right") - 1
        gap = np.minimum(gap, len(worst) - 1)
        chosen = np.flatnonzero((error == worst[gap]) & (error > tol))
        first = np.unique(gap[chosen], return_index=True)[1]
        kept = np.union1d(kept, chosen[first])
