"""What can be followed along horizons: the optimum, and families with tuned hyperparameters."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from optsched.arrays import Brief, Floats
from optsched.control.joint.search import stretched
from optsched.control.problem import Problem
from optsched.control.solution import Solution
from optsched.control.solve import solve
from optsched.errors import InvalidProblem
from optsched.exponents import json_ready
from optsched.schedules.families import FAMILIES, Parameter, named_families
from optsched.schedules.schedule import Schedule
from optsched.studies.compare.tuning import Peak, Tuned, Tuner

__all__ = ["SCHEDULES", "FamilyFinder", "Finder", "ScalingPoint", "annealing_time"]

Start = tuple[Floats, float]  # shares of a shape, and its log peak

ANNEALED = 0.5  # share of the peak rate below which a schedule anneals
GUARDS = 5  # shapes that a warm-started search has to beat
WARM = 2  # numbers of a shape from which a warm start is faster than a search from nothing
BETTER = 1e-5  # in log loss: less is no reason to search again
ROW = (
    "horizon",
    "excess_loss",
    "peak_eta",
    "annealing_time",
    "converged",
    "message",
    "seconds",
    "floor",
)


@dataclass(frozen=True, eq=False, repr=False)
class ScalingPoint(Brief):
    """One horizon of a study: a row even if its search failed, but then it is not fitted.

    ``excess_loss`` is replayed on the exact recursion, and NaN if nothing was found; ``message``
    says why the search stopped; ``annealing_time`` is that of `annealing_time`; ``options`` are
    the hyperparameters of a family besides its peak; ``at_end`` are those that were tuned to an
    end of their range; ``start`` is where the search for a longer horizon begins; no optimiser that
    is linear in the labels is below ``floor`` (`optsched.control.bounds.floor`).
    """

    horizon: int
    excess_loss: float
    peak_eta: float
    converged: bool
    message: str
    seconds: float = math.nan
    solution: Solution | None = field(default=None, repr=False, compare=False)
    annealing_time: float = math.nan
    options: Mapping[str, float] = field(default_factory=dict)
    at_end: tuple[str, ...] = ()
    tuned: Tuned | None = field(default=None, repr=False, compare=False)
    start: Start | None = field(default=None, repr=False, compare=False)
    floor: float = 0.0

    @property
    def over_floor(self) -> float:
        """Excess loss over ``floor``; NaN without one."""
        return self.excess_loss / self.floor if self.floor > 0.0 else math.nan

    def summary(self) -> dict[str, Any]:
        """The row as a JSON-able dict."""
        numbers = {k: json_ready(v) for k, v in vars(self).items() if k in ROW}
        return {**numbers, "options": dict(self.options), "at_end": list(self.at_end)}


# Makes the point of a problem, with options of its own, and the point of a shorter horizon.
Finder = Callable[[Problem, Mapping[str, Any], ScalingPoint | None], ScalingPoint]


def annealing_time(schedule: Schedule) -> float:
    """Steps from where the rate falls below half of its peak for good, to the end.

    Interpolated between knots; the value of a step counts at its middle. Where the rate falls as a
    power of the time to go, this is a constant share of the whole annealing. NaN for a schedule
    that ends above half of its peak.
    """
    rates, steps = schedule.controls["eta"], schedule.steps
    level = ANNEALED * rates.max()
    last = int(np.flatnonzero(rates >= level)[-1])
    if last == len(rates) - 1:
        return math.nan
    above, below = rates[last], rates[last + 1]
    part = float((above - level) / (above - below))
    # From the end, as T + 1 is no other float than T for a long horizon.
    ahead = int(steps[last + 1] - steps[last])
    return float(schedule.horizon - int(steps[last])) - part * ahead - 0.5


def _optimal(
    problem: Problem, options: Mapping[str, Any], shorter: ScalingPoint | None
) -> ScalingPoint:
    """The optimum; an iterate that did not converge is a row too."""
    found = solve(problem, **{**options, "throw": False})
    if not found.converged and shorter is not None and shorter.solution is not None:
        start = stretched(shorter.solution.schedule, problem.horizon)
        again = solve(problem, **{**options, "throw": False, "initial": start})
        found = again if again.converged else found
    return ScalingPoint(
        horizon=problem.horizon,
        excess_loss=found.excess_loss,
        peak_eta=found.schedule.peak,
        converged=found.converged and math.isfinite(found.excess_loss),
        message=found.message,
        seconds=float(found.stats["seconds"]),
        solution=found,
        annealing_time=annealing_time(found.schedule),
    )


@dataclass(frozen=True)
class FamilyFinder:
    """The best member of a family at each horizon.

    Attributes
    ----------
    family : str
        A name in `optsched.schedules.families.FAMILIES`.
    free : tuple of str, optional
        Hyperparameters besides the peak that are tuned, all if None; the others have their
        defaults.
    """

    family: str
    free: tuple[str, ...] | None = None

    @property
    def tuned(self) -> tuple[str, ...]:
        """Names of what is tuned."""
        (family,) = named_families([self.family])
        names = tuple(p.name for p in family.parameters[1:])
        return ("peak", *(names if self.free is None else self.free))

    def __call__(
        self, problem: Problem, options: Mapping[str, Any], shorter: ScalingPoint | None
    ) -> ScalingPoint:
        """Tune on a problem.

        Of the options ``replay_steps``, ``replay_tol`` and ``peak``, a guess of it, count.
        """
        self.check(problem)
        began = time.perf_counter()
        tuner = Tuner(problem, self.family, self.free)
        tuner.free = [_reaching(p, problem.horizon) for p in tuner.free]
        start = None if shorter is None or len(tuner.free) < WARM else shorter.start
        guess = math.log(options["peak"]) if "peak" in options else None
        shares, peak = tuner.shape(log_peak=guess) if start is None else _warm(tuner, start)
        replayed = {k: options[k] for k in ("replay_steps", "replay_tol") if k in options}
        found = tuner.result(shares, peak, **replayed)
        ends = tuple(p.name for p in tuner.free if _at_end(p, found.options[p.name]))
        good = math.isfinite(found.excess_loss)
        return ScalingPoint(
            horizon=problem.horizon,
            excess_loss=found.excess_loss,
            peak_eta=found.peak,
            converged=good,
            message="tuned" if good else "the replayed loss is not finite",
            seconds=time.perf_counter() - began,
            annealing_time=annealing_time(found.schedule),
            options=found.options,
            at_end=ends,
            tuned=found,
            start=(shares, peak.at),
        )

    def check(self, problem: Problem) -> None:
        """Refuse what no family keeps."""
        if problem.controls != ("eta",):
            allowed = f"eta, as schedule {self.family} has no other control"
            raise InvalidProblem("control", ",".join(problem.controls), allowed)
        for name in ("warmup", "eta_min", "max_change"):
            if getattr(problem, name):
                allowed = f"nothing with schedule {self.family}, which is tuned without it"
                raise InvalidProblem(name, getattr(problem, name), allowed)


def _reaching(parameter: Parameter, horizon: int) -> Parameter:
    """A decay share that can vanish as fast as the best one does, which is at most T^(-1/3)."""
    if parameter.name != "decay":
        return parameter
    return replace(parameter, low=min(parameter.low, 0.1 * horizon ** (-1.0 / 3.0)))


def _at_end(parameter: Parameter, value: float) -> bool:
    """Whether a number sits at an end of its range that is no limit by nature, as 0 and 1 are."""
    near = 1e-2 * (math.log(parameter.high / parameter.low) if parameter.log else 1.0)
    for end in {parameter.low, parameter.high} - {0.0, 1.0}:
        off = math.log(value / end) if parameter.log else (value - end)
        width = 1.0 if parameter.log else parameter.high - parameter.low
        if abs(off) < near * width:
            return True
    return False


def _warm(tuner: Tuner, start: Start) -> tuple[Floats, Peak]:
    """Search from the best of a shorter horizon, and again from nothing if that looks poor."""
    found = tuner.shape(near=start)
    spread = np.linspace(0.0, 1.0, GUARDS)
    guards = [tuner.defaults, *(tuner.options(np.full(len(start[0]), x)) for x in spread)]
    best = min(tuner.best_peak(one, found[1].at).loss for one in guards)
    if best >= found[1].loss - BETTER:
        return found
    return min(found, tuner.shape(), key=lambda one: one[1].loss)


# What can be followed along horizons: name -> how a point is made. Of the first five families the
# shape is that of the theory; every other one has all its hyperparameters tuned.
SCHEDULES: dict[str, Finder] = {name: FamilyFinder(name) for name in FAMILIES} | {
    "optimal": _optimal,
    "constant": FamilyFinder("constant", ()),
    "power": FamilyFinder("power_law", ("chi",)),
    "linear": FamilyFinder("linear", ()),
    "cosine": FamilyFinder("cosine", ()),
    "wsd": FamilyFinder("wsd_linear", ("decay",)),
}
