"""What a law of the loss is: named parameters, their range and priors, and the curve they give."""

from __future__ import annotations

import abc
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from optsched.arrays import Floats
from optsched.errors import InvalidProblem
from optsched.pilot.pieces import Pieces, Scale
from optsched.pilot.separable import Separable

__all__ = ["Final", "Law", "Prior", "known"]

STEP = 1e-5  # of a parameter, for differences


@dataclass(frozen=True)
class Prior:
    """What is known of a parameter before the data; its uncertainty enters every interval.

    ``spread`` 0 holds the parameter.
    """

    mean: float
    spread: float


@dataclass(frozen=True, eq=False)
class Final:
    """The last loss of a run and its derivatives in the log rate of every piece.

    Attributes
    ----------
    loss : float
    drift, noise : numpy.ndarray, shape (n,)
        As the rate moves the clock (and the weights), and as it makes noise; the derivative is
        their sum.
    """

    loss: float
    drift: Floats
    noise: Floats


class Law(abc.ABC):
    """A law of the loss.

    One's own has ``name``, ``priors``, the class attributes and `curve`; it is built again from a
    file as ``cls(priors=..., **settings)``.

    Attributes
    ----------
    name : str
    priors : mapping of str to Prior
        Of any parameters; the others are free within their range. None, if not given.
    parameters : tuple of str
        Names, in the order of ``theta``; ``level`` is one of them.
    low, high : numpy.ndarray, shape (p,)
        Range of every parameter.
    linear : tuple of str
        Parameters in which the curve is linear once exponentials are taken (those that begin with
        ``log_``): a start solves for them.
    plannable : bool
        Whether the law has `final`, and a schedule of least loss.
    """

    name: str
    priors: Mapping[str, Prior]
    parameters: ClassVar[tuple[str, ...]]
    low: ClassVar[Floats]
    high: ClassVar[Floats]
    linear: ClassVar[tuple[str, ...]] = ("level", "log_bias", "log_noise")
    plannable: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        said = vars(cls).get("__annotations__", {})
        for name, usual in (("name", cls.__name__), ("priors", {})):
            if name not in said and not hasattr(cls, name):
                setattr(cls, name, usual)
        if "linear" not in vars(cls) and hasattr(cls, "parameters"):
            cls.linear = tuple(name for name in Law.linear if name in cls.parameters)

    @property
    def carries(self) -> bool:
        """Whether the law carries from the peak rates of the runs to others."""
        return False

    @abc.abstractmethod
    def curve(self, theta: Floats, pieces: Pieces) -> Floats:
        """Loss at the observations, shape (k,)."""

    def jacobian(self, theta: Floats, pieces: Pieces) -> tuple[Floats, Floats]:
        """Loss (k,) and its derivatives in the parameters (k, p): by differences, if not better."""
        columns = []
        for i in range(len(theta)):
            step = np.zeros(len(theta))
            step[i] = STEP * max(1.0, abs(theta[i]))
            up = np.minimum(theta + step, self.high)
            down = np.maximum(theta - step, self.low)
            rise = self.curve(up, pieces) - self.curve(down, pieces)
            columns.append(rise / (up[i] - down[i]))
        return self.curve(theta, pieces), np.column_stack(columns)

    def final(self, theta: Floats, rate: Floats, length: Floats, first: float) -> Final:
        """Loss after all pieces of constant rate (n,) and length (n,), in units of a `Scale`."""
        raise NotImplementedError(f"law {self.name} is for prediction only")

    def separable(self, theta: Floats, first: float) -> Separable | None:
        """What a lower bound of a plan has to know of the law; None where there is none for it.

        Parameters
        ----------
        theta : numpy.ndarray
        first : float
            As in `Scale`.
        """
        return None

    def starts(self) -> list[Floats]:
        """Where a fit may start; the linear parameters are solved for from there."""
        middle = np.clip(0.0, self.low, self.high)
        for i, name in enumerate(self.parameters):
            if name in self.priors:
                middle[i] = self.priors[name].mean
        return [middle]

    def for_runs(self, scale: Scale, losses: Sequence[float]) -> Law:
        """The law with the priors that it has of runs in these units, which end at these losses."""
        return self

    def alternatives(self) -> Iterable[Law]:
        """Laws of which a fit takes the one that describes the runs best."""
        return (self,)

    def as_fitted(self, fitted: Law) -> Law:
        """The law with what a fit chose of its alternatives, for a fit to other runs."""
        return self

    def at_decay(self, thetas: Floats, decay: float, scale: Scale) -> tuple[Law, Floats]:
        """The law and parameters (K, p) for runs with another weight decay than those of a fit.

        Raises
        ------
        InvalidProblem
            The law does not know of the decay.
        """
        raise InvalidProblem("weight_decay", decay, f"none with {self.name}: fsl-norm has it")

    def settings(self) -> dict[str, Any]:
        """What, besides the priors, a file needs to build the law again."""
        return {}

    def assumptions(self) -> tuple[str, ...]:
        """What the law takes for given about the runs, in sentences for people."""
        return ()

    @property
    def held(self) -> dict[str, float]:
        """Parameters that are held, with their values."""
        return {name: p.mean for name, p in self.priors.items() if p.spread == 0.0}

    @property
    def free(self) -> list[int]:
        """Indices of the parameters that a fit may move."""
        return [i for i, name in enumerate(self.parameters) if name not in self.held]


def known(priors: dict[str, Prior], parameters: Sequence[str]) -> dict[str, Prior]:
    """The priors, if all of them are of parameters."""
    unknown = set(priors) - set(parameters)
    if unknown:
        raise InvalidProblem("priors", sorted(unknown), ", ".join(parameters))
    return priors
