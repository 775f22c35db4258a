"""Families against their formulas, by quadrature; against torch, optax and transformers."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from optsched.errors import InvalidProblem
from optsched.schedules import families as f
from optsched.schedules.schedule import Schedule

T = 23
BASES: tuple[Any, ...] = ("linear", "1-sqrt", "exponential", "power", "cosine")


def half(first: float, last: float, x: float) -> float:
    return last + (first - last) * (1.0 + math.cos(math.pi * x)) / 2.0


def saw(t: float, up: float, down: float) -> float:
    x = t % (up + down)
    return x / up if x < up else 1.0 - (x - up) / down


def cooldown(shape: str, final: float, x: float) -> float:
    drop = {
        "linear": 1.0 - x,
        "1-sqrt": 1.0 - math.sqrt(x),
        "power": (1.0 - x) ** 3.0,
        "cosine": half(1.0, 0.0, x),
    }
    return final**x if shape == "exponential" else final + (1.0 - final) * drop[shape]


def trapezoid(shape: str, final: float, t: float) -> float:
    if t < 4.0:
        return 0.1 + 0.9 * t / 4.0
    return 1.0 if t < 13.0 else cooldown(shape, final, (t - 13.0) / 10.0)


def restarts(t: float, first: float, mult: float, decay: float, final: float) -> float:
    start, length, top = 0.0, first, 1.0
    while t >= start + length:
        start, length, top = start + length, length * mult, top * decay
    return final + (1.0 - final) * top * half(1.0, 0.0, (t - start) / length)


def phases(ends: list[float], levels: list[float], t: float) -> float:
    i = max(j for j in range(len(ends) - 1) if t >= ends[j])
    return half(levels[i], levels[i + 1], (t - ends[i]) / (ends[i + 1] - ends[i]))


# Name, schedule by sampling, rate at time t in units of the peak, kinks.
Case = tuple[Callable[..., Schedule], Callable[[float], float], list[float]]
CASES: dict[str, Case] = {
    "constant": (lambda s: f.constant(T, 0.3, sampling=s), lambda t: 1.0, []),
    "linear": (
        lambda s: f.linear(T, 0.3, final=0.2, sampling=s),
        lambda t: 1.0 - 0.8 * t / T,
        [],
    ),
    "polynomial": (
        lambda s: f.polynomial(T, 0.3, power=2.5, final=0.1, sampling=s),
        lambda t: 0.1 + 0.9 * (1.0 - t / T) ** 2.5,
        [],
    ),
    "polynomial, steep end": (
        lambda s: f.polynomial(T, 0.3, power=0.25, sampling=s),
        lambda t: (1.0 - t / T) ** 0.25,
        [],
    ),
    "cosine": (
        lambda s: f.cosine(T, 0.3, final=0.1, sampling=s),
        lambda t: half(1.0, 0.1, t / T),
        [],
    ),
    "exponential": (
        lambda s: f.exponential(T, 0.3, final=1e-3, sampling=s),
        lambda t: 1e-3 ** (t / T),
        [],
    ),
    "exponential, gamma": (
        lambda s: f.exponential(T, 0.3, gamma=0.8, sampling=s),
        lambda t: 0.8**t,
        [],
    ),
    "inverse_sqrt": (
        lambda s: f.inverse_sqrt(T, 0.3, warmup=5, sampling=s),
        lambda t: min(t / 5.0, math.sqrt(5.0 / t) if t else 0.0),
        [5.0],
    ),
    "inverse_sqrt, timescale": (
        lambda s: f.inverse_sqrt(T, 0.3, warmup=0.25, timescale=2, sampling=s),
        lambda t: t / 6.0 if t < 6.0 else math.sqrt(2.0 / (t - 4.0)),
        [6.0],
    ),
    "inverse_time": (
        lambda s: f.inverse_time(T, 0.3, timescale=3, sampling=s),
        lambda t: 1.0 / (1.0 + t / 3.0),
        [],
    ),
    "capped_power_law": (
        lambda s: f.capped_power_law(T, 0.3, hold=3, chi=1.7, sampling=s),
        lambda t: min(1.0, (max(t, 1e-9) / 3.0) ** -1.7),
        [3.0],
    ),
    "inverse_time, power": (
        lambda s: f.inverse_time(T, 0.3, timescale=3, power=1.7, sampling=s),
        lambda t: (1.0 + t / 3.0) ** -1.7,
        [],
    ),
    "step": (
        lambda s: f.step(T, 0.3, every=5, factor=0.5, sampling=s),
        lambda t: 0.5 ** (t // 5.0),
        [5.0, 10.0, 15.0, 20.0],
    ),
    "multi_step": (
        lambda s: f.multi_step(T, 0.3, milestones=(3, 0.5, 99), factor=(0.5, 0.2, 0), sampling=s),
        lambda t: 1.0 if t < 3.0 else 0.5 if t < 12.0 else 0.1,
        [3.0, 12.0],
    ),
    "cosine_restarts": (
        lambda s: f.cosine_restarts(T, 0.3, first=4, t_mult=1.5, final=0.1, sampling=s),
        lambda t: restarts(t, 4.0, 1.5, 1.0, 0.1),
        [4.0, 10.0, 19.0],
    ),
    "cosine_restarts, cycles": (
        lambda s: f.cosine_restarts(T, 0.3, cycles=3, decay=0.5, sampling=s),
        lambda t: restarts(t, T / 3.0, 1.0, 0.5, 0.0) if t < T else 0.0,
        [T / 3.0, T * 2.0 / 3.0],
    ),
    "one_cycle": (
        lambda s: f.one_cycle(T, 0.3, rise=6, start=0.1, final=0.01, sampling=s),
        lambda t: phases([0.0, 6.0, T], [0.1, 1.0, 0.01], t),
        [6.0],
    ),
    "one_cycle, closed": (
        lambda s: f.one_cycle(T, 0.3, rise=0.3, fall=0.6, start=0.1, closed=True, sampling=s),
        lambda t: (
            phases([0.0, 0.3 * T - 1.0, 0.6 * T - 2.0, T - 1.0], [0.1, 1.0, 0.1, 4e-6], t)
            if t < T - 1.0
            else 4e-6
        ),
        [0.3 * T - 1.0, 0.6 * T - 2.0, T - 1.0],
    ),
    "triangular": (
        lambda s: f.cyclical(T, 0.3, up=3, down=4, floor=0.2, sampling=s),
        lambda t: 0.2 + 0.8 * saw(t, 3.0, 4.0),
        [3.0, 7.0, 10.0, 14.0, 17.0, 21.0],
    ),
    "triangular2": (
        lambda s: f.cyclical(T, 0.3, mode="triangular2", up=3, floor=0.2, sampling=s),
        lambda t: 0.2 + 0.8 * saw(t, 3.0, 3.0) * 0.5 ** (t // 6.0),
        [3.0 * i for i in range(1, 8)],
    ),
    "exp_range": (
        lambda s: f.cyclical(T, 0.3, mode="exp_range", up=3, gamma=0.9, sampling=s),
        lambda t: 0.25 + 0.75 * saw(t, 3.0, 3.0) * 0.9**t,
        [3.0 * i for i in range(1, 8)],
    ),
    "exp_range, fast": (
        lambda s: f.cyclical(T, 0.3, mode="exp_range", up=3, gamma=1e-9, floor=0.0, sampling=s),
        lambda t: saw(t, 3.0, 3.0) * 1e-9**t,
        [3.0 * i for i in range(1, 8)],
    ),
    "with_warmup": (
        lambda s: f.with_warmup(f.cosine, 5, T, 0.3, start=0.1, final=0.2, sampling=s),
        lambda t: 0.1 + 0.9 * t / 5.0 if t < 5.0 else half(1.0, 0.2, (t - 5.0) / (T - 5.0)),
        [5.0],
    ),
} | {
    f"wsd, {shape}": (
        lambda s, shape=shape: f.wsd(
            T, 0.3, warmup=4, cooldown=10, shape=shape, final=0.05, power=3.0, start=0.1, sampling=s
        ),
        lambda t, shape=shape: trapezoid(shape, 0.05, t),
        [4.0, 13.0],
    )
    for shape in BASES
}


@pytest.mark.parametrize("name", CASES)
def test_left_is_the_formula(name: str) -> None:
    make, rate, _ = CASES[name]
    expected = [0.3 * rate(float(k)) for k in range(T)]
    np.testing.assert_allclose(make("left").eta, expected, rtol=1e-12, atol=1e-16)


@pytest.mark.parametrize("name", CASES)
def test_average_is_the_integral(name: str) -> None:
    make, rate, kinks = CASES[name]
    expected = []
    for k in range(T):
        edges = [k, *[x for x in kinks if k < x < k + 1], k + 1]
        parts = (quad(rate, a, b, epsabs=1e-14)[0] for a, b in pairwise(edges))
        expected.append(0.3 * sum(parts))
    schedule = make("average")
    np.testing.assert_allclose(schedule.eta, expected, rtol=1e-10, atol=1e-15)
    assert schedule.total == pytest.approx(sum(expected), rel=1e-10)


@pytest.mark.parametrize("power", [-3.0, -1.0, -0.5, 0.0, 0.5, 1.0, 7.0])
def test_power_mean(power: float) -> None:
    from optsched.schedules.families.pieces import power_mean

    x, width = np.array([0.7, 5.0, 3e9, 0.25]), np.array([2.0, 1.0, 1.0, 0.0])
    expected = [
        quad(lambda y: y**power, a, a + w, epsabs=0)[0] / w if w else a**power
        for a, w in zip(x, width, strict=True)
    ]
    np.testing.assert_allclose(power_mean(x, width, power), expected, rtol=1e-10)


# Power law and warm-up ------------------------------------------------------------------------


def test_power_law() -> None:
    schedule = f.power_law(100, 0.5, xi=0.25, chi=0.75)
    scale = 0.5 * 100**-0.25
    expected = [scale * quad(lambda t: t**-0.75, k, k + 1)[0] for k in range(100)]
    np.testing.assert_allclose(schedule.eta, expected, rtol=1e-8)
    left = f.power_law(100, 0.5, xi=0.25, chi=1.5, sampling="left")
    np.testing.assert_allclose(left.eta, scale * np.arange(1.0, 101.0) ** -1.5, rtol=1e-13)
    with pytest.raises(InvalidProblem, match="diverges"):
        f.power_law(100, 0.5, chi=1.0)
    law = f.FAMILIES["power_law"]
    np.testing.assert_allclose(law(50, 0.3, chi=0.6).eta, 0.3 * np.arange(1.0, 51.0) ** -0.6)
    average = law(50, 0.3, chi=0.6, sampling="average")
    assert average(0) == pytest.approx(0.3) and average(1) < law(50, 0.3, chi=0.6)(1)
    assert law(50, 0.3, chi=0.6, sampling="left")(1) == pytest.approx(0.3 * 2**-0.6)


def test_warmup_of_a_schedule() -> None:
    late = Schedule.from_array([0.4, 0.2], beta=[0.9, 0.8], extend="zero", metadata={"a": 1})
    schedule = f.with_warmup(late, 4)
    np.testing.assert_allclose(schedule.eta, [0.05, 0.15, 0.25, 0.35, 0.4, 0.2])
    assert schedule.beta is not None
    np.testing.assert_array_equal(schedule.beta, [0.9] * 5 + [0.8])
    assert schedule.extend == "zero" and schedule.metadata == {"a": 1}
    assert len(f.with_warmup(late, 0.5)) == 4  # half of the total
    assert f.with_warmup(late, 0) == late
    np.testing.assert_allclose(
        f.with_warmup(late, 2, peak=1.0, start=0.5, sampling="left").eta, [0.5, 0.75, 0.4, 0.2]
    )
    np.testing.assert_allclose(f.with_warmup(f.cosine, 1.0, 2, 1.0).eta, [0.25, 0.75])
    for bad in (
        lambda: f.with_warmup(late, 2, 5),
        lambda: f.with_warmup(late, 2, final=0.1),
        lambda: f.with_warmup(late, 1.0),
        lambda: f.with_warmup(f.cosine, 2),
        lambda: f.with_warmup(f.cosine, 6, 5, 0.1),
        lambda: f.with_warmup("cosine", 2, 5, 0.1),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidProblem):
            bad()


# Derived --------------------------------------------------------------------------------------


def test_rewind() -> None:
    base = Schedule.from_array(np.arange(10.0), beta=0.09 * np.arange(10.0))
    tail = [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    assert f.rewind(base, 4).eta.tolist() == [*range(10), *tail]
    assert f.rewind(base, 0.4, times=2).eta.tolist() == [*range(10), *tail, *tail]
    twice = f.rewind(base, 4, at=0.6, times=2)
    assert twice.eta.tolist() == [0, 1, 2, 3, 4, 5, 4, 5, *tail]
    assert twice.beta is not None and twice.beta[6] == base(4, "beta")
    assert f.rewind(base, 8, at=2).eta.tolist() == [0, 1, 8, 9]  # skips ahead
    long = f.rewind(f.cosine(10**9, 0.1), 0.9)
    assert long.horizon == 11 * 10**8 and len(long.steps) < 10**5
    assert long(10**9) == pytest.approx(f.cosine(10**9, 0.1)(9 * 10**8))
    for bad in (
        lambda: f.rewind(base, 10),
        lambda: f.rewind(base, 6, at=6, times=2),
        lambda: f.rewind(base, 2, at=11),
        lambda: f.rewind(base, 2, times=0),
        lambda: f.rewind(f.cosine(10**6, 0.1), 0.1, times=1000),
        lambda: f.rewind([1.0], 0),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidProblem):
            bad()


def test_schedule_free_averages_as_its_weights_say() -> None:
    """Run the recursion of the method on random gradients: only their weights matter."""
    rng = np.random.default_rng(1)
    schedule = f.schedule_free(30, 0.2, warmup=7, sampling="right")
    for r in (0.0, 2.0):
        weights, mixing, rates = f.averaging(schedule, r=r)
        gradients = rng.normal(size=30)
        x = z = 0.0
        path = []
        for k, g in enumerate(gradients):
            z -= schedule(k) * g
            x = (1.0 - mixing[k]) * x + mixing[k] * z
            path.append(z)
        assert x == pytest.approx(weights @ path)
        assert x == pytest.approx(-rates @ gradients)
        assert weights.sum() == pytest.approx(1.0)
    flat = f.averaging(f.schedule_free(50, 0.2))
    np.testing.assert_allclose(flat.rates, f.linear(50, 0.2, sampling="left").eta, rtol=1e-13)
    assert f.schedule_free(10, 1.0, warmup=4).eta[:5].tolist() == [0.125, 0.375, 0.625, 0.875, 1]
    assert f.schedule_free(10, 1.0, warmup=4, sampling="left")(0) == 0.0
    assert len(f.schedule_free(10**15, 0.1, warmup=0.1).steps) == 4
    late = f.averaging(Schedule.from_array([0.0, 0.0, 0.5]))
    assert late.mixing.tolist() == [0.0, 0.0, 1.0]
    for bad in (
        lambda: f.averaging(f.constant(5, 0.0)),
        lambda: f.averaging(f.constant(10**9, 0.1)),
        lambda: f.averaging(f.constant(5, 0.1), power=-1.0),
    ):
        with pytest.raises(InvalidProblem):
            bad()


def test_refined_is_the_formula() -> None:
    norms = np.array([4.0, 2.0, 1.0, 1.5, 3.0])
    for optimiser, power in (("sgd", -2.0), ("adam", -1.0)):
        w = norms**power
        expected = np.array([w[t] * w[t + 1 :].sum() for t in range(5)])
        schedule = f.refined(norms, 0.3, optimiser=optimiser, smooth=0.0)  # type: ignore[arg-type]
        np.testing.assert_allclose(schedule.eta, 0.3 * expected / expected.max(), atol=1e-16)


@pytest.mark.parametrize("sampling", ["right", "average", "left"])
def test_refined_spreads_few_norms_over_many_steps(sampling: Any) -> None:
    norms, repeats = np.array([3.0, 1.0, 2.0]), np.array([3, 3, 4])  # of 10 steps
    dense = f.refined(np.repeat(norms, repeats), 0.3, smooth=0.0, sampling=sampling)
    spread = f.refined(norms, 0.3, horizon=10, smooth=0.0, sampling=sampling)
    np.testing.assert_allclose(spread.eta, dense.eta, rtol=1e-13)
    huge = f.refined(np.ones(1000), 0.3, horizon=10**15, sampling=sampling)
    assert len(huge.steps) == 2000
    assert huge(10**15 // 4) == pytest.approx(0.225, rel=1e-9)


def test_refined_of_equal_norms_is_linear() -> None:
    for sampling in ("average", "left"):
        line = f.linear(40, 1.0, sampling=sampling)
        schedule = f.refined(np.full(40, 7.0), line.peak, sampling=sampling)
        np.testing.assert_allclose(schedule.eta, line.eta, rtol=1e-13)
    assert f.refined(np.full(40, 7.0), 0.3)(39) == 0.0


def test_refined_minimises_the_bound() -> None:
    """The bound of the paper, with its exact constants: no perturbed weights give a lower one."""
    rng = np.random.default_rng(2)
    norms = np.exp(rng.normal(size=12))

    def bound(w: np.ndarray) -> float:  # at the best scale of w, and distance 1
        return math.sqrt((w**2 * norms**2).sum()) / w.sum()

    best = bound(norms**-2.0)
    for _ in range(100):
        assert bound(norms**-2.0 * np.exp(0.1 * rng.normal(size=12))) >= best


def test_refined_median() -> None:
    norms = np.ones(101)
    norms[[10, 60]] = 50.0  # lone spikes do not pass a median
    np.testing.assert_allclose(f.refined(norms, 0.3).eta, f.refined(np.ones(101), 0.3).eta)
    rng = np.random.default_rng(3)
    rough = np.exp(rng.normal(size=40))
    padded = np.concatenate([[rough[0]] * 4, rough, rough[-2:-6:-1]])
    smooth = np.array([np.median(padded[i : i + 9]) for i in range(40)])
    expected = f.refined(smooth, 0.3, smooth=0.0)
    np.testing.assert_allclose(f.refined(rough, 0.3, smooth=0.2).eta, expected.eta, rtol=1e-13)
    falling = np.concatenate([np.linspace(5.0, 1.0, 50), np.ones(50)])
    assert 30 < np.argmax(f.refined(falling, 0.3).eta) < 60  # a warm-up


def test_refined_errors() -> None:
    for bad in (
        lambda: f.refined([], 0.1),
        lambda: f.refined([[1.0]], 0.1),
        lambda: f.refined([1.0, 0.0], 0.1),
        lambda: f.refined([1.0, math.nan], 0.1),
        lambda: f.refined([1.0], 0.1),
        lambda: f.refined([1.0, 2.0], 0.1, horizon=1),
        lambda: f.refined([1.0, 2.0], 0.1, smooth=2.0),
        lambda: f.refined([1.0, 2.0], 0.1, optimiser="lion"),  # type: ignore[arg-type]
        lambda: f.refined([1.0, 2.0], 0.1, sampling="middle"),  # type: ignore[arg-type]
        lambda: f.refined([1e300, 1e-300], 0.1, smooth=0.0),
    ):
        with pytest.raises(InvalidProblem):
            bad()
    assert f.refined([1.0], 0.1, sampling="average").eta.tolist() == [0.1]


# The registry ---------------------------------------------------------------------------------


@st.composite
def members(draw: Any) -> tuple[f.Family, int, dict[str, float]]:
    family = f.FAMILIES[draw(st.sampled_from(sorted(f.FAMILIES)))]
    horizon = draw(st.one_of(st.integers(1, 60), st.integers(1, 10**15)))
    options = {
        p.name: p.at(draw(st.floats(0.0, 1.0)))
        for p in family.parameters
        if p.name != "peak" and draw(st.booleans())
    }
    return family, horizon, options


@given(members(), st.sampled_from(["average", "left"]), st.floats(0.0, 10.0))
@settings(max_examples=300, deadline=None)
def test_members(member: Any, sampling: str, peak: float) -> None:
    family, horizon, options = member
    schedule = family(horizon, peak, sampling=sampling, **options)
    assert schedule.horizon == horizon
    assert len(schedule.steps) <= 100_000
    eta = schedule.controls["eta"]
    assert (eta >= 0.0).all()
    assert (eta <= peak * (1.0 + 1e-14)).all()
    if sampling == "average" and peak > 1e-6:
        assert schedule(0) > 0.0
    warm = options.get("warmup", 0.0) * horizon
    if family.name != "inverse_sqrt" and warm >= 2.0:
        ramp = math.floor(warm + 0.5)
        offset = 0.5 if sampling == "average" else 0.0
        k = np.array([0, ramp // 2, ramp - 1])
        np.testing.assert_allclose(schedule(k), peak * (k + offset) / ramp, rtol=1e-9)


@pytest.mark.parametrize("name", f.FAMILIES)
def test_registry_entry(name: str) -> None:
    family = f.FAMILIES[name]
    assert family.name == name
    assert family.parameters[0].name == "peak"
    for horizon in (1, 2, 3, 1000):
        assert family(horizon, 0.3) == family(horizon, 0.3, **family.defaults)
    for p in family.parameters[1:]:
        assert p.at(0.0) == p.low and p.at(1.0) == pytest.approx(p.high)
        for value in (p.low, p.high):  # every end of a range is allowed, and matters
            assert family(1000, 0.3, **{p.name: value}).horizon == 1000
        low, high = (family(1000, 0.3, **{p.name: v}) for v in (p.low, p.high))
        assert low != high, p
    assert pickle.loads(pickle.dumps(family))(10, 0.3) == family(10, 0.3)


def test_registry_decay_is_a_share_of_what_the_warmup_leaves() -> None:
    schedule = f.FAMILIES["wsd_linear"](100, 0.3, warmup=0.2, decay=0.25)
    assert schedule == f.wsd(100, 0.3, warmup=20, cooldown=20)
    stairs = f.FAMILIES["multi_step"](100, 0.3, warmup=0.2, first=0.5, second=0.5)
    assert stairs(59) == 0.3 and stairs(60) == 0.3 * 0.1 and stairs(80) == 0.3 * (0.1 * 0.1)


def test_parameter_errors() -> None:
    with pytest.raises(InvalidProblem):
        f.Parameter("x", 0.0, 1.0, 2.0)
    with pytest.raises(InvalidProblem):
        f.Parameter("x", 0.0, 1.0, 0.5, log=True)
    with pytest.raises(InvalidProblem):
        f.Parameter("x", 0.0, 1.0, 0.5).at(1.5)


# Long and short -------------------------------------------------------------------------------


LONG: dict[str, tuple[Callable[[int], Schedule], Callable[[float], float]]] = {
    "polynomial": (lambda n: f.polynomial(n, 1.0, power=3.0), lambda x: (1.0 - x) ** 3),
    "cosine": (lambda n: f.cosine(n, 1.0), lambda x: half(1.0, 0.0, x)),
    "exponential": (lambda n: f.exponential(n, 1.0), lambda x: 0.01**x),
    "inverse_sqrt": (
        lambda n: f.inverse_sqrt(n, 1.0, warmup=10**4),
        lambda x: math.sqrt(1e4 / (x * 1e9)) if x > 1e-5 else x * 1e5,
    ),
    "inverse_time": (
        lambda n: f.inverse_time(n, 1.0, timescale=10**4),
        lambda x: 1.0 / (1.0 + x * 1e5),
    ),
    "wsd, 1-sqrt": (
        lambda n: f.wsd(n, 1.0, shape="1-sqrt", cooldown=0.5),
        lambda x: 1.0 - math.sqrt(max(2.0 * x - 1.0, 0.0)),
    ),
    "cosine_restarts": (
        lambda n: f.cosine_restarts(n, 1.0, cycles=100),
        lambda x: half(1.0, 0.0, (100.0 * x) % 1.0),
    ),
}


@pytest.mark.parametrize("name", LONG)
def test_thinned_curve_is_the_curve(name: str) -> None:
    """At a long horizon a family agrees with its formula also where no knot is."""
    make, rate = LONG[name]
    schedule = make(10**9)
    steps = np.unique(np.geomspace(1, 10**9 - 1, 400).astype(np.int64))
    expected = [rate((k + 0.5) / 1e9) for k in steps]
    np.testing.assert_allclose(schedule(steps), expected, rtol=2e-3, atol=2e-6)


def test_jumps_are_exact_at_long_horizons() -> None:
    n = 10**9
    stairs = f.step(n, 1.0, every=0.25)
    assert stairs(n // 4 - 1) == 1.0 and stairs(n // 4) == 0.1
    drops = f.multi_step(n, 1.0, milestones=(0.8, 0.9), factor=math.sqrt(0.1))
    assert [drops(k) for k in (8 * 10**8 - 1, 8 * 10**8)] == [1.0, math.sqrt(0.1)]
    cycles = f.cosine_restarts(n, 1.0, first=n // 4)
    assert cycles(n // 4 - 1) < 1e-15 and cycles(n // 4) == pytest.approx(1.0, rel=1e-15)
    assert f.wsd(n, 1.0, cooldown=0.1)(9 * 10**8 - 1) == 1.0
    assert f.polynomial(10**15, 1.0, power=2.0)(10**15 - 1) == pytest.approx(1e-30 / 3, rel=1e-9)
    last = f.wsd(10**9, 1.0, cooldown=1.0, shape="1-sqrt")(10**9 - 1)
    assert last == pytest.approx(0.25e-9, rel=1e-6)


def test_present_behaviour_is_kept() -> None:
    assert f.FAMILIES["constant"](7, 0.3) == Schedule.from_knots([0, 6], eta=[0.3, 0.3])
    line = f.FAMILIES["linear"](10**6, 0.3)
    steps = np.array([0, 10**6 - 1])
    assert line == Schedule.from_knots(steps, eta=0.3 * (1.0 - (steps + 0.5) / 10**6))
    assert len(f.FAMILIES["cosine"](4096, 0.3).steps) == 4096
    assert len(f.FAMILIES["cosine"](10**9, 0.3).steps) == 3794


BAD: list[tuple[str, Callable[[], Schedule]]] = [
    ("horizon", lambda: f.linear(0, 0.1)),
    ("horizon", lambda: f.linear(2.5, 0.1)),  # type: ignore[arg-type]
    ("peak", lambda: f.cosine(10, -0.1)),
    ("peak", lambda: f.cosine(10, math.nan)),
    ("peak", lambda: f.cosine(10, True)),
    ("sampling", lambda: f.constant(10, 0.1, sampling="right")),  # type: ignore[arg-type]
    ("final", lambda: f.linear(10, 0.1, final=1.5)),
    ("final", lambda: f.exponential(10, 0.1, final=0.0)),
    ("gamma", lambda: f.exponential(10, 0.1, final=0.1, gamma=0.9)),
    ("gamma", lambda: f.exponential(10, 0.1, gamma=1.1)),
    ("power", lambda: f.polynomial(10, 0.1, power=0.0)),
    ("timescale", lambda: f.inverse_sqrt(10, 0.1, warmup=0)),
    ("timescale", lambda: f.inverse_time(10, 0.1, timescale=0)),
    ("timescale", lambda: f.inverse_time(10, 0.1, timescale=2.5)),
    ("chi", lambda: f.power_law(10, 0.1, chi=-0.1)),
    ("warmup", lambda: f.wsd(10, 0.1, warmup=11)),
    ("warmup", lambda: f.wsd(10, 0.1, warmup=True)),
    ("cooldown", lambda: f.wsd(10, 0.1, warmup=5, cooldown=6)),
    ("cooldown", lambda: f.wsd(10, 0.1, warmup=0.5, cooldown=0.7)),
    ("shape", lambda: f.wsd(10, 0.1, shape="sqrt")),  # type: ignore[arg-type]
    ("final", lambda: f.wsd(10, 0.1, shape="exponential", final=0.0)),
    ("every", lambda: f.step(10, 0.1, every=0)),
    ("every", lambda: f.step(10**9, 0.1, every=1000)),
    ("factor", lambda: f.step(10, 0.1, factor=2.0)),
    ("milestones", lambda: f.multi_step(10, 0.1, milestones=(5, 4))),
    ("milestones", lambda: f.multi_step(10, 0.1, milestones=5)),  # type: ignore[arg-type]
    ("milestones", lambda: f.multi_step(10, 0.1, milestones=(-1,))),
    ("factor", lambda: f.multi_step(10, 0.1, factor=(0.1,))),
    ("factor", lambda: f.multi_step(10, 0.1, factor=None)),  # type: ignore[arg-type]
    ("cycles", lambda: f.cosine_restarts(10, 0.1, cycles=0)),
    ("first", lambda: f.cosine_restarts(10, 0.1, cycles=2, first=5)),
    ("first", lambda: f.cosine_restarts(10**9, 0.1, first=10)),
    ("first", lambda: f.cosine_restarts(10**9, 0.1, first=1, t_mult=1.0001)),
    ("t_mult", lambda: f.cosine_restarts(10, 0.1, t_mult=0.5)),
    ("decay", lambda: f.cosine_restarts(10, 0.1, decay=0.0)),
    ("rise", lambda: f.one_cycle(10, 0.1, rise=11)),
    ("fall", lambda: f.one_cycle(10, 0.1, rise=5, fall=4)),
    ("beta", lambda: f.one_cycle(10, 0.1, beta=(0.9, 0.8))),
    ("beta", lambda: f.one_cycle(10, 0.1, beta=0.9)),  # type: ignore[arg-type]
    ("beta", lambda: f.cyclical(10, 0.1, beta=(0.9, 1.0))),
    ("mode", lambda: f.cyclical(10, 0.1, mode="square")),  # type: ignore[arg-type]
    ("gamma", lambda: f.cyclical(10, 0.1, mode="exp_range")),
    ("gamma", lambda: f.cyclical(10, 0.1, gamma=0.9)),
    ("up", lambda: f.cyclical(10**9, 0.1, up=1)),
    ("up", lambda: f.cyclical(10, 0.1, up=0)),
    ("warmup", lambda: f.schedule_free(10, 0.1, warmup=11)),
    ("sampling", lambda: f.schedule_free(10, 0.1, sampling="middle")),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("field", "make"), BAD)
def test_errors(field: str, make: Callable[[], Schedule]) -> None:
    with pytest.raises(InvalidProblem) as caught:
        make()
    assert caught.value.field == field
    assert "allowed: " in str(caught.value)


def test_shares_that_round_up_together_still_fit() -> None:
    assert f.wsd(3, 0.1, warmup=0.5, cooldown=0.5).horizon == 3


def test_momentum_mirrors_the_rate() -> None:
    cycle = f.one_cycle(20, 1.0, rise=5, beta=(0.85, 0.95), sampling="left")
    assert cycle.beta is not None
    assert cycle.beta[0] == 0.95 and cycle.beta[5] == pytest.approx(0.85)
    saws = f.cyclical(20, 1.0, up=5, floor=0.0, beta=(0.8, 0.9))
    assert saws.beta is not None
    np.testing.assert_allclose(saws.beta, 0.9 - 0.1 * saws.eta)


# Frameworks: steps 0 .. T - 1, at the same places. docs/families.md lists what differs. ---------


def torch_rates(make: Callable[[Any], Any], peak: float, steps: int = T) -> dict[str, list[float]]:
    """Rate and momentum that each update of torch's SGD would use."""
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak, momentum=0.9)
    scheduler = make(optimizer)
    found: dict[str, list[float]] = {"eta": [], "beta": []}
    for k in range(steps):
        found["eta"].append(optimizer.param_groups[0]["lr"])
        found["beta"].append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        if k < steps - 1:
            scheduler.step()
    return found


