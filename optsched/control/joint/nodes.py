"""Controls that are smooth on the logarithmic clock: hats between nodes, in coordinates.

The optimum of momentum and batch size is sought among schedules whose coordinates (`charts`) are
linear between a few nodes, spread evenly on the *log clock*: log-time at the start, log-time-to-go
at the end, and so in every stretch between two corners, at which controls may jump. The loss is
propagated on a mesh that is finer than the nodes, so that no optimiser can exploit the propagation,
and nodes are doubled from level to level.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.control.mesh import StepMesh, joined_clock, node_places
from optsched.control.variables import Table, Variables
from optsched.optimisers.coordinates import Chart

__all__ = ["ControlNodes"]


def _hats(at: Floats, nodes: Floats) -> Floats:
    """Matrix (len(at), len(nodes)) of linear interpolation."""
    return np.stack([np.interp(at, nodes, one) for one in np.eye(len(nodes))], 1)


class ControlNodes(Variables):
    """Coordinates of the controls at nodes on the log clock.

    Parameters
    ----------
    mesh : StepMesh
        The knots; those of a forced warm-up take the rate at its end, scaled.
    charts : sequence of Chart
        Which together give every control.
    count : int, optional
        Number of nodes of every coordinate, more where there are corners; a node at every knot if
        not given.
    corners : numpy.ndarray of int64, optional
        Numbers of steps done at which controls may jump, 0 and the horizon among them.
    """

    def __init__(
        self,
        mesh: StepMesh,
        charts: list[Chart],
        count: int | None = None,
        corners: Ints | None = None,
    ) -> None:
        self.mesh, self.charts = mesh, charts
        self.corners = np.array([0, mesh.horizon]) if corners is None else corners
        self.asked = count
        # Of every coordinate, whether it is the logarithm of a rate.
        self._rates = [name in chart.log_rates for chart in charts for name in chart.names]
        last = float(mesh.horizon - 1)
        if count is None:
            stretches = [self._clock(mesh.steps.astype(float))]
        else:
            stretches = node_places(self.corners, count)
        self._stretches = [len(places) for places in stretches]
        self.places = np.concatenate(stretches)
        self.count = len(self.places)
        pad = mesh.padded + 1 - len(mesh.steps)
        steps = np.append(mesh.steps, np.full(pad, mesh.steps[-1])).astype(float)
        self._hats = _hats(self._clock(steps), self.places)
        # Rates of a warm-up follow the rate at its end.
        end = mesh.steps[np.searchsorted(mesh.source, mesh.source, side="right") - 1]
        after = np.append(np.where(mesh.source == 0, end, mesh.steps), np.full(pad, last))
        self._rate_hats = _hats(self._clock(after.astype(float)), self.places)
        self._log_scale = np.log(np.append(mesh.scale, np.ones(pad)))

    def _clock(self, steps: Floats) -> Floats:
        return joined_clock(steps, self.corners)

    @property
    def local(self) -> bool:
        """Whether controls at a knot follow from the coordinates there alone."""
        return all(chart.local for chart in self.charts)

    @property
    def size(self) -> int:
        """Number of variables."""
        return len(self._rates) * self.count

    @property
    def lower(self) -> Floats:
        """Lower bounds of the variables."""
        return self._bound(0)

    @property
    def upper(self) -> Floats:
        """Upper bounds of the variables."""
        return self._bound(1)

    def _bound(self, side: int) -> Floats:
        both = [pair for chart in self.charts for pair in chart.bounds]
        return np.repeat([pair[side] for pair in both], self.count).astype(float)

    @cached_property
    def hats(self) -> Floats:
        """Coordinates at the padded knots from those at the nodes, shape (C, knots, nodes)."""
        matrices = [
            self._rate_hats if name in chart.log_rates else self._hats
            for chart in self.charts
            for name in chart.names
        ]
        return np.stack(matrices)

    def coordinates(self, x: Floats) -> Floats:
        """Coordinates at the padded knots, shape (C, knots)."""
        rows = (self.hats @ x.reshape(-1, self.count, 1))[..., 0]
        rows[self._rates] += self._log_scale
        return rows

    def _by_chart(self, rows: Floats) -> Iterator[tuple[Chart, list[Floats]]]:
        left = iter(rows)
        for chart in self.charts:
            yield chart, [next(left) for _ in chart.names]

    def made(self, rows: Floats) -> Table:
        """Controls of coordinates at the padded knots."""
        table: Table = {}
        for chart, u in self._by_chart(rows):
            table |= chart.controls(u)
        return table

    def pulled(self, rows: Floats, gradient: Table, diagonal: bool = False) -> Floats:
        """Derivatives in the coordinates at the padded knots, shape (C, knots)."""
        parts = [chart.pull(u, gradient, diagonal) for chart, u in self._by_chart(rows)]
        return np.stack([row for part in parts for row in part])

    def knots(self, x: Floats) -> Table:
        return self.made(self.coordinates(x))

    def pull(self, x: Floats, gradient: Table, diagonal: bool = False) -> Floats:
        rows = self.pulled(self.coordinates(x), gradient, diagonal)
        return (rows[:, None] @ self.hats).ravel()

    def fit(self, controls: Table) -> Floats:
        """Variables whose controls at the nodes are those of a function of the step.

        Parameters
        ----------
        controls : dict of numpy.ndarray, shape (knots,)
            At the knots of the mesh, without padding.
        """
        clock = self._clock(self.mesh.steps.astype(float))
        rows = [
            np.interp(self.places, clock, u)
            for chart in self.charts
            for u in chart.invert(controls)
        ]
        return np.clip(np.concatenate(rows), self.lower, self.upper)

    @cached_property
    def _bend(self) -> Floats:
        # Second derivatives on a clock that runs from 0 to 8 between jumps, times the root of their
        # share of it, so that a weight means the same for any nodes.
        rows, start = [np.zeros((0, self.count))], 0
        for size in self._stretches:
            places = self.places[start : start + size]
            bend, inner = np.zeros((max(size - 2, 0), self.count)), np.arange(max(size - 2, 0))
            gap = 8.0 * np.diff(places) / max(float(np.ptp(places)), 1e-300)
            one, two = gap[:-1], gap[1:]
            both = np.sqrt(2.0 / (one + two))
            bend[inner, start + inner], bend[inner, start + inner + 2] = both / one, both / two
            bend[inner, start + inner + 1] = -both / one - both / two
            rows.append(bend)
            start += size
        return np.asarray(np.concatenate(rows), dtype=np.float64)

    @property
    def stiffness(self) -> Floats:
        """Second derivatives of the roughness, shape (n, n)."""
        full = np.kron(np.eye(len(self._rates)), self._bend.T @ self._bend)
        return full.astype(np.float64)

    def roughness(self, x: Floats) -> tuple[float, Floats, Floats]:
        rows = x.reshape(-1, self.count)
        curve = rows @ self._bend.T
        slope = curve @ self._bend
        diagonal = np.broadcast_to((self._bend**2).sum(0), rows.shape)
        return 0.5 * float((curve**2).sum()), slope.ravel(), diagonal.ravel()

    def bending(self, x: Floats) -> tuple[float, Floats, Floats]:
        """Roughness of the controls as they are shown, gradient, and Gauss-Newton Hessian."""
        matrix, count = self._bend.T @ self._bend, self.count
        value, slope = 0.0, np.zeros_like(x)
        hessian, start = np.zeros((len(x), len(x))), 0
        for chart, u in self._by_chart(x.reshape(-1, count)):
            for shown, parts in chart.shown(u):
                bent = matrix @ shown
                value += 0.5 * float(shown @ bent)
                for i, one in enumerate(parts):
                    rows = slice(start + i * count, start + (i + 1) * count)
                    slope[rows] += one * bent
                    for j, other in enumerate(parts):
                        columns = slice(start + j * count, start + (j + 1) * count)
                        hessian[rows, columns] += one[:, None] * matrix * other
            start += len(u) * count
        return value, slope, hessian

    def calmer(self, x: Floats) -> Floats:
        """The same with half the rates."""
        shift = [math.log(0.5) if rate else 0.0 for rate in self._rates]
        return np.clip(x + np.repeat(shift, self.count), self.lower, self.upper)

    def moved(self, x: Floats, other: ControlNodes) -> Floats:
        """The same function on other nodes."""
        rows = [np.interp(other.places, self.places, row) for row in x.reshape(-1, self.count)]
        return np.concatenate(rows)
