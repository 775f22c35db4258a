"""Laws of the loss: curves against plain sums over steps, derivatives against differences."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from optsched import InvalidProblem, Schedule
from optsched.pilot.laws import (
    LAWS,
    KernelLaw,
    Prior,
    features,
    fsl,
    momentum,
    multi_power,
)
from optsched.pilot.laws.tails import features_tail, power_tail, step_tail
from optsched.pilot.pieces import Pieces, cut
from tests.pilots import (
    PEAK,
    SCALE,
    SHAPES,
    TEST,
    THETAS,
    made_fit,
    public_runs,
    ramped,
)

STEPS = np.array([500, 2160, 5000, 9000, 11_990, 11_999, 12_000])
RANGES = {
    "level": (0.5, 4.0),
    "log_bias": (-2.0, 1.0),
    "s": (0.2, 1.5),
    "alpha": (0.2, 1.5),
    "log_noise": (-4.0, 0.5),
    "log_speed": (0.0, 7.0),
    "q": (0.1, 1.8),
    "beta": (0.1, 1.8),
    "gamma": (-0.5, 0.9),
    "clock": (0.3, 1.3),
    "amplitude": (0.4, 1.6),
    "offset": (-0.3, 1.0),
    "log_growth": (-2.0, 6.0),
    "decay": (0.0, 8.0),
    "norm": (0.0, 1.0),
    "saturation": (0.0, 1.0),
}


@pytest.fixture(scope="module")
def pieces() -> Pieces:
    return cut(ramped(12_000, 2160, SHAPES["wsd"]), STEPS, SCALE)


def _theta(draw: st.DataObject, name: str) -> np.ndarray:
    return np.array([draw.draw(st.floats(*RANGES[p]), p) for p in LAWS[name]().parameters])


@pytest.mark.parametrize("name", LAWS)
@given(data=st.data())
def test_derivatives_in_the_parameters(name: str, pieces: Pieces, data: st.DataObject) -> None:
    law, theta, h = LAWS[name](), _theta(data, name), 1e-5
    value, slopes = law.jacobian(theta, pieces)
    np.testing.assert_allclose(value, law.curve(theta, pieces), rtol=1e-13)
    for i, step in enumerate(h * np.eye(len(theta))):
        # Of fourth order, as the bias bends strongly at the first steps.
        near = law.curve(theta + step, pieces) - law.curve(theta - step, pieces)
        far = law.curve(theta + 2 * step, pieces) - law.curve(theta - 2 * step, pieces)
        size = np.abs(value).max() + np.abs(slopes[:, i]).max()
        np.testing.assert_allclose(
            slopes[:, i], (8 * near - far) / (12 * h), atol=2e-7 * size, err_msg=law.parameters[i]
        )


def _summed(name: str, theta: np.ndarray, schedule: Schedule, n: int) -> float:
    """The law's formula, term by term over the steps."""
    t = dict(zip(LAWS[name]().parameters, theta, strict=True))
    eta = np.maximum(np.asarray(schedule(np.arange(n))) / SCALE.rate, 1e-12)
    tick = eta ** t["clock"] / SCALE.span
    after = np.cumsum(tick[::-1])[::-1] - tick  # clock from the end of a step to the end of all
    c = math.exp(t["log_speed"])
    if name == "features":

        def left(x: np.ndarray, q: float) -> np.ndarray:
            nodes, weights = np.polynomial.legendre.leggauss(400)
            lam = (0.5 * (nodes + 1.0)) ** (1.0 / q)  # under the density, lam ** q is uniform
            return np.exp(-np.multiply.outer(x, lam)) @ (0.5 * weights)

        bias = float(left(np.array([c * tick.sum()]), t["s"])[0])
        tail = left(c * after, t["q"]), left(c * (after + tick), t["q"])
    else:
        bias = (tick.sum() + SCALE.first * t["offset"]) ** -t["s"]
        tail = (1.0 + c * after) ** -t["q"], (1.0 + c * (after + tick)) ** -t["q"]
    noise = float(np.sum(eta ** t["amplitude"] * (tail[0] - tail[1])))
    return t["level"] + math.exp(t["log_bias"]) * bias + math.exp(t["log_noise"]) * noise


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("warmup", [0, 2160])
def test_pieces_give_the_sum_over_steps(shape: str, warmup: int) -> None:
    schedule = ramped(12_000, warmup, SHAPES[shape])
    theta = np.array(THETAS["fsl"])
    found = fsl().curve(theta, cut(schedule, STEPS, SCALE))
    exact = [_summed("fsl", theta, schedule, int(n)) for n in STEPS]
    np.testing.assert_allclose(found[-3:], exact[-3:], atol=1e-5)  # a last loss
    np.testing.assert_allclose(found[1:], exact[1:], atol=1e-4)  # along the way, on a slope
    np.testing.assert_allclose(found[0], exact[0], atol=2e-4)  # within the warm-up


