"""The bound of convex optimisation: its value, its least value, and what follows for horizons."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import digamma

from optsched import InvalidProblem, Schedule
from optsched.rules.convex.bound import best_schedule, bound_along, convex_bound, least_bound
from optsched.rules.convex.horizons import cooldown_scale, extend_wsd, two_stages
from optsched.rules.convex.sums import cut, knot_sums, weighted_sums
from optsched.schedules.families import (
    FAMILIES,
    constant,
    cosine,
    linear,
    refined,
    with_warmup,
    wsd,
)

T = 4000
RATES = st.lists(st.floats(1e-3, 1.0) | st.just(0.0), min_size=1, max_size=40).filter(
    lambda eta: max(eta) > 0.0
)


def theorem(eta: np.ndarray, norms: np.ndarray, distance: float) -> tuple[float, float, float]:
    """Theorem 10 of arXiv 2310.07831 as it is printed, in three terms."""
    total, squares = eta.sum(), eta**2 * norms**2
    third = sum(
        eta[k] / eta[k + 1 :].sum() * squares[k:].sum() / eta[k:].sum() for k in range(len(eta) - 1)
    )
    return distance**2 / (2 * total), squares.sum() / (2 * total), 0.5 * third


@pytest.mark.parametrize("size", [1, 2, 3, 17])
def test_it_is_the_printed_theorem(size: int) -> None:
    rng = np.random.default_rng(size)
    eta, norms = rng.uniform(0.01, 3.0, size), rng.uniform(0.1, 4.0, size)
    first, second, third = theorem(eta, norms, 1.7)
    found = convex_bound(eta, distance=1.7, norms=norms)
    assert found.distance_term == pytest.approx(first, rel=1e-13)
    assert found.gradient_term == pytest.approx(second + third, rel=1e-13)
    assert found.value == pytest.approx(first + second + third, rel=1e-13)
    same = convex_bound(eta, distance=1.7, norms=np.full(size, 0.3))
    assert convex_bound(eta, distance=1.7, norms=0.3).value == pytest.approx(same.value, rel=1e-13)


def test_the_best_factor_is_the_least_of_the_bound() -> None:
    found = convex_bound(cosine(100, 0.3), distance=2.0, norms=0.7)
    scales = np.geomspace(0.5, 2.0, 2001) * found.scale
    values = [found.at(scale) for scale in scales]
    assert np.argmin(values) == 1000 and min(values) == pytest.approx(found.best, rel=1e-13)
    moved = convex_bound(cosine(100, 0.3 * found.scale), distance=2.0, norms=0.7)
    assert moved.scale == pytest.approx(1.0) and moved.value == pytest.approx(found.best)
    # In units of D/G and of D G.
    unit = convex_bound(cosine(100, 0.3))
    assert found.scale == pytest.approx(unit.scale * 2.0 / 0.7)
    assert found.best == pytest.approx(unit.best * 2.0 * 0.7)


@pytest.mark.parametrize(
    ("schedule", "scale", "best"),
    [
        (linear(T, 1.0), 1.00, 2.00),
        (cosine(T, 1.0), 0.97, 2.06),
        (wsd(T, 1.0, cooldown=0.2), 0.513, 2.16),
        (wsd(T, 1.0, cooldown=0.4), 0.607, 2.06),
        (wsd(T, 1.0, cooldown=0.6), 0.707, 2.02),
        (constant(T, 1.0), 0.318, 3.14),
    ],
)
def test_constants_of_the_literature(schedule: Schedule, scale: float, best: float) -> None:
    found = convex_bound(schedule)
    assert found.scale * math.sqrt(T) == pytest.approx(scale, abs=0.006)
    assert found.best * math.sqrt(T) == pytest.approx(best, abs=0.006)


@pytest.mark.parametrize("horizon", [1, 2, 400, 40_000, 10**9, 10**15])
def test_a_constant_rate_grows_by_a_harmonic_number(horizon: int) -> None:
    """Known sum: sum over 1/j for j < T, plus 1."""
    found = convex_bound(constant(horizon, 0.5))
    harmonic = digamma(horizon) + np.euler_gamma
    assert found.distance_term == pytest.approx(1.0 / horizon, rel=1e-12)
    assert found.gradient_term == pytest.approx(0.25 * (1.0 + harmonic), rel=1e-9)
    if horizon in (400, 40_000):
        expected = {400: 2.75, 40_000: 3.49}[horizon]
        assert found.best * math.sqrt(horizon) == pytest.approx(expected, abs=0.006)


@pytest.mark.parametrize("name", list(FAMILIES))
def test_sums_over_knots_are_the_sums_over_steps(name: str) -> None:
    for horizon in (3, 200, 30_000):
        schedule = FAMILIES[name](horizon, 1.0)
        steps, values = cut(schedule.steps, schedule.controls["eta"])
        dense = schedule.eta[: steps[-1] + 1]
        expected = weighted_sums(dense, np.ones(len(dense)))
        np.testing.assert_allclose(knot_sums(steps, values), expected, rtol=1e-9)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 3000), st.floats(0.0, 1.0)), min_size=1, max_size=5),
    st.floats(0.0, 1.0),
)
def test_sums_over_random_knots(parts: list[tuple[int, float]], first: float) -> None:
    steps = np.concatenate([[0], np.cumsum([length for length, _ in parts])])
    values = np.array([first, *(value for _, value in parts)])
    values[values < 1e-6] = 0.0
    steps, values = cut(steps, values)
    if len(steps):
        dense = np.interp(np.arange(steps[-1] + 1), steps, values)
        assert dense[-1] > 0.0
        expected = weighted_sums(dense, np.ones(len(dense)))
        np.testing.assert_allclose(knot_sums(steps, values), expected, rtol=1e-9)


@pytest.mark.parametrize("horizon", [100, 500, 4900])
def test_wsd_is_below_its_closed_bound(horizon: int) -> None:
    """Theorem 9 of arXiv 2501.18965; T0 is the step at which the cooldown starts, from 1."""
    start = horizon + 1 - round(0.2 * (horizon + 1))
    n, h = horizon - start, lambda k: digamma(k + 1.0) + np.euler_gamma
    total = horizon + start
    a = 2 / 3 + (horizon + 2 * start) / (3 * total) + h(total - 2) - h(n + 1)
    a += -n * (start - 1) / (3 * (n + 2) * total) + 1 / n**2 + h(n - 1) / (n + 1)
    closed = math.sqrt(4.0 * a / total)
    rates = np.minimum(1.0, (horizon + 1 - np.arange(1, horizon + 1)) / (n + 1))
    found = convex_bound(rates).best
    assert 0.7 * closed < found <= closed


@settings(max_examples=60, deadline=None)
@given(RATES, st.integers(0, 2**32 - 1))
def test_subgradient_descent_keeps_the_bound(eta: list[float], seed: int) -> None:
    """On sum w |x|, and with the norms that the run met."""
    rng = np.random.default_rng(seed)
    weights, x = rng.uniform(0.1, 2.0, 4), rng.normal(size=4)
    distance, rates = float(np.linalg.norm(x)), np.trim_zeros(np.array(eta), "b")
    norms = np.empty(len(rates))
    value = 0.0
    for k, rate in enumerate(rates):
        value, gradient = float(weights @ np.abs(x)), weights * np.where(x >= 0.0, 1.0, -1.0)
        norms[k] = np.linalg.norm(gradient)
        x = x - rate * gradient
    assert value <= convex_bound(rates, distance=distance, norms=norms).value * (1.0 + 1e-9)


@pytest.mark.parametrize("size", [2, 3, 8, 30])
@pytest.mark.parametrize("same", [True, False])
def test_no_search_over_all_rates_finds_a_lower_bound(size: int, same: bool) -> None:
    norms = np.ones(size) if same else np.random.default_rng(size).uniform(0.3, 3.0, size)

    def log_bound(log_eta: np.ndarray) -> float:
        first, second, third = theorem(np.exp(log_eta), norms, 1.0)
        return math.log(4.0 * first * (second + third))

    found = minimize(log_bound, np.zeros(size), method="BFGS", options={"gtol": 1e-7})
    least = least_bound(size, norms=norms)
    assert math.exp(0.5 * found.fun) == pytest.approx(least, rel=1e-8)
    best = best_schedule(size, norms=norms)
    shape = np.exp(found.x - np.log(np.exp(found.x).sum())) * best.total
    np.testing.assert_allclose(shape, best.eta, rtol=1e-3)
    bound = convex_bound(best, norms=norms)
    assert bound.value == pytest.approx(least, rel=1e-12)
    assert bound.scale == pytest.approx(1.0, rel=1e-12)


def test_linear_decay_is_the_best_of_all() -> None:
    excess = [convex_bound(linear(n, 1.0)).best / least_bound(n) - 1.0 for n in (100, 1000, 10**6)]
    assert 0.0 < excess[2] < 1e-5 and excess[2] < excess[1] < 0.003 < excess[0] < 0.03
    others = [cosine(1000, 1.0), wsd(1000, 1.0, cooldown=0.8), linear(1000, 1.0, final=0.1)]
    assert all(convex_bound(s).best > 1.001 * least_bound(1000) for s in others)
    # The last rate is a weight; those before it fall on a line, to the end.
    eta = best_schedule(2000, distance=3.0, norms=0.2).eta[:-1]
    line = np.polynomial.Polynomial.fit(np.arange(1999.0), eta, 1).convert().coef
    assert eta[0] == pytest.approx(3.0 / 0.2 / math.sqrt(2000), rel=0.01)
    assert -line[0] / line[1] == pytest.approx(2000, rel=0.01)
    assert np.abs(eta - line[0] - line[1] * np.arange(1999.0)).max() < 2e-3 * eta[0]


@settings(max_examples=100, deadline=None)
@given(RATES, st.floats(0.1, 10.0), st.floats(0.1, 10.0))
def test_no_schedule_is_below_the_least_bound(eta: list[float], d: float, g: float) -> None:
    found = convex_bound(eta, distance=d, norms=g).best
    floor = least_bound(len(eta), distance=d, norms=g)
    assert found >= floor * (1.0 - 1e-12)
    # Nor is any bound below what no method can beat.
    assert floor >= d * g / math.sqrt(len(eta)) * (1.0 - 1e-12)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from(list(FAMILIES)), st.integers(1, 10**15))
def test_no_family_is_below_the_least_bound(name: str, horizon: int) -> None:
    floor = least_bound(horizon)
    assert convex_bound(FAMILIES[name](horizon, 1.0)).best >= floor * (1.0 - 1e-9)
    assert floor * math.sqrt(horizon) == pytest.approx(2.0, rel=0.4 / math.sqrt(horizon), abs=1.0)


def test_long_least_bounds_continue_the_recursion() -> None:
    value = 1.0
    for _ in range(10**6 - 1):
        value = 2.0 * value / (math.sqrt(1.0 + value) + 1.0)
    assert least_bound(10**6) == pytest.approx(math.sqrt(value), rel=1e-9)
    assert least_bound(10**15) * math.sqrt(10**15) == pytest.approx(2.0, rel=1e-12)


def test_the_refined_schedule_is_the_best_for_smooth_norms() -> None:
    norms = 0.5 + 3.0 * np.exp(-np.linspace(0.0, 8.0, 5000))
    found = refined(norms, 1.0, smooth=0.0)
    best = best_schedule(5000, norms=norms)
    least = least_bound(5000, norms=norms)
    assert convex_bound(found, norms=norms).best == pytest.approx(least, rel=2e-3)
    shape = best.eta[:-50] / best.eta[:-50].max()
    np.testing.assert_allclose(found.eta[:-50], shape, atol=4e-3)
    assert convex_bound(linear(5000, 1.0), norms=norms).best > 1.05 * least


def test_bound_along_a_run() -> None:
    schedule = linear(300, 1.0).scaled(convex_bound(linear(300, 1.0)).scale)
    norms = np.linspace(2.0, 1.0, 300)
    for given_norms in (1.3, norms):
        steps, bounds = bound_along(schedule, distance=0.7, norms=given_norms, points=40)
        assert steps[0] == 1 and steps[-1] == 300 and np.all(np.diff(steps) > 0)
        for count, bound in zip(steps, bounds, strict=True):
            part = given_norms if np.ndim(given_norms) == 0 else norms[:count]
            first, *rest = theorem(schedule.eta[:count], np.broadcast_to(part, count), 0.7)
            assert bound == pytest.approx(first + sum(rest), rel=1e-9)
    late = Schedule.from_array(np.append(np.zeros(30), np.ones(70)))
    steps, bounds = bound_along(late, points=100)
    assert np.isinf(bounds[steps <= 30]).all() and np.isfinite(bounds[steps > 30]).all()
    # A cooldown brings the bound down steeply, which its constant part does not.
    plan = wsd(1000, 1.0).scaled(convex_bound(wsd(1000, 1.0)).scale)
    steps, bounds = bound_along(plan, points=500)
    at = {share: bounds[np.searchsorted(steps, share * 1000)] for share in (0.6, 0.79, 0.99)}
    assert at[0.6] / at[0.79] < 1.1 < 1.3 < at[0.79] / at[0.99]


def test_zeros_move_nothing() -> None:
    rng = np.random.default_rng(1)
    eta = rng.uniform(0.1, 1.0, 20)
    assert convex_bound(np.append(eta, np.zeros(5))) == convex_bound(eta)
    norms = rng.uniform(1.0, 2.0, 25)
    longer = convex_bound(np.append(eta, np.zeros(5)), norms=norms)
    assert longer == convex_bound(eta, norms=norms[:20])
    padded = convex_bound(np.concatenate([[0.0, 0.0], eta[:9], [0.0], eta[9:]]))
    assert padded.value == pytest.approx(convex_bound(eta).value, rel=1e-13)
    # Knots that fall to zero: the last positive rate is inside of the last segment.
    falling = Schedule.from_knots([0, 10], eta=[1.0, 0.0])
    assert convex_bound(falling).value == pytest.approx(convex_bound(falling.eta[:-1]).value)
    warm = with_warmup(linear, 100, 1000, 1.0)
    assert convex_bound(warm).best > convex_bound(linear(1000, 1.0)).best


@pytest.mark.parametrize("peak", [1e-200, 1e-9, 1e200])
def test_rates_of_any_size(peak: float) -> None:
    found = convex_bound(cosine(500, peak))
    assert found.scale * peak == pytest.approx(convex_bound(cosine(500, 1.0)).scale, rel=1e-12)
    assert found.best == pytest.approx(convex_bound(cosine(500, 1.0)).best, rel=1e-12)


# Horizons --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "factor", "cooldown"),
    [(1.5, 0.637, 0.446), (2, 0.533, 0.633), (3, 0.431, 0.876), (4, 0.375, None)],
)
def test_horizon_transfer(times: float, factor: float, cooldown: float | None) -> None:
    found = extend_wsd(50_000, int(times * 50_000), 0.2)
    assert found.factor == pytest.approx(factor, abs=0.01)
    assert found.factor is not None and found.factor_bound is not None
    rate = convex_bound(wsd(50_000, 1.0, cooldown=0.2)).scale
    plan = two_stages(found.to_steps, found.switch_step, found.factor)
    assert convex_bound(plan).scale == pytest.approx(rate, rel=1e-6)
    floor = least_bound(found.to_steps)
    assert convex_bound(plan).at(rate) / floor == pytest.approx(found.factor_bound)
    # The published rule is near the least bound, but not at it.
    bounds = [
        convex_bound(two_stages(found.to_steps, found.switch_step, rho)).at(rate) / floor
        for rho in np.linspace(0.2, 1.0, 81)
    ]
    assert found.least_factor_bound <= min(bounds) * (1.0 + 1e-9)
    assert found.least_factor == pytest.approx(0.2 + 0.01 * np.argmin(bounds), abs=0.011)
    assert 1.0 < found.least_factor_bound <= found.factor_bound < found.unchanged_bound
    assert found.retuned_factor == pytest.approx(times**-0.5, rel=1e-3)
    if found.longer_cooldown is None:
        assert cooldown is None and found.longer_cooldown_bound is None
        assert not found.needs_earlier_checkpoint
        return
    assert found.longer_cooldown == pytest.approx(cooldown, abs=0.01)
    longer = convex_bound(wsd(found.to_steps, 1.0, cooldown=found.longer_cooldown))
    assert longer.scale == pytest.approx(rate, rel=1e-4)
    assert found.longer_cooldown_start is not None and found.longer_cooldown_bound is not None
    assert found.longer_cooldown_bound == pytest.approx(longer.at(rate) / floor)
    assert found.needs_earlier_checkpoint == (times >= 2)
    assert json.loads(json.dumps(found.summary(), allow_nan=False))["factor"] == found.factor


@pytest.mark.parametrize(
    ("start", "to", "cooldown"),
    [(10, 11, 3), (300, 330, 100), (1000, 10**6, 0.9), (10**9, 10**10, 0.2), (10**14, 10**15, 0.5)],
)
def test_runs_of_any_length_can_be_continued(start: int, to: int, cooldown: float) -> None:
    found = extend_wsd(start, to, cooldown)
    assert found.factor is not None and found.factor_bound is not None
    plan = two_stages(to, found.switch_step, found.factor, cooldown=found.cooldown)
    rate = cooldown_scale(start, cooldown)
    assert convex_bound(plan).scale == pytest.approx(rate, rel=1e-4 if start > 10 else 0.1)
    assert found.least_factor_bound <= min(found.factor_bound, found.unchanged_bound) * (1 + 1e-9)


def test_a_short_cooldown_may_have_no_factor() -> None:
    found = extend_wsd(10, 11, 1)
    assert found.factor is None and found.factor_bound is None
    rate = cooldown_scale(10, 1)
    scales = [convex_bound(two_stages(11, 9, r, cooldown=1)).scale for r in np.geomspace(1e-4, 1)]
    assert max(scales) < rate


def test_two_stages() -> None:
    plan = two_stages(10, 4, 0.5, cooldown=2, peak=0.1)
    expected = [0.1] * 4 + [0.05] * 4 + [0.0375, 0.0125]
    np.testing.assert_allclose(plan.eta, expected, rtol=1e-14)
    assert two_stages(10, 10, 0.5, cooldown=0).eta.tolist() == [1.0] * 10


def test_rates_across_cooldowns() -> None:
    assert cooldown_scale(4000, 1.0) / cooldown_scale(4000, 0.2) == pytest.approx(1.95, abs=0.01)
    scales = [cooldown_scale(4000, c) for c in np.linspace(0.0, 1.0, 21)]
    assert np.all(np.diff(scales) > 0.0)
    assert scales[0] == pytest.approx(convex_bound(constant(4000, 1.0)).scale)


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: convex_bound([]), "schedule"),
        (lambda: convex_bound([0.0, 0.0]), "schedule"),
        (lambda: convex_bound([[1.0]]), "schedule"),
        (lambda: convex_bound("linear"), "schedule"),
        (lambda: convex_bound([1.0, -1.0]), "eta"),
        (lambda: convex_bound([1.0, math.nan]), "eta"),
        (lambda: convex_bound([1.0], distance=0.0), "distance"),
        (lambda: convex_bound([1.0], distance=1e200), "distance"),
        (lambda: convex_bound([1.0], norms=-1.0), "norms"),
        (lambda: convex_bound([1.0], norms=math.inf), "norms"),
        (lambda: convex_bound([1.0, 1.0], norms=[1.0]), "norms"),
        (lambda: convex_bound([1.0, 1.0], norms=[1.0, 0.0]), "norms"),
        (lambda: convex_bound([1.0, 1.0], norms=["a", "b"]), "norms"),
        (lambda: convex_bound([1.0]).at(0.0), "scale"),
        (lambda: bound_along([1.0], points=1), "points"),
        (lambda: least_bound(0), "horizon"),
        (lambda: least_bound(3, norms=[1.0, 1.0]), "norms"),
        (lambda: best_schedule(10**7), "horizon"),
        (lambda: extend_wsd(5, 100), "from_steps"),
        (lambda: extend_wsd(100, 100), "to_steps"),
        (lambda: extend_wsd(100, 200, 0.0), "cooldown"),
        (lambda: extend_wsd(100, 200, 1.0), "cooldown"),
        (lambda: extend_wsd(100, 200, 100), "cooldown"),
        (lambda: two_stages(100, 90, 0.5), "switch_step"),
        (lambda: two_stages(100, 50, 0.0), "factor"),
        (lambda: cooldown_scale(100, 1.5), "cooldown"),
    ],
)
def test_bad_input(call: Any, field: str) -> None:
    with pytest.raises(InvalidProblem) as caught:
        call()
    assert caught.value.field == field
