"""What the third page shows: a schedule of one's own, judged on the problem."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from optsched.checks import is_number
from optsched.commands.page import recorded
from optsched.commands.report import verification_report
from optsched.commands.show import percent
from optsched.commands.verify import verify as verify_command
from optsched.control.problem import Problem
from optsched.control.solve import solve
from optsched.errors import InvalidProblem
from optsched.explore.curves import loss_curve, rate_curve
from optsched.explore.folder import inside
from optsched.explore.model import problem_of, said
from optsched.schedules import Schedule
from optsched.studies.verify import verify

__all__ = ["judged"]

MOST_KNOTS = 2000
STEP_BY_STEP = 100_000


def judged(body: Mapping[str, Any]) -> dict[str, Any]:
    """Loss of a schedule beside the optimum.

    The request has ``knots``, pairs of a share of the run in [0, 1] and a rate, or ``csv``, the
    text of a file with the columns step and lr, whose last step ends the run.
    """
    problem = problem_of(body.get("problem"))
    schedule = _schedule(body, problem)
    if schedule.horizon != problem.horizon:
        problem = problem.replace(horizon=schedule.horizon)
    result = verify(problem, schedule)
    best = solve(problem, replay_steps=STEP_BY_STEP, throw=False)
    with recorded(verify_command) as page:
        verification_report(result, "this schedule")
    lines = [line.replace("--peak", "eta_max") for line in said(page)["lines"]]
    loss, least = result.replay.excess_loss, best.excess_loss
    regret = loss / least - 1.0 if math.isfinite(loss) and least > 0.0 else math.nan
    return {
        "status": result.status,
        "horizon": problem.horizon,
        "numbers": result.summary(),
        "regret": regret,
        "to_optimum": percent(regret) if math.isfinite(regret) else "",
        "lines": lines,
        "rate": rate_curve(schedule),
        "loss": loss_curve(result.replay) if result.status == "ok" else None,
        "best": {
            "excess_loss": best.excess_loss,
            "bias": best.bias,
            "variance": best.variance,
            "peak": best.schedule.peak,
            "rate": rate_curve(best.schedule),
            "loss": loss_curve(best.replay),
        },
    }


def _schedule(body: Mapping[str, Any], problem: Problem) -> Schedule:
    if body.get("csv") is not None:
        if not isinstance(body["csv"], str):
            raise InvalidProblem("csv", body["csv"], "the text of a csv with step and lr")
        with inside():
            path = Path("schedule.csv")
            path.write_text(body["csv"].strip() + "\n", encoding="utf-8")
            return Schedule.load(path)
    knots = body.get("knots")
    good = (
        isinstance(knots, list)
        and 1 <= len(knots) <= MOST_KNOTS
        and all(
            isinstance(one, list) and len(one) == 2 and all(map(is_number, one)) for one in knots
        )
    )
    if not good:
        raise InvalidProblem("knots", knots, f"1 to {MOST_KNOTS} pairs of a share and a rate")
    shares, rates = np.array(knots, float).T
    if not ((shares >= 0.0) & (shares <= 1.0)).all():
        raise InvalidProblem("knots", knots, "shares of the run from 0 to 1")
    if not (np.isfinite(rates) & (rates >= 0.0)).all():
        raise InvalidProblem("knots", knots, "finite rates, 0 or more")
    order, end = np.argsort(shares, kind="stable"), problem.horizon - 1
    at = np.round(shares[order] * end).astype(np.int64)
    steps, last = np.unique(at[::-1], return_index=True)  # of knots at one step the last counts
    eta = rates[order][::-1][last]
    every = np.unique([0, *steps.tolist(), end])  # held before the first and after the last
    return Schedule.from_knots(every, eta=np.interp(every, steps, eta), horizon=problem.horizon)
