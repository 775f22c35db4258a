"""Noise schedules against products in exact arithmetic, closed forms and published values."""

from __future__ import annotations

import csv
import json
import math
from decimal import Decimal, getcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from optsched import BadFile, InvalidProblem
from optsched.cli import main
from optsched.plots.diffusion import plot_capacity, plot_log_snr
from optsched.rules.diffusion.capacity import WEIGHTS, capacity, loss_weight
from optsched.rules.diffusion.files import COLUMNS, load, save
from optsched.rules.diffusion.schedules import (
    NoiseSchedule,
    cosine,
    edm,
    from_alpha_bar,
    from_sigmas,
    linear,
)

LEVELS = st.lists(st.floats(-300.0, 300.0), min_size=1, max_size=30, unique=True).map(
    lambda values: np.array(sorted(values, reverse=True))
)


@pytest.mark.parametrize("steps", [21, 50, 300, 1000])
def test_linear_is_the_product_of_its_variances(steps: int) -> None:
    """In rational numbers."""
    found, first, last = linear(steps), Fraction("0.0001"), Fraction("0.02")
    scale, bar = Fraction(1000, steps), Fraction(1)
    for i in range(steps):
        beta = scale * (first + Fraction(i, steps - 1) * (last - first))
        bar *= 1 - beta
        # Enough digits, or the fractions grow without end.
        bar = bar.limit_denominator(10**60)
        assert found.betas[i] == pytest.approx(float(beta), rel=1e-11)
        assert found.alpha_bar[i] == pytest.approx(float(bar), rel=1e-11)
        assert found.noise_share[i] == pytest.approx(float(1 - bar), rel=1e-11)
        assert found.snr[i] == pytest.approx(float(bar / (1 - bar)), rel=1e-11)


def test_published_end_values() -> None:
    assert linear().alpha_bar[-1] == pytest.approx(4.0358e-5, rel=1e-4)
    assert cosine().alpha_bar[-1] == pytest.approx(2.4288e-9, rel=1e-4)
    assert cosine().betas[0] == pytest.approx(4.1284e-5, rel=1e-4)
    # Table of sampling noise levels with 18 steps.
    sigmas = edm().sampling_sigmas()
    expected = [80.0, 57.586, 40.786, 28.375, 19.352, 12.910, 8.4009, 5.3152, 3.2568]
    np.testing.assert_allclose(sigmas[:9], expected, rtol=1e-4)
    assert sigmas[-2:] == pytest.approx([0.002, 0.0]) and len(sigmas) == 19


def _cos(x: Decimal) -> Decimal:
    """By its series."""
    term, total, k = Decimal(1), Decimal(0), 0
    while abs(term) > Decimal(10) ** -50:
        total += term
        k += 2
        term *= -x * x / (k * (k - 1))
    return total


@pytest.mark.parametrize("steps", [1, 2, 7, 100, 1000])
def test_cosine_is_the_product_of_its_variances(steps: int) -> None:
    """With 50 digits."""
    getcontext().prec = 60
    pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494")

    def f(i: int) -> Decimal:
        share = (Decimal(i) / steps + Decimal("0.008")) / Decimal("1.008")
        return _cos(share * pi / 2) ** 2

    found, bar, before = cosine(steps), Decimal(1), f(0)
    for i in range(steps):
        after = f(i + 1)
        beta = min(1 - after / before, Decimal("0.999"))
        bar, before = bar * (1 - beta), after
        assert found.betas[i] == pytest.approx(float(beta), rel=1e-11)
        assert found.alpha_bar[i] == pytest.approx(float(bar), rel=1e-11)
        assert found.noise_share[i] == pytest.approx(float(1 - bar), rel=1e-11)


@pytest.mark.parametrize(("steps", "rho"), [(1, 7.0), (2, 7.0), (40, 7.0), (40, 1.0), (500, 50.0)])
def test_edm_levels(steps: int, rho: float) -> None:
    found = edm(steps, rho=rho)
    for k, sigma in enumerate(found.sampling_sigmas()[:-1]):
        share = k / max(steps - 1, 1)
        root = 80.0 ** (1 / rho) + share * (0.002 ** (1 / rho) - 80.0 ** (1 / rho))
        assert sigma == pytest.approx(root**rho, rel=1e-9)
    assert found.form == "exploding" and np.all(np.diff(found.sigma) > 0.0)


@given(LEVELS)
def test_forms_have_the_same_levels(log_snr: np.ndarray) -> None:
    kept = NoiseSchedule(log_snr)
    blown = kept.variance_exploding()
    assert blown.variance_preserving().form == "preserving"
    for one in (kept, blown):
        ratio = 2.0 * (np.log(one.alpha) - np.log(one.sigma))
        np.testing.assert_allclose(ratio, log_snr, rtol=1e-12, atol=1e-12)
        np.testing.assert_array_equal(one.snr, np.exp(log_snr))
    np.testing.assert_allclose(kept.alpha**2 + kept.sigma**2, 1.0, rtol=1e-12)
    np.testing.assert_array_equal(blown.alpha, 1.0)
    # A sample of one form, scaled, is one of the other.
    np.testing.assert_allclose(kept.alpha * blown.sigma, kept.sigma, rtol=1e-12)
    np.testing.assert_allclose(np.log(kept.alpha_bar), kept.log_alpha_bar, atol=1e-12)
    np.testing.assert_allclose(-2.0 * np.log(blown.sigma), log_snr, rtol=1e-12, atol=1e-12)


