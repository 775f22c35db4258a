"""The continuous limit of momentum, against the recursion and closed forms."""

from __future__ import annotations

import math
from typing import Any

import jax
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from optsched import InvalidProblem, PowerLawSpectrum, Schedule, TabulatedSpectrum
from optsched.model.dynamics import SGDDynamics
from optsched.model.momentum_ode import flow_generator, momentum_ode_excess_loss, ode_validity
from optsched.model.ode import BiasVariance, bias_variance_rhs
from optsched.model.qhm import QHMDynamics
from optsched.model.stability import momentum_limit
from tests.test_momentum import covariance_recursion

SPECTRUM = PowerLawSpectrum(2.2, 1.6, 12)
MODES = SPECTRUM.full()
SIGMA2 = 0.3


def recursion_end(m: float, sigma2: float, schedule: Schedule, **fixed: Any) -> tuple[float, float]:
    omega = fixed.pop("omega", 0.0)
    controls = {name: np.full(schedule.horizon, value) for name, value in fixed.items()}
    controls |= {name: schedule.array(name) for name in schedule.controls}
    blank = {name: np.zeros(schedule.horizon) for name in ("beta", "nu", "ema")}
    sizes = {"batch_size": np.full(schedule.horizon, m)}
    return covariance_recursion(SPECTRUM, sigma2, omega, blank | sizes | controls)


def shrunk(scale: int, nu: float) -> tuple[Schedule, float]:
    """Steps ``scale`` times as small: rate, 1 - beta and m by it, and as many times as many."""
    steps = np.array([0, 15, 40, 60]) * scale
    schedule = Schedule.from_knots(
        np.append(steps, 80 * scale - 1),
        eta=np.array([0.2, 0.3, 0.25, 0.1, 0.02]) / scale,
        beta=1 - np.array([0.3, 0.2, 0.1, 0.15, 0.3]) / scale,
        nu=np.full(5, nu),
        horizon=80 * scale,
    )
    return schedule, 8.0 / scale


@pytest.mark.parametrize("nu", [1.0, 0.6])
def test_the_recursion_is_approached_at_first_order(nu: float) -> None:
    gaps = []
    for scale in (1, 2, 4, 8):
        schedule, m = shrunk(scale, nu)
        flow = momentum_ode_excess_loss(MODES, QHMDynamics(m, SIGMA2), schedule)
        gaps.append(abs(flow / recursion_end(m, SIGMA2, schedule)[0] - 1.0))
    ratios = np.array(gaps[:-1]) / gaps[1:]
    # Errors of two signs cancel at large steps of heavy ball, so the order is seen late there.
    assert ratios[-1] == pytest.approx(2.0, abs=0.3 if nu == 1.0 else 0.01)
    assert np.all(np.diff(np.abs(ratios - 2.0)) < 0.0)
    assert gaps[-1] < 0.001


def test_averaging_and_decay_are_approached_too() -> None:
    gaps = []
    for scale in (2, 4, 8):
        schedule, m = shrunk(scale, 0.8)
        ema, omega = 1 - 0.2 / scale, 0.1
        dynamics = QHMDynamics(m, SIGMA2, ema=ema, weight_decay=omega, averaged=True, decayed=True)
        flow = momentum_ode_excess_loss(MODES, dynamics, schedule)
        exact = recursion_end(m, SIGMA2, schedule, ema=ema, omega=omega)[1]
        gaps.append(abs(flow / exact - 1.0))
    assert gaps[0] / gaps[1] == pytest.approx(2.0, abs=0.3)
    assert gaps[1] / gaps[2] == pytest.approx(2.0, abs=0.2)
    assert gaps[2] < 0.02


def test_sgd_lies_between_the_two_odes_of_sgd() -> None:
    """A mode keeps its own noise, as in the full ODE, and drops the square of its drift."""
    eta, m = 0.4, 3.0
    state = BiasVariance(np.linspace(0.2, 1.0, 12), np.linspace(2.0, 0.1, 12))  # type: ignore[arg-type]
    with jax.enable_x64(True):
        energy = MODES.mu * state.bias + MODES.nu * state.variance
        matrix, source = flow_generator(MODES, QHMDynamics(m, SIGMA2, momentum=False), {"eta": eta})  # type: ignore[arg-type]
        loss = SIGMA2 + energy.sum()
        got = np.asarray(matrix)[:, 0, 0] * energy + np.asarray(source)[:, 0] * loss
        ends = []
        for small in (True, False):
            d = bias_variance_rhs(state, eta, MODES, SGDDynamics(m, SIGMA2), small_rate=small)
            ends.append(np.asarray(MODES.mu * d.bias + MODES.nu * d.variance))
    second = (eta * MODES.lam) ** 2 * np.asarray(energy)
    np.testing.assert_allclose(got, ends[0] + second / m, rtol=1e-12)
    np.testing.assert_allclose(got, ends[1] - second, rtol=1e-12)


