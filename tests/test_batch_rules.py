"""Rules for another batch size: rates, steps against samples, Adam, schedules in samples."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure

from optsched import InvalidProblem, Schedule, SolveFailed
from optsched.cli import main
from optsched.plots.batch_rules import plot_rate_rules, plot_tradeoff
from optsched.rules.batch.accumulation import Accumulation, at_batch, in_samples
from optsched.rules.batch.scaling import (
    RULES,
    fit_critical_batch,
    rate_factor,
    samples_at_steps,
    samples_factor,
    scale_adam,
    scale_rate,
    steps_factor,
)
from optsched.schedules.exports.common import per_update

SIZE = st.floats(1e-2, 1e6)


def quadratic() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hessian, gradient, root of the covariance of the noise of one example."""
    rng = np.random.default_rng(0)
    root = rng.normal(size=(6, 6))
    return root @ root.T / 6, rng.normal(size=6), np.diag(rng.uniform(1.0, 3.0, 6))


def test_best_step_of_sgd_on_a_quadratic() -> None:
    """Rates and gains of steps along drawn gradients, against 1 / (1 + B_n / B)."""
    hessian, gradient, root = quadratic()
    noise_scale = float(np.trace(hessian @ root @ root) / (gradient @ hessian @ gradient))
    rng, rates, gains = np.random.default_rng(1), [], []
    batches = (2.0, 8.0, 64.0, 1e9)
    for batch in batches:
        drawn = gradient + rng.normal(size=(100_000, 6)) @ root / math.sqrt(batch)
        slope = float((drawn @ gradient).mean())
        curvature = float(np.einsum("ni,ij,nj->n", drawn, hessian, drawn).mean())
        rates.append(slope / curvature)
        gains.append(slope**2 / (2.0 * curvature))
    expected = rate_factor(batches[:3], 1e9, "sgd", noise_scale)
    assert np.array(rates[:3]) / rates[3] == pytest.approx(expected, rel=0.02)
    assert gains[3] / np.array(gains[:3]) == pytest.approx(
        steps_factor(batches[:3], noise_scale), rel=0.02
    )


def test_best_step_of_sign_methods_on_a_quadratic() -> None:
    """Signs of drawn gradients, many weak coordinates that the Hessian couples."""
    size, weak = 400, 0.02
    signs = np.where(np.arange(size) % 2, 1.0, -1.0)
    gradient = weak * signs
    hessian = np.eye(size) + 0.1 * np.outer(signs, signs)
    coupled = gradient @ (hessian - np.diag(np.diag(hessian))) @ gradient
    noise_scale = 0.5 * math.pi * float(np.trace(hessian) / coupled)
    rng, rates = np.random.default_rng(2), []
    batches = noise_scale * np.array([0.05, 0.3, 1.0, 3.0, 8.0])
    for batch in batches:
        steps = np.sign(gradient + rng.normal(size=(4000, size)) / math.sqrt(batch))
        curvature = np.einsum("ni,ni->n", steps @ hessian, steps).mean()
        rates.append(float((steps @ gradient).mean() / curvature))
    expected = rate_factor(batches, float(batches[2]), "sign", noise_scale)
    assert np.array(rates) / rates[2] == pytest.approx(expected, rel=0.05)
    assert rates[2] == max(rates)


@given(SIZE, SIZE, SIZE)
def test_rules_agree_where_noise_dominates(batch: float, other: float, scale: float) -> None:
    for rule in RULES:
        back = rate_factor(other, batch, rule, scale) * rate_factor(batch, other, rule, scale)
        assert float(back) == pytest.approx(1.0)
    huge = 1e12 * max(batch, other)
    for simple, full in (("linear", "sgd"), ("sqrt", "sign")):
        simple_factor = float(rate_factor(other, batch, simple))
        assert float(rate_factor(other, batch, full, huge)) == pytest.approx(simple_factor)
    assert rate_factor(huge, batch, "sgd", scale) == pytest.approx(1.0 + scale / batch, rel=1e-3)


