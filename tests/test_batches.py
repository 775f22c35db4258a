"""Batch sizes: the degenerate family keeps loss and samples; whole sizes follow a ramp."""

from __future__ import annotations

import math
import time
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import optsched
from optsched import Problem
from optsched.errors import InvalidProblem
from optsched.model.spectrum import Modes, PowerLawSpectrum
from optsched.schedules import Schedule, batches, clock
from optsched.schedules.batches import (
    batch_stages,
    degenerate_family,
    divisors,
    integer_batches,
)
from optsched.schedules.families import constant, cosine, linear

POWERS = [2**k for k in range(50)]
EASY = PowerLawSpectrum(2.5, 1.5, 200).full()


def excess(modes: Modes, schedule: Schedule, noise: float = 0.5) -> float:
    """Final excess loss by the textbook recursion, with a batch size that may change."""
    eta, batch = schedule.eta, schedule.batch_size
    assert batch is not None
    lam = modes.lam
    c, weight = modes.mu / lam, modes.nu / lam**2
    for rate, m in zip(eta, batch, strict=True):
        loss = noise**2 + lam @ c
        c = (1 - 2 * rate * lam + rate**2 * (1 + 1 / m) * lam**2) * c
        c += rate**2 / m * lam * loss * weight
    return float(lam @ c)


def power(horizon: int, peak: float, exponent: float) -> Schedule:
    """Decay (1 - t/T)^exponent, averaged over every step."""
    left = 1 - np.arange(horizon + 1) / horizon
    share = -np.diff(left ** (exponent + 1)) / (exponent + 1)
    return Schedule.from_array(peak * horizon * share)


def samples(schedule: Schedule) -> float:
    assert "batch_size" in schedule.controls
    return batches._samples(schedule)


@st.composite
def schedules(draw: st.DrawFn) -> Schedule:
    """Monotone and not, sparse and dense, with rates of 0 and jumps."""
    horizon = draw(st.integers(1, 12000))
    inner = draw(st.sets(st.integers(0, horizon - 1), max_size=6))
    jumps = {min(k + 1, horizon - 1) for k in inner} if draw(st.booleans()) else set()
    steps = sorted(inner | jumps | {0, horizon - 1})
    size = len(steps)
    decades = draw(st.lists(st.floats(-12, 0), min_size=size, max_size=size))
    eta = 10.0 ** np.array(decades)
    if draw(st.booleans()):
        eta = np.sort(eta)[::-1]
    if draw(st.booleans()) and size > 1:
        eta[draw(st.integers(0, size - 2))] = 0.0
        eta[-1] = 0.0 if eta[:-1].any() else 1.0
    batch = np.array(draw(st.lists(st.floats(1, 1000), min_size=size, max_size=size)))
    return Schedule(horizon, steps, {"eta": eta, "batch_size": batch})


# The degenerate family


@pytest.mark.parametrize("batch_size", [1, 8])
@pytest.mark.parametrize("peak", [0.02, 0.1, 0.3])
def test_members_of_the_analytic_decay_have_one_loss(batch_size, peak):
    schedule = power(3000, peak, 2.0)
    family = degenerate_family(schedule, batch_size)
    losses = [excess(EASY, member) for member in family]
    np.testing.assert_allclose(losses, losses[0], rtol=0.01)
    assert [len(member) for member in family] == sorted(map(len, family), reverse=True)
    # With delta = 2b - 1 = 2 the constant rate needs a third of the steps.
    assert len(family[-1]) in (1000, 1001)


def test_members_of_a_solved_schedule_have_one_loss_and_whole_sizes_keep_it():
    problem = Problem(2.5, 1.5, 20000, batch_size=8, features=200, eta_max=0.2)
    family = degenerate_family(optsched.solve(problem).schedule, 8)
    losses = [excess(EASY, member) for member in family]
    np.testing.assert_allclose(losses, losses[0], rtol=0.01)
    assert len(family[-1]) < 0.4 * len(family[0])
    whole = integer_batches(family[-1], POWERS)
    assert excess(EASY, whole) == pytest.approx(losses[-1], rel=0.01)
    assert excess(EASY, whole) == pytest.approx(losses[0], rel=0.01)


