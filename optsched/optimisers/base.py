"""What an optimiser is to optsched: names its controls, and builds its dynamics."""

from __future__ import annotations

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from optsched.arrays import Floats
from optsched.errors import InvalidProblem
from optsched.model.spectrum import Spectrum
from optsched.optimisers.coordinates import (
    Average,
    Chart,
    Forgetting,
    LogRate,
    Weight,
)
from optsched.schedules.schedule import Schedule

if TYPE_CHECKING:
    from optsched.model.dynamics import Dynamics

__all__ = ["Limit", "Optimiser", "Setting", "Start"]

Start = dict[str, Floats]  # controls at some steps; those that it does not name are `values`

CALM = 0.25  # of a stability limit
COOLDOWN = 0.2  # of the horizon


@dataclass(frozen=True)
class Setting:
    """What an optimiser may know of the problem that it is used on.

    Attributes
    ----------
    spectrum : Spectrum
    horizon : int
        Number of steps T.
    batch_size : float
        Minibatch size m, the mean one where it is scheduled; for a `limit`, the largest one then.
    sigma2 : float
        Variance of the label noise.
    controls : sequence of str
        What is scheduled: names in the optimiser's `controls`, and maybe ``batch_size``.
    floor, cap : float
        Bounds of the learning rate; a cap of ``inf`` is none.
    limit : float
        Rate of `Optimiser.limit`, once it is known.
    """

    spectrum: Spectrum
    horizon: int
    batch_size: float
    sigma2: float
    controls: Sequence[str]
    floor: float = 0.0
    cap: float = math.inf
    limit: float = math.inf


class Limit(NamedTuple):
    """Largest constant rate that is stable.

    Attributes
    ----------
    rate : float
    name : str
        What it is, in words.
    hard : bool
        Whether no larger rate is of use; false where other controls make larger ones stable for
        a while, so that rates are bounded by what the problem says alone.
    """

    rate: float
    name: str = "stability limit"
    hard: bool = True


class Optimiser(abc.ABC):
    """How gradients become updates, and which of its numbers may be scheduled.

    To add one, write a subclass with

    1. `dynamics`, the recursion of its second moments: a `Dynamics`, most easily a
       `LinearOptimiser`, which needs one step on one mode;
    2. `controls`, if more than the learning rate can be scheduled, and `values`, what those are
       where they are not.

    The rest has defaults: the stability limit is found numerically, coordinates follow from the
    names of the controls, and searches start from the optimum of plain SGD and from a constant
    rate with a cool-down. Optimisers are immutable; a frozen dataclass is the easiest way.

    Attributes
    ----------
    controls : tuple of str
        What may be scheduled, of ``eta``, ``beta``, ``nu``, ``ema``. The batch size is the
        problem's, and any optimiser whose dynamics takes it can have it scheduled.
    """

    controls: ClassVar[tuple[str, ...]] = ("eta",)

    @property
    def name(self) -> str:
        """Its name in reports and files."""
        return type(self).__name__

    @abc.abstractmethod
    def dynamics(self, setting: Setting) -> Dynamics:
        """The exact recursion, at the batch size and the noise of a problem."""

    def values(self, controls: Sequence[str]) -> dict[str, float]:
        """Its controls but the rate, where ``controls`` are scheduled.

        Values of those that are held, which files of schedules then carry, and for the others the
        value that a start has which does not name them.
        """
        return {}

    def check(self, controls: Sequence[str]) -> None:
        """Refuse controls that it does not have.

        Raises
        ------
        InvalidProblem
        """
        own = (*self.controls, "batch_size")
        for name in controls:
            if name not in own:
                raise InvalidProblem("controls", name, f"of {', '.join(own)} with {self.name}")

    def freed(self, names: Sequence[str]) -> Optimiser:
        """The same for schedules that carry these controls: what it held of them is dropped."""
        return self

    def limit(self, setting: Setting) -> Limit:
        """Largest stable constant rate.

        By default that of `optsched.optimisers.limits.rate_limit`, found numerically. Where the
        rule depends on the step, the least of those of the first step, the last one, and those
        next to the first switches.
        """
        from optsched.optimisers.limits import rate_limit

        held, dynamics = self.values(setting.controls), self.dynamics(setting)
        if "step" not in dynamics.takes:
            return Limit(rate_limit(dynamics, setting.spectrum, held))
        last = setting.horizon - 1
        steps = {0, *(min(k, last) for k in list(dynamics.switches(setting.horizon))[:2]), last}
        found = [rate_limit(dynamics, setting.spectrum, {**held, "step": k}) for k in steps]
        return Limit(min(found))

    def reach(self, setting: Setting) -> float:
        """Largest rate that may be of use where the limit is not a hard one."""
        return 10.0 * setting.limit

    def plain(self, controls: Sequence[str]) -> dict[str, float] | None:
        """Values of its controls but the rate at which it is plain SGD; None if there are none.

        Where there are, the rate is scheduled, and so is all that has another value now: solves
        are then never worse than the optimum of plain SGD.
        """
        return None

    def charts(self, setting: Setting, knots: int) -> list[Chart]:
        """Coordinates in which its scheduled controls are free.

        Parameters
        ----------
        setting : Setting
        knots : int
            Number of knots, for what is held.
        """
        charts: list[Chart] = []
        for name in self.controls:
            if name not in setting.controls:
                continue
            if name == "eta":
                charts.append(LogRate(setting.floor, min(setting.cap, self.reach(setting))))
            elif name == "beta":
                charts.append(Forgetting(setting.horizon, nesterov=False))
            else:
                charts.append(Weight() if name == "nu" else Average(setting.horizon))
        return charts

    def starts(self, setting: Setting, steps: Floats, sgd: Schedule | None) -> dict[str, Start]:
        """Where searches start: controls at the given steps, by a name.

        Parameters
        ----------
        setting : Setting
        steps : numpy.ndarray, shape (n,)
        sgd : Schedule, optional
            Optimum of the learning rate of plain SGD.
        """
        if "eta" not in setting.controls:
            return {"held": {}}
        found: dict[str, Start] = {}
        limit = min(self.limit(setting).rate, setting.cap)
        if sgd is not None:
            eta = np.asarray(sgd(steps.astype(np.int64)), float)
            found["sgd"] = {"eta": np.minimum(eta, limit)}
        found["constant and cool-down"] = {"eta": CALM * limit * cooled(setting, steps)}
        return found

    def summary(self) -> dict[str, Any]:
        """What JSON says of it."""
        return {"optimiser": self.name}

    def __str__(self) -> str:
        return self.name


def cooled(setting: Setting, steps: Floats) -> Floats:
    """A shape: 1, and a decay to the square of the share that is left over the last fifth."""
    togo = (setting.horizon - steps) / setting.horizon
    return np.minimum(1.0, togo / COOLDOWN) ** 2