def test_sgd_without_noise_is_the_small_rate_ode() -> None:
    """Its bias is the closed form, along a whole schedule."""
    schedule = Schedule.from_knots([0, 10, 99], eta=[0.0, 0.6, 0.1], horizon=100)
    for dynamics in (
        QHMDynamics(1e15, SIGMA2, momentum=False),
        QHMDynamics(1e15, SIGMA2, beta=0.5),
    ):
        flow = momentum_ode_excess_loss(MODES, dynamics, schedule)
        assert flow == pytest.approx(float(MODES.bias(schedule.total)), rel=1e-5)


def test_sgd_with_noise_meets_the_small_rate_ode_as_the_rate_falls() -> None:
    """What differs is eta^2 lam^2 / m a step: of the order of eta over a run, at a fixed m.

    On modes that have come to rest it is of second order, so that the ratio is above 2.
    """
    gaps, m, j = [], 2.0, len(MODES.lam)
    for scale in (4, 8):
        eta, horizon = 0.5 / scale, 40 * scale

        def rhs(t: float, y: np.ndarray, eta: float = eta) -> np.ndarray:
            state = BiasVariance(y[:j], y[j:])  # type: ignore[arg-type]
            return np.concatenate(
                bias_variance_rhs(state, eta, MODES, SGDDynamics(m, SIGMA2), small_rate=True)
            )

        with jax.enable_x64(True):
            start = np.repeat([1.0, 0.0], j)
            end = solve_ivp(rhs, (0, horizon), start, rtol=1e-6, atol=1e-9).y[:, -1]
        flow = momentum_ode_excess_loss(
            MODES, QHMDynamics(m, SIGMA2), Schedule.from_array(np.full(horizon, eta))
        )
        gaps.append(flow / (MODES.mu @ end[:j] + MODES.nu @ end[j:]) - 1.0)
    assert 0.0 < gaps[1] < 0.05
    assert 1.9 < gaps[0] / gaps[1] < 4.0


@pytest.mark.parametrize(("beta", "nu"), [(0.0, 0.0), (0.9, 1.0), (0.5, 0.5), (0.95, 0.7)])
@pytest.mark.parametrize("x", [0.05, 0.5])
def test_the_rest_point_is_the_closed_form(beta: float, nu: float, x: float) -> None:
    """The response to noise that the module quotes, on a long run of one mode."""
    m, lam = 4.0, 0.5
    modes = TabulatedSpectrum(np.array([lam]), np.ones(1)).full()
    constant = Schedule.from_knots(
        [0, 4999], eta=np.full(2, x / lam), beta=np.full(2, beta), nu=np.full(2, nu), horizon=5000
    )
    flow = momentum_ode_excess_loss(modes, QHMDynamics(m, SIGMA2), constant)
    pi = 1 - nu * beta
    own = x * (1 - beta + pi**2 * x) / (2 * (1 - beta + pi * x)) / m
    gain = own / (1 - own)
    assert flow == pytest.approx(SIGMA2 * gain / (1 - gain), rel=1e-5)


