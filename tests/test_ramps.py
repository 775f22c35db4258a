"""A growing batch in place of a falling rate: equivalent where it says so, and nowhere else."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched import Schedule
from optsched.errors import InvalidProblem
from optsched.model.spectrum import Modes, PowerLawSpectrum
from optsched.schedules.families import cosine, linear, wsd
from optsched.schedules.ramps import BatchRamp, batch_ramp

SPECTRUM = PowerLawSpectrum(2.5, 1.5, 60).full()
POWERS = [8 * 2**k for k in range(7)]


def excess(modes: Modes, schedule: Schedule, noise: float = 0.5) -> float:
    """Final excess loss of plain SGD, by the recursion of its moments."""
    lam = modes.lam
    c, weight = modes.mu / lam, modes.nu / lam**2
    for rate, m in zip(schedule.eta, schedule.array("batch_size"), strict=True):
        loss = noise**2 + lam @ c
        c = (1 - 2 * rate * lam + rate**2 * (1 + 1 / m) * lam**2) * c
        c += rate**2 / m * lam * loss * weight
    return float(lam @ c)


def normalised(modes: Modes, schedule: Schedule, noise: float) -> float:
    """Final excess loss of SGD over the expected norm of its gradient."""
    lam = modes.lam
    c, weight = modes.mu / lam, modes.nu / lam**2
    for rate, m in zip(schedule.eta, schedule.array("batch_size"), strict=True):
        # In units of the noise: |g|^2 = sum lam^2 c + sum lam (loss) / m.
        loss = noise**2 + lam @ c
        norm = math.sqrt(lam**2 @ c + lam @ weight * loss / m)
        step = rate / norm
        c = (1 - 2 * step * lam + step**2 * (1 + 1 / m) * lam**2) * c
        c += step**2 / m * lam * loss * weight
    return float(lam @ c)


def constant_batch(schedule: Schedule, size: int) -> Schedule:
    return schedule.replace(batch_size=float(size))


@pytest.mark.parametrize("shape", [cosine, linear])
def test_sgd_ramp_is_the_decay_in_the_limit_of_small_rates(shape):
    """Twice the steps at half the rate: the same intrinsic time, half the difference or less."""
    gaps = []
    for finer in (1, 2, 4):
        decay = shape(3000 * finer, 0.2 / finer)
        ramp = batch_ramp(decay, 8, POWERS, rule="sgd").schedule
        before = excess(SPECTRUM, constant_batch(decay, 8))
        gaps.append(excess(SPECTRUM, ramp) / before - 1.0)
    assert abs(gaps[0]) < 0.005
    assert abs(gaps[1] / gaps[0]) < 0.5
    assert abs(gaps[2] / gaps[1]) < 0.5


def test_adaptive_ramp_is_the_decay_where_gradients_are_noise():
    decay = cosine(3000, 2e-3)
    before = normalised(SPECTRUM, constant_batch(decay, 8), 20.0)
    ramp = batch_ramp(decay, 8, POWERS, rule="adaptive")
    held = batch_ramp(decay, 8, POWERS, rule="sgd")
    naive = ramp.schedule.replace(eta=ramp.schedule.eta * 0 + decay.peak)
    assert normalised(SPECTRUM, ramp.schedule, 20.0) == pytest.approx(before, rel=2e-3)
    # Neither the rule of another optimiser nor a held rate is.
    assert abs(normalised(SPECTRUM, held.schedule, 20.0) / before - 1) > 0.02
    assert abs(normalised(SPECTRUM, naive, 20.0) / before - 1) > 0.02


def test_adaptive_ramp_is_not_the_decay_above_the_critical_batch():
    decay = cosine(3000, 2e-3)
    before = normalised(SPECTRUM, constant_batch(decay, 8), 0.05)
    ramp = batch_ramp(decay, 8, POWERS, rule="adaptive").schedule
    assert abs(normalised(SPECTRUM, ramp, 0.05) / before - 1) > 0.04


@pytest.mark.parametrize("rule", ["adaptive", "sgd"])
def test_whole_sizes_of_any_list_are_as_good(rule):
    decay = linear(4000, 0.02)
    loss = normalised if rule == "adaptive" else excess
    noise, scale = (20.0, 0.1) if rule == "adaptive" else (0.5, 10.0)
    decay = decay.scaled(scale)
    found = [
        loss(SPECTRUM, batch_ramp(decay, 8, sizes, rule=rule).schedule, noise)
        for sizes in ([8], [8, 11, 13, 40], POWERS, [100])
    ]
    np.testing.assert_allclose(found, found[0], rtol=0.01)


def test_a_halved_rate_becomes_sqrt_of_that_at_twice_the_batch():
    steps = Schedule.from_knots([0, 599, 600, 999], eta=[1e-3, 1e-3, 5e-4, 5e-4])
    ramp = batch_ramp(steps, 64)
    assert [(s.stop - s.start, s.batch_size) for s in ramp.stages] == [(600, 64), (200, 128)]
    assert ramp.saved == pytest.approx(0.2)
    np.testing.assert_allclose(ramp.schedule.eta[600:], 1e-3 / math.sqrt(2), rtol=1e-12)
    same = batch_ramp(steps, 64, rule="sgd").schedule
    np.testing.assert_allclose(same.eta, 1e-3, rtol=1e-12)


def test_cosine_with_fine_sizes_takes_half_the_steps():
    """With every size at hand the steps are the sum of r: one half of a cosine's."""
    ramp = batch_ramp(cosine(10**6, 1.0), 1000, range(1000, 200_000, 10))
    assert ramp.saved == pytest.approx(0.5, abs=0.02)
    assert batch_ramp(cosine(10**6, 1.0), 1000).saved == pytest.approx(0.377, abs=1e-3)


