r"""Schedule-free SGD: gradients between the iterate and its average, whose loss counts.

.. math::
   y_t = (1-\beta) z_t + \beta x_t, \qquad z_{t+1} = z_t - \eta_t\, g(y_t), \qquad
   x_{t+1} = (1-c_t)\, x_t + c_t\, z_{t+1}, \qquad c_t = 1 - \rho_t .

The method of Defazio et al. (2024, arXiv 2405.15682) has :math:`\eta` constant after a warm-up and
:math:`c_t = \eta_t^2 / \sum_{i \le t} \eta_i^2`, 1/(t+1) without one. Here both may be scheduled:
the rate as ``eta``, the average as ``ema``, which is :math:`\rho`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jax import Array

from optsched.arrays import Floats
from optsched.checks import is_number
from optsched.errors import InvalidProblem
from optsched.model.dynamics import Controls, Dynamics
from optsched.model.moments import LinearOptimiser, Transition, pytree
from optsched.optimisers.base import CALM, Optimiser, Setting, Start
from optsched.schedules.schedule import Schedule

__all__ = ["ScheduleFree", "ScheduleFreeDynamics"]


@pytree
class ScheduleFreeDynamics(LinearOptimiser):
    r"""Second moments of schedule-free SGD on Gaussian features.

    The variables of a mode are the errors of :math:`y`, where the gradient is taken, and of the
    average :math:`x`; with :math:`z = (y - \beta x)/(1-\beta)` put in, a step is

    .. math::
       y' &= y + \frac{\beta c}{1-\beta} (y - x) - k\eta\, g , \qquad k = 1 - \beta + \beta c ,\\
       x' &= x + \frac{c}{1-\beta} (y - x) - c\,\eta\, g .

    Parameters
    ----------
    batch_size, sigma2 : float
        Minibatch size and variance of the label noise.
    beta : float
        Where the gradient is taken, in [0, 1).
    ema : float
        1 - c, where it is not among the controls.
    """

    batch_size: Array | float
    sigma2: Array | float
    beta: Array | float
    ema: Array | float

    held: ClassVar[tuple[str, ...]] = ("batch_size", "ema")
    takes: ClassVar[tuple[str, ...]] = ("eta", *held)
    arithmetic: ClassVar[bool] = True
    begin: ClassVar[list[float]] = [1.0, 1.0]  # type: ignore[assignment]
    judged: ClassVar[int] = 1  # type: ignore[assignment]

    def transition(self, lam: Array, controls: Controls) -> Transition:
        c, beta = 1.0 - controls["ema"], self.beta
        drawn, k = c / (1.0 - beta), 1.0 - beta + beta * c
        pull = controls["eta"] * lam
        return Transition(
            [[beta * drawn - k * pull, -beta * drawn], [drawn - c * pull, -drawn]],
            [-k * controls["eta"], -c * controls["eta"]],
        )


@dataclass(frozen=True)
class ScheduleFree(Optimiser):
    """Schedule-free SGD, its rate and the weights of its average scheduled or held.

    Parameters
    ----------
    beta : float
        Where between iterate and average the gradient is taken, in [0, 1).
    ema : float, optional
        Decay of the average in [0, 1), where it is not a control.

    Raises
    ------
    InvalidProblem
        For numbers out of range, and for an average that is neither held nor a control.
    """

    beta: float = 0.9
    ema: float | None = None

    controls = ("eta", "ema")

    def __post_init__(self) -> None:
        for name in ("beta", "ema"):
            value = getattr(self, name)
            if name == "ema" and value is None:
                continue
            if not (is_number(value) and 0.0 <= value < 1.0):
                raise InvalidProblem(name, value, "a number in [0, 1)")

    @property
    def name(self) -> str:
        return "schedule-free" if type(self) is ScheduleFree else type(self).__name__

    def check(self, controls: Sequence[str]) -> None:
        super().check(controls)
        if (self.ema is None) is not ("ema" in controls):
            allowed = "nothing with ema a control" if "ema" in controls else "a value, or"
            more = "" if "ema" in controls else f" ema among the controls, with {self.name}"
            raise InvalidProblem("ema", self.ema, allowed + more)

    def dynamics(self, setting: Setting) -> Dynamics:
        return ScheduleFreeDynamics(
            setting.batch_size, setting.sigma2, self.beta, self.ema if self.ema is not None else 0.0
        )

    def values(self, controls: Sequence[str]) -> dict[str, float]:
        return {"ema": 0.0 if self.ema is None else self.ema}

    def plain(self, controls: Sequence[str]) -> dict[str, float] | None:
        return None if self.ema is not None else {"ema": 0.0}  # then x = y = z

    def starts(self, setting: Setting, steps: Floats, sgd: Schedule | None) -> dict[str, Start]:
        found = super().starts(setting, steps, sgd)
        if "ema" in setting.controls and "eta" in setting.controls:
            rate = CALM * min(setting.limit, setting.cap)
            average = np.minimum(1.0 - 1.0 / (1.0 + steps), 1.0 - 1.0 / setting.horizon)
            found["schedule-free"] = {"eta": np.full_like(steps, rate), "ema": average}
        return found

    def __str__(self) -> str:
        return f"schedule-free, beta {self.beta:g}"