LR = "torch.optim.lr_scheduler"
TORCH: dict[str, tuple[Callable[[Any, Any], Any], Callable[[], Schedule]]] = {
    "LinearLR": (
        lambda m, o: m.LinearLR(o, start_factor=1.0, end_factor=0.25, total_iters=T),
        lambda: f.linear(T, 0.3, final=0.25, sampling="left"),
    ),
    "PolynomialLR": (
        lambda m, o: m.PolynomialLR(o, total_iters=T, power=1.7),
        lambda: f.polynomial(T, 0.3, power=1.7, sampling="left"),
    ),
    "CosineAnnealingLR": (
        lambda m, o: m.CosineAnnealingLR(o, T_max=T, eta_min=0.03),
        lambda: f.cosine(T, 0.3, final=0.1, sampling="left"),
    ),
    "CosineAnnealingWarmRestarts": (
        lambda m, o: m.CosineAnnealingWarmRestarts(o, T_0=3, T_mult=2, eta_min=0.03),
        lambda: f.cosine_restarts(T, 0.3, first=3, t_mult=2, final=0.1, sampling="left"),
    ),
    "ExponentialLR": (
        lambda m, o: m.ExponentialLR(o, gamma=0.9),
        lambda: f.exponential(T, 0.3, gamma=0.9, sampling="left"),
    ),
    "StepLR": (
        lambda m, o: m.StepLR(o, step_size=6, gamma=0.2),
        lambda: f.step(T, 0.3, every=6, factor=0.2),
    ),
    "MultiStepLR": (
        lambda m, o: m.MultiStepLR(o, milestones=[4, 4, 11, 40], gamma=0.2),
        lambda: f.multi_step(T, 0.3, milestones=(4, 4, 11, 40), factor=0.2),
    ),
    "SequentialLR": (
        lambda m, o: m.SequentialLR(
            o,
            [m.LinearLR(o, start_factor=0.1, total_iters=5), m.CosineAnnealingLR(o, T_max=T - 5)],
            milestones=[5],
        ),
        lambda: f.with_warmup(f.cosine, 5, T, 0.3, start=0.1, sampling="left"),
    ),
    "OneCycleLR": (
        lambda m, o: m.OneCycleLR(o, 0.3, total_steps=T),
        lambda: f.one_cycle(T, 0.3, closed=True, beta=(0.85, 0.95), sampling="left"),
    ),
    "OneCycleLR, three phases": (
        lambda m, o: m.OneCycleLR(
            o,
            0.3,
            total_steps=T,
            three_phase=True,
            pct_start=0.4,
            div_factor=10.0,
            final_div_factor=100.0,
            anneal_strategy="linear",
        ),
        lambda: f.one_cycle(
            T,
            0.3,
            rise=0.4,
            fall=0.8,
            start=0.1,
            final=0.001,
            shape="linear",
            beta=(0.85, 0.95),
            closed=True,
            sampling="left",
        ),
    ),
    "CyclicLR": (
        lambda m, o: m.CyclicLR(o, 0.06, 0.3, step_size_up=3, step_size_down=4),
        lambda: f.cyclical(T, 0.3, up=3, down=4, floor=0.2, beta=(0.8, 0.9), sampling="left"),
    ),
    "CyclicLR, triangular2": (
        lambda m, o: m.CyclicLR(o, 0.06, 0.3, step_size_up=3, mode="triangular2"),
        lambda: f.cyclical(
            T, 0.3, mode="triangular2", up=3, floor=0.2, beta=(0.8, 0.9), sampling="left"
        ),
    ),
    "CyclicLR, exp_range": (
        lambda m, o: m.CyclicLR(o, 0.06, 0.3, step_size_up=3, mode="exp_range", gamma=0.9),
        lambda: f.cyclical(
            T, 0.3, mode="exp_range", gamma=0.9, up=3, floor=0.2, beta=(0.8, 0.9), sampling="left"
        ),
    ),
}


