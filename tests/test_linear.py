"""Momentum in NumPy: powers, chains and their derivatives against brute force and against JAX."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from optsched import InvalidProblem, Problem, Solution, solve
from optsched.control.joint.curved import CurvedObjective
from optsched.control.joint.moments import MomentObjective
from optsched.control.joint.newton import newton
from optsched.control.joint.search import control_nodes
from optsched.control.joint.starts import named_starts
from optsched.control.mesh import StepMesh, log_mesh
from optsched.control.traced import TracedObjective
from optsched.model import replay as replays
from optsched.model.linear.power import Powers
from optsched.schedules.schedule import Schedule

RNG = np.random.default_rng(3)
COUNTS = np.array([0, 1, 2, 3, 5, 8, 13, 16, 31, 37, 1, 64])


def _one() -> np.ndarray:
    """A contracting step of three moments, of every run and of two modes."""
    step = 0.2 * RNG.normal(size=(3, 4, len(COUNTS), 2))
    step[range(3), range(3)] -= 0.4
    return step


def _run(one: np.ndarray, count: int, unit: float, z: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A run on one mode, step by step."""
    for k in range(count):
        loss = z[0] + z[1] * k * unit + z[2] * (k * unit) ** 2
        x = x + one[:, :3] @ x + one[:, 3] * loss
    return x


def test_powers_are_steps() -> None:
    one, unit = _one(), RNG.uniform(0.1, 1.0, len(COUNTS))
    maps = Powers(one, COUNTS, unit).maps
    z, x = RNG.normal(size=3), RNG.normal(size=3)
    for run, count in enumerate(COUNTS):
        for mode in range(2):
            exact = _run(one[:, :, run, mode], count, unit[run], z, x)
            found = x + maps[:, :, run, mode] @ np.concatenate([x, z])
            assert found == pytest.approx(exact, rel=1e-12, abs=1e-12), count


def test_derivative_of_powers() -> None:
    one, unit = _one(), RNG.uniform(0.1, 1.0, len(COUNTS))
    weights = RNG.normal(size=(3, 6, *one.shape[2:]))
    slope, way = Powers(one, COUNTS, unit).pull(weights), RNG.normal(size=one.shape)
    ends = [
        (weights * Powers(one + h * way, COUNTS, unit, keep=False).maps).sum((0, 1, 3))
        for h in (-1e-6, 1e-6)
    ]
    exact = (slope * way).sum((0, 1, 3))
    assert (ends[1] - ends[0]) / 2e-6 == pytest.approx(exact, rel=1e-7, abs=1e-7)


CASES: list[dict[str, Any]] = [
    {"controls": "eta,beta,nu"},
    {"controls": "eta,beta"},
    {"controls": "eta,beta", "momentum": "nesterov", "objective": "mean"},
    {"controls": "eta,beta,nu,ema"},
    {"controls": "eta", "beta": 0.9, "weight_decay": 0.01},
    {"controls": "eta,ema", "eta_max": 0.3},
    {"controls": "eta,beta,nu", "eta_max": 0.7, "warmup": 30},
]


def _objective(options: dict[str, Any], knots: int = 20) -> tuple[MomentObjective, np.ndarray]:
    """An objective on long blocks, of any number of steps, and a point beside a start."""
    problem = Problem(2.5, 3.0, 300, features=40, **options)
    mesh = log_mesh(problem.horizon, knots, problem.warmup)
    ragged = np.union1d(mesh.steps[mesh.steps < 100], [100, 113, 141, 200, 299])
    if not problem.warmup:
        mesh = StepMesh(ragged, 300, np.arange(len(ragged)), np.ones(len(ragged)))
    nodes = control_nodes(problem, mesh, 5)
    start = list(named_starts(problem, mesh.steps.astype(float), None).values())[-1]
    rng = np.random.default_rng(1)
    x = nodes.fit(start) - 0.3 + 0.1 * rng.normal(size=nodes.size)
    kind = CurvedObjective if nodes.local else MomentObjective
    dynamics: Any = problem.dynamics
    made = kind(dynamics, problem.modes, mesh, nodes, 1e-3, problem.terms)
    return made, np.clip(x, nodes.lower + 0.1, nodes.upper - 0.1)


