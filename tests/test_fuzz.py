"""The judge of random problems judges right: its recursion, its checks, its draws."""

from __future__ import annotations

import math

import numpy as np
import pytest

from benchmarks.fuzz.draw import SETS, options_of, said
from benchmarks.fuzz.judge import broken, judged
from benchmarks.fuzz.recursion import every_step, sgd
from optsched import Problem, Schedule, solve
from tests.problems import excess_of, qhm_recursion


def test_powers_of_the_step_are_steps() -> None:
    given = 2.5, 1.8, 60, 0.25
    steps = np.array([0, 3, 10, 400, 1990, 1999])
    eta = np.array([0.9, 0.9, 0.5, 0.2, 0.05, 0.01])
    dense = np.interp(np.arange(2000), steps, eta)
    exact = every_step(*given, {"eta": dense}, 5.0, {})
    problem = Problem(2.5, 1.8, 2000, features=60)
    assert exact == pytest.approx(excess_of(problem, dense), rel=1e-11)
    parts = [sgd(*given, steps, {"eta": eta}, 5.0, n) for n in (16, 32, 64, 2000)]
    assert parts[-1] == pytest.approx(exact, rel=1e-11)
    errors = np.abs(np.array(parts[:3]) / exact - 1.0)
    assert errors[2] < 0.4 * errors[1] < 0.16 * errors[0]


def test_nodes_stand_for_many_modes() -> None:
    steps, eta = np.array([0, 500, 999]), np.array([0.5, 0.3, 0.01])
    dense = np.interp(np.arange(1000), steps, eta)
    many = excess_of(Problem(1.6, 1.4, 1000, features=5000), dense)
    few = every_step(1.6, 1.4, 5000, 0.25, {"eta": dense}, 5.0, {})
    assert few == pytest.approx(many, rel=3e-4)
    assert sgd(1.6, 1.4, 5000, 0.25, steps, {"eta": eta}, 5.0, 500) == pytest.approx(many, rel=1e-3)
    assert every_step(1.6, 1.4, math.inf, 0.25, {"eta": dense}, 5.0, {}) > few


def test_momentum_and_batches_step_by_step() -> None:
    problem = Problem(2.5, 3.0, 50, features=20, controls="eta,beta,nu,batch")
    t = np.arange(50)
    controls = {
        "eta": 0.3 + 0.01 * t,
        "beta": 0.9 - 0.01 * t,
        "nu": 0.5 + 0.005 * t,
        "batch_size": 1.0 + 0.2 * t,
    }
    schedule = Schedule(50, t, controls)
    own = every_step(2.5, 3.0, 20, 0.25, controls, problem.batch_size, {})
    assert own == pytest.approx(qhm_recursion(problem, schedule), rel=1e-10)


@pytest.mark.parametrize("number", [3, 7])
def test_a_sound_solution_passes(number: int) -> None:
    verdict = judged("rate", 1, number, 100.0, True)
    assert (verdict.outcome, verdict.faults) == ("converged", [])
    assert abs(verdict.off) < 2e-3


def test_broken_constraints_are_seen() -> None:
    options = {
        "a": 3.5,
        "b": 2.0,
        "horizon": 100,
        "batch_size": 5.0,
        "features": 1000,
        "noise": 0.5,
    }
    solution = solve(Problem(**options, eta_max=0.3))  # type: ignore[arg-type]
    assert broken(options | {"eta_max": 0.3}, solution) == []
    for more in ({"eta_max": 0.29}, {"eta_min": 0.2}, {"max_change": 1e-5}, {"warmup": 10}):
        assert len(broken(options | {"eta_max": 0.3} | more, solution)) == 1


def test_draws_are_what_they_were_and_can_be_copied() -> None:
    for kind, number in (("rate", 5), ("rate", 6), ("joint", 1), ("joint", len(SETS) - 1)):
        options = options_of(kind, 1, number)
        assert options == options_of(kind, 1, number) != options_of(kind, 2, number)
        assert eval(said(options), {"Problem": Problem, "math": math}) == Problem(**options)
