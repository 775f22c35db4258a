r"""A cooldown as a merge of checkpoints: hold the rate, and weigh what was saved on the way.

With checkpoints :math:`\theta_{t_j}` of a run at the held rate :math:`\hat\eta` and weights
:math:`c_j \geq 0` that sum to 1, and its updates :math:`u_i = \theta_{i+1} - \theta_i`,

.. math:: \sum_j c_j \theta_{t_j} = \theta_{t_0} + \sum_{i \geq t_0} \Big(\sum_{j:\, t_j > i}
   c_j\Big) u_i ,

so that update i counts as if its rate were :math:`\hat\eta \sum_{t_j > i} c_j` (Tian et al., "WSM",
arXiv 2507.17634). Between two checkpoints that share is one number: the mean of the planned rate
there over the peak, which keeps the sum of the rates.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.checks import integers, whole
from optsched.controls import MAX_DENSE
from optsched.errors import InvalidProblem
from optsched.schedules.clock import total_of
from optsched.schedules.exports.common import check_exportable
from optsched.schedules.schedule import Schedule

__all__ = ["MERGE_SUFFIXES", "MergeWeights", "merge_weights"]

MERGE_SUFFIXES = (".csv", ".json", ".py")
COUNT = 20  # checkpoints within the cooldown
MOST = 100_000
FORMAT = "optsched merge weights"


@dataclass(frozen=True, eq=False)
class MergeWeights:
    """Checkpoints of a held run, with the weights that act as a decay.

    Attributes
    ----------
    steps : numpy.ndarray of int64, shape (k,)
        Numbers of updates done at the checkpoints, increasing.
    weights : numpy.ndarray, shape (k,)
        Not negative; they sum to 1.
    schedule : Schedule
        The one with the decay.
    begin : int
        Last step at the peak: from there on the rate is held.
    error : float
        Largest difference between the rates that the merge acts as and those of the schedule,
        over the peak: what few checkpoints cost.
    """

    steps: Ints
    weights: Floats
    schedule: Schedule
    begin: int
    error: float

    @property
    def held(self) -> Schedule:
        """The run to train, up to the last checkpoint: the peak is held where the other decays."""
        eta, end = self.schedule.controls["eta"], int(self.steps[-1])
        keep = (self.schedule.steps <= self.begin) & (self.schedule.steps < end)
        steps = np.append(self.schedule.steps[keep], end - 1)
        rates = np.append(eta[keep], self.schedule.peak if end > self.begin else eta[keep][-1])
        steps, first = np.unique(steps, return_index=True)
        return Schedule.from_knots(steps, eta=rates[first], horizon=end)

    @property
    def average(self) -> Schedule:
        """The same as a moving average with the decay ``ema``, as the model replays it."""
        held = self.held
        whole("horizon", held.horizon, 1, MAX_DENSE)
        share = self.weights / np.maximum(np.cumsum(self.weights), 1e-300)
        ema = np.full(held.horizon, np.nextafter(1.0, 0.0))
        used = self.steps > 0
        ema[self.steps[used] - 1] = np.minimum(1.0 - share[used], np.nextafter(1.0, 0.0))
        return held.replace(steps=np.arange(held.horizon), eta=held.eta, ema=ema)

    def text(self, suffix: str) -> str:
        """The weights as ``.csv``, ``.json`` or ``.py``, code for torch that merges."""
        pairs = list(zip(self.steps.tolist(), self.weights.tolist(), strict=True))
        if suffix == ".csv":
            return "step,weight\n" + "".join(f"{step},{weight!r}\n" for step, weight in pairs)
        if suffix == ".json":
            told = {
                "format": FORMAT,
                "peak": self.schedule.peak,
                "hold_from": self.begin,
                "train_to": int(self.steps[-1]),
                "checkpoints": [{"step": step, "weight": weight} for step, weight in pairs],
            }
            return json.dumps(told, indent=1) + "\n"
        if suffix != ".py":
            raise InvalidProblem("suffix", suffix, "one of " + ", ".join(MERGE_SUFFIXES))
        rows = "".join(f"    {step}: {weight!r},\n" for step, weight in pairs)
        held = f"{self.schedule.peak:.6g} held from step {self.begin:,} to {self.steps[-1]:,}"
        return CODE.replace("HELD", held).replace("    ROWS\n", rows)


def merge_weights(
    schedule: Schedule,
    *,
    every: int | None = None,
    checkpoints: int | Iterable[int] | None = None,
) -> MergeWeights:
    r"""Weights of checkpoints of the held run that act as the final decay of a schedule.

    Parameters
    ----------
    schedule : Schedule
        In updates, with rates that do not rise after their peak, and no batch sizes or averages.
    every : int, optional
        A checkpoint every so many updates, counted back from the end.
    checkpoints : int or iterable of int, optional
        How many of them in the cooldown, evenly, 20 if nothing is given; or the numbers of updates
        done at those that there are.

    Returns
    -------
    MergeWeights
        :math:`c_j = s_j - s_{j+1}`, with :math:`s_j` the mean rate over that of the held run, of
        the updates between checkpoints j - 1 and j; 1 before the first, 0 behind the last.
        Checkpoints without a weight are left out.

    Raises
    ------
    InvalidProblem
        A rate that rises after the peak or is nowhere positive; other controls; checkpoints that do
        not increase or lie outside of the run; both of ``every`` and ``checkpoints``.

    Notes
    -----
    The merged weights are exactly those that the held run's own updates make with the planned
    rates. The run with the decay makes other updates, as they depend on the weights:

    - where they do not (in directions that hardly turn within the cooldown), the two are one;
    - on a quadratic, a mode that keeps the share :math:`\rho` of its error in a held step has the
      mean :math:`E[\rho^J]` of the merge against :math:`E[\rho^N]` of the decay, where J and N
      count successes of the same chances, all drawn with one number or each with its own: with a
      checkpoint a step the bias of the merge is never below that of the decay for
      :math:`0 < \rho < 1`. Its noise may be either way.

    `MergeWeights.average` replays the merge on the model. Buffers that are no averages of
    gradients, as those of a batch norm, have to be computed again.

    >>> linear = Schedule.from_array([1.0, 1.0, 0.75, 0.5, 0.25])
    >>> merged = merge_weights(linear, every=1)
    >>> merged.steps.tolist(), merged.weights.tolist()
    ([2, 3, 4, 5], [0.25, 0.25, 0.25, 0.25])
    """
    check_exportable(schedule)
    others = {*schedule.controls} & {"batch_size", "ema"}
    if others:
        raise InvalidProblem("schedule", sorted(schedule.controls), "one of rates at one batch")
    eta, peak = schedule.controls["eta"], schedule.peak
    if not peak > 0.0:
        raise InvalidProblem("schedule", "rate 0 at every step", "a positive rate somewhere")
    top = int(np.flatnonzero(eta == peak)[-1])
    rises = np.flatnonzero(np.diff(eta[top:]) > 0.0)
    if rises.size:
        at = int(schedule.steps[top + rises[0] + 1])
        allowed = "rates that do not rise after the peak: a merge acts as a decay"
        raise InvalidProblem("schedule", f"a rise at step {at:,}", allowed)
    begin = int(schedule.steps[top])
    if begin == schedule.horizon - 1:
        raise InvalidProblem("schedule", "no decay after its peak", "a decay, for the merge to be")
    places = _places(schedule.horizon, begin + 1, every, checkpoints)
    edges = np.append(places, schedule.horizon) if places[-1] < schedule.horizon else places
    shares = _shares(schedule, edges, begin + 1)
    if places[-1] < schedule.horizon:
        shares[-1] = 0.0
    acts = np.concatenate([[1.0], shares[: len(places) - 1], [0.0]])
    weights = np.maximum(acts[:-1] - acts[1:], 0.0)
    error = _error(schedule, edges, shares, begin + 1)
    if places[0] > begin + 1:
        error = max(error, 1.0 - float(schedule(int(places[0]) - 1)) / peak)
    used = weights > 0.0
    return MergeWeights(places[used], weights[used] / weights.sum(), schedule, begin, error)


def _places(
    horizon: int, begin: int, every: int | None, checkpoints: int | Iterable[int] | None
) -> Ints:
    """Numbers of updates done at the checkpoints; the first is that of the start of the decay."""
    length = horizon - begin
    if every is not None:
        if checkpoints is not None:
            raise InvalidProblem("checkpoints", checkpoints, "nothing beside every")
        every = whole("every", every, 1, horizon)
        number = -(-length // every)
        if number > MOST:
            raise InvalidProblem("every", every, f"{-(-length // MOST)} or more: {MOST} are many")
        places = horizon - every * np.arange(number, -1, -1)
        return np.maximum(places, 0)
    if isinstance(checkpoints, Iterable):
        given = [*checkpoints]
        found = integers("checkpoints", given)
        if np.any(np.diff(found) <= 0) or found[0] < 0 or found[-1] > horizon:
            allowed = f"increasing numbers of updates done, up to {horizon}"
            raise InvalidProblem("checkpoints", given[:5], allowed)
        if found[-1] <= begin:
            allowed = f"one or more after update {begin}, where the decay begins"
            raise InvalidProblem("checkpoints", int(found[-1]), allowed)
        # Of those before the decay the last is enough.
        return found[max(int(np.searchsorted(found, begin, side="right")) - 1, 0) :]
    number = whole("checkpoints", COUNT if checkpoints is None else checkpoints, 1, MOST)
    shares = np.linspace(0.0, 1.0, min(number, length) + 1)
    return begin + np.round(shares * length).astype(np.int64)


def _total(schedule: Schedule, low: int, high: int) -> float:
    """Sum of the rates of the updates low .. high - 1."""
    if high <= low:
        return 0.0
    inside = schedule.steps[(schedule.steps > low) & (schedule.steps < high - 1)]
    at = np.unique(np.concatenate([[low], inside, [high - 1]]))
    values = np.asarray(schedule(at))
    return float(values[0]) if len(at) == 1 else total_of(at, values)


def _shares(schedule: Schedule, edges: Ints, begin: int) -> Floats:
    """Planned rates over those of the held run between edges, shape (n - 1,)."""
    out = []
    for low, high in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        held = schedule.peak * (high - max(low, begin)) if high > begin else 0.0
        held += _total(schedule, low, min(high, begin))
        out.append(min(_total(schedule, low, high) / held, 1.0))
    return np.array(out)


def _error(schedule: Schedule, edges: Ints, shares: Floats, begin: int) -> float:
    """Largest distance of the rates from those acted as; they do not rise, so that ends tell."""
    peak = schedule.peak
    first = np.where(edges[:-1] < begin, 1.0, schedule(edges[:-1]) / peak)
    last = schedule(edges[1:] - 1) / peak
    return float(np.maximum(np.abs(first - shares), np.abs(last - shares)).max(initial=0.0))


CODE = textwrap.dedent('''\
    """Merge checkpoints of a run with the rate HELD.

    python THIS.py OUT.pt CHECKPOINT-{step}.pt    # {step}: number of updates done

    or, for other formats, merge({step: file, ...}, load=safetensors.torch.load_file).
    """

    import sys

    import torch

    WEIGHTS = {
        ROWS
    }


    def load_torch(path):
        found = torch.load(path, map_location="cpu", weights_only=True)
        for key in ("model", "state_dict", "module"):
            if isinstance(found.get(key), dict):
                found = found[key]
        return found


    def merge(files, load=load_torch):
        """State of the merged model; what is no floating number is that of the last checkpoint."""
        if set(files) != set(WEIGHTS):
            raise ValueError(f"checkpoints {sorted(files)}, expected {sorted(WEIGHTS)}")
        total, kinds = {}, {}
        for step, weight in WEIGHTS.items():
            state = load(files[step])
            if total and set(state) != set(total):
                raise ValueError(f"{files[step]}: other parameters than the checkpoints before")
            for name, value in state.items():
                if torch.is_tensor(value) and value.is_floating_point():
                    kinds[name] = value.dtype
                    part = value.to(torch.float64) * weight
                    total[name] = total[name] + part if name in total else part
                else:
                    total[name] = value
        return {k: v.to(kinds[k]) if k in kinds else v for k, v in total.items()}


    if __name__ == "__main__":
        out, pattern = sys.argv[1:]
        torch.save(merge({step: pattern.replace("{step}", str(step)) for step in WEIGHTS}), out)
    ''')
