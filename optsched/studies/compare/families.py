"""The best schedule of each family that people use, beside the optimum."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from optsched.arrays import Brief
from optsched.control.certificate import UNDERFLOW
from optsched.control.methods.pontryagin import Pontryagin
from optsched.control.methods.shooting import Shooting
from optsched.control.problem import Problem
from optsched.control.solution import Solution
from optsched.control.solve import solve
from optsched.errors import InvalidProblem, OptschedError
from optsched.schedules.families import FAMILIES, Family, named_families
from optsched.studies.compare.tuning import Tuned, tune

__all__ = ["COMMON", "Comparison", "FailedFamily", "chosen_families", "compare"]

# The families that people name; the others are variations of these.
COMMON = (
    "constant",
    "linear",
    "cosine",
    "polynomial",
    "exponential",
    "inverse_sqrt",
    "step",
    "wsd_linear",
    "wsd_sqrt",
    "wsd_exponential",
    "wsd_power",
    "one_cycle",
    "power_law",
)
ROUNDING = 1e-6  # of two losses that should be equal
GAP = 0.005
REPLAY_STEPS = 10**5  # step by step takes seconds beyond, for every family; blocks do not


@dataclass(frozen=True)
class FailedFamily:
    """A family that could not be tuned.

    Attributes
    ----------
    name : str
        Of the family.
    reason : str
        One sentence.
    """

    name: str
    reason: str


@dataclass(frozen=True, eq=False, repr=False)
class Comparison(Brief):
    """Families with their hyperparameters tuned, and the optimum.

    Attributes
    ----------
    problem : Problem
    optimum : Solution
    members : tuple of Tuned
        The best member of each family, the least loss first.
    failed : tuple of FailedFamily
        Families without a finite loss, and why.
    free : tuple of str, optional
        Hyperparameters besides the peak that were tuned; None if all were.
    seconds : float
        Time spent.
    restarted : str, optional
        Family that beat the first solve, from which the optimum was then found; `warnings` says
        so.
    gained : float
        How much lower that optimum is than the first, relatively.
    """

    told = ("best", "members", "failed", "seconds")

    problem: Problem
    optimum: Solution
    members: tuple[Tuned, ...]
    failed: tuple[FailedFamily, ...] = ()
    free: tuple[str, ...] | None = None
    seconds: float = 0.0
    restarted: str | None = None
    gained: float = 0.0

    @property
    def best(self) -> Tuned | None:
        """The family with the least loss, if any could be tuned."""
        return self.members[0] if self.members else None

    def regret(self, member: Tuned) -> float:
        """Excess loss over that of the optimum, minus 1; NaN where the optimum underflows.

        Negative where a family is better, which `warnings` then says.
        """
        if self.optimum.excess_loss < UNDERFLOW:
            return math.nan
        return member.excess_loss / self.optimum.excess_loss - 1.0

    @property
    def regrets(self) -> dict[str, float]:
        """`regret` of every family, the least first."""
        return {member.name: self.regret(member) for member in self.members}

    @property
    def over_floor(self) -> float:
        """Optimum over the floor of all optimisers that are linear in the labels; NaN without one.

        No momentum, batch size or averaging gains more than this factor.
        """
        floor = self.optimum.certificate.floor
        return self.optimum.excess_loss / floor if floor > 0.0 else math.nan

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader must know before believing a number, as sentences."""
        told = [f"{one.name} could not be tuned: {one.reason}" for one in self.failed]
        if self.optimum.excess_loss < UNDERFLOW:
            told.append("the optimal loss underflows: regrets have no meaning")
        if not self.problem.rate_only:
            told.append("the optimum is the best local one found")
            if self.optimum.certificate.lower_bound == 0.0:
                told[-1] += ": no lower bound is known for it"
        if self.restarted is not None:
            told.append(
                f"{self.restarted} beat the first solve, a local optimum; the one shown was found"
                f" from there and is {100.0 * self.gained:.2g} % lower"
            )
        for member in self.members:
            if _beats(member, self.optimum):
                told.append(
                    f"{member.name} beats the optimum by {-100.0 * self.regret(member):.2g} %:"
                    " the solve stopped short; please report it"
                )
        return tuple(told)

    def rows(self) -> list[dict[str, Any]]:
        """A JSON-able row for every family, the least loss first; failed ones at the end."""
        found = [
            {
                "schedule": member.name,
                "peak": member.peak,
                "at_bound": member.at_bound,
                "options": dict(member.options),
                "excess_loss": member.excess_loss,
                "bias": member.replay.bias,
                "variance": member.replay.variance,
                "regret": _finite(self.regret(member)),
                "replay_error": member.replay.error,
                "evaluations": member.evaluations,
            }
            for member in self.members
        ]
        return found + [{"schedule": one.name, "failed": one.reason} for one in self.failed]

    def summary(self) -> dict[str, Any]:
        """Numbers of the comparison as a JSON-able dict; None where one is not finite."""
        optimum = self.optimum.summary()
        problem = ("a", "b", "horizon", "features", "batch_size", "noise", "eta_max", "eta_cap")
        solved = ("excess_loss", "bias", "variance", "lower_bound", "certified_gap", "eta_peak")
        tuned = "all" if self.free is None else ["peak", *self.free]
        return {
            **{name: optimum[name] for name in (*problem, "phase", "control", "momentum")},
            **{name: optimum[name] for name in solved},
            "floor": optimum["floor"],
            "over_floor": _finite(self.over_floor),
            "families": self.rows(),
            "best": None if self.best is None else self.best.name,
            "tuned": tuned,
            "warnings": list(self.warnings),
            "seconds": self.seconds,
        }


