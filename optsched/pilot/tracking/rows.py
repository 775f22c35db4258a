r"""What a run has measured, as an anchor sees it: bins along the run, with their noise.

Rows are averaged in bins whose edges depend on the run's length alone, so that a look at the run
an hour later has the bins of this one and some more. The noise of a row is the largest that
neighbouring rows, and means of 2 to 16 of them times the root of that, show: rows that share their
noise, as of smoothed losses, count as fewer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import median_filter

from optsched.arrays import Brief, Floats, Ints
from optsched.logs.run import Run, noise_level

__all__ = ["Bins", "edges_of", "in_bins"]

ROWS = 400  # at which a law is evaluated; more are averaged first
EVEN, GRADED = 49, 33  # edges of the bins: of equal length, and of equal ratio
FAR = 4.0  # noise of a row: beyond, a row is one that only spiked
NEIGHBOURS = 5  # rows whose median says so
BLOCKS, LEAST_BLOCKS = (2, 4, 8, 16), 16  # rows whose means are compared; the least of them
LEAST_NOISE = 1e-5  # relative: no loss is known better


@dataclass(frozen=True, eq=False, repr=False)
class Bins(Brief):
    """Rows of a run in bins.

    Attributes
    ----------
    rows : numpy.ndarray of int64, shape (k,)
        Steps of the rows.
    log_loss : numpy.ndarray, shape (k,)
        Logarithms of their losses.
    label : numpy.ndarray of int64, shape (k,)
        Bin of every row, from 0.
    steps : numpy.ndarray, shape (n,)
        Mean step of every bin.
    ends : numpy.ndarray of int64, shape (n,)
        Last row of every bin.
    """

    rows: Ints
    log_loss: Floats
    label: Ints
    steps: Floats
    ends: Ints

    @property
    def count(self) -> Ints:
        """Rows of every bin."""
        return np.bincount(self.label)

    def mean(self, values: Floats) -> Floats:
        """Means over the bins of what every row has, shape (k, ...) to (n, ...)."""
        total = np.zeros((len(self.steps), *values.shape[1:]))
        np.add.at(total, self.label, values)
        return total / self.count.reshape(-1, *[1] * (values.ndim - 1))

    def noise(self, off: Floats) -> Floats:
        """Standard deviation of the mean of every bin, of rows that are ``off`` by (k,)."""
        count = self.count
        if len(off) < 4:
            return np.full(len(count), LEAST_NOISE)
        sizes = [noise_level(self.rows, off)]
        for block in BLOCKS:
            n = len(off) // block
            if n >= LEAST_BLOCKS:
                means = [x[: n * block].reshape(n, block).mean(1) for x in (self.rows, off)]
                # Of independent rows a mean of m has the noise of one over the root of m.
                sizes.append(noise_level(means[0], means[1]) * math.sqrt(block))
        return max(*sizes, LEAST_NOISE) / np.sqrt(count)

    def calm(self, off: Floats) -> Floats:
        """What rows are off by, spikes of one or two rows taken down to their neighbours."""
        if len(off) < NEIGHBOURS:
            return off
        width = FAR * max(noise_level(self.rows, off), LEAST_NOISE)
        middle = median_filter(off, NEIGHBOURS, mode="mirror")
        return np.clip(off, middle - width, middle + width)


def edges_of(first: int, horizon: int) -> Floats:
    """Edges of the bins of a run, which do not depend on how much of it is done."""
    first = max(min(first, horizon - 1), 1)
    even = np.linspace(first, horizon, EVEN)
    return np.unique(np.append(even, np.geomspace(first, horizon, GRADED)))


def in_bins(run: Run, first: int, edges: Floats) -> Bins | None:
    """Rows of a run from a step on in bins; None if there are none.

    Parameters
    ----------
    run : Run
    first : int
        Earlier rows are left out: early training.
    edges : numpy.ndarray
        Of the bins; no bin reaches over a jump of the rate either.
    """
    late = run.steps >= max(first, 1)
    if not late.any():
        return None
    steps, loss = run.steps[late], run.loss[late]
    if len(steps) > ROWS:
        whole = Run(run.name, steps, loss, run.schedule).thin(ROWS, "equal")
        steps, loss = whole.steps, whole.loss
    _, label = np.unique(np.searchsorted(edges, steps), return_inverse=True)
    count = np.bincount(label)
    return Bins(
        steps,
        np.log(loss),
        label,
        np.bincount(label, steps) / count,
        steps[np.append(np.flatnonzero(np.diff(label)), len(steps) - 1)],
    )
