"""The floor under every optimiser: its sum, its proof in small dimension, what may not pass it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optsched import PowerLawSpectrum, Problem, Schedule, TabulatedSpectrum, solve
from optsched.control.bounds.floor import label_floor
from optsched.studies.verify import verify


@pytest.mark.parametrize("a", [1.2, 1.5, 3.5])
@pytest.mark.parametrize("samples", [1.0, 1e4, 1e9])
def test_sum_of_many_modes_from_below(a: float, samples: float) -> None:
    mu = np.arange(1.0, 300_001.0) ** -a
    exact = (mu / (1.0 + samples / 0.25 * mu)).sum()
    found = label_floor(PowerLawSpectrum(a, 2.0, 300_000), 0.25, samples)
    assert found <= exact * (1.0 + 1e-12)
    assert found == pytest.approx(exact, rel=2e-3)
    assert label_floor(PowerLawSpectrum(a, 2.0), 0.25, samples) >= found


def test_sum_without_an_end() -> None:
    """All of a power law, against the integral from far out, which is a sum from below as well."""
    share, a = 1e6, 1.5
    k = np.arange(1.0, 4e6)
    head = (1.0 / (k**a + share)).sum()
    far = np.geomspace(4e6, 1e16, 400_000)
    value = 1.0 / (far**a + share)
    tail = float((np.diff(far) * (value[:-1] + value[1:]) / 2.0).sum()) + 2.0 / math.sqrt(1e16)
    assert label_floor(PowerLawSpectrum(a, 2.0), 1e-6, 1.0) == pytest.approx(head + tail, rel=2e-3)


def test_no_linear_estimator_passes_it() -> None:
    """The best linear estimator of every draw of samples, in the mean over them."""
    lam, w = np.array([1.0, 0.3, 0.1]), np.array([1.0, -2.0, 3.0])
    spectrum, rng = TabulatedSpectrum(lam, w), np.random.default_rng(0)
    for n in (1, 3, 20):
        for sigma2 in (0.05, 2.0):
            x = rng.normal(size=(4000, n, 3)) * np.sqrt(lam)
            gram = np.swapaxes(x, 1, 2) @ x / sigma2 + np.diag(1.0 / w**2)
            risk = np.trace(np.diag(lam) @ np.linalg.inv(gram), axis1=1, axis2=2)
            floor = label_floor(spectrum, sigma2, n)
            assert floor <= risk.mean() + 4.0 * risk.std() / math.sqrt(len(risk))
            # Not far below where samples are many.
            assert n < 20 or floor > 0.75 * risk.mean()


@pytest.mark.parametrize("seed", range(8))
def test_no_schedule_passes_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    problem = Problem(
        rng.uniform(1.2, 4.0),
        rng.uniform(1.2, 4.0),
        int(10 ** rng.uniform(0.5, 4)),
        batch_size=float(10 ** rng.uniform(0, 3)),
        noise=float(10 ** rng.uniform(-2, 1)),
    )
    solution = solve(problem, throw=False, gap=1.0)
    floor = solution.certificate.floor
    assert 0.0 < floor < solution.excess_loss
    # Twice the samples, half the floor at most.
    more = label_floor(
        problem.spectrum, problem.noise**2, 2.0 * problem.batch_size * problem.horizon
    )
    assert 0.5 * floor <= more < floor


def test_easy_phase_is_near_it_and_the_file_says_so() -> None:
    solution = solve(Problem(3.5, 2.0, 1000))
    assert solution.excess_loss / solution.certificate.floor == pytest.approx(1.543, abs=2e-3)
    assert solution.summary()["floor"] == solution.certificate.floor


def test_samples_of_a_schedule_count() -> None:
    problem = Problem(3.5, 2.0, 100)
    eta = np.full(100, 0.1)
    ramp = Schedule(100, np.arange(100), {"eta": eta, "batch_size": np.linspace(1.0, 9.0, 100)})
    found = verify(problem, ramp)
    assert found.floor == pytest.approx(label_floor(problem.spectrum, 0.25, 500.0), rel=1e-12)
    assert found.summary()["floor"] == found.floor < found.replay.excess_loss


def test_without_label_noise_it_says_nothing() -> None:
    assert label_floor(PowerLawSpectrum(2.0, 2.0, 100), 0.0, 10.0) == 0.0