def test_warmup_and_history_are_left_alone():
    decay = wsd(2000, 1e-3, warmup=100, cooldown=0.3)
    ramp = batch_ramp(decay, 32, start=1000)
    first = ramp.stages[0]
    assert first.batch_size == 32
    assert first.stop >= 1400
    np.testing.assert_allclose(ramp.schedule.eta[:1400], decay.eta[:1400], rtol=1e-9)


def test_restarts_are_no_decay():
    saw = Schedule.from_knots([0, 499, 500, 999], eta=[1.0, 0.0, 1.0, 0.0])
    ramp = batch_ramp(saw, 16)
    assert ramp.stages[0].stop > 700


@st.composite
def _any(draw: st.DrawFn) -> tuple[Schedule, int, list[int], str, int]:
    horizon = draw(st.integers(1, 9000))
    inner = sorted(draw(st.sets(st.integers(0, horizon - 1), max_size=6)) | {0, horizon - 1})
    eta = draw(
        st.lists(st.floats(1e-9, 1.0), min_size=len(inner), max_size=len(inner)).map(np.array)
    )
    if draw(st.booleans()):
        eta = np.sort(eta)[::-1]
    first = draw(st.integers(1, 600))
    sizes = draw(st.lists(st.integers(1, 10**7), min_size=1, max_size=6))
    rule = draw(st.sampled_from(["adaptive", "sgd"]))
    return (
        Schedule(horizon, inner, {"eta": eta}),
        first,
        sizes,
        rule,
        draw(st.integers(0, horizon - 1)),
    )


@given(_any())
def test_what_every_ramp_keeps(case):
    schedule, first, sizes, rule, start = case
    ramp = batch_ramp(schedule, first, sizes, rule=rule, start=start)
    batch, eta = ramp.schedule.array("batch_size"), ramp.schedule.eta
    kappa = {"adaptive": 0.5, "sgd": 0.0}[rule]
    assert {*batch} <= {first, *sizes}
    assert np.all(np.diff(batch) >= 0)
    assert ramp.samples == batch.sum()
    assert 0 <= ramp.samples - ramp.samples_before < max(batch.max(), first)
    # Effective rates: never above the peak, the same sum, the same course along the samples.
    effective = eta * (batch / first) ** kappa
    peak = schedule.eta[start:].max()
    after = np.cumsum(batch) > (start + 1) * first
    if schedule.horizon <= 4096:
        assert effective[after].max(initial=0.0) <= peak * (1 + 1e-6)
    assert effective.sum() == pytest.approx(schedule.total, rel=1e-6)
    at = np.cumsum(batch) * (ramp.samples_before / ramp.samples)
    tau = np.interp(
        at, first * np.arange(schedule.horizon + 1), np.append(0, schedule.eta.cumsum())
    )
    np.testing.assert_allclose(effective.cumsum(), tau, atol=2e-3 * schedule.total + 1e-12)


def test_critical_batch_bounds_the_sizes():
    ramp = batch_ramp(linear(1000, 1.0), 100, critical=450)
    assert {s.batch_size for s in ramp.stages} == {100, 200, 400}
    with pytest.raises(InvalidProblem, match="critical batch"):
        batch_ramp(linear(1000, 1.0), 100, critical=99)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": 2.5}, "batch_size"),
        ({"sizes": []}, "sizes"),
        ({"sizes": [1.5]}, "sizes"),
        ({"sizes": 8}, "sizes"),
        ({"rule": "adam"}, "rule"),
        ({"start": 1000}, "start"),
        ({"critical": -1}, "critical"),
        ({"schedule": linear(1000, 1.0).replace(batch_size=4.0)}, "schedule"),
        ({"schedule": Schedule.from_knots([0, 9], eta=[1, 0], unit="tokens")}, "schedule"),
        ({"schedule": Schedule.from_knots([0, 9], eta=[0, 0])}, "schedule"),
    ],
)
def test_bad_input(change, field):
    given = {"schedule": linear(1000, 1.0), "batch_size": 8} | change
    with pytest.raises(InvalidProblem) as error:
        batch_ramp(**given)
    assert error.value.field == field


def test_a_held_rate_has_no_ramp():
    flat = Schedule.from_knots([0, 99], eta=[1.0, 1.0])
    ramp = batch_ramp(flat, 8)
    assert isinstance(ramp, BatchRamp)
    assert (ramp.steps, ramp.saved, ramp.words) == (100, 0.0, "batch 8 to the end")