@pytest.mark.parametrize("name", TORCH)
def test_torch(name: str) -> None:
    module = pytest.importorskip(LR)
    make, ours = TORCH[name]
    found, schedule = torch_rates(lambda o: make(module, o), 0.3), ours()
    np.testing.assert_allclose(schedule.eta, found["eta"], rtol=1e-9, atol=1e-13)
    if schedule.beta is not None:
        np.testing.assert_allclose(schedule.beta, found["beta"], rtol=1e-9)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 7, 20])
@pytest.mark.parametrize("three", [False, True])
@pytest.mark.parametrize("rise", [0.1, 0.3])
def test_torch_one_cycle_of_few_steps(steps: int, three: bool, rise: float) -> None:
    module = pytest.importorskip(LR)
    found = torch_rates(
        lambda o: module.OneCycleLR(o, 0.3, total_steps=steps, pct_start=rise, three_phase=three),
        0.3,
        steps,
    )
    fall = 2 * rise if three else None
    schedule = f.one_cycle(
        steps, 0.3, rise=rise, fall=fall, closed=True, beta=(0.85, 0.95), sampling="left"
    )
    np.testing.assert_allclose(schedule.eta, found["eta"], rtol=1e-9)
    assert schedule.eta[-1] == pytest.approx(0.3 * 4e-6)
    assert schedule.beta is not None
    np.testing.assert_allclose(schedule.beta, found["beta"], rtol=1e-9)


