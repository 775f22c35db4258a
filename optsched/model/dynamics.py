r"""Optimiser dynamics on the modes of a spectrum.

Every optimiser that optsched knows is the same object: modes :math:`x_j \in R^d` with a small
linear system each, coupled only by the scalar loss,

.. math:: x_j \leftarrow M_j(u)\, x_j + s_j(u)\, L, \qquad E = \sum_j r_j \cdot x_j,
   \qquad L = E + \sigma^2 ,

driven by the controls u (learning rate, ...). A `Dynamics` gives the step map, the generator of
its continuous limit, and the exact map of a *block* of steps along which the controls move
linearly. Propagation, adjoints, collocation and replay are written once, for that interface.

Plain SGD has d = 1 and the *spectral energies* :math:`e_j = \mu_j B_j + \nu_j V_j` as state: the
bias :math:`B` starts at 1 and is homogeneous, the variance :math:`V` starts at 0 and is fed by
:math:`(\eta^2/m) L`, and both obey the same step factor, so that one number a mode is enough.
"""

from __future__ import annotations

import abc
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from optsched.model.spectrum import Modes

__all__ = ["SGD", "BlockMaps", "Dynamics", "Mesh"]

Controls = dict[str, Array]


class Mesh(NamedTuple):
    """Blocks of steps. ``start[i]`` is the first step of block i, ``count[i]`` its length.

    Controls are given at knots: value i belongs to step ``start[i]``, and value n (one more than
    there are blocks) to the step after the last. Padded blocks have a count of 0.
    """

    start: Array
    count: Array


class BlockMaps(NamedTuple):
    r"""Linear maps of a block of steps, given the loss at its start, middle and end.

    ``half_phi @ x + sum_i half_w[i] L_i`` is the state after half of the block's steps, and
    ``phi``, ``w`` the same for the whole block. Shapes: phi (n, J, d, d), w (n, 3, J, d).
    """

    half_phi: Array
    half_w: Array
    phi: Array
    w: Array


class Dynamics(abc.ABC):
    """One optimiser on the modes of a spectrum. Subclasses are JAX pytrees."""

    sigma2: Array | float

    @abc.abstractmethod
    def initial(self, modes: Modes) -> Array:
        """State at step 0, shape (J, d)."""

    @abc.abstractmethod
    def readout(self, modes: Modes) -> Array:
        """Weights r with ``excess = sum(r * x)``, shape (J, d)."""

    @abc.abstractmethod
    def step(self, modes: Modes, controls: Controls) -> tuple[Array, Array]:
        """Matrix (J, d, d) and source (J, d) of one step at scalar controls."""

    @abc.abstractmethod
    def generator(self, modes: Modes, controls: Controls) -> tuple[Array, Array]:
        """Matrix (J, d, d) and source (J, d) of the ODE ``dx/dt = M x + s L``."""

    @abc.abstractmethod
    def blocks(self, modes: Modes, mesh: Mesh, controls: Controls, noise: Controls) -> BlockMaps:
        """Maps of all blocks; ``noise`` holds the controls as the diffusion terms see them.

        Passing the same values twice gives the dynamics; the derivatives with respect to the two
        arguments are what the maximum principle balances.
        """


def _exp_moments(kappa: Array) -> tuple[Array, Array, Array]:
    r"""Moments :math:`\int_0^1 (u - 1/2)^p e^{-\kappa (1-u)} du` for p = 0, 1, 2."""
    small = jnp.abs(kappa) < 1.0
    x = jnp.where(small, 1.0, kappa)
    q = jnp.exp(-x)
    closed = (
        (1.0 - q) / x,
        (1.0 - q * (1.0 + x)) / x**2,
        (2.0 - q * (2.0 + 2.0 * x + x**2)) / x**3,
    )
    y = jnp.where(small, -kappa, 0.0)
    # sum_m y^m / (m! (m+p+1)) by Horner; 15 terms are exact to rounding for |y| < 1.
    series = []
    for p in range(3):
        total = jnp.zeros_like(y)
        for m in range(14, -1, -1):
            total = 1.0 / (m + p + 1.0) + total * y / (m + 1.0) if m < 14 else total + 1.0 / 15.0
        series.append(total)
    i0, i1, i2 = (jnp.where(small, s, c) for s, c in zip(series, closed, strict=True))
    return i0, 0.5 * i0 - i1, 0.25 * i0 - i1 + i2


@partial(jax.tree_util.register_dataclass, data_fields=["batch_size", "sigma2"],
         meta_fields=["continuous"])