@given(SIZE, SIZE)
def test_steps_against_samples(batch: float, scale: float) -> None:
    steps, samples = float(steps_factor(batch, scale)), float(samples_factor(batch, scale))
    assert (steps - 1.0) * (samples - 1.0) == pytest.approx(1.0, rel=1e-4)
    # Samples are steps times batch, in units in which the two least numbers have the ratio B_n.
    assert steps * batch == pytest.approx(samples * scale)
    if steps > 1.0 + 1e-6:
        assert float(samples_at_steps(steps)) == pytest.approx(samples, rel=1e-4)


def test_critical_batch_of_exact_runs() -> None:
    batches = np.array([16.0, 64.0, 256.0, 1024.0, 65536.0])
    fit = fit_critical_batch(batches, 300.0 * (1.0 + 700.0 / batches))
    assert (fit.min_steps, fit.value) == pytest.approx((300.0, 700.0), rel=1e-9)
    assert max(fit.stderr / fit.value, fit.worst) < 1e-9
    two = fit_critical_batch(batches[:2], 300.0 * (1.0 + 700.0 / batches[:2]))
    assert two.value == pytest.approx(700.0) and math.isnan(two.stderr)


def test_error_of_the_critical_batch_is_its_spread() -> None:
    rng, batches = np.random.default_rng(3), np.geomspace(16.0, 65536.0, 9)
    steps = 300.0 * (1.0 + 700.0 / batches)
    fits = [
        fit_critical_batch(batches, steps * (1.0 + 0.03 * rng.normal(size=9))) for _ in range(500)
    ]
    for value, error in (
        ("value", "stderr"),
        ("min_steps", "min_steps_stderr"),
        ("min_samples", "min_samples_stderr"),
    ):
        found = np.array([getattr(fit, value) for fit in fits])
        told = math.sqrt(np.mean([getattr(fit, error) ** 2 for fit in fits]))
        assert told == pytest.approx(found.std(ddof=1), rel=0.15)
    assert np.mean([fit.value for fit in fits]) == pytest.approx(700.0, rel=0.02)


def test_runs_without_a_trade_off() -> None:
    with pytest.raises(SolveFailed, match="no trade-off"):
        fit_critical_batch([16, 64, 256], [10.0, 20.0, 30.0])
    with pytest.raises(SolveFailed, match="no trade-off"):
        fit_critical_batch([16, 64, 256], [1600.0, 200.0, 10.0])


def test_validity_of_simple_rules() -> None:
    assert scale_rate(1.0, 10, 20, "linear", noise_scale=1e4).valid is True
    assert scale_rate(1.0, 10, 20, "linear", noise_scale=50).valid is False
    assert scale_rate(1.0, 10, 20, "linear").valid is None
    up = scale_rate(0.5, 10, 40, "sqrt", noise_scale=1e5)
    assert (up.lr, up.factor, up.valid) == (1.0, 2.0, True)
    assert scale_rate(1.0, 100, 1e4, "sqrt", noise_scale=1000).saturating == pytest.approx(1.0)


