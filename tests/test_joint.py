"""Joint solves: floors to beat, what contains what, honesty of the certificate, odd corners."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optsched import Collocation, InvalidProblem, Problem, Schedule, Shooting, Solution, solve
from optsched.control.joint.hessian import lowest_curvature
from optsched.control.joint.search import control_nodes
from optsched.control.joint.starts import named_starts
from optsched.control.mesh import log_mesh
from optsched.control.traced import TracedObjective
from optsched.optimisers.coordinates import (
    Average,
    Batch,
    BoundedSplit,
    Chart,
    Forgetting,
    LogRate,
    SplitRate,
    Weight,
)
from tests.problems import JOINT, Known, qhm_recursion

Floats = np.ndarray


def _replayed(solution: Solution) -> float:
    """Excess loss of the exported arrays, by the textbook recursion on all modes."""
    return qhm_recursion(solution.problem, solution.schedule)


@pytest.fixture(scope="module")
def solved() -> dict[str, Solution]:
    return {}


def _solve(known: Known, cache: dict[str, Solution]) -> Solution:
    if known.name not in cache:
        cache[known.name] = solve(known.problem)
    return cache[known.name]


QUICK = [known for known in JOINT if "slow" not in known.tags]
SLOW = [known for known in JOINT if "slow" in known.tags]


@pytest.mark.parametrize("known", QUICK, ids=lambda known: known.name)
def test_beats_the_floors_on_the_exported_arrays(known: Known, solved: dict[str, Solution]) -> None:
    solution = _solve(known, solved)
    assert known.best is not None
    loss = _replayed(solution)
    assert loss <= known.best
    assert loss == pytest.approx(solution.excess_loss, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("known", SLOW, ids=lambda known: known.name)
def test_beats_the_floors_at_long_horizons(known: Known) -> None:
    solution = solve(known.problem)
    assert known.best is not None
    assert _replayed(solution) <= known.best


CONTAINED = [
    {"a": 3.5, "b": 5.0, "controls": "eta,beta,nu"},
    {"a": 2.5, "b": 1.5, "controls": "eta,batch"},
    {"a": 2.5, "b": 1.5, "controls": "eta,ema"},
    {"a": 2.5, "b": 1.5, "controls": "eta,beta,nu", "features": 1},  # momentum brings nothing
]


@pytest.mark.parametrize("options", CONTAINED)
def test_never_worse_than_the_plain_optimum_it_contains(options: dict) -> None:
    problem = Problem(horizon=120, **options)
    assert problem.contains_plain
    joint, plain = solve(problem), solve(problem.plain)
    assert joint.excess_loss <= plain.excess_loss * (1.0 + 1e-6)
    proof = joint.certificate
    assert proof.local_optimum and len(proof.starts) >= 2
    if options["controls"] == "eta,batch":
        assert 0.0 < proof.lower_bound < joint.excess_loss and proof.certified_gap < 0.5
        return
    assert proof.lower_bound == 0.0 and math.isinf(proof.certified_gap)
    summary = joint.summary()
    assert summary["starts"] == len(proof.starts) and summary["local_optimum"] is True
    assert summary["certified_gap"] is None


def test_random_perturbations_do_not_beat_a_local_optimum(solved: dict[str, Solution]) -> None:
    """Smooth and rough perturbations of every exported array, small enough to be local."""
    solution = _solve(QUICK[0], solved)
    rng = np.random.default_rng(0)
    schedule, best = solution.schedule, solution.excess_loss
    t = np.linspace(0, 1, len(schedule.steps))
    for _ in range(40):
        wave = np.sin(rng.uniform(1, 12) * t + rng.uniform(0, 7)) * 10 ** rng.uniform(-2.5, -0.7)
        name = str(rng.choice(["eta", "beta", "nu"]))
        values = schedule.controls[name]
        moved = values * np.exp(wave) if name == "eta" else 1 - (1 - values) * np.exp(wave)
        trial = schedule.replace(**{name: np.clip(moved, 0.0, 1e9 if name == "eta" else 0.99999)})
        # Schedules off the nodes may gain what the nodes cannot resolve, and no more.
        assert qhm_recursion(solution.problem, trial) >= best * (1.0 - 2e-3)


def test_the_two_methods_agree(solved: dict[str, Solution]) -> None:
    problem = Problem(3.5, 5.0, 100, controls="eta,beta")
    ours, theirs = solve(problem), solve(problem, Shooting(), tol=1e-4)
    assert theirs.excess_loss == pytest.approx(ours.excess_loss, rel=5e-3)


def test_replay_gap_is_small_and_told(solved: dict[str, Solution]) -> None:
    for known in QUICK:
        proof = _solve(known, solved).certificate
        assert abs(proof.replay_gap) < 3e-3
        assert proof.kkt_residual <= 1e-5
        assert any("global optimality" in line for line in proof.not_checked)


@pytest.mark.parametrize("horizon", [1, 2, 3])
@pytest.mark.parametrize("controls", ["eta,beta,nu", "eta,batch"])
def test_tiny_horizons(horizon: int, controls: str) -> None:
    solution = solve(Problem(3.5, 5.0, horizon, controls=controls))
    plain = solve(solution.problem.plain)
    assert solution.excess_loss <= plain.excess_loss * (1.0 + 1e-6)
    assert len(solution.schedule) == horizon


HARD = [(3.5, 5.0, 80), (3.5, 5.0, 300), (1.5, 4.0, 80), (1.5, 4.0, 1000)]


@pytest.mark.parametrize(("a", "b", "horizon"), HARD)
def test_rate_and_batch_in_the_hard_phase(a: float, b: float, horizon: int) -> None:
    problem = Problem(a, b, horizon, 200, samples=10 * horizon, controls="eta,batch")
    solution = solve(problem)
    assert solution.certificate.kkt_residual <= 1e-5
    assert solution.excess_loss < 0.995 * solve(problem.plain).excess_loss


@pytest.mark.parametrize("jump", [0.01, 2.99, 3.0, 3.001, 100.0])
def test_a_batch_size_may_jump_by_any_factor_between_steps(jump: float) -> None:
    """A single step has no half, and no place before it at which to look for one."""
    sizes = 1e3 * np.array([1.0, 1.0, jump, jump**2])
    problem = Problem(3.5, 5.0, 4, 20, samples=sizes.sum(), controls="eta,batch")
    mesh = log_mesh(4, 112)
    nodes = control_nodes(problem, mesh, None)
    objective = TracedObjective(problem.dynamics, problem.modes, mesh, nodes)
    x = nodes.fit({"eta": np.full(4, 0.5), "batch_size": sizes})
    value, gradient, metric = objective(x)
    assert np.isfinite([value, *gradient, *metric]).all()
    schedule = Schedule.from_knots(mesh.steps, objective.controls(x), horizon=4)
    exact = qhm_recursion(problem, schedule)
    assert math.exp(value) == pytest.approx(exact, rel=1e-12)


def test_no_noise() -> None:
    problem = Problem(3.5, 5.0, 100, noise=0.0, controls="eta,beta,nu")
    solution = solve(problem)
    assert solution.excess_loss < 0.4 * solve(problem.plain).excess_loss


def test_bounded_rate_is_kept() -> None:
    solution = solve(Problem(3.5, 5.0, 120, controls="eta,beta,nu", eta_max=1.0))
    assert solution.schedule.peak <= 1.0 + 1e-12
    free = solve(Problem(3.5, 5.0, 120, controls="eta,beta,nu"))
    assert free.excess_loss < solution.excess_loss


def test_held_momentum_and_warm_up() -> None:
    problem = Problem(3.5, 5.0, 120, momentum="heavy-ball", beta=0.9, warmup=10)
    solution = solve(problem)
    eta = solution.schedule.eta
    assert np.allclose(eta[:10] / eta[10], (np.arange(10) + 1) / 11)
    assert np.all(solution.schedule.array("beta") == 0.9)
    assert np.all(solution.schedule.array("nu") == 1.0)
    assert _replayed(solution) == pytest.approx(solution.excess_loss, rel=1e-9)


def test_momentum_alone_at_a_held_rate() -> None:
    solution = solve(Problem(3.5, 5.0, 60, controls="beta,nu", eta_max=0.5))
    assert np.all(solution.schedule.eta == 0.5)
    assert _replayed(solution) == pytest.approx(solution.excess_loss, rel=1e-9)
    alone = solve(Problem(3.5, 5.0, 60, controls="nu", beta=0.9, eta_max=0.5))
    assert solution.excess_loss <= alone.excess_loss * (1.0 + 1e-6)


def test_samples_are_spent_exactly() -> None:
    solution = solve(Problem(2.5, 1.5, 300, controls="batch", samples=4000.0, eta_max=0.3))
    assert solution.schedule.array("batch_size").sum() == pytest.approx(4000.0, rel=1e-12)
    assert solution.schedule.array("batch_size").min() >= 1.0
    assert np.all(solution.schedule.eta == 0.3)
    # The ramp of the theory: m grows as (T-t)^(1/(2b)-1) towards the end.
    k = np.array([150, 200, 250, 285])
    m = solution.schedule(k, "batch_size")
    slope = np.polyfit(np.log(300.0 - k), np.log(m), 1)[0]
    assert slope == pytest.approx(1 / 3.0 - 1, abs=0.15)


def test_a_mesh_too_coarse_for_the_oscillation_is_not_trusted() -> None:
    """Two blocks of 512 steps: the error estimate sees what the solver's loss does not."""
    problem = Problem(3.5, 2.0, 1024, controls="eta,beta,nu")
    fine = log_mesh(1024, 110)
    coarse = type(fine)(np.array([0, 512, 1023]), 1024, np.arange(3), np.ones(3))
    nodes = control_nodes(problem, coarse, 3)
    held = {"eta": 4.0, "beta": 0.999, "nu": 0.98}
    x = nodes.fit({name: np.full(3, value) for name, value in held.items()})
    objective = TracedObjective(problem.dynamics, problem.modes, coarse, nodes)
    schedule = Schedule.from_knots([0, 1023], held, horizon=1024)
    exact = qhm_recursion(problem, schedule)
    off = abs(math.exp(objective(x)[0]) / exact - 1.0)
    assert off > 0.05  # the trap is real,
    assert np.abs(objective.audit(x).errors).sum() > 0.3 * off  # and seen
    finer = control_nodes(problem, fine, 3)
    good = TracedObjective(problem.dynamics, problem.modes, fine, finer)
    assert math.exp(good(x)[0]) == pytest.approx(exact, rel=2e-3)


