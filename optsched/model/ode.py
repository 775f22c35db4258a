r"""The continuous limit: the ODE of bias and variance modes, and its solution along a schedule.

.. math:: \dot B_k = -\rho_k B_k, \qquad
   \dot V_k = -\rho_k V_k + (\eta^2/m)\, L, \qquad
   L = \sigma^2 + \sum_k \mu_k B_k + \sum_k \nu_k V_k,

with rate :math:`\rho_k = 2 \eta \lambda_k - \eta^2 (1 + 1/m) \lambda_k^2`; the small-rate limit of
the literature drops the second term.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from optsched.model.dynamics import SGDDynamics
from optsched.model.grading import Replayable
from optsched.model.sgd.curves import block_curves
from optsched.model.spectrum import Modes

if TYPE_CHECKING:
    from jax import Array

__all__ = ["BiasVariance", "bias_variance_rhs", "initial_bias_variance", "ode_excess_loss"]


class BiasVariance(NamedTuple):
    """Bias modes B and variance modes V, each of shape (J,)."""

    bias: Array
    variance: Array


def initial_bias_variance(modes: Modes) -> BiasVariance:
    """B = 1, V = 0."""
    import jax.numpy as jnp

    ones = jnp.ones_like(jnp.asarray(modes.lam))
    return BiasVariance(ones, jnp.zeros_like(ones))


def bias_variance_rhs(
    state: BiasVariance,
    eta: Array | float,
    modes: Modes,
    sgd: SGDDynamics,
    *,
    small_rate: bool = False,
) -> BiasVariance:
    """Time derivative of the bias and variance modes.

    Parameters
    ----------
    state : BiasVariance
    eta : float
        Learning rate now.
    modes : Modes
    sgd : SGD
        Batch size and label noise.
    small_rate : bool
        Drop the second-order term of the decay rate.

    Returns
    -------
    BiasVariance
        Per step.
    """
    lam: Any = modes.lam
    rate = 2.0 * eta * lam
    if not small_rate:
        rate = rate - (1.0 + 1.0 / sgd.batch_size) * (eta * lam) ** 2
    loss = sgd.sigma2 + (modes.mu * state.bias).sum() + (modes.nu * state.variance).sum()
    return BiasVariance(-rate * state.bias, -rate * state.variance + eta**2 / sgd.batch_size * loss)


def ode_excess_loss(modes: Modes, sgd: SGDDynamics, schedule: Replayable) -> float:
    """Final excess loss of the ODE along a schedule.

    The rate is continuous and piecewise linear through the middle of every knot's step, so that
    its integral is the sum over the steps.

    Parameters
    ----------
    modes : Modes
        Quadrature nodes, accurate up to the schedule's intrinsic time.
    sgd : SGD
    schedule : Schedule
        With its knots graded as a solution's are; between knots the loss is a quadratic.

    Returns
    -------
    float
    """
    centre = np.asarray(schedule.steps, float) + 0.5
    edges = np.concatenate([[0.0], centre, [float(schedule.horizon)]])
    if len(edges) <= 32:  # at the shortest horizons the loss moves a lot within a step
        edges = np.unique(np.concatenate([edges, 0.5 * (edges[:-1] + edges[1:])]))
    knots = {name: np.interp(edges, centre, v) for name, v in schedule.controls.items()}
    flow = SGDDynamics(sgd.batch_size, sgd.sigma2, continuous=True)
    with np.errstate(all="ignore"):  # it may diverge, or underflow
        return float(block_curves(flow, modes, np.diff(edges), knots)[0][-1])
