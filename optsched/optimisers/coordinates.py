r"""Coordinates in which the controls are free: unbounded where it can be, close to uncoupled.

====================  =============================================  ==========================
controls              coordinates                                    map
====================  =============================================  ==========================
eta                   :math:`u = \log\eta`
eta, nu               :math:`\log\alpha, \log\kappa`                 :math:`\eta = \alpha+\kappa,
                                                                     \nu = \kappa/\eta`
eta <= eta_max, nu    :math:`\log\eta, \mathrm{logit}\,\nu`
beta                  :math:`\log(1-\beta)`                          Nesterov: also nu = beta
batch_size            u                                              :math:`m = 1 + (D-T) e^u /
                                                                     \sum_t e^u`
ema                   :math:`\log(1-\rho)`
====================  =============================================  ==========================

:math:`\alpha` is the rate of the gradient itself and :math:`\kappa` that of the momentum.
"""

from __future__ import annotations

import abc
import math
from typing import ClassVar

import numpy as np

from optsched.arrays import Floats

__all__ = [
    "Average",
    "Batch",
    "BoundedSplit",
    "Chart",
    "Constant",
    "Forgetting",
    "LogRate",
    "SplitRate",
    "Weight",
]

Table = dict[str, Floats]
Bounds = tuple[float, float]

LEAST = 1e-12  # of the largest rate: 0 for all that the loss can see
LOGIT = 30.0


class Chart(abc.ABC):
    """Coordinates of some of the controls, at every knot."""

    names: ClassVar[tuple[str, ...]] = ()
    # Which of them are logarithms of rates: a warm-up scales those.
    log_rates: ClassVar[tuple[str, ...]] = ()
    bounds: tuple[Bounds, ...] = ()  # lower and upper, of every coordinate
    local: ClassVar[bool] = True  # whether a knot's controls follow from its own coordinates

    @abc.abstractmethod
    def controls(self, u: list[Floats]) -> Table:
        """Controls at the knots."""

    @abc.abstractmethod
    def pull(self, u: list[Floats], gradient: Table, diagonal: bool) -> list[Floats]:
        """Derivative in the coordinates; see `Variables.pull`."""

    @abc.abstractmethod
    def invert(self, controls: Table) -> list[Floats]:
        """Coordinates of controls, as near as the bounds allow."""

    def shown(self, u: list[Floats]) -> list[tuple[Floats, list[Floats]]]:
        """What ought to be smooth, with its derivatives in the coordinates; by default these."""

        def parts(i: int) -> list[Floats]:
            return [np.full_like(row, float(k == i)) for k, row in enumerate(u)]

        return [(row, parts(i)) for i, row in enumerate(u)]


def _logit(nu: Floats) -> Floats:
    nu = np.clip(nu, 1e-13, 1.0 - 1e-13)
    return np.log(nu) - np.log1p(-nu)


def _size(x: Floats, diagonal: bool) -> Floats:
    return np.abs(x) if diagonal else x


class Constant(Chart):
    """Controls that are held."""

    def __init__(self, values: dict[str, float], knots: int) -> None:
        self._values = {name: np.full(knots, value) for name, value in values.items()}

    def controls(self, u: list[Floats]) -> Table:
        return self._values

    def pull(self, u: list[Floats], gradient: Table, diagonal: bool) -> list[Floats]:
        return []

    def invert(self, controls: Table) -> list[Floats]:
        return []


class LogRate(Chart):
    """The logarithm of the rate, between a floor and a cap."""

    names = log_rates = ("rate",)

    def __init__(self, floor: float, cap: float) -> None:
        self.bounds = ((math.log(max(floor, LEAST * min(cap, 1.0))), math.log(cap)),)

    def controls(self, u: list[Floats]) -> Table:
        return {"eta": np.exp(u[0])}

    def pull(self, u: list[Floats], gradient: Table, diagonal: bool) -> list[Floats]:
        return [_size(np.exp(u[0]) * gradient["eta"], diagonal)]

    def invert(self, controls: Table) -> list[Floats]:
        return [np.log(np.maximum(controls["eta"], math.exp(self.bounds[0][0])))]


class SplitRate(Chart):
    """Logarithms of the rates of gradient and momentum, each below a cap."""

    names = log_rates = ("gradient rate", "momentum rate")

    def __init__(self, cap: float, momentum_cap: float) -> None:
        low = math.log(LEAST * min(cap, 1.0))
        self.bounds = (low, math.log(cap)), (low, math.log(momentum_cap))

    def controls(self, u: list[Floats]) -> Table:
        alpha, kappa = np.exp(u[0]), np.exp(u[1])
        eta = alpha + kappa
        return {"eta": eta, "nu": kappa / eta}

    def pull(self, u: list[Floats], gradient: Table, diagonal: bool) -> list[Floats]:
        alpha, kappa = np.exp(u[0]), np.exp(u[1])
        eta = alpha + kappa
        mixed = gradient["nu"] / eta**2
        parts = alpha * (gradient["eta"] - kappa * mixed), kappa * (gradient["eta"] + alpha * mixed)
        return [_size(part, diagonal) for part in parts]

    def invert(self, controls: Table) -> list[Floats]:
        eta, nu = controls["eta"], controls["nu"]
        least = math.exp(self.bounds[0][0])
        return [np.log(np.maximum(rate, least)) for rate in (eta * (1.0 - nu), eta * nu)]

    def shown(self, u: list[Floats]) -> list[tuple[Floats, list[Floats]]]:
        made = self.controls(u)
        nu = made["nu"]
        lean = nu * (1.0 - nu)
        return [(np.log(made["eta"]), [1.0 - nu, nu]), (nu, [-lean, lean])]