def test_initial_schedule_is_the_only_start(solved: dict[str, Solution]) -> None:
    before = _solve(QUICK[0], solved)
    again = solve(before.problem, initial=before)
    assert again.certificate.starts == ("initial",)
    assert again.excess_loss <= before.excess_loss * 1.01


def test_solution_pickles(solved: dict[str, Solution]) -> None:
    solution = _solve(QUICK[0], solved)
    copy = pickle.loads(pickle.dumps(solution))
    assert copy.schedule == solution.schedule and copy.problem == solution.problem


BAD = [
    ({"controls": "eta,gamma"}, "controls"),
    ({"controls": "eta,eta"}, "controls"),
    ({"controls": ()}, "controls"),
    ({"controls": 3}, "controls"),
    ({"controls": "eta,beta", "momentum": "none"}, "momentum"),
    ({"controls": "eta,nu"}, "beta"),
    ({"momentum": "heavy-ball"}, "beta"),
    ({"momentum": "qhm", "beta": 0.9}, "nu"),
    ({"momentum": "adam"}, "momentum"),
    ({"beta": 1.0}, "beta"),
    ({"beta": -0.1}, "beta"),
    ({"beta": 0.9, "nu": 1.5}, "nu"),
    ({"beta": math.nan}, "beta"),
    ({"controls": "eta,beta", "beta": 0.9}, "beta"),
    ({"nu": 0.5}, "beta"),
    ({"ema": 1.0}, "ema"),
    ({"weight_decay": -1.0}, "weight_decay"),
    ({"samples": 1e4}, "samples"),
    ({"controls": "eta,batch", "samples": 99.0}, "samples"),
    ({"controls": "batch", "eta_max": 2.5}, "eta_max"),
    ({"controls": "beta", "momentum": "heavy-ball", "eta_max": 12.0}, "eta_max"),
    ({"controls": "eta,beta", "max_change": 0.1}, "max_change"),
    ({"controls": "eta,beta,nu", "eta_min": 0.1}, "eta_min"),
    ({"controls": "batch", "warmup": 5}, "warmup"),
]


