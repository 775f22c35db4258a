"""The floor under every optimiser: its sum, its proof in small dimension, what may not pass it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from optsched import PowerLawSpectrum, Problem, Schedule, TabulatedSpectrum, solve
from optsched.arrays import Floats
from optsched.control.bounds.floor import label_floor, mean_batch, mode_sum, seen, unseen
from optsched.studies.compare import compare
from optsched.studies.phases import phase_diagram
from optsched.studies.scaling import scaling
from optsched.studies.verify import verify


@pytest.mark.parametrize("a", [1.2, 1.5, 3.5])
@pytest.mark.parametrize("share", [4.0, 4e4, 4e9])
def test_sum_of_many_modes_from_below(a: float, share: float) -> None:
    mu = np.arange(1.0, 300_001.0) ** -a
    exact = (mu / (1.0 + share * mu)).sum()
    found = mode_sum(PowerLawSpectrum(a, 2.0, 300_000), share)
    assert found <= exact * (1.0 + 1e-12)
    assert found == pytest.approx(exact, rel=2e-3)
    assert mode_sum(PowerLawSpectrum(a, 2.0), share) >= found


def test_sum_without_an_end() -> None:
    """All of a power law, against the integral from far out, which is a sum from below as well."""
    share, a = 1e6, 1.5
    k = np.arange(1.0, 4e6)
    head = (1.0 / (k**a + share)).sum()
    far = np.geomspace(4e6, 1e16, 400_000)
    value = 1.0 / (far**a + share)
    tail = float((np.diff(far) * (value[:-1] + value[1:]) / 2.0).sum()) + 2.0 / math.sqrt(1e16)
    assert mode_sum(PowerLawSpectrum(a, 2.0), share) == pytest.approx(head + tail, rel=2e-3)


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
    more = label_floor(
        problem.spectrum, problem.noise**2, 2.0 * problem.batch_size * problem.horizon
    )
    assert 0.0 < more < floor


def test_easy_phase_is_near_it_and_the_file_says_so() -> None:
    solution = solve(Problem(3.5, 2.0, 1000))
    assert solution.excess_loss / solution.certificate.floor == pytest.approx(1.539, abs=2e-3)
    assert solution.summary()["floor"] == solution.certificate.floor


def test_samples_of_a_schedule_count() -> None:
    problem = Problem(3.5, 2.0, 100)
    eta = np.full(100, 0.1)
    ramp = Schedule(100, np.arange(100), {"eta": eta, "batch_size": np.linspace(1.0, 9.0, 100)})
    found = verify(problem, ramp)
    # Sizes that are no whole numbers stand for random ones, of a few samples more.
    low, high = (label_floor(problem.spectrum, 0.25, n) for n in (600.0, 500.0))
    assert low < found.floor < high
    assert found.summary()["floor"] == found.floor < found.replay.excess_loss


def test_without_label_noise_samples_see_so_many_directions() -> None:
    spectrum = PowerLawSpectrum(2.0, 2.0, 100)
    assert label_floor(spectrum, 0.0, 100.0) == 0.0
    beyond = float((np.arange(11.0, 101.0) ** -2.0).sum())
    found = label_floor(spectrum, 0.0, 10.0)
    assert found >= unseen(spectrum, 10.0) == pytest.approx(beyond)
    table = TabulatedSpectrum(np.array([0.1, 3.0, 1.0]), np.array([1.0, 0.1, 1.0]))
    assert label_floor(table, 0.0, 1.0) == pytest.approx(0.1 + 0.03)
    assert label_floor(table, 0.0, 3.0) == 0.0


def best_risk(mu: Floats, sigma2: float, n: int, rng: np.random.Generator) -> tuple[float, float]:
    """Of the best linear estimator from n samples: its mean over draws, and the error of that."""
    risks = []
    for _ in range(200):
        z = rng.normal(size=(n, len(mu))) * mu
        gram = (z / mu) @ z.T + sigma2 * np.eye(n)
        risks.append(mu.sum() - np.trace(np.linalg.solve(gram, z @ z.T)))
    return float(np.mean(risks)), float(np.std(risks) / math.sqrt(len(risks)))


@pytest.mark.parametrize(
    ("a", "size", "n", "sigma", "ratio"),
    [
        (3.5, 300, 50, 0.5, 1.05),
        (3.5, 300, 50, 1e-3, 4.5),
        (3.5, 300, 50, 0.0, 4.5),
        (1.2, 300, 30, 0.1, 1.45),
        (1.5, 300, 1, 0.3, 1.35),
        (2.0, 40, 100, 0.1, 1.06),
        (1.2, 400, 10, 1.0, 1.2),
        (1.1, 30, 28, 0.2, 2.6),
    ],
)
def test_fluctuations_are_in_it(a: float, size: int, n: int, sigma: float, ratio: float) -> None:
    """Never above the best linear estimator, and so near to it."""
    mu = np.arange(1.0, size + 1.0) ** -a
    risk, error = best_risk(mu, sigma**2, n, np.random.default_rng(0))
    for spectrum in (PowerLawSpectrum(a, 2.0, size), TabulatedSpectrum(mu, np.ones(size))):
        floor = label_floor(spectrum, sigma**2, n)
        assert risk / ratio < floor <= risk + 3.0 * error


@pytest.mark.parametrize("n", [1.0, 3.0, 12.0])
@pytest.mark.parametrize("sigma2", [1e-3, 0.3])
def test_what_samples_say_of_a_mode(n: float, sigma2: float) -> None:
    """The bound of the mean of an inverse matrix, drawn; exact for one sample and no other mode."""
    mu, rng = np.arange(1.0, 41.0) ** -1.3, np.random.default_rng(1)
    drawn = []
    for _ in range(400):
        z = rng.normal(size=(int(n), 40))
        z[:, 0] = 0.0
        drawn.append(np.trace(np.linalg.inv(sigma2 * np.eye(int(n)) + (z * mu) @ z.T)))
    assert np.mean(drawn) - 3.0 * np.std(drawn) / 20.0 <= seen(
        PowerLawSpectrum(1.3, 2.0, 40), sigma2, n
    )
    assert seen(PowerLawSpectrum(1.3, 2.0, 1), sigma2, 1.0) == pytest.approx(1.0 / sigma2)


def test_batches_that_are_no_whole_numbers() -> None:
    """m stands for two sizes whose inverses average to 1/m."""
    assert mean_batch(7.0) == 7.0
    for m in (1.0, 1.25, 4.0 / 3.0, 2.9, 1000.5):
        low = math.floor(m)
        share = (1.0 / m - 1.0 / (low + 1)) / (1.0 / low - 1.0 / (low + 1))
        assert mean_batch(m) == pytest.approx(share * low + (1.0 - share) * (low + 1), rel=1e-12)
        assert m <= mean_batch(m) <= min(1.125 * m, m + 0.25 / m) * (1.0 + 1e-12)


def trained(
    rng: np.random.Generator, lam: Floats, w: Floats, sigma: float, steps: int, kind: int
) -> tuple[Floats, int]:
    """Excess losses of 600 real runs of one optimiser, and how many samples each has seen."""
    runs, modes = 600, len(lam)
    x = np.zeros((runs, modes))
    v, mean = x.copy(), x.copy()
    metric = np.exp(rng.normal(0.0, 1.0, modes)) if kind >= 2 else np.ones(modes)
    rate = 10 ** rng.uniform(-1.0, 0.3) / (metric * lam).sum()
    beta = rng.uniform(0.0, 0.9) if kind % 2 else 0.0
    sizes = rng.integers(1, 4, steps)
    for step, size in enumerate(sizes.tolist()):
        psi = rng.normal(size=(runs, size, modes)) * np.sqrt(lam)
        y = psi @ w + sigma * rng.normal(size=(runs, size))
        gradient = np.einsum("rsn,rs->rn", psi, np.einsum("rsn,rn->rs", psi, x) - y) / size
        v = beta * v + (1.0 - beta) * gradient
        x = x - rate * metric * v
        mean += (x - mean) / (step + 1.0)
    risks = [(lam * (one - w) ** 2).sum(1) for one in (x, mean)]
    return min(risks, key=lambda risk: float(risk.mean())), int(sizes.sum())


@pytest.mark.parametrize("seed", range(12))
def test_no_real_run_passes_it(seed: int) -> None:
    """SGD, momentum, diagonal preconditioners, averages: drawn, with batches of many sizes."""
    rng = np.random.default_rng(seed)
    modes = int(rng.integers(2, 30))
    lam, w = 10.0 ** rng.uniform(-2, 0, modes), rng.normal(size=modes)
    sigma = float(rng.choice([0.0, 0.1, 1.0]))
    risk, samples = trained(rng, lam, w, sigma, int(rng.integers(1, 12)), seed % 4)
    floor = label_floor(TabulatedSpectrum(lam, w), sigma**2, samples)
    assert floor <= risk.mean() + 4.0 * risk.std() / math.sqrt(len(risk))
    assert floor > 0.0 or (sigma == 0.0 and samples >= modes)


def test_studies_say_how_much_any_momentum_could_gain() -> None:
    problem = Problem(3.5, 5.0, 300)
    found = compare(problem, ["constant"], free=())
    assert found.over_floor == found.optimum.excess_loss / found.optimum.certificate.floor > 1.0
    assert found.summary()["over_floor"] == found.over_floor
    study = scaling(problem, [30, 300], schedule="constant")
    point = study.points[-1]
    assert point.floor == found.optimum.certificate.floor == point.summary()["floor"]
    assert point.over_floor > found.over_floor
    assert study.summary()["over_floor"][-1] == point.over_floor
    # Without label noise and with more samples than modes there is none.
    silent = scaling(problem.replace(noise=0.0, features=3), [10, 20], schedule="constant")
    assert silent.summary()["over_floor"] == [None, None]


def test_a_phase_diagram_maps_it() -> None:
    diagram = phase_diagram([3.5], [2.0, 5.0], [100, 300], families=(), workers=1)
    easy, hard = diagram.field("over_floor")[:, 0]
    assert 1.0 < easy < hard
    assert "over_floor" in diagram.names