def drift(lr: float, beta1: float, beta2: float, eps: float, batch: int, samples: int) -> float:
    """Mean square distance that Adam wanders on noise alone, over 20,000 coordinates."""
    rng = np.random.default_rng(batch)
    w, m, v = np.zeros(20_000), np.zeros(20_000), np.full(20_000, 1.0 / batch)
    for _ in range(samples // batch):
        g = rng.normal(size=w.shape) / math.sqrt(batch)
        m = beta1 * m + (1.0 - beta1) * g
        v = beta2 * v + (1.0 - beta2) * g**2
        w -= lr * m / (np.sqrt(v) + eps)
    return float((w**2).mean())


def test_scaled_adam_wanders_as_far_in_samples() -> None:
    before = drift(1e-3, 0.9, 0.99, 0.1, 1, 400)
    new = scale_adam(1e-3, 0.9, 0.99, 0.1, from_batch=1, batch=4)
    assert (new.beta1, new.beta2) == pytest.approx((0.6, 0.96))
    after = drift(new.lr, new.beta1, new.beta2, new.eps, 4, 400)
    assert after == pytest.approx(before, rel=0.06)
    # Another rate or another epsilon would be seen.
    assert drift(4e-3, 0.6, 0.96, 0.05, 4, 400) > 3.0 * before
    assert drift(2e-3, 0.6, 0.96, 0.1, 4, 400) < 0.94 * after


def brute(values: np.ndarray, batch: int, from_batch: int) -> np.ndarray:
    """Means of the updates to come over the samples of those before."""
    each = np.repeat(values, from_batch)
    return np.array([each[i : i + batch].mean() for i in range(0, len(each), batch)])


SHAPES = {
    "dense": Schedule.from_array(np.random.default_rng(0).uniform(0.1, 1.0, 24)),
    "jump": Schedule.from_array([1.0] * 8 + [0.25] * 16),
    "ramp": Schedule(24, [0, 5, 6, 23], {"eta": [0.0, 1.0, 1.0, 0.1]}),
    "one": Schedule.from_array([0.5]),
}


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize("batch", [1, 2, 3, 6])
def test_samples_and_back(name: str, batch: int) -> None:
    schedule = SHAPES[name]
    counted = in_samples(schedule, batch)
    assert (counted.unit, counted.horizon) == ("samples", batch * schedule.horizon)
    assert per_update(counted, batch).eta == pytest.approx(schedule.eta, rel=1e-12, abs=1e-14)


@pytest.mark.parametrize("name", list(SHAPES))
@pytest.mark.parametrize(("batch", "from_batch"), [(8, 4), (12, 4), (5, 5), (1000, 5)])
def test_larger_batches_have_the_mean_of_what_they_cover(
    name: str, batch: int, from_batch: int
) -> None:
    moved = at_batch(SHAPES[name], batch, from_batch)
    assert moved.eta == pytest.approx(brute(SHAPES[name].eta, batch, from_batch), rel=1e-12)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.floats(0.0, 10.0), min_size=1, max_size=30),
    st.integers(1, 12),
    st.integers(1, 12),
)
def test_batches_that_do_not_divide(values: list[float], batch: int, from_batch: int) -> None:
    """With a knot at every step each sample has the value of its update: exact for any sizes."""
    moved = at_batch(Schedule.from_array(values), batch, from_batch)
    expected = brute(np.array(values), batch, from_batch)
    assert moved.eta == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_long_schedules_cost_nothing() -> None:
    schedule = Schedule(10**9, [0, 10**6, 10**9 - 1], {"eta": [0.0, 1.0, 0.0]})
    moved = at_batch(schedule, 2048, 512, rule="linear")
    assert moved.horizon == 250_000_000 and len(moved.steps) < 100
    assert moved.total == pytest.approx(schedule.total, rel=1e-9)


def test_what_moves_with_the_rate() -> None:
    schedule = Schedule.from_array(np.linspace(1.0, 0.1, 16), beta=0.9, ema=0.99)
    moved = at_batch(schedule, 8, 2, rule="sqrt")
    assert moved.peak == pytest.approx(2.0 * schedule.eta[:4].mean())
    assert np.asarray(moved.ema) == pytest.approx(0.99**4)
    assert np.asarray(moved.beta) == pytest.approx(0.9)
    note = moved.metadata["at_batch"]
    assert (note["factor"], note["rule"], note["of"]) == (2.0, "sqrt", schedule.digest)


