r"""A growing batch in place of a falling rate: the ramp that a planned decay is equivalent to.

Let the updates be such that a step of rate :math:`\eta` on m samples moves the weights as far as a
step of rate :math:`\eta\, m^\kappa` would on average: :math:`\kappa = 0` for plain SGD, 1/2 for
normalised updates whose gradient is mostly noise, as its norm then falls as :math:`m^{-1/2}`. What
a sample moves is :math:`\eta\, m^{\kappa-1}`, and so is the noise of a step. A decay from
:math:`\hat\eta` to :math:`\eta = r \hat\eta` at the batch :math:`m_0` is thus equivalent to

.. math:: m = m_0 / r , \qquad \eta' = \hat\eta\, r^\kappa ,

on the same samples in fewer steps: for :math:`\kappa = 1/2`, where the rate would fall by
:math:`\alpha`, it falls by :math:`\sqrt\alpha` and the batch grows by :math:`\alpha` (Meterez et
al., "Seesaw", arXiv 2510.14717); for :math:`\kappa = 0` the rate is held (Smith et al., arXiv
1711.00489). With any other batch :math:`m'` the rate :math:`\eta\,(m'/m_0)^{1-\kappa}` does the
same, so that whole sizes cost nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from optsched.arrays import Floats
from optsched.checks import choice, positive, whole
from optsched.errors import InvalidProblem
from optsched.schedules.batches import (
    MAX_SIZE,
    BatchStage,
    allowed_sizes,
    batch_stages,
    staged_cells,
    with_batch,
)
from optsched.schedules.clock import cells_of, total_of
from optsched.schedules.schedule import Schedule

__all__ = ["RAMP_RULES", "BatchRamp", "batch_ramp"]

RAMP_RULES = {"adaptive": 0.5, "sgd": 0.0}  # kappa
DOUBLINGS = 6  # of the batch, where no sizes are listed


@dataclass(frozen=True, eq=False)
class BatchRamp:
    """A schedule of rate and batch size that is equivalent to a decay of the rate.

    Attributes
    ----------
    schedule : Schedule
        With ``eta`` and whole ``batch_size``, of its own horizon.
    rule : str
        In `RAMP_RULES`.
    stages : list of BatchStage
    steps_before : int
        Of the decay at the constant batch.
    samples, samples_before : float
        Of the ramp, and of the decay; the first may be more, by less than ``batch_size`` or one
        step of a size.
    """

    schedule: Schedule
    rule: str
    stages: list[BatchStage]
    steps_before: int
    samples: float
    samples_before: float

    @property
    def steps(self) -> int:
        """Of the ramp."""
        return self.schedule.horizon

    @property
    def saved(self) -> float:
        """Share of the serial steps that the ramp does not take."""
        return 1.0 - self.steps / self.steps_before

    @property
    def words(self) -> str:
        """The stages in a sentence."""
        parts = [f"{one.batch_size:,} to step {one.stop:,}" for one in self.stages[:-1]]
        parts.append(f"{self.stages[-1].batch_size:,} to the end")
        return "batch " + ", ".join(parts)

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict."""
        return {
            "rule": self.rule,
            "horizon": self.steps,
            "horizon_before": self.steps_before,
            "saved": self.saved,
            "samples": self.samples,
            "samples_before": self.samples_before,
            "last_rate": float(self.schedule.controls["eta"][-1]),
            "stages": [one._asdict() for one in self.stages],
            "words": self.words,
        }


