"""Dynamics: blocks, recursion, ODE and Monte Carlo against each other."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad, solve_ivp

from optsched import InvalidProblem, PowerLawSpectrum, Problem, Schedule, replay
from optsched.model.dynamics import Dynamics, SGDDynamics, knot_blocks
from optsched.model.montecarlo import monte_carlo
from optsched.model.ode import (
    BiasVariance,
    bias_variance_rhs,
    initial_bias_variance,
    ode_excess_loss,
)
from optsched.model.propagate import block_maps, run_chain
from optsched.model.sgd import traced
from optsched.model.sgd.block import exp_moments, moment_slopes
from optsched.model.spectrum import Modes
from tests.problems import recursion

SPECTRUM = PowerLawSpectrum(2.2, 1.6, 60)


def _by_blocks(
    sgd: Dynamics, modes: Modes, steps: list[int], horizon: int, eta: np.ndarray
) -> float:
    count = np.diff([*steps, horizon]).astype(float)
    with jax.enable_x64(True):
        maps = block_maps(sgd, modes, knot_blocks(count, {"eta": eta}))  # type: ignore[arg-type]
        return float(run_chain(sgd, modes, maps)[1][-1])


@given(
    st.lists(st.floats(0.0, 0.9), min_size=1, max_size=8),
    st.floats(1.0, 100.0),
    st.floats(0.0, 2.0),
)
def test_blocks_of_one_step_are_the_recursion(eta: list[float], m: float, sigma2: float) -> None:
    rates = np.array(eta)
    modes = SPECTRUM.full()
    exact, _ = recursion(modes, m, sigma2, rates)
    # Padded to one shape, so that the test compiles once.
    steps = list(range(len(eta))) + [len(eta)] * (8 - len(eta))
    knots = np.append(rates, np.zeros(9 - len(eta)))
    assert _by_blocks(SGDDynamics(m, sigma2), modes, steps, len(eta), knots) == pytest.approx(
        exact, rel=1e-12
    )


@given(st.integers(2, 200), st.floats(1e-4, 0.6), st.floats(0.7, 1.4), st.floats(3.0, 50.0))
def test_one_block_of_many_steps(n: int, eta: float, ratio: float, m: float) -> None:
    """A block is exact but for a quadratic loss inside; here that is good to 2 %."""
    modes, sigma2 = SPECTRUM.full(), 0.3
    # Start from the state after a while, where the loss is smooth, as on a graded mesh.
    warm = np.full(400, eta)
    last = min(eta * ratio, 0.85)
    inside = eta + (last - eta) * np.arange(n) / n
    exact, _ = recursion(modes, m, sigma2, np.append(warm, inside))
    knots = np.append(np.full(401, eta), last)
    got = _by_blocks(SGDDynamics(m, sigma2), modes, list(range(401)), 400 + n, knots)
    assert got == pytest.approx(exact, rel=2e-2)


def test_blocks_converge_at_third_order() -> None:
    problem = Problem(2.0, 1.5, 4000, features=200)
    half = np.geomspace(1, 2000, 20).round().astype(int)
    steps = np.unique(np.concatenate([[0], half, 4000 - half, [3999]]))
    rates = 0.5 * (1 - steps / 4000) ** 2 + 1e-3
    schedule = Schedule.from_knots(steps, eta=rates, horizon=4000)
    exact, _ = recursion(problem.spectrum.full(), 5.0, 0.25, schedule.eta)  # type: ignore[union-attr]
    errors = []
    for _ in range(3):
        eta = np.append(schedule(steps), schedule(3999))
        got = _by_blocks(problem.dynamics, problem.modes, list(steps), 4000, eta)
        errors.append(abs(got / exact - 1.0))
        ends = np.append(steps[1:], 4000)
        steps = np.unique(np.append(steps, (steps + ends) // 2))
    assert errors[2] < 1e-5
    assert errors[0] / errors[2] > 16  # two halvings; second order would give 16


@pytest.mark.parametrize("kappa", [-0.7, 0.0, 1e-9, 0.3, 0.999, 1.001, 5.0, 700.0])
def test_exponential_moments(kappa: float) -> None:
    with jax.enable_x64(True):
        got, slopes = jax.jvp(traced._moments, (np.float64(kappa),), (1.0,))
    plain = exp_moments(np.array(kappa), np)
    for p, (value, slope) in enumerate(zip(got[:3], slopes[:3], strict=True)):

        def moment(u: float, power: int = p) -> float:
            return (u - 0.5) ** power * np.exp(-kappa * (1 - u))

        low = max(0.0, 1.0 - 45.0 / max(kappa, 1.0))  # below it the integrand is under 1e-19
        exact = quad(moment, low, 1)[0]
        exact_slope = quad(lambda u: -(1 - u) * moment(u), low, 1)[0]
        assert float(value) == pytest.approx(exact, rel=1e-8, abs=1e-14)
        assert float(slope) == pytest.approx(exact_slope, rel=1e-7, abs=1e-12)
        assert float(plain[p]) == pytest.approx(float(value), rel=1e-13)
        assert float(moment_slopes(plain)[p]) == pytest.approx(float(slope), rel=1e-10, abs=1e-15)


def test_ode_against_an_independent_integrator() -> None:
    modes, sgd, horizon = SPECTRUM.full(), SGDDynamics(3.0, 0.4), 200
    schedule = Schedule.from_array(np.linspace(0.6, 0.01, horizon))
    centre = np.arange(horizon) + 0.5
    j = len(modes.lam)

    def rhs(t: float, x: np.ndarray) -> np.ndarray:
        eta = np.interp(t, centre, schedule.eta)
        with jax.enable_x64(True):
            change = bias_variance_rhs(BiasVariance(x[:j], x[j:]), eta, modes, sgd)  # type: ignore[arg-type]
        return np.concatenate(change)

    with jax.enable_x64(True):
        start = np.concatenate(initial_bias_variance(modes))
    end = solve_ivp(rhs, (0, horizon), start, rtol=1e-8, atol=1e-12, method="LSODA").y[:, -1]
    exact = modes.mu @ end[:j] + modes.nu @ end[j:]
    assert ode_excess_loss(modes, sgd, schedule) == pytest.approx(float(exact), rel=1e-4)


def test_ode_is_the_limit_of_small_rates() -> None:
    modes = SPECTRUM.full()
    gaps = []
    for scale in (1, 8):
        schedule = Schedule.from_array(np.full(100 * scale, 0.3 / scale))
        sgd = SGDDynamics(5.0 / scale, 0.4)  # the same noise per intrinsic time
        exact, _ = recursion(modes, sgd.batch_size, 0.4, schedule.eta)  # type: ignore[arg-type]
        gaps.append(abs(ode_excess_loss(modes, sgd, schedule) / exact - 1.0))
    assert gaps[1] < gaps[0] / 3 and gaps[1] < 0.03


@given(st.integers(1, 300), st.floats(0.0, 0.8), st.floats(1.0, 30.0), st.floats(0.0, 1.5))
def test_replay_is_the_recursion(horizon: int, eta: float, m: float, noise: float) -> None:
    problem = Problem(2.0, 1.5, horizon, features=40, batch_size=m, noise=noise)
    schedule = Schedule.from_array(np.linspace(eta, 0.5 * eta, horizon))
    played = replay(problem.spectrum, problem.dynamics, schedule)  # type: ignore[arg-type]
    excess, bias = recursion(problem.spectrum.full(), m, noise**2, schedule.eta)  # type: ignore[union-attr]
    assert played.excess_loss == pytest.approx(excess, rel=1e-11)
    assert played.bias == pytest.approx(bias, rel=1e-11)
    assert played.variance == pytest.approx(excess - bias, rel=1e-6, abs=1e-12)
    assert played.error == 0.0 and "all 40 modes" in played.how
    assert played.steps[0] == 0 and played.steps[-1] == horizon
    assert played.excess_curve[-1] == played.excess_loss


def test_replay_by_blocks_estimates_its_error() -> None:
    problem = Problem(2.0, 1.5, 30_000)
    schedule = Schedule.from_knots([0, 10_000, 29_999], eta=[0.4, 0.2, 1e-4], horizon=30_000)
    spectrum = problem.spectrum
    assert spectrum is not None
    exact = replay(spectrum, problem.dynamics, schedule)
    quick = replay(spectrum, problem.dynamics, schedule, max_steps=100)
    assert exact.error == 0.0 and "step by step" in exact.how
    assert quick.error > 0.0 and "blocks" in quick.how
    assert abs(quick.excess_loss / exact.excess_loss - 1.0) <= quick.error
    assert abs(quick.bias / exact.bias - 1.0) <= 1e-5


def test_replay_says_when_the_recursion_diverges() -> None:
    problem = Problem(2.0, 1.5, 3000, features=30, batch_size=1.0)
    schedule = Schedule.from_array(np.full(3000, 1.9))
    played = replay(problem.spectrum, problem.dynamics, schedule)  # type: ignore[arg-type]
    assert played.excess_loss == np.inf and played.variance == np.inf


def test_monte_carlo_agrees_with_the_recursion() -> None:
    problem = Problem(2.0, 1.5, 40, features=12, batch_size=3)
    eta = np.linspace(0.6, 0.05, 40)
    trained = monte_carlo(problem.spectrum, 3, 0.5, eta, runs=8000, seed=4)  # type: ignore[arg-type]
    played = replay(problem.spectrum, problem.dynamics, Schedule.from_array(eta))  # type: ignore[arg-type]
    z = (trained.mean - played.excess_curve)[1:] / trained.stderr[1:]
    assert np.abs(z).max() < 4.0
    assert np.sqrt(np.mean(z**2)) < 2.0
    assert trained.stderr[-1] < 0.02 * trained.mean[-1]


def test_monte_carlo_refuses_bad_input() -> None:
    with pytest.raises(InvalidProblem, match="runs"):
        monte_carlo(SPECTRUM, 1, 0.5, [0.1], runs=1)
    with pytest.raises(InvalidProblem, match="batch_size"):
        monte_carlo(SPECTRUM, 1.5, 0.5, [0.1])  # type: ignore[arg-type]


def test_nothing_global_is_touched() -> None:
    problem = Problem(2.0, 1.5, 20, features=10)
    replay(problem.spectrum, problem.dynamics, Schedule.from_array(np.full(20, 0.1)))  # type: ignore[arg-type]
    assert not jax.config.read("jax_enable_x64")