def test_from_given_values() -> None:
    np.testing.assert_allclose(from_sigmas(edm(9).sigma).log_snr, edm(9).log_snr, rtol=1e-12)
    bar = linear(100).alpha_bar
    np.testing.assert_allclose(from_alpha_bar(bar).log_snr, linear(100).log_snr, rtol=1e-9)
    assert from_alpha_bar(bar, form="exploding").form == "exploding"


def test_shift() -> None:
    np.testing.assert_allclose(cosine(50).shifted(0.25).snr, 0.25 * cosine(50).snr, rtol=1e-12)


# Capacity --------------------------------------------------------------------------------------


def test_capacity_of_the_cosine_is_a_hyperbolic_secant() -> None:
    r"""With alpha = cos(pi t/2), dt/d lambda = sech(lambda/2)/(2 pi)."""
    found = capacity(cosine(20_000, offset=0.0))
    inner = np.abs(found.log_snr) < 10.0
    exact = 1.0 / (2.0 * math.pi * np.cosh(0.5 * found.log_snr[inner]))
    np.testing.assert_allclose(found.density[inner], exact, rtol=2e-3)


def test_capacity_of_edm() -> None:
    r"""sigma^(1/rho) is uniform, and lambda = -2 log sigma."""
    found = capacity(edm(5000))
    sigma, ends = np.exp(-0.5 * found.log_snr), (80.0 ** (1 / 7), 0.002 ** (1 / 7))
    exact = sigma ** (1 / 7) / (14.0 * (ends[0] - ends[1]))
    np.testing.assert_allclose(found.density, exact, rtol=1e-3)


@given(
    LEVELS.filter(lambda x: len(x) > 1 and np.diff(x).max() < -1e-6),
    st.sampled_from([None, *WEIGHTS]),
)
def test_capacity_is_a_density(log_snr: np.ndarray, loss: str | None) -> None:
    found = capacity(NoiseSchedule(log_snr), loss)
    assert found.density @ found.width == pytest.approx(1.0)
    assert np.all(found.density >= 0.0) and found.width.sum() == pytest.approx(
        log_snr[0] - log_snr[-1]
    )


@given(st.floats(-15.0, 15.0), st.floats(-2.0, 2.0), st.floats(-2.0, 2.0), st.floats(-1.0, 1.0))
def test_weights_are_those_of_the_losses(
    log_snr: float, x: float, noise: float, error: float
) -> None:
    """From a prediction of the noise that is off by ``error``, what each network would predict."""
    one = NoiseSchedule(np.array([log_snr]))
    alpha, sigma = one.alpha[0], one.sigma[0]
    z = alpha * x + sigma * noise
    data = (z - sigma * (noise + error)) / alpha
    v, v_hat = alpha * noise - sigma * x, alpha * (noise + error) - sigma * data
    blown = one.variance_exploding().sigma[0]
    losses = {
        "epsilon": error**2,
        "x0": (data - x) ** 2,
        "v": (v_hat - v) ** 2,
        "min-snr": min(math.exp(log_snr), 5.0) * (data - x) ** 2,
        "edm": (blown**2 + 0.25) / (blown * 0.5) ** 2 * (data - x) ** 2,
    }
    for loss, value in losses.items():
        weight = loss_weight(one.log_snr, loss)[0]
        assert value == pytest.approx(weight * error**2, rel=1e-4, abs=1e-6 * math.exp(-log_snr))