@pytest.mark.parametrize("options", [CASES[0], CASES[2]], ids=str)
def test_the_same_as_jax(options: dict[str, Any]) -> None:
    """Value, gradient, metric and audit, to rounding."""
    own, x = _objective(options)
    terms = Problem(2.5, 3.0, 300, features=40, **options).terms
    traced = TracedObjective(own.dynamics, own.modes, own.mesh, own.variables, 1e-3, terms)
    for mine, other in zip(own(x), traced(x), strict=True):
        assert mine == pytest.approx(other, rel=1e-9, abs=1e-12)
    count = len(own.modes.lam)
    mine, other = own.audit(x), traced.audit(x)
    assert mine.value == pytest.approx(other.value, rel=1e-10)
    assert mine.excess == pytest.approx(other.excess, rel=1e-10)
    assert mine.errors == pytest.approx(other.errors, rel=1e-6, abs=1e-10)
    for field in ("states", "costates"):
        left, right = getattr(mine, field), getattr(other, field)[:, :count]
        assert left == pytest.approx(right, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("options", CASES, ids=str)
def test_gradient_and_hessian_are_derivatives(options: dict[str, Any]) -> None:
    own, x = _objective(options)
    assert isinstance(own, CurvedObjective)
    way = np.random.default_rng(2).normal(size=x.size)
    low, high = (own(x + h * way) for h in (-1e-5, 1e-5))
    assert (high[0] - low[0]) / 2e-5 == pytest.approx(own(x)[1] @ way, rel=1e-6)
    along = (high[1] - low[1]) / 2e-5
    hessian = own.hessian(x)
    assert hessian == pytest.approx(hessian.T, abs=1e-12)
    assert hessian @ way == pytest.approx(along, rel=1e-4, abs=1e-5 * np.abs(along).max())


@pytest.mark.parametrize("options", [CASES[3]], ids=str)
def test_replays_are_those_of_jax(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Step by step and by blocks, bias and all."""
    own, x = _objective(options)
    schedule = Schedule.from_knots(own.mesh.steps, own.controls(x), horizon=300)
    modes, keep = own.modes, np.array([0, 1, 150, 300])
    mine = replays._step_curves(modes, own.dynamics, schedule, keep)
    blocks = replays._block_curves(own.mesh.steps, schedule, modes, own.dynamics)
    monkeypatch.setattr(replays, "arithmetic", lambda _: False)
    other = replays._step_curves(modes, own.dynamics, schedule, keep)
    traced = replays._block_curves(own.mesh.steps, schedule, modes, own.dynamics)
    for left, right in ((mine, other), (blocks, traced)):
        assert left[0] == pytest.approx(right[0], rel=1e-10)
        assert left[1] == pytest.approx(right[1], rel=1e-10)


class _Valley:
    """Rosenbrock's valley, or a saddle between two minima."""

    def __init__(self, saddle: bool) -> None:
        self.saddle = saddle

    def __call__(self, x: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        a, b = x
        if self.saddle:
            return a**4 - a**2 + b**2, np.array([4 * a**3 - 2 * a, 2 * b]), x
        bent = b - a * a
        slope = np.array([2 * (a - 1) - 400 * a * bent, 200 * bent])
        return (1 - a) ** 2 + 100 * bent**2, slope, x

    def hessian(self, x: np.ndarray) -> np.ndarray:
        a, b = x
        if self.saddle:
            return np.diag([12 * a * a - 2, 2.0])
        return np.array([[2 - 400 * b + 1200 * a * a, -400 * a], [-400 * a, 200.0]])


def test_newton() -> None:
    wide = np.full(2, 5.0)
    found = newton(_Valley(False), np.array([-1.2, 1.0]), -wide, wide, 1e-10)
    assert found.converged and found.x == pytest.approx([1.0, 1.0], abs=1e-8)
    # A bound cuts the valley: the best point on it.
    upper = np.array([0.5, 5.0])
    held = newton(_Valley(False), np.array([-1.2, 1.0]), -wide, upper, 1e-10)
    assert held.converged and held.x == pytest.approx([0.5, 0.25], abs=1e-8)
    # Beside a saddle it goes down, where plain Newton steps would go up to it.
    left = newton(_Valley(True), np.array([1e-3, 0.3]), -wide, wide, 1e-10)
    assert left.converged and left.x == pytest.approx([0.5**0.5, 0.0], abs=1e-8)
    short = newton(_Valley(False), np.array([-1.2, 1.0]), -wide, wide, 1e-10, max_iterations=2)
    assert not short.converged


@pytest.fixture(scope="module")
def short() -> tuple[Problem, Solution, Solution]:
    """The best and the smooth schedule of a short run of heavy ball in the hard phase."""
    problem = Problem(1.5, 4, 30, batch_size=20, noise=0.3, controls="eta,beta")
    return problem, solve(problem, smooth=0.0), solve(problem)


def _roughness(solution: Solution) -> float:
    """Squared second differences on the clock of both ends, of logs of rate and forgetting."""
    clock = np.log1p(solution.t / 2.0) - np.log1p((29.0 - solution.t) / 2.0)
    total = 0.0
    for name in ("eta", "beta"):
        value = solution.controls[name]
        y = np.log(value) if name == "eta" else np.log1p(-value)
        slope = np.diff(y) / np.diff(clock)
        total += float((np.diff(slope) ** 2 / (clock[2:] - clock[:-2])).sum())
    return total


def test_every_step_is_free_and_no_step_gains(short: tuple[Problem, Solution, Solution]) -> None:
    """Random changes of single steps and of many find nothing below the best."""
    problem, best, _ = short
    assert best.certificate.local_optimum and best.certificate.conceded == 0.0
    assert len(best.t) == problem.horizon
    rng = np.random.default_rng(0)
    for scale in (0.01, 0.05, 0.2):
        for _ in range(30):
            moved = {
                "eta": best.controls["eta"] * np.exp(scale * rng.normal(size=30)),
                "beta": 1.0 - (1.0 - best.controls["beta"]) * np.exp(-np.abs(scale * rng.normal())),
            }
            schedule = best.schedule.replace(controls={**best.schedule.controls, **moved})
            loss = replays.replay(problem.spectrum, problem.dynamics, schedule).excess_loss
            assert loss >= best.excess_loss * (1.0 - 1e-6)


def test_smooth_within_a_share_of_the_best(short: tuple[Problem, Solution, Solution]) -> None:
    problem, best, smooth = short
    ratio = smooth.excess_loss / best.excess_loss - 1.0
    assert 0.0 < ratio <= 1e-3
    assert ratio == pytest.approx(smooth.certificate.conceded, abs=1e-6)
    assert _roughness(smooth) < 0.8 * _roughness(best)
    more = solve(problem, smooth=0.05)
    assert more.excess_loss <= 1.05 * best.excess_loss
    assert _roughness(more) < 0.3 * _roughness(smooth)


@pytest.mark.parametrize("smooth", [-0.1, 2.0, float("nan"), "very"])
def test_share_is_checked(smooth: Any) -> None:
    with pytest.raises(InvalidProblem, match="smooth"):
        solve(Problem(3.5, 5, 20, controls="eta,beta"), smooth=smooth)