@pytest.mark.parametrize("shape", ["cosine", "drop"])
def test_pieces_give_the_sum_over_steps_of_features(shape: str) -> None:
    schedule = ramped(6000, 500, SHAPES[shape])
    theta, steps = np.array(THETAS["features"]), np.array([700, 3100, 6000])
    found = features().curve(theta, cut(schedule, steps, SCALE))
    exact = [_summed("features", theta, schedule, int(n)) for n in steps]
    np.testing.assert_allclose(found, exact, atol=1e-4)


def test_the_error_of_pieces_is_of_second_order() -> None:
    schedule, steps = ramped(12_000, 2160, SHAPES["linear"]), STEPS[2:]
    theta = np.array(THETAS["fsl"])
    exact = np.array([_summed("fsl", theta, schedule, int(n)) for n in steps])
    off = [
        np.abs(fsl().curve(theta, cut(schedule, steps, SCALE, change=change)) - exact).max()
        for change in (0.04, 0.02, 0.01, 0.005)
    ]
    assert np.all(np.diff(np.log2(off)) < -1.5) and off[-1] < 1e-5


@given(st.data())
def test_few_steps_are_summed_exactly(data: st.DataObject) -> None:
    """A table with a jump at every step is cut at every step."""
    rates = data.draw(st.lists(st.floats(0.05, 1.0), min_size=2, max_size=12))
    schedule = Schedule.from_array(PEAK * np.array(rates))
    theta, n = _theta(data, "fsl"), len(rates)
    theta[8] = abs(theta[8]) + 0.01
    found = fsl().curve(theta, cut(schedule, np.array([n]), SCALE))
    assert found[0] == pytest.approx(_summed("fsl", theta, schedule, n), abs=1e-6)