# Files and command -----------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".csv", ".json"])
@pytest.mark.parametrize("schedule", [linear(30), cosine(1), edm(7)])
def test_files(tmp_path: Path, schedule: NoiseSchedule, suffix: str) -> None:
    path = tmp_path / f"levels{suffix}"
    save(schedule, path)
    again = load(path)
    np.testing.assert_array_equal(again.log_snr, schedule.log_snr)
    assert (again.form, again.kind) == (schedule.form, schedule.kind)
    with pytest.raises(BadFile, match="exists"):
        save(schedule, path)
    save(schedule, path, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if suffix == ".csv":
        with path.open(encoding="utf-8") as file:
            next(file)
            rows = list(csv.DictReader(file))
        assert [*rows[0]] == ["level", *COLUMNS] and len(rows) == len(schedule)
        assert [float(row["beta"]) for row in rows] == schedule.betas.tolist()
        assert [float(row["sigma"]) for row in rows] == schedule.sigma.tolist()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "x"),
        ("a.csv", "level,log_snr\n0,1\n"),
        ("a.csv", '# {"format": "optsched noise schedule", "kind": "x"}\nlevel,log_snr\n0,1\n'),
        ("a.json", "{"),
        ("a.json", '{"format": "optsched schedule"}'),
        (
            "a.json",
            '{"format": "optsched noise schedule", "form": "x", "kind": "y", "log_snr": [1]}',
        ),
        ("a.npz", "no archive"),
    ],
)
def test_bad_files(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(BadFile, match=name):
        load(tmp_path / name)


def test_files_that_cannot_be() -> None:
    with pytest.raises(BadFile, match="cannot be read"):
        load("missing.csv")
    with pytest.raises(BadFile, match="suffix"):
        save(linear(30), "levels.txt")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, plot = tmp_path / "d.npz", tmp_path / "d.png"
    argv = ["rules", "diffusion", "--schedule", "cosine", "--levels", "1000"]
    assert main([*argv, "--output", str(output), "--plot", str(plot), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["alpha_bar_last"] == pytest.approx(2.4288e-9, rel=1e-4)
    assert told["log_snr_50_percent"] == pytest.approx(0.0, abs=0.1)
    np.testing.assert_array_equal(load(output).log_snr, cosine(1000).log_snr)
    assert plot.stat().st_size > 10_000
    assert (
        main(["rules", "diffusion", "--schedule", "edm", "--levels", "18", "--sigma-max", "10"])
        == 0
    )
    assert "exploding" in capsys.readouterr().out
    assert main([*argv, "--weighting", "v", "--form", "exploding", "--json"]) == 0
    weighted = json.loads(capsys.readouterr().out)
    assert weighted["form"] == "exploding"
    assert weighted["log_snr_50_percent"] < told["log_snr_50_percent"]


@pytest.mark.parametrize(
    ("argv", "field"),
    [
        ([], "--schedule"),
        (["--schedule", "edm"], "--levels"),
        (["--schedule", "x", "--levels", "9"], "--schedule"),
        (["--schedule", "linear", "--levels", "20"], "--levels"),
        (["--schedule", "linear", "--levels", "1.5"], "--levels"),
        (["--schedule", "cosine", "--levels", "0"], "--levels"),
        (["--schedule", "cosine", "--levels", "9", "--rho", "7"], "--rho"),
        (["--schedule", "edm", "--levels", "9", "--sigma-min", "90"], "--sigma-max"),
        (["--schedule", "edm", "--levels", "9", "--form", "x"], "--form"),
        (["--schedule", "edm", "--levels", "9", "--weighting", "x"], "--weighting"),
    ],
)
def test_bad_commands(capsys: pytest.CaptureFixture[str], argv: list[str], field: str) -> None:
    assert main(["rules", "diffusion", *argv]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"optsched: {field}: ") and shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("call", "field"),
    [
        (lambda: NoiseSchedule(np.array([1.0, 1.0])), "log_snr"),
        (lambda: NoiseSchedule(np.array([1.0, math.nan])), "log_snr"),
        (lambda: NoiseSchedule(np.array([800.0])), "log_snr"),
        (lambda: NoiseSchedule(np.zeros((2, 2))), "log_snr"),
        (lambda: NoiseSchedule(np.zeros(0)), "log_snr"),
        (lambda: NoiseSchedule(np.zeros(1), "x"), "form"),  # type: ignore[arg-type]
        (lambda: from_alpha_bar([0.5, 1.0]), "alpha_bar"),
        (lambda: from_alpha_bar([0.2, 0.5]), "log_snr"),
        (lambda: from_sigmas([0.0, 1.0]), "sigmas"),
        (lambda: from_sigmas(["a"]), "sigmas"),
        (lambda: linear(100, first=0.5, last=0.1), "last"),
        (lambda: linear(100, first=0.0), "first"),
        (lambda: cosine(10**8), "steps"),
        (lambda: cosine(10, offset=-1.0), "offset"),
        (lambda: cosine(10, most=1.0), "most"),
        (lambda: edm(10, rho=0.0), "rho"),
        (lambda: edm(10, sigma_min=-1.0), "sigma_min"),
        (lambda: linear(30).shifted(0.0), "factor"),
        (lambda: capacity(cosine(1)), "schedule"),
        (lambda: capacity(np.ones(3)), "schedule"),  # type: ignore[arg-type]
        (lambda: loss_weight(np.zeros(2), "v", 1.0), "parameter"),
        (lambda: loss_weight(np.zeros(2), "edm", 0.0), "parameter"),
    ],
)
def test_bad_input(call: Any, field: str) -> None:
    with pytest.raises(InvalidProblem) as caught:
        call()
    assert caught.value.field == field


def test_it_does_not_change() -> None:
    schedule = linear(30)
    with pytest.raises(ValueError, match="read-only"):
        schedule.log_snr[0] = 1.0
    given_values = np.array([3.0, 1.0])
    held = NoiseSchedule(given_values)
    given_values[0] = 9.0
    assert held.log_snr[0] == 3.0


def test_figures() -> None:
    left, right = Figure().subplots(1, 2)
    schedules = [("linear", linear()), ("edm", edm())]
    plot_log_snr(left, schedules)
    plot_capacity(right, schedules, "v")
    assert [line.get_label() for line in left.lines[:2]] == ["linear", "edm"]
    assert len(np.asarray(right.lines[1].get_xdata())) == 17
    assert right.get_xlim()[0] > right.get_xlim()[1] and "v loss" in right.get_ylabel()
