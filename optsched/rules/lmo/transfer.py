"""Carry rate, momentum and batch size that were tuned at one budget to another.

The rules are the exponents of `optsched.rules.lmo.bound.EXPONENTS`; constants cancel. They hold
where the start is tuned in the same regime, and as far as the terms that they neglect are small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from optsched.arrays import Brief
from optsched.checks import at_least, decay, positive
from optsched.errors import InvalidProblem
from optsched.rules.lmo.bound import EXPONENTS, check_regime

__all__ = ["Transfer", "transfer"]

SMALL = 0.1  # share of a neglected term beside the one it is compared with
FAR = 1000.0


@dataclass(frozen=True, eq=False, repr=False)
class Transfer(Brief):
    """Values carried to another budget.

    Attributes
    ----------
    lr, momentum, alpha : float
        ``alpha`` is 1 - momentum, with all its digits.
    batch : float or None
        A real number: round it, and see `optsched.schedules.batches.divisors`. None if not given.
    regime, budget : str
    start, end : float
        The two budgets, in tokens or steps as ``budget`` says.
    exponents : dict of str to float
        Powers of ``end / start`` that were applied, and that of the bound.
    warnings : tuple of str
        Where the rule is stretched.
    """

    lr: float
    alpha: float
    batch: float | None
    regime: str
    budget: str
    start: float
    end: float
    exponents: dict[str, float]
    warnings: tuple[str, ...]

    @property
    def momentum(self) -> float:
        """One minus alpha."""
        return 1.0 - self.alpha

    @property
    def steps(self) -> float | None:
        """Steps of the new run; None where they need a batch that is not given."""
        return _steps(self.budget, self.end, self.batch)

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict."""
        names = ("lr", "momentum", "batch", "regime", "budget", "start", "end", "alpha", "steps")
        values = {name: getattr(self, name) for name in names}
        return values | {"exponents": dict(self.exponents), "warnings": list(self.warnings)}


def transfer(
    lr: float,
    momentum: float,
    batch: float | None = None,
    *,
    regime: str,
    from_tokens: float | None = None,
    to_tokens: float | None = None,
    from_steps: float | None = None,
    to_steps: float | None = None,
) -> Transfer:
    r"""Values for another budget, of R times the tokens or steps.

    Parameters
    ----------
    lr, momentum : float
        Tuned at the first budget, in the regime that is named.
    batch : float, optional
        Needed where the regime changes it.
    regime : str
        ================  ===================================  ====================================
        regime            R in tokens                          R in steps
        ================  ===================================  ====================================
        fixed-momentum    lr R^-1/4, batch R^1/2               lr R^-1/2, batch held
        fixed-batch       lr R^-3/4, alpha R^-1/2              the same
        joint             lr R^-7/12, alpha R^-1/3, B R^1/6    lr R^-7/10, alpha R^-2/5, B R^1/5
        ================  ===================================  ====================================

        ``joint`` in steps follows the runs that are best for their tokens.
    from_tokens, to_tokens, from_steps, to_steps : float
        Both of one kind, >= 1. Tokens and batch must be in the same unit for ``steps`` and the
        warnings to mean something; the values themselves only need the ratio.

    Returns
    -------
    Transfer

    Raises
    ------
    InvalidProblem
        Values missing or out of range; a shorter budget at which alpha would exceed 1, the batch
        fall below 1, or less than one step be left.

    Notes
    -----
    Shulgin et al., arXiv 2603.15958: Theorem 2 (fixed batch) and Theorem 3 (joint), on the bound of
    Kovalev, arXiv 2503.12645, Theorem 2.

    Examples
    --------
    >>> moved = transfer(1e-3, 0.95, 64, regime="joint", from_tokens=1e9, to_tokens=4e9)
    >>> print(f"{moved.lr:.4g} {moved.momentum:.4f} {moved.batch:.1f}")
    0.0004454 0.9685 80.6
    """
    budget, start, end = _budgets(from_tokens, to_tokens, from_steps, to_steps)
    check_regime(regime, budget)
    powers = EXPONENTS[regime, budget]
    alpha = 1.0 - decay("momentum", momentum)
    if batch is not None:
        batch = at_least("batch", batch, 1.0)
    elif powers.batch:
        raise InvalidProblem("batch", None, f"a value, as {regime} with {budget} changes it")
    log_ratio = math.log(end / start)
    new_alpha = alpha * math.exp(powers.alpha * log_ratio)
    new_batch = None if batch is None else batch * math.exp(powers.batch * log_ratio)
    _check_end(budget, end, new_alpha, new_batch, start * alpha ** (-1.0 / (powers.alpha or -1)))
    return Transfer(
        lr=positive("lr", lr) * math.exp(powers.lr * log_ratio),
        alpha=new_alpha,
        batch=new_batch,
        regime=regime,
        budget=budget,
        start=start,
        end=end,
        exponents={name: float(power) for name, power in powers._asdict().items()},
        warnings=_warnings(
            regime,
            ((alpha, _steps(budget, start, batch)), (new_alpha, _steps(budget, end, new_batch))),
            end / start,
        ),
    )


