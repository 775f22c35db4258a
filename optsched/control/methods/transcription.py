r"""The optimal-control problem of SGD as a sparse nonlinear program.

States and rates are variables, and so is the excess loss :math:`E_p = \sum_j e_{pj}` at every point
in time: given it, everything is diagonal in the modes j. One point and one mode then have
a right-hand side of four variables, `optsched.control.methods.radau.rhs`, and all derivatives are
sums of its gradients and 4 x 4 Hessians.

References
----------
Biegler, *Nonlinear Programming*, chapter 10 (collocation and its program).
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from optsched.arrays import Floats, Ints
from optsched.control.mesh import StepMesh
from optsched.control.methods.nlp import Pattern, SparseProgram
from optsched.control.methods.radau import (
    Pair,
    collocation_points,
    rhs_curvatures,
    rhs_slopes,
    rhs_values,
)
from optsched.model.dynamics import SGDDynamics
from optsched.model.spectrum import Modes
from optsched.numerics import jax_settings

__all__ = ["Transcription"]


CHUNK = 4096  # (point, mode) pairs of one call: one size, so that code is compiled once
METRIC_FLOOR = 1e-6  # of the largest metric: weaker controls are not stretched further
STATE_FLOOR = 1e-8  # of the excess loss: smaller states are not worth a scale of their own


class _Change(NamedTuple):
    """Bounds on the rate of change: scaled rates of the right knot minus the left, in [-1, 1]."""

    left: Ints
    right: Ints
    left_scale: Floats
    right_scale: Floats


def _change_rows(mesh: StepMesh, max_change: float | None, cap: float) -> _Change:
    """Rows of the blocks on which ``max_change`` can be active for rates up to ``cap``."""
    allowed = (math.inf if max_change is None else max_change) * np.diff(mesh.steps)
    rows = np.flatnonzero(allowed < cap)
    return _Change(
        mesh.source[rows],
        mesh.source[rows + 1],
        mesh.scale[rows] / allowed[rows],
        mesh.scale[rows + 1] / allowed[rows],
    )


class Transcription(SparseProgram):
    r"""The optimal-control problem on a mesh as a sparse nonlinear program.

    Variables: log rates of the free controls, from the start and scaled; the excess loss at all P
    points; the states at all points (mode by mode at each), these two over their values on the
    starting schedule. Constraints: P x J defects, each over the sum of its terms on the starting
    schedule; P sums :math:`E_p = \sum_j e_{pj}`; bounds on the rate of change where one can be
    active. The objective is the logarithm of the final excess loss.

    Parameters
    ----------
    dynamics : SGDDynamics
        The exact recursion.
    modes : Modes
        Nodes; those without mass are left out.
    mesh : StepMesh
    start : numpy.ndarray, shape (n,)
        Log rates of the free controls to scale with and to start from.
    lower, upper : numpy.ndarray, shape (n,)
        Bounds of the log rates.
    stages : int
        Radau IIA points in a long block.
    max_change : float, optional
        Largest change of the rate from one step to the next.
    metric : numpy.ndarray, shape (n,), optional
        Estimate of the curvature of the objective in each log rate; each is scaled to about 1, so
        that rates that matter little do not run away. None if they need no scaling.

    Attributes
    ----------
    x0 : numpy.ndarray
        The starting schedule and its trajectory: all defects are zero.
    """

    def __init__(
        self,
        dynamics: SGDDynamics,
        modes: Modes,
        mesh: StepMesh,
        start: Floats,
        lower: Floats,
        upper: Floats,
        *,
        stages: int = 3,
        max_change: float | None = None,
        metric: Floats | None = None,
    ) -> None:
        metric = np.ones(len(start)) if metric is None else metric
        self._start = start
        self._step = 1.0 / np.sqrt(np.maximum(metric, METRIC_FLOOR * metric.max()))
        massive = (modes.mu > 0.0) | (modes.nu > 0.0)
        self._initial = np.asarray(modes.mu, dtype=float)[massive]
        lam, nu = modes.lam[massive], modes.nu[massive]
        self._noise = (float(dynamics.batch_size), float(dynamics.sigma2))
        self._points = points = collocation_points(mesh, stages)
        self.free, self.count, self.width = len(start), len(points.weight), len(lam)
        self._source = mesh.source[points.knots]
        self._log_scale = np.log(mesh.scale)[points.knots]
        self._pad = -(self.count * self.width) % CHUNK
        grid = np.broadcast_arrays(
            lam, nu, points.weight[:, None], points.length[:, None], points.single[:, None]
        )
        with jax_settings():
            columns = [jnp.asarray(self._flat(column)) for column in grid]
            self._pairs = [Pair(*chunk) for chunk in zip(*columns, strict=True)]
        states, stay = self._simulate(start)
        self._scale(states, stay)
        self._change = _change_rows(mesh, max_change, float(np.exp(upper.max())))
        inner = np.concatenate([self._excess_scale, self._state_scale[1:].ravel()])
        trajectory = np.concatenate([states[1:].sum(1), states[1:].ravel()]) / inner
        self.x0 = np.concatenate([np.zeros(self.free), trajectory])
        unbounded = np.full(len(trajectory), np.inf)
        self.lower = np.concatenate([(lower - start) / self._step, -unbounded])
        self.upper = np.concatenate([(upper - start) / self._step, unbounded])
        width = np.append(np.zeros(len(trajectory)), np.ones(len(self._change.right)))
        self.row_lower, self.row_upper = -width, width
        self._build_patterns()

    def _flat(self, column: Any) -> Floats:
        """Values of all (point, mode) pairs, padded, in rows of one chunk each."""
        return np.append(np.ravel(column), np.zeros(self._pad)).astype(float).reshape(-1, CHUNK)

    def _values_of(self, log_free: Floats, excess: Floats, states: Floats) -> Floats:
        """Arguments of `rhs` for all pairs; ``excess`` and ``states`` start with point 0."""
        origin = self._points.origin
        knots = log_free[self._source] + self._log_scale
        shape = (self.count, self.width)
        columns = (states[origin], excess[origin][:, None], knots[:, :1], knots[:, 1:])
        flat = [self._flat(np.broadcast_to(column, shape)) for column in columns]
        return np.stack(flat, axis=-1)

    def _unpack(self, x: Floats) -> tuple[Floats, Floats]:
        """Arguments of `rhs`, and the states at all points, from the scaled variables."""
        log_free = self.log_rates(x)
        _, excess, states = np.split(x, [self.free, self.free + self.count])
        states = states.reshape(self.count, self.width) * self._state_scale[1:]
        states = np.concatenate([self._initial[None], states])
        excess = np.append(self._initial.sum(), excess * self._excess_scale)
        return self._values_of(log_free, excess, states), states

    def log_rates(self, x: Floats) -> Floats:
        """Log rates of the free controls."""
        return self._start + self._step * x[: self.free]

    def states(self, x: Floats) -> Floats:
        """States at all points, shape (P + 1, J), the given start first."""
        return self._unpack(x)[1]

    def _call(self, function: Any, values: Floats) -> Floats:
        """A compiled function on all pairs, without the padding: shape (P, J, ...)."""
        with jax_settings():
            parts = [
                np.asarray(function(chunk, pair, *self._noise))
                for chunk, pair in zip(values, self._pairs, strict=True)
            ]
        result = np.concatenate(parts)[: self.count * self.width]
        return result.reshape(self.count, self.width, *result.shape[1:])

    def _simulate(self, log_free: Floats) -> tuple[Floats, Floats]:
        """States (P + 1, J) of the scheme itself for given rates, and factors of the states."""
        points, sigma2 = self._points, self._noise[1]
        zeros = np.zeros((self.count + 1, self.width))
        values = self._values_of(log_free, zeros[:, 0], zeros)
        slopes = self._call(rhs_slopes, values)
        stay, gain = slopes[..., 0], slopes[..., 1]
        states = zeros
        states[0] = self._initial
        first = 0
        while first < self.count:
            now = states[first]
            if points.single[first]:
                states[first + 1] = stay[first] * now + gain[first] * (sigma2 + now.sum())
                first += 1
                continue
            stages = points.stencil.shape[1] - 1
            part = slice(first, first + stages)
            matrix = np.broadcast_to(points.combine[part, 1:], (self.width, stages, stages))
            matrix = matrix - stay[part].T[:, :, None] * np.eye(stages)
            inverse = np.linalg.inv(matrix)
            free = inverse @ (-points.combine[part, 0]) * now[:, None]
            forced = inverse * gain[part].T[:, None, :]  # response to the loss at each stage
            loss = np.linalg.solve(np.eye(stages) - forced.sum(0), sigma2 + free.sum(0))
            states[first + 1 : first + stages + 1] = (free + forced @ loss).T
            first += stages
        return states, stay

    def _scale(self, states: Floats, stay: Floats) -> None:
        """Scales of states, excess losses and defects from a trajectory."""
        points = self._points
        excess = np.maximum(np.abs(states.sum(1)), 1e-300)
        self._state_scale = np.maximum(np.abs(states), STATE_FLOOR * excess[:, None])
        self._excess_scale = excess[1:]
        terms = np.abs(points.combine)[..., None] * self._state_scale[points.stencil]
        inflow = np.abs(stay) * self._state_scale[points.origin]
        self._defect_scale = terms.max(1) + inflow

    def _build_patterns(self) -> None:
        """Places of all derivative entries, in the order in which they are computed."""
        points, change = self._points, self._change
        p = np.arange(self.count)
        j = np.arange(self.width)
        first = self.free + self.count
        shape = (self.count, self.width)

        def state(point: Ints) -> Ints:
            """Column of each state at some points; negative for the given start."""
            column = first + (point[..., None] - 1) * self.width + j
            return np.where(point[..., None] > 0, column, -1)

        excess = np.where(points.origin > 0, self.free + points.origin - 1, -1)[:, None]
        columns = (state(points.origin), excess, self._source[:, :1], self._source[:, 1:])
        origin, total, left, right = (np.broadcast_to(column, shape) for column in columns)
        defect = p[:, None] * self.width + j
        balance = defect.size + p
        bound = defect.size + self.count + np.arange(len(change.right))
        stencil = state(points.stencil)
        entries = [
            (np.broadcast_to(defect[:, None], stencil.shape), stencil),
            *((defect, column) for column in (origin, total, left, right)),
            (balance, self.free + p),
            (np.broadcast_to(balance[:, None], shape), state(p + 1)),
            (bound, change.right),
            (bound, change.left),
        ]
        rows, places = (np.concatenate([np.ravel(e[i]) for e in entries]) for i in (0, 1))
        size = len(self.x0)
        self.jacobian_pattern = Pattern((len(self.row_lower), size), rows, places)
        final = np.array([self.free + self.count - 1])
        pairs = [
            *((column, origin) for column in (left, right)),
            *((self._source[:, i], excess[:, 0]) for i in (0, 1)),
            *((self._source[:, i], self._source[:, k]) for i, k in ((0, 0), (0, 1), (1, 1))),
            (final, final),
            (change.right, change.right),
            (change.left, change.left),
        ]
        low = np.concatenate([np.ravel(np.minimum(a, b)) for a, b in pairs])
        high = np.concatenate([np.ravel(np.maximum(a, b)) for a, b in pairs])
        # Leave out what touches the given start: marked by a negative column.
        self.hessian_pattern = Pattern(
            (size, size), np.maximum(low, 0), np.where(low < 0, -1, high)
        )
        # Entry (left, right) stands for two, unless both are the same control: then both count.
        self._both = np.where(self._source[:, 0] == self._source[:, 1], 2.0, 1.0)

    def objective(self, x: Floats) -> float:
        final = x[self.free + self.count - 1]
        return math.log(final) + math.log(self._excess_scale[-1]) if final > 0.0 else math.nan

    def gradient(self, x: Floats) -> Floats:
        gradient = np.zeros_like(x)
        final = self.free + self.count - 1
        gradient[final] = 1.0 / x[final]
        return gradient

    def changes(self, x: Floats) -> Floats:
        """Changes of the rate over blocks, in units of what is allowed."""
        change, rates = self._change, np.exp(self.log_rates(x))
        return change.right_scale * rates[change.right] - change.left_scale * rates[change.left]

    def constraints(self, x: Floats) -> Floats:
        values, states = self._unpack(x)
        points = self._points
        moved = np.einsum("pk,pkj->pj", points.combine, states[points.stencil])
        defects = (moved - self._call(rhs_values, values)) / self._defect_scale
        balance = x[self.free : self.free + self.count] - states[1:].sum(1) / self._excess_scale
        return np.concatenate([defects.ravel(), balance, self.changes(x)])

    def jacobian(self, x: Floats) -> Floats:
        values, _ = self._unpack(x)
        points, change, rates = self._points, self._change, np.exp(self.log_rates(x))
        slopes = -self._call(rhs_slopes, values) / self._defect_scale[..., None]
        scales = np.append(1.0, self._excess_scale)
        left, right = self._step[self._source].T
        linear = points.combine[..., None] * self._state_scale[points.stencil]
        entries = (
            linear / self._defect_scale[:, None],
            slopes[..., 0] * self._state_scale[points.origin],
            slopes[..., 1] * scales[points.origin][:, None],
            slopes[..., 2] * left[:, None],
            slopes[..., 3] * right[:, None],
            np.ones(self.count),
            -self._state_scale[1:] / self._excess_scale[:, None],
            change.right_scale * (rates * self._step)[change.right],
            -change.left_scale * (rates * self._step)[change.left],
        )
        return self.jacobian_pattern.fill(np.concatenate([np.ravel(e) for e in entries]))

    def hessian(self, x: Floats, weight: float, multipliers: Floats) -> Floats:
        values, _ = self._unpack(x)
        points, change, rates = self._points, self._change, np.exp(self.log_rates(x))
        left, right = self._step[self._source].T
        defects, _, bounds = np.split(
            multipliers, [self.count * self.width, self.count * (self.width + 1)]
        )
        curvatures = self._call(rhs_curvatures, values)
        pull = -defects.reshape(self.count, self.width) / self._defect_scale
        curvatures = curvatures * pull[..., None, None]
        scales = np.append(1.0, self._excess_scale)[points.origin]
        states = self._state_scale[points.origin]
        summed = curvatures.sum(1)
        entries = (
            curvatures[..., 0, 2] * states * left[:, None],
            curvatures[..., 0, 3] * states * right[:, None],
            summed[:, 1, 2] * scales * left,
            summed[:, 1, 3] * scales * right,
            summed[:, 2, 2] * left**2,
            summed[:, 2, 3] * left * right * self._both,
            summed[:, 3, 3] * right**2,
            np.array([-weight / x[self.free + self.count - 1] ** 2]),
            bounds * change.right_scale * (rates * self._step**2)[change.right],
            -bounds * change.left_scale * (rates * self._step**2)[change.left],
        )
        return self.hessian_pattern.fill(np.concatenate([np.ravel(e) for e in entries]))
