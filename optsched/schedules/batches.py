r"""Learning rate and batch size that trade against each other, and batch sizes a cluster can run.

In intrinsic time :math:`\tau = \int \eta\, dt` small-rate SGD sees the batch size only through
:math:`r = m/\eta`: the noise is :math:`1/r`, and the samples are :math:`\int r\, d\tau`. So any
clock :math:`n(\tau)` may count the steps: with ``r`` kept, a step from n to n + 1 has as its rate
the intrinsic time that passes, and as its batch the samples that pass. Every function here is a
choice of that clock; both sums are kept because they telescope.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.checks import is_number, whole
from optsched.errors import InvalidProblem
from optsched.schedules.clock import Cells, cells_of, knot_steps_at, passed, total_of
from optsched.schedules.schedule import Schedule

__all__ = [
    "BatchStage",
    "Staged",
    "allowed_sizes",
    "batch_stages",
    "degenerate_family",
    "divisors",
    "integer_batches",
    "staged_cells",
    "with_batch",
]


MAX_SIZE = 2**53  # larger whole numbers are not exact as floats
MAX_DIVIDED = 10**12
ROUNDING = 1e-9  # relative, of a rate at its bound


class BatchStage(NamedTuple):
    """Steps ``start .. stop - 1`` share a batch size."""

    start: int
    stop: int
    batch_size: int


def degenerate_family(
    schedule: Schedule,
    batch_size: float | None = None,
    *,
    members: int = 5,
    rate: float | None = None,
) -> list[Schedule]:
    r"""Schedules of rate and batch size that reach the same loss with the same samples.

    At a fixed number of samples, optimality fixes only :math:`m/\eta` as a function of intrinsic
    time. Member :math:`\theta \in [0, 1]` is

    .. math:: \eta_\theta(\tau) = \eta(\tau)^{1-\theta} c^\theta, \qquad
       m_\theta = m\, \eta_\theta / \eta, \qquad dt_\theta = d\tau / \eta_\theta .

    :math:`\theta = 0` is the schedule itself. :math:`\theta = 1` holds the rate and grows the
    batch: in the easy phase a decay :math:`(1-t/T)^{2b-1}` becomes a ramp
    :math:`m \propto (T_1-t)^{1/(2b)-1}` with far fewer steps.

    Parameters
    ----------
    schedule : Schedule
        Rates per step, and maybe batch sizes; no momentum.
    batch_size : float, optional
        Constant batch size m >= 1 of a schedule that has none of its own.
    members : int
        How many, at least 2; :math:`\theta` is spaced evenly from 0 to 1.
    rate : float, optional
        The rate c; by default the largest of the schedule. A smaller one needs a batch size that
        is large enough to shrink.

    Returns
    -------
    list of Schedule
        With controls ``eta`` and ``batch_size`` (a real number >= 1: see `integer_batches`), each
        of its own horizon. ``metadata["degenerate_family"]`` has ``theta``, the ``rate`` c that
        makes the number of steps whole, ``samples``, and ``of``, the digest of ``schedule``.

    Raises
    ------
    InvalidProblem
        No batch size or two of them; momentum; steps that are not update steps; a schedule
        without any positive rate; ``rate`` so small that a batch would be below one sample.

    Notes
    -----
    Bordelon & Mori, arXiv 2602.04774 (degenerate optimality condition).

    Rates and batch sizes sum to what they sum to in ``schedule``, to rounding. The number of steps
    is rounded up and c lowered to fit; only where that would need a batch below 1 it is rounded
    down, and rates exceed c by less than one step's share. A step's batch is the samples of the
    intrinsic time that it covers: finite where the rate decays to 0. Steps of rate 0 join others.

    Losses are equal at small rates; the recursion adds terms of order :math:`\eta\lambda_1` at the
    end, where members differ most. Measured on optimal schedules of 20000 steps (200 features,
    :math:`\lambda_1 = 1`, noise 0.5): excess loss of :math:`\theta = 1` (0.75) above
    :math:`\theta = 0` at a = 2.5, b = 1.5, m = 64: 0.12 % (0.05 %) for a peak rate of 0.1, 0.31 %
    (0.10 %) for 0.2, 1.0 % (0.2 %) for 0.5, 3.7 % (0.4 %) for 1.0, 11 % (0.6 %) for 1.35; at
    a = 1.5, b = 3, m = 8: 0.15 % (0.02 %) for 1.0, 1.5 % (0.1 %) for 1.5.
    """
    members = whole("members", members, 2, 1000)
    schedule = with_batch(schedule, batch_size)
    if rate is None:
        rate = schedule.peak
    if not is_number(rate) or not 0.0 < rate < np.inf:
        raise InvalidProblem("rate", rate, "a finite number > 0")
    cells = cells_of(schedule)
    return [_member(schedule, cells, float(t), float(rate)) for t in np.linspace(0, 1, members)]


def _member(schedule: Schedule, cells: Cells, theta: float, rate: float) -> Schedule:
    """One member of the degenerate family."""
    if theta == 0.0:
        return _noted(schedule, theta, rate, schedule)
    clock = _clock(cells, theta, rate)
    length = float(clock.sum())
    # A sum that is whole but for rounding must not gain a step.
    for horizon in (math.ceil(length * (1.0 - 1e-10)), math.floor(length)):
        horizon = max(horizon, 1)
        steps, eta, batch = _resample(cells, theta, clock * (horizon / length), horizon)
        if batch.min() >= 1.0 - 1e-9:
            break
    else:
        least = float((schedule.controls["eta"] / schedule.controls["batch_size"]).max())
        allowed = f"at least {least:.6g}, or a larger batch size: a batch would be below 1 sample"
        raise InvalidProblem("rate", rate, allowed)
    if theta == 1.0:
        eta = np.full(len(steps), schedule.total / horizon)
    # Between knots that are far apart the interpolation costs about 1e-5 of the sums.
    eta = eta * (schedule.total / total_of(steps, eta))
    over = np.maximum(batch, 1.0) - 1.0
    spare, wanted = total_of(steps, over), _samples(schedule) - horizon
    batch = 1.0 + over * (max(wanted, 0.0) / spare if spare > 0.0 else 0.0)
    member = schedule.replace(horizon=horizon, steps=steps, eta=eta, batch_size=batch)
    return _noted(member, theta, rate * (length / horizon) ** (1.0 / theta), schedule)


def _noted(member: Schedule, theta: float, rate: float, source: Schedule) -> Schedule:
    note = {"theta": theta, "rate": rate, "samples": _samples(member), "of": source.digest}
    return member.replace(metadata=source.metadata | {"degenerate_family": note})


def _clock(cells: Cells, theta: float, rate: float) -> Floats:
    """Steps that a member takes in each cell: the sum of (eta/c)^theta over the cell's steps."""
    # Two-point Gauss rule for a sum over whole steps, as fractions of the way to the last step.
    spread = np.sqrt((cells.steps**2 - 1.0) / 12.0) / np.maximum(cells.steps - 1.0, 1.0)
    half = (cells.eta[1] - cells.eta[0]) * spread
    nodes = np.maximum(cells.tau / cells.steps + np.stack([-half, half]), 0.0)
    return 0.5 * cells.steps * ((nodes / rate) ** theta).sum(0)


