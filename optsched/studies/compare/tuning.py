"""Tune the hyperparameters of a family of schedules on a problem.

The peak rate is searched for every shape: the logarithm of the loss is smooth in the logarithm of
the peak, and nearly always convex. The shape has up to five numbers more (warm-up, decay, power,
...), over which the loss has ridges and, with whole numbers among them, steps: a low-discrepancy
sample of their box is followed by a simplex search from its best points.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from optsched.arrays import Brief, Floats
from optsched.control.problem import Problem
from optsched.errors import InvalidProblem
from optsched.model.replay import MAX_STEPS, Replay, replay
from optsched.numerics import quiet
from optsched.schedules.families import Family, Parameter, named_families
from optsched.schedules.schedule import Schedule
from optsched.studies.compare.peaks import Curve, Peak

__all__ = ["Peak", "Shapes", "Tuned", "Tuner", "tune"]

SAMPLES = 32  # shapes that are tried before the simplex; doubled from three numbers on
SIMPLEX = 40  # evaluations of a simplex search for each number of the shape
STARTS = 2
FRESH = 0.05  # size of the last simplex
CUBE = 3  # power of the scale of what may be small but not negative
REPLAY_TOL = 1e-5  # that of `replay`


@dataclass(frozen=True, eq=False, repr=False)
class Tuned(Brief):
    """A family's best member on a problem.

    Attributes
    ----------
    name : str
        Of the family.
    peak : float
        The tuned peak rate.
    options : dict of str to float
        The other hyperparameters, tuned or fixed.
    at_bound : bool
        Whether the peak sits at the problem's upper bound of the rate.
    schedule : Schedule
    replay : Replay
        On the exact recursion.
    evaluations : int
        Number of losses that the search took.
    """

    told = ("name", "peak", "excess_loss", "at_bound")

    name: str
    peak: float
    options: dict[str, float]
    at_bound: bool
    schedule: Schedule
    replay: Replay
    evaluations: int

    @property
    def excess_loss(self) -> float:
        """Replayed excess loss."""
        return self.replay.excess_loss

    @property
    def value(self) -> float:
        """Replayed objective of the problem."""
        return self.replay.value


class Shapes(ABC):
    """Search for the best shape in a family, whatever judges it.

    Parameters
    ----------
    family : str or Family
        A name in `optsched.schedules.families.FAMILIES`, or a family of one's own.
    free : sequence of str, optional
        Hyperparameters besides the peak that are tuned; all that the family lists if not given.
    fixed : mapping of str to float, optional
        Values of others; those that are neither free nor fixed have their defaults.
    """

    def __init__(
        self,
        family: str | Family,
        free: Sequence[str] | None = None,
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        (self.family,) = named_families([family])
        known = {p.name: p for p in self.family.parameters[1:]}
        names = [n for n in known if n not in (fixed or {})] if free is None else list(free)
        for field, given in (("free", names), ("fixed", list(fixed or {}))):
            for name in given:
                if name not in known:
                    allowed = ", ".join(known) or f"none, as {self.family.name} has its peak alone"
                    raise InvalidProblem(field, name, allowed)
        for name in fixed or {}:
            if name in names:
                raise InvalidProblem("free", name, "what is not fixed")
        self.free = [known[name] for name in names]
        self.defaults = self.family.defaults | dict(fixed or {})
        self.evaluations: int = 0

    @abstractmethod
    def best_peak(self, options: Mapping[str, float], near: float | None = None) -> Peak:
        """Best log peak of a shape, and log of the loss there.

        With ``near``, a guess of the log peak, a search begins around it.
        """

    def options(self, shares: Sequence[float] | Floats) -> dict[str, float]:
        """Hyperparameters at shares in [0, 1] of the ranges of the free ones."""
        inside = np.clip(np.nan_to_num(np.asarray(shares, float)), 0.0, 1.0)
        values = {p.name: _value(p, float(x)) for p, x in zip(self.free, inside, strict=True)}
        return self.defaults | values

    def shape(
        self, near: tuple[Floats, float] | None = None, log_peak: float | None = None
    ) -> tuple[Floats, Peak]:
        """Shares of the best shape, and its peak.

        With ``near``, shares and log peak of a similar problem, the search begins there; with
        ``log_peak``, a guess of the peak alone, only that search does.
        """
        log_peak = log_peak if near is None else near[1]
        if not self.free:
            return np.zeros(0), self.best_peak(self.defaults, log_peak)
        tried: dict[bytes, tuple[Floats, Peak]] = {}
        guess = [log_peak]

        def loss(shares: Floats) -> float:
            shares = np.clip(shares, 0.0, 1.0)
            key = shares.tobytes()
            if key not in tried:
                tried[key] = shares, self.best_peak(self.options(shares), guess[0])
                guess[0] = min((peak for _, peak in tried.values()), key=lambda p: p.loss).at
            return tried[key][1].loss

        def best() -> tuple[Floats, Peak]:
            return min(tried.values(), key=lambda one: one[1].loss)

        if len(self.free) == 1 and not self.free[0].integer:
            _scan(loss, None if near is None else float(near[0][0]))
            return best()
        for shares in self._sample() if near is None else near[0][None]:
            loss(shares)
        ranked = sorted(tried.values(), key=lambda one: one[1].loss)[:STARTS]
        for start, _ in ranked:
            self._simplex(loss, start, 0.15)
        # Where it stopped it is flat, as at a bound or along a ridge: a fresh one moves on.
        self._simplex(loss, best()[0], FRESH)
        return best()

    def _sample(self) -> Floats:
        """Shapes to begin with: the default one, and a Sobol sequence."""
        count = SAMPLES if len(self.free) < 3 else 2 * SAMPLES
        from scipy.stats import qmc

        points = qmc.Sobol(len(self.free), scramble=False).random(count)
        return np.vstack([[_share(p, self.defaults[p.name]) for p in self.free], points])

    def _simplex(self, loss: Any, start: Floats, size: float) -> None:
        """Nelder-Mead in the box; what it tries is remembered by ``loss``."""
        from scipy.optimize import minimize

        corner = start[None] + np.vstack([np.zeros(len(start)), size * np.eye(len(start))])
        # Inwards where the start lies at the upper end: a flat simplex goes nowhere.
        corner = np.where(corner > 1.0, 2.0 * start - corner, corner)
        minimize(
            loss,
            start,
            method="Nelder-Mead",
            bounds=[(0.0, 1.0)] * len(start),
            options={
                "initial_simplex": corner,
                "xatol": 1e-3,
                "fatol": 1e-5,
                "maxfev": SIMPLEX * len(start),
            },
        )

    def member(
        self, horizon: int, rate: float, shares: Sequence[float] | Floats
    ) -> tuple[dict[str, float], Schedule]:
        """Hyperparameters at shares of their ranges, and the schedule.

        Raises
        ------
        InvalidProblem
            If its rates are not those of peak 1 times the peak, as the search takes them to be.
        """
        options = self.options(shares)
        schedule = self.family(horizon, rate, **options)
        unit = self.family(horizon, 1.0, **options)
        if not np.allclose(unit(schedule.steps) * rate, schedule.controls["eta"], rtol=1e-6):
            at = f"{schedule.peak:.6g} at peak {rate:.6g}, {unit.peak:.6g} at peak 1"
            raise InvalidProblem(f"family {self.family.name}", at, "rates in proportion to peak")
        for p in self.free:
            # Less than half a step of warm-up, say, is none.
            none = options | {p.name: 0.0}
            if _small(p) and self.family(horizon, rate, **none) == schedule:
                options = none
        return options, schedule


class Tuner(Shapes):
    """Search for the best member of a family on one problem.

    Parameters
    ----------
    problem : Problem
        Peaks are bounded by its ``eta_cap``.
    family, free, fixed
        As for `Shapes`.
    """

    def __init__(
        self,
        problem: Problem,
        family: str | Family,
        free: Sequence[str] | None = None,
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(family, free, fixed)
        self.problem = problem
        self.dynamics, self.modes = problem.dynamics, problem.modes
        self.high = math.log(problem.eta_cap)
        # The best peak falls at most as 1/T, and with the variance of the noise.
        self.low = self.high - math.log(100.0 * problem.horizon) - 2.0 * math.log1p(problem.noise)

    def best_peak(self, options: Mapping[str, float], near: float | None = None) -> Peak:
        """Best log peak of a shape, and log of the loss there.

        With ``near``, a guess of the log peak, the search begins around it.
        """
        unit = self.family(self.problem.horizon, 1.0, **options)
        curve = Curve(unit, self.dynamics, self.modes, self.low, self.high, self.problem.terms)
        best = curve.search() if near is None else curve.search_near(near)
        self.evaluations += curve.evaluations
        return best

    def result(
        self,
        shares: Floats,
        peak: Peak,
        replay_steps: int = MAX_STEPS,
        replay_tol: float = REPLAY_TOL,
    ) -> Tuned:
        """The member with these hyperparameters, replayed."""
        rate = min(math.exp(peak.at), self.problem.eta_cap)
        options, schedule = self.member(self.problem.horizon, rate, shares)
        played = replay(
            self.problem.spectrum,
            self.dynamics,
            schedule,
            modes=self.modes if self.problem.limit.hard else None,
            tol=replay_tol,
            max_steps=replay_steps,
            objective=self.problem.terms.objective,
        )
        bound = rate >= self.problem.eta_cap * (1 - 1e-12)
        return Tuned(self.family.name, rate, options, bound, schedule, played, self.evaluations)


def _scan(loss: Any, near: float | None) -> None:
    """Minimise over one number in [0, 1]."""
    from scipy.optimize import minimize_scalar

    if near is None:
        grid = np.linspace(0.0, 1.0, 9)
        i = int(np.argmin([loss(np.array([x])) for x in grid]))
        low, high = float(grid[max(i - 1, 0)]), float(grid[min(i + 1, len(grid) - 1)])
    else:
        low, high = max(near - 0.15, 0.0), min(near + 0.15, 1.0)
        for x in (low, near, high):
            loss(np.array([x]))
    minimize_scalar(
        lambda x: loss(np.array([x])),
        bounds=(low, high),
        method="bounded",
        options={"xatol": 3e-3},
    )


def _small(parameter: Parameter) -> bool:
    """Whether values that matter can be anywhere down to zero, which no logarithm reaches."""
    return parameter.low == 0.0 and parameter.default < 0.1 * parameter.high


def _value(parameter: Parameter, share: float) -> float:
    """Value of a parameter at a share of its range, on the scale of the search."""
    return parameter.at(share**CUBE if _small(parameter) else share)


def _share(parameter: Parameter, value: float) -> float:
    """The inverse of `_value`."""
    share = parameter.share(value)
    return share ** (1.0 / CUBE) if _small(parameter) else share


@quiet
def tune(
    problem: Problem,
    family: str | Family,
    *,
    free: Sequence[str] | None = None,
    fixed: Mapping[str, float] | None = None,
    replay_steps: int = MAX_STEPS,
) -> Tuned:
    """Tune a family's hyperparameters on a problem, and replay its best member.

    Parameters
    ----------
    problem : Problem
        Peaks are bounded by its ``eta_cap``; a forced warm-up, floor or bound of the rate's
        change do not count.
    family : str or Family
        A name in `optsched.schedules.families.FAMILIES` (``wsd`` is ``wsd_linear``, ``power`` is
        ``power_law``), or a family of one's own.
    free : sequence of str, optional
        Hyperparameters besides the peak that are tuned, all if not given; ``()`` tunes the peak
        alone.
    fixed : mapping of str to float, optional
        Values of others than the free ones, instead of their defaults.
    replay_steps : int
        Largest horizon that is replayed step by step.

    Returns
    -------
    Tuned
        The search is local from the best points of a sample: the best found.

    Raises
    ------
    InvalidProblem
        If the family or a hyperparameter is not known, free and fixed, or a value not allowed.
    """
    tuner = Tuner(problem, family, free, fixed)
    shares, peak = tuner.shape()
    return tuner.result(shares, peak, replay_steps)
