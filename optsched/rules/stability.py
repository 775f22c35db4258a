r"""The edge of stability: the largest learning rate that a curvature allows.

On a quadratic loss of curvature :math:`\lambda`, gradient descent contracts if and only if
:math:`\eta\lambda < 2`. Momentum, and a decay of the weights, move that edge. With momentum in its
averaged form, :math:`v \leftarrow \beta v + (1-\beta) g`, weight :math:`\nu` on the momentum and
weights that decay apart from the gradient,

.. math:: w \leftarrow (1 - \eta\omega) w - \eta\,[(1-\nu) g + \nu v] ,

a mode has the matrix
:math:`\begin{pmatrix} 1-\eta\omega-p\lambda & -q \\ (1-\beta)\lambda & \beta \end{pmatrix}`,
:math:`p = \eta(1-\nu\beta)`, :math:`q = \eta\nu\beta`, of trace
:math:`1 + \beta - \eta\omega - p\lambda` and determinant
:math:`\beta(1-\eta\omega) - \eta\beta(1-\nu)\lambda`. Of the conditions of Jury only
:math:`1 + \mathrm{tr} + \det > 0` can fail at :math:`\lambda > 0`, which gives

.. math::
   \frac{\eta\lambda}{c} + \frac{\eta\omega}{2} < 1 , \qquad
   c = \frac{2(1+\beta)}{1 + \beta - 2\nu\beta} .

c is the *edge*: 2 for gradient descent (:math:`\nu = 0`), :math:`2(1+\beta)/(1-\beta)` for heavy
ball (:math:`\nu = 1`) and :math:`2(1+\beta)/[(1-\beta)(1+2\beta)]` for Nesterov's momentum
(:math:`\nu = \beta`). In the summed form :math:`v \leftarrow \beta v + g` of torch and optax the
same rate takes steps :math:`1/(1-\beta)` times as long, so that its edge is :math:`(1-\beta) c`.
A decay that is part of the gradient adds :math:`\omega` to the curvature instead.

Adam and AdamW take the edge of heavy ball with the curvature of the *preconditioned* Hessian
:math:`P^{-1} H`, :math:`P = \mathrm{diag}(\sqrt{\hat v} + \epsilon)`: they train at
:math:`\eta\lambda_1(P^{-1}H) \approx 2(1+\beta_1)/(1-\beta_1)`, which is 38 at 0.9 (Cohen et al.,
"Adaptive gradient methods at the edge of stability", arXiv 2207.14484). P moves slowly, so the
condition is that of a frozen P. `optsched.diagnostics.curvature` measures both curvatures.

Notes
-----
Without noise. The noise of small batches lowers the edge: `optsched.model.stability.momentum_limit`
has the exact limit where the spectrum is known. Gradient descent on a network can also train at the
edge for long, as the curvature then stops growing there (Cohen et al., "Gradient descent on neural
networks typically occurs at the edge of stability", ICLR 2021): a crossing is a warning, and a
sharpness measured at the edge says what the rate was, not what the loss allows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from optsched.arrays import Brief, Floats, Ints
from optsched.checks import at_least, decay, integers, is_number, positive, real_array, whole
from optsched.controls import MAX_DENSE
from optsched.errors import InvalidProblem
from optsched.model.stability import curvature_limit
from optsched.schedules.schedule import Schedule

__all__ = [
    "OPTIMISERS",
    "SharpnessTrace",
    "StableRate",
    "UpdateRule",
    "stable_rate",
    "stable_warmup",
]


OPTIMISERS = ("gd", "heavy-ball", "nesterov", "adam", "adamw")
AT_EDGE = 0.8  # of the edge: above it the rate, not the loss, may have set the sharpness


@dataclass(frozen=True)
class UpdateRule:
    r"""How an optimiser moves, as far as its stability goes.

    Parameters
    ----------
    optimiser : {"gd", "heavy-ball", "nesterov", "adam", "adamw"}
        "adam" and "adamw" take the curvature of the preconditioned Hessian.
    momentum : float
        :math:`\beta` in [0, 1), or Adam's :math:`\beta_1`; 0 for "gd".
    convention : {"average", "sum"}
        ``v = beta v + (1 - beta) g``, as in this library and in Adam, or ``v = beta v + g``, as in
        torch's and optax's SGD.
    weight_decay : float
        :math:`\omega \ge 0`; a step shrinks the weights by :math:`\eta\omega`.
    decay : {"decoupled", "coupled"}, optional
        Whether the decay is apart from the gradient or added to it. By default "decoupled" for
        "adamw" and "coupled" for the others, as in torch. Coupled to Adam, it is preconditioned,
        so that the edge depends on P: only 0 is allowed there.

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.
    """

    optimiser: Literal["gd", "heavy-ball", "nesterov", "adam", "adamw"] = "gd"
    momentum: float = 0.0
    convention: Literal["average", "sum"] = "average"
    weight_decay: float = 0.0
    decay: Literal["decoupled", "coupled"] | None = None

    def __post_init__(self) -> None:
        if self.optimiser not in OPTIMISERS:
            raise InvalidProblem("optimiser", self.optimiser, "one of " + ", ".join(OPTIMISERS))
        decay("momentum", self.momentum)
        if self.optimiser == "gd" and self.momentum != 0.0:
            allowed = "0 with gd; take heavy-ball or nesterov"
            raise InvalidProblem("momentum", self.momentum, allowed)
        if self.convention not in ("average", "sum"):
            raise InvalidProblem("convention", self.convention, "average or sum")
        if self.preconditioned and self.convention == "sum":
            raise InvalidProblem("convention", self.convention, "average, as Adam has no other")
        omega = at_least("weight_decay", self.weight_decay, 0.0)
        kind = self.decay or ("decoupled" if self.optimiser == "adamw" else "coupled")
        if kind not in ("decoupled", "coupled"):
            raise InvalidProblem("decay", kind, "decoupled or coupled")
        if self.preconditioned and kind == "coupled" and omega:
            allowed = "0 where the decay is part of Adam's gradient; take adamw"
            raise InvalidProblem("weight_decay", omega, allowed)
        object.__setattr__(self, "decay", kind)

    @property
    def preconditioned(self) -> bool:
        """Whether the curvature is that of the preconditioned Hessian."""
        return self.optimiser in ("adam", "adamw")

    @property
    def edge(self) -> float:
        """Largest stable product of rate and curvature without weight decay; 2 for "gd"."""
        beta = float(self.momentum)
        weight = {"gd": 0.0, "nesterov": beta}.get(self.optimiser, 1.0)
        average = curvature_limit(beta, weight)
        return average if self.convention == "average" else (1.0 - beta) * average

    def limit(self, sharpness: ArrayLike) -> Any:
        r"""Largest stable learning rate at a curvature.

        .. math:: \eta = \frac{1}{\lambda/c + \omega/2} \quad\text{(decoupled)}, \qquad
                  \eta = \frac{c}{\lambda + \omega} \quad\text{(coupled)}.

        Parameters
        ----------
        sharpness : float or array_like
            Largest eigenvalue of the (preconditioned) Hessian, >= 0.

        Returns
        -------
        float or numpy.ndarray
            As ``sharpness``; infinite where nothing bounds the rate.

        Raises
        ------
        InvalidProblem
            A sharpness that is negative or not finite.
        """
        rate = self._limit(_finite("sharpness", sharpness, "finite numbers >= 0"), self.edge)
        return float(rate) if rate.ndim == 0 else rate

    def _limit(self, lam: Floats, edge: float) -> Floats:
        if self.decay == "coupled":
            inverse = (lam + self.weight_decay) / edge
        else:
            inverse = lam / edge + 0.5 * self.weight_decay
        with np.errstate(divide="ignore", over="ignore"):
            return np.asarray(1.0 / inverse)

    def sharpest(self, rate: ArrayLike) -> Any:
        """Largest stable curvature at a learning rate > 0: the inverse of `limit`.

        Negative where the decay of the weights alone is unstable.
        """
        eta = _finite("rate", rate, "finite numbers > 0", strict=True)
        if self.decay == "coupled":
            lam = self.edge / eta - self.weight_decay
        else:
            lam = self.edge * (1.0 / eta - 0.5 * self.weight_decay)
        return float(lam) if lam.ndim == 0 else lam


@dataclass(frozen=True, eq=False, init=False, repr=False)
class SharpnessTrace(Brief):
    """Sharpness that was measured along a run.

    Parameters
    ----------
    steps : array_like of int, shape (n,)
        Increasing, >= 0.
    sharpness : array_like of float, shape (n,)
        Largest eigenvalue of the (preconditioned) Hessian, > 0.
    error : float or array_like of float, shape (n,)
        Its uncertainty, below the sharpness: the bound of `optsched.diagnostics.curvature`, or the
        spread over batches.
    lr : array_like of float, shape (n,), optional
        Learning rate of the run, to tell whether it was at the edge itself.

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.
    """

    steps: Ints
    sharpness: Floats
    error: Floats
    lr: Floats | None = None

    def __init__(
        self,
        steps: ArrayLike,
        sharpness: ArrayLike,
        error: ArrayLike = 0.0,
        lr: ArrayLike | None = None,
    ) -> None:
        knots = integers("step", steps)
        falls = np.flatnonzero(np.diff(knots, prepend=-1) <= 0)
        if falls.size:
            allowed = "whole numbers >= 0 that increase"
            raise InvalidProblem("step", int(knots[falls[0]]), allowed)
        lam = _column("sharpness", sharpness, knots, "finite numbers > 0", strict=True)
        spread = _column("error", error, knots, "finite numbers >= 0")
        wide = np.flatnonzero(spread >= lam)
        if wide.size:
            at = wide[0]
            allowed = f"below the sharpness, {lam[at]:g} at step {knots[at]}: measure it better"
            raise InvalidProblem("error", float(spread[at]), allowed)
        rates = None if lr is None else _column("lr", lr, knots, "finite numbers >= 0")
        for name, value in (
            ("steps", knots),
            ("sharpness", lam),
            ("error", spread),
            ("lr", rates),
        ):
            object.__setattr__(self, name, value)

    def at_edge(self, rule: UpdateRule) -> bool:
        """Whether the run that was measured had a rate near its limit, at any of its steps.

        Its sharpness then tells of that rate: lower rates would have let it grow further.
        """
        return self.lr is not None and bool(
            np.any(self.lr >= AT_EDGE * rule.limit(self.sharpness + self.error))
        )


@dataclass(frozen=True)
class StableRate:
    """Largest stable constant learning rate over a trace.

    Attributes
    ----------
    rate : float
        At the largest measured sharpness.
    low, high : float
        At the largest upper and lower end of the sharpness: the rate within its uncertainty.
    sharpness, error : float
        Where ``rate`` is set, and the error there.
    step : int
        Where that was measured.
    edge : float
        Of the update rule.
    """

    rate: float
    low: float
    high: float
    sharpness: float
    error: float
    step: int
    edge: float


def stable_rate(trace: SharpnessTrace, rule: UpdateRule) -> StableRate:
    """Largest constant learning rate that is stable at every measured sharpness.

    Parameters
    ----------
    trace : SharpnessTrace
        Between its steps, and past its end, nothing is known.
    rule : UpdateRule

    Returns
    -------
    StableRate
    """
    at = int(np.argmax(trace.sharpness))
    return StableRate(
        rate=rule.limit(float(trace.sharpness[at])),
        low=rule.limit(float((trace.sharpness + trace.error).max())),
        high=rule.limit(float((trace.sharpness - trace.error).max())),
        sharpness=float(trace.sharpness[at]),
        error=float(trace.error[at]),
        step=int(trace.steps[at]),
        edge=rule.edge,
    )


def stable_warmup(
    trace: SharpnessTrace,
    rule: UpdateRule | None = None,
    *,
    c: float | None = None,
    margin: float = 0.9,
    peak: float | None = None,
    horizon: int | None = None,
    monotone: bool = True,
) -> Schedule:
    r"""The fastest warm-up that stays below the edge of a measured sharpness.

    .. math:: \eta_t = \mu \min_{s \ge t} \eta_{max}(\lambda_s + \delta_s) , \qquad
              \eta_{max}(\lambda) = c/\lambda \text{ without weight decay},

    bounded by the peak: the largest rate that never falls and keeps
    :math:`\eta_t\lambda_t < c` at the upper end of the sharpness.

    Parameters
    ----------
    trace : SharpnessTrace
        Linear between its steps; held before the first and after the last.
    rule : UpdateRule, optional
        Gradient descent by default.
    c : float, optional
        Edge to keep instead of the rule's, 2 for gradient descent.
    margin : float
        :math:`\mu` in (0, 1): share of the limit that is used.
    peak : float, optional
        Largest rate; by default only the sharpness bounds it.
    horizon : int, optional
        Number of steps, at most 10^8; by default to the end of the trace.
    monotone : bool
        False lets the rate follow the limit down too, without the minimum over later steps.

    Returns
    -------
    Schedule
        A value at every step, held after the end: the warm-up of a longer run.

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.

    Notes
    -----
    The trace must come from a run like the one to come. Warm-up itself flattens the way (Gilmer et
    al., "A loss curvature perspective on training instability in deep learning", 2021), so
    measure again under the new warm-up; see `SharpnessTrace.at_edge` too.
    """
    rule = rule or UpdateRule()
    edge = rule.edge if c is None else positive("c", c)
    if not is_number(margin) or not 0.0 < margin < 1.0:
        raise InvalidProblem("margin", margin, "a number > 0 and < 1")
    top = math.inf if peak is None else positive("peak", peak)
    horizon = int(trace.steps[-1]) + 1 if horizon is None else horizon
    horizon = whole("horizon", horizon, 1, MAX_DENSE)
    upper = np.interp(np.arange(horizon), trace.steps, trace.sharpness + trace.error)
    limit = rule._limit(upper, edge)
    if monotone:
        limit = np.minimum.accumulate(limit[::-1])[::-1]
    metadata = {"rule": "stable warm-up", "optimiser": rule.optimiser, "edge": edge}
    eta = np.minimum(margin * limit, top)
    return Schedule.from_array(eta, metadata={**metadata, "margin": margin})


def _finite(field: str, values: Any, allowed: str, *, strict: bool = False) -> Floats:
    array = real_array(field, values).astype(np.float64)
    bad = ~(np.isfinite(array) & ((array > 0.0) if strict else (array >= 0.0)))
    if bad.any():
        raise InvalidProblem(field, float(array[bad].flat[0]), allowed)
    return array


def _column(field: str, values: Any, knots: Ints, allowed: str, *, strict: bool = False) -> Floats:
    array = _finite(field, values, allowed, strict=strict)
    if array.ndim and array.shape != knots.shape:
        raise InvalidProblem(field, f"shape {array.shape}", f"shape {knots.shape}, as step")
    array = np.broadcast_to(array, knots.shape).copy()
    array.setflags(write=False)
    return array
