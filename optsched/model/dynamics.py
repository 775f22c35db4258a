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
import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from optsched.model.spectrum import Modes
from optsched.model.unrolled import Matrix, Vector, dense

__all__ = ["SGD", "BlockMaps", "Blocks", "Controls", "Dynamics", "knot_blocks"]

Controls = dict[str, Array]


class Blocks(NamedTuple):
    """Blocks of steps along which every control moves linearly.

    Attributes
    ----------
    length : Array, shape (n,)
        Number of steps; blocks of 0 steps are padding.
    first, last : dict of Array, shape (n,)
        Controls at the first step of a block, and at the step after its last.
    """

    length: Array
    first: Controls
    last: Controls


def knot_blocks(count: Array, knots: Controls) -> Blocks:
    """Blocks between n + 1 knots, at which the controls are continuous."""
    first = {name: value[:-1] for name, value in knots.items()}
    return Blocks(count, first, {name: value[1:] for name, value in knots.items()})


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
    # Controls that the step takes.
    takes: ClassVar[tuple[str, ...]] = ("eta", "batch_size")
    # Feedback of a block's noise on itself from which its quadratic loss is not believed.
    max_gain: ClassVar[float] = math.inf

    @abc.abstractmethod
    def initial(self, modes: Modes) -> Array:
        """State at step 0, shape (J, d)."""

    @abc.abstractmethod
    def readout(self, modes: Modes) -> Array:
        """Weights r with ``excess = sum(r * x)``, shape (J, d)."""

    def feedback(self, modes: Modes) -> Array:
        """Weights of the excess loss that the gradient noise sees, if it is another one."""
        return self.readout(modes)

    def for_blocks(self, lengths: NDArray[np.float64]) -> Dynamics:
        """The same dynamics, fit for blocks of so many steps."""
        return self

    @abc.abstractmethod
    def change(self, modes: Modes, controls: Controls) -> tuple[Matrix, Vector]:
        """Change ``x' - x = C x + s L`` of one step at scalar controls.

        Entries of the d x d matrix C and of the source s have shape (J,); None is zero. It is
        also the generator of the ODE whose Euler scheme with unit steps is the recursion.
        """

    def step(self, modes: Modes, controls: Controls) -> tuple[Array, Array]:
        """Matrix (J, d, d) and source (J, d) of one step at scalar controls."""
        change, source = self.change(modes, controls)
        lam = jnp.asarray(modes.lam)
        return jnp.eye(len(source)) + dense(change, lam), dense([source], lam)[..., 0, :]

    @abc.abstractmethod
    def blocks(self, modes: Modes, blocks: Blocks, noise: Blocks) -> BlockMaps:
        """Maps of all blocks; ``noise`` has the controls as the diffusion terms see them.

        Passing the same blocks twice gives the dynamics; the derivatives with respect to the two
        arguments are what the maximum principle balances.
        """


def _four_moments(kappa: Array) -> tuple[Array, Array, Array, Array]:
    r"""Moments :math:`\int_0^1 v^p e^{-\kappa v} dv` for p = 0..3."""
    small = jnp.abs(kappa) < 1.0
    q = jnp.exp(-kappa)
    # Small exponents: a series for p = 3, the others by the recurrence that is stable downwards.
    y = jnp.where(small, -kappa, 0.0)
    s3 = jnp.full_like(y, 1.0 / 17.0)
    for m in range(12, -1, -1):
        s3 = 1.0 / (m + 4.0) + s3 * y / (m + 1.0)
    s2 = (q - y * s3) / 3.0
    s1 = (q - y * s2) / 2.0
    s0 = q - y * s1
    # Large ones: the same recurrence upwards.
    x = jnp.where(small, 1.0, kappa)
    c0 = (1.0 - q) / x
    c1 = (c0 - q) / x
    c2 = (2.0 * c1 - q) / x
    c3 = (3.0 * c2 - q) / x
    pairs = ((s0, c0), (s1, c1), (s2, c2), (s3, c3))
    i0, i1, i2, i3 = (jnp.where(small, s, c) for s, c in pairs)
    return i0, i1, i2, i3