def test_the_tolerance_is_kept() -> None:
    schedule, m = shrunk(50, 0.9)
    modes = PowerLawSpectrum(2.5, 1.5, math.inf).modes(40.0)
    losses = [
        momentum_ode_excess_loss(modes, QHMDynamics(m, SIGMA2), schedule, rtol=r)
        for r in (1e-4, 1e-9)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    assert momentum_ode_excess_loss(modes, QHMDynamics(m, SIGMA2), schedule) == pytest.approx(
        losses[1], rel=1e-6
    )


def test_controls_of_the_schedule_and_of_the_dynamics_are_the_same() -> None:
    steps = [0, 50, 199]
    whole = Schedule.from_knots(
        steps,
        eta=[0.3, 0.2, 0.01],
        beta=[0.8] * 3,
        nu=[0.9] * 3,
        batch_size=[6.0] * 3,
        horizon=200,
    )
    bare = whole.replace(beta=None, nu=None, batch_size=None)
    by_schedule = momentum_ode_excess_loss(MODES, QHMDynamics(1.0, SIGMA2), whole)
    by_field = momentum_ode_excess_loss(MODES, QHMDynamics(6.0, SIGMA2, beta=0.8, nu=0.9), bare)
    assert by_schedule == pytest.approx(by_field, rel=1e-9)


def test_knots_on_a_line_change_nothing() -> None:
    few = Schedule.from_knots([0, 99], eta=[0.3, 0.1], beta=[0.9, 0.5], horizon=100)
    many = Schedule.from_knots(
        range(100), eta=few.array("eta"), beta=few.array("beta"), horizon=100
    )
    losses = [
        momentum_ode_excess_loss(MODES, QHMDynamics(5.0, SIGMA2, nu=1.0), s) for s in (few, many)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-7)


def test_a_flow_that_diverges_is_infinite() -> None:
    schedule = Schedule.from_array(np.full(3000, 8.0))
    assert (
        momentum_ode_excess_loss(MODES, QHMDynamics(1.0, SIGMA2, beta=0.9, nu=1.0), schedule)
        == math.inf
    )


def test_validity_sees_where_the_flow_breaks() -> None:
    seen = ode_validity(
        SPECTRUM,
        QHMDynamics(5.0, 0.25, nu=1.0),
        eta_lam=[0.01, 0.1, 0.5],
        beta=[0.0, 0.5, 0.9],
        horizon=500,
    )
    assert seen.difference.shape == seen.inside.shape == (3, 3)
    # A small rate is enough; a beta far from 1 does not break the flow.
    assert seen.inside[0].all() and np.abs(seen.difference[0]).max() < 0.01
    assert not seen.inside[2].any() and np.all(seen.difference[2] < -0.1)
    assert np.all(np.diff(np.abs(seen.difference), axis=0) > 0.0)
    for place in np.ndindex(3, 3):
        steps = Schedule.from_array(np.full(500, seen.eta_lam[place[0]]))
        exact, _ = recursion_end(5.0, 0.25, steps, beta=seen.beta[place[1]], nu=1.0)
        assert seen.exact[place] == pytest.approx(exact, rel=1e-10)
    np.testing.assert_allclose(seen.difference, seen.ode / seen.exact - 1.0)
    assert seen.table().count("*") == 1 + np.count_nonzero(~seen.inside)
    assert seen.table().count("\n") == 3


def test_validity_where_the_recursion_diverges() -> None:
    """SGD at 2 < eta lam_1: the flow, which has no such limit, believes in itself."""
    spectrum = PowerLawSpectrum(2.0, 3.0, 4)
    seen = ode_validity(spectrum, QHMDynamics(50.0, 0.25), eta_lam=[2.5], beta=[0.0], horizon=200)
    assert momentum_limit(spectrum, 50.0) < 2.5
    assert seen.exact[0, 0] == math.inf and np.isfinite(seen.ode[0, 0])
    assert seen.difference[0, 0] == -1.0 and not seen.inside[0, 0]
    both = ode_validity(spectrum, QHMDynamics(1.0, 0.25), eta_lam=[60.0], beta=[0.0], horizon=2000)
    assert both.ode[0, 0] == both.exact[0, 0] == math.inf
    assert np.isnan(both.difference[0, 0]) and not both.inside[0, 0]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"eta_lam": [0.0]}, "eta_lam"),
        ({"eta_lam": [math.inf]}, "eta_lam"),
        ({"eta_lam": [[0.1]]}, "eta_lam"),
        ({"beta": [1.0]}, "beta"),
        ({"beta": [math.nan]}, "beta"),
        ({"horizon": 0}, "horizon"),
        ({"horizon": 1.5}, "horizon"),
        ({"tol": 0.0}, "tol"),
    ],
)
def test_bad_grids_are_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidProblem, match=field):
        ode_validity(SPECTRUM, QHMDynamics(5.0, 0.25), **changes)


def test_bad_schedules_are_named() -> None:
    schedule = Schedule.from_array(np.full(5, 0.1))

    class Other:
        horizon = 5
        steps = np.array([0])
        controls = {"eta": np.array([0.1]), "temperature": np.array([1.0])}

    with pytest.raises(InvalidProblem, match="temperature"):
        momentum_ode_excess_loss(MODES, QHMDynamics(5.0, SIGMA2), Other())  # type: ignore[arg-type]
    with pytest.raises(InvalidProblem, match="rtol"):
        momentum_ode_excess_loss(MODES, QHMDynamics(5.0, SIGMA2), schedule, rtol=0.5)
