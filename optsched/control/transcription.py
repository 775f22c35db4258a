r"""Radau IIA transcription of the optimal-control problem into a sparse nonlinear program.

State j is the spectral energy :math:`e_j`; the excess loss :math:`E = \sum_j e_j` at every point
in time is a variable of its own, so that everything else is diagonal in j. With
:math:`x = \eta\lambda_j`, fall :math:`\varphi = 2x - (1 + 1/m) x^2`, :math:`L = \sigma^2 + E`:

**Short blocks** (as many steps as there are stages, or fewer) are the recursion itself, step by
step, :math:`e' = (1 - \varphi) e + (\eta^2/m) \nu_j L`.

**Long blocks** of n steps are collocated at the Radau IIA points :math:`c_i` (order 2s - 1,
L-stable: modes that decay within a block do no harm) on the differential equation

.. math:: \dot e = -g e + \frac{g}{\varphi} \frac{\eta^2}{m} \nu_j L, \qquad
   g = -\log(1 - \varphi),

whose solution over one step of constant rate and loss is exactly the recursion. Step k lasts from
k to k + 1, so that the rate at time t within the block is the linear interpolant at
:math:`t - 1/2`.

References
----------
Hairer & Wanner, *Solving Ordinary Differential Equations II*, section IV.5 (Radau IIA);
Biegler, *Nonlinear Programming*, chapter 10 (collocation and its program).
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray
from scipy.special import roots_jacobi

from optsched.control.mesh import StepMesh
from optsched.control.nlp import Pattern, SparseProgram
from optsched.model.dynamics import SGD
from optsched.model.spectrum import Modes

__all__ = ["Transcription", "radau"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BUCKET = 4096  # padded numbers of (point, mode) pairs are multiples: compiled code is shared
SERIES_BELOW = 1e-3  # falls smaller than this take the series of g / fall
METRIC_FLOOR = 1e-6  # of the largest metric: weaker controls are not stretched further
STATE_FLOOR = 1e-8  # of the excess loss: smaller states are not worth a scale of their own


def radau(stages: int) -> tuple[Floats, Floats]:
    """Radau IIA points and differentiation matrix.

    Parameters
    ----------
    stages : int
        Number of points s >= 1.

    Returns
    -------
    points : numpy.ndarray, shape (s,)
        Points in (0, 1]; the last is 1.
    matrix : numpy.ndarray, shape (s, s + 1)
        ``matrix @ values`` is the derivative at the points of the polynomial through the values
        at 0 and at the points.
    """
    inner = roots_jacobi(stages - 1, 1.0, 0.0)[0] if stages > 1 else np.zeros(0)
    points = np.append((1.0 + inner) / 2.0, 1.0)
    nodes = np.append(0.0, points)
    gaps = nodes[:, None] - nodes + np.eye(stages + 1)
    weights = 1.0 / gaps.prod(1)  # barycentric
    matrix = weights / weights[:, None] / gaps
    np.fill_diagonal(matrix, 0.0)
    np.fill_diagonal(matrix, -matrix.sum(1))
    return points, matrix[1:]


class _Pair(NamedTuple):
    """Constants of one point and one mode, as `_flow` sees them."""

    lam: Any
    nu: Any
    weight: Any
    length: Any
    single: Any


def _flow(values: Array, pair: _Pair, batch_size: float, sigma2: float) -> Array:
    """Right-hand side at values = (state, excess loss, log rate of the left and right knot).

    A single step gives the state after it, a point of a long block its length times the
    derivative.
    """
    state, excess, left, right = values
    eta = (1.0 - pair.weight) * jnp.exp(left) + pair.weight * jnp.exp(right)
    x = eta * pair.lam
    # The fall stays below 1 - 1/(m + 1); rounding must not carry it to 1.
    fall = jnp.minimum(2.0 * x - (1.0 + 1.0 / batch_size) * x**2, 1.0 - 1e-15)
    small = jnp.abs(fall) < SERIES_BELOW
    safe = jnp.where(small, 0.5, fall)
    series = jnp.polyval(1.0 / jnp.arange(7.0, 0.0, -1.0), fall)
    ratio = jnp.where(small, series, -jnp.log1p(-safe) / safe)
    stay = jnp.where(pair.single, 1.0 - fall, -pair.length * ratio * fall)
    noise = eta**2 / batch_size * pair.nu * jnp.where(pair.single, 1.0, pair.length * ratio)
    return stay * state + noise * (sigma2 + excess)


_each = partial(jax.vmap, in_axes=(0, 0, None, None))
_values = jax.jit(_each(_flow))
_slopes = jax.jit(_each(jax.jacfwd(_flow)))
_curvatures = jax.jit(_each(jax.hessian(_flow)))


class _Points(NamedTuple):
    """Points in time at which there are states: point 0 is the start, p = 1..P are unknown.

    Row p - 1 of every array is point p: ``origin`` is the point at which the right-hand side is
    taken, ``knots`` are the knots around it and ``weight`` the share of the right one, ``stencil``
    are the points that the left-hand side combines with ``combine``.
    """

    origin: Ints
    knots: Ints
    weight: Floats
    length: Floats
    single: NDArray[np.bool_]
    stencil: Ints
    combine: Floats
    block: Ints


def _points(mesh: StepMesh, stages: int) -> _Points:
    nodes, matrix = radau(stages)
    # Before half a step the interpolant at t - 1/2 would leave the block.
    longest = max(stages, math.floor(0.5 / float(nodes[0])))
    counts = np.diff(np.append(mesh.steps, mesh.horizon))
    rows: list[tuple[Any, ...]] = []
    for i, n in enumerate(counts.tolist()):
        at, knots = len(rows), (i, min(i + 1, len(counts) - 1))
        if n <= longest:
            unit = np.append(np.zeros(stages), 1.0)
            for k in range(n):
                stencil = np.full(stages + 1, at + k + 1)
                rows.append((at + k, knots, k / n, 1.0, True, stencil, unit, i))
        else:
            stencil = np.arange(at, at + stages + 1)
            for k in range(stages):
                weight = nodes[k] - 0.5 / n
                rows.append((at + k + 1, knots, weight, n, False, stencil, matrix[k], i))
    origin, knots, weight, length, single, stencil, combine, block = zip(*rows, strict=True)
    return _Points(
        np.array(origin),
        np.array(knots),
        np.array(weight, dtype=float),
        np.array(length, dtype=float),
        np.array(single),
        np.array(stencil),
        np.array(combine, dtype=float),
        np.array(block),
    )


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

    Variables: log rates of the free controls, then the excess loss at all P points, then the
    states at all points (mode by mode at each), the last two over their values on the starting
    schedule. Constraints: P x J defects, each over the sum of its terms on the starting schedule;
    P sums :math:`E_p = \sum_j e_{pj}`; bounds on the rate of change where one can be active.
    The objective is the logarithm of the final excess loss.

    Parameters
    ----------
    dynamics : SGD
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

    Attributes
    ----------
    x0 : numpy.ndarray
        The starting schedule and its trajectory: all defects are zero.
    """

    def __init__(
        self,
        dynamics: SGD,
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
        self._points = points = _points(mesh, stages)
        self.free, self.count, self.width = len(start), len(points.weight), len(lam)
        self._source = mesh.source[points.knots]
        self._log_scale = np.log(mesh.scale)[points.knots]
        self._pad = -(self.count * self.width) % BUCKET
        grid = np.broadcast_arrays(
            lam, nu, points.weight[:, None], points.length[:, None], points.single[:, None]
        )
        with jax.enable_x64(True):
            self._pairs = _Pair(*(jnp.asarray(self._flat(column)) for column in grid))
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
        """Values of all (point, mode) pairs in one padded vector."""
        return np.append(np.ravel(column), np.zeros(self._pad)).astype(float)

    def _values_of(self, log_free: Floats, excess: Floats, states: Floats) -> Array:
        """Arguments of `_flow` for all pairs; ``excess`` and ``states`` start with point 0."""
        origin = self._points.origin
        knots = log_free[self._source] + self._log_scale
        shape = (self.count, self.width)
        columns = (states[origin], excess[origin][:, None], knots[:, :1], knots[:, 1:])
        flat = [self._flat(np.broadcast_to(column, shape)) for column in columns]
        return jnp.asarray(np.stack(flat, axis=1))

    def _unpack(self, x: Floats) -> tuple[Array, Floats]:
        """Arguments of `_flow`, and the states at all points, from the scaled variables."""
        log_free = self.log_rates(x)
        _, excess, states = np.split(x, [self.free, self.free + self.count])
        states = states.reshape(self.count, self.width) * self._state_scale[1:]
        states = np.concatenate([self._initial[None], states])
        excess = np.append(self._initial.sum(), excess * self._excess_scale)
        return self._values_of(log_free, excess, states), states

    def log_rates(self, x: Floats) -> Floats:
        """Log rates of the free controls."""
        return self._start + self._step * x[: self.free]

    def _call(self, function: Any, values: Array) -> Floats:
        """A compiled function on all pairs, without the padding: shape (P, J, ...)."""
        with jax.enable_x64(True):
            result = np.asarray(function(values, self._pairs, *self._noise))
        return result[: self.count * self.width].reshape(self.count, self.width, *result.shape[1:])

    def _simulate(self, log_free: Floats) -> tuple[Floats, Floats]:
        """States (P + 1, J) of the scheme itself for given rates, and factors of the states."""
        points, sigma2 = self._points, self._noise[1]
        zeros = np.zeros((self.count + 1, self.width))
        with jax.enable_x64(True):
            values = self._values_of(log_free, zeros[:, 0], zeros)
        slopes = self._call(_slopes, values)
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
            loss = np.linalg.solve(
                np.eye(stages) - forced.sum(0), sigma2 + free.sum(0)
            )
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
        flow = np.abs(stay) * self._state_scale[points.origin]
        self._defect_scale = terms.max(1) + flow

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
        self.hessian_pattern = Pattern((size, size), np.maximum(low, 0), np.where(low < 0, -1, high))
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
        with jax.enable_x64(True):
            values, states = self._unpack(x)
        points = self._points
        moved = np.einsum("pk,pkj->pj", points.combine, states[points.stencil])
        defects = (moved - self._call(_values, values)) / self._defect_scale
        balance = x[self.free : self.free + self.count] - states[1:].sum(1) / self._excess_scale
        return np.concatenate([defects.ravel(), balance, self.changes(x)])

    def jacobian(self, x: Floats) -> Floats:
        with jax.enable_x64(True):
            values, _ = self._unpack(x)
        points, change, rates = self._points, self._change, np.exp(self.log_rates(x))
        slopes = -self._call(_slopes, values) / self._defect_scale[..., None]
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
        with jax.enable_x64(True):
            values, _ = self._unpack(x)
        points, change, rates = self._points, self._change, np.exp(self.log_rates(x))
        left, right = self._step[self._source].T
        defects, _, bounds = np.split(
            multipliers, [self.count * self.width, self.count * (self.width + 1)]
        )
        curvatures = self._call(_curvatures, values)
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