def _resample(
    cells: Cells, theta: float, clock: Floats, horizon: int
) -> tuple[Ints, Floats, Floats]:
    """Knots of a member, and its rates and batch sizes there."""
    kept = clock > 0.0
    # What happens while the clock stands belongs to the cell before (the first: after).
    owner = np.maximum(np.cumsum(kept) - 1, 0)
    clock = clock[kept]
    spent = [np.bincount(owner, x).astype(np.float64) for x in (cells.tau, cells.samples)]
    rates = np.stack(cells.eta)[:, kept] / cells.eta[0].max()
    with np.errstate(divide="ignore", over="ignore"):
        noise = np.stack(cells.batch)[:, kept] * rates**-theta
    ends = np.concatenate([[0.0], np.cumsum(clock)])
    steps = knot_steps_at(np.floor(ends).astype(np.int64), horizon)
    eta = passed(clock, spent[0], rates ** (1.0 - theta), steps, steps + 1)
    return steps, eta, passed(clock, spent[1], noise, steps, steps + 1)


def integer_batches(
    schedule: Schedule, sizes: Iterable[int], *, eta_max: float | None = None
) -> Schedule:
    r"""Round the batch sizes to allowed ones, and match the rates and the number of steps.

    At every intrinsic time the batch size m becomes the allowed size :math:`m'` nearest to it in
    ratio, and the rate :math:`\eta' = \eta\, m'/m`, so that noise and samples per intrinsic time
    stay: only the number of steps changes, :math:`dt' = dt\, m/m'`.

    Parameters
    ----------
    schedule : Schedule
        With a ``batch_size``; no momentum.
    sizes : iterable of int
        Allowed batch sizes, in any order: powers of two, or `divisors` of a number.
    eta_max : float, optional
        Bound of the matched rates. Where the nearest size would need more, the largest one that
        does not is taken. Where none is small enough it gets more samples than the rest, of which
        there are so many less; only where all of them do not suffice, rates are cut.

    Returns
    -------
    Schedule
        ``batch_size`` is constant but for jumps between neighbouring steps (see `batch_stages`).
        ``metadata["integer_batches"]`` has ``sizes`` (those in use), ``stages``, ``samples`` and
        ``samples_before``, ``horizon_before``, ``of`` (digest of ``schedule``), and
        ``rate_factor_min`` and ``rate_factor_max``, the range of :math:`\eta'/\eta`, and ``cut``,
        the share of the intrinsic time that a bound of the rate took away.

    Raises
    ------
    InvalidProblem
        No batch sizes in the schedule; momentum; steps that are not update steps; ``sizes``
        empty, not whole or below 1; ``eta_max`` not positive.

    Notes
    -----
    The matching rule is that of `degenerate_family` (Bordelon & Mori, arXiv 2602.04774). Rates sum
    to what they did, to rounding, unless a bound cuts them; samples to within half of the smallest
    size in use (by a few more steps of smaller sizes), or half of the largest where this would take
    over 1 % more steps. Where sizes are far from m the rates move by the factors in the metadata:
    mind the peak.

    Powers of two against the ramp of :math:`\theta = 1`, in the problems of `degenerate_family`:
    within 0.03 % of its loss for peak rates up to 0.24, 0.3 % at 0.5, 1.4 % at 1.0 (a = 2.5,
    b = 1.5). At a = 1.5, b = 3, m = 8 and rate 1.5, rounding up takes the rate to 2.1: 16 % worse.
    """
    allowed = allowed_sizes(sizes)
    if "batch_size" not in schedule.controls:
        message = "a schedule with batch_size: use replace(batch_size=...) or degenerate_family"
        raise InvalidProblem("schedule", list(schedule.controls), message)
    schedule = with_batch(schedule, None)
    if eta_max is not None and not (is_number(eta_max) and 0.0 < eta_max < np.inf):
        raise InvalidProblem("eta_max", eta_max, "a finite number > 0")
    # Nearest in ratio: the sizes part at their geometric means.
    parting = np.sqrt(allowed[:-1]) * np.sqrt(allowed[1:])
    cells = cells_of(schedule, parting)
    if eta_max is not None:
        cells = _shared(cells, int(allowed[0]) / eta_max)
    samples = cells.samples
    nearest = np.searchsorted(parting, samples / cells.steps, side="right")
    if eta_max is not None:
        most = samples * (eta_max * (1.0 + ROUNDING))
        possible = allowed[:, None] * cells.tau <= most
        nearest = np.minimum(nearest, np.maximum(possible.sum(0) - 1, 0))
    stages = _stages(np.cumsum(samples), allowed[nearest], allowed)
    counts, used = (np.array(column, dtype=np.int64) for column in zip(*stages, strict=True))
    staged = staged_cells(cells, counts, used)
    begin, ends, eta, after = staged.begin, staged.ends, staged.eta, staged.samples

    at = np.searchsorted(begin, 0.5 * (ends[:-1] + ends[1:]), side="right") - 1
    factors = used[np.clip(at, 0, len(used) - 1)] / np.stack(cells.batch)
    note = {"sizes": np.unique(used), "stages": len(used), "samples": after}
    note |= {"samples_before": _samples(schedule), "horizon_before": schedule.horizon}
    note |= {"rate_factor_min": factors.min(), "rate_factor_max": factors.max()}
    note |= {"of": schedule.digest}
    total = total_of(staged.steps, eta)
    eta = eta * (schedule.total / total) if total > 0.0 else eta
    if eta_max is not None:
        eta = np.minimum(eta, eta_max)
        note["cut"] = max(1.0 - total_of(staged.steps, eta) / schedule.total, 0.0)
    return schedule.replace(
        horizon=staged.horizon,
        steps=staged.steps,
        eta=eta,
        batch_size=staged.batch,
        metadata=schedule.metadata | {"integer_batches": note},
    )