@jax.custom_jvp
def _exp_moments(kappa: Array) -> tuple[Array, Array, Array]:
    r"""Moments :math:`\int_0^1 (u - 1/2)^p e^{-\kappa (1-u)} du` for p = 0, 1, 2."""
    i0, i1, i2, _ = _four_moments(kappa)
    return i0, 0.5 * i0 - i1, 0.25 * i0 - i1 + i2


@_exp_moments.defjvp
def _exp_moments_jvp(
    primals: tuple[Array], tangents: tuple[Array]
) -> tuple[tuple[Array, Array, Array], tuple[Array, Array, Array]]:
    """The derivative of a moment is minus the next moment: nothing of the series is kept."""
    i0, i1, i2, i3 = _four_moments(primals[0])
    d = tangents[0]
    value = i0, 0.5 * i0 - i1, 0.25 * i0 - i1 + i2
    return value, (-i1 * d, (i2 - 0.5 * i1) * d, (i2 - 0.25 * i1 - i3) * d)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["batch_size", "sigma2", "continuous"],
    meta_fields=[],
)
@dataclass(frozen=True)
class SGD(Dynamics):
    r"""Plain minibatch SGD on Gaussian features.

    Exact recursion (Bordelon & Pehlevan 2022; Bordelon & Mori, arXiv 2602.04774):

    .. math:: e_j \leftarrow [1 - 2\eta\lambda_j + \eta^2 (1 + 1/m) \lambda_j^2]\, e_j
              + (\eta^2/m)\, \nu_j L .

    Parameters
    ----------
    batch_size : float
        Minibatch size m, where it is not among the controls.
    sigma2 : float
        Variance of the label noise.
    continuous : bool
        If true, blocks integrate the ODE with rate
        :math:`2\eta\lambda - \eta^2 (1+1/m)\lambda^2` instead of the exact recursion.
    """

    batch_size: Array | float
    sigma2: Array | float
    continuous: Array | bool = False

    def initial(self, modes: Modes) -> Array:
        return jnp.asarray(modes.mu)[:, None]

    def readout(self, modes: Modes) -> Array:
        return jnp.ones_like(jnp.asarray(modes.lam))[:, None]

    def change(self, modes: Modes, controls: Controls) -> tuple[Matrix, Vector]:
        eta, m = controls["eta"], controls.get("batch_size", self.batch_size)
        x = eta * modes.lam
        return [[-_fall(x, x, m)]], [(eta**2 / m) * modes.nu]

    def blocks(self, modes: Modes, blocks: Blocks, noise: Blocks) -> BlockMaps:
        every_mode = jax.vmap(partial(_sgd_block, self), (None,) * 5 + (0, 0))
        every_block = jax.vmap(every_mode, (0,) * 5 + (None, None))
        ends = (blocks.first, blocks.last, noise.first, noise.last)
        lam, nu = jnp.asarray(modes.lam), jnp.asarray(modes.nu)
        half_phi, half_w, phi, w = every_block(blocks.length, *ends, lam, nu)
        return BlockMaps(
            half_phi[..., None, None],
            jnp.stack(half_w, 1)[..., None],
            phi[..., None, None],
            jnp.stack(w, 1)[..., None],
        )


def _fall(x: Array, x_noise: Array, m: Array | float) -> Array:
    """One minus the step factor, at x = eta * lam as drift and diffusion see it."""
    return 2.0 * x - (1.0 + 1.0 / m) * x_noise**2


