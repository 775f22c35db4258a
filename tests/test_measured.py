"""Exponents a and b measured from samples, against features whose law is known."""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optsched import InvalidProblem, PowerLawSpectrum, Schedule
from optsched.cli import main
from optsched.measure.exponent_errors import eigenvalue_influence, target_influence
from optsched.measure.exponent_fits import Sample, fit_eigenvalues, fit_target
from optsched.measure.exponents import (
    MeasuredSpectrum,
    measure_features,
    measure_kernel,
    measure_spectrum,
)
from optsched.measure.sample_checks import sample_of_features
from optsched.measure.sample_spectrum import Population, mode_rows, overlaps, quantiles
from optsched.measure.tangent import measure_model, tangent_features, tangent_kernel
from optsched.plots.measured import plot_measured


def draw(
    a: float, b: float, noise: float, n: int, p: int, seed: int = 0, gaussian: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Power-law features in a random basis, and targets; an independent computation."""
    rng = np.random.default_rng(seed)
    k = np.arange(1.0, p + 1.0)
    features = rng.standard_normal((n, p)) * k ** (-b / 2)
    w = k ** ((b - a) / 2) * (rng.standard_normal(p) if gaussian else rng.choice([-1.0, 1.0], p))
    targets = features @ w + noise * rng.standard_normal(n)
    basis = np.linalg.qr(rng.standard_normal((p, p)))[0]
    return features @ basis, targets


@cache
def measured(a: float, b: float, noise: float, n: int = 2000, p: int = 300) -> MeasuredSpectrum:
    return measure_features(*draw(a, b, noise, n, p))


@pytest.mark.parametrize(
    ("a", "b", "noise"), [(1.3, 1.2, 0.3), (1.8, 3.0, 0.5), (2.2, 1.5, 0.2), (3.5, 2.0, 0.02)]
)
def test_exponents_of_power_law_features(a: float, b: float, noise: float) -> None:
    fit = measured(a, b, noise)
    assert fit.a == pytest.approx(a, abs=0.05)
    assert fit.b == pytest.approx(b, abs=0.02)
    assert fit.noise == pytest.approx(noise, abs=0.02)
    assert abs(fit.a - a) < 3.0 * fit.a_stderr < 0.3
    assert abs(fit.b - b) < 3.0 * fit.b_stderr < 0.05
    assert fit.eigenvalue_scale == pytest.approx(1.0, rel=0.1)
    assert fit.target_scale == pytest.approx(1.0, rel=0.25)


@pytest.mark.parametrize(("a", "b", "p"), [(1.4, 1.3, 300), (2.5, 2.5, 100), (2.0, 1.7, 500)])
def test_sample_modes_are_where_monte_carlo_finds_them(a: float, b: float, p: int) -> None:
    """Sample eigenvalues and energies, averaged over draws, against the closed forms."""
    n, draws = 300, 40
    k = np.arange(1.0, p + 1.0)
    rng = np.random.default_rng(1)
    last = min(n, p) // 3
    lam, energy = np.zeros((draws, last)), np.zeros((draws, last))
    for i in range(draws):
        features = rng.standard_normal((n, p)) * k ** (-b / 2)
        left, singular, _ = np.linalg.svd(features, full_matrices=False)
        y = features @ (k ** ((b - a) / 2) * rng.choice([-1.0, 1.0], p))
        lam[i] = singular[:last] ** 2 / n
        energy[i] = (left[:, :last].T @ y) ** 2 / n
    pop = Population(k, np.ones(p), k**-b)
    rows = mode_rows(1, last)
    ranks = np.arange(1.0, last + 1.0)
    u, x = quantiles(pop, n, ranks)
    off = (x / lam.mean(0) - 1.0) / np.hypot(lam.std(0) / lam.mean(0) / math.sqrt(draws), 2e-3)
    assert np.abs(off).max() < 4.5
    assert np.abs(off[last // 2 :].mean()) < 1.5
    predicted = overlaps(u, pop, n) @ k**-a
    for start in (0, last // 4, last // 2, last * 3 // 4):
        part = slice(start, start + last // 4)
        seen = energy[:, part].sum(1)
        error = math.hypot(seen.std() / math.sqrt(draws), 0.01 * seen.mean())
        assert abs(predicted[part].sum() - seen.mean()) < 4.0 * error
    assert rows.size.sum() == last


def test_an_infinite_sample_is_not_corrected() -> None:
    k = np.arange(1.0, 401.0)
    fit = measure_spectrum(3.0 * k**-1.6, np.sqrt(0.5 / 3.0) * k ** ((1.6 - 2.3) / 2))
    assert (fit.a, fit.b) == (pytest.approx(2.3, abs=1e-4), pytest.approx(1.6, abs=1e-9))
    assert (fit.target_scale, fit.eigenvalue_scale) == (
        pytest.approx(0.5, rel=2e-3),
        pytest.approx(3.0),
    )
    assert fit.noise == 0.0
    assert fit.a_stderr < 1e-3


def test_kernel_and_spectrum_agree_with_features() -> None:
    features, targets = draw(2.0, 1.5, 0.3, 600, 200)
    one = measure_features(features, targets)
    two = measure_kernel(features @ features.T, targets)
    assert (two.a, two.b, two.noise) == pytest.approx((one.a, one.b, one.noise), rel=1e-6)
    assert (two.a_stderr, two.b_stderr) == pytest.approx((one.a_stderr, one.b_stderr), rel=1e-4)
    w = np.sqrt(one.sample_energy / one.sample_eigenvalues)
    three = measure_spectrum(one.sample_eigenvalues, w, samples=600)
    assert three.b == pytest.approx(one.b, abs=1e-6)
    # Without what lies outside of the features the noise is less well known.
    assert abs(three.a - one.a) < 3.0 * math.hypot(one.a_stderr, three.a_stderr)


@settings(max_examples=5)
@given(scale=st.floats(1e-6, 1e6), size=st.floats(1e-6, 1e6))
def test_units_do_not_matter(scale: float, size: float) -> None:
    features, targets = draw(1.7, 1.4, 0.2, 200, 80)
    one = measure_features(features, targets)
    two = measure_features(scale * features, size * targets)
    assert (two.a, two.b) == pytest.approx((one.a, one.b), rel=1e-4)
    assert two.noise == pytest.approx(size * one.noise, rel=1e-3)
    assert two.eigenvalue_scale == pytest.approx(scale**2 * one.eigenvalue_scale, rel=1e-4)


def test_influence_is_the_derivative_by_a_weight() -> None:
    """Against differences: the weight of one sample is raised a little, weights of modes held."""
    features, targets = draw(2.0, 1.5, 0.3, 150, 60)
    sample = sample_of_features(features, targets, False)
    lam = fit_eigenvalues(sample, 1, 30)
    fit = fit_target(sample, lam)

    def value(weights: np.ndarray) -> list[float]:
        """b to first order, and the sum of f c^2 with f held at each rank."""
        scaled = features * np.sqrt(weights)[:, None]
        left, singular, _ = np.linalg.svd(scaled, full_matrices=False)
        energy = (left.T @ (np.sqrt(weights) * targets)) ** 2
        rest = float(weights @ targets**2) - energy.sum()
        b = lam.weights @ np.log(singular[:30] ** 2)
        return [float(b), float(fit.weights @ energy[:30] + fit.rest_weight * rest)]

    n = len(targets)
    for i in (0, 7, 81):
        step = 1e-5
        up, down = np.full(n, (1.0 - step) / n), np.full(n, (1.0 + step) / n)
        up[i] += step
        down[i] -= step
        slope = (np.array(value(up)) - np.array(value(down))) / (2.0 * step)
        assert eigenvalue_influence(sample, lam)[i] == pytest.approx(slope[0], rel=1e-4)
        assert target_influence(sample, fit)[i] == pytest.approx(slope[1], rel=1e-3)


def test_uncertainty_covers_the_truth() -> None:
    """The benchmark measures 200 sets and more; here a few, small ones."""
    off = []
    for seed in range(20):
        fit = measure_features(*draw(1.9, 1.4, 0.2, 300, 80, seed))
        off.append(((fit.a - 1.9) / fit.a_stderr, (fit.b - 1.4) / fit.b_stderr))
    within = np.abs(off)
    assert np.all((within < 1.0).mean(0) > 0.45)
    assert np.all((within < 2.0).mean(0) > 0.8)


def test_scattered_coefficients_widen_the_error() -> None:
    wide = measure_features(*draw(1.9, 1.4, 0.0, 800, 200, gaussian=True))
    narrow = measure_features(*draw(1.9, 1.4, 0.0, 800, 200))
    assert wide.a_stderr > 2.0 * narrow.a_stderr
    assert abs(wide.a - 1.9) < 3.0 * wide.a_stderr


def test_what_drowns_is_said() -> None:
    fit = measure_features(*draw(3.5, 1.5, 3.0, 400, 100))
    assert fit.a_stderr > 0.3
    assert any("stand out" in line for line in fit.warnings)
    assert any("a = " in line for line in fit.warnings)
    fit = measure_features(*draw(3.5, 1.5, 0.5, 2000, 100))
    assert fit.resolved < 20
    assert 0.05 < fit.a_stderr < 0.3


def test_nothing_is_claimed_of_a_target_without_signal() -> None:
    rng = np.random.default_rng(0)
    features = draw(2.0, 1.5, 0.0, 300, 60)[0]
    cases = [
        measure_features(features, rng.standard_normal(300)),
        measure_features(rng.standard_normal((200, 100)), rng.standard_normal(200)),
        measure_spectrum(np.arange(1.0, 61.0) ** -1.5, np.eye(60)[0]),
    ]
    for fit in cases:
        assert fit.a_stderr > 0.5 * abs(fit.a)
        assert any("stand out" in line for line in fit.warnings)
        assert any("a = " in line for line in fit.warnings)
    assert any("b = " in line for line in cases[1].warnings)


def test_a_broken_law_is_said_and_widens_the_error() -> None:
    k = np.arange(1.0, 601.0)
    bent = np.exp(-0.4 * np.log(k) ** 2)
    fit = measure_spectrum(k**-1.2 * bent, np.ones(600))
    assert any("no power law" in line for line in fit.warnings)
    assert fit.b_stderr > 0.1


def test_a_head_off_the_law_is_left_out() -> None:
    features, targets = draw(1.9, 1.5, 0.1, 1000, 200)
    left, singular, right = np.linalg.svd(features, full_matrices=False)
    singular[:2] *= (8.0, 5.0)
    fit = measure_features(left * singular @ right, targets)
    assert fit.window[0] > 2
    assert fit.b == pytest.approx(1.5, abs=0.05)


def test_several_targets_add_up() -> None:
    features, one = draw(2.0, 1.5, 0.2, 800, 150)
    _, two = draw(2.0, 1.5, 0.2, 800, 150, seed=9)
    single = measure_features(features, one)
    both = measure_features(features, np.column_stack([one, one]))
    assert both.a == pytest.approx(single.a, abs=0.02)
    assert both.target_scale == pytest.approx(2.0 * single.target_scale, rel=0.05)
    assert both.noise == pytest.approx(math.sqrt(2.0) * single.noise, rel=0.02)
    assert measure_features(features, np.column_stack([one, two])).noise > 1.0


def test_the_problem_is_that_of_the_features() -> None:
    fit = measured(2.2, 1.5, 0.2)
    problem = fit.problem(1000, batch_size=4)
    assert problem.noise == pytest.approx(fit.noise)
    exact = PowerLawSpectrum(2.2, 1.5, 300)
    assert problem.spectrum is not None
    assert problem.features == 300
    assert problem.spectrum.trace == pytest.approx(exact.trace, rel=0.1)
    bias = problem.spectrum.full().bias([0.0, 10.0, 1000.0])
    np.testing.assert_allclose(bias, exact.full().bias([0.0, 10.0, 1000.0]), rtol=0.2)
    law = fit.problem(1000, kind="power-law", features=math.inf, eta_max=0.5)
    assert (law.a, law.b, law.features) == (fit.a, fit.b, math.inf)
    assert law.noise == pytest.approx(fit.noise / math.sqrt(fit.target_scale))
    long = fit.problem(1000, features=math.inf)
    k = np.arange(1e5 + 1.0, 1e7)
    tail = fit.target_scale * (k**-fit.a).sum()
    assert long.noise**2 - fit.noise**2 == pytest.approx(tail, rel=0.02)
    with pytest.raises(InvalidProblem, match="kind: got 'law'"):
        fit.problem(10, kind="law")


GOOD = draw(2.0, 1.5, 0.1, 100, 40)


def spoiled(index: Any, value: float) -> np.ndarray:
    out = GOOD[0].copy()
    out[index] = value
    return out


@pytest.mark.parametrize(
    ("features", "targets", "message"),
    [
        (GOOD[0] + 1j, GOOD[1], "features: got 'complex128 array', allowed: an array of numbers"),
        (spoiled((3, 5), math.nan), GOOD[1], "features: got nan.*row 3, column 5"),
        (spoiled((0, 0), math.inf), GOOD[1], "features: got inf"),
        (GOOD[0][:, 0], GOOD[1], r"features: got 'shape \(100,\)', allowed: a matrix"),
        (GOOD[0][:30], GOOD[1][:30], r"features: got 'shape \(30, 40\)', allowed: 40 samples"),
        (GOOD[0], GOOD[1][:-1], r"targets: got 'shape \(99,\)', allowed: \(100,\)"),
        (GOOD[0], GOOD[1] * math.nan, "targets: got .*row 0"),
        (GOOD[0], np.zeros(100), "targets: got 0.0, allowed: numbers that are not all the same"),
        (GOOD[0][:, :12], GOOD[1], "features: got 'rank 12', allowed: 20 or more"),
        (np.ones((100, 40)), GOOD[1], "features: got 'rank 1'"),
        (np.zeros((100, 40)), GOOD[1], "features: got 0.0"),
        ([["x"] * 40] * 100, GOOD[1], "features: got '<U1 array'"),
    ],
)
def test_bad_features(features: Any, targets: Any, message: str) -> None:
    with pytest.raises(InvalidProblem, match=message):
        measure_features(features, targets)


def test_bad_kernels_spectra_and_windows() -> None:
    kernel = GOOD[0] @ GOOD[0].T
    lopsided = kernel.copy()
    lopsided[2, 3] += 1.0
    with pytest.raises(InvalidProblem, match=r"symmetric matrix .entries 2,3 and 3,2"):
        measure_kernel(lopsided, GOOD[1])
    with pytest.raises(InvalidProblem, match="no negative eigenvalue"):
        measure_kernel(kernel - np.eye(100), GOOD[1])
    with pytest.raises(InvalidProblem, match="a square matrix"):
        measure_kernel(GOOD[0], GOOD[1])
    with pytest.raises(InvalidProblem, match="features: got 3, allowed: a number >= 40"):
        measure_kernel(kernel, GOOD[1], features=3)
    values = np.arange(1.0, 51.0) ** -1.5
    cases: list[tuple[Any, Any, str]] = [
        (values + 0j, values, "eigenvalues: got 'complex128 array'"),
        (np.append(values[:-1], 0.0), values, r"eigenvalues: got 0.0, .*entry 49"),
        (-values, values, "eigenvalues: got -1.0"),
        (values, values[:-1], "target: got 'shape"),
        (values, values * math.nan, "target: got"),
        (values[:10], values[:10], "a vector of 20 numbers or more"),
    ]
    for lam, target, message in cases:
        with pytest.raises(InvalidProblem, match=message):
            measure_spectrum(lam, target)
    with pytest.raises(InvalidProblem, match="samples: got 3"):
        measure_spectrum(values, values, samples=3)
    for window in ((0, 20), (1, 30), (5, 8), (1.5, 12), "ab", (1,), None):
        if window is not None:
            with pytest.raises(InvalidProblem, match="window: got"):
                measure_features(*GOOD, window=window)  # type: ignore[arg-type]


def test_a_window_that_is_given_is_kept() -> None:
    assert measure_features(*draw(2.0, 1.5, 0.1, 400, 100), window=(3, 30)).window == (3, 30)


def test_steep_spectra_are_not_lost_in_rounding() -> None:
    fit = measure_features(*draw(3.0, 6.0, 0.0, 400, 150))
    assert fit.b == pytest.approx(6.0, abs=0.05)
    single = measure_features(*(x.astype(np.float32) for x in draw(3.0, 6.0, 0.0, 400, 150)))
    assert single.b == pytest.approx(6.0, abs=0.3)


def test_sample_is_checked_data() -> None:
    sample = sample_of_features(*GOOD, False)
    assert isinstance(sample, Sample)
    assert sample.energy.sum() + sample.rest == pytest.approx(float(GOOD[1] @ GOOD[1]) / 100)
    middle = sample_of_features(*GOOD, True)
    assert middle.targets is not None
    assert abs(middle.targets.mean()) < 1e-12


def test_tangent_kernel_of_a_model() -> None:
    """A linear model has its inputs as tangent features; a network, finite differences."""
    features, targets = draw(2.0, 1.5, 0.2, 300, 60)
    start = np.linspace(0.0, 0.1, 60).astype(np.float32)

    def linear(w: Any, x: Any) -> Any:
        return x @ w

    inputs = features.astype(np.float32)
    np.testing.assert_allclose(tangent_features(linear, start, inputs), inputs, rtol=1e-6)
    fit = measure_model(linear, start, inputs, targets)
    assert fit.b == pytest.approx(measure_features(inputs, targets).b, rel=1e-4)
    residual = targets - inputs @ start
    assert fit.a == pytest.approx(measure_features(inputs, residual).a, rel=1e-3)

    rng = np.random.default_rng(0)
    params = {
        "in": rng.standard_normal((60, 24)).astype(np.float32),
        "out": rng.standard_normal(24).astype(np.float32),
    }

    def network(p: Any, x: Any) -> Any:
        return jnp.tanh(x @ p["in"]) @ p["out"]

    kernel = tangent_kernel(network, params, inputs)
    assert kernel.shape == (300, 300)
    h = np.tanh(inputs @ params["in"])
    slopes = (1.0 - h**2) * params["out"]
    own = h @ h.T + (slopes @ slopes.T) * (inputs @ inputs.T)
    np.testing.assert_allclose(kernel, own, rtol=1e-4, atol=1e-4)
    assert measure_model(network, params, inputs, targets).features <= 60 * 24 + 24
    with pytest.raises(InvalidProblem, match=r"model: got 'output of shape \(24,\)'"):
        tangent_kernel(lambda p, x: x @ p["in"], params, inputs)
    with pytest.raises(InvalidProblem, match="targets: got 'shape"):
        measure_model(linear, start, inputs, targets[:-1])
    with pytest.raises(InvalidProblem, match="inputs: got 'shape"):
        tangent_features(linear, start, inputs[:0])
    with pytest.raises(InvalidProblem, match="real floating-point"):
        tangent_features(linear, start.astype(np.complex64), inputs)


def test_plot_says_what_was_fitted() -> None:
    figure = plot_measured(measured(2.2, 1.5, 0.2))
    left, right = figure.axes
    assert left.get_xscale() == left.get_yscale() == right.get_yscale() == "log"
    labels = [text.get_text() for ax in figure.axes for text in ax.get_legend().get_texts()]  # type: ignore[union-attr]
    assert any("a = 2." in label for label in labels)
    assert any("b = 1." in label for label in labels)


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    features, targets = draw(2.0, 1.5, 0.2, 300, 60)
    np.save("features.npy", features)
    np.save("targets.npy", targets)
    np.save("kernel.npy", features @ features.T)
    np.savetxt("features.csv", features, delimiter=",")
    np.savetxt("targets.csv", targets, header="y", comments="")
    k = np.arange(1.0, 101.0)
    np.save("lam.npy", k**-1.5)
    np.save("w.npy", k ** ((1.5 - 2.0) / 2))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["spectrum", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_command(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "features.npy", "targets.npy", "--json")
    fit = json.loads(out)
    assert code == 0
    assert fit["a"] == pytest.approx(2.0, abs=3.0 * fit["a_stderr"])
    assert fit["b"] == pytest.approx(1.5, abs=3.0 * fit["b_stderr"])
    by_csv = json.loads(run(capsys, "features.csv", "targets.csv", "--json")[1])
    assert by_csv["a"] == pytest.approx(fit["a"])
    by_kernel = json.loads(run(capsys, "--kernel", "kernel.npy", "targets.csv", "--json")[1])
    assert by_kernel["b"] == pytest.approx(fit["b"], rel=1e-6)
    exact = json.loads(run(capsys, "--eigenvalues", "lam.npy", "w.npy", "--json")[1])
    assert (exact["a"], exact["b"]) == pytest.approx((2.0, 1.5), abs=1e-3)
    assert exact["samples"] is None
    code, out, _ = run(capsys, "features.npy", "targets.npy", "--plot", "f.png", "--modes", "2:30")
    assert code == 0
    assert "modes 2 to 30" in out
    assert (files / "f.png").stat().st_size > 10_000


def test_command_solves_what_it_measured(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = ("--horizon", "100", "--batch", "8", "--output", "s.npz", "--json")
    code, out, err = run(capsys, "features.npy", "targets.npy", *options)
    assert code == 0, err
    solution = json.loads(out)["solution"]
    assert solution["horizon"] == 100
    assert solution["batch_size"] == 8
    assert len(Schedule.load("s.npz")) == 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("features.npy", "files: got 'features.npy', allowed: FEATURES and TARGETS"),
        ("features.npy missing.npy", "missing.npy: cannot be read: No such file"),
        ("features.npy targets.txt", "targets.txt: suffix '.txt', expected .npy or .csv"),
        ("features.npy lam.npy", "TARGETS: got 'shape (100,)'"),
        ("targets.npy targets.npy", "FEATURES: got 'shape (300,)', allowed: a matrix"),
        ("features.npy targets.npy --modes 3", "--modes: got '3', allowed: FIRST:LAST"),
        ("features.npy targets.npy --modes 0:20", "--modes: got (0, 20)"),
        ("features.npy targets.npy --output s.npz", "--output: got 's.npz', allowed: nothing wi"),
        ("features.npy targets.npy --samples 50", "--samples: got 50.0, allowed: nothing with"),
        ("features.npy targets.npy --plot a.txt", "a.txt: suffix"),
        ("features.npy targets.npy --horizon 9 --kind x", "--kind: got 'x'"),
        ("--kernel kernel.npy --eigenvalues lam.npy w.npy", "--eigenvalues: got 'lam.npy'"),
        ("--eigenvalues lam.npy w.npy --center", "--center: got True"),
        ("bad.npy targets.npy", "bad.npy: "),
        ("empty.csv targets.npy", "empty.csv: no rows"),
    ],
)
def test_command_says_what_is_wrong(
    files: Path, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    (files / "bad.npy").write_text("no array")
    (files / "empty.csv").write_text("x,y\n")
    code, out, err = run(capsys, *arguments.split())
    assert (code, out) == (2, "")
    assert err.startswith(f"optsched: {message}")
    assert err.count("\n") == 1