def test_torch_differences() -> None:
    module = pytest.importorskip(LR)
    # Past the end torch's cosine rises again and its one cycle raises; ours hold.
    after = torch_rates(lambda o: module.CosineAnnealingLR(o, T_max=5), 0.3, 11)["eta"]
    assert after[10] == pytest.approx(0.3)
    assert f.cosine(5, 0.3, sampling="left")(10) == f.cosine(5, 0.3, sampling="left")(4)
    with pytest.raises(ValueError, match="Tried to step"):
        torch_rates(lambda o: module.OneCycleLR(o, 0.3, total_steps=4), 0.3, 6)
    # A rise of less than a step never reaches the peak there.
    assert max(torch_rates(lambda o: module.OneCycleLR(o, 0.3, total_steps=3), 0.3, 3)["eta"]) < 0.3
    assert f.one_cycle(3, 0.3, sampling="left").eta.max() == 0.3
    # A rise of exactly one step divides by zero there.
    with pytest.raises(ZeroDivisionError):
        torch_rates(lambda o: module.OneCycleLR(o, 0.3, total_steps=10, pct_start=0.1), 0.3)
    assert f.one_cycle(10, 0.3, rise=0.1, closed=True, sampling="left")(0) == 0.3
    # Beyond 4096 steps ours is interpolated.
    long = torch_rates(lambda o: module.CosineAnnealingLR(o, T_max=10_000), 1.0, 10_000)["eta"]
    gap = np.abs(f.cosine(10_000, 1.0, sampling="left").eta - long).max()
    assert 1e-9 < gap < 2e-7
    # LinearLR cannot start from zero, and the schedule of T steps never uses its end value.
    with pytest.raises(ValueError, match="greater than 0"):
        torch_rates(lambda o: module.LinearLR(o, start_factor=0.0), 0.3)
    assert torch_rates(lambda o: module.PolynomialLR(o, total_iters=5), 0.3, 5)["eta"][-1] > 0.0


