"""Rate, momentum and batch size of LMO methods, tuned for a budget.

`closed_form` and `minimise` tune them on the bound of `optsched.rules.lmo.bound`, by formula and
by a Newton method on the bound itself; `transfer` carries tuned values from one budget to another.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy.optimize import minimize

from optsched.arrays import Floats
from optsched.checks import at_least, decay, positive
from optsched.errors import InvalidProblem, SolveFailed
from optsched.rules.lmo.bound import BUDGETS, EXPONENTS, REGIMES, LMOBound, check_regime
from optsched.rules.lmo.transfer import Transfer, transfer

__all__ = [
    "BUDGETS",
    "EXPONENTS",
    "REGIMES",
    "LMOBound",
    "Transfer",
    "Tuning",
    "closed_form",
    "minimise",
    "transfer",
]


GRADIENT_TOL = 1e-11  # of the logarithm of the bound


@dataclass(frozen=True)
class Tuning:
    """Values that minimise the bound in a regime.

    Attributes
    ----------
    regime, budget : str
        In `REGIMES` and `BUDGETS`.
    lr, momentum, alpha, batch : float
        ``alpha`` is 1 - momentum, kept as it has more digits.
    tokens, steps : float
    bound : float
        Of the closed form: its value where the form says it is.
    """

    regime: str
    budget: str
    lr: float
    alpha: float
    batch: float
    tokens: float
    bound: float

    @property
    def momentum(self) -> float:
        """One minus alpha."""
        return 1.0 - self.alpha

    @property
    def steps(self) -> float:
        """Tokens over batch."""
        return self.tokens / self.batch

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict."""
        names = ("regime", "budget", "lr", "momentum", "alpha", "batch", "tokens", "steps", "bound")
        return {name: getattr(self, name) for name in names}


def closed_form(
    problem: LMOBound,
    regime: str,
    *,
    tokens: float | None = None,
    steps: float | None = None,
    momentum: float | None = None,
    batch: float | None = None,
) -> Tuning:
    r"""Tuned values by formula, to leading order in a long budget.

    Parameters
    ----------
    problem : LMOBound
    regime : str
        ``fixed-momentum``: momentum is given, and the batch too if the budget is steps;
        :math:`B = \rho\sigma\sqrt\alpha / (\sqrt{cL\Delta/T} + \rho\sigma/(\alpha T))`,
        :math:`\eta = \sqrt{\Delta B/(cLT)}`, :math:`c = 3/2 + 2/\alpha`; exact.
        ``fixed-batch``: the batch is given; :math:`\alpha = rB`, :math:`\eta = eB`,
        :math:`r = \sqrt{2L\Delta/T}/(\rho\sigma)`, :math:`e = \sqrt{\Delta r/(2LT)}`, with a bound
        of :math:`4 (2L\Delta/T)^{1/4} \sqrt{\rho\sigma}` whatever the batch.
        ``joint``: the same, at the B that the next order
        :math:`2\rho\sigma/(rT\sqrt B) + \tfrac32 LeB` prefers,
        :math:`B = (2\rho\sigma/(3LerT))^{2/3}`.
    tokens, steps : float
        One of them. With steps, ``joint`` is the run best for its tokens that has so many steps.
    momentum, batch : float
        What the regime holds.

    Returns
    -------
    Tuning

    Raises
    ------
    InvalidProblem
        Values missing or out of range; a budget so short that the formula has alpha > 1 or, in
        ``joint``, a batch below one token.

    Notes
    -----
    Shulgin et al., arXiv 2603.15958 (Theorem 2: fixed batch, Theorem 3: joint); the constants were
    derived here, and `minimise` checks them.
    """
    budget, amount, held = _given(regime, tokens, steps, momentum, batch)
    if regime == "fixed-momentum":
        alpha, total = held["alpha"], amount
        if budget == "steps":
            size = held["batch"]
            total = amount * size
        else:
            root = math.sqrt((1.5 + 2.0 / alpha) * problem.smoothness * problem.gap / amount)
            size = problem.noise * math.sqrt(alpha) / (root + problem.noise / (alpha * amount))
        eta = float(problem.best_lr(alpha, size, total))
    elif regime == "joint":
        # Steps are tokens over batch, which goes as tokens to the power of 1/6.
        total = amount if budget == "tokens" else (amount * _joint_batch(problem, 1.0)) ** 1.2
        size = _joint_batch(problem, total)
        alpha, eta = (size * slope for slope in _slopes(problem, total))
    else:
        size = held["batch"]
        total = amount * (size if budget == "steps" else 1.0)
        alpha, eta = (size * slope for slope in _slopes(problem, total))
    if not (0.0 < alpha <= 1.0 and size >= (1.0 if regime == "joint" else 0.0)):
        allowed = f"a longer one: here the formula has alpha = {alpha:.4g}, batch = {size:.4g}"
        raise InvalidProblem(budget, amount, allowed)
    value = float(problem(eta, alpha, size, total / size))
    return Tuning(regime, budget, eta, alpha, size, total, value)