def test_agreement_degrades_with_the_rate():
    def spread(peak: float) -> float:
        family = degenerate_family(power(3000, peak, 2.0), 64, members=2)
        return abs(excess(EASY, family[1]) / excess(EASY, family[0]) - 1)

    assert spread(0.1) < spread(0.5) < spread(1.2)


def test_ends_of_the_family():
    schedule = power(1000, 0.1, 2.0).replace(metadata={"name": "x"})
    family = degenerate_family(schedule, 4, members=3)
    assert np.array_equal(family[0].eta, schedule.eta)
    assert family[0].controls["batch_size"].tolist() == [4.0] * 1000
    assert np.ptp(family[2].eta) == 0.0
    assert family[2].peak <= 0.1
    batch = family[2].batch_size
    assert batch is not None
    assert (np.diff(batch) > 0).all()
    for member, theta in zip(family, (0.0, 0.5, 1.0), strict=True):
        note = member.metadata["degenerate_family"]
        assert note["theta"] == theta
        assert note["samples"] == pytest.approx(4000, rel=1e-12)
        assert note["of"] == family[0].digest
        assert member.metadata["name"] == "x"


def test_ratio_is_kept_in_intrinsic_time():
    schedule = power(5000, 0.1, 2.0)
    first, *others = degenerate_family(schedule, 2)
    tau, used = np.cumsum(first.eta), 2.0 * np.arange(1, 5001)
    for member in others:
        assert member.batch_size is not None
        at = np.interp(np.cumsum(member.eta), tau, used)
        np.testing.assert_allclose(np.cumsum(member.batch_size), at, rtol=1e-3, atol=2.0)


def test_member_is_the_formula_away_from_the_end():
    schedule = linear(100_000, 0.1)
    member = degenerate_family(schedule, 2, members=3)[1]
    assert member.batch_size is not None
    # eta = (c eta_0)^(1/2), n(t) = (2/3) T (1 - (1 - t/T)^(3/2)), so 1 - t/T = (1 - n/N)^(2/3)
    n = (np.arange(len(member)) + 0.5) / len(member)
    left = (1 - n) ** (2 / 3)
    keep = slice(0, -20)
    np.testing.assert_allclose(member.eta[keep], 0.1 * left[keep] ** 0.5, rtol=1e-3)
    np.testing.assert_allclose(member.batch_size[keep], 2 * left[keep] ** -0.5, rtol=1e-3)


def test_constant_schedule_is_its_own_family():
    for horizon in (1, 7, 1000, 10**9):
        for member in degenerate_family(constant(horizon, 0.1), 1):
            assert len(member) == horizon
            np.testing.assert_allclose(member.controls["batch_size"], 1.0, rtol=1e-9)
            np.testing.assert_allclose(member.controls["eta"], 0.1, rtol=1e-9)


def test_smaller_and_larger_rates():
    schedule = constant(1000, 0.1)
    slow = degenerate_family(schedule, 8, members=2, rate=0.05)[1]
    assert len(slow) == 2000
    np.testing.assert_allclose(slow.controls["batch_size"], 4.0)
    fast = degenerate_family(schedule, 8, members=2, rate=0.4)[1]
    assert len(fast) == 250
    np.testing.assert_allclose(fast.controls["batch_size"], 32.0)
    with pytest.raises(InvalidProblem, match=r"rate: got 0.001, allowed: at least 0.0125"):
        degenerate_family(schedule, 8, rate=0.001)
    just = degenerate_family(schedule, 8, members=2, rate=0.0125)[1]
    np.testing.assert_allclose(just.controls["batch_size"], 1.0)


