"""The map of a block of plain SGD in JAX, which differentiates it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from optsched.model.sgd.block import Moments, exp_moments, moment_slopes, sgd_block
from optsched.model.spectrum import Modes

__all__ = ["traced_maps"]


@jax.custom_jvp
def _moments(kappa: Array) -> Moments:
    """`exp_moments`, without the last of them."""
    return *exp_moments(kappa, jnp)[:3], None


@_moments.defjvp
def _moments_jvp(primals: tuple[Array], tangents: tuple[Array]) -> tuple[Moments, Moments]:
    """The derivative of a moment is minus the next moment: nothing of the series is kept."""
    moments = exp_moments(primals[0], jnp)
    slopes = moment_slopes(moments)
    return (*moments[:3], None), (*(slope * tangents[0] for slope in slopes), None)  # type: ignore[return-value]


def traced_maps(
    length: Array,
    ends: tuple[Any, Any, Any, Any],
    modes: Modes,
    batch_size: Array | float,
    continuous: bool,
) -> tuple[Array, Array, Array, Array]:
    """Maps of all blocks: scalars of a mode and block, which the compiler fuses.

    Parameters
    ----------
    length : Array, shape (n,)
        Steps of the blocks.
    ends : tuple of dict of Array, shape (n,)
        Controls at their first step and at the step after their last, as drift and then as
        diffusion see them.
    modes : Modes
    batch_size : float
        Where it is not among the controls.
    continuous : bool
        Integrate the ODE.

    Returns
    -------
    half_phi, half_w, phi, w : Array
        Shapes (n, J), (n, 3, J), (n, J), (n, 3, J).
    """

    def one(*arguments: Any) -> tuple[Any, ...]:
        return sgd_block(
            *arguments,
            batch_size=batch_size,
            continuous=continuous,
            xp=jnp,
            moments=lambda half, whole: (_moments(half), _moments(whole)),
        )[:4]

    every_mode = jax.vmap(one, (None,) * 5 + (0, 0))
    every_block = jax.vmap(every_mode, (0,) * 5 + (None, None))
    lam, nu = jnp.asarray(modes.lam), jnp.asarray(modes.nu)
    half_phi, half_w, phi, w = every_block(length, *ends, lam, nu)
    return half_phi, jnp.stack(half_w, 1), phi, jnp.stack(w, 1)