def _slopes(problem: LMOBound, tokens: float) -> tuple[float, float]:
    """Alpha and eta per batch, r and e, along the valley."""
    r = math.sqrt(2.0 * problem.smoothness * problem.gap / tokens) / problem.noise
    return r, math.sqrt(problem.gap * r / (2.0 * problem.smoothness * tokens))


def _joint_batch(problem: LMOBound, tokens: float) -> float:
    r, e = _slopes(problem, tokens)
    return (2.0 * problem.noise / (3.0 * problem.smoothness * e * r * tokens)) ** (2.0 / 3.0)


def _given(
    regime: str,
    tokens: float | None,
    steps: float | None,
    momentum: float | None,
    batch: float | None,
) -> tuple[str, float, dict[str, float]]:
    """Budget, its amount, and what is held; refuse what is missing and what the regime tunes."""
    check_regime(regime)
    if (tokens is None) == (steps is None):
        raise InvalidProblem("tokens", tokens, "one of tokens and steps")
    budget, amount = ("steps", steps) if tokens is None else ("tokens", tokens)
    amount = at_least(budget, amount, 1.0)
    holds = {
        "momentum": regime == "fixed-momentum",
        "batch": regime == "fixed-batch" or (regime == "fixed-momentum" and budget == "steps"),
    }
    for field, value in (("momentum", momentum), ("batch", batch)):
        if holds[field] and value is None:
            raise InvalidProblem(field, None, f"a value, which {regime} with {budget} holds")
        if not holds[field] and value is not None:
            raise InvalidProblem(field, value, f"none, as {regime} with {budget} tunes it")
    held = {}
    if holds["momentum"]:
        held["alpha"] = 1.0 - decay("momentum", momentum)
    if holds["batch"]:
        held["batch"] = positive("batch", batch)
    return budget, amount, held


def minimise(
    problem: LMOBound,
    regime: str,
    *,
    tokens: float | None = None,
    steps: float | None = None,
    momentum: float | None = None,
    batch: float | None = None,
    min_batch: float | None = None,
) -> Tuning:
    """Tuned values by minimising the bound itself, in logarithms.

    Parameters
    ----------
    problem, regime, tokens, steps, momentum, batch
        As in `closed_form`.
    min_batch : float, optional
        Smallest batch that ``joint`` and ``fixed-momentum`` may choose; default: any.

    Returns
    -------
    Tuning
        With alpha at most 1; at 1 momentum does not pay in so short a run.

    Raises
    ------
    InvalidProblem
        As in `closed_form`, but for short budgets, which are solved.
    SolveFailed
        The minimiser did not reach its tolerance.
    """
    budget, amount, held = _given(regime, tokens, steps, momentum, batch)
    least = None if min_batch is None else positive("min_batch", min_batch)
    if budget == "steps":
        if regime == "joint":
            return _by_steps(problem, amount, least)
        amount, size = amount * held["batch"], held["batch"]
        held = {**held, "batch": size}
    x = _minimum(problem, amount, held, least)
    eta, alpha, size = np.exp(x).tolist()
    alpha = min(alpha, 1.0)
    value = float(problem(eta, alpha, size, amount / size))
    return Tuning(regime, budget, eta, alpha, size, amount, value)


