r"""AdamW on scale-invariant weights: the norm it settles at, and how long that takes.

Where a loss does not change with the length of a weight matrix, gradients are orthogonal to it:
steps of size eta lengthen it, decay of eta * lambda shortens it, and it settles. With updates
u = m/sqrt(v) of unit mean square and momentum beta, over d weights, w is the sum of past gradients
through two first-order filters, with poles p = 1 - eta lambda and beta, whose variance is

.. math:: \frac{\|w\|^2}{d} = \eta^2
    \frac{(1-\beta)(1 + p\beta)}{(1 - p\beta)(1 - p^2)(1+\beta)}
    \to \frac{\eta}{2\lambda} \quad (\eta\lambda \ll 1 - \beta).

The relative update is then sqrt(2 eta lambda) and the time constant 1/(eta lambda): all that
the loss can see is the effective rate gamma = eta lambda (Li et al., arXiv 2509.25049, find it for
language models; the equilibrium: van Laarhoven, arXiv 1706.05350, here for AdamW with momentum).
"""

from __future__ import annotations

import math

from optsched.checks import decay, positive
from optsched.errors import InvalidProblem

__all__ = ["decay_time", "equilibrium_square", "relative_update"]


def _kept(lr: float, weight_decay: float) -> float:
    rate = positive("lr", lr) * positive("weight_decay", weight_decay)
    if rate >= 1.0:
        raise InvalidProblem("weight_decay", weight_decay, f"below {1.0 / lr:.6g}, 1 / lr")
    return 1.0 - rate


def equilibrium_square(lr: float, weight_decay: float, beta1: float = 0.9) -> float:
    """Mean square of a weight in equilibrium.

    Parameters
    ----------
    lr, weight_decay : float
        Both > 0, their product below 1; decoupled decay, ``w -= lr * weight_decay * w``.
    beta1 : float
        Momentum, in [0, 1).

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.

    Notes
    -----
    For gradients that are independent from step to step with v constant (beta2 near 1): where steps
    turn the weights fast, gradients are not independent, and the norm was smaller than this: by
    about a half at ``lr * weight_decay`` = 0.002 in `benchmarks/invariance.py`.
    """
    p, beta = _kept(lr, weight_decay), decay("beta1", beta1)
    gain = (1.0 - beta) * (1.0 + p * beta) / ((1.0 - p * beta) * (1.0 - p * p) * (1.0 + beta))
    return lr**2 * gain


def relative_update(lr: float, weight_decay: float, beta1: float = 0.9) -> float:
    """Size of a step of unit mean square over that of the weights: ``sqrt(2 lr weight_decay)``."""
    return lr / math.sqrt(equilibrium_square(lr, weight_decay, beta1))


def decay_time(lr: float, weight_decay: float) -> float:
    """Steps in which what weights remember falls by e: 1 / (lr * weight_decay) to first order."""
    return -1.0 / math.log(_kept(lr, weight_decay))
