r"""Moving averages of the weights: half-life, window, bias, batch size; averages for decays.

:math:`\bar w_{t+1} = d\, \bar w_t + (1 - d)\, w_{t+1}` gives the iterate of k steps ago the weight
:math:`(1 - d)\, d^k`. Everything here follows from these weights;
`optsched.studies.averaging.against_decay` asks what such an average is worth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from optsched.checks import at_least, decay, positive, whole
from optsched.controls import MAX_DENSE
from optsched.errors import InvalidProblem
from optsched.schedules.schedule import Schedule

__all__ = ["MovingAverage", "average_for", "decay_for"]


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

    @classmethod
    def for_linear_decay(cls, steps: float) -> MovingAverage:
        r"""The average that takes the place of a linear decay to zero over n steps.

        That decay weighs gradients as the uniform average of the last n iterates does (see
        `average_for`). :math:`d = (n-1)/(n+1)` has the same lag, :math:`(n-1)/2`, and is as quiet,
        n independent iterates: both at once. It does not end where the uniform average does: after
        n updates the start still weighs :math:`d^n`, about :math:`e^{-2}`, so n has to be well
        below the length of the run.
        """
        steps = at_least("steps", steps, 1.0)
        return cls(_below_one("steps", steps, (steps - 1.0) / (steps + 1.0)))

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
        of the rate holds (see `optsched.rules.batch.noise_scale`).
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


def average_for(schedule: Schedule) -> Schedule:
    r"""Hold the rate at its peak, and average so that gradients weigh as under the decay.

    With gradients held fixed, the average :math:`\sum_i c_i w_i` of iterates at the rate
    :math:`\hat\eta` is the iterate under the rates

    .. math:: \eta_t = \hat\eta \sum_{i>t} c_i, \qquad\text{so}\qquad
       \rho_t = \frac{1 - \eta_t/\hat\eta}{1 - \eta_{t+1}/\hat\eta}, \quad \eta_T = 0 .

    A linear decay becomes :math:`\rho_t = t/(t+1)`, the uniform average.

    Parameters
    ----------
    schedule : Schedule
        Rates that do not rise after their peak; what comes before it, a warm-up, is kept.

    Returns
    -------
    Schedule
        With ``eta`` and ``ema``; as `optsched.model.qhm` has it, update t uses the values of
        step t.

    Raises
    ------
    InvalidProblem
        A rate that rises after the peak, or is zero everywhere; averages in the schedule already;
        more than 10^8 steps.

    Notes
    -----
    Sandler et al., arXiv 2301.02312; Tian et al., arXiv 2507.17634 (WSM, checkpoint merging).
    Real gradients are those of other iterates, so the two runs differ:
    `optsched.studies.averaging.decay_average` says by how much on the model.

    >>> average_for(Schedule.from_array([1.0, 1.0, 0.75, 0.5, 0.25])).ema.round(3).tolist()
    [0.0, 0.0, 0.5, 0.667, 0.75]
    """
    if "ema" in schedule.controls:
        raise InvalidProblem("schedule", list(schedule.controls), "one without averages of its own")
    whole("schedule", schedule.horizon, 1, MAX_DENSE)
    eta = schedule.eta
    peak = schedule.peak
    if not peak > 0.0:
        raise InvalidProblem("schedule", "rate 0 at every step", "a positive rate somewhere")
    top = int(np.flatnonzero(eta == peak)[-1])
    rises = np.flatnonzero(np.diff(eta[top:]) > 0.0)
    if rises.size:
        at = top + int(rises[0])
        raise InvalidProblem("schedule", float(eta[at + 1]), f"at most {eta[at]:.6g}, at {at + 1}")
    # Weight of the iterates up to t; before the decay begins there is none.
    done = 1.0 - np.append(eta, 0.0) / peak
    done[: top + 1] = 0.0
    ema = np.divide(done[:-1], done[1:], out=np.zeros_like(eta), where=done[1:] > 0.0)
    # Where the rate is zero for long, the average stands still; its decay has to stay below 1.
    ema = np.minimum(ema, np.nextafter(1.0, 0.0))
    held = np.where(np.arange(len(eta)) > top, peak, eta)
    controls = dict(schedule.controls) | {"eta": held, "ema": ema}
    dense = {name: schedule.array(name) for name in schedule.controls if name != "eta"}
    note = schedule.metadata | {"average_for": schedule.digest}
    return schedule.replace(
        steps=np.arange(schedule.horizon), controls=controls | dense, metadata=note
    )


def decay_for(average: MovingAverage, rate: float, horizon: int) -> Schedule:
    r"""Rates under which gradients weigh as in an average at a constant rate.

    :math:`\eta_t = \eta\,(1 - d^{T-t})`: what `average_for` undoes. The average holds the share
    :math:`d^T` of the start.

    Parameters
    ----------
    average : MovingAverage
    rate : float
    horizon : int
        Number of steps T, at most 10^8.
    """
    horizon = whole("horizon", horizon, 1, MAX_DENSE)
    left = horizon - np.arange(horizon)
    return Schedule.from_array(positive("rate", rate) * (1.0 - average.decay**left))
