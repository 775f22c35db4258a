"""Optimisers whose rule depends on the step, and objectives that name steps, with any optimiser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from optsched import InvalidProblem, Problem, Schedule, Solution, replay, solve
from optsched.control.joint.search import control_nodes
from optsched.control.mesh import joined_clock, log_clock, log_mesh, node_places
from optsched.control.traced import TracedObjective
from optsched.errors import BadPart
from optsched.model.dynamics import Dynamics
from optsched.model.moments import LinearOptimiser, Transition, pytree
from optsched.optimisers.base import Optimiser, Setting
from optsched.optimisers.momentum import HeavyBall

Floats = np.ndarray


@pytree
class LookaheadSteps(LinearOptimiser):
    """Fast weights by SGD; every so many steps the slow ones move to them, and they start there."""

    batch_size: Array | float
    sigma2: Array | float
    every: int
    share: Array | float
    takes = ("eta", "batch_size", "step")
    begin: ClassVar[list[float]] = [1.0, 1.0]  # type: ignore[assignment]

    def switches(self, horizon: int) -> list[int]:
        ends = range(self.every, horizon + 1, self.every)
        return sorted({*ends, *(k - 1 for k in ends)})

    def transition(self, lam: Array, controls: dict[str, Array]) -> Transition:
        eta, share = controls["eta"], self.share
        meet = jnp.where((controls["step"] + 1.0) % self.every < 0.5, 1.0, 0.0)
        fast, slow = 1.0 - eta * lam, 1.0 - share
        to = [meet * share * fast, meet * slow]
        rest = 1.0 - meet
        return Transition(
            [[to[0] + rest * fast - 1.0, to[1]], [to[0], to[1] - meet]],
            [-eta * (rest + meet * share), -eta * meet * share],
        )


@dataclass(frozen=True)
class Lookahead(Optimiser):
    every: int = 5
    share: float = 0.5

    def dynamics(self, setting: Setting) -> Dynamics:
        return LookaheadSteps(setting.batch_size, setting.sigma2, self.every, self.share)


@pytree
class TailSteps(LinearOptimiser):
    """The mean of the weights after step ``begins``; before it, the weights themselves."""

    batch_size: Array | float
    sigma2: Array | float
    begins: int
    takes = ("eta", "batch_size", "step")
    begin: ClassVar[list[float]] = [1.0, 1.0]  # type: ignore[assignment]
    judged: ClassVar[int] = 1  # type: ignore[assignment]

    def switches(self, horizon: int) -> list[int]:
        return [min(self.begins, horizon)]

    def transition(self, lam: Array, controls: dict[str, Array]) -> Transition:
        eta, done = controls["eta"], controls["step"] - self.begins
        keep = jnp.where(done >= 0.0, 1.0 / jnp.maximum(done + 1.0, 1.0), 1.0)
        return Transition(
            [[-eta * lam, None], [keep * (1.0 - eta * lam), -keep]], [-eta, -keep * eta]
        )


@dataclass(frozen=True)
class TailAverage(Optimiser):
    begins: int = 20

    def dynamics(self, setting: Setting) -> Dynamics:
        return TailSteps(setting.batch_size, setting.sigma2, self.begins)


def loop(
    problem: Problem, eta: Floats, rule: Callable[[int, Floats], tuple[Floats, Floats]], judged: int
) -> Floats:
    """Excess losses after every step, from the covariances of two variables on every mode.

    ``rule(t, fast)`` gives the matrix (J, 2, 2) of step t, where ``fast`` is 1 - eta lam, and what
    a unit of the fast weights' noise does to the two, (2,).
    """
    lam, mu, nu = problem.spectrum.full()
    s = mu[:, None, None] * np.ones((len(lam), 2, 2))
    curve = [s[:, judged, judged].sum()]
    for t, rate in enumerate(eta):
        loss = problem.noise**2 + s[:, 0, 0].sum()
        matrix, kick = rule(t, 1.0 - rate * lam)
        heat = rate**2 / problem.batch_size * (lam**2 * s[:, 0, 0] + nu * loss)
        s = np.einsum("jab,jbc,jdc->jad", matrix, s, matrix)
        s += heat[:, None, None] * np.outer(kick, kick)
        curve.append(s[:, judged, judged].sum())
    return np.array(curve)


def lookahead_rule(every: int, share: float) -> Callable[[int, Floats], tuple[Floats, Floats]]:
    def rule(t: int, fast: Floats) -> tuple[Floats, Floats]:
        zero, one = np.zeros_like(fast), np.ones_like(fast)
        step = np.stack([np.stack([fast, zero], -1), np.stack([zero, one], -1)], -2)
        if (t + 1) % every:
            return step, np.array([1.0, 0.0])
        meet = np.array([[share, 1.0 - share], [share, 1.0 - share]])
        return meet @ step, meet[:, 0]

    return rule


def tail_rule(begins: int) -> Callable[[int, Floats], tuple[Floats, Floats]]:
    def rule(t: int, fast: Floats) -> tuple[Floats, Floats]:
        keep = 1.0 / (t - begins + 1) if t >= begins else 1.0
        first = np.stack([fast, 0.0 * fast], -1)
        second = np.stack([keep * fast, 0.0 * fast + 1.0 - keep], -1)
        return np.stack([first, second], -2), np.array([1.0, keep])

    return rule


CASES = {
    "lookahead": (Lookahead(20, 0.4), lookahead_rule(20, 0.4), 0),
    "tail": (TailAverage(150), tail_rule(150), 1),
}


def small(horizon: int = 200, **options: Any) -> Problem:
    return Problem(2.5, 1.5, horizon, features=30, **options)


@pytest.mark.parametrize("name", CASES)
def test_replays_are_the_loop_over_the_steps(name: str) -> None:
    """Step by step, and by blocks that end where the rule changes."""
    optimiser, rule, judged = CASES[name]
    problem = small(optimiser=optimiser)
    schedule = Schedule.from_knots([0, 60, 199], eta=[0.5, 0.8, 0.05], horizon=200)
    curve = loop(problem, schedule.array("eta"), rule, judged)
    played = replay(problem.spectrum, problem.dynamics, schedule)
    assert np.allclose(played.excess_curve, curve[played.steps], rtol=1e-10)
    blocks = replay(problem.spectrum, problem.dynamics, schedule, max_steps=10)
    assert "blocks" in blocks.how
    assert blocks.excess_loss == pytest.approx(curve[-1], rel=1e-4)


@pytest.mark.parametrize("name", CASES)
def test_the_mesh_of_a_solve_has_the_loss_and_the_gradient_of_the_loop(name: str) -> None:
    optimiser, rule, judged = CASES[name]
    problem = small(optimiser=optimiser)
    mesh = log_mesh(200, 60, 0, problem.corners)
    assert len(mesh.steps) < 200 and {*problem.corners[:-1].tolist()} <= {*mesh.steps.tolist()}
    nodes = control_nodes(problem, mesh, 5)
    objective = TracedObjective(problem.dynamics, problem.modes, mesh, nodes)
    x = np.linspace(-0.5, -2.5, nodes.size)

    def exact(x: Floats) -> float:
        eta = np.interp(np.arange(200), mesh.steps, objective.controls(x)["eta"])
        return float(np.log(loop(problem, eta, rule, judged)[-1]))

    value, gradient, _ = objective(x)
    assert value == pytest.approx(exact(x), abs=2e-3)
    moves = 1e-4 * np.eye(len(x))
    slopes = [(exact(x + move) - exact(x - move)) / 2e-4 for move in moves]
    assert np.allclose(gradient, slopes, atol=5e-3)


def test_a_solve_with_steps_of_two_kinds() -> None:
    """Replayed, a stationary point, and no bound: what is said of any optimiser of a user's."""
    problem = small(40, optimiser=Lookahead(5, 0.5))
    found = solve(problem)
    curve = loop(problem, found.schedule.array("eta"), lookahead_rule(5, 0.5), 0)
    assert found.excess_loss == pytest.approx(curve[-1], rel=1e-9)
    assert found.converged and found.certificate.lower_bound == 0.0
    assert found.excess_loss < solve(small(40)).excess_loss * 1.2