class BoundedSplit(Chart):
    """Logarithm of the rate and logit of the momentum's weight: a bound of the rate is a box."""

    names, log_rates = ("rate", "weight"), ("rate",)

    def __init__(self, cap: float) -> None:
        self.bounds = (math.log(LEAST * min(cap, 1.0)), math.log(cap)), (-LOGIT, LOGIT)

    def controls(self, u: list[Floats]) -> Table:
        return {"eta": np.exp(u[0]), "nu": 1.0 / (1.0 + np.exp(-u[1]))}

    def pull(self, u: list[Floats], gradient: Table, diagonal: bool) -> list[Floats]:
        made = self.controls(u)
        parts = made["eta"] * gradient["eta"], made["nu"] * (1.0 - made["nu"]) * gradient["nu"]
        return [_size(part, diagonal) for part in parts]

    def invert(self, controls: Table) -> list[Floats]:
        least = math.exp(self.bounds[0][0])
        return [np.log(np.maximum(controls["eta"], least)), _logit(controls["nu"])]

    def shown(self, u: list[Floats]) -> list[tuple[Floats, list[Floats]]]:
        nu, none = self.controls(u)["nu"], np.zeros_like(u[0])
        return [(u[0], [none + 1.0, none]), (nu, [none, nu * (1.0 - nu)])]


class Weight(Chart):
    """Logit of the momentum's weight alone, at a held rate."""

    names = ("weight",)
    bounds: tuple[Bounds, ...] = ((-LOGIT, LOGIT),)

    def controls(self, u: list[Floats]) -> Table:
        return {"nu": 1.0 / (1.0 + np.exp(-u[0]))}

    def pull(self, u: list[Floats], gradient: Table, diagonal: bool) -> list[Floats]:
        nu = self.controls(u)["nu"]
        return [_size(nu * (1.0 - nu) * gradient["nu"], diagonal)]

    def invert(self, controls: Table) -> list[Floats]:
        return [_logit(controls["nu"])]

    def shown(self, u: list[Floats]) -> list[tuple[Floats, list[Floats]]]:
        nu = self.controls(u)["nu"]
        return [(nu, [nu * (1.0 - nu)])]


class Forgetting(Chart):
    """Logarithm of 1 - beta; for Nesterov's momentum the weight nu follows."""

    names = ("forgetting",)

    def __init__(self, horizon: int, nesterov: bool) -> None:
        self.bounds, self._nesterov = ((-math.log(1e3 * horizon), 0.0),), nesterov

    def controls(self, u: list[Floats]) -> Table:
        beta = np.maximum(-np.expm1(u[0]), 0.0)
        return {"beta": beta, "nu": beta} if self._nesterov else {"beta": beta}

    def pull(self, u: list[Floats], gradient: Table, diagonal: bool) -> list[Floats]:
        total = gradient["beta"] + gradient["nu"] if self._nesterov else gradient["beta"]
        return [_size(-np.exp(u[0]) * total, diagonal)]

    def invert(self, controls: Table) -> list[Floats]:
        return [np.maximum(np.log1p(-controls["beta"]), self.bounds[0][0])]


class Average(Chart):
    """Logarithm of 1 - rho, with rho the decay of the averaged weights."""

    names = ("averaging",)

    def __init__(self, horizon: int) -> None:
        self.bounds = ((-math.log(1e3 * horizon), 0.0),)

    def controls(self, u: list[Floats]) -> Table:
        return {"ema": np.maximum(-np.expm1(u[0]), 0.0)}

    def pull(self, u: list[Floats], gradient: Table, diagonal: bool) -> list[Floats]:
        return [_size(-np.exp(u[0]) * gradient["ema"], diagonal)]

    def invert(self, controls: Table) -> list[Floats]:
        return [np.maximum(np.log1p(-controls["ema"]), self.bounds[0][0])]


class Batch(Chart):
    """Batch sizes that use up a budget of samples: the share of the samples beyond one a step.

    Parameters
    ----------
    samples : float
        Sum D of the batch sizes over all steps, at least their number.
    weights : numpy.ndarray, shape (knots,)
        How much a knot's value counts in the sum over the steps.
    """

    names, local = ("batch",), False
    bounds: tuple[Bounds, ...] = ((-40.0, 40.0),)

    def __init__(self, samples: float, weights: Floats) -> None:
        self._spare, self._weights = samples - weights.sum(), weights

    def controls(self, u: list[Floats]) -> Table:
        share = np.exp(u[0] - u[0].max())
        return {"batch_size": 1.0 + self._spare * share / (self._weights @ share)}

    def pull(self, u: list[Floats], gradient: Table, diagonal: bool) -> list[Floats]:
        beyond = self.controls(u)["batch_size"] - 1.0
        own = beyond * gradient["batch_size"]
        if diagonal or self._spare == 0.0:
            return [np.abs(own)]
        return [own - self._weights * beyond / self._spare * own.sum()]

    def invert(self, controls: Table) -> list[Floats]:
        beyond = np.maximum(controls["batch_size"] - 1.0, 0.0)
        top = max(float(beyond.max()), 1e-300)
        return [np.log(np.maximum(beyond / top, 1e-12))]