def compare(
    problem: Problem,
    families: Sequence[str | Family] | None = None,
    *,
    free: Sequence[str] | None = None,
    replay_steps: int = REPLAY_STEPS,
    progress: Callable[[str, int, int], None] | None = None,
) -> Comparison:
    """Tune the hyperparameters of each family, and set its best member beside the optimum.

    Where the rate is the only control the families run the same optimiser, held momentum and
    averages included. Where other things are scheduled too, they are families of the rate of
    plain SGD at the mean batch size.

    Parameters
    ----------
    problem : Problem
        Without a forced warm-up, floor or bound of the rate's change: no family keeps them.
    families : sequence of str or Family, optional
        Names in `optsched.schedules.families.FAMILIES` (``wsd`` is ``wsd_linear``, ``power`` is
        ``power_law``) and families of one's own; `COMMON` if not given.
    free : sequence of str, optional
        Hyperparameters besides the peak that are tuned where a family has them, all others at
        their defaults; all are tuned if not given, and with ``()`` the peak alone.
    replay_steps : int
        Largest horizon that is replayed step by step; longer ones by exact blocks.
    progress : callable, optional
        Gets what is worked on next, how many parts are done, and of how many.

    Returns
    -------
    Comparison

    Raises
    ------
    InvalidProblem
        For a constraint that families do not keep, and names that are not known or come twice.
    SolveFailed
        If the optimum does not converge.
    """
    began = time.perf_counter()
    _check(problem)
    chosen = chosen_families(families, free)
    total = len(chosen) + 1

    def tell(what: str, done: int) -> None:
        if progress is not None:
            progress(what, done, total)

    tell("optimum", 0)
    optimum = solve(problem, gap=GAP, replay_steps=replay_steps)
    plain = problem if problem.controls == ("eta",) else problem.plain
    members: list[Tuned] = []
    failed: list[FailedFamily] = []
    for i, family in enumerate(chosen):
        tell(family.name, i + 1)
        own = None if free is None else [name for name in free if name in family.defaults]
        try:
            member = tune(plain, family, free=own, replay_steps=replay_steps)
        except OptschedError as error:
            failed.append(FailedFamily(family.name, str(error)))
            continue
        if math.isfinite(member.excess_loss):
            members.append(member)
        else:
            reason = f"diverges at every peak tried, {member.peak:.3g} the last"
            failed.append(FailedFamily(family.name, reason))
    members.sort(key=lambda member: member.excess_loss)
    best, restarted = optimum, None
    if members and _beats(members[0], optimum) and problem.rate_only:
        best = _solve_from(members[0], optimum, replay_steps)
        restarted = None if best is optimum else members[0].name
    tell("", total)
    return Comparison(
        problem,
        best,
        tuple(members),
        tuple(failed),
        None if free is None else tuple(free),
        time.perf_counter() - began,
        restarted,
        1.0 - best.excess_loss / optimum.excess_loss if restarted else 0.0,
    )


def _beats(member: Tuned, optimum: Solution) -> bool:
    """Whether a family is better than the optimum by more than the replays' errors."""
    allowed = ROUNDING + optimum.replay.error + member.replay.error
    return member.excess_loss < optimum.excess_loss * (1.0 - allowed)


def _solve_from(member: Tuned, optimum: Solution, replay_steps: int) -> Solution:
    """The best of an optimum and of solves that start at a family that beats it."""
    found = [optimum]
    # Large rates can have local optima a step apart; the two methods reach different ones.
    for method in (Pontryagin(), Shooting()):
        again = solve(
            optimum.problem,
            method,
            initial=member.schedule,
            throw=False,
            gap=GAP,
            replay_steps=replay_steps,
        )
        if again.converged:
            found.append(again)
    return min(found, key=lambda one: one.excess_loss)


def _check(problem: Any) -> None:
    """Check that families can keep what the problem asks for."""
    if not isinstance(problem, Problem):
        raise InvalidProblem("problem", type(problem).__name__, "an optsched.Problem")
    problem.refuse_objective()
    for name in ("warmup", "eta_min", "max_change"):
        value = getattr(problem, name)
        if value:
            allowed = "none in a comparison, as the families do not keep it"
            raise InvalidProblem(name, value, allowed)


def chosen_families(
    families: Sequence[str | Family] | None, free: Sequence[str] | None
) -> list[Family]:
    """Check the names of families and of the hyperparameters to tune; the families.

    Parameters
    ----------
    families, free
        As for `compare`.
    """
    for field, given in (("families", families), ("free", free)):
        if isinstance(given, str):
            raise InvalidProblem(field, given, "a sequence of names")
    chosen = named_families(COMMON if families is None else families)
    names = [family.name for family in chosen]
    if not names:
        raise InvalidProblem("families", list(families or ()), ", ".join(FAMILIES))
    for name in names:
        if names.count(name) > 1:
            raise InvalidProblem("families", name, "every family once")
    known = {name: None for family in chosen for name in family.defaults}
    for name in free or ():
        if name not in known:
            allowed = ", ".join(known) or "none, as these families have their peak alone"
            raise InvalidProblem("free", name, allowed)
    return chosen


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
