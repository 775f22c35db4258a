r"""The flat valley of the LMO bound, and its exponents fitted to numerical minima.

At given tokens only :math:`\alpha/B` and :math:`\eta/B` matter to leading order, so batch size and
momentum trade against each other along :math:`\alpha \propto B` at almost no cost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from optsched.arrays import Brief, Floats
from optsched.checks import positive
from optsched.errors import InvalidProblem
from optsched.exponents import ExponentFit, fit_exponent
from optsched.rules.lmo.bound import LMOBound
from optsched.rules.lmo.tuned import minimise

__all__ = ["Valley", "fitted_exponents", "valley"]


@dataclass(frozen=True, eq=False, repr=False)
class Valley(Brief):
    """Best rate and momentum for each batch size at a number of tokens.

    Attributes
    ----------
    problem : LMOBound
    tokens : float
    batch, lr, alpha, bound : numpy.ndarray, shape (n,)
    best : float
        Bound of the joint optimum.
    """

    problem: LMOBound
    tokens: float
    batch: Floats
    lr: Floats
    alpha: Floats
    bound: Floats
    best: float

    @property
    def loss(self) -> Floats:
        """What the batch size costs: the bound over that of the joint optimum, minus 1."""
        return self.bound / self.best - 1.0

    def within(self, cost: float) -> tuple[float, float]:
        """Smallest and largest of the batch sizes that cost at most so much."""
        good = self.batch[self.loss <= positive("cost", cost)]
        if not good.size:
            allowed = f"at least {self.loss.min():.3g}, the least among these batch sizes"
            raise InvalidProblem("cost", cost, allowed)
        return float(good.min()), float(good.max())


def valley(problem: LMOBound, tokens: float, batches: ArrayLike) -> Valley:
    """Best rate and momentum for each batch size, numerically.

    Parameters
    ----------
    problem : LMOBound
    tokens : float
    batches : array_like, shape (n,)
        Positive.

    Raises
    ------
    InvalidProblem
        A batch or the tokens are out of range.
    """
    found = [
        minimise(problem, "fixed-batch", tokens=tokens, batch=float(b))
        for b in np.atleast_1d(np.asarray(batches, float))
    ]
    best = minimise(problem, "joint", tokens=tokens)
    columns = {
        n: np.array([getattr(t, n) for t in found]) for n in ("batch", "lr", "alpha", "bound")
    }
    return Valley(problem, float(tokens), **columns, best=best.bound)


def fitted_exponents(
    problem: LMOBound, regime: str, budgets: ArrayLike, *, budget: str = "tokens", **held: Any
) -> dict[str, ExponentFit]:
    """Exponents of numerical minima along budgets, with their errors.

    Parameters
    ----------
    problem : LMOBound
    regime, budget : str
        As in `optsched.rules.lmo.tuned.minimise`.
    budgets : array_like, shape (n,)
        Increasing.
    **held
        ``momentum`` or ``batch``, what the regime holds.

    Returns
    -------
    dict of str to ExponentFit
        ``lr``, ``alpha``, ``batch`` and ``bound``; an `ExponentFit` counts falling as positive.
    """
    amounts = np.atleast_1d(np.asarray(budgets, float))
    found = [minimise(problem, regime, **{budget: x}, **held) for x in amounts.tolist()]
    return {
        name: fit_exponent(amounts, [getattr(tuned, name) for tuned in found])
        for name in ("lr", "alpha", "batch", "bound")
    }
