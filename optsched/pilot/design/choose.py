r"""The pilots that leave a plan least uncertain, for a budget of steps: optimal Bayesian design.

What is minimised is the variance that the final losses of the plans at the target horizon have
*against each other* once the pilots are run, in the law linearised
(`optsched.pilot.design.information`), averaged over what the law may be; a plan far from the best
counts little. Runs are added by what they gain for their cost, and exchanged as long as that helps
(Fedorov's exchange), from several starts. See Chaloner & Verdinelli, "Bayesian experimental design:
a review" (1995), for the criterion, psi-optimality averaged over a prior.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from optsched.arrays import Bools, Floats
from optsched.checks import positive, whole
from optsched.controls import MAX_HORIZON
from optsched.errors import InvalidProblem
from optsched.pilot.design.information import Around, linearised
from optsched.pilot.design.prior import after_fit, from_nothing
from optsched.pilot.design.runs import (
    SHAPES,
    Candidate,
    candidates,
    lengths_of,
    usual_grid,
    usual_three,
)
from optsched.pilot.fitting import Fit
from optsched.pilot.laws import NormLaw
from optsched.schedules.families import cosine, with_warmup, wsd
from optsched.schedules.schedule import Schedule

__all__ = ["Design", "best_set", "design", "plans_at"]

COOLDOWNS = (0.1, 0.2, 0.4, 1.0)  # of the plans
MOST_RUNS = 12
ROUNDS = 6  # of exchanges
GAIN = 1e-4  # relative: an exchange that helps less is none
BELOW, ABOVE, COUNT = 4.0, 2.0, 5  # peaks around those of a fit, as plan tries them


@dataclass(frozen=True, eq=False)
class Design:
    """Pilots, and what they leave open.

    Attributes
    ----------
    runs : tuple of Candidate
    error : float
        Standard error of the differences between plans that the law expects once they are run,
        in nats: weighted, over pairs of plans near the best.
    before, three, grid : float
        The same without further runs, with the usual three at the middle peak, and with a sweep of
        the peak, at the same cost; NaN where there are no steps for them.
    budget : int
    """

    runs: tuple[Candidate, ...]
    error: float
    before: float
    three: float
    grid: float
    budget: int

    @property
    def cost(self) -> int:
        """Steps of all runs."""
        return sum(run.steps for run in self.runs)


def plans_at(
    horizon: int, peaks: Sequence[float] | Floats, warmup: int
) -> list[tuple[Schedule, float]]:
    """Plans between which the choice is: every peak, with a cosine and some cooldowns."""
    warmup = min(warmup, horizon // 2)
    out = []
    for peak in peaks:
        made = [with_warmup(cosine, warmup, horizon, float(peak))]
        free = horizon - warmup
        made += [
            wsd(horizon, float(peak), warmup=warmup, cooldown=max(int(share * free), 1))
            for share in COOLDOWNS
        ]
        out += [(one, float(peak)) for one in made]
    return out


def design(
    budget: int,
    horizon: int,
    *,
    fit: Fit | None = None,
    peaks: Iterable[float] | None = None,
    lengths: Iterable[int] | None = None,
    shapes: Iterable[str] = tuple(SHAPES),
    warmup: int | None = None,
    law: NormLaw | None = None,
    loss: float = 3.0,
    most: int = MOST_RUNS,
) -> Design:
    """Choose pilots.

    Parameters
    ----------
    budget : int
        Steps of all of them.
    horizon : int
        Steps of the run that is to be planned.
    fit : Fit, optional
        To earlier pilots: what it leaves open is what counts. By the priors of the norm law if not
        given.
    peaks : iterable of float, optional
        Peak rates that come into question, increasing. Around those of the fit if not given, which
        is needed where there is none.
    lengths : iterable of int, optional
        Of the runs; an eighth to a half of the budget if not given.
    shapes : iterable of str
        In `SHAPES`.
    warmup : int, optional
        Of the runs and the plan; that of the fit, or 2 % of the horizon up to 1/8 of the shortest
        run, if not given.
    law : NormLaw, optional
        What is known of the optimiser, without a fit.
    loss : float
        Expected at the end of the longest pilot, without a fit: all is in proportion to it.
    most : int
        Runs.

    Returns
    -------
    Design

    Raises
    ------
    InvalidProblem
        Values out of range, a budget in which no run fits, a law that has no plans.
    """
    budget = whole("budget", budget, 2, MAX_HORIZON)
    horizon = whole("horizon", horizon, 2, MAX_HORIZON)
    most = whole("most", most, 1, 100)
    shapes = list(shapes)
    unknown = [one for one in shapes if one not in SHAPES]
    if unknown or not shapes:
        raise InvalidProblem("shapes", unknown or None, "some of " + ", ".join(SHAPES))
    known = None if fit is None else after_fit(fit)
    grid = _peaks(peaks, fit)
    if warmup is None:
        warmup = min(horizon // 50, budget // 128) if fit is None else fit.warmup
    warmup = whole("warmup", warmup, 0, horizon - 1)
    runs = candidates(grid, lengths_of(budget, horizon, warmup, lengths), warmup, shapes)
    span = float(max(run.steps for run in runs))
    prior = known or from_nothing(law or NormLaw(), grid[-1], span, positive("loss", loss))
    three = usual_three(budget, grid[len(grid) // 2], warmup)
    sweep = usual_grid(budget, grid, warmup)
    usual = [one for one in (*three, *sweep) if one.steps > warmup + 1]
    model = linearised(prior, [*runs, *usual], plans_at(horizon, grid, warmup))
    number = len(runs)
    chosen = best_set(model, np.array([run.steps for run in runs]), budget, most)
    nothing = np.zeros(model.runs.shape[:1] + model.runs.shape[2:])

    def left(some: Sequence[int], whole: int = 0) -> float:
        if len(some) < whole:
            return math.nan  # there are no steps for them
        return float(model.error(nothing + model.runs[:, list(some)].sum(1)))

    at = {id(run): number + i for i, run in enumerate(usual)}
    found = sorted(chosen, key=lambda i: (runs[i].peak, runs[i].steps, runs[i].shape))
    return Design(
        tuple(runs[i] for i in found),
        left(found),
        left([]),
        left([at[id(run)] for run in three if id(run) in at], len(three)),
        left([at[id(run)] for run in sweep if id(run) in at], len(sweep)),
        budget,
    )


def _peaks(given: Iterable[float] | None, fit: Fit | None) -> list[float]:
    if given is None:
        if fit is None:
            raise InvalidProblem("peaks", None, "the rates in question, as nothing was fitted yet")
        low, high = fit.peaks
        if not fit.law.carries:
            return sorted({low, high})
        return np.geomspace(low / BELOW, high * ABOVE, COUNT).tolist()
    found = [positive("peaks", one) for one in given]
    if not found or any(x >= y for x, y in pairwise(found)):
        raise InvalidProblem("peaks", found, "one rate or more, increasing")
    if fit is not None and not fit.law.carries:
        low, high = fit.peaks
        bad = [one for one in found if not 0.98 * low <= one <= 1.02 * high]
        if bad:
            allowed = f"{low:g} to {high:g}: the law {fit.law.name} does not carry to other peaks"
            raise InvalidProblem("peaks", bad[0], allowed)
    return found


def best_set(
    model: Around, cost: Floats, budget: int, most: int = MOST_RUNS, available: Floats | None = None
) -> list[int]:
    """Indices of the candidates that leave the least variance within a budget.

    Parameters
    ----------
    model : Around
        Of the candidates, and maybe others behind them.
    cost : numpy.ndarray, shape (n,)
        Of the candidates.
    budget : int
    most : int
        Runs.
    available : numpy.ndarray, shape (n,), optional
        How often each can be taken; once if not given, as a law errs alike in the same run.
    """
    count = np.ones(len(cost)) if available is None else np.asarray(available)
    found = []
    # Few long runs or many short ones: starts of both kinds.
    for cap in sorted({int(x) for x in np.unique(cost)}):
        begin = _greedy(model, cost, budget, most, np.where(cost <= cap, count, 0))
        found.append(_exchanged(model, cost, budget, most, count, begin))
    return min(found, key=lambda some: _score(model, some))


def _information(model: Around, some: Sequence[int]) -> Floats:
    return model.runs[:, list(some)].sum(1)


def _score(model: Around, some: Sequence[int]) -> float:
    return float(model.error(_information(model, some)))


def _after(model: Around, some: Sequence[int], allowed: Bools) -> Floats:
    """Score with each of the allowed candidates added, infinite for the others."""
    base = _information(model, some)
    out = np.full(len(allowed), np.inf)
    at = np.flatnonzero(allowed)
    if len(at):
        out[at] = model.error(base + model.runs[:, at].swapaxes(0, 1))
    return out


def _open(some: Sequence[int], cost: Floats, left: float, count: Floats) -> Bools:
    """Which candidates may be added."""
    used = np.bincount(np.array(some, dtype=int), minlength=len(cost))
    return (cost <= left) & (used < count)


def _greedy(
    model: Around, cost: Floats, budget: int, most: int, count: Floats, begin: Sequence[int] = ()
) -> list[int]:
    """Add what gains most for its cost, until nothing fits."""
    some = [*begin]
    while len(some) < most:
        allowed = _open(some, cost, budget - cost[some].sum(), count)
        if not allowed.any():
            break
        gain = np.log(_score(model, some)) - np.log(_after(model, some, allowed))
        some.append(int(np.argmax(np.where(allowed, gain / cost, -np.inf))))
    return some


def _exchanged(
    model: Around, cost: Floats, budget: int, most: int, count: Floats, some: list[int]
) -> list[int]:
    """Take one out and fill the budget anew, as long as that helps."""
    score = _score(model, some) if some else np.inf
    for _ in range(ROUNDS):
        better = False
        for out in range(len(some)):
            rest = some[:out] + some[out + 1 :]
            left = budget - cost[rest].sum()
            after = _after(model, rest, _open(rest, cost, left, count))
            best = [int(np.argmin(after))] if np.isfinite(after).any() else []
            tried = _greedy(model, cost, budget, most, count, [*rest, *best])
            if tried and (now := _score(model, tried)) < score * (1.0 - GAIN):
                some, score, better = tried, now, True
                break
        if not better:
            break
    return some