def _budgets(
    from_tokens: Any, to_tokens: Any, from_steps: Any, to_steps: Any
) -> tuple[str, float, float]:
    """Name of the budget, and its two amounts."""
    tokens, steps = (from_tokens, to_tokens), (from_steps, to_steps)
    if (tokens == (None, None)) == (steps == (None, None)):
        raise InvalidProblem("from_tokens", from_tokens, "two budgets, both in tokens or in steps")
    budget, pair = ("tokens", tokens) if steps == (None, None) else ("steps", steps)
    start, end = (
        at_least(f"{side}_{budget}", amount, 1.0)
        for side, amount in zip(("from", "to"), pair, strict=True)
    )
    return budget, start, end


def _steps(budget: str, amount: float, batch: float | None) -> float | None:
    if budget == "steps":
        return amount
    return None if batch is None else amount / batch


def _check_end(budget: str, end: float, alpha: float, batch: float | None, least: float) -> None:
    """Refuse where the rule has left the range of what it sets."""
    field = f"to_{budget}"
    if alpha > 1.0:
        allowed = f"at least {least:.4g}: at {end:.4g} alpha = 1 - momentum would be {alpha:.4g}"
        raise InvalidProblem(field, end, allowed)
    if batch is not None and batch < 1.0:
        raise InvalidProblem(field, end, f"more: the batch would be {batch:.4g}, below 1")
    steps = _steps(budget, end, batch)
    if steps is not None and steps < 1.0:
        raise InvalidProblem(field, end, f"at least the batch, {batch:.4g}: one step")


def _warnings(
    regime: str, ends: tuple[tuple[float, float | None], ...], ratio: float
) -> tuple[str, ...]:
    """What the rule neglects, where it is not small; it depends on alpha and steps alone."""
    told = []
    if regime != "fixed-momentum":
        # Beside the terms 2 L eta / alpha and 2 sqrt(alpha) rho sigma / sqrt(B).
        curved = max(0.75 * alpha for alpha, _ in ends)
        if curved > SMALL:
            told.append(
                f"alpha = 1 - momentum is {curved / 0.75:.3g} at one end: a neglected term,"
                f" 3 L lr / 2, is {100 * curved:.0f} % of the one beside it"
            )
        starts = [alpha**-1.5 / steps for alpha, steps in ends if steps is not None]
        if starts and max(starts) > SMALL:
            told.append(
                f"few steps for so long a momentum: a neglected term, its start, is"
                f" {100 * max(starts):.0f} % of the one beside it"
            )
    if not 1.0 / FAR <= ratio <= FAR:
        told.append(f"carried over a factor of {ratio:.3g}: check at a budget in between")
    return tuple(told)
