"""The same effective batch, the same schedule in samples: schedules at another batch size.

An update sees the mean gradient of its *effective batch*, micro-batch times accumulation times
devices; how it is made up changes nothing. What must follow it is the schedule: counted in samples
it is one and the same, and counted in updates it is compressed or stretched.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from optsched.checks import whole
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem
from optsched.rules.averaging import MovingAverage
from optsched.rules.batch.scaling import rate_factor
from optsched.schedules.exports.common import per_update
from optsched.schedules.schedule import Schedule

__all__ = ["Accumulation", "at_batch", "in_samples"]


@dataclass(frozen=True)
class Accumulation:
    """How an effective batch is made up.

    Parameters
    ----------
    micro_batch : int
        Samples of one forward and backward pass on one device.
    accumulated : int
        Passes whose gradients are averaged before an update.
    devices : int
        Data-parallel copies.

    Raises
    ------
    InvalidProblem
        One of them is not a whole number >= 1.

    Examples
    --------
    >>> Accumulation(8, accumulated=4, devices=2).effective
    64
    >>> Accumulation(8, devices=2).reaching(64)
    Accumulation(micro_batch=8, accumulated=4, devices=2)
    """

    micro_batch: int
    accumulated: int = 1
    devices: int = 1

    def __post_init__(self) -> None:
        for field in ("micro_batch", "accumulated", "devices"):
            object.__setattr__(self, field, whole(field, getattr(self, field), 1, MAX_HORIZON))

    @property
    def effective(self) -> int:
        """Samples of an update."""
        return self.micro_batch * self.accumulated * self.devices

    def reaching(self, batch: int) -> Accumulation:
        """The accumulation that makes an effective batch, with micro-batch and devices as here."""
        batch = whole("batch", batch, 1, MAX_HORIZON)
        once = self.micro_batch * self.devices
        if batch % once:
            allowed = f"a multiple of micro-batch times devices, {once}"
            raise InvalidProblem("batch", batch, allowed)
        return Accumulation(self.micro_batch, batch // once, self.devices)


def in_samples(schedule: Schedule, batch: int) -> Schedule:
    """Schedule that counts samples, from one that counts updates of a batch size.

    Parameters
    ----------
    schedule : Schedule
        In steps, without batch sizes of its own.
    batch : int
        Samples of an update.

    Returns
    -------
    Schedule
        With unit "samples" and ``batch`` times the horizon. Over the samples of an update it has
        the mean that the update had, to rounding: the inverse of
        `optsched.schedules.exports.common.per_update`.

    Raises
    ------
    InvalidProblem
        Another unit, batch sizes in the schedule, or a horizon above 10^15 samples.
    """
    batch = whole("batch", batch, 1, MAX_HORIZON)
    if schedule.unit != "steps":
        raise InvalidProblem("schedule", f"unit {schedule.unit!r}", "unit 'steps'")
    if "batch_size" in schedule.controls:
        allowed = "one without batch_size: its batch is fixed by what it says itself"
        raise InvalidProblem("schedule", list(schedule.controls), allowed)
    horizon = whole("batch", batch, 1, MAX_HORIZON // schedule.horizon) * schedule.horizon
    knots = schedule.steps
    # An update with a knot is level. Those between two knots lie on a line, through the middle of
    # each: from the first sample of the first of them to the last sample of the last.
    inner = np.flatnonzero(np.diff(knots) > 1)
    first, last = knots[inner] + 1, knots[inner + 1] - 1
    half = 0.5 * (batch - 1) / batch
    places = np.concatenate(
        [knots * batch, (knots + 1) * batch - 1, first * batch, (last + 1) * batch - 1]
    )
    steps, at = np.unique(places, return_index=True)
    controls = {}
    for name, values in schedule.controls.items():
        slope = np.diff(values)[inner] / np.diff(knots)[inner]
        before = values[inner] + (1.0 - half) * slope
        after = values[inner + 1] - (1.0 - half) * slope
        controls[name] = np.concatenate([values, values, before, after])[at]
    return schedule.replace(horizon=horizon, steps=steps, controls=controls, unit="samples")


def at_batch(
    schedule: Schedule,
    batch: int,
    from_batch: int,
    *,
    rule: str | None = None,
    noise_scale: float | None = None,
) -> Schedule:
    r"""The same schedule in samples, for updates of another batch size.

    Parameters
    ----------
    schedule : Schedule
        In updates of ``from_batch`` samples.
    batch, from_batch : int
        Effective batch sizes: see `Accumulation`.
    rule : str, optional
        Rule that scales the rate, of `optsched.rules.batch.scaling.rate_factor`; default: none, the
        rate at each sample stays.
    noise_scale : float, optional
        For rules that need it.

    Returns
    -------
    Schedule
        In updates of ``batch``; the last may cover fewer samples. Update j has the mean over its
        samples, times the factor of the rule. A decay ``ema`` becomes
        :math:`\rho^{B/B_0}`, so that it forgets as much a sample; ``beta`` and ``nu`` stay.
        ``metadata["at_batch"]`` has ``batch``, ``from_batch``, ``rule``, ``factor``, and ``of``,
        the digest of ``schedule``.

    Raises
    ------
    InvalidProblem
        As in `in_samples` and `rate_factor`.
    """
    counted = in_samples(schedule, from_batch)
    moved = per_update(counted, batch)
    factor = 1.0
    if rule is not None:
        factor = float(rate_factor(batch, from_batch, rule, noise_scale))
    changes = {"eta": moved.controls["eta"] * factor}
    if "ema" in moved.controls:
        decays = moved.controls["ema"]
        changes["ema"] = np.array(
            [MovingAverage(d).scaled(batch, from_batch).decay for d in decays.tolist()]
        )
    note = {"batch": batch, "from_batch": from_batch, "rule": rule, "factor": factor}
    note["of"] = schedule.digest
    return moved.replace(**changes, metadata=schedule.metadata | {"at_batch": note})