OPTAX: dict[str, tuple[Callable[[Any], Any], Callable[[], Schedule]]] = {
    "constant_schedule": (
        lambda o: o.constant_schedule(0.3),
        lambda: f.constant(T, 0.3),
    ),
    "linear_schedule": (
        lambda o: o.linear_schedule(0.3, 0.03, T),
        lambda: f.linear(T, 0.3, final=0.1, sampling="left"),
    ),
    "polynomial_schedule": (
        lambda o: o.polynomial_schedule(0.3, 0.03, 1.7, T),
        lambda: f.polynomial(T, 0.3, power=1.7, final=0.1, sampling="left"),
    ),
    "cosine_decay_schedule": (
        lambda o: o.cosine_decay_schedule(0.3, T, alpha=0.1),
        lambda: f.cosine(T, 0.3, final=0.1, sampling="left"),
    ),
    "exponential_decay": (
        lambda o: o.exponential_decay(0.3, transition_steps=4, decay_rate=0.5),
        lambda: f.exponential(T, 0.3, gamma=0.5**0.25, sampling="left"),
    ),
    "exponential_decay, staircase": (
        lambda o: o.exponential_decay(0.3, transition_steps=4, decay_rate=0.5, staircase=True),
        lambda: f.step(T, 0.3, every=4, factor=0.5),
    ),
    "piecewise_constant_schedule": (
        lambda o: o.piecewise_constant_schedule(0.3, {4: 0.5, 11: 0.1}),
        lambda: f.multi_step(T, 0.3, milestones=(4, 11), factor=(0.5, 0.1)),
    ),
    "warmup_constant_schedule": (
        lambda o: o.warmup_constant_schedule(0.03, 0.3, 5),
        lambda: f.with_warmup(f.constant, 5, T, 0.3, start=0.1, sampling="left"),
    ),
    "warmup_constant_schedule, schedule-free": (
        lambda o: o.warmup_constant_schedule(0.0, 0.3, 5),
        lambda: f.schedule_free(T, 0.3, warmup=5, sampling="left"),
    ),
    "warmup_cosine_decay_schedule": (
        lambda o: o.warmup_cosine_decay_schedule(0.03, 0.3, 5, T, end_value=0.06),
        lambda: f.with_warmup(f.cosine, 5, T, 0.3, start=0.1, final=0.2, sampling="left"),
    ),
    "warmup_exponential_decay_schedule": (
        lambda o: o.warmup_exponential_decay_schedule(0.0, 0.3, 5, 1, 0.9),
        lambda: f.with_warmup(f.exponential, 5, T, 0.3, gamma=0.9, sampling="left"),
    ),
    "sgdr_schedule": (
        lambda o: o.sgdr_schedule(
            [
                {"init_value": 0.0, "peak_value": 0.3, "warmup_steps": 0, "decay_steps": n}
                for n in (5, 10, 20)
            ]
        ),
        lambda: f.cosine_restarts(T, 0.3, first=5, t_mult=2, sampling="left"),
    ),
    "cosine_onecycle_schedule": (
        lambda o: o.cosine_onecycle_schedule(T, 0.3),
        lambda: f.one_cycle(T, 0.3, rise=int(0.3 * T), sampling="left"),
    ),
    "linear_onecycle_schedule": (
        lambda o: o.linear_onecycle_schedule(T, 0.3),
        lambda: f.one_cycle(
            T,
            0.3,
            rise=int(0.3 * T),
            fall=int(0.85 * T),
            shape="linear",
            sampling="left",
        ),
    ),
}