@given(schedules(), st.floats(1.0, 10.0))
def test_sums_are_kept_and_batches_are_possible(schedule, faster):
    rate = schedule.peak * faster
    for member in degenerate_family(schedule, members=4, rate=rate):
        assert member.total == pytest.approx(schedule.total, rel=1e-12)
        assert samples(member) == pytest.approx(samples(schedule), rel=1e-9)
        assert member.controls["batch_size"].min() >= 1.0
        assert len(member) <= len(schedule)


@given(schedules())
def test_graded_cells_agree_with_single_steps(schedule):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(clock, "DENSE", 10**6)
        dense = degenerate_family(schedule, members=3)
        patch.setattr(clock, "DENSE", 0)
        graded = degenerate_family(schedule, members=3)
    for one, two in zip(dense, graded, strict=True):
        assert abs(len(one) - len(two)) <= 1 + 1e-4 * len(one)
        share = np.linspace(0, 1, 50)
        curves = []
        for member in (one, two):
            assert member.batch_size is not None
            tau = np.append(0.0, np.cumsum(member.eta)) / member.total
            curves.append(np.interp(share * len(member), np.arange(len(member) + 1), tau))
        np.testing.assert_allclose(*curves, atol=2 / len(one) + 1e-3)


@pytest.mark.parametrize("horizon", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 5])
def test_tiny_horizons(horizon, batch_size):
    schedule = Schedule.from_array(np.array([1.0, 0.5, 1e-9])[:horizon])
    for member in degenerate_family(schedule, batch_size):
        assert 1 <= len(member) <= horizon
        assert member.total == pytest.approx(schedule.total)
        assert samples(member) == pytest.approx(batch_size * horizon)
        assert member.controls["batch_size"].min() >= 1.0


def test_decay_to_zero_ends_in_a_finite_batch():
    eta = np.array([1.0, 0.5, 1e-200, 0.0, 0.0])
    for member in degenerate_family(Schedule.from_array(eta), 3)[1:]:
        assert np.isfinite(member.controls["batch_size"]).all()
        assert samples(member) == pytest.approx(15)
    # Warm-up from 0, down to 0: the idle samples go to the neighbours.
    last = degenerate_family(Schedule.from_array([0.0, 1.0, 1.0, 0.0]), 2, members=2)[1]
    assert last.batch_size is not None
    assert last.batch_size.tolist() == [4.0, 4.0]


def test_tail_of_a_steep_decay_keeps_its_digits():
    horizon = 10**7
    togo = np.unique(np.geomspace(1, horizon, 4000).round())[::-1]
    knots = (horizon - togo).astype(np.int64)
    schedule = Schedule.from_knots(knots, eta=0.1 * ((togo - 0.5) / horizon) ** 9)
    member = degenerate_family(schedule, 2)[1]
    # eta_theta = c^(1/4) eta^(3/4), and the steps to go are as those of schedule to the 9/4 + 1.
    steps = len(member) - np.arange(50, 10**6, 997)
    formula = 0.1 * ((len(member) - steps - 0.5) / len(member)) ** (6.75 / 3.25)
    np.testing.assert_allclose(member(steps), formula, rtol=0.01)


@pytest.mark.parametrize("horizon", [10**7, 10**9, 10**12])
def test_long_horizons_are_cheap(horizon):
    begin = time.perf_counter()
    for schedule in (linear(horizon, 0.1), cosine(horizon, 0.1)):
        for member in degenerate_family(schedule, 4):
            assert len(member.steps) < 40_000
            assert member.total == pytest.approx(schedule.total, rel=1e-12)
            whole = integer_batches(member, POWERS)
            assert len(whole.steps) < 60_000
            assert samples(whole) == pytest.approx(4 * horizon, rel=1e-9)
            assert whole.total == pytest.approx(schedule.total, rel=1e-12)
    assert time.perf_counter() - begin < 20