def batch_ramp(
    schedule: Schedule,
    batch_size: int,
    sizes: Iterable[int] | None = None,
    *,
    rule: str = "adaptive",
    start: int = 0,
    critical: float | None = None,
) -> BatchRamp:
    r"""The ramp of whole batch sizes that is equivalent to the decay of a schedule.

    At every moment the batch is the largest allowed size with :math:`m \hat r \leq m_0`, where
    :math:`\hat r` is the largest rate from here on over the peak: it never shrinks, a warm-up and
    a restart are left as they are, and no step moves the weights further than one at the peak.
    The rate follows the size exactly (see the module).

    Parameters
    ----------
    schedule : Schedule
        Rates per step at a constant batch size; no momentum that changes.
    batch_size : int
        That size, :math:`m_0`, in samples or tokens.
    sizes : iterable of int, optional
        Allowed sizes, in the same unit; those below ``batch_size`` do not count. Doublings of it
        up to 64 times if not given.
    rule : {"adaptive", "sgd"}
        Whose updates: those of Adam and other normalised ones, or of plain SGD.
    start : int
        First step that may change: what is done before is kept.
    critical : float, optional
        Critical batch size: larger ones are left out, as the gradient is no longer mostly noise.

    Returns
    -------
    BatchRamp
        Where no size fits the decay it is the schedule itself, at the constant batch.

    Raises
    ------
    InvalidProblem
        Batch sizes in the schedule already; steps that are no updates; sizes that are not whole;
        a batch that is above the critical one to begin with.

    Notes
    -----
    Equivalent, in the sense that mean and noise of the weights are the same functions of the
    samples seen, in the limit of small rates; where a mode of curvature :math:`\lambda` turns by
    :math:`\eta\lambda` in a step, they differ by terms of that order. For ``adaptive`` also only as
    far as the noise of the gradient is above its mean (batches below the critical one), and with
    a decoupled decay of the weights scaled by :math:`\sqrt{m/m_0}`, if that matters within the
    decay of the rate.

    >>> from optsched.schedules.families import wsd
    >>> ramp = batch_ramp(wsd(1000, 1e-3, cooldown=0.2), 256, [256, 512, 1024])
    >>> ramp.words, ramp.steps
    ('batch 256 to step 900, 512 to step 926, 1,024 to the end', 938)
    """
    kappa = RAMP_RULES[choice("rule", rule, tuple(RAMP_RULES))]
    first = whole("batch_size", batch_size, 1, MAX_SIZE)
    start = whole("start", start, 0, schedule.horizon - 1)
    if "batch_size" in schedule.controls:
        raise InvalidProblem("schedule", list(schedule.controls), "one of a constant batch size")
    if sizes is None:
        wanted = np.array([first * 2**k for k in range(DOUBLINGS + 1)])
    else:
        wanted = allowed_sizes(sizes)
    if critical is not None:
        most = positive("critical", critical)
        if first > most:
            allowed = (
                f"at most the critical batch, {most:g}: above it a larger batch wastes samples"
            )
            raise InvalidProblem("batch_size", first, allowed)
        wanted = wanted[wanted <= most]
    held = with_batch(schedule.replace(beta=None, nu=None), float(first))
    larger = wanted[wanted > first]
    begins = [_first_below(schedule, start, first / int(size)) for size in larger]
    counts, used = _counted(schedule.horizon, first, begins, larger.tolist())
    staged = staged_cells(cells_of(held), np.array(counts), np.array(used))
    total = total_of(staged.steps, staged.eta)
    eta = staged.eta * (schedule.total / total) if total > 0.0 else staged.eta
    eta = eta * (first / staged.batch) ** kappa
    note = {"rule": rule, "batch_size": first, "horizon_before": schedule.horizon}
    kept = {
        name: np.interp(staged.steps, schedule.steps, schedule.controls[name])
        for name in ("beta", "nu")
        if name in schedule.controls
    }
    ramp = held.replace(
        horizon=staged.horizon,
        steps=staged.steps,
        eta=eta,
        batch_size=staged.batch,
        metadata=schedule.metadata | {"batch_ramp": note | {"of": schedule.digest}},
        **kept,
    )
    before = float(schedule.horizon) * first
    return BatchRamp(ramp, rule, batch_stages(ramp), schedule.horizon, staged.samples, before)


def _first_below(schedule: Schedule, start: int, share: float) -> int:
    """First step from ``start`` on from which no rate is above the share of the peak."""
    steps, eta = _from(schedule, start)
    level = share * float(eta.max()) * (1.0 + 1e-12)
    above = np.flatnonzero(eta > level)
    if not above.size:
        return start
    i = int(above[-1])
    if i == len(eta) - 1:
        return schedule.horizon
    # Linear down to the next knot.
    way = (eta[i] - level) / (eta[i] - eta[i + 1])
    return int(steps[i]) + max(math.ceil(way * int(steps[i + 1] - steps[i]) - 1e-9), 1)


def _from(schedule: Schedule, start: int) -> tuple[Any, Floats]:
    kept = schedule.steps > start
    return (
        np.append(start, schedule.steps[kept]),
        np.append(float(schedule(start)), schedule.controls["eta"][kept]),
    )


def _counted(
    horizon: int, first: int, begins: list[int], larger: list[int]
) -> tuple[list[int], list[int]]:
    """Steps and size of every stage, none of which begins before its place."""
    sizes = [first, *larger]
    ends = [begin * first for begin in (*begins, horizon)]
    counts, done = [0] * len(sizes), 0
    for i, (size, end) in enumerate(zip(sizes, ends, strict=True)):
        while i and size > end - done:  # not even one step: the stage before goes on
            i -= 1
            size = sizes[i]
        if end < ends[-1]:
            more = max(-(-(end - done) // size), 0)
            counts[i] += more
            done += more * size
    # What is left goes to the last size as far as it fits, then to smaller ones, at their place.
    for i in reversed(range(len(sizes))):
        if i == 0 or begins[i - 1] < horizon:
            more = max(ends[-1] - done, 0) // sizes[i]
            counts[i] += more
            done += more * sizes[i]
    counts[0] += done < ends[-1]
    kept = [i for i, count in enumerate(counts) if count]
    return [counts[i] for i in kept], [sizes[i] for i in kept]