@pytest.mark.parametrize("name", OPTAX)
def test_optax(name: str) -> None:
    optax = pytest.importorskip("optax")
    import jax

    make, ours = OPTAX[name]
    with jax.enable_x64(True):
        schedule = make(optax)
        found = [float(schedule(k)) for k in range(T)]
    np.testing.assert_allclose(ours().eta, found, rtol=1e-9, atol=1e-16)


HF: dict[str, tuple[Callable[[Any, Any], Any], Callable[[], Schedule]]] = {
    "get_constant_schedule_with_warmup": (
        lambda m, o: m.get_constant_schedule_with_warmup(o, 5),
        lambda: f.with_warmup(f.constant, 5, T, 0.3, sampling="left"),
    ),
    "get_linear_schedule_with_warmup": (
        lambda m, o: m.get_linear_schedule_with_warmup(o, 5, T),
        lambda: f.with_warmup(f.linear, 5, T, 0.3, sampling="left"),
    ),
    "get_cosine_schedule_with_warmup": (
        lambda m, o: m.get_cosine_schedule_with_warmup(o, 5, T),
        lambda: f.with_warmup(f.cosine, 5, T, 0.3, sampling="left"),
    ),
    "get_cosine_with_min_lr_schedule_with_warmup": (
        lambda m, o: m.get_cosine_with_min_lr_schedule_with_warmup(o, 5, T, min_lr=0.03),
        lambda: f.with_warmup(f.cosine, 5, T, 0.3, final=0.1, sampling="left"),
    ),
    "get_cosine_with_hard_restarts_schedule_with_warmup": (
        lambda m, o: m.get_cosine_with_hard_restarts_schedule_with_warmup(o, 5, T, num_cycles=4),
        lambda: f.with_warmup(f.cosine_restarts, 5, T, 0.3, cycles=4, sampling="left"),
    ),
    "get_polynomial_decay_schedule_with_warmup": (
        lambda m, o: m.get_polynomial_decay_schedule_with_warmup(o, 5, T, lr_end=0.03, power=1.7),
        lambda: f.with_warmup(f.polynomial, 5, T, 0.3, power=1.7, final=0.1, sampling="left"),
    ),
    "get_inverse_sqrt_schedule": (
        lambda m, o: m.get_inverse_sqrt_schedule(o, 5),
        lambda: f.inverse_sqrt(T, 0.3, warmup=5, sampling="left"),
    ),
    "get_inverse_sqrt_schedule, timescale": (
        lambda m, o: m.get_inverse_sqrt_schedule(o, 5, timescale=3),
        lambda: f.inverse_sqrt(T, 0.3, warmup=5, timescale=3, sampling="left"),
    ),
} | {
    f"get_wsd_schedule, {shape}": (
        lambda m, o, shape=shape: m.get_wsd_schedule(
            o, 5, 8, num_training_steps=T, decay_type=shape, min_lr_ratio=0.1
        ),
        lambda shape=shape: f.wsd(
            T, 0.3, warmup=5, cooldown=8, shape=shape, final=0.1, start=0.1, sampling="left"
        ),
    )
    for shape in list[Any](("linear", "1-sqrt", "cosine"))
}


