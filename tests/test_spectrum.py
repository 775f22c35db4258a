"""Spectral quadrature against full sums."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched import InvalidProblem, PowerLawSpectrum, TabulatedSpectrum
from optsched.model.spectrum import Modes


def _worst(full: Modes, modes: Modes, taus: np.ndarray) -> float:
    """Largest relative error of bias sum and noise kernel where they exceed 1e-9 of their start."""
    worst = 0.0
    for tau in taus:
        decay = np.exp(-2.0 * full.lam * tau)
        for masses, value in ((full.mu, modes.bias(tau)), (full.nu, modes.kernel(tau))):
            exact = masses @ decay
            if exact > 1e-9 * masses.sum():
                worst = max(worst, abs(float(value) / exact - 1.0))
    return worst


@pytest.mark.parametrize("a", [1.1, 2.0, 5.0])
@pytest.mark.parametrize("b", [1.1, 2.5, 6.0])
def test_a_million_features(a: float, b: float) -> None:
    spectrum = PowerLawSpectrum(a, b, 10**6)
    modes = spectrum.modes()
    assert len(modes.lam) < 400
    taus = np.geomspace(1e-2, 12.0 * 10.0 ** (6 * b), 24)
    assert _worst(spectrum.full(), modes, taus) < 1e-6


@given(st.floats(1.1, 5.0), st.floats(1.1, 6.0), st.integers(1, 3000))
def test_any_power_law(a: float, b: float, size: int) -> None:
    spectrum = PowerLawSpectrum(a, b, size)
    taus = np.geomspace(1e-2, 12.0 * float(size) ** b, 30)
    assert _worst(spectrum.full(), spectrum.modes(), taus) < 1e-6


@given(st.floats(1.1, 5.0), st.floats(1.1, 6.0), st.floats(0.0, 7.0))
def test_modes_for_a_horizon_hold_up_to_it(a: float, b: float, log_tau: float) -> None:
    spectrum = PowerLawSpectrum(a, b, 2000)
    tau = 10.0**log_tau
    few = spectrum.modes(tau)
    assert len(few.lam) <= len(spectrum.modes().lam) + 8
    assert _worst(spectrum.full(), few, np.geomspace(1e-2, tau, 30)) < 1e-6


@pytest.mark.parametrize("tau", [10.0, 1e3, 1e9])
def test_size_costs_nothing(tau: float) -> None:
    counts = [len(PowerLawSpectrum(2.0, 1.5, n).modes(tau).lam) for n in (10**7, 10**12, math.inf)]
    assert max(counts) <= 120
    assert max(counts) - min(counts) <= 12


def test_infinite_is_the_limit_of_large() -> None:
    taus = np.geomspace(0.1, 1e3, 20)
    large, infinite = (PowerLawSpectrum(2.5, 1.5, n).modes(1e3) for n in (10**12, math.inf))
    np.testing.assert_allclose(large.bias(taus), infinite.bias(taus), rtol=1e-9)
    np.testing.assert_allclose(large.kernel(taus), infinite.kernel(taus), rtol=1e-9)


@given(st.floats(1.1, 5.0), st.floats(1.1, 6.0))
def test_masses_are_positive_and_complete(a: float, b: float) -> None:
    spectrum = PowerLawSpectrum(a, b, 5000)
    modes, full = spectrum.modes(1e4), spectrum.full()
    assert (modes.lam > 0).all() and (modes.mu >= 0).all() and (modes.nu >= 0).all()
    assert modes.mu.sum() == pytest.approx(full.mu.sum(), rel=1e-9)
    assert modes.nu.sum() == pytest.approx(full.nu.sum(), rel=1e-9)
    assert spectrum.trace == pytest.approx(full.lam.sum(), rel=1e-9)


def test_tabulated_power_law_is_the_power_law() -> None:
    k = np.arange(1.0, 2001.0)
    a, b = 2.2, 1.7
    table = TabulatedSpectrum(k**-b, k ** ((b - a) / 2.0))
    full = PowerLawSpectrum(a, b, 2000).full()
    np.testing.assert_allclose(table.full().mu, full.mu)
    assert len(table.modes().lam) < 200
    assert _worst(full, table.modes(), np.geomspace(1e-2, 12 * 2000.0**b, 30)) < 1e-6
    assert table.trace == pytest.approx(full.lam.sum())
    assert table.largest == 1.0 and table.size == 2000


def test_tabulated_rough_target() -> None:
    rng = np.random.default_rng(1)
    table = TabulatedSpectrum(rng.permutation(np.geomspace(1e-6, 2.0, 3000)), rng.normal(size=3000))
    assert _worst(table.full(), table.modes(1e4), np.geomspace(1e-2, 1e4, 30)) < 1e-6


@pytest.mark.parametrize(
    ("eigenvalues", "target", "field"),
    [
        ([], [], "eigenvalues"),
        ([1.0, -1.0], [1.0, 1.0], "eigenvalues"),
        ([1.0, math.nan], [1.0, 1.0], "eigenvalues"),
        ([1.0, 2.0], [1.0], "target"),
        ([1.0, 2.0], [0.0, 0.0], "target"),
        ([1.0, 2.0], [math.inf, 0.0], "target"),
    ],
)
def test_bad_tables(eigenvalues: list[float], target: list[float], field: str) -> None:
    with pytest.raises(InvalidProblem, match=field):
        TabulatedSpectrum(np.array(eigenvalues), np.array(target))


@pytest.mark.parametrize("options", [(1.0, 2.0), (2.0, math.nan), (2.0, math.inf), (2.0, 2.0, 0.5)])
def test_bad_power_laws(options: tuple[float, ...]) -> None:
    with pytest.raises(InvalidProblem):
        PowerLawSpectrum(*options)


def test_infinite_spectrum_has_no_full_list() -> None:
    with pytest.raises(InvalidProblem, match="features"):
        PowerLawSpectrum(2.0, 2.0).full()
    with pytest.raises(InvalidProblem, match="tau_max"):
        PowerLawSpectrum(2.0, 2.0).modes()
