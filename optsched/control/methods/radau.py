r"""Radau IIA collocation of the modes of SGD: points in time and right-hand sides.

State j is the spectral energy :math:`e_j`. With :math:`x = \eta\lambda_j`, the fall
:math:`\varphi = 2x - (1 + 1/m) x^2` and the loss :math:`L = \sigma^2 + \sum_j e_j`:

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
Hairer & Wanner, *Solving Ordinary Differential Equations II*, section IV.5 (Radau IIA).
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

from optsched.arrays import Floats, Ints
from optsched.control.mesh import StepMesh

__all__ = [
    "Pair",
    "Points",
    "collocation_points",
    "rhs",
    "rhs_curvatures",
    "rhs_slopes",
    "rhs_values",
    "radau",
]


SERIES_BELOW = 1e-3  # falls smaller than this take the series of g / fall


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


class Pair(NamedTuple):
    """Constants of one point and one mode, as `rhs` sees them.

    Eigenvalue and noise mass of the mode; share of the right knot in the rate, number of steps,
    and whether the point ends a single step, of the point.
    """

    lam: Any
    nu: Any
    weight: Any
    length: Any
    single: Any


def rhs(values: Array, pair: Pair, batch_size: float, sigma2: float) -> Array:
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
rhs_values = jax.jit(_each(rhs))
rhs_slopes = jax.jit(_each(jax.jacfwd(rhs)))
rhs_curvatures = jax.jit(_each(jax.hessian(rhs)))


class Points(NamedTuple):
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


def collocation_points(mesh: StepMesh, stages: int) -> Points:
    """Points of all blocks of a mesh.

    Parameters
    ----------
    mesh : StepMesh
    stages : int
        Radau IIA points in a long block.
    """
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
                rows.append((at + k, knots, k / n, 1.0, True, stencil, unit))
        else:
            stencil = np.arange(at, at + stages + 1)
            for k in range(stages):
                weight = nodes[k] - 0.5 / n
                rows.append((at + k + 1, knots, weight, n, False, stencil, matrix[k]))
    origin, knots, weight, length, single, stencil, combine = zip(*rows, strict=True)
    return Points(
        np.array(origin),
        np.array(knots),
        np.array(weight, dtype=float),
        np.array(length, dtype=float),
        np.array(single),
        np.array(stencil),
        np.array(combine, dtype=float),
    )
