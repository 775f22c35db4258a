"""What the first page shows: the optimum of a problem, what people use, and exponents."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from optsched.commands.page import Page, Sentences, Table, recorded
from optsched.commands.report import floor_words, solution_report
from optsched.commands.show import percent
from optsched.commands.solve import solve as solve_command
from optsched.control.certificate import UNREFINED
from optsched.control.problem import Problem
from optsched.control.solution import Solution
from optsched.control.solve import solve
from optsched.errors import InvalidProblem
from optsched.explore.curves import digits, loss_curve, rate_curve
from optsched.studies.compare.tuning import tune
from optsched.studies.scaling import scaling

__all__ = ["baselines", "exponents", "optimum", "problem_of", "proof", "said"]

FIELDS = ("a", "b", "horizon", "features", "batch_size", "noise", "eta_max")
GAP = 0.005  # of the bound that follows a moment later
# Longer horizons are replayed by blocks, which takes milliseconds: while a slider moves, and after.
STEP_BY_STEP, STEP_BY_STEP_AFTER = 2000, 100_000
# Families beside the optimum, and what is tuned besides their peak.
RIVALS = {"constant": (), "linear": (), "cosine": (), "wsd": ("decay",)}
AROUND = (1 / 8, 1 / 4, 1 / 2, 1.0, 2.0, 4.0, 8.0)  # horizons of local exponents over T
EXPONENTS = {
    "expected": "loss, T to the power of -p",
    "expected_peak": "peak rate, T to the power of -q",
    "expected_annealing": "annealing time, T to the power of r",
}


def problem_of(given: Any) -> Problem:
    """The problem whose fields a request holds.

    Raises
    ------
    InvalidProblem
        Another field, or a value that is not allowed.
    """
    if not isinstance(given, Mapping):
        raise InvalidProblem("problem", given, "an object with " + ", ".join(FIELDS))
    for name in given:
        if name not in FIELDS:
            raise InvalidProblem(str(name), given[name], "one of " + ", ".join(FIELDS))
    values = {name: value for name, value in given.items() if value is not None}
    if str(values.get("features")).strip().lower() in ("inf", "infinity", "∞"):
        values["features"] = math.inf
    for name in ("a", "b", "horizon"):
        if name not in values:
            rule = "a whole number of steps, 1 to 10^15" if name == "horizon" else "a number > 1"
            raise InvalidProblem(name, None, rule)
    return Problem(**values)


def said(page: Page) -> dict[str, Any]:
    """What a command said, as JSON."""
    lines = [line for one in page.blocks if isinstance(one, Sentences) for line in one.lines]
    tables = [
        {"titles": one.titles, "rows": one.rows, "words": one.words}
        for one in page.blocks
        if isinstance(one, Table)
    ]
    return {"lines": lines, "tables": tables, "warnings": page.warnings}


def _drawn(solution: Solution) -> dict[str, Any]:
    """Curves, numbers and words of a solution."""
    with recorded(solve_command) as page:
        solution_report(solution, [])
    words = said(page)["lines"]
    words = [line.replace("--peak", "eta_max") for line in words]
    return {
        "rate": rate_curve(solution.schedule),
        "loss": loss_curve(solution.replay),
        "numbers": solution.summary(),
        "words": [*words, *floor_words(solution.certificate.floor, solution.excess_loss)],
        "not_checked": list(solution.certificate.not_checked),
    }


def optimum(body: Mapping[str, Any]) -> dict[str, Any]:
    """The optimal schedule, fast: long replays by blocks, a bound that is not refined."""
    return _solved(body, UNREFINED, STEP_BY_STEP)


def proof(body: Mapping[str, Any]) -> dict[str, Any]:
    """The optimal schedule with the bound that the command line prints."""
    return _solved(body, GAP, STEP_BY_STEP_AFTER)


def _solved(body: Mapping[str, Any], gap: float, steps: int) -> dict[str, Any]:
    problem = problem_of(body.get("problem"))
    found = solve(problem, gap=gap, replay_steps=steps, throw=False)
    return {**_drawn(found), "converged": found.converged, "message": found.message}


def baselines(body: Mapping[str, Any]) -> dict[str, Any]:
    """Tuned constant, linear, cosine and WSD schedules, and how much more they lose."""
    problem = problem_of(body.get("problem"))
    steps = STEP_BY_STEP_AFTER
    found = solve(problem, gap=UNREFINED, replay_steps=steps, throw=False)
    rows = []
    for name, free in RIVALS.items():
        tuned = tune(problem, name, free=free, replay_steps=steps)
        regret = tuned.excess_loss / found.excess_loss - 1.0 if found.excess_loss > 0 else math.nan
        rows.append(
            {
                "name": name,
                "peak": tuned.peak,
                "at_bound": tuned.at_bound,
                "options": {key: tuned.options[key] for key in free},
                "excess_loss": tuned.excess_loss,
                "bias": tuned.replay.bias,
                "variance": tuned.replay.variance,
                "regret": regret,
                "to_optimum": percent(regret) if math.isfinite(regret) else "",
                "rate": rate_curve(tuned.schedule),
                "loss": loss_curve(tuned.replay),
            }
        )
    return {"rows": rows}


def exponents(body: Mapping[str, Any]) -> dict[str, Any]:
    """Exponents around the horizon, from solves at an eighth to eight times of it, and theory."""
    problem = problem_of(body.get("problem"))
    around = sorted({round(problem.horizon * share) for share in AROUND})
    horizons = [horizon for horizon in around if 1 <= horizon <= 10**15]
    options = {"gap": UNREFINED, "replay_steps": 0, "throw": False}
    study = scaling(problem, horizons, solve_options=options)
    rows = []
    for name, words in EXPONENTS.items():
        value, error = study.exponents.get(name, (math.nan, math.nan))
        rows.append(
            {
                "name": name,
                "words": words,
                # Plus 0, as a rate at its bound has an exponent of -0.
                "fitted": round(value, 9) + 0.0,
                "stderr": round(error, 9),
                "theory": study.theory.get(name),
            }
        )
    points = [point for point in study.points if point.converged]
    return {
        "rows": rows,
        "horizons": [point.horizon for point in points],
        "losses": digits([point.excess_loss for point in points]),
        "from": horizons[0],
        "to": horizons[-1],
        "warnings": list(study.warnings),
    }