def test_limits_are_those_of_every_kind_of_step() -> None:
    """Steps of averaging alone are stable at any rate of the fast weights that they ignore."""
    assert small(optimiser=Lookahead()).stability_limit == pytest.approx(
        small().stability_limit, rel=1e-6
    )


class _Odd(Lookahead):
    def __init__(self, given: Any, takes: tuple[str, ...] = LookaheadSteps.takes) -> None:
        super().__init__()
        object.__setattr__(self, "given", given)
        object.__setattr__(self, "takes", takes)

    def dynamics(self, setting: Setting) -> Dynamics:
        given, taken = self.given, self.takes  # type: ignore[attr-defined]

        @pytree
        class Odd(LookaheadSteps):
            takes = taken

            def switches(self, horizon: int) -> Any:
                return given

        return Odd(setting.batch_size, setting.sigma2, 5, 0.5)


@pytest.mark.parametrize("given", [[3.5], [-1], [10**6], "no", [None], [float("nan")]])
def test_switches_are_numbers_of_steps(given: Any) -> None:
    with pytest.raises(BadPart, match=r"switches\(60\) must be whole numbers of steps, 0 to 60"):
        small(60, optimiser=_Odd(given))


def test_too_many_switches_are_too_long_a_run() -> None:
    with pytest.raises(InvalidProblem, match=r"horizon.*name at most 4096 steps"):
        small(10**6, optimiser=Lookahead(5))


