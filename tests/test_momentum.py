"""Second moments of momentum, averaging and weight decay, against direct recursions."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched import PowerLawSpectrum
from optsched.model.dynamics import SGDDynamics, knot_blocks
from optsched.model.propagate import block_maps, run_chain
from optsched.model.qhm import QHMDynamics

SPECTRUM = PowerLawSpectrum(2.2, 1.6, 12)
NAMES = ("eta", "beta", "nu", "batch_size", "ema")


def covariance_recursion(
    spectrum: PowerLawSpectrum, sigma2: float, omega: float, controls: dict[str, np.ndarray]
) -> tuple[float, float]:
    """Excess losses of iterate and average, by the covariance of (e, v, average error, target).

    Written from the update rule, with dense 4 x 4 matrices: nothing is shared with the library.
    """
    modes = spectrum.full()
    lam = modes.lam
    start = np.array([-1.0, 0.0, -1.0, 1.0])
    s = (modes.mu / lam)[:, None, None] * np.outer(start, start)
    for eta, beta, nu, m, rho in zip(*(controls[name] for name in NAMES), strict=True):
        loss = sigma2 + (lam * s[:, 0, 0]).sum()
        for j, x in enumerate(lam):
            gradient = np.array([x, 0.0, 0.0, 0.0])
            error, target = np.eye(4)[0], np.eye(4)[3]
            v = beta * np.eye(4)[1] + (1 - beta) * gradient
            e = error - eta * ((1 - nu) * gradient + nu * v) - eta * omega * (error + target)
            average = rho * np.eye(4)[2] + (1 - rho) * e
            a = np.stack([e, v, average, target])
            b_e = -eta * ((1 - nu) + nu * (1 - beta))
            b = np.array([b_e, 1 - beta, (1 - rho) * b_e, 0.0])
            noise = (x**2 * s[j, 0, 0] + x * loss) / m
            s[j] = a @ s[j] @ a.T + np.outer(b, b) * noise
    return float((lam * s[:, 0, 0]).sum()), float((lam * s[:, 2, 2]).sum())


def _blocks(
    dynamics: QHMDynamics | SGDDynamics, counts: list[int], knots: dict[str, np.ndarray]
) -> float:
    with jax.enable_x64(True):
        blocks = knot_blocks(np.array(counts, float), knots)  # type: ignore[arg-type]
        maps = block_maps(dynamics, SPECTRUM.full(), blocks)
        return float(run_chain(dynamics, SPECTRUM.full(), maps)[1][-1])


PARTS = [
    {"momentum": m, "averaged": a, "decayed": d}
    for m in (True, False)
    for a in (False, True)
    for d in (False, True)
]


@pytest.mark.parametrize("parts", PARTS)
def test_single_steps_are_the_recursion(parts: dict[str, bool]) -> None:
    rng = np.random.default_rng(0)
    steps, omega = 9, 0.3 if parts["decayed"] else 0.0
    controls = {
        "eta": rng.uniform(0.0, 0.8, steps),
        "beta": rng.uniform(0.0, 0.95, steps),
        "nu": rng.uniform(0.0, 1.0, steps) * parts["momentum"],
        "batch_size": rng.uniform(1.0, 9.0, steps),
        "ema": rng.uniform(0.0, 0.9, steps),
    }
    exact = covariance_recursion(SPECTRUM, 0.3, omega, controls)[int(parts["averaged"])]
    dynamics = QHMDynamics(5.0, 0.3, weight_decay=omega, depth=4, **parts)
    knots = {name: np.append(values, 0.5) for name, values in controls.items()}
    assert _blocks(dynamics, [1] * steps, knots) == pytest.approx(exact, rel=1e-12)


@given(
    st.lists(st.integers(1, 40), min_size=6, max_size=6),
    st.floats(0.05, 0.6),
    st.floats(0.0, 0.98),
    st.floats(0.0, 1.0),
)
def test_blocks_are_exact_up_to_the_loss_inside(
    counts: list[int], eta: float, beta: float, nu: float
) -> None:
    """Constant controls: blocks differ from steps by the quadratic loss inside them only."""
    counts = [1] * 26 + counts
    total = sum(counts)
    full = np.ones(total)
    values = (eta, beta, nu, 20.0, 0.0)
    controls = {str(name): value * full for name, value in zip(NAMES, values, strict=True)}
    exact, _ = covariance_recursion(SPECTRUM, 0.3, 0.0, controls)
    ones = np.ones(len(counts) + 1)
    got = _blocks(
        QHMDynamics(20.0, 0.3, depth=8),
        counts,
        {"eta": eta * ones, "beta": beta * ones, "nu": nu * ones},
    )
    assert got == pytest.approx(exact, rel=1e-2)


def test_without_coupling_a_block_of_any_length_is_exact() -> None:
    """A huge batch leaves no noise: 10^6 steps in one block are the power of one step."""
    dynamics = QHMDynamics(1e15, 0.0, beta=0.999, nu=0.7, depth=20)
    got = _blocks(dynamics, [10**6 - 1], {"eta": np.array([1e-3, 1e-3])})
    modes = SPECTRUM.full()
    total = 0.0
    for lam, mu in zip(modes.lam, modes.mu, strict=True):
        p, q = 1e-3 * (1 - 0.7 * 0.999), 1e-3 * 0.7 * 0.999
        a = np.array([[1 - p * lam, -q], [0.001 * lam, 0.999]])
        values, vectors = np.linalg.eig(a)
        power = (vectors * values ** (10**6 - 1)) @ np.linalg.inv(vectors)
        total += mu * abs(power[0, 0]) ** 2
    assert got == pytest.approx(total, rel=1e-6)


def test_a_block_beyond_the_depth_is_nan() -> None:
    assert np.isnan(_blocks(QHMDynamics(5.0, 0.3, depth=4), [100], {"eta": np.array([0.1, 0.1])}))


def test_no_momentum_is_sgd() -> None:
    rng = np.random.default_rng(1)
    counts = [1, 1, 1, 2, 3, 4, 5, 6]
    knots = {"eta": np.full(9, 0.2), "batch_size": rng.uniform(2, 8, 1).repeat(9)}
    ours = _blocks(QHMDynamics(5.0, 0.3, nu=0.0, beta=0.9, depth=4), counts, knots)
    assert ours == pytest.approx(_blocks(SGDDynamics(5.0, 0.3), counts, knots), rel=1e-4)
