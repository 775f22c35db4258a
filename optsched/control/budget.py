"""Solves at a budget of samples or of cost, where the number of steps is chosen too."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from optsched.arrays import Brief
from optsched.checks import is_number, within
from optsched.control.joint.search import stretched
from optsched.control.problem import Problem
from optsched.control.solution import Solution
from optsched.control.solve import solve
from optsched.control.task import Method
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem, SolveFailed
from optsched.model.replay import MAX_STEPS
from optsched.schedules.schedule import Schedule

__all__ = ["Budget", "BudgetSolution", "Trial", "solve_budget"]

TOLERANCE = 0.005  # where the loss hardly depends on the steps: the fewest within it
FINE, COARSE = 0.004, 0.2  # widths in log T at which the search for the least loss stops
WIDTH = 0.01  # the same for the search for the fewest steps
SHORT = 200  # up to here trials are solved anew, and neighbours compared in the end
REAL_GAIN = 1e-6  # smaller ones are rounding
REPLAY_STEPS = 1000  # trials replay longer horizons by blocks


@dataclass(frozen=True)
class Budget:
    r"""What a run may use, with its number of steps T left open.

    Either ``samples`` alone, or ``cost`` with prices:
    :math:`T \cdot latency + D \cdot sample\_cost \le cost`.

    Parameters
    ----------
    samples : float, optional
        Sum D of the batch sizes.
    cost : float, optional
        All that may be spent, in any unit: seconds, say.
    latency : float
        Cost of a step, whatever its batch size, >= 0.
    sample_cost : float
        Cost of a sample, > 0.

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.
    """

    samples: float | None = None
    cost: float | None = None
    latency: float = 0.0
    sample_cost: float = 1.0

    def __post_init__(self) -> None:
        if self.samples is not None and self.cost is not None:
            raise InvalidProblem("cost", self.cost, "nothing beside samples: give one of the two")
        if self.cost is None:
            for name, default in (("latency", 0.0), ("sample_cost", 1.0)):
                if getattr(self, name) != default:
                    raise InvalidProblem(name, getattr(self, name), "nothing without cost")
            self._check("samples", "a number >= 1, up to 1e30", 1.0, 1e30)
        else:
            self._check("latency", "a number >= 0, up to 1e30", 0.0, 1e30)
            self._check("sample_cost", "a number > 0, from 1e-30 to 1e30", 1e-30, 1e30)
            least = self.latency + self.sample_cost
            allowed = f"a number >= {least:.6g}, the price of one step of one sample, up to 1e30"
            self._check("cost", allowed, least, 1e30)
            if self.cost / self.sample_cost > 1e30:
                raise InvalidProblem("cost", self.cost, "that of 1e30 samples at most")

    def _check(self, name: str, allowed: str, low: float, high: float) -> None:
        object.__setattr__(self, name, within(name, getattr(self, name), low, high, allowed))

    @property
    def most_steps(self) -> int:
        """Largest number of steps that leaves at least a sample for each."""
        if self.cost is None:
            assert self.samples is not None
            return int(min(self.samples, MAX_HORIZON))
        most = self.cost / (self.latency + self.sample_cost)
        # A quotient that is whole but for rounding is whole.
        return max(int(min(most * (1.0 + 1e-12), MAX_HORIZON)), 1)

    def samples_for(self, horizon: int) -> float:
        """Samples that are left for a run of so many steps."""
        if self.cost is None:
            assert self.samples is not None
            return self.samples
        return max((self.cost - horizon * self.latency) / self.sample_cost, float(horizon))

    def cost_of(self, horizon: int, samples: float) -> float:
        """Cost at the prices; the samples themselves without any."""
        return horizon * self.latency + samples * self.sample_cost


class Trial(NamedTuple):
    """One number of steps that was tried."""

    horizon: int
    samples: float
    excess_loss: float
    converged: bool


@dataclass(frozen=True, eq=False, repr=False)
class BudgetSolution(Brief):
    """The schedules at the number of steps that was chosen.

    Attributes
    ----------
    solution : Solution
        Solved anew at the chosen number of steps, from all starts, and replayed.
    budget : Budget
    trials : tuple of Trial
        Numbers of steps tried, increasing.
    tolerance : float
        0: the steps of the least loss; else the fewest within this share above it.
    at_bound : str or None
        ``"fewest"`` or ``"most"`` where the answer is the end of the allowed range: a wider one
        might do better.
    """

    told = ("horizon", "samples", "cost", "excess_loss", "tolerance", "at_bound")

    solution: Solution
    budget: Budget
    trials: tuple[Trial, ...]
    tolerance: float
    at_bound: str | None

    @property
    def horizon(self) -> int:
        """Number of steps chosen."""
        return self.solution.problem.horizon

    @property
    def samples(self) -> float:
        """Samples used."""
        assert self.solution.problem.samples is not None
        return self.solution.problem.samples

    @property
    def cost(self) -> float:
        """What is spent, at the prices of the budget."""
        return self.budget.cost_of(self.horizon, self.samples)

    @property
    def excess_loss(self) -> float:
        """Excess loss of the solution, replayed."""
        return self.solution.excess_loss

    def summary(self) -> dict[str, Any]:
        """Numbers of the solution and of the search as a JSON-able dict."""
        return self.solution.summary() | {
            "cost": self.cost,
            "trials": len(self.trials),
            "tolerance": self.tolerance,
            "at_bound": self.at_bound,
        }


def solve_budget(
    problem: Problem,
    budget: Budget,
    method: Method | None = None,
    *,
    tolerance: float | None = None,
    tol: float | None = None,
    throw: bool = True,
    replay_steps: int = MAX_STEPS,
) -> BudgetSolution:
    r"""Solve for the schedules and for the number of steps.

    Parameters
    ----------
    problem : Problem
        With the batch size among its controls. Its ``horizon`` is the largest number of steps
        allowed; its ``samples`` do not count, those of the budget do.
    budget : Budget
        All of it is used.
    method : Method, optional
        As for `solve`.
    tolerance : float, optional
        Share of the loss, >= 0, that may be given away for fewer steps. 0.005 where the rate is a
        control and steps cost nothing, since the loss is then flat in T; else 0, which is the T
        of the least loss.
    tol, throw, replay_steps
        As for `solve`, for the solve at the chosen number of steps.

    Returns
    -------
    BudgetSolution

    Raises
    ------
    InvalidProblem
        Batch size no control; a budget below one sample a step of warm-up.
    SolveFailed
        If the solve at the chosen number of steps does not converge.

    Notes
    -----
    The search is in log T, from the prediction :math:`D^{b/a}`: steps of a factor of two until the
    least loss is enclosed, then Brent's method, then, below 200 steps, neighbours. It takes the
    loss to have one valley. Above 200 steps each trial starts from the schedule of the nearest T,
    moved on the log clock.
    """
    most = _most_steps(problem, budget)
    flat = "eta" in problem.controls and budget.latency == 0.0
    if tolerance is None:
        tolerance = TOLERANCE if flat else 0.0
    if not is_number(tolerance) or not 0.0 <= tolerance < math.inf:
        raise InvalidProblem("tolerance", tolerance, "a number >= 0")
    search = _Search(problem, budget, method, tol, problem.warmup + 1, most)
    best = search.least(COARSE if tolerance > 0.0 else FINE)
    if tolerance > 0.0:
        best = search.fewest(best, math.log1p(tolerance))
    solution = search.finish(best, replay_steps)
    trials = tuple(search.trials[k] for k in sorted(search.trials))
    end = {search.most: "most", search.fewest_allowed: "fewest"}.get(best)
    found = BudgetSolution(solution, budget, trials, float(tolerance), end)
    if throw and not solution.converged:
        raise SolveFailed(solution.message, solution)
    return found


def _most_steps(problem: Any, budget: Any) -> int:
    """Check the arguments; the largest number of steps."""
    if not isinstance(problem, Problem):
        raise InvalidProblem("problem", type(problem).__name__, "an optsched.Problem")
    if not isinstance(budget, Budget):
        raise InvalidProblem("budget", type(budget).__name__, "a Budget")
    if "batch_size" not in problem.controls:
        allowed = "controls with batch, as a budget is spent on batches"
        raise InvalidProblem("controls", ",".join(problem.controls), allowed)
    problem.refuse_objective()
    most = min(problem.horizon, budget.most_steps)
    if most <= problem.warmup:
        raise InvalidProblem("warmup", problem.warmup, f"a whole number, 0 to {most - 1}")
    return most


class _Search:
    """Solves at several numbers of steps, each remembered."""

    def __init__(
        self,
        problem: Problem,
        budget: Budget,
        method: Method | None,
        tol: float | None,
        fewest: int,
        most: int,
    ) -> None:
        self.problem, self.budget, self.method, self.tol = problem, budget, method, tol
        self.fewest_allowed, self.most = fewest, most
        self.trials: dict[int, Trial] = {}
        self._schedules: dict[int, Schedule] = {}

    def _at(self, horizon: int) -> Problem:
        return self.problem.replace(horizon=horizon, samples=self.budget.samples_for(horizon))

    def loss(self, horizon: int) -> float:
        """Log of the optimal excess loss at a number of steps."""
        if horizon not in self.trials:
            start = self._start(horizon)
            problem = self._at(horizon)
            found = solve(
                problem,
                self.method,
                tol=self.tol,
                initial=start,
                throw=False,
                replay_steps=REPLAY_STEPS,
            )
            assert problem.samples is not None
            self.trials[horizon] = Trial(
                horizon, problem.samples, found.excess_loss, found.converged
            )
            self._schedules[horizon] = found.schedule
        value = self.trials[horizon].excess_loss
        return math.log(max(value, 1e-300)) if math.isfinite(value) else math.inf

    def _start(self, horizon: int) -> Schedule | None:
        """The schedule of the nearest trial; short horizons are solved from all starts."""
        if horizon <= SHORT or not self._schedules:
            return None
        near = min(self._schedules, key=lambda k: abs(math.log(k / horizon)))
        return stretched(self._schedules[near], horizon)

    def _guess(self) -> int:
        p = self.problem
        share = 1.0 if p.a is None or p.b is None else min(p.b / p.a, 1.0)
        return self._whole(math.log(3.0) + share * math.log(self.budget.samples_for(1)))

    def _whole(self, x: float) -> int:
        high = math.log(self.most)
        return min(max(round(math.exp(min(x, high))), self.fewest_allowed), self.most)

    def _best(self) -> int:
        return min(self.trials, key=lambda k: (self.loss(k), k))

    def least(self, width: float) -> int:
        """Steps of the least loss."""
        start = self._guess()
        self.loss(start)
        for factor in (2.0, 0.5):
            at = start
            # Uphill on one side, the valley is on the other.
            while (after := self._whole(math.log(at * factor))) != at:
                self.loss(after)
                if self.loss(after) >= self.loss(at):
                    break
                at = after
            if at != start:
                break
        best = self._best()
        tried = sorted(self.trials)
        place = tried.index(best)
        around = tried[max(place - 1, 0) : place + 2]
        if all(self.loss(k) > self.loss(best) for k in around if k != best):
            self._narrow(best, around, width)
        if width == FINE:
            self._compare_neighbours()
        return self._best()

    def _narrow(self, best: int, around: list[int], width: float) -> None:
        """Search between the neighbours of the best that was tried; it may be one of them."""
        from scipy.optimize import minimize_scalar

        f: Callable[[float], float] = lambda x: self.loss(self._whole(x))  # noqa: E731
        places = tuple(math.log(k) for k in around)
        if len(around) == 3:
            options = {"xtol": width / max(math.log(best), 1.0), "maxiter": 40}
            minimize_scalar(f, bracket=places, method="brent", options=options)
        elif len(around) == 2:
            minimize_scalar(f, bounds=places, method="bounded", options={"xatol": width})

    def _compare_neighbours(self) -> None:
        while (best := self._best()) <= SHORT:
            for k in (best - 1, best + 1):
                if self.fewest_allowed <= k <= self.most:
                    self.loss(k)
            if self._best() == best:
                return

    def fewest(self, best: int, more: float) -> int:
        """Fewest steps whose log loss is at most ``more`` above that of ``best``."""
        limit = self.loss(best) + more
        high = min(k for k in self.trials if self.loss(k) <= limit)
        low = max((k for k in self.trials if k < high), default=None)
        while low is None:  # nothing with a larger loss is known yet
            after = max(high // 2, self.fewest_allowed)
            if after == high:
                return high
            if self.loss(after) <= limit:
                high = after
            else:
                low = after
        while high - low > 1 and math.log(high / low) > WIDTH:
            middle = min(max(round(math.sqrt(low * high)), low + 1), high - 1)
            if self.loss(middle) <= limit:
                high = middle
            else:
                low = middle
        return high

    def finish(self, horizon: int, replay_steps: int) -> Solution:
        """The better of a solve from all starts and one from the trial's schedule."""
        problem = self._at(horizon)
        options: dict[str, Any] = {"tol": self.tol, "throw": False, "replay_steps": replay_steps}
        anew = solve(problem, self.method, **options)
        if horizon <= SHORT:
            return anew
        again = solve(problem, self.method, initial=self._schedules[horizon], **options)
        better = again.excess_loss < anew.excess_loss * (1.0 - REAL_GAIN)
        return again if (again.converged, better) > (anew.converged, False) else anew