class Staged(NamedTuple):
    """Cells played in stages of equal batch sizes; noise and samples per intrinsic time stay.

    Attributes
    ----------
    horizon : int
    steps, eta, batch : numpy.ndarray, shape (n,)
        Knots, with intrinsic time and samples of a step there.
    begin : numpy.ndarray, shape (stages + 1,)
        Samples before every stage, and all.
    ends : numpy.ndarray, shape (cells + 1,)
        Samples before every cell, and all.
    samples : float
    """

    horizon: int
    steps: Ints
    eta: Floats
    batch: Ints
    begin: Floats
    ends: Floats
    samples: float


def staged_cells(cells: Cells, counts: Ints, used: Ints) -> Staged:
    """Play cells in stages of ``counts`` steps with the batch sizes ``used``."""
    horizon, after = int(counts.sum()), float((counts.astype(float) * used).sum())
    first = np.concatenate([[0], np.cumsum(counts)])
    begin = np.concatenate([[0.0], np.cumsum(counts.astype(float) * used)])

    # The clock of the new schedule counts samples; the last step is whole, so stretch to fit.
    width = cells.samples * (after / float(cells.samples.sum()))
    ends = np.concatenate([[0.0], np.cumsum(width)])
    stage = np.clip(np.searchsorted(begin, ends, side="right"), 1, len(counts)) - 1
    places = first[stage] + ((ends - begin[stage]) / used[stage]).astype(np.int64)
    steps = knot_steps_at(np.concatenate([first, places]), horizon)
    stage = np.searchsorted(first, steps, side="right") - 1
    start = begin[stage] + (steps - first[stage]) * used[stage].astype(np.float64)
    slopes = np.stack(cells.eta) / np.stack(cells.batch)
    eta = passed(width, cells.tau, slopes, start, start + used[stage])
    return Staged(horizon, steps, eta, used[stage], begin, ends, after)