@dataclass(frozen=True)
class SGD(Dynamics):
    r"""Plain minibatch SGD on Gaussian features.

    Exact recursion (Bordelon & Pehlevan 2022; Bordelon & Mori, arXiv 2602.04774):

    .. math:: e_j \leftarrow [1 - 2\eta\lambda_j + \eta^2 (1 + 1/m) \lambda_j^2]\, e_j
              + (\eta^2/m)\, \nu_j L .

    Parameters
    ----------
    batch_size : float
        Minibatch size m.
    sigma2 : float
        Variance of the label noise.
    continuous : bool
        If true, blocks integrate the ODE with rate
        :math:`2\eta\lambda - \eta^2 (1+1/m)\lambda^2` instead of the exact recursion.
    """

    batch_size: Array | float
    sigma2: Array | float
    continuous: bool = False

    def initial(self, modes: Modes) -> Array:
        return jnp.asarray(modes.mu)[:, None]

    def readout(self, modes: Modes) -> Array:
        return jnp.ones_like(jnp.asarray(modes.lam))[:, None]

    def _fall(self, x: Array, x_noise: Array) -> Array:
        """1 minus the step factor, at x = eta * lam as drift and diffusion see it."""
        return 2.0 * x - (1.0 + 1.0 / self.batch_size) * x_noise**2

    def step(self, modes: Modes, controls: Controls) -> tuple[Array, Array]:
        eta = controls["eta"]
        x = eta * modes.lam
        source = (eta**2 / self.batch_size) * modes.nu
        return (1.0 - self._fall(x, x))[:, None, None], source[:, None]

    def generator(self, modes: Modes, controls: Controls) -> tuple[Array, Array]:
        eta = controls["eta"]
        x = eta * modes.lam
        source = (eta**2 / self.batch_size) * modes.nu
        return -self._fall(x, x)[:, None, None], source[:, None]

    def _rate(self, x: Array, x_noise: Array) -> Array:
        """Decay rate per step, -log of the step factor (recursion) or its ODE counterpart."""
        fall = self._fall(x, x_noise)
        return fall if self.continuous else -jnp.log1p(-fall)

    def blocks(self, modes: Modes, mesh: Mesh, controls: Controls, noise: Controls) -> BlockMaps:
        return _sgd_blocks(self, modes, mesh, controls["eta"], noise["eta"])


def _sgd_blocks(sgd: SGD, modes: Modes, mesh: Mesh, eta: Array, eta_noise: Array) -> BlockMaps:
    """Block maps of plain SGD.

    Every mode has its own clock u, the share of its decay exponent kappa that is spent. A step
    with source s and factor r adds ``s/(1-r) kappa exp(-kappa (1-u)) du`` over its part of the
    clock, exactly; the stationary value s/(1-r) is smooth in u, and is interpolated.
    """
    lam, nu = jnp.asarray(modes.lam), jnp.asarray(modes.nu)
    lam = jnp.where(lam > 0.0, lam, 1.0)  # padding carries no mass
    real = (mesh.count > 0)[:, None]
    n = jnp.where(mesh.count > 0, mesh.count, 1.0)
    half = n / 2.0 if sgd.continuous else jnp.floor(n / 2.0)
    shift = 0.0 if sgd.continuous else 1.0  # steps act at their start, and last one step

    def at(values: Array, k: Array) -> Array:
        """Linear interpolation of knot values at step k of each block, shape (n, 1)."""
        return (values[:-1] + (values[1:] - values[:-1]) * (k / n))[:, None]

    def rate(k: Array) -> Array:
        return sgd._rate(at(eta, k) * lam, at(eta_noise, k) * lam)

    def decay(count: Array) -> Array:
        """Decay exponent of the first ``count`` steps: two-point discrete Gauss rule."""
        spread = jnp.sqrt(jnp.maximum(count**2 - shift, 0.0) / 12.0)
        middle = (count - shift) / 2.0
        return 0.5 * count[:, None] * (rate(middle - spread) + rate(middle + spread))

    def stationary(k: Array) -> Array:
        """s/(1-r) per unit of loss at step k; the rate is divided out, so that 0 is harmless."""
        drift, noise = at(eta, k), at(eta_noise, k)
        ratio = noise**2 / jnp.where(drift > 0.0, drift, 1.0)
        m = sgd.batch_size
        return nu * ratio / (m * lam * (2.0 - (1.0 + 1.0 / m) * lam * ratio))

    kappa, kappa_half = decay(n), decay(half)
    safe = jnp.where(kappa == 0.0, 1.0, kappa)
    # The loss is known at the starts of steps 0, half and n; a step sits at the centre of its own
    # part of the clock.
    places = (jnp.zeros_like(n), half, n)
    spent = (jnp.zeros_like(kappa), kappa_half, kappa)
    y = [(done + shift * rate(k) / 2.0) / safe - 0.5
         for k, done in zip(places, spent, strict=True)]
    single = ((n == 1.0) & (not sgd.continuous))[:, None]
    flat = single | (kappa == 0.0)
    y = [jnp.where(flat, i - 1.0, value) for i, value in enumerate(y)]
    lagrange = []  # coefficients in powers of u - 1/2, times the stationary value
    for i, (j, k) in enumerate(((1, 2), (0, 2), (0, 1))):
        scale = 1.0 / ((y[i] - y[j]) * (y[i] - y[k]))
        first = jnp.where(single, 1.0 if i == 0 else 0.0, y[j] * y[k] * scale)
        value = stationary(places[i])
        lagrange.append((value * first, -value * (y[j] + y[k]) * scale, value * scale))

    def weights(exponent: Array, count: Array) -> Array:
        """Weights of the three losses on the state after the first ``count`` steps."""
        j0, j1, j2 = _exp_moments(exponent)
        part = exponent / safe
        offset = (part - 1.0) / 2.0
        # Exact second moments for a sum over whole steps instead of an integral.
        discrete = (1.0 - shift / jnp.maximum(count, 1.0) ** 2)[:, None]
        rows = [
            exponent * ((c0 + c1 * offset + c2 * offset**2) * j0
                        + part * (c1 + 2.0 * c2 * offset) * discrete * j1
                        + part**2 * c2 * discrete * j2)
            for c0, c1, c2 in lagrange
        ]
        return jnp.stack(rows, axis=1)

    has_half = real & (half > 0)[:, None]
    phi = jnp.where(real, jnp.exp(-kappa), 1.0)
    half_phi = jnp.where(has_half, jnp.exp(-kappa_half), 1.0)
    w = jnp.where(real[:, None], weights(kappa, n), 0.0)
    half_w = jnp.where(has_half[:, None], weights(kappa_half, half), 0.0)
    return BlockMaps(half_phi[..., None, None], half_w[..., None], phi[..., None, None],
                     w[..., None])
