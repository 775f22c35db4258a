r"""Quasi-hyperbolic momentum, with weight averaging and weight decay.

.. math::
   v \leftarrow \beta v + (1-\beta) g, \qquad
   w \leftarrow w - \eta\,[(1-\nu) g + \nu v] - \eta\,\omega\, w, \qquad
   \bar w \leftarrow \rho\, \bar w + (1-\rho)\, w .

:math:`\nu = 0` is SGD, :math:`\nu = 1` heavy ball, :math:`\nu = \beta` Nesterov's momentum
(Ma & Yarats, "Quasi-hyperbolic momentum and Adam for deep learning", ICLR 2019). The decay is
decoupled from the gradient (Loshchilov & Hutter, ICLR 2019).
"""

from __future__ import annotations

from typing import ClassVar

from jax import Array

from optsched.model.dynamics import Controls
from optsched.model.moments import LinearOptimiser, Transition, pytree

__all__ = ["QHMDynamics"]


@pytree
class QHMDynamics(LinearOptimiser):
    r"""SGD with quasi-hyperbolic momentum on Gaussian features, exactly.

    With :math:`e = w - w^*`, x = E e^2, y = E e v, z = E v^2 on a mode,
    :math:`p = \eta(1 - \nu\beta)`, :math:`q = \eta\nu\beta` and
    :math:`G = (1 + 1/m)\lambda^2 x + (\lambda/m) L`, momentum alone is

    .. math::
       x' &= x + p^2 G + q^2 z - 2 p \lambda x - 2 q y + 2 p q \lambda y \\
       y' &= \beta y + (1-\beta) \lambda x - p \beta \lambda y - p (1-\beta) G
             - q \beta z - q (1-\beta) \lambda y \\
       z' &= \beta^2 z + 2 \beta (1-\beta) \lambda y + (1-\beta)^2 G .

    Parameters
    ----------
    batch_size, beta, nu, ema : float
        Minibatch size m, momentum, its weight, and decay of the average, where they are not among
        the controls.
    sigma2 : float
        Variance of the label noise.
    weight_decay : float
        Decoupled decay omega.
    momentum, averaged, decayed : bool
        Which parts there are; the state is kept as small as they allow.
    depth, doubling
        See `LinearOptimiser`.
    """

    batch_size: Array | float
    sigma2: Array | float
    beta: Array | float = 0.0
    nu: Array | float = 0.0
    ema: Array | float = 0.0
    weight_decay: Array | float = 0.0
    momentum: bool = True
    averaged: bool = False
    decayed: bool = False

    held: ClassVar[tuple[str, ...]] = ("batch_size", "beta", "nu", "ema")
    takes: ClassVar[tuple[str, ...]] = ("eta", *held)
    arithmetic: ClassVar[bool] = True

    @property
    def variables(self) -> list[str]:
        """Variables of a mode: errors of iterate and average, momentum, target."""
        parts = (("v", self.momentum), ("average", self.averaged), ("target", self.decayed))
        return ["e", *(name for name, there in parts if there)]

    @property
    def begin(self) -> list[float]:
        # The target is minus the error at w = 0.
        first = {"e": 1.0, "v": 0.0, "average": 1.0, "target": -1.0}
        return [first[name] for name in self.variables]

    @property
    def judged(self) -> int:
        return self.variables.index("average" if self.averaged else "e")

    def transition(self, lam: Array, controls: Controls) -> Transition:
        eta, beta = controls["eta"], controls["beta"]
        carried = eta * controls["nu"] * beta if self.momentum else None
        p = eta if carried is None else eta - carried
        pull, keep = p * lam, 1.0 - controls["ema"]
        row = {"e": -pull, "v": None if carried is None else -carried, "target": None}
        if self.decayed:
            loss = eta * self.weight_decay
            row = {**row, "e": -pull - loss, "target": -loss}
        average = {name: None if x is None else keep * x for name, x in row.items()}
        average |= {"e": keep * (1.0 + row["e"]), "average": -keep}
        gain = 1.0 - beta
        rows = {"e": row, "v": {"e": gain * lam, "v": -gain}, "average": average, "target": {}}
        kick = {"e": -p, "v": gain, "average": -keep * p}
        names = self.variables
        return Transition(
            [[rows[i].get(j) for j in names] for i in names], [kick.get(i) for i in names]
        )
