"""No schedule is below the bound of a law that knows the norm of the weights, and some reach it.

Losses come from a simulation of its own here: steps of the differential equations of
`optsched.pilot.separable`, for many schedules at once.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from optsched.arrays import Floats
from optsched.pilot.planning import verified
from optsched.pilot.planning.verified import Beginning, longest_clock, verified_bound
from optsched.pilot.separable import Separable, Weights

LEVEL, BIAS, S, OFFSET, NOISE, SPEED, Q = 2.7, 0.2, 0.55, 0.01, 0.3, 400.0, 0.3
PIECES = 120


def _law(**options: Any) -> Separable:
    """A law near what language models show, with other weights."""
    own = {"decay": 2.5, "growth": 49.0, "power": 0.5, "saturation": 0.0} | options
    clock, amplitude = own.pop("clock", 1.0), own.pop("amplitude", 0.82)
    fade = 2.0 * own["decay"]
    share = -math.expm1(-fade) / fade if fade else 1.0
    weights = Weights(reference=math.exp(-fade) + own["growth"] * share, **own)

    def tail(gap: Any) -> tuple[Any, Any]:
        value = NOISE * (1.0 + SPEED * gap) ** -Q
        return value, -Q * SPEED * value / (1.0 + SPEED * gap)

    return Separable(LEVEL, clock, amplitude, lambda T: BIAS * (T + OFFSET) ** -S, tail, weights)


LAWS = {
    "decay": _law(),
    "no decay": _law(decay=0.0, growth=60.0),
    "strong decay": _law(decay=12.0, growth=300.0),
    "weak growth": _law(decay=3.0, growth=0.5),
    "no growth": _law(decay=1.0, growth=0.0),
    "saturated": _law(clock=1.08, saturation=0.3, power=0.4),
    "slow clock": _law(clock=0.8, amplitude=1.1, decay=1.0, growth=10.0),
    "weights help": _law(power=-0.15, decay=1.0, growth=10.0),
}
STEPS = 2.0


def _lengths(steps: float = STEPS, n: int = PIECES) -> Any:
    """Pieces that are short at both ends."""
    edges = 1.0 / (1.0 + np.exp(-np.linspace(-8.0, 8.0, n + 1)))
    return steps * np.diff((edges - edges[0]) / (edges[-1] - edges[0]))


def _simulated(law: Separable, rates: Any, lengths: Any, parts: int = 4) -> Any:
    """Final losses (B,) of schedules (B, n), by midpoint steps, ``parts`` in every piece."""
    of = law.weights
    assert of is not None
    w, clocks, noises = np.zeros(len(rates)), [np.zeros(len(rates))], []
    for rate, length in zip(rates.T, lengths, strict=True):
        for _ in range(parts):
            step = length / parts

            def flow(w: Any, rate: Any = rate) -> Any:
                return rate * (of.growth * rate * np.exp(-w) - 2.0 * of.decay)

            middle = w + 0.5 * step * flow(w + 0.25 * step * flow(w))
            x = rate * (of.reference * np.exp(-middle)) ** of.power
            clocks.append(clocks[-1] + step * (x / (1.0 + of.saturation * x)) ** law.clock)
            noises.append(x**law.amplitude)
            w = w + step * flow(middle)
    clock = np.array(clocks)
    left = law.tail(clock[-1] - clock)[0]
    return law.level + law.bias(clock[-1]) + (np.diff(left, axis=0) * np.array(noises)).sum(0)


@cache
def _optimum(name: str, cap: float = 1.0) -> tuple[Any, float]:
    """Rates (n,) of the best schedule that L-BFGS-B finds, and what a further span is worth."""
    law, lengths = LAWS[name], _lengths()
    place = np.linspace(-8.0, 8.0, PIECES)
    knots = np.linspace(-8.0, 8.0, 22)
    spread = np.array([np.interp(place, knots, row) for row in np.eye(len(knots))])

    def value(z: Any) -> tuple[float, Any]:
        points = np.vstack([z, z + 1e-5 * np.eye(len(z))])
        losses = _simulated(law, np.exp(points @ spread), lengths, parts=1)
        return 1e2 * losses[0], 1e2 * (losses[1:] - losses[0]) / 1e-5

    top = math.log(cap)
    found = min(
        (
            minimize(
                value, start, jac=True, method="L-BFGS-B", bounds=[(-12.0, top)] * len(knots),
                options={"maxiter": 80, "ftol": 1e-9},
            )
            for start in (top - np.maximum(knots, 0.0) * 0.5, np.full(len(knots), top - 0.7))
        ),
        key=lambda one: one.fun,
    )  # fmt: skip
    rates = np.exp(found.x @ spread)[None]
    more, less = (_simulated(law, rates, lengths * (1.0 + h))[0] for h in (1e-3, -1e-3))
    return rates[0], (less - more) / (2e-3 * STEPS)


@cache
def _bound(name: str, price: float = 1.0, cap: float = 1.0) -> float:
    """The bound, at so many times the price of the optimum."""
    return verified_bound(
        LAWS[name],
        price=price * _optimum(name, cap)[1],
        steps=STEPS,
        warmup=0.0,
        cap=cap,
        floor=0.0,
        begin=lambda end: Beginning(0.0, 1.0, np.zeros_like),
    )


@pytest.mark.parametrize("name", LAWS)
def test_an_independent_optimiser_ends_just_above_the_bound(name: str) -> None:
    rates, _ = _optimum(name)
    gap = _simulated(LAWS[name], rates[None], _lengths(), parts=16)[0] - _bound(name)
    assert -2e-6 <= gap < 5e-4


@pytest.mark.parametrize("name", LAWS)
def test_perturbed_optima_are_above_the_bound(name: str) -> None:
    rng, best = np.random.default_rng(0), np.log(_optimum(name)[0])
    place = np.linspace(0.0, 1.0, PIECES)
    bumps = [
        10.0 ** rng.uniform(-2.0, 0.3)
        * np.interp(place, np.linspace(0.0, 1.0, knots), rng.standard_normal(knots))
        for knots in rng.integers(2, 40, 300)
    ]
    rates = np.exp(np.minimum(best + np.array(bumps), 0.0))
    assert _simulated(LAWS[name], rates, _lengths()).min() >= _bound(name) - 1e-5


@pytest.mark.parametrize("name", LAWS)
def test_common_shapes_are_above_the_bound(name: str) -> None:
    lengths = _lengths()
    t = (np.cumsum(lengths) - 0.5 * lengths) / STEPS
    shapes = [
        height * (last + (1.0 - last) * np.clip((1.0 - t) / (1.0 - held), 0.0, 1.0) ** power)
        for held in (0.0, 0.3, 0.6, 0.9)
        for power in (0.5, 1.0, 2.0)
        for last in (0.003, 0.1, 1.0)
        for height in (0.3, 1.0)
    ]
    shapes += [np.minimum(1.0, 1e-3 + t / rise) for rise in (0.1, 0.5, 1.0)]
    shapes += [0.505 + 0.495 * np.cos(turns * np.pi * t) for turns in (1, 2, 5)]
    assert _simulated(LAWS[name], np.array(shapes), lengths).min() >= _bound(name) - 1e-5


@settings(max_examples=40)
@given(
    name=st.sampled_from(list(LAWS)), logs=st.lists(st.floats(-9.0, 0.0), min_size=2, max_size=30)
)
def test_no_schedule_is_below_the_bound(name: str, logs: list[float]) -> None:
    place = np.linspace(0.0, 1.0, PIECES)
    rates = np.exp(np.interp(place, np.linspace(0.0, 1.0, len(logs)), logs))[None]
    assert _simulated(LAWS[name], rates, _lengths())[0] >= _bound(name) - 1e-5


@pytest.mark.parametrize("price", [0.1, 0.7, 1.4, 10.0])
@pytest.mark.parametrize("name", ["decay", "saturated"])
def test_any_price_gives_a_bound_and_that_of_the_optimum_the_best(name: str, price: float) -> None:
    assert _bound(name, price) <= _bound(name) + 2e-5


def test_a_lower_cap_costs() -> None:
    bounds = [_bound("decay", cap=cap) for cap in (0.5, 1.0)]
    assert np.all(np.diff(bounds) < 0.0)


def test_a_warm_up_is_a_part_of_the_bound() -> None:
    """A ramp to any rate: no schedule with one is below, and one is near."""
    law, share = LAWS["decay"], 0.1
    ramp = (np.arange(40) + 0.5) / 40
    before = np.full(40, share / 40)

    def begin(end: float) -> Beginning:
        ticks, noise, weight = law.play(end * ramp, before)
        behind = np.append(np.cumsum(ticks[::-1])[::-1], 0.0)
        return Beginning(
            float(ticks.sum()),
            weight,
            lambda tau: np.diff(law.tail(tau[:, None] + behind)[0], axis=1) @ noise,
        )

    bound = verified_bound(
        law, price=_optimum("decay")[1], steps=STEPS - share, warmup=share, cap=1.0, floor=0.0,
        begin=begin,
    )  # fmt: skip
    lengths = _lengths(STEPS - share)
    rng, place = np.random.default_rng(1), np.linspace(-8.0, 8.0, PIECES)
    free = [np.exp(-(np.maximum(place, 0.0) ** a) * b) for a in (1.0, 1.2, 1.5) for b in (0.2, 0.5)]
    free += [np.exp(np.interp(place, np.linspace(-8, 8, 9), -3 * rng.random(9))) for _ in range(99)]
    free.append(_optimum("decay")[0])
    rates = np.array([np.append(one[0] * ramp, one) for one in free])
    gaps = _simulated(law, rates, np.append(before, lengths)) - bound
    assert -1e-5 <= gaps.min() < 2e-3
    # Without one the clock runs further: the bound is of its class alone.
    assert _bound("decay") < bound


@settings(max_examples=60)
@given(
    decay=st.floats(0.0, 20.0),
    growth=st.floats(0.0, 300.0),
    start=st.floats(0.05, 50.0),
    cap=st.floats(0.1, 3.0),
    data=st.data(),
)
def test_the_norm_stays_between_its_bounds(
    decay: float, growth: float, start: float, cap: float, data: st.DataObject
) -> None:
    of = Weights(decay, growth, 1.0, 0.5)
    shares = data.draw(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
    weight, length = start, 1.0 / len(shares)
    for share in shares:
        rate = share * cap
        fade = 2.0 * decay * rate * length
        kept = math.exp(-fade)
        grown = (1.0 - kept) / fade if fade > 1e-9 else 1.0
        weight = weight * kept + growth * rate**2 * length * grown
    low, high = of.lowest(cap, 1.0, start), of.highest(cap, 1.0, start)
    assert low * (1.0 - 1e-9) <= weight <= high * (1.0 + 1e-9)


@pytest.mark.parametrize("growth", [1.0, 20.0])
@pytest.mark.parametrize("start", [0.5, 3.0, 30.0])
def test_the_bounds_of_the_norm_are_reached(growth: float, start: float) -> None:
    of, cap, steps = Weights(4.0, growth, 1.0, 0.5), 1.0, 2.0
    weight, n = start, 40_000
    for _ in range(n):
        rate = min(cap, of.decay * weight / of.growth)
        weight += steps / n * (of.growth * rate**2 - 2.0 * of.decay * rate * weight)
    assert weight == pytest.approx(of.lowest(cap, steps, start), rel=2e-3)
    held = of.along(np.array([cap]), np.array([steps]))[2, 0]
    if start == 0.5 and growth == 20.0:  # a start below where the cap leads
        assert of.highest(cap, steps, 1.0) == pytest.approx(held, rel=1e-12)


@settings(max_examples=20)
@given(
    name=st.sampled_from(list(LAWS)), logs=st.lists(st.floats(-6.0, 0.0), min_size=1, max_size=9)
)
def test_the_clock_stays_below_its_bound(name: str, logs: list[float]) -> None:
    law = LAWS[name]
    assert law.weights is not None
    low, high = (f(1.0, STEPS, 1.0) for f in (law.weights.lowest, law.weights.highest))
    length = np.full(64, STEPS / 64)
    rates = np.exp(np.interp(np.linspace(0, 1, 64), np.linspace(0, 1, len(logs)), logs))
    assert law.play(rates, length)[0].sum() <= longest_clock(law, 1.0, STEPS, low, high)


def test_what_the_method_is_not_for_has_no_bound() -> None:
    common: dict[str, Any] = {
        "steps": 1.0, "warmup": 0.0, "cap": 1.0, "floor": 0.0,
        "begin": lambda end: Beginning(0.0, 1.0, np.zeros_like),
    }  # fmt: skip
    assert math.isnan(verified_bound(_law(clock=2.5), price=0.1, **common))
    assert math.isnan(verified_bound(_law(), price=0.0, **common))
    assert math.isnan(verified_bound(_law(decay=1e3, growth=0.0), price=0.1, **common))


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_wrong_value_function_gives_a_lower_bound(
    side: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How good it is matters for the size of the bound, not for its truth.

    Halved for the largest or the smallest weights, where no optimum goes.
    """
    truth = _bound("decay")
    solved = verified._Value._solved

    def wrong(value: verified._Value) -> Floats:
        low, high = value.w[0], value.w[-1]
        place = side * (value.w - 0.5 * (low + high)) - 0.35 * (high - low)
        return solved(value) * (1.0 - 0.5 / (1.0 + np.exp(-place / 0.15)))

    monkeypatch.setattr(verified._Value, "_solved", wrong)
    assert truth - 0.5 < _bound.__wrapped__("decay") <= truth