@pytest.mark.parametrize(("options", "field"), BAD)
def test_bad_input_names_the_field(options: dict, field: str) -> None:
    with pytest.raises(InvalidProblem) as error:
        Problem(**{"a": 3.5, "b": 5.0, "horizon": 100, **options})
    assert error.value.field == field


def test_limits_are_named() -> None:
    with pytest.raises(InvalidProblem, match="noise limit"):
        Problem(3.5, 5.0, 100, controls="beta", eta_max=12.0)
    with pytest.raises(InvalidProblem, match="limit without noise"):
        Problem(3.5, 5.0, 100, controls="batch", eta_max=2.5)
    capped = Problem(3.5, 5.0, 100, momentum="heavy-ball", beta=0.99, eta_max=50.0)
    assert capped.eta_cap == capped.stability_limit < 9.64


def test_collocation_says_what_it_cannot_do() -> None:
    with pytest.raises(InvalidProblem, match="collocation"):
        solve(Problem(3.5, 5.0, 100, controls="eta,beta"), Collocation())


CHARTS: list[tuple[Chart, dict[str, tuple[float, float]]]] = [
    (LogRate(0.0, 2.0), {"eta": (0.01, 1.9)}),
    (SplitRate(2.0, 100.0), {"eta": (0.01, 1.9), "nu": (0.01, 0.99)}),
    (BoundedSplit(2.0), {"eta": (0.01, 1.9), "nu": (0.01, 0.99)}),
    (Weight(), {"nu": (0.01, 0.99)}),
    (Forgetting(100, nesterov=False), {"beta": (0.0, 0.999)}),
    (Forgetting(100, nesterov=True), {"beta": (0.0, 0.999)}),
    (Average(100), {"ema": (0.0, 0.999)}),
    (Batch(900.0, np.full(7, 10.0)), {"batch_size": (1.5, 50.0)}),
]