@pytest.mark.parametrize("name", HF)
def test_transformers(name: str) -> None:
    module = pytest.importorskip("transformers.optimization")
    make, ours = HF[name]
    found = torch_rates(lambda o: make(module, o), 0.3)["eta"]
    np.testing.assert_allclose(ours().eta, found, rtol=1e-9, atol=1e-16)


def test_transformers_differences() -> None:
    module = pytest.importorskip("transformers.optimization")

    def rates(make: Callable[..., Any], *args: Any, steps: int = T, **options: Any) -> list[float]:
        return torch_rates(lambda o: make(o, *args, **options), 0.3, steps)["eta"]

    # The warm-up starts from zero; ours, averaged, does not.
    assert rates(module.get_linear_schedule_with_warmup, 5, T)[0] == 0.0
    assert f.with_warmup(f.linear, 5, T, 0.3)(0) == pytest.approx(0.03)
    # The variant with its own warm-up rate takes values at the end of the step.
    ends = rates(module.get_cosine_with_min_lr_schedule_with_warmup_lr_rate, 5, T, min_lr=0.03)
    left = f.with_warmup(f.cosine, 5, T, 0.3, final=0.1, sampling="left").eta
    np.testing.assert_allclose(ends[:-1], left[1:], rtol=1e-9)
    assert ends[-1] == pytest.approx(0.03)
    # The polynomial ends at 1e-7, not at zero.
    assert rates(module.get_polynomial_decay_schedule_with_warmup, 0, T, steps=T + 1)[-1] > 9e-8
    # A share of the horizon is rounded up.
    arguments = pytest.importorskip("transformers").TrainingArguments
    assert arguments.get_warmup_steps(SimpleNamespace(warmup_steps=0.1), 23) == 3
    assert f.with_warmup(f.constant, 0.1, 23, 1.0)(1) == 0.75  # two steps
    # The warm-up of the trapezoid starts at the final rate.
    assert rates(module.get_wsd_schedule, 5, 8, T, min_lr_ratio=0.1)[0] == pytest.approx(0.03)
    # Inverse square root without warm-up has a time-scale of 10,000 steps.
    found = rates(module.get_inverse_sqrt_schedule, 0)
    ours = f.inverse_sqrt(T, 0.3, warmup=0, timescale=10_000, sampling="left")
    np.testing.assert_allclose(ours.eta, found, rtol=1e-12)