def _by_steps(problem: LMOBound, steps: float, least: float | None) -> Tuning:
    """The joint optimum at the tokens at which it has so many steps, by secants in logarithms."""
    log_tokens = 1.2 * math.log(steps)
    points: list[tuple[float, float]] = []
    for _ in range(60):
        found = minimise(problem, "joint", tokens=math.exp(max(log_tokens, 0.0)), min_batch=least)
        off = math.log(found.steps / steps)
        if abs(off) < 1e-10:
            return Tuning(**{**vars(found), "budget": "steps"})
        slope = 5.0 / 6.0
        if points and points[-1][0] != log_tokens:
            slope = (off - points[-1][1]) / (log_tokens - points[-1][0])
        points.append((log_tokens, off))
        log_tokens -= off / (slope if 0.2 < slope < 5.0 else 5.0 / 6.0)
    raise SolveFailed(f"no joint optimum with {steps:g} steps was found: try a longer budget")


def _minimum(
    problem: LMOBound, tokens: float, held: dict[str, float], least: float | None
) -> Floats:
    """Logarithms of eta, alpha and batch at the minimum, subject to alpha <= 1, batch >= least.

    The bound is convex in logarithms, so the constrained minimum is that of the best choice of
    constraints that are active.
    """
    bounds = [(1, 0.0, 1.0)]  # index, value, sign of the side that is not allowed
    if least is not None:
        bounds.append((2, math.log(least), -1.0))
    fixed = {i: math.log(held[name]) for i, name in ((1, "alpha"), (2, "batch")) if name in held}
    bounds = [bound for bound in bounds if bound[0] not in fixed]
    best, value = None, math.inf
    for active in product((False, True), repeat=len(bounds)):
        on = {i: v for (i, v, _), use in zip(bounds, active, strict=True) if use}
        x, here = _newton(problem, tokens, fixed | on)
        inside = all(sign * (x[i] - v) <= 1e-9 for i, v, sign in bounds)
        if inside and here < value:
            best, value = x, here
    if best is None:
        raise SolveFailed(f"the bound was not minimised at {tokens:g} tokens")
    return best


def _monomials(problem: LMOBound, tokens: float) -> tuple[Floats, Floats]:
    """Powers of (eta, alpha, batch) and logarithms of the factors of the terms of the bound."""
    powers = np.array(
        [[-1.0, 0.0, 1.0], [0.0, -1.0, 0.5], [0.0, 0.5, -0.5], [1.0, 0.0, 0.0], [1.0, -1.0, 0.0]]
    )
    return powers, np.log(problem.terms(1.0, 1.0, 1.0, tokens))


def _newton(problem: LMOBound, tokens: float, fixed: dict[int, float]) -> tuple[Floats, float]:
    """Minimise the logarithm of the bound over what is not fixed."""
    powers, factors = _monomials(problem, tokens)
    free = [i for i in range(3) if i not in fixed]
    base = np.array([fixed.get(i, 0.0) for i in range(3)])
    moved = powers[:, free]
    offsets = factors + powers @ base

    def value(x: Floats) -> float:
        return float(np.logaddexp.reduce(offsets + moved @ x))

    def shares(x: Floats) -> Floats:
        return np.exp(offsets + moved @ x - value(x))

    def gradient(x: Floats) -> Floats:
        return moved.T @ shares(x)

    def hessian(x: Floats) -> Floats:
        weight = shares(x)
        mean = moved.T @ weight
        return (moved.T * weight) @ moved - np.outer(mean, mean)

    options = {"gtol": GRADIENT_TOL, "maxiter": 2000, "max_trust_radius": 50.0}
    start = np.zeros(len(free))
    found = minimize(
        value, start, jac=gradient, hess=hessian, method="trust-exact", options=options
    )
    x = np.array(found.x, np.float64)
    # The last steps lower the value by less than it is rounded to; Newton's do not mind.
    for _ in range(20):
        if np.abs(gradient(x)).max() <= GRADIENT_TOL:
            break
        x = np.asarray(x - np.linalg.solve(hessian(x), gradient(x)), np.float64)
    if not np.abs(gradient(x)).max() <= 1e3 * GRADIENT_TOL:
        raise SolveFailed(f"the bound was not minimised at {tokens:g} tokens: {found.message}")
    base[free] = x
    return base, value(x)