def _shared(cells: Cells, least: float) -> Cells:
    """Cells with at least so many samples per intrinsic time, and as many in all.

    Where they do not suffice all have the same share of what they need. Noise is inverse to the
    samples, so that the best shares above a bound are the old ones scaled.
    """
    samples, need = cells.samples, least * cells.tau
    total = float(samples.sum())
    if not (samples < need).any():
        return cells
    if total <= float(need.sum()):
        shared = need + ROUNDING * samples  # where the rate is 0 nothing is needed
    else:
        low, high = 0.0, 1.0
        for _ in range(60):
            scale = 0.5 * (low + high)
            enough = float(np.maximum(scale * samples, need).sum()) > total
            low, high = (low, scale) if enough else (scale, high)
        shared = np.maximum(low * samples, need)
    factor = shared * (total / float(shared.sum())) / samples
    first, last = cells.batch
    return cells._replace(samples=factor * samples, batch=(factor * first, factor * last))


def _stages(ends: Floats, wanted: Ints, allowed: Ints) -> list[tuple[int, int]]:
    """Whole numbers of steps, and their batch size, that follow the wanted sizes.

    A stage starts where the one before has ended after its whole steps, so errors do not add up.
    """
    last = np.append(np.flatnonzero(np.diff(wanted)), len(wanted) - 1)
    stages: list[tuple[int, int]] = []
    done = 0
    for end, size in zip(ends[last].tolist(), wanted[last].tolist(), strict=True):
        count = round((end - done) / size)
        if count <= 0:
            continue
        done += count * size
        if stages and stages[-1][1] == size:
            count += stages.pop()[0]
        stages.append((count, size))
    if not stages:
        # Fewer samples than half a batch: one step of the size that is nearest.
        return [(1, int(allowed[np.argmin(np.abs(np.log(allowed / ends[-1])))]))]
    return _filled(stages, ends[-1] - done)


