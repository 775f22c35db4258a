"""The best schedule of each family by the bound of convex optimisation, beside the best of all."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optsched.arrays import Brief
from optsched.checks import whole
from optsched.controls import MAX_HORIZON
from optsched.errors import OptschedError
from optsched.rules.convex.bound import (
    MAX_EXACT,
    ConvexBound,
    best_schedule,
    convex_bound,
    least_bound,
)
from optsched.schedules.families import Family, linear
from optsched.schedules.schedule import Schedule
from optsched.studies.compare.families import FailedFamily, chosen_families
from optsched.studies.compare.peaks import Peak
from optsched.studies.compare.tuning import Shapes

__all__ = ["ConvexComparison", "ConvexMember", "compare_convex", "tune_convex"]


@dataclass(frozen=True, eq=False, repr=False)
class ConvexMember(Brief):
    """A schedule with its best rate under the bound, for D = 1 and G = 1.

    Attributes
    ----------
    name : str
        Of the family.
    peak : float
        The best peak rate, in units of D/G.
    options : dict of str to float
        The other hyperparameters, tuned or fixed.
    schedule : Schedule
    bound : ConvexBound
        Of this schedule.
    evaluations : int
        Number of bounds that the search took.
    """

    name: str
    peak: float
    options: dict[str, float]
    schedule: Schedule
    bound: ConvexBound
    evaluations: int = 0


@dataclass(frozen=True, eq=False, repr=False)
class ConvexComparison(Brief):
    """Families with their hyperparameters tuned under the bound, and the best of all schedules.

    Attributes
    ----------
    horizon : int
    least : float
        The least bound of all schedules, in units of D G.
    optimum : ConvexMember
        The schedule that has it; beyond 10^6 steps linear decay, whose bound is the same to 1e-5.
    members : tuple of ConvexMember
        The best member of each family, the least bound first.
    failed : tuple of FailedFamily
        Families that could not be built, and why.
    free : tuple of str, optional
        Hyperparameters besides the peak that were tuned; None if all were.
    seconds : float
        Time spent.
    """

    horizon: int
    least: float
    optimum: ConvexMember
    members: tuple[ConvexMember, ...]
    failed: tuple[FailedFamily, ...] = ()
    free: tuple[str, ...] | None = None
    seconds: float = 0.0

    @property
    def best(self) -> ConvexMember | None:
        """The family with the least bound, if any could be built."""
        return self.members[0] if self.members else None

    def regret(self, member: ConvexMember) -> float:
        """Bound over the least bound, minus 1; never negative but for rounding."""
        return member.bound.value / self.least - 1.0

    @property
    def regrets(self) -> dict[str, float]:
        """`regret` of every family, the least first."""
        return {member.name: self.regret(member) for member in self.members}

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before believing a number, as sentences."""
        return tuple(f"{one.name} could not be tuned: {one.reason}" for one in self.failed)

    def rows(self) -> list[dict[str, Any]]:
        """A JSON-able row for every family, the least bound first; failed ones at the end."""
        found = [self.row(member) for member in self.members]
        return found + [{"schedule": one.name, "failed": one.reason} for one in self.failed]

    def row(self, member: ConvexMember) -> dict[str, Any]:
        """A JSON-able row."""
        root = math.sqrt(self.horizon)
        return {
            "schedule": member.name,
            "peak": member.peak,
            "options": dict(member.options),
            "bound": member.bound.value,
            "regret": self.regret(member),
            "scaled_peak": member.peak * root,
            "scaled_bound": member.bound.value * root,
            "evaluations": member.evaluations,
        }

    def summary(self) -> dict[str, Any]:
        """Numbers of the comparison as a JSON-able dict."""
        return {
            "judge": "convex",
            "horizon": self.horizon,
            "least_bound": self.least,
            "optimum": self.row(self.optimum),
            "families": self.rows(),
            "best": None if self.best is None else self.best.name,
            "tuned": "all" if self.free is None else ["peak", *self.free],
            "warnings": list(self.warnings),
            "seconds": self.seconds,
        }


class _BoundShapes(Shapes):
    """Search for the shape of a family with the least bound; the best rate is a closed form."""

    def __init__(
        self,
        horizon: int,
        family: str | Family,
        free: Sequence[str] | None = None,
        fixed: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(family, free, fixed)
        self.horizon = horizon

    def best_peak(self, options: Mapping[str, float], near: float | None = None) -> Peak:
        bound = convex_bound(self.family(self.horizon, 1.0, **options))
        self.evaluations += 1
        return Peak(math.log(bound.scale), math.log(bound.best))


def tune_convex(
    horizon: int,
    family: str | Family,
    *,
    free: Sequence[str] | None = None,
    fixed: Mapping[str, float] | None = None,
) -> ConvexMember:
    """Tune a family's hyperparameters under the bound.

    Parameters
    ----------
    horizon : int
        1 to 10^15.
    family : str or Family
        A name in `optsched.schedules.families.FAMILIES`, or a family of one's own.
    free, fixed
        As for `optsched.studies.compare.tuning.tune`.

    Returns
    -------
    ConvexMember
        The search over the shape is local from the best points of a sample: the best found.
    """
    horizon = whole("horizon", horizon, 1, MAX_HORIZON)
    search = _BoundShapes(horizon, family, free, fixed)
    shares, peak = search.shape()
    rate = math.exp(peak.at)
    options, schedule = search.member(horizon, rate, shares)
    name, bound = search.family.name, convex_bound(schedule)
    return ConvexMember(name, rate, options, schedule, bound, search.evaluations)


def compare_convex(
    horizon: int,
    families: Sequence[str] | None = None,
    *,
    free: Sequence[str] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> ConvexComparison:
    """Tune the hyperparameters of each family under the bound of convex optimisation.

    Every number is for D = 1 and G = 1: rates are in units of D/G, bounds in units of D G, and
    the order of the families holds for any D and G.

    Parameters
    ----------
    horizon : int
        1 to 10^15.
    families, free, progress
        As for `optsched.studies.compare.families.compare`.

    Returns
    -------
    ConvexComparison

    Raises
    ------
    InvalidProblem
        For a horizon out of range, and names that are not known or come twice.
    """
    began = time.perf_counter()
    horizon = whole("horizon", horizon, 1, MAX_HORIZON)
    chosen = chosen_families(families, free)
    members: list[ConvexMember] = []
    failed: list[FailedFamily] = []
    for i, family in enumerate(chosen):
        if progress is not None:
            progress(family.name, i, len(chosen))
        own = None if free is None else [name for name in free if name in family.defaults]
        try:
            members.append(tune_convex(horizon, family, free=own))
        except OptschedError as error:
            failed.append(FailedFamily(family.name, str(error)))
    if progress is not None:
        progress("", len(chosen), len(chosen))
    members.sort(key=lambda member: member.bound.value)
    return ConvexComparison(
        horizon,
        least_bound(horizon),
        _optimum(horizon),
        tuple(members),
        tuple(failed),
        None if free is None else tuple(free),
        time.perf_counter() - began,
    )


def _optimum(horizon: int) -> ConvexMember:
    if horizon <= MAX_EXACT:
        schedule = best_schedule(horizon)
    else:
        schedule = linear(horizon, 1.0)
        schedule = linear(horizon, convex_bound(schedule).scale)
    # The last rate of the best schedule is a weight, no rate that is ever taken.
    return ConvexMember("optimal", schedule(0), {}, schedule, convex_bound(schedule))
