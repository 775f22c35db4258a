"""A schedule family from outside the package: tuned, compared, a rival of a plan."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from optsched import InvalidProblem, Problem, Schedule, replay, solve
from optsched.pilot.planning.rivals import rivals
from optsched.rules.convex.bound import convex_bound
from optsched.schedules.families import FAMILIES, Family, Parameter, named_families
from optsched.studies.compare.convex import tune_convex
from optsched.studies.compare.families import compare
from optsched.studies.compare.tuning import tune
from tests.pilots import made_fit


def sine(horizon: int, peak: float, *, lift: float = 0.0) -> Schedule:
    """A quarter of a cosine from the peak to ``lift`` of it."""
    t = (np.arange(horizon) + 0.5) / horizon
    rates = peak * (lift + (1.0 - lift) * np.cos(0.5 * math.pi * t))
    return Schedule.from_array(rates)


SINE = Family("sine", sine, (Parameter("lift", 0.0, 0.5, 0.1),))


def test_a_family_of_ones_own_is_tuned_and_compared() -> None:
    problem = Problem(a=3.5, b=2.0, horizon=100, features=100)
    table = compare(problem, ["linear", SINE])
    row = {one.name: one for one in table.members}["sine"]
    best = solve(problem)
    assert best.excess_loss < row.excess_loss < 1.2 * best.excess_loss
    # Tuned: no other lift or peak of a grid is better.
    assert problem.spectrum is not None
    others = [
        replay(problem.spectrum, problem.dynamics, sine(100, row.peak * f, lift=lift)).excess_loss
        for f in (0.8, 1.0, 1.25)
        for lift in (0.0, 0.1, 0.3)
    ]
    assert row.excess_loss <= min(others) * (1 + 1e-4)


def test_it_is_judged_by_convex_theory() -> None:
    tuned = tune_convex(200, SINE)
    assert tuned.bound.best <= convex_bound(sine(200, 1.0, lift=0.4)).best * (1 + 1e-6)


def test_it_is_a_rival_of_a_plan() -> None:
    found = rivals(made_fit("fsl"), 3000, peak=1e-3, names=["wsd", SINE])
    assert set(found) == {"wsd_linear", "sine"}
    assert found["sine"].horizon == 3000


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Family("", sine), "name: got ''"),
        (lambda: Family("x", 3), "build: got 3"),  # type: ignore[arg-type]
        (lambda: Family("x", sine, (1,)), "parameters"),  # type: ignore[arg-type]
        (lambda: Family("x", sine, (Parameter("a", 0, 1, 0),) * 2), "every name once"),
        (lambda: Family("x", lambda h, p: [p] * h)(5, 1.0), "family x: got 'list'"),
        (lambda: Family("x", lambda h, p: sine(h + 1, p))(5, 1.0), "a Schedule of 5 steps"),
    ],
)
def test_a_broken_contract_names_the_family_and_the_rule(make: Any, said: str) -> None:
    with pytest.raises(InvalidProblem, match=said.replace("(", r"\(")):
        make()


def test_rates_out_of_proportion_to_the_peak_are_refused() -> None:
    odd = Family("odd", lambda h, p: sine(h, p**2))
    with pytest.raises(InvalidProblem, match=r"family odd.*proportion"):
        tune(Problem(a=3.5, b=2.0, horizon=50, features=50), odd)


def test_a_family_needs_no_parameters_and_gets_a_peak() -> None:
    assert [p.name for p in Family("plain", sine).parameters] == ["peak"]
    assert [p.name for p in SINE.parameters] == ["peak", "lift"]
    assert named_families(["wsd", SINE]) == [FAMILIES["wsd_linear"], SINE]