def _sgd_block(
    sgd: SGD,
    count: Array,
    first: Controls,
    last: Controls,
    noise_first: Controls,
    noise_last: Controls,
    lam: Array,
    nu: Array,
) -> tuple[Array, tuple[Array, ...], Array, tuple[Array, ...]]:
    """Maps of one block on one mode, in scalars, so that the compiler fuses everything.

    Every mode has its own clock u, the share of its decay exponent kappa that is spent. A step
    with source s and factor r adds ``s/(1-r) kappa exp(-kappa (1-u)) du`` over its part of the
    clock, exactly; the stationary value s/(1-r) is smooth in u, and is interpolated.
    """
    flow = jnp.asarray(sgd.continuous)
    lam = jnp.where(lam > 0.0, lam, 1.0)  # padding carries no mass
    n = jnp.where(count > 0.0, count, 1.0)
    half = jnp.where(flow, n / 2.0, jnp.floor(n / 2.0))
    shift = jnp.where(flow, 0.0, 1.0)  # steps act at their start, and last one step

    def at(k: Array | float) -> tuple[Array, Array, Array | float]:
        """Rate as drift and as diffusion see it, and batch size, which only diffusion sees."""
        share = k / n
        drift = first["eta"] + (last["eta"] - first["eta"]) * share
        noise = noise_first["eta"] + (noise_last["eta"] - noise_first["eta"]) * share
        if "batch_size" not in first:
            return drift, noise, sgd.batch_size
        m0, m1 = noise_first["batch_size"], noise_last["batch_size"]
        return drift, noise, m0 + (m1 - m0) * share

    def rate(k: Array | float) -> Array:
        drift, noise, m = at(k)
        fall = _fall(drift * lam, noise * lam, m)
        return jnp.where(flow, fall, -jnp.log1p(jnp.where(flow, 0.0, -fall)))

    def decay(steps: Array) -> Array:
        """Decay exponent of the first steps, by the two-point discrete Gauss rule."""
        spread = jnp.sqrt(jnp.maximum(steps**2 - shift, 0.0) / 12.0)
        middle = (steps - shift) / 2.0
        return 0.5 * steps * (rate(middle - spread) + rate(middle + spread))

    def stationary(k: Array | float) -> Array:
        """s/(1-r) per unit of loss; the rate is divided out, so that a rate of 0 is harmless."""
        drift, noise, m = at(k)
        ratio = noise**2 / jnp.where(drift > 0.0, drift, 1.0)
        return nu * ratio / (m * lam * (2.0 - (1.0 + 1.0 / m) * lam * ratio))

    spent = decay(half), decay(n)
    total = jnp.where(spent[1] == 0.0, 1.0, spent[1])
    # The loss is known at the starts of steps 0, half and n; the source of a step sits at the
    # centre of the step's own part of the clock.
    places = 0.0, half, n
    done = jnp.zeros_like(total), *spent
    y = [(d + 0.5 * shift * rate(k)) / total - 0.5 for k, d in zip(places, done, strict=True)]
    single = (n == 1.0) & ~flow
    flat = single | (spent[1] == 0.0)
    y = [jnp.where(flat, i - 1.0, value) for i, value in enumerate(y)]
    lagrange = []  # through the three places, in powers of u - 1/2, times the stationary value
    for i, (j, k) in enumerate(((1, 2), (0, 2), (0, 1))):
        value = stationary(places[i])
        scale = value / ((y[i] - y[j]) * (y[i] - y[k]))
        constant = jnp.where(single, value if i == 0 else 0.0, y[j] * y[k] * scale)
        lagrange.append((constant, -(y[j] + y[k]) * scale, scale))

    def maps(exponent: Array, steps: Array) -> tuple[Array, tuple[Array, ...]]:
        """Decay factor, and weights of the three losses, of the first steps."""
        j0, j1, j2 = _exp_moments(exponent)
        part = exponent / total
        offset = (part - 1.0) / 2.0
        # Exact second moments for a sum over whole steps instead of an integral.
        discrete = part * (1.0 - shift / jnp.maximum(steps, 1.0) ** 2)
        real = (count > 0.0) & (steps > 0.0)
        weights = []
        for c0, c1, c2 in lagrange:
            level = (c0 + offset * (c1 + c2 * offset)) * j0
            moment = level + discrete * ((c1 + 2.0 * c2 * offset) * j1 + part * c2 * j2)
            weights.append(jnp.where(real, exponent * moment, 0.0))
        return jnp.where(real, jnp.exp(-exponent), 1.0), tuple(weights)

    half_phi, half_w = maps(spent[0], half)
    phi, w = maps(spent[1], n)
    return half_phi, half_w, phi, w