def test_family_of_a_long_run_has_one_loss():
    schedule = power(30_000, 0.2, 2.0)
    knots = np.unique(np.concatenate([np.arange(0, 29_000, 50), np.arange(29_000, 30_000)]))
    thin = Schedule.from_knots(knots, eta=schedule(knots))
    losses = [excess(EASY, member) for member in degenerate_family(thin, 4, members=3)]
    np.testing.assert_allclose(losses, losses[0], rtol=0.01)


@pytest.mark.parametrize(
    ("change", "arguments", "field", "words"),
    [
        ({}, {}, "batch_size", "no batch size of its own"),
        ({}, {"batch_size": 0.5}, "batch_size", "a finite number >= 1"),
        ({}, {"batch_size": math.nan}, "batch_size", "a finite number >= 1"),
        ({"batch_size": 3.0}, {"batch_size": 3.0}, "batch_size", "of its own"),
        ({"beta": 0.9}, {"batch_size": 3.0}, "schedule", "momentum"),
        ({"unit": "tokens"}, {"batch_size": 3.0}, "schedule", "steps"),
        ({"eta": 0.0}, {"batch_size": 3.0}, "schedule", "positive rate"),
        ({}, {"batch_size": 3.0, "members": 1}, "members", "from 2"),
        ({}, {"batch_size": 3.0, "rate": 0.0}, "rate", "> 0"),
        ({}, {"batch_size": 3.0, "rate": math.inf}, "rate", "finite"),
    ],
)
def test_family_names_what_is_wrong(change, arguments, field, words):
    schedule = linear(100, 0.1).replace(**change)
    with pytest.raises(InvalidProblem, match=words) as error:
        degenerate_family(schedule, **arguments)
    assert error.value.field == field


# Whole batch sizes


@pytest.mark.parametrize("batch_size", [1, 6])
@pytest.mark.parametrize("horizon", [2000, 10_000])
def test_powers_of_two_keep_the_loss_of_the_ramp(batch_size, horizon):
    ramp = degenerate_family(power(horizon, 0.1, 2.0), batch_size, members=2)[1]
    whole = integer_batches(ramp, POWERS)
    assert excess(EASY, whole) == pytest.approx(excess(EASY, ramp), rel=0.01)
    note = whole.metadata["integer_batches"]
    assert note["samples"] == samples(whole)
    assert note["samples_before"] == pytest.approx(batch_size * horizon)
    assert abs(note["samples"] - note["samples_before"]) <= min(note["sizes"])
    assert set(note["sizes"]) <= set(POWERS)
    assert note["stages"] == len(batch_stages(whole))
    assert note["of"] == ramp.digest
    assert note["horizon_before"] == len(ramp)
    assert whole.metadata["degenerate_family"]["theta"] == 1.0


def test_one_size_matches_the_rate():
    schedule = constant(1000, 0.1).replace(batch_size=5.0)
    whole = integer_batches(schedule, [4])
    assert len(whole) == 1250
    np.testing.assert_allclose(whole.eta, 0.08, rtol=1e-12)
    assert batch_stages(whole) == [(0, 1250, 4)]
    note = whole.metadata["integer_batches"]
    assert note["rate_factor_min"] == note["rate_factor_max"] == pytest.approx(0.8)


def test_nearest_is_meant_in_ratio():
    sizes = {5.6: 4, 5.7: 8}
    for m, size in sizes.items():
        whole = integer_batches(constant(1000, 0.1).replace(batch_size=m), [4, 8])
        assert batch_stages(whole)[0].batch_size == size


def test_far_outside_the_sizes_the_factor_is_said():
    schedule = constant(1000, 0.001).replace(batch_size=2.0)
    whole = integer_batches(schedule, [512, 256])
    note = whole.metadata["integer_batches"]
    assert note["rate_factor_max"] == 128.0
    assert abs(samples(whole) - 2000) <= 128
    np.testing.assert_allclose(whole.eta, 2.0 * 0.5 / len(whole), rtol=1e-12)


