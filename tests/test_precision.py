"""Rounding of the weights against arithmetic in the formats themselves, and its command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched import InvalidProblem, Schedule
from optsched.cli import main
from optsched.rules.precision import (
    FORMATS,
    Update,
    last_steps,
    least_rate,
    loss_scale,
    rounding,
    skipped_share,
)

TYPES = {"bf16": ml_dtypes.bfloat16, "fp16": np.float16, "fp32": np.float32}
COUNT = 100_000


def updates(rate: float, kind: Update, rng: np.random.Generator) -> np.ndarray:
    if kind == "sign":
        return rate * rng.choice([-1.0, 1.0], COUNT)
    return rate * rng.standard_normal(COUNT)


@pytest.mark.parametrize("kind", ["sign", "normal"])
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("rms", [0.02, 1.3])
def test_rounding_is_that_of_the_format(dtype: str, kind: Update, rms: float) -> None:
    rng, form = np.random.default_rng(3), TYPES[dtype]
    for factor in (0.05, 0.4, 0.97, 1.1, 3.3, 40.0):  # none a tie of many
        rate = factor * least_rate(dtype, weight_rms=rms)
        before = (rms * rng.standard_normal(COUNT)).astype(form).astype(float)
        change = updates(rate, kind, rng)
        after = (before + change).astype(form).astype(float)
        told = rounding(rate, dtype, weight_rms=rms, update=kind)
        assert told.lost == pytest.approx(np.mean(after == before), abs=0.006)
        moved = np.mean((after - before) * np.sign(change)) / np.mean(np.abs(change))
        assert told.moved == pytest.approx(moved, abs=0.015)


@pytest.mark.parametrize("kind", ["sign", "normal"])
def test_stochastic_rounding_adds_its_noise(kind: Update) -> None:
    rng, form = np.random.default_rng(4), TYPES["bf16"]
    for rate in (3e-6, 1e-4, 1e-3):
        before = (0.02 * rng.standard_normal(COUNT)).astype(form).astype(float)
        change = updates(rate, kind, rng)
        h = np.array([FORMATS["bf16"].spacing(w) for w in before])
        steps = np.floor(change / h + rng.random(COUNT))  # up with probability of the fraction
        assert np.mean((steps * h) * np.sign(change)) == pytest.approx(
            np.mean(np.abs(change)), rel=0.1
        )
        noise = np.std(steps * h - change) / np.sqrt(np.mean(change**2))
        assert rounding(rate, update=kind).noise == pytest.approx(noise, rel=0.03)


def test_spacing_is_the_distance_to_the_next_number() -> None:
    for dtype, form in TYPES.items():
        for value in (0.0, 1.0, 1.5, 0.02, 3.7e-5, 6e-8, 1e-30):
            held = form(value)
            if dtype != "bf16":  # NumPy knows no spacing of bf16
                assert FORMATS[dtype].spacing(float(held)) == float(np.spacing(held))
        assert FORMATS[dtype].largest == float(ml_dtypes.finfo(form).max)


@given(
    st.sampled_from(list(TYPES)), st.floats(1e-3, 1e2), st.floats(1e-3, 10.0), st.floats(0.05, 0.95)
)
def test_less_is_lost_above_the_least_rate(
    dtype: str, rms: float, update_rms: float, lost: float
) -> None:
    how: dict[str, Any] = {"weight_rms": rms, "update_rms": update_rms}
    least = least_rate(dtype, lost=lost, **how)
    assert rounding(1.001 * least, dtype, **how).lost <= lost
    assert rounding(0.999 * least, dtype, **how).lost >= lost
    doubled = least_rate(dtype, lost=lost, weight_rms=2 * rms, update_rms=update_rms)
    if dtype != "fp16":  # whose small weights are evenly spaced
        assert doubled == pytest.approx(2 * least, rel=1e-6)


@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30), st.floats(0.01, 1.0))
def test_last_steps_are_those_below(rates: list[float], least: float) -> None:
    schedule = Schedule.from_array(np.array(rates))
    found = last_steps(schedule, least)
    below = 0
    while below < len(rates) and rates[-1 - below] < least:
        below += 1
    assert found.share == below / len(rates)
    assert found.step == (len(rates) - below if below else None)


def test_last_steps_between_knots() -> None:
    schedule = Schedule.from_knots([0, 500, 999], eta=[1.0, 1.0, 0.0])
    found = last_steps(schedule, 0.3)
    assert found.step is not None
    assert schedule(found.step) < 0.3 <= schedule(found.step - 1)
    assert last_steps(Schedule.from_knots([0, 10, 99], eta=[0.1, 0.5, 0.5]), 0.3).step is None


def test_loss_scale_is_the_last_that_fits() -> None:
    for g in (1e-7, 0.3, 1.0, 3.0, 70_000.0):
        scale = loss_scale(g)
        assert np.isfinite(np.float16(scale * g)) and 2 * scale * g > FORMATS["fp16"].largest


def test_a_dynamic_scale_skips_its_share() -> None:
    """A scaler played against gradients that overflow above a fixed scale."""
    for interval, growth, backoff in ((50, 2.0, 0.5), (20, 2.0, 0.25), (10, 4.0, 0.5)):
        scale, clean, skipped, steps = 1.0, 0, 0, 20_000
        for _ in range(steps):
            if scale > 1000.0:
                scale, clean, skipped = scale * backoff, 0, skipped + 1
            else:
                clean += 1
                if clean == interval:
                    scale, clean = scale * growth, 0
        assert skipped_share(interval, growth, backoff) == pytest.approx(skipped / steps, rel=0.05)


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "linear.csv"
    Schedule.from_array(np.linspace(1e-3, 0.0, 1000)).save(file)
    assert main(["rules", "precision", str(file), "--gradient-max", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["below_from_step"] == 969 and told["below_share"] == pytest.approx(0.031)
    assert told["least_rate"] == least_rate() and told["loss_scale"] == 2.0**126
    assert main(["rules", "precision", "--rate", "0"]) == 2
    assert capsys.readouterr().err == "optsched: --rate: got 0.0, allowed: a finite number > 0\n"
    assert main(["rules", "precision", "--lost", "1"]) == 2
    assert "--lost: got 1.0" in capsys.readouterr().err


def test_export_warns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "linear.csv"
    Schedule.from_array(np.linspace(1e-3, 0.0, 1000)).save(file)
    export = ["export", str(file), "--format", "torch-snippet", "--output"]
    assert main([*export, str(tmp_path / "a.py"), "--dtype", "bf16"]) == 0
    told = capsys.readouterr()
    assert "warning: from step 969 on, 3.1 % of the steps, the rate is below 3.1e-05" in told.err
    assert main([*export, str(tmp_path / "b.py"), "--dtype", "fp32"]) == 0
    assert not capsys.readouterr().err.count("step 969")
    assert main([*export, str(tmp_path / "c.py"), "--weight-rms", "1"]) == 2
    assert "--weight-rms: got 1.0, allowed: nothing without --dtype" in capsys.readouterr().err
    assert not (tmp_path / "c.py").exists()


def test_bad_input() -> None:
    with pytest.raises(InvalidProblem, match="dtype: got 'int8', allowed: one of bf16, fp16, fp32"):
        least_rate("int8")
    with pytest.raises(InvalidProblem, match="update: got 'big'"):
        rounding(1e-3, update="big")  # type: ignore[arg-type]
    with pytest.raises(InvalidProblem, match="backoff: got 1"):
        skipped_share(backoff=1.0)