def test_a_horizon_costs_no_pieces() -> None:
    sizes = []
    for horizon in (10**4, 10**6, 10**9):
        steps = np.array([0, horizon // 2, horizon - 1])
        schedule = Schedule.from_knots(steps, eta=[PEAK, PEAK, 0.0])
        sizes.append(len(cut(schedule, np.array([horizon]), SCALE).length))
    assert max(sizes) < 150 and max(sizes) - min(sizes) < 20


def test_pieces_need_steps_that_increase() -> None:
    schedule = Schedule.from_array([0.1, 0.1])
    for steps in ([], [0, 2], [2, 2], [2, 1]):
        with pytest.raises(InvalidProblem, match="steps"):
            cut(schedule, np.array(steps, dtype=np.int64), SCALE)


@pytest.mark.parametrize("name", ["fsl", "features", "momentum"])
@given(data=st.data())
def test_the_last_loss_and_its_derivatives(name: str, data: st.DataObject) -> None:
    law = LAWS[name]()
    assert isinstance(law, KernelLaw)
    theta = _theta(data, name)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    rate, length = np.exp(rng.uniform(-3, 0, 12)), rng.uniform(0.01, 0.2, 12)

    def loss(x: np.ndarray) -> float:
        return law.final(theta, np.exp(x), length, SCALE.first).loss

    x, h = np.log(rate), 1e-5
    own = Pieces(np.tile(rate, (3, 1)), length, np.array([12]), SCALE.first)
    found = law.final(theta, rate, length, SCALE.first)
    assert found.loss == pytest.approx(law.curve(theta, own)[0], rel=1e-12)
    slopes = [(loss(x + h * e) - loss(x - h * e)) / (2 * h) for e in np.eye(12)]
    total = found.drift + found.noise
    np.testing.assert_allclose(total, slopes, atol=1e-7 * (1 + np.abs(slopes).max()))
    assert np.all(found.noise >= 0.0)  # noise made never helps; the clock may do both


@given(z=st.one_of(st.just(0.0), st.floats(-9.0, 5.0).map(lambda x: 10.0**x)), q=st.floats(0.05, 3))
def test_the_tail_of_features_is_the_mean_of_exponentials(z: float, q: float) -> None:
    """Value and slope against quadrature in ``y = ln(lambda)``, where the integrand is smooth."""

    def inner(y: float, power: float) -> float:
        return q * math.exp((q + power) * y - z * math.exp(y))

    def mean(power: float) -> float:
        parts = np.linspace(-40.0 / q, 0.0, 41)
        return sum(quad(inner, *part, args=(power,))[0] for part in pairwise(parts))

    value, slope, _ = features_tail(np.array([z]), q)
    assert value[0] == pytest.approx(mean(0.0), rel=1e-7)
    assert slope[0] == pytest.approx(-mean(1.0), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("tail", [power_tail, features_tail, step_tail])
@given(q=st.floats(0.1, 2.5))
def test_tails_fall_from_one(tail: Any, q: float) -> None:
    z = np.concatenate([[0.0], np.geomspace(1e-9, 1e5, 200)])
    value, slope, in_q = tail(z, q)
    assert value[0] == pytest.approx(1.0) and np.all(np.diff(value) <= 1e-12)
    h = 1e-6
    by_q = (tail(z, q + h)[0] - tail(z, q - h)[0]) / (2 * h)
    np.testing.assert_allclose(in_q, by_q, atol=1e-6)
    by_z = (tail(z[1:] * (1 + h), q)[0] - tail(z[1:] * (1 - h), q)[0]) / (2 * h * z[1:])
    np.testing.assert_allclose(slope[1:] * z[1:], by_z * z[1:], atol=1e-8)


def test_the_power_tail() -> None:
    value, slope, in_q = power_tail(np.array([0.0, 3.0]), 0.5)
    assert value.tolist() == [1.0, 0.5]
    np.testing.assert_allclose(slope, [-0.5, -0.0625])
    np.testing.assert_allclose(in_q, [0.0, -0.5 * math.log(4.0)])


def test_the_momentum_law_is_its_recursion() -> None:
    """``m_i = lambda m_{i-1} + eta_{i-1} - eta_i`` with a rate of 0 before the first step."""
    schedule, n = ramped(3000, 300, SHAPES["wsd"]), 3000
    theta = np.array(THETAS["momentum"])
    level, log_bias, alpha, log_noise, log_speed = theta[:5]
    decay = math.exp(-math.exp(log_speed) / SCALE.span)
    eta = schedule.eta / SCALE.rate
    found = momentum().curve(theta, cut(schedule, np.array([n]), SCALE, change=0.001))[0]
    m = s2 = before = 0.0
    for rate in eta:
        m = decay * m + before - rate
        s2, before = s2 + m, rate
    s1 = eta.sum() / SCALE.span
    c = math.exp(log_noise) * (1.0 - decay)
    assert found == pytest.approx(level + math.exp(log_bias) * s1**-alpha - c * s2, abs=2e-6)


# (L0, A, alpha, B, C, beta, gamma) of Luo et al., arXiv 2503.12811, in units of rates and their
# sums; mean absolute errors of their readme's table, over the six test runs.
PUBLISHED = {
    "25M": ((3.040, 0.525, 0.508, 363.8, 2.066, 0.583, 0.641), 3.76e-3),
    "100M": ((2.651, 0.601, 0.453, 437.9, 2.132, 0.598, 0.655), 4.35e-3),
}


def _published_theta(model: str) -> np.ndarray:
    level, a, alpha, b, c, beta, gamma = PUBLISHED[model][0]
    unit = SCALE.rate * SCALE.span
    return np.array(
        [
            level,
            math.log(a) - alpha * math.log(unit),
            alpha,
            math.log(b * SCALE.rate),
            math.log(c * unit) - gamma * math.log(SCALE.rate),
            beta,
            gamma,
        ]
    )


@pytest.mark.parametrize("model", PUBLISHED)
def test_the_published_multi_power_law(model: str) -> None:
    """Its published parameters give its published error, as far as their digits go."""
    law, theta = multi_power(), _published_theta(model)
    # Half a unit of the last digit of each; log C goes with gamma, which multiplies ln(rate).
    halves = np.array([5e-4, 5e-4 / PUBLISHED[model][0][1], 5e-4, 0.05 / 400.0, 2.5e-4, 5e-4, 5e-4])
    errors, rounding = [], []
    for name in TEST:
        run = public_runs(model)[name]
        loss, slopes = law.jacobian(theta, cut(run.schedule, run.steps, SCALE))
        slopes[:, 2] -= math.log(SCALE.rate * SCALE.span) * slopes[:, 1]
        slopes[:, 6] -= math.log(SCALE.rate) * slopes[:, 4]
        errors.append(np.abs(loss - run.loss).mean())
        rounding.append(np.abs(slopes).mean(0) @ halves)
    assert np.mean(rounding) < 1.2e-3
    assert np.mean(errors) == pytest.approx(PUBLISHED[model][1], abs=float(np.mean(rounding)))


def test_the_multi_power_law_step_by_step() -> None:
    level, a, alpha, b, c, beta, gamma = PUBLISHED["25M"][0]
    schedule, n = ramped(6000, 500, lambda t: np.where(t < 0.5, 1.0, 0.8 - 0.6 * t)), 6000
    eta = schedule.eta[:n]
    togo = np.cumsum(eta[::-1])[::-1]  # S_k: from step k to the last
    change = np.append(0.0, eta[:-1]) - eta
    loss_drop = b * np.sum(change * (1.0 - (1.0 + c * eta**-gamma * togo) ** -beta))
    exact = level + a * eta.sum() ** -alpha - loss_drop
    pieces = cut(schedule, np.array([n]), SCALE, change=0.0005)
    found = multi_power().curve(_published_theta("25M"), pieces)[0]
    assert found == pytest.approx(exact, abs=2e-5)


def test_without_gamma_the_multi_power_law_is_the_functional_scaling_law() -> None:
    theta = np.array(THETAS["fsl"])
    theta[6:] = 1.0, 1.0, 0.0
    other = np.append(theta[:6], 0.0)
    schedule = ramped(4000, 400, SHAPES["drop"])
    pieces = cut(schedule, np.array([500, 2500, 4000]), SCALE, change=0.0005)
    np.testing.assert_allclose(
        multi_power().curve(other, pieces), fsl().curve(theta, pieces), atol=1e-4
    )


def test_priors_are_of_parameters() -> None:
    for make in (fsl, features, momentum, multi_power, LAWS["fsl-sgd"]):
        with pytest.raises(InvalidProblem, match="speed_of_light"):
            make(speed_of_light=Prior(1.0, 0.1))
    law = fsl(clock=Prior(0.65, 0.0))
    assert law.held == {"clock": 0.65} and law.parameters.index("clock") not in law.free
    assert set(LAWS["fsl-sgd"]().held) == {"clock", "amplitude"}


@pytest.mark.parametrize("name", LAWS)
def test_starts_are_within_the_ranges(name: str) -> None:
    law = LAWS[name]()
    starts = law.starts()
    assert len(starts) > 1 or name == "momentum"
    for start in starts:
        assert np.all((start >= law.low) & (start <= law.high))
        for parameter, value in law.held.items():
            assert start[law.parameters.index(parameter)] == value


@pytest.mark.parametrize("name", LAWS)
def test_names_and_orders_of_a_law_agree(name: str) -> None:
    found = made_fit(name)
    assert found.law.name == name
    assert len(found.law.parameters) == len(found.law.low) == len(found.law.high)
    assert list(found.parameters) == list(found.law.parameters)