def test_nothing_to_round_is_left_alone():
    eta = np.linspace(1.0, 0.1, 60)
    batch = np.repeat([2.0, 8.0, 4.0], 20)
    schedule = Schedule.from_array(eta, batch_size=batch)
    whole = integer_batches(schedule, [8, 4, 2, 2])
    np.testing.assert_allclose(whole.eta, eta, rtol=1e-12)
    assert np.array_equal(whole.controls["batch_size"], batch)
    assert batch_stages(whole) == [(0, 20, 2), (20, 40, 8), (40, 60, 4)]


@given(schedules(), st.sets(st.integers(1, 2000), min_size=1, max_size=12))
def test_whole_sizes_on_any_schedule(schedule, sizes):
    whole = integer_batches(schedule, sizes)
    stages = batch_stages(whole)
    assert {stage.batch_size for stage in stages} <= sizes
    assert [stage.start for stage in stages] == [0, *(stage.stop for stage in stages[:-1])]
    assert stages[-1].stop == len(whole)
    assert all(one.batch_size != two.batch_size for one, two in pairwise(stages))
    assert whole.total == pytest.approx(schedule.total, rel=1e-12)
    used = max(stage.batch_size for stage in stages)
    assert abs(samples(whole) - samples(schedule)) <= used / 2 + 1e-6 or len(whole) == 1
    note = whole.metadata["integer_batches"]
    assert 0 < note["rate_factor_min"] <= note["rate_factor_max"]
    dense = whole.batch_size
    assert dense is not None
    for start, stop, size in stages[:100]:
        assert (dense[start:stop] == size).all()


@given(schedules())
def test_whole_sizes_keep_the_samples_at_every_intrinsic_time(schedule):
    assert schedule.batch_size is not None
    whole = integer_batches(schedule, range(1, 1200))
    assert whole.batch_size is not None
    tau = np.append(0.0, np.cumsum(schedule.eta)) / schedule.total
    used = np.append(0.0, np.cumsum(schedule.batch_size))
    # Intrinsic time as a function of samples has no jumps where the rate is 0.
    at = np.append(0.0, np.cumsum(whole.batch_size))
    got = np.append(0.0, np.cumsum(whole.eta)) / whole.total
    step = schedule.peak / schedule.total
    slack = 3 * step * np.ptp(np.append(0, schedule.batch_size)) / schedule.batch_size.min()
    np.testing.assert_allclose(got, np.interp(at, used, tau), atol=1e-3 + slack)


@pytest.mark.parametrize("sizes", [[64], POWERS, [3, 1000]])
def test_whole_sizes_of_tiny_horizons(sizes):
    for horizon in (1, 2, 3):
        schedule = Schedule.from_array(np.array([1.0, 0.5, 1e-9])[:horizon], batch_size=7.5)
        whole = integer_batches(schedule, sizes)
        assert len(whole) >= 1
        assert whole.total == pytest.approx(schedule.total)


@given(schedules(), st.sets(st.integers(1, 2000), min_size=1, max_size=12), st.floats(0.1, 3.0))
def test_matched_rates_keep_to_a_bound(schedule, sizes, share):
    bound = share * schedule.peak
    whole = integer_batches(schedule, sizes, eta_max=bound)
    assert whole.peak <= bound
    stages = batch_stages(whole)
    assert {stage.batch_size for stage in stages} <= sizes
    used = max(stage.batch_size for stage in stages)
    assert abs(samples(whole) - samples(schedule)) <= used / 2 + 1e-6 or len(whole) == 1
    cut = whole.metadata["integer_batches"]["cut"]
    assert whole.total == pytest.approx((1.0 - cut) * schedule.total, rel=1e-9, abs=1e-300)


