r"""Convergence bound of LMO methods, and what it says about rate, momentum and batch size.

Methods that step by a linear minimisation oracle over a norm ball with momentum (normalised SGD,
signSGD as a stand-in for Adam, Muon) obey

.. math:: \min_k E\|\nabla f(x_k)\|_* \le \frac{\Delta}{\eta K}
   + \frac{2\rho\sigma}{\alpha K\sqrt B} + \frac{2\sqrt\alpha\,\rho\sigma}{\sqrt B}
   + \frac{3 L\eta}{2} + \frac{2 L\eta}{\alpha},

with :math:`\alpha` = 1 - momentum, K steps of batch B, :math:`T = BK` tokens (Kovalev, arXiv
2503.12645, Theorem 2; with the batch, Shulgin et al., arXiv 2603.15958). Every term is a product of
powers, so the bound is convex in logarithms: it has one minimum, and a Newton method finds it.

What it leaves out: schedules (the rate is constant), warm-up, weight decay, and any noise that is
not of bounded variance. It is an upper bound; its exponents are of use, not its values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from optsched.arrays import Floats
from optsched.checks import at_least, decay, positive
from optsched.errors import InvalidProblem

__all__ = ["BUDGETS", "EXPONENTS", "REGIMES", "Exponents", "LMOBound", "check_regime"]


REGIMES = ("fixed-momentum", "fixed-batch", "joint")
BUDGETS = ("tokens", "steps")


class Exponents(NamedTuple):
    """Powers of the budget that the tuned values and the bound go with."""

    lr: Fraction
    alpha: Fraction
    batch: Fraction
    bound: Fraction


def _exponents(*fractions: str) -> Exponents:
    return Exponents(*map(Fraction, fractions))


# In steps, "joint" follows the runs that are best for their tokens, by how many steps they have:
# at given steps the bound falls with every increase of the batch, and has no minimum.
EXPONENTS = {
    ("fixed-momentum", "tokens"): _exponents("-1/4", "0", "1/2", "-1/4"),
    ("fixed-momentum", "steps"): _exponents("-1/2", "0", "0", "0"),
    ("fixed-batch", "tokens"): _exponents("-3/4", "-1/2", "0", "-1/4"),
    ("fixed-batch", "steps"): _exponents("-3/4", "-1/2", "0", "-1/4"),
    ("joint", "tokens"): _exponents("-7/12", "-1/3", "1/6", "-1/4"),
    ("joint", "steps"): _exponents("-7/10", "-2/5", "1/5", "-3/10"),
}


def check_regime(regime: Any, budget: Any = "tokens") -> tuple[str, str]:
    """Regime and budget, if they are known."""
    if regime not in REGIMES:
        raise InvalidProblem("regime", regime, "one of " + ", ".join(REGIMES))
    if budget not in BUDGETS:
        raise InvalidProblem("budget", budget, "one of " + ", ".join(BUDGETS))
    return regime, budget


@dataclass(frozen=True)
class LMOBound:
    r"""The bound of a problem.

    Parameters
    ----------
    gap : float
        :math:`\Delta`, loss of the start above the infimum.
    smoothness : float
        L, with respect to the norm of the method.
    noise : float
        :math:`\rho\sigma`: standard deviation of the gradient of one sample, times the constant
        :math:`\rho` of :math:`\|x\|_* \le \rho\|x\|_2`.

    Raises
    ------
    InvalidProblem
        A constant is not a finite number > 0.
    """

    gap: float = 1.0
    smoothness: float = 1.0
    noise: float = 1.0

    def __post_init__(self) -> None:
        for field in ("gap", "smoothness", "noise"):
            object.__setattr__(self, field, positive(field, getattr(self, field)))

    @classmethod
    def from_tuned(cls, lr: float, momentum: float, batch: float, tokens: float) -> LMOBound:
        r"""The problem of which a run is a leading-order optimum, in units in which L = 1.

        With :math:`r = \alpha/B` and :math:`e = \eta/B` the valley of `closed_form` has
        :math:`r = \sqrt{2L\Delta/T}/(\rho\sigma)` and :math:`e = \sqrt{\Delta r/(2LT)}`; solved for
        :math:`\Delta` and :math:`\rho\sigma`.
        """
        batch, tokens = positive("batch", batch), positive("tokens", tokens)
        r = (1.0 - decay("momentum", momentum)) / batch
        gap = 2.0 * tokens * (positive("lr", lr) / batch) ** 2 / r
        return cls(gap, 1.0, math.sqrt(2.0 * gap / tokens) / r)

    def terms(self, lr: ArrayLike, alpha: ArrayLike, batch: ArrayLike, steps: ArrayLike) -> Floats:
        r"""The five terms of the bound, shape (5, ...).

        Start, start of the momentum (:math:`m_0` is the first gradient), noise that the momentum
        keeps, curvature, lag of the momentum.
        """
        eta, a, b, k = (np.asarray(x, float) for x in (lr, alpha, batch, steps))
        spread = self.noise / np.sqrt(b)
        curved = self.smoothness * eta
        terms = (
            self.gap / (eta * k),
            2.0 * spread / (a * k),
            2.0 * np.sqrt(a) * spread,
            1.5 * curved,
            2.0 * curved / a,
        )
        return np.stack(np.broadcast_arrays(*terms))

    def __call__(
        self, lr: ArrayLike, alpha: ArrayLike, batch: ArrayLike, steps: ArrayLike
    ) -> Floats:
        """The bound: the sum of its `terms`."""
        return self.terms(lr, alpha, batch, steps).sum(0)

    def best_lr(self, alpha: ArrayLike, batch: ArrayLike, tokens: ArrayLike) -> Floats:
        r"""Rate that minimises the bound, :math:`\sqrt{\Delta B/(cLT)}`, c = 3/2 + 2/alpha."""
        c = 1.5 + 2.0 / np.asarray(alpha, float)
        steps = np.asarray(tokens, float) / np.asarray(batch, float)
        return np.sqrt(self.gap / (c * self.smoothness * steps))

    def limit(self, steps: float) -> float:
        r"""What the bound falls to as the batch grows: :math:`2\sqrt{7L\Delta/(2K)}`, no momentum.

        At a given number of steps a larger batch is always better, with ever less to gain.
        """
        return 2.0 * math.sqrt(3.5 * self.smoothness * self.gap / at_least("steps", steps, 1.0))
