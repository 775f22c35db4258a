"""The best peak rate of a shape: its loss on few exact blocks, and a search by parabolas.

The logarithm of the loss is smooth in the logarithm of the peak, and nearly always convex.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Floats
from optsched.control.certificate import UNDERFLOW
from optsched.model.dynamics import Dynamics, SGDDynamics
from optsched.model.grading import BUNDLE, corners, graded_steps
from optsched.model.sgd.curves import block_curves, final_excess
from optsched.model.spectrum import Modes
from optsched.objectives import KnotSum, Terms
from optsched.schedules.schedule import Schedule

__all__ = ["Curve", "Peak", "shape_blocks"]

BLOCKS = 48  # graded towards both ends, besides the corners of the shape
CORNER_TOL = 2.5e-2  # of the rate: 1e-3 of the loss, and nearly the same for all peaks
MOST_BLOCKS = 4 * BUNDLE  # beyond, corners of shapes with many cycles are found more coarsely
PEAKS = 16  # rates that are tried where nothing is known
DROP_TOL = 1e-6  # in log loss: what a better peak must promise to be tried
MOST_DROPS = 16
NARROW = 0.5  # in log rate: over so much the loss is like a parabola
WINDOW = 0.7  # in log rate, about the best peak of a neighbouring shape


@dataclass(frozen=True)
class Peak:
    """Log of a peak rate, and log of the loss there."""

    at: float
    loss: float


class Curve:
    """Log loss of one shape against its log peak, on few blocks.

    Parameters
    ----------
    unit : Schedule
        The shape, with peak 1.
    dynamics : Dynamics
    modes : Modes
    low, high : float
        Range of the log peak.
    terms : Terms, optional
        Of the objective; the final excess loss if not given.
    """

    def __init__(
        self,
        unit: Schedule,
        dynamics: Dynamics,
        modes: Modes,
        low: float,
        high: float,
        terms: Terms | None = None,
    ) -> None:
        self.low, self.high, self.modes = low, high, modes
        horizon, steps = unit.horizon, shape_blocks(unit)
        own = np.array(dynamics.switches(horizon), dtype=np.int64)
        steps = np.union1d(steps, own[own < horizon])
        self.sum: KnotSum | None = None
        if terms is not None and not terms.final:
            steps = np.union1d(steps, terms.corners[:-1])
            self.sum = KnotSum(terms, np.append(steps, horizon))
        self.plain = type(dynamics) is SGDDynamics
        count = len(steps) if self.plain else BUNDLE
        while count < len(steps):  # times a power of 2, to share compiled code
            count *= 2
        edges = np.append(steps, np.full(count + 1 - len(steps), horizon))
        self.length = np.diff(edges).astype(float)
        self.shape = {n: unit(np.minimum(edges, horizon - 1), n) for n in unit.controls}
        self.dynamics = dynamics.for_blocks(self.length)
        self.seen: dict[float, float] = {}

    @property
    def evaluations(self) -> int:
        """Number of losses that were computed."""
        return len(self.seen)

    def __call__(self, log_peak: float) -> float:
        log_peak = float(log_peak)
        if log_peak not in self.seen:
            excess = self._excess(math.exp(log_peak))
            # Rounding can leave a loss that underflows at or below zero: the best there is.
            finite = math.isfinite(excess)
            self.seen[log_peak] = math.log(max(excess, UNDERFLOW)) if finite else math.inf
        return self.seen[log_peak]

    def _excess(self, peak: float) -> float:
        """The objective with the rates of the shape times the peak."""
        knots = {name: v * peak if name == "eta" else v for name, v in self.shape.items()}
        if self.sum is not None:
            return self.sum(self._curve(knots))
        if self.plain:
            return final_excess(self.dynamics, self.modes, self.length, knots)  # type: ignore[arg-type]
        from optsched.model.propagate import traced_excess

        return traced_excess(self.dynamics, self.modes, self.length, knots)

    def _curve(self, knots: dict[str, Floats]) -> Floats:
        """Excess losses at the ends of the blocks, without padding."""
        if self.plain:
            with np.errstate(all="ignore"):  # rates may be too large, energies underflow
                return block_curves(self.dynamics, self.modes, self.length, knots)[0]  # type: ignore[arg-type]
        from optsched.model.propagate import traced_curve

        excess = traced_curve(self.dynamics, self.modes, self.length, knots)
        real = np.count_nonzero(self.length)
        return np.append(excess[:real], excess[-1])

    def _fine(self, low: float, middle: float, high: float) -> Peak:
        """Parabolas through an enclosed minimum, until they promise nothing more."""
        for _ in range(MOST_DROPS):
            at, drop = _vertex((low, middle, high), (self(low), self(middle), self(high)))
            if drop < DROP_TOL:
                down, up = middle - low, high - middle
                if max(down, up) < NARROW:
                    break
                # A wide parabola can have its vertex at the middle by chance.
                at = middle + (0.4 * NARROW if up > down else -0.4 * NARROW)
            if self(at) < self(middle):
                low, middle, high = (low, at, middle) if at < middle else (middle, at, high)
            else:
                low, high = (at, high) if at < middle else (low, at)
        best = min(self.seen, key=lambda x: self.seen[x])
        return Peak(best, self.seen[best])

    def _fine_at_end(self, end: float, inner: float) -> Peak:
        """As `_fine`, where of the points tried the end of the range is best."""
        for _ in range(MOST_DROPS):
            middle = 0.5 * (end + inner)
            if self(middle) < self(end):
                low, high = min(end, inner), max(end, inner)
                return self._fine(low, middle, high)
            slope = (self(end) - self(middle)) / (end - middle)
            before = (self(middle) - self(inner)) / (middle - inner)
            # The slope at the end if the loss is a parabola: downhill all the way.
            downhill = (1.5 * slope - 0.5 * before) * (end - inner) <= 0.0
            if abs(end - inner) < (NARROW if downhill else 1e-3):
                break
            inner = middle
        return Peak(end, self(end))

    def search(self) -> Peak:
        """A grid, then parabolas about its best point."""
        grid = [float(x) for x in np.linspace(self.low, self.high, PEAKS)]
        i = int(np.argmin([self(x) for x in grid]))
        if 0 < i < PEAKS - 1:
            return self._fine(*grid[i - 1 : i + 2])
        return self._fine_at_end(grid[i], grid[1 if i == 0 else i - 1])

    def search_near(self, guess: float) -> Peak:
        """Walk downhill from a guess until the minimum is enclosed, then parabolas."""
        middle, width = min(max(guess, self.low), self.high), WINDOW
        while width < self.high - self.low:
            low, high = max(middle - width, self.low), min(middle + width, self.high)
            if min(self(low), self(middle), self(high)) == math.inf:
                break
            better = low if self(low) < self(high) else high
            if self(better) >= self(middle):
                if low < middle < high:
                    return self._fine(low, middle, high)
                return self._fine_at_end(middle, high if middle == low else low)
            middle, width = better, 1.5 * width
        return self.search()


def shape_blocks(unit: Schedule) -> NDArray[np.int64]:
    """First steps of the blocks on which a shape is searched."""
    graded, steps, tol = graded_steps(unit.horizon, BLOCKS), unit.steps, CORNER_TOL
    if len(steps) <= 2 * BLOCKS:
        return np.union1d(graded, steps)
    while True:
        few = np.union1d(graded, steps[corners(steps, unit.controls, tol)])
        if len(few) <= MOST_BLOCKS or tol > 0.3:
            return few
        tol *= 3.0


def _vertex(at: Sequence[float], loss: Sequence[float]) -> tuple[float, float]:
    """Where the parabola through an enclosed minimum is least, and how much it drops there.

    Where a loss is infinite: the middle of the wider side, and an infinite drop.
    """
    (low, middle, high), (left, least, right) = at, loss
    down, up = middle - low, high - middle
    rise, fall = right - least, left - least
    bend = rise * down + fall * up
    if not 0.0 < bend < math.inf:
        wide = low if down > up else high
        return 0.5 * (middle + wide), math.inf if bend > 0.0 and down + up > 1e-3 else 0.0
    step = 0.5 * (fall * up**2 - rise * down**2) / bend
    drop = step**2 * bend / (down * up * (down + up))
    # A step into a corner of the bracket would hardly shrink it.
    least_step = 0.02 * (up if step > 0.0 else down)
    return middle + math.copysign(max(abs(step), least_step), step), drop
