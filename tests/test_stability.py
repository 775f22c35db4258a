"""Stability limits of momentum, against dense eigenvalues of the coupled moments."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched import InvalidProblem, PowerLawSpectrum, TabulatedSpectrum, stability_limit
from optsched.model import stability
from optsched.model.spectrum import Spectrum
from optsched.model.stability import (
    deterministic_limit,
    momentum_limit,
    noise_gain,
    noise_limit,
)

BETA = st.one_of(st.floats(0.0, 0.99), st.floats(-3.0, -1.0).map(lambda x: 1.0 - 10.0**x))
NU = st.one_of(st.sampled_from([0.0, 1.0]), st.floats(0.0, 1.0))
BATCH = st.floats(0.0, 3.0).map(lambda x: 10.0**x)
EIGENVALUES = st.lists(st.floats(0.02, 3.0), min_size=1, max_size=5)


def tabulated(lam: list[float]) -> TabulatedSpectrum:
    return TabulatedSpectrum(np.array(lam), np.ones(len(lam)))


def step_matrix(lam: float, eta: float, beta: float, nu: float) -> tuple[np.ndarray, np.ndarray]:
    """One step on (error, momentum), and its kick, from the update rule."""
    v = np.array([(1 - beta) * lam, beta])
    e = np.array([1.0, 0.0]) - eta * ((1 - nu) * np.array([lam, 0.0]) + nu * v)
    return np.stack([e, v]), np.array([-eta * ((1 - nu) + nu * (1 - beta)), 1 - beta])


def spectral_radius(spectrum: Spectrum, m: float, eta: float, beta: float, nu: float) -> float:
    """Of the map of all covariances, as one dense matrix on 4 numbers a mode."""
    lam = spectrum.full().lam
    matrix = np.zeros((4 * len(lam), 4 * len(lam)))
    for j, x in enumerate(lam):
        a, b = step_matrix(x, eta, beta, nu)
        rows = slice(4 * j, 4 * j + 4)
        matrix[rows, rows] = np.kron(a, a)
        kick = np.outer(b, b).ravel() / m
        matrix[rows, 4 * j] += x * x * kick
        for k, other in enumerate(lam):
            matrix[rows, 4 * k] += x * other * kick
    return float(np.abs(np.linalg.eigvals(matrix)).max())


@given(EIGENVALUES, BATCH, BETA, NU)
def test_the_coupled_moments_are_stable_below_the_limit_and_not_above(
    lam: list[float], m: float, beta: float, nu: float
) -> None:
    spectrum = tabulated(lam)
    limit = momentum_limit(spectrum, m, beta, nu)
    assert spectral_radius(spectrum, m, limit, beta, nu) == pytest.approx(1.0, abs=1e-6)
    assert spectral_radius(spectrum, m, limit * 0.99, beta, nu) < 1.0
    assert spectral_radius(spectrum, m, limit * 1.01, beta, nu) > 1.0
    # Stable all the way down, not only just below.
    assert spectral_radius(spectrum, m, limit * 0.5, beta, nu) < 1.0
    assert spectral_radius(spectrum, m, limit * 2.0, beta, nu) > 1.0


@given(EIGENVALUES, BETA, NU)
def test_deterministic_limit(lam: list[float], beta: float, nu: float) -> None:
    spectrum = tabulated(lam)
    limit = deterministic_limit(spectrum, beta, nu)

    def radius(eta: float) -> float:
        steps = (step_matrix(x, eta, beta, nu)[0] for x in lam)
        return max(float(np.abs(np.linalg.eigvals(a)).max()) for a in steps)

    assert radius(limit * (1 - 1e-6)) < 1.0 < radius(limit * (1 + 1e-6))


@given(st.floats(0.0, 0.999))
def test_deterministic_limits_that_are_known(beta: float) -> None:
    spectrum = tabulated([0.4, 0.1])
    heavy_ball = deterministic_limit(spectrum, beta, 1.0)
    assert heavy_ball * 0.4 * (1 - beta) == pytest.approx(2 * (1 + beta), rel=1e-12)
    assert deterministic_limit(spectrum, beta, 0.0) == pytest.approx(2 / 0.4, rel=1e-12)
    nesterov = 2 * (1 + beta) / ((1 - beta) * (1 + 2 * beta))
    assert deterministic_limit(spectrum, beta, beta) * 0.4 == pytest.approx(nesterov, rel=1e-10)


@given(EIGENVALUES, BATCH, BETA, NU, st.floats(0.05, 0.95))
def test_the_gain_is_the_stationary_excess(
    lam: list[float], m: float, beta: float, nu: float, share: float
) -> None:
    """Against the rest point of the covariances under a unit of loss, by a linear solve."""
    spectrum = tabulated(lam)
    eta = share * momentum_limit(spectrum, m, beta, nu)
    total = 0.0
    for x in lam:
        a, b = step_matrix(x, eta, beta, nu)
        own = np.kron(a, a)
        own[:, 0] += x * x / m * np.outer(b, b).ravel()
        rest = np.linalg.solve(np.eye(4) - own, x / m * np.outer(b, b).ravel())
        total += x * rest[0]
    assert noise_gain(spectrum, m, eta, beta, nu) == pytest.approx(total, rel=1e-6)
    assert total < 1.0


@pytest.mark.parametrize("size", [1, 40, 1000, 10**7, math.inf])
@pytest.mark.parametrize("b", [1.05, 1.6, 4.0])
@pytest.mark.parametrize("m", [1.0, 7.0, 300.0])
def test_without_momentum_it_is_the_limit_of_sgd(size: float, b: float, m: float) -> None:
    spectrum = PowerLawSpectrum(2.0, b, size)
    expected = stability_limit(spectrum, m)
    for beta, nu in ((0.0, 0.0), (0.9, 0.0), (0.0, 0.7)):
        assert momentum_limit(spectrum, m, beta, nu) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("beta", "nu"), [(0.9, 1.0), (0.9, 0.9), (0.9999, 0.7), (0.999999, 0.99)])
@pytest.mark.parametrize("b", [1.05, 1.6, 4.0])
def test_nodes_stand_for_all_modes(
    beta: float, nu: float, b: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    spectrum = PowerLawSpectrum(2.0, b, 50_000)
    every_mode = momentum_limit(spectrum, 5.0, beta, nu)
    monkeypatch.setattr(stability, "MAX_MODES", 0)
    assert momentum_limit(spectrum, 5.0, beta, nu) == pytest.approx(every_mode, rel=1e-6)
    table = TabulatedSpectrum(spectrum.full().lam, np.ones(50_000))
    assert momentum_limit(table, 5.0, beta, nu) == pytest.approx(every_mode, rel=1e-4)


@given(EIGENVALUES, BATCH, st.floats(0.0, 0.99), st.floats(0.0, 0.99))
def test_heavy_ball_is_bounded_by_noise(lam: list[float], m: float, b1: float, b2: float) -> None:
    spectrum = tabulated(lam)
    low, high = sorted([b1, b2])
    limits = [momentum_limit(spectrum, m, beta, 1.0) for beta in (low, high)]
    assert limits[0] <= limits[1] * (1 + 1e-12)
    assert limits[1] < noise_limit(spectrum, m)
    assert limits[1] < deterministic_limit(spectrum, high, 1.0)


def test_heavy_ball_tends_to_the_noise_limit_where_no_mode_stands_out() -> None:
    spectrum = tabulated([0.01] * 500)
    limit = noise_limit(spectrum, 4.0)
    assert limit == pytest.approx(8.0 / 5.0)
    assert momentum_limit(spectrum, 4.0, 0.9999, 1.0) == pytest.approx(limit, rel=3e-3)
    assert momentum_limit(spectrum, 4.0, 0.0, 0.0) == pytest.approx(limit, rel=2e-2)


def test_a_weight_inside_is_stable_beyond_the_noise_limit() -> None:
    spectrum = PowerLawSpectrum(2.0, 1.5)
    ends = [momentum_limit(spectrum, 5.0, 0.999, nu) for nu in (0.0, 1.0)]
    inside = momentum_limit(spectrum, 5.0, 0.999, 0.9)
    assert inside > 3.0 * max(ends)
    assert inside > 3.0 * noise_limit(spectrum, 5.0) > max(ends)


@given(EIGENVALUES, BATCH, BATCH, BETA, NU)
def test_the_limit_rises_with_the_batch(
    lam: list[float], m1: float, m2: float, beta: float, nu: float
) -> None:
    spectrum = tabulated(lam)
    low, high = (momentum_limit(spectrum, m, beta, nu) for m in sorted([m1, m2]))
    assert low <= high * (1 + 1e-12)


@pytest.mark.parametrize("m", [1.0, 1e8, 1e13, 1e15])
@pytest.mark.parametrize(("beta", "nu"), [(0.0, 0.0), (0.99, 1.0), (0.99, 0.5)])
def test_huge_batches_leave_the_deterministic_limit(m: float, beta: float, nu: float) -> None:
    spectrum = PowerLawSpectrum(2.0, 1.5, 100)
    limit, edge = momentum_limit(spectrum, m, beta, nu), deterministic_limit(spectrum, beta, nu)
    assert 0.0 < limit <= edge
    assert m < 1e8 or limit == pytest.approx(edge, rel=1e-4)


@pytest.mark.parametrize("scale", [1e-90, 1e90])
def test_the_limit_scales_with_the_spectrum(scale: float) -> None:
    lam = np.array([1.0, 0.5, 0.2])
    one = momentum_limit(TabulatedSpectrum(lam, lam), 5.0, 0.9, 0.8)
    other = momentum_limit(TabulatedSpectrum(scale * lam, lam), 5.0, 0.9, 0.8)
    assert other * scale == pytest.approx(one, rel=1e-12)


def test_beyond_a_limit_the_gain_says_so() -> None:
    spectrum = tabulated([1.0, 0.3])
    limit = momentum_limit(spectrum, 5.0, 0.9, 0.5)
    assert noise_gain(spectrum, 5.0, limit, 0.9, 0.5) == pytest.approx(1.0, rel=1e-9)
    assert noise_gain(spectrum, 5.0, 0.0, 0.9, 0.5) == 0.0
    edge = deterministic_limit(spectrum, 0.9, 0.5)
    assert noise_gain(spectrum, 5.0, edge, 0.9, 0.5) == math.inf
    assert noise_gain(spectrum, 5.0, 3 * edge, 0.9, 0.5) == math.inf


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"beta": 1.0}, "beta"),
        ({"beta": -0.1}, "beta"),
        ({"beta": math.nan}, "beta"),
        ({"beta": "0.9"}, "beta"),
        ({"nu": 1.01}, "nu"),
        ({"nu": None}, "nu"),
        ({"nu": True}, "nu"),
        ({"batch_size": 0.5}, "batch_size"),
        ({"batch_size": math.inf}, "batch_size"),
        ({"eta": -1.0}, "eta"),
        ({"eta": math.inf}, "eta"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], field: str) -> None:
    good: dict[str, Any] = {"batch_size": 5.0, "eta": 0.1, "beta": 0.5, "nu": 0.5}
    given = good | changes
    spectrum = tabulated([1.0])
    with pytest.raises(InvalidProblem, match=field):
        noise_gain(spectrum, **given)
    given.pop("eta")
    if field != "eta":
        with pytest.raises(InvalidProblem, match=field):
            momentum_limit(spectrum, **given)
    if field in ("beta", "nu"):
        with pytest.raises(InvalidProblem, match=field):
            deterministic_limit(spectrum, given["beta"], given["nu"])
    if field == "batch_size":
        with pytest.raises(InvalidProblem, match=field):
            noise_limit(spectrum, given["batch_size"])
