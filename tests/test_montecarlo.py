"""Monte Carlo of real training runs, against the exact moments of quasi-hyperbolic momentum."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import pytest
from jax import Array

from optsched import InvalidProblem, PowerLawSpectrum
from optsched.model.montecarlo import MonteCarlo, monte_carlo
from optsched.model.propagate import map_modes
from optsched.model.qhm import QHMDynamics
from optsched.model.spectrum import Modes
from tests.test_momentum import NAMES, covariance_recursion

SPECTRUM = PowerLawSpectrum(2.2, 1.6, 6)
NOISE = 0.5
STEPS = 24
RUNS = 16_000
TIME = np.arange(STEPS)
FALLING = 0.5 * (1 - TIME / STEPS) + 0.02


@jax.jit
def _exact(dynamics: QHMDynamics, modes: Modes, controls: dict[str, Array]) -> tuple[Array, Array]:
    average, iterate = dynamics.readout(modes), dynamics.feedback(modes)

    def one(x: Array, now: dict[str, Array]) -> tuple[Array, tuple[Array, Array]]:
        matrix, source = dynamics.step(modes, now)
        x = map_modes(matrix, x) + source * (dynamics.sigma2 + (iterate * x).sum())
        return x, ((iterate * x).sum(), (average * x).sum())

    return jax.lax.scan(one, dynamics.initial(modes), controls)[1]


def exact_curves(omega: float, controls: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Excess losses of iterate and average after 1..T steps."""
    dynamics = QHMDynamics(5.0, NOISE**2, weight_decay=omega, averaged=True, decayed=True)
    with jax.enable_x64(True):
        iterate, average = _exact(dynamics, SPECTRUM.full(), controls)  # type: ignore[arg-type]
        return np.asarray(iterate), np.asarray(average)


def check(mean: np.ndarray, stderr: np.ndarray, exact: np.ndarray) -> None:
    """All steps within 4 standard errors, which are below 1 %."""
    z = (mean[1:] - exact) / stderr[1:]
    assert np.abs(z).max() < 4.0
    assert np.sqrt(np.mean(z**2)) < 2.0
    assert (stderr[1:] / mean[1:]).max() < 0.01
    assert mean[0] == pytest.approx(SPECTRUM.full().mu.sum(), rel=1e-12)
    assert stderr[0] < 1e-12


# All of one largest batch, so that the training compiles once.
CASES: dict[str, dict[str, Any]] = {
    "heavy ball": {"beta": 0.8, "nu": 1.0},
    "Nesterov": {"beta": 0.9, "nu": 0.9},
    "varying": {"beta": 1 - 1 / (TIME + 2.0), "nu": np.linspace(0.2, 0.9, STEPS)},
    "batches": {"beta": 0.7, "nu": 0.8, "batch_size": 2 + TIME // 8},
    "average": {"beta": 0.8, "nu": 1.0, "ema": np.linspace(0.0, 0.95, STEPS)},
    "decay": {"beta": 0.8, "nu": 0.7, "weight_decay": 0.3},
    "everything": {
        "beta": np.linspace(0.3, 0.9, STEPS),
        "nu": np.linspace(1.0, 0.4, STEPS),
        "ema": 1 - 1 / (TIME + 1.5),
        "batch_size": 4 - TIME // 8,
        "weight_decay": 0.1,
    },
}


@pytest.mark.parametrize("name", CASES)
def test_real_runs_have_the_exact_moments(name: str) -> None:
    case = {"eta": FALLING, "batch_size": 4, **CASES[name]}
    trained = monte_carlo(SPECTRUM, noise=NOISE, runs=RUNS, seed=7, **case)
    omega = case.pop("weight_decay", 0.0)
    controls = {n: np.broadcast_to(np.asarray(case.get(n, 0.0), float), STEPS) for n in NAMES}
    iterate, average = exact_curves(omega, controls)
    check(trained.mean, trained.stderr, iterate)
    if "ema" in case:
        assert trained.averaged_mean is not None and trained.averaged_stderr is not None
        check(trained.averaged_mean, trained.averaged_stderr, average)
    else:
        assert trained.averaged_mean is None and trained.averaged_stderr is None
    # The moments themselves against the recursion that the tests wrote from the update rule.
    by_hand = covariance_recursion(SPECTRUM, NOISE**2, omega, controls)
    assert (iterate[-1], average[-1]) == pytest.approx(by_hand, rel=1e-10)


def _same(one: MonteCarlo, other: MonteCarlo) -> None:
    np.testing.assert_allclose(one.mean, other.mean, rtol=1e-10)
    np.testing.assert_allclose(one.stderr, other.stderr, rtol=1e-8)


def test_the_same_runs_by_other_names() -> None:
    """Same seed, same samples: these pairs are the same training runs."""

    def run(batch_size: Any = 3, **controls: Any) -> MonteCarlo:
        return monte_carlo(SPECTRUM, batch_size, NOISE, FALLING, runs=20, seed=1, **controls)

    plain = run()
    _same(plain, run(beta=0.9, nu=0.0))
    _same(plain, run(beta=0.0, nu=np.linspace(0, 1, STEPS)))
    _same(plain, run(batch_size=np.full(STEPS, 3)))
    _same(run(beta=0.6, nu=0.5), run(beta=np.full(STEPS, 0.6), nu=np.full(STEPS, 0.5)))
    kept = run(ema=0.0)
    assert kept.averaged_mean is not None
    np.testing.assert_array_equal(kept.averaged_mean, kept.mean)
    frozen = run(ema=1.0)
    assert frozen.averaged_mean is not None
    np.testing.assert_allclose(frozen.averaged_mean, frozen.mean[0])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"runs": 1}, "runs"),
        ({"batch_size": 0}, "batch_size"),
        ({"batch_size": [1, 2, 2.5]}, "batch_size"),
        ({"batch_size": [1, 2]}, "batch_size"),
        ({"batch_size": np.nan}, "batch_size"),
        ({"eta": 0.1}, "eta"),
        ({"eta": [0.1, np.inf, 0.1]}, "eta"),
        ({"eta": "fast"}, "eta"),
        ({"beta": 1.5}, "beta"),
        ({"beta": [0.5, 0.5]}, "beta"),
        ({"nu": -0.1}, "nu"),
        ({"ema": [0.5, 0.5, 2.0]}, "ema"),
        ({"weight_decay": -1.0}, "weight_decay"),
        ({"spectrum": PowerLawSpectrum(2.0, 1.5)}, "features"),
    ],
)
def test_bad_input_is_named(changes: dict[str, Any], field: str) -> None:
    good: dict[str, Any] = {"spectrum": SPECTRUM, "batch_size": 2, "noise": 0.1, "eta": [0.1] * 3}
    with pytest.raises(InvalidProblem, match=field):
        monte_carlo(**(good | changes))
