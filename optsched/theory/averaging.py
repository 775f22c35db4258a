r"""Exponential moving averages: their half-life, window, bias, and how they scale with the batch.

:math:`\bar w_{t+1} = d\, \bar w_t + (1 - d)\, w_{t+1}` gives the iterate of k steps ago the weight
:math:`(1 - d)\, d^k`. Everything here follows from these weights; `optsched.studies.averaging` asks
what such an average is worth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from optsched.errors import InvalidProblem
from optsched.theory.checks import at_least, decay, positive

__all__ = ["MovingAverage"]


@dataclass(frozen=True)
class MovingAverage:
    r"""An exponential moving average.

    Parameters
    ----------
    decay : float
        d in [0, 1); 0 is no averaging. A double holds :math:`1 - d` to within
        :math:`10^{-16}`: half-lives beyond :math:`10^{12}` steps lose digits.

    Raises
    ------
    InvalidProblem
        ``decay`` is not in [0, 1).

    Examples
    --------
    >>> average = MovingAverage(0.999)
    >>> round(average.half_life), round(average.window), round(average.lag)
    (693, 1000, 999)
    >>> MovingAverage.from_half_life(693).decay
    0.999000287...
    """

    decay: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "decay", decay("decay", self.decay))

    @classmethod
    def from_half_life(cls, steps: float) -> MovingAverage:
        r"""The average whose weights halve in so many steps: :math:`d = 2^{-1/h}`."""
        return cls(_below_one("half_life", steps, math.exp2(-1.0 / positive("half_life", steps))))

    @classmethod
    def from_time_constant(cls, steps: float) -> MovingAverage:
        r"""The average whose weights fall by e in so many steps: :math:`d = e^{-1/\tau}`."""
        tau = positive("time_constant", steps)
        return cls(_below_one("time_constant", steps, math.exp(-1.0 / tau)))

    @classmethod
    def from_window(cls, steps: float) -> MovingAverage:
        r"""The average of so many steps' window, >= 1: :math:`d = 1 - 1/W`."""
        return cls(_below_one("window", steps, 1.0 - 1.0 / at_least("window", steps, 1.0)))

    @property
    def half_life(self) -> float:
        r"""Steps in which the weights halve, :math:`\log 2 / \log(1/d)`."""
        return math.log(2.0) * self.time_constant

    @property
    def time_constant(self) -> float:
        r"""Steps in which the weights fall by e, :math:`1 / \log(1/d)`; about ``window - 1/2``."""
        return -1.0 / math.log(self.decay) if self.decay > 0.0 else 0.0

    @property
    def window(self) -> float:
        """Effective window 1 / (1 - d): one over the weight of the newest iterate."""
        return 1.0 / (1.0 - self.decay)

    @property
    def lag(self) -> float:
        """Mean age of what is averaged, d / (1 - d) steps."""
        return self.decay / (1.0 - self.decay)

    @property
    def samples(self) -> float:
        r"""Independent iterates whose mean has the same variance.

        One over the sum of the squared weights: (1 + d) / (1 - d), about twice the window.
        """
        return (1.0 + self.decay) / (1.0 - self.decay)

    def memory(self, steps: float) -> float:
        """Weight :math:`d^t` that the start still has after t >= 0 updates."""
        return self.decay ** at_least("steps", steps, 0.0)

    def correction(self, steps: float) -> float:
        r"""Factor :math:`1/(1 - d^t)` that undoes a start at zero, after t > 0 updates.

        Kingma & Ba, arXiv 1412.6980, section 3 (:math:`\hat m_t = m_t / (1 - \beta_1^t)`). Exact
        where what is averaged has a constant mean. Not for weights that start at an initialisation:
        there the start is a point of the run, and early averages are better with a smaller d.
        """
        steps = positive("steps", steps)
        return -1.0 / math.expm1(steps * math.log(self.decay)) if self.decay > 0.0 else 1.0

    def scaled(self, batch: float, from_batch: float) -> MovingAverage:
        r"""The same average in samples at another batch size: :math:`d^{B/B_0}`.

        Busbridge et al., arXiv 2307.13813 ("How to scale your EMA"): with a batch
        :math:`\kappa` times as large and a rate :math:`\kappa` times as large (SGD), one update
        moves as far as :math:`\kappa` did, and the average forgets as much in it. Exact for the
        weights per sample, where the batch divides; the trajectory follows as long as the scaling
        of the rate holds (see `optsched.theory.noise_scale`).
        """
        ratio = positive("batch", batch) / positive("from_batch", from_batch)
        return MovingAverage(_below_one("batch", batch, self.decay**ratio))

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict."""
        names = ("decay", "half_life", "time_constant", "window", "lag", "samples")
        return {name: getattr(self, name) for name in names}


def _below_one(field: str, value: Any, found: float) -> float:
    if found == 1.0:
        raise InvalidProblem(field, value, "a decay that a double can tell from 1, up to 1e15")
    return found