@settings(max_examples=15)
@given(seed=st.integers(0, 10**6), which=st.sampled_from(range(len(CHARTS))))
def test_charts_invert_and_pull_back(seed: int, which: int) -> None:
    chart, ranges = CHARTS[which]
    rng = np.random.default_rng(seed)
    given_ = {name: rng.uniform(*ends, 7) for name, ends in ranges.items()}
    if "batch_size" in given_:  # the budget holds
        beyond = given_["batch_size"] - 1.0
        given_["batch_size"] = 1.0 + beyond * (900.0 - 70.0) / (10.0 * beyond.sum())
    u = chart.invert(given_)
    made = chart.controls(u)
    for name, values in given_.items():
        assert made[name] == pytest.approx(values, rel=1e-6)
    weights = {name: rng.normal(size=7) for name in made}

    def value(u: list[Floats]) -> float:
        return sum(float(weights[name] @ v) for name, v in chart.controls(u).items())

    pulled = chart.pull(u, weights, False)
    for i, row in enumerate(u):
        for k in range(7):
            up, down = ([r.copy() for r in u] for _ in range(2))
            up[i][k], down[i][k] = row[k] + 1e-6, row[k] - 1e-6
            slope = (value(up) - value(down)) / 2e-6
            assert pulled[i][k] == pytest.approx(slope, rel=1e-4, abs=1e-6)


def test_gradient_of_the_joint_objective() -> None:
    problem = Problem(2.5, 3.0, 60, controls="eta,beta,nu,batch,ema", samples=400.0)
    mesh = log_mesh(60, 110)
    nodes = control_nodes(problem, mesh, 5)
    start = next(iter(named_starts(problem, mesh.steps.astype(float), None).values()))
    x = nodes.fit(start) - 0.1
    objective = TracedObjective(problem.dynamics, problem.modes, mesh, nodes, smoothing=1e-3)
    gradient = objective(x)[1]
    rng = np.random.default_rng(0)
    for _ in range(6):
        direction = rng.normal(size=x.size)
        h = 1e-5
        slope = (objective(x + h * direction)[0] - objective(x - h * direction)[0]) / (2 * h)
        assert float(gradient @ direction) == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_curvature_tells_a_saddle_from_a_minimum() -> None:
    def saddle(x: Floats) -> tuple[float, Floats, Floats]:
        signs = np.array([1.0, 2.0, -0.5])
        return float((signs * x**2).sum()) / 2.0, signs * x, np.ones(3)

    wide = np.full(3, 9.0)
    lowest, direction = lowest_curvature(saddle, np.zeros(3), -wide, wide)
    assert lowest == pytest.approx(-0.25) and abs(direction[2]) == pytest.approx(1.0)
    # Held at a bound, the falling variable does not count.
    held = np.array([9.0, 9.0, 0.0])
    assert lowest_curvature(saddle, np.zeros(3), -held, held)[0] == pytest.approx(0.5)


def test_meshes_have_power_of_two_blocks() -> None:
    for horizon in (1, 2, 111, 1000, 10**6, 10**12):
        mesh = log_mesh(horizon, 110, warmup=horizon // 7)
        gaps = np.diff(mesh.steps)
        assert np.all(2.0 ** np.round(np.log2(gaps)) == gaps)
        assert len(mesh.steps) <= max(111, 1) and horizon // 7 in mesh.steps
        weights = mesh.step_weights[: len(mesh.steps)]
        assert weights.sum() == pytest.approx(horizon)
        values = np.cos(np.arange(len(mesh.steps)))
        if horizon <= 1000:
            dense = np.interp(np.arange(horizon), mesh.steps, values)
            assert float(weights @ values) == pytest.approx(dense.sum())
