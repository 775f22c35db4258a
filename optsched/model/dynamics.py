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
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from optsched.model.sgd.block import fall
from optsched.model.spectrum import Modes

if TYPE_CHECKING:
    from jax import Array

    from optsched.model.unrolled import Matrix, Vector

__all__ = ["SGDDynamics", "BlockMaps", "Blocks", "Controls", "Dynamics", "knot_blocks", "timed"]

Controls = dict[str, Any]  # arrays of NumPy or JAX


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


def timed(dynamics: Dynamics, knots: Controls, steps: Any) -> Controls:
    """Controls at knots, with the numbers of steps done there if the dynamics takes them."""
    return {**knots, "step": steps} if "step" in dynamics.takes else knots


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
    """One optimiser on the modes of a spectrum. Subclasses are JAX pytrees.

    This module does without JAX, so that plain SGD can: it is a pytree once
    `optsched.model.propagate` is imported.
    """

    sigma2: Array | float
    # Controls that the step takes; with "step" also the number of steps that were done before it.
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

    def switches(self, horizon: int) -> Sequence[int]:
        """Numbers of steps done at which its rule changes, for one that takes ``step``.

        Between two of them what it gives is smooth in ``step``; blocks end at each, and so a
        period, or a part that begins at some step, is exact. A step of another kind, which comes
        after k steps, is between the switches k and k + 1.
        """
        return ()

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
        import jax.numpy as jnp

        from optsched.model.unrolled import dense

        change, source = self.change(modes, controls)
        lam = jnp.asarray(modes.lam)
        return jnp.eye(len(source)) + dense(change, lam), dense([source], lam)[..., 0, :]

    @abc.abstractmethod
    def blocks(self, modes: Modes, blocks: Blocks, noise: Blocks) -> BlockMaps:
        """Maps of all blocks; ``noise`` has the controls as the diffusion terms see them.

        Passing the same blocks twice gives the dynamics; the derivatives with respect to the two
        arguments are what the maximum principle balances.
        """


@dataclass(frozen=True)
class SGDDynamics(Dynamics):
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
    continuous: bool = False

    def initial(self, modes: Modes) -> Array:
        return modes.mu[:, None]  # type: ignore[return-value]

    def readout(self, modes: Modes) -> Array:
        return (modes.lam * 0.0 + 1.0)[:, None]  # type: ignore[return-value]

    def change(self, modes: Modes, controls: Controls) -> tuple[Matrix, Vector]:
        eta, m = controls["eta"], controls.get("batch_size", self.batch_size)
        x = eta * modes.lam
        return [[-fall(x, x, m)]], [(eta**2 / m) * modes.nu]

    def blocks(self, modes: Modes, blocks: Blocks, noise: Blocks) -> BlockMaps:
        """Maps of all blocks, in JAX: one mode and block a time, which the compiler fuses."""
        from optsched.model.sgd.traced import traced_maps

        ends = blocks.first, blocks.last, noise.first, noise.last
        half_phi, half_w, phi, w = traced_maps(
            blocks.length, ends, modes, self.batch_size, self.continuous
        )
        return BlockMaps(
            half_phi[..., None, None], half_w[..., None], phi[..., None, None], w[..., None]
        )
