"""Controls that are smooth on the logarithmic clock: hats between nodes, in coordinates.

The optimum of momentum and batch size is sought among schedules whose coordinates (`charts`) are
linear between a few nodes, spread evenly on the *log clock*: log-time at the start, log-time-to-go
at the end, and so in every stretch between two corners, at which controls may jump. The loss is
propagated on a mesh that is finer than the nodes, so that no optimiser can exploit the propagation,
and nodes are doubled from level to level.
"""

from __future__ import annotations

import math

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

    def _matrix(self, chart: Chart, name: str) -> Floats:
        return self._rate_hats if name in chart.log_rates else self._hats

    def _coordinates(self, x: Floats) -> list[list[Floats]]:
        """Coordinates at the knots, chart by chart."""
        rows = iter(x.reshape(-1, self.count))
        out = []
        for chart in self.charts:
            own = [self._matrix(chart, name) @ next(rows) for name in chart.names]
            for name, u in zip(chart.names, own, strict=True):
                if name in chart.log_rates:
                    u += self._log_scale
            out.append(own)
        return out

    def knots(self, x: Floats) -> Table:
        table: Table = {}
        for chart, u in zip(self.charts, self._coordinates(x), strict=True):
            table |= chart.controls(u)
        return table

    def pull(self, x: Floats, gradient: Table, diagonal: bool = False) -> Floats:
        rows = []
        for chart, u in zip(self.charts, self._coordinates(x), strict=True):
            parts = chart.pull(u, gradient, diagonal)
            named = zip(chart.names, parts, strict=True)
            rows += [part @ self._matrix(chart, name) for name, part in named]
        return np.concatenate(rows)

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

    def roughness(self, x: Floats) -> tuple[float, Floats, Floats]:
        # Second differences in units of a clock with as many nodes as the coarsest level has, so
        # that the weight means the same on every level.
        ends = np.cumsum(self._stretches)
        bend = np.concatenate(
            [
                np.diff(np.eye(self.count)[end - n : end], 2, axis=0) * (max(n - 1, 1) / 8.0) ** 1.5
                for end, n in zip(ends, self._stretches, strict=True)
            ]
        )
        rows = x.reshape(-1, self.count)
        curve = rows @ bend.T
        slope = curve @ bend
        diagonal = np.broadcast_to((bend**2).sum(0), rows.shape)
        return 0.5 * float((curve**2).sum()), slope.ravel(), diagonal.ravel()

    def calmer(self, x: Floats) -> Floats:
        """The same with half the rates."""
        shift = [math.log(0.5) if rate else 0.0 for rate in self._rates]
        return np.clip(x + np.repeat(shift, self.count), self.lower, self.upper)

    def moved(self, x: Floats, others: ControlNodes) -> Floats:
        """The same function on other nodes."""
        rows = [np.interp(others.places, self.places, row) for row in x.reshape(-1, self.count)]
        return np.concatenate(rows)