def _filled(stages: list[tuple[int, int]], missing: float) -> list[tuple[int, int]]:
    """Stages with the samples that the last one could not match put into smaller batches.

    They go to the last stage of their size, so that no stage is added and a ramp stays a ramp.
    """
    counts, sizes = ([*column] for column in zip(*stages, strict=True))
    steps = sum(counts)
    if missing < 0.0 and steps > 1:
        counts[-1] -= 1
        missing += sizes[-1]
    smallest = min(sizes)
    for size in sorted(set(sizes), reverse=True):
        more = round(missing / size) if size == smallest else max(int(missing // size), 0)
        at = len(sizes) - 1 - sizes[::-1].index(size)
        more = max(more, -counts[at])
        counts[at] += more
        missing -= more * size
    # Sizes that are far apart would take many steps for few samples.
    if not 0 < sum(counts) <= 1.01 * steps + 16:
        return stages
    return [(count, size) for count, size in zip(counts, sizes, strict=True) if count]


def allowed_sizes(sizes: Iterable[int]) -> Ints:
    """Allowed batch sizes, increasing."""
    try:
        given = list(sizes)
    except TypeError:
        raise InvalidProblem("sizes", sizes, "a collection of whole numbers >= 1") from None
    if not given:
        raise InvalidProblem("sizes", given, "at least one size")
    return np.unique([whole("sizes", size, 1, MAX_SIZE) for size in given])


def divisors(n: int) -> list[int]:
    """Divisors of a whole number n, 1 to 10^12, increasing: batch sizes that divide evenly."""
    n = whole("n", n, 1, MAX_DIVIDED)
    low = np.arange(1, math.isqrt(n) + 1)
    low = low[n % low == 0]
    return np.unique(np.concatenate([low, n // low])).tolist()


def batch_stages(schedule: Schedule) -> list[BatchStage]:
    """Runs of steps that share a batch size, as a training loop wants them.

    Parameters
    ----------
    schedule : Schedule
        With whole batch sizes that are constant but for jumps between neighbouring steps, as
        `integer_batches` returns it.

    Returns
    -------
    list of BatchStage
        ``(start, stop, batch_size)``: steps ``start .. stop - 1``; they cover the schedule in
        order. With micro-batches of k samples, accumulate ``batch_size // k`` gradients.

    Raises
    ------
    InvalidProblem
        No batch sizes; one that is not whole, or that changes gradually.
    """
    if "batch_size" not in schedule.controls:
        raise InvalidProblem("schedule", list(schedule.controls), "a schedule with batch_size")
    sizes, steps = schedule.controls["batch_size"], schedule.steps
    bad = sizes != np.floor(sizes)
    if bad.any():
        raise InvalidProblem("batch_size", float(sizes[bad][0]), "whole: use integer_batches")
    jump = np.diff(sizes) != 0.0
    slow = np.flatnonzero(jump & (np.diff(steps) > 1))
    if slow.size:
        between = f"steps {steps[slow[0]]} to {steps[slow[0] + 1]}"
        allowed = "a jump from one step to the next: use integer_batches"
        raise InvalidProblem("batch_size", f"a gradual change, {between}", allowed)
    starts = np.concatenate([[0], np.flatnonzero(jump) + 1])
    stops = [*steps[starts[1:]].tolist(), schedule.horizon]
    each = sizes[starts].astype(np.int64).tolist()
    return [*map(BatchStage, steps[starts].tolist(), stops, each)]


def with_batch(schedule: Schedule, batch_size: float | None) -> Schedule:
    """Check a schedule, and give it a batch size if it has none."""
    momentum = [name for name in ("beta", "nu") if name in schedule.controls]
    if momentum:
        allowed = "eta and batch_size only, as momentum has a clock of its own: drop the others"
        raise InvalidProblem("schedule", list(schedule.controls), allowed)
    if schedule.unit != "steps":
        raise InvalidProblem("schedule", f"unit {schedule.unit!r}", "unit 'steps'")
    if schedule.peak <= 0.0:
        raise InvalidProblem("schedule", "rate 0 at every step", "a positive rate somewhere")
    if "batch_size" in schedule.controls:
        if batch_size is not None:
            allowed = "None, as the schedule has batch sizes of its own"
            raise InvalidProblem("batch_size", batch_size, allowed)
        return schedule
    if batch_size is None or not is_number(batch_size) or not 1.0 <= batch_size < np.inf:
        allowed = "a finite number >= 1, as the schedule has no batch size of its own"
        raise InvalidProblem("batch_size", batch_size, allowed)
    return schedule.replace(batch_size=float(batch_size))


def _samples(schedule: Schedule) -> float:
    return total_of(schedule.steps, schedule.controls["batch_size"])