def test_schedule_free_of_optax() -> None:
    """optax weights by the rate of the next step, and updates with that of this one."""
    optax = pytest.importorskip("optax")
    import jax
    import jax.numpy as jnp

    with jax.enable_x64(True):
        rate = optax.warmup_constant_schedule(0.0, 0.3, 5)
        method = optax.contrib.schedule_free(optax.sgd(rate), rate, b1=0.9)
        gradients = np.random.default_rng(4).normal(size=T)
        y = jnp.zeros(1)
        state = method.init(y)
        for g in gradients:
            updates, state = method.update(jnp.array([g]), state, y)
            y = optax.apply_updates(y, updates)
        x = float(optax.contrib.schedule_free_eval_params(state, y)[0])
    weights = f.averaging(f.schedule_free(T, 0.3, warmup=5, sampling="right")).weights
    left = f.schedule_free(T, 0.3, warmup=5, sampling="left").eta
    rates = left * np.cumsum(weights[::-1])[::-1]
    assert x == pytest.approx(-rates @ gradients, rel=1e-6)


def test_optax_differences() -> None:
    optax = pytest.importorskip("optax")
    import jax

    assert f.one_cycle(T, 0.3, rise=0.29, sampling="left")(7) == 0.3  # 6.67 steps, rounded to 7
    with jax.enable_x64(True):
        cut = optax.cosine_onecycle_schedule(T, 0.3, pct_start=0.29)
        assert [float(cut(k)) == 0.3 for k in (6, 7)] == [True, False]
        last = optax.linear_onecycle_schedule(T, 0.3, div_factor=10.0, final_div_factor=100.0)
        assert float(last(T)) == pytest.approx(0.3 / 10 / 100)


# The page -------------------------------------------------------------------------------------

PAGE = (Path(__file__).parents[1] / "docs" / "families.md").read_text(encoding="utf-8")


def test_page_has_the_registry() -> None:
    for name, family in f.FAMILIES.items():
        cells = (
            f"`{p.name}` {p.low:g} to {p.high:g} ({p.default:g})" for p in family.parameters[1:]
        )
        assert f"| `{name}` | {', '.join(cells)} |" in PAGE
    peak = f.FAMILIES["linear"].parameters[0]
    assert (peak.low, peak.high, peak.log) == (1e-6, 10.0, True)


def test_page_names_every_function() -> None:
    listed = {name for name in dir(f) if name[0].islower()}
    assert all(f"`{name}" in PAGE or f".{name}(" in PAGE for name in listed), listed
    for name in [*TORCH, *OPTAX, *HF]:
        assert name.split(",")[0] in PAGE, name
