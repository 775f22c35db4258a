"""Budgets: the number of steps that is chosen, its exponents, and the command line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from optsched import InvalidProblem, PowerLawSpectrum, Problem, Schedule, SolveFailed, replay, solve
from optsched.cli import main
from optsched.control.budget import Budget, BudgetSolution, solve_budget
from optsched.model.dynamics import SGDDynamics
from optsched.schedules.batches import batch_stages


def problem(horizon: int = 10**6, **changes) -> Problem:
    given = {"a": 2.5, "b": 1.5, "controls": "batch", "eta_max": 0.3, "features": 200, **changes}
    return Problem(horizon=horizon, **given)


def loss(horizon: int, samples: float, **changes) -> float:
    one = problem(horizon, samples=samples, **changes)
    return solve(one, throw=False, replay_steps=1000).excess_loss


@pytest.fixture(scope="module")
def ramp() -> BudgetSolution:
    return solve_budget(problem(), Budget(samples=300))


# The search


def test_search_agrees_with_brute_force(ramp: BudgetSolution) -> None:
    brute = {k: loss(k, 300.0) for k in range(80, 101, 2)}
    best = min(brute, key=lambda k: brute[k])
    assert 80 < best < 100
    assert ramp.horizon == pytest.approx(best, abs=1)
    assert ramp.excess_loss <= brute[best] * (1 + 1e-6)
    assert ramp.at_bound is None and ramp.tolerance == 0.0


def test_solution_is_complete(ramp: BudgetSolution) -> None:
    assert ramp.samples == ramp.cost == 300.0
    assert ramp.solution.schedule.sum("batch_size") == pytest.approx(300.0)
    assert ramp.solution.converged and ramp.solution.schedule.horizon == ramp.horizon
    assert np.ptp(ramp.solution.controls["eta"]) == 0.0
    tried = [trial.horizon for trial in ramp.trials]
    assert tried == sorted(set(tried)) and ramp.horizon in tried
    assert min(trial.excess_loss for trial in ramp.trials) >= ramp.excess_loss * (1 - 1e-6)
    summary = ramp.summary()
    assert summary["trials"] == len(tried) and summary["horizon"] == ramp.horizon
    json.dumps(summary)


def test_the_problem_bounds_the_steps(ramp: BudgetSolution) -> None:
    short = solve_budget(problem(60), Budget(samples=300))
    assert short.horizon == 60 and short.at_bound == "most"
    assert short.excess_loss > ramp.excess_loss


@pytest.mark.slow
def test_tiny_budgets() -> None:
    for samples in (1.0, 2.5):
        found = solve_budget(problem(), Budget(samples=samples))
        assert found.horizon <= samples and found.at_bound is not None


def test_one_sample_a_step_at_most() -> None:
    assert solve_budget(problem(), Budget(samples=30)).horizon < 30


def test_cost_trades_steps_for_samples(ramp: BudgetSolution) -> None:
    found = solve_budget(problem(), Budget(cost=600, latency=3.0))
    assert found.cost == pytest.approx(600.0)
    assert found.samples == pytest.approx(600.0 - 3.0 * found.horizon)
    for factor in (0.9, 1.1):
        horizon = round(found.horizon * factor)
        assert loss(horizon, 600.0 - 3.0 * horizon) > found.excess_loss
    # Free steps: the same as a budget of samples.
    free = solve_budget(problem(), Budget(cost=600, sample_cost=2.0))
    assert free.horizon == ramp.horizon and free.cost == 600.0


@pytest.mark.slow
def test_fewest_steps_where_the_rate_is_free() -> None:
    found = solve_budget(problem(controls="eta,batch"), Budget(samples=300))
    many = min(trial.excess_loss for trial in found.trials)
    assert found.tolerance == 0.005
    assert found.excess_loss <= 1.005 * many * (1 + 1e-6)
    fewer = loss(round(0.95 * found.horizon), 300.0, controls="eta,batch")
    assert fewer > 1.005 * many
    # Never worse than a constant batch of the same samples, at the same steps or at any other.
    for horizon in (found.horizon, 60, 300):
        plain = problem(horizon, controls="eta", batch_size=300 / horizon)
        joint = loss(horizon, 300.0, controls="eta,batch")
        assert joint <= solve(plain, gap=1e3).excess_loss * (1 + 1e-5)


# The exponents


def test_exponents_of_the_easy_phase() -> None:
    samples = np.array([3e3, 1.2e4, 5e4])
    steps, losses = [], []
    for budget in samples:
        # The parabola through three log losses around the known place, 3.2 D^(b/a).
        x = np.array([-0.2, 0.0, 0.2])
        tried = np.round(3.2 * budget**0.6 * np.exp(x)).astype(int)
        y = np.log([loss(int(k), budget, features=math.inf) for k in tried])
        curve = np.polyfit(np.log(tried), y, 2)
        steps.append(-curve[1] / (2 * curve[0]))
        losses.append(np.polyval(curve, steps[-1]))
    assert np.polyfit(np.log(samples), steps, 1)[0] == pytest.approx(0.6, abs=0.03)
    assert np.polyfit(np.log(samples), losses, 1)[0] == pytest.approx(-0.6, abs=0.03)


# Errors


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({}, "samples"),
        ({"samples": 0.5}, "samples"),
        ({"samples": math.nan}, "samples"),
        ({"samples": 10, "cost": 10}, "cost"),
        ({"samples": 10, "latency": 1.0}, "latency"),
        ({"samples": 10, "sample_cost": 2.0}, "sample_cost"),
        ({"cost": 10, "latency": -1}, "latency"),
        ({"cost": 10, "sample_cost": 0}, "sample_cost"),
        ({"cost": 10, "latency": 20}, "cost"),
        ({"cost": "ten"}, "cost"),
    ],
)
def test_bad_budgets(given: dict, field: str) -> None:
    with pytest.raises(InvalidProblem, match=rf"^{field}: got .*allowed"):
        Budget(**given)


def test_bad_arguments() -> None:
    budget = Budget(samples=100)
    with pytest.raises(InvalidProblem, match="controls: got 'eta'"):
        solve_budget(problem(controls="eta"), budget)
    with pytest.raises(InvalidProblem, match="budget"):
        solve_budget(problem(), 100)  # type: ignore[arg-type]
    with pytest.raises(InvalidProblem, match="problem"):
        solve_budget("batch", budget)  # type: ignore[arg-type]
    with pytest.raises(InvalidProblem, match="tolerance"):
        solve_budget(problem(), budget, tolerance=-1)
    with pytest.raises(InvalidProblem, match="warmup"):
        solve_budget(problem(controls="eta,batch", warmup=200), budget)


def test_a_solve_that_fails_carries_its_solution() -> None:
    with pytest.raises(SolveFailed) as caught:
        solve_budget(problem(4), Budget(samples=8), tol=1e-300)
    assert caught.value.solution is not None


# The command line

CLI = ["solve", "--a", "2.5", "--b", "1.5", "--peak", "0.3", "--features", "200"]
BATCH = [*CLI, "--control", "batch"]


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTSCHED_NO_CACHE", "1")


def _json(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    assert main([*argv, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_command_line_chooses_the_steps(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, ramp: BudgetSolution
) -> None:
    file = tmp_path / "ramp.npz"
    numbers = _json(capsys, *BATCH, "--samples", "300", "--output", str(file))
    assert numbers["horizon"] == ramp.horizon and numbers["samples"] == numbers["cost"] == 300.0
    assert numbers["trials"] == len(ramp.trials) and numbers["at_bound"] is None
    with np.load(file) as arrays:
        assert arrays["eta"].shape == arrays["batch_size"].shape == (ramp.horizon,)
        assert arrays["batch_size"].sum() == pytest.approx(300.0)
        assert (np.diff(arrays["batch_size"]) > 0).any()


def test_command_line_cost_and_whole_sizes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "ramp.csv"
    prices = ["--cost", "600", "--latency", "3", "--sample-cost", "1"]
    numbers = _json(
        capsys, *BATCH, *prices, "--batch-sizes", "1,2,4,8,16,32", "--output", str(file)
    )
    assert numbers["cost"] == pytest.approx(600.0)
    assert numbers["samples"] == pytest.approx(600.0 - 3.0 * numbers["horizon"])
    assert numbers["rounded_excess_loss"] == pytest.approx(numbers["excess_loss"], rel=0.05)
    schedule = Schedule.load(file)
    assert schedule.horizon == numbers["rounded_horizon"]
    assert schedule.batch_size is not None
    assert set(schedule.batch_size) <= {1, 2, 4, 8, 16, 32}
    assert numbers["stages"] == len(batch_stages(schedule))


@pytest.mark.parametrize(
    ("asked", "sizes", "worse"),
    [
        (["--a", "2.3", "--b", "2.6", "--control", "eta,batch"], "64,128,256", 0.002),
        (["--a", "2.5", "--b", "1.5", "--peak", "1.2", "--control", "batch"], "10,1000", 1.0),
    ],
)
def test_whole_sizes_far_from_the_optimal_ones_do_not_diverge(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, asked: list[str], sizes: str, worse: float
) -> None:
    file = tmp_path / "whole.npz"
    budget = ["--horizon", "300", "--samples", "30000", "--features", "200"]
    output = ["--batch-sizes", sizes, "--output", str(file)]
    numbers = _json(capsys, "solve", *asked, *budget, *output)
    schedule = Schedule.load(file)
    assert numbers["rounded_excess_loss"] <= (1.0 + worse) * numbers["excess_loss"]
    assert schedule.peak == numbers["rounded_peak"]
    if "eta" in asked[-1]:
        assert schedule.peak <= 1.0
    spectrum = PowerLawSpectrum(float(asked[1]), float(asked[3]), 200)
    loss = replay(spectrum, SGDDynamics(1.0, 0.25), schedule).excess_loss
    assert loss == pytest.approx(numbers["rounded_excess_loss"], rel=1e-9)


def test_command_line_report(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BATCH, "--samples", "300", "--divisors", "32"]) == 0
    out = capsys.readouterr().out
    assert "steps: of the least loss, from" in out and "whole batch sizes: excess loss" in out


@pytest.mark.parametrize(
    ("argv", "start"),
    [
        ([*BATCH, "--cost", "100", "--horizon", "9"], "--horizon: got 9.0"),
        ([*BATCH, "--cost", "100", "--samples", "9"], "--cost: got 100.0"),
        ([*BATCH, "--samples", "100", "--latency", "1"], "--latency: got 1.0"),
        ([*BATCH, "--samples", "100", "--sample-cost", "1"], "--sample-cost: got 1.0"),
        ([*BATCH, "--cost", "1", "--latency", "2"], "--cost: got 1.0"),
        ([*BATCH, "--cost", "x"], "--cost: got 'x'"),
        ([*BATCH, "--samples", "0.5"], "--samples: got 0.5"),
        ([*BATCH], "--horizon: got nothing"),
        ([*CLI, "--samples", "100"], "--samples: got 100.0"),
        ([*CLI, "--cost", "100"], "--cost: got 100.0"),
        ([*BATCH, "--samples", "100", "--divisors", "0"], "--divisors: got 0.0"),
        ([*BATCH, "--samples", "100", "--divisors", "2.5"], "--divisors: got 2.5"),
        ([*BATCH, "--samples", "100", "--batch-sizes", "1,x"], "--batch-sizes: got '1,x'"),
        ([*BATCH, "--samples", "9", "--batch-sizes", "1", "--divisors", "4"], "--batch-sizes: got"),
        ([*CLI, "--horizon", "9", "--divisors", "4"], "--divisors: got 4.0"),
        (
            [*CLI, "--control", "eta,beta,batch", "--samples", "100", "--divisors", "4"],
            "--divisors: got 4.0",
        ),
    ],
)
def test_command_line_errors(
    capsys: pytest.CaptureFixture[str], argv: list[str], start: str
) -> None:
    assert main(argv) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    assert shown.err.startswith(f"optsched: {start}")
