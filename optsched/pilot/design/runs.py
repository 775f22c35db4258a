"""Runs that could be pilots: a peak rate, a shape and a length."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats
from optsched.checks import whole
from optsched.errors import InvalidProblem
from optsched.schedules.families import cosine, with_warmup, wsd
from optsched.schedules.schedule import Schedule

__all__ = ["SHAPES", "Candidate", "candidates", "shaped", "usual_grid", "usual_three"]

SHARES = (1 / 8, 1 / 6, 1 / 5, 1 / 4, 1 / 3, 1 / 2)  # of the budget: lengths of a run
RAMPS = 3  # warm-ups that the shortest run is long
LEAST = 16  # steps of a run
DROP = 0.25  # of the peak, half-way


def _drop(horizon: int, peak: float, warmup: int) -> Schedule:
    """The peak, and from half-way a quarter of it."""
    half = warmup + (horizon - warmup) // 2
    steps = np.array([0, warmup, half - 1, half, horizon - 1])
    eta = peak * np.array([1.0 / (warmup + 1.0), 1.0, 1.0, DROP, DROP])
    steps, first = np.unique(steps, return_index=True)
    return Schedule.from_knots(steps, eta=eta[first])


def _constant(horizon: int, peak: float, warmup: int) -> Schedule:
    return wsd(horizon, peak, warmup=warmup, cooldown=0)


def _cosine(horizon: int, peak: float, warmup: int) -> Schedule:
    return with_warmup(cosine, warmup, horizon, peak)


def _wsd(horizon: int, peak: float, warmup: int) -> Schedule:
    return wsd(horizon, peak, warmup=warmup, cooldown=max((horizon - warmup) // 5, 1))


SHAPES: dict[str, Callable[[int, float, int], Schedule]] = {
    "constant": _constant,
    "cosine": _cosine,
    "wsd": _wsd,
    "drop": _drop,
}


@dataclass(frozen=True, eq=False)
class Candidate:
    """A run that could be made, or chosen among those that there are.

    Attributes
    ----------
    name : str
    schedule : Schedule
    warmup : int
        Steps of its ramp.
    shape : str
        In `SHAPES`, or anything else for a run of one's own.
    """

    name: str
    schedule: Schedule
    warmup: int = 0
    shape: str = ""

    @property
    def steps(self) -> int:
        """What it costs."""
        return self.schedule.horizon

    @property
    def peak(self) -> float:
        """Its largest rate."""
        return self.schedule.peak


def shaped(shape: str, steps: int, peak: float, warmup: int) -> Candidate:
    """A candidate of one of the `SHAPES`."""
    if shape not in SHAPES:
        raise InvalidProblem("shapes", shape, "one of " + ", ".join(SHAPES))
    name = f"{shape}_{steps}_{peak:.3g}"
    return Candidate(name, SHAPES[shape](steps, peak, warmup), warmup, shape)


def lengths_of(budget: int, horizon: int, warmup: int, given: Iterable[int] | None) -> list[int]:
    """Lengths of the runs to choose from, increasing: those given, or shares of the budget."""
    least = max(RAMPS * warmup, LEAST)
    if given is not None:
        found = sorted({whole("lengths", one, 2, 10**15) for one in given})
        bad = [one for one in found if not warmup + 1 < one <= budget]
        if bad or not found:
            allowed = f"more than the warm-up of {warmup} steps, and {budget}, the budget, at most"
            raise InvalidProblem("lengths", bad[0] if bad else None, allowed)
        return found
    if horizon < least:
        allowed = f"{least} or more: the shortest pilot has {LEAST} steps, and {RAMPS} warm-ups"
        raise InvalidProblem("horizon", horizon, allowed)
    shares = sorted({min(int(share * budget), horizon) for share in SHARES})
    found = [one for one in shares if one >= least]
    if not found:
        allowed = f"{2 * least} or more: the shortest pilot has {LEAST} steps, and {RAMPS} warm-ups"
        raise InvalidProblem("budget", budget, allowed)
    return found


def candidates(
    peaks: Sequence[float] | Floats,
    lengths: Iterable[int],
    warmup: int = 0,
    shapes: Iterable[str] = tuple(SHAPES),
) -> list[Candidate]:
    """All runs of these peaks, lengths and shapes."""
    return [
        shaped(shape, steps, float(peak), warmup)
        for peak in peaks
        for steps in lengths
        for shape in shapes
    ]


def usual_three(budget: int, peak: float, warmup: int) -> list[Candidate]:
    """What one would do: a constant, a cosine and a drop of a third of the budget at one peak."""
    return [shaped(shape, budget // 3, peak, warmup) for shape in ("constant", "cosine", "drop")]


def usual_grid(budget: int, peaks: Sequence[float], warmup: int) -> list[Candidate]:
    """A sweep of the peak: a cosine each, at as many of the peaks as there are steps for."""
    count = max(min(len(peaks), budget // max(RAMPS * warmup, LEAST)), 1)
    some = [peaks[i] for i in np.unique(np.linspace(0, len(peaks) - 1, count).round().astype(int))]
    return [shaped("cosine", budget // len(some), float(peak), warmup) for peak in some]