def test_the_clock_of_stretches() -> None:
    """One stretch is the log clock; of several, each is its own, and they follow each other."""
    steps = np.arange(300.0)
    assert np.array_equal(joined_clock(steps, np.array([0, 300])), log_clock(steps, 300))
    clock = joined_clock(steps, np.array([0, 100, 101, 300]))
    assert (np.diff(clock) > 0.0).all()
    own = log_clock(steps[:100], 100)
    assert np.allclose(np.diff(clock[:100]), np.diff(own))
    assert clock[100] - clock[99] == pytest.approx(1.0)
    places = node_places(np.array([0, 100, 101, 300]), 9)
    assert [len(part) for part in places] == [5, 1, 5]
    assert places[2][[0, -1]] == pytest.approx(clock[[101, 299]])


# --- objectives that name steps -------------------------------------------------------------------

TWO = "20:1,60:1"


@pytest.fixture(scope="module")
def heavy() -> Solution:
    return solve(small(60, objective=TWO, optimiser=HeavyBall(0.7)))


def test_two_horizons_with_momentum(heavy: Solution) -> None:
    """The sum of two losses, a stationary point of it, a schedule that jumps; and no bound."""
    curve = heavy.replay.excess_curve
    assert heavy.value == pytest.approx(curve[20] + curve[60], rel=1e-12)
    assert heavy.converged and heavy.certificate.kkt_residual <= 1e-5
    assert heavy.certificate.lower_bound == 0.0 and heavy.certificate.local_optimum
    eta = heavy.schedule.array("eta")
    assert eta[20] > 1.5 * eta[19] and eta[19] < 0.6 * eta[:15].max()  # annealed for the first
    final = solve(small(60, optimiser=HeavyBall(0.7)))
    both = final.replay.excess_curve[[20, 60]].sum()
    assert heavy.value < 0.95 * both


def test_no_step_alone_makes_it_better(heavy: Solution) -> None:
    problem, eta = heavy.problem, heavy.schedule.array("eta")
    rates = np.tile(eta, (2, 1))
    for at in (5, 18, 19, 20, 21, 58):
        for k, factor in enumerate((0.8, 1.25)):
            rates[k] = eta
            rates[k, at] = min(eta[at] * factor, problem.eta_cap)
            moved = Schedule.from_array(rates[k]).replace(
                controls={**heavy.schedule.controls, "eta": rates[k]}
            )
            played = replay(
                problem.spectrum, problem.dynamics, moved, objective=problem.terms.objective
            )
            assert played.value > heavy.value * (1.0 - 2e-3)


def test_two_horizons_with_an_average_are_no_worse_than_without() -> None:
    joint = solve(small(60, objective=TWO, controls="eta,ema"))
    plain = solve(small(60, objective=TWO))
    assert joint.converged and joint.value < plain.value


def test_two_horizons_with_a_foreign_optimiser_of_steps() -> None:
    problem = small(60, objective=TWO, optimiser=Lookahead(10, 0.8))
    found = solve(problem)
    curve = loop(problem, found.schedule.array("eta"), lookahead_rule(10, 0.8), 0)
    assert found.value == pytest.approx(curve[20] + curve[60], rel=1e-9)
    assert found.converged and found.certificate.lower_bound == 0.0
