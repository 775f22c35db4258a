"""Objectives: sums along training are exact, optimised, bounded where a bound is true, told."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from scipy.optimize import minimize

from optsched import InvalidProblem, Problem, Schedule, replay, solve
from optsched.cli import main
from optsched.control.bounds.along import sum_bound
from optsched.control.mesh import graded_mesh
from optsched.control.rate.plain import PlainObjective
from optsched.control.rate.search import _first_mesh, _paths, _task
from optsched.control.traced import TracedObjective
from optsched.errors import BadPart
from optsched.model.dynamics import SGDDynamics
from optsched.objectives import (
    ExcessAt,
    FinalExcess,
    MeanExcess,
    Objective,
    Terms,
    find_objective,
    knot_weights,
)
from optsched.studies.compare.baselines import best_baselines
from optsched.studies.scaling import scaling

Floats = np.ndarray

# --- an objective of a user's ---------------------------------------------------------------------


@dataclass(frozen=True)
class LateMean(Objective):
    """The mean over the last steps, beside a share of the loss after the first of them."""

    begin: int = 20

    def points(self, horizon: int) -> Mapping[int, float]:
        return {self.begin: 0.5}

    def weight(self, steps: Floats, horizon: int) -> Floats:
        return np.where(steps > self.begin, 1.0 / (horizon - self.begin), 0.0)

    def breaks(self, horizon: int) -> tuple[int, ...]:
        return (self.begin,)


def losses(problem: Problem, eta: Floats) -> Floats:
    """Excess loss after 1, 2, ... steps, by a loop."""
    lam, mu, nu = problem.spectrum.full()
    e, m, found = mu.copy(), problem.batch_size, []
    for rate in eta:
        loss = problem.noise**2 + e.sum()
        e = (1 - 2 * rate * lam + rate**2 * (1 + 1 / m) * lam**2) * e + rate**2 / m * nu * loss
        found.append(e.sum())
    return np.array(found)


def value_of(problem: Problem, eta: Floats) -> float:
    """The objective, by hand."""
    curve, objective = losses(problem, eta), problem.terms.objective
    k = np.arange(1, len(eta) + 1)
    dense = np.broadcast_to(objective.weight(k.astype(float), len(eta)), k.shape) @ curve
    named = sum(w * curve[step - 1] for step, w in objective.points(len(eta)).items())
    return float(dense + named)


def small(objective: Any, horizon: int = 60, **options: Any) -> Problem:
    return Problem(2.5, 1.5, horizon, features=40, objective=objective, **options)


OBJECTIVES = ["mean", "20:1,60:2", ExcessAt({1: 0.3, 60: 1.0}), LateMean(20)]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_the_optimum_is_that_of_brute_force(objective: Any) -> None:
    """All rates at once, by another optimiser on another recursion."""
    problem = small(objective)
    found = solve(problem)
    eta = found.schedule.eta
    assert found.value == pytest.approx(value_of(problem, eta), rel=1e-9)
    assert found.value != pytest.approx(found.excess_loss)

    def log_value(x: Floats) -> float:
        return math.log(value_of(problem, np.exp(np.minimum(x, math.log(problem.eta_cap)))))

    start = np.log(np.maximum(eta, 1e-6)) - 0.05 * np.cos(np.arange(60))
    free = minimize(log_value, start, method="L-BFGS-B", options={"maxiter": 60, "maxfun": 9000})
    assert found.value <= math.exp(free.fun) * (1.0 + 1e-6)
    # What is best at the end is worse here, and the other way round.
    final = solve(problem.replace(objective="final"))
    assert value_of(problem, final.schedule.eta) > found.value * 1.001
    assert found.excess_loss > final.excess_loss


@pytest.mark.parametrize("objective", OBJECTIVES, ids=str)
def test_its_bound_is_below_every_schedule(objective: Any) -> None:
    problem = small(objective)
    found = solve(problem)
    proof = found.certificate
    assert 0.0 < proof.lower_bound <= found.value
    assert proof.certified_gap == pytest.approx(found.value / proof.lower_bound - 1.0)
    assert any("best at every step" in line for line in proof.not_checked)
    assert found.converged and found.summary()["objective"] == problem.terms.objective.name
    # It is the sum of bounds at each step, and so below the sum of the optima.
    weights = problem.terms.points
    if not problem.terms.dense:
        optima = {k: solve(small("final", k)).excess_loss for k in weights}
        ideal = sum(w * optima[k] for k, w in weights.items())
        assert proof.lower_bound <= ideal and proof.lower_bound > 0.9 * ideal


def test_the_bound_of_a_mean_is_below_the_mean_of_the_optima() -> None:
    problem = small("mean", 30)
    optima = [solve(small("final", k)).excess_loss for k in range(1, 31)]
    bound = solve(problem).certificate.lower_bound
    assert 0.7 * np.mean(optima) < bound <= np.mean(optima)
    terms = Terms.of(LateMean(10), 30)
    played = replay(problem.spectrum, problem.dynamics, Schedule.from_array(np.full(30, 0.1)))
    given = problem.modes, problem.batch_size, problem.noise**2, problem.eta_cap
    late = sum_bound(terms, *given, played.steps, played.excess_curve, 0.02)
    ideal = 0.5 * optima[9] + np.mean(optima[10:])
    assert 0.7 * ideal < late <= ideal


def test_no_other_dynamics_has_a_bound() -> None:
    found = solve(small("mean", 30, beta=0.5))
    assert found.certificate.lower_bound == 0.0
    assert found.value < found.replay.excess_curve[1:].mean() * (1 + 1e-9)


def test_several_controls_for_a_mean() -> None:
    problem = small("mean", 40, controls="eta,batch")
    found = solve(problem)
    assert found.value <= solve(problem.plain).value * (1.0 + 1e-6)
    assert found.value == pytest.approx(found.replay.excess_curve[1:].mean(), rel=1e-12)


def test_a_batch_ramp_for_two_horizons() -> None:
    """Samples are shared between both: a local optimum, better than the mean batch size."""
    problem = small("15:1,40:1", 40, controls="eta,batch")
    found = solve(problem)
    curve = found.replay.excess_curve
    assert found.value == pytest.approx(curve[15] + curve[40], rel=1e-12)
    assert found.converged and found.certificate.lower_bound == 0.0
    assert found.value <= solve(problem.plain).value * (1.0 + 1e-6)


@pytest.mark.parametrize("horizon", [1, 2, 3, 65, 3000])
def test_a_replay_sums_every_step(horizon: int) -> None:
    problem = Problem(2.5, 1.5, horizon, features=20)
    eta = 0.3 / (1.0 + np.arange(horizon)) ** 0.3
    schedule = Schedule.from_array(eta)
    curve = losses(problem, eta)
    half = max(horizon // 2, 1)
    for objective, exact in (
        (MeanExcess(), curve.mean()),
        (ExcessAt({half: 2.0, horizon: 1.0}), 2.0 * curve[half - 1] + curve[-1]),
        (None, curve[-1]),
    ):
        if isinstance(objective, ExcessAt) and half == horizon:
            continue
        played = replay(problem.spectrum, problem.dynamics, schedule, objective=objective)
        assert played.value == pytest.approx(exact, rel=1e-12) and played.error == 0.0
        assert played.excess_loss == pytest.approx(curve[-1], rel=1e-12)


def test_a_replay_by_blocks_says_its_error() -> None:
    problem = Problem(2.5, 1.5, 5000, features=20)
    steps = np.unique(np.concatenate([[0], np.geomspace(1, 4999, 40).round()]).astype(int))
    schedule = Schedule.from_knots(steps, eta=0.3 / (1.0 + steps) ** 0.3, horizon=5000)
    for objective in (MeanExcess(), ExcessAt({777: 1.0, 5000: 3.0})):
        exact, quick = (
            replay(
                problem.spectrum, problem.dynamics, schedule, objective=objective, max_steps=limit
            )
            for limit in (10**6, 10)
        )
        assert quick.how.endswith("nodes") and 0.0 < quick.error < 1e-3
        assert abs(quick.value / exact.value - 1.0) < 3.0 * quick.error + 1e-6
        assert 777 in quick.steps or not isinstance(objective, ExcessAt)


@pytest.mark.parametrize("horizon", [7, 3000, 10**6, 10**15])
def test_weights_at_the_knots_sum_what_is_smooth(horizon: int) -> None:
    terms = Terms.of(MeanExcess(), horizon)
    part = np.geomspace(1, horizon / 2, 45).round().astype(np.int64)
    edges = np.unique(np.concatenate([[0], part, horizon - part, [horizon]]))
    weights = knot_weights(terms, edges)
    assert weights.sum() == pytest.approx(1.0, rel=1e-9)

    def loss(k: Floats) -> Floats:
        return (1.0 + k) ** -0.6 + 0.01 * np.sqrt((horizon - k + 1.0) / horizon)

    if horizon <= 10**6:
        exact = loss(np.arange(1.0, horizon + 1.0)).mean()
        assert weights @ loss(edges.astype(float)) == pytest.approx(exact, rel=2e-4)


def test_corners_are_knots_and_stencils_stop_there() -> None:
    """Beyond a corner the loss may do anything: it does not enter the sum before it."""
    terms = Terms.of(LateMean(400), 1000)
    edges = np.unique(np.concatenate([np.arange(0, 1000, 37), [400, 1000]]))
    weights = knot_weights(terms, edges)
    flat = np.where(edges <= 400, 1.0, 3.0)
    jump = np.where(edges < 400, 1e6, flat)
    assert weights @ jump == pytest.approx(0.5 * 1.0 + weights[edges > 400] @ flat[edges > 400]
                                           + (weights[edges == 400][0] - 0.5) * 1.0)  # fmt: skip
    problem = Problem(3.5, 2.0, 3000, objective="1000:1,3000:1")
    mesh = _first_mesh(problem, _paths(problem), 40)
    assert {0, 999, 1000, 1001, 2999} <= set(mesh.steps.tolist())
    assert len(mesh.steps) < 130
    solution = solve(problem)
    assert {999, 1000} <= set(solution.t.tolist())
    # Annealed before the first of them, and up again after it.
    assert solution.schedule(1000) > 3.0 * solution.schedule(999)


@pytest.mark.parametrize("objective", ["mean", "500:1,3000:1"])
def test_gradients_and_errors_of_both_evaluations(objective: str) -> None:
    problem = Problem(2.5, 1.5, 3000, features=40, objective=objective)
    paths = _paths(problem)
    mesh = _first_mesh(problem, paths, 30)
    dynamics = problem.dynamics
    assert isinstance(dynamics, SGDDynamics)
    plain = PlainObjective(dynamics, problem.modes, mesh, problem.terms)
    traced = TracedObjective(dynamics, problem.modes, mesh, terms=problem.terms)
    x = np.log(0.2 / (1.0 + mesh.free_steps) ** 0.2)
    for ours, theirs in zip(plain(x), traced(x), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-7, atol=1e-12)
    one, two = plain.audit(x), traced.audit(x)
    np.testing.assert_allclose(one.errors, two.errors, rtol=1e-4, atol=1e-10)
    np.testing.assert_allclose(one.costates[:, :, 0], two.costates[:, : len(problem.modes.lam), 0],
                               rtol=1e-6, atol=1e-12)  # fmt: skip
    rng = np.random.default_rng(0)
    for _ in range(4):
        way = rng.normal(size=x.size)
        slope = (plain(x + 1e-5 * way)[0] - plain(x - 1e-5 * way)[0]) / 2e-5
        assert plain(x)[1] @ way == pytest.approx(slope, rel=1e-5, abs=1e-8)
    # The estimate of the error is honest: the sum over every step is this far away.
    schedule = Schedule.from_knots(mesh.steps, eta=np.exp(x), horizon=3000)
    exact = replay(problem.spectrum, dynamics, schedule, objective=problem.terms.objective)
    off = abs(one.value / exact.value - 1.0)
    assert off <= 3.0 * np.abs(one.errors).sum() + 1e-6
    task = _task(problem, mesh, x, 1e-6, problem.eta_cap)
    assert math.exp(task.objective(task.start)[0]) == pytest.approx(one.value)


def test_warm_up_and_floor_with_two_horizons() -> None:
    for warmup in (5, 30):
        problem = small("20:1,60:1", warmup=warmup, eta_min=0.01)
        eta = solve(problem).schedule.eta
        np.testing.assert_allclose(
            eta[:warmup], (np.arange(warmup) + 1) / (warmup + 1) * eta[warmup], rtol=1e-9
        )
        assert eta[warmup:].min() >= 0.01 * (1 - 1e-12)


def test_baselines_are_judged_by_the_same_objective() -> None:
    problem = small("mean", 200)
    for one in best_baselines(problem):
        eta = one.schedule.eta
        assert one.value == pytest.approx(losses(problem, eta).mean(), rel=1e-9)
        for factor in (0.9, 1.1):
            other = np.minimum(factor * eta, problem.eta_cap)
            assert losses(problem, other).mean() >= one.value * (1.0 - 1e-5)
    assert solve(problem).value < min(one.value for one in best_baselines(problem))


def test_objectives_in_words() -> None:
    assert find_objective("final") == FinalExcess() == Problem(2.0, 1.5, 10).objective
    assert find_objective("mean") == MeanExcess()
    two = find_objective("1e3:1,3000:0.5")
    assert two == ExcessAt({3000: 0.5, 1000: 1.0}) and hash(two) == hash(find_objective(two))
    assert two.name == "1000:1,3000:0.5" and Problem(2.0, 1.5, 3000, objective=two).rate_only
    assert Terms.of(ExcessAt({9: 1.0}), 9).final and not Terms.of(ExcessAt({9: 2.0}), 9).final
    for bad in ("average", "", "3", "1:1:1", "1:x", "1.5:1", "0:1", "5:-1", "5:nan", "5:1,5:1",
                None, 3, {1: -1.0}):  # fmt: skip
        with pytest.raises(InvalidProblem, match="objective"):
            find_objective(bad)
    for bad in ({}, {0: 1.0}, {5: 0.0}, {5: math.inf}, {"a": 1.0}, [5]):
        with pytest.raises(InvalidProblem, match="objective"):
            ExcessAt(bad)  # type: ignore[arg-type]
    with pytest.raises(InvalidProblem, match="the horizon, 60"):
        small("20:1,40:1")


class Broken(Objective):
    def __init__(self, **parts: Any) -> None:
        self.parts = parts

    def points(self, horizon: int) -> Any:
        return self.parts.get("points", {})

    def weight(self, steps: Floats, horizon: int) -> Any:
        return self.parts.get("weight", lambda k: 0.0)(steps)

    def breaks(self, horizon: int) -> Any:
        return self.parts.get("breaks", ())


@pytest.mark.parametrize(
    ("parts", "rule"),
    [
        ({}, "some step must have a weight"),
        ({"points": [60]}, r"points\(60\) must be a dict"),
        ({"points": {61: 1.0}}, r"points\(60\) must be a dict"),
        ({"points": {60: -1.0}}, r"points\(60\) must be a dict"),
        ({"weight": lambda k: np.nan * k}, "must be finite"),
        ({"weight": lambda k: -k}, "must be finite"),
        ({"weight": lambda k: np.ones(3)}, "shape of steps"),
        ({"weight": lambda k: "much"}, "shape of steps"),
        ({"points": {60: 1.0}, "breaks": (2.5,)}, r"breaks\(60\) must be whole"),
    ],
)
def test_a_broken_rule_is_named(parts: dict[str, Any], rule: str) -> None:
    with pytest.raises(BadPart, match=rule) as error:
        small(Broken(**parts))
    assert "objective Broken" in str(error.value)


def test_studies_of_the_final_loss_refuse_another() -> None:
    with pytest.raises(InvalidProblem, match=r"objective.*final"):
        scaling(small("mean"), [10, 20])


def test_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    given = ["solve", "--a", "2.5", "--b", "1.5", "--features", "40", "--json"]
    assert main([*given, "--objective", "20:1,60:1"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["horizon"] == 60 and found["objective"] == "20:1,60:1"
    assert found["objective_value"] == pytest.approx(solve(small("20:1,60:1")).value, rel=1e-3)
    assert main([*given, "--horizon", "60"]) == 0
    plain = json.loads(capsys.readouterr().out)
    assert plain["objective"] == "final" and plain["objective_value"] == plain["excess_loss"]
    assert main([*given[:-1], "--horizon", "60", "--objective", "mean"]) == 0
    out = capsys.readouterr().out
    assert "mean" in out.splitlines()[1] and "of mean: certified within" in out
    for bad in (["--horizon", "60", "--objective", "best"], ["--objective", "mean"],
                ["--horizon", "60", "--objective", "20:1,50:1"]):  # fmt: skip
        assert main([*given, *bad]) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_a_mesh_of_one_horizon_is_as_before() -> None:
    problem = Problem(3.5, 2.0, 3000)
    (path,) = _paths(problem)
    ours = _first_mesh(problem, [path], 60)
    theirs = graded_mesh(path, 3000, 60, problem.spectrum.largest, 0)
    np.testing.assert_array_equal(ours.steps, theirs.steps)