def test_accumulation() -> None:
    parts = Accumulation(8, 4, 2)
    assert parts.effective == 64
    assert Accumulation(4, devices=4).reaching(64).effective == 64
    # The update is the mean over all samples, however it is split.
    gradients = np.random.default_rng(0).normal(size=(2, 4, 8, 3))
    by_parts = gradients.mean(2).mean(1).mean(0)
    assert by_parts == pytest.approx(gradients.reshape(-1, 3).mean(0))


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: rate_factor(2, 1, "cube"), "rule"),
        (lambda: rate_factor(2, 1, "sgd"), "noise_scale"),
        (lambda: rate_factor(2, 1, "sign", -1.0), "noise_scale"),
        (lambda: rate_factor(-2, 1, "linear"), "batch"),
        (lambda: rate_factor(2, 0, "linear"), "from_batch"),
        (lambda: scale_rate(0.0, 1, 2, "linear"), "lr"),
        (lambda: samples_at_steps(1.0), "factor"),
        (lambda: steps_factor(1.0, math.inf), "noise_scale"),
        (lambda: fit_critical_batch([8, 8], [3.0, 4.0]), "batches"),
        (lambda: fit_critical_batch([8, 16], [3.0]), "batches"),
        (lambda: fit_critical_batch([8, 16], [3.0, -1.0]), "steps"),
        (lambda: scale_adam(1e-3, 0.9, 0.99, 1e-8, from_batch=1, batch=20), "batch"),
        (lambda: scale_adam(1e-3, 1.0, 0.99, 1e-8, from_batch=1, batch=2), "beta1"),
        (lambda: Accumulation(0), "micro_batch"),
        (lambda: Accumulation(8, devices=3).reaching(64), "batch"),
        (lambda: at_batch(SHAPES["ramp"], 2.5, 1), "units"),  # type: ignore[arg-type]
        (lambda: at_batch(SHAPES["ramp"], 2, -1), "batch"),
        (lambda: at_batch(SHAPES["ramp"].replace(unit="tokens"), 2, 1), "schedule"),
        (lambda: at_batch(SHAPES["ramp"].replace(batch_size=3.0), 2, 1), "schedule"),
        (lambda: at_batch(SHAPES["ramp"], 2, 10**15), "batch"),
    ],
)
def test_bad_input(call: Callable[[], Any], field: str) -> None:
    with pytest.raises(InvalidProblem) as caught:
        call()
    assert caught.value.field == field


def test_plots() -> None:
    left, right = Figure().subplots(1, 2)
    batches = np.array([16.0, 256.0, 4096.0])
    steps = 300.0 * (1.0 + 700.0 / batches)
    fit = fit_critical_batch(batches, steps)
    assert plot_tradeoff(left, fit, list(batches), list(steps)) is left
    x, y = (np.asarray(v, float) for v in left.lines[0].get_data())
    assert (x / fit.min_steps - 1.0) * (y / fit.min_samples - 1.0) == pytest.approx(1.0)
    assert plot_rate_rules(right, 1000.0, 64.0) is right
    assert [str(line.get_label()) for line in right.lines][:4] == ["linear", "sgd", "sqrt", "sign"]
    assert right.get_xscale() == "log" and "B" in right.get_xlabel()


def test_command(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["rules", "batch", "--from-batch", "256", "--batch", "4096", "--lr", "0.1"]
    assert main([*argv, "--noise-scale", "1000", "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers["lr"] == pytest.approx(1.6) and numbers["valid"] is False
    assert numbers["saturating"] == pytest.approx((1 + 1000 / 256) / (1 + 1000 / 4096))
    assert numbers["steps_ratio"] == pytest.approx((1 + 1000 / 4096) / (1 + 1000 / 256))
    assert numbers["samples_ratio"] == pytest.approx(numbers["steps_ratio"] * 16)
    assert main([*argv, "--rule", "sqrt"]) == 0
    assert "not known" in capsys.readouterr().out
    for bad, field in ((["--rule", "sgd"], "noise_scale"), (["--batch", "-1"], "batch")):
        assert main([*argv, *bad]) == 2
        assert capsys.readouterr().err.startswith(f"optsched: --{field.replace('_', '-')}: ")
    assert main(["rules", "batch", "--batch", "3"]) == 2