def test_where_no_size_is_small_enough_others_give_samples():
    """64 samples a step at the bound is more than most steps have: the last ones have it."""
    eta = np.full(1000, 1.0)
    batch = np.r_[np.full(900, 20.0), np.geomspace(20.0, 2000.0, 100)]
    whole = integer_batches(Schedule.from_array(eta, batch_size=batch), [64, 128, 256], eta_max=1.0)
    note = whole.metadata["integer_batches"]
    assert samples(whole) == pytest.approx(float(batch.sum()), rel=1e-3)
    assert note["cut"] == pytest.approx(1.0 - batch.sum() / 64000.0, abs=0.01)
    plenty = integer_batches(
        Schedule.from_array(eta, batch_size=2.0 * batch), [64, 128, 256], eta_max=1.0
    )
    assert plenty.metadata["integer_batches"]["cut"] < 2e-3
    assert plenty.total == pytest.approx(1000.0, rel=2e-3)
    assert plenty.batch_size is not None and plenty.batch_size[0] == 64 < plenty.batch_size[-1]


@pytest.mark.parametrize("bound", [0.0, -1.0, math.nan, math.inf, True, "1"])
def test_a_bound_of_the_matched_rates_is_checked(bound):
    schedule = constant(10, 0.1).replace(batch_size=5.0)
    with pytest.raises(InvalidProblem, match="a finite number > 0") as error:
        integer_batches(schedule, [4], eta_max=bound)
    assert error.value.field == "eta_max"


def test_sizes_far_apart_do_not_fill_up_with_small_steps():
    batch = np.r_[np.ones(50), np.full(50, 1000.0)]
    whole = integer_batches(Schedule.from_array(np.ones(100), batch_size=batch), [1, 1021])
    assert [size for _, _, size in batch_stages(whole)] == [1, 1021]
    assert len(whole) < 130


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ([], "at least one size"),
        ([2.5], "whole number"),
        ([0, 2], "from 1"),
        ([-4], "from 1"),
        ([True], "whole number"),
        (["8"], "whole number"),
        (8, "a collection"),
    ],
)
def test_sizes_are_checked(sizes, words):
    schedule = constant(10, 0.1).replace(batch_size=5.0)
    with pytest.raises(InvalidProblem, match=words) as error:
        integer_batches(schedule, sizes)
    assert error.value.field == "sizes"


def test_whole_sizes_need_batch_sizes_and_no_momentum():
    with pytest.raises(InvalidProblem, match="degenerate_family"):
        integer_batches(constant(10, 0.1), [2])
    with pytest.raises(InvalidProblem, match="momentum"):
        integer_batches(constant(10, 0.1).replace(batch_size=5.0, beta=0.5), [2])


# Divisors and stages


def test_divisors():
    assert divisors(1) == [1]
    assert divisors(36) == [1, 2, 3, 4, 6, 9, 12, 18, 36]
    assert len(divisors(963761198400)) == 6720
    for bad in (0, -3, 2.5, True, 10**13):
        with pytest.raises(InvalidProblem, match=r"^n: "):
            divisors(bad)  # type: ignore[arg-type]


def test_stages_cover_the_steps():
    schedule = Schedule.from_knots([0, 9, 10, 99], eta=0.1, batch_size=[4, 4, 32, 32])
    stages = batch_stages(schedule)
    assert stages == [(0, 10, 4), (10, 100, 32)]
    assert stages[1].batch_size == 32
    assert batch_stages(Schedule.from_array([0.1], batch_size=8)) == [(0, 1, 8)]


def test_stages_refuse_what_is_no_stage():
    with pytest.raises(InvalidProblem, match="with batch_size"):
        batch_stages(constant(10, 0.1))
    with pytest.raises(InvalidProblem, match=r"got 2\.5, allowed: whole: use integer_batches"):
        batch_stages(constant(10, 0.1).replace(batch_size=2.5))
    ramp = Schedule.from_knots([0, 10], eta=0.1, batch_size=[1, 11])
    with pytest.raises(InvalidProblem, match="steps 0 to 10"):
        batch_stages(ramp)
    assert [size for _, _, size in batch_stages(integer_batches(ramp, POWERS))] == [1, 2, 4, 8]
