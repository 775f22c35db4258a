"""Plain SGD in NumPy against JAX and against the recursion written out; what it imports."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import CubicSpline
from scipy.optimize import brentq
from scipy.special import zeta as hurwitz

from optsched import PowerLawSpectrum, Problem, Schedule, replay
from optsched.arrays import Floats
from optsched.control.bounds.geodesic import relaxed_geodesic
from optsched.control.mesh import graded_mesh
from optsched.control.rate.plain import PlainObjective
from optsched.control.traced import TracedObjective
from optsched.model.dynamics import BlockMaps, Blocks, SGDDynamics, knot_blocks
from optsched.model.propagate import block_maps, chain
from optsched.model.sgd.chain import PlainChain, plain_parts, pull_back
from optsched.model.spectrum import Modes, TabulatedSpectrum
from optsched.numerics import EvenSpline, halfway, monotone_root, zeta

MODES = PowerLawSpectrum(2.2, 1.6, 400).modes(1e4)
SINGLES = np.ones(5)
LENGTH = np.concatenate([SINGLES, np.round(np.geomspace(2, 3000, 20)), [700.0, 9.0, 2.0], SINGLES])


def _rates(seed: int, high: float, zeros: float) -> Floats:
    rng = np.random.default_rng(seed)
    size = len(LENGTH) + 1
    eta = high * np.geomspace(1.0, 1e-3, size) * rng.uniform(0.5, 1.0, size)
    return np.where(rng.random(size) < zeros, 0.0, eta)


CASES = {
    "usual": (SGDDynamics(5.0, 0.25), 0.3, 0.0),
    "no label noise, large batch": (SGDDynamics(1e4, 0.0), 1.5, 0.0),
    "rates of 0": (SGDDynamics(5.0, 0.25), 0.3, 0.3),
    "ODE": (SGDDynamics(5.0, 0.25, continuous=True), 0.3, 0.0),
    "batches of one": (SGDDynamics(1.0, 4.0), 0.1, 0.0),
    "tiny rates": (SGDDynamics(5.0, 0.25), 1e-9, 0.0),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_blocks_and_derivatives_are_those_of_jax(case: tuple[SGDDynamics, float, float]) -> None:
    sgd, high, zeros = case
    eta = _rates(1, high, zeros)
    weight = np.random.default_rng(2).uniform(0.5, 2.0, len(MODES.lam))

    def blocks(length: Any, ends: Any) -> Blocks:
        return Blocks(length, {"eta": ends[0]}, {"eta": ends[1]})

    def final(drift: Any, noise: Any) -> Any:
        length = jnp.asarray(LENGTH)
        maps = sgd.blocks(MODES, blocks(length, drift), blocks(length, noise))
        path = chain(sgd, MODES, maps)
        return (path.final[:, 0] * weight).sum(), path.states

    ends = np.stack([eta[:-1], eta[1:]])
    with jax.enable_x64(True):
        grad = jax.jit(jax.grad(final, argnums=(0, 1), has_aux=True))
        (drift, noise), states = grad(jnp.asarray(ends), jnp.asarray(ends))
        maps = block_maps(sgd, MODES, knot_blocks(jnp.asarray(LENGTH), {"eta": jnp.asarray(eta)}))
    parts = plain_parts(sgd, MODES, LENGTH, {"eta": eta[:-1]}, {"eta": eta[1:]})
    plain = PlainChain(sgd, parts)
    got = plain.states(MODES.mu)
    np.testing.assert_allclose(parts.phi, maps.phi[..., 0, 0], rtol=1e-11)
    np.testing.assert_allclose(np.stack(parts.w, 1), maps.w[..., 0], rtol=1e-9, atol=1e-17)
    np.testing.assert_allclose(got, np.asarray(states)[..., 0], rtol=1e-10)
    found = pull_back(plain, MODES, got, plain.costates(weight))
    for mine, reference in zip(found, (drift, noise), strict=True):
        reference = np.asarray(reference)
        np.testing.assert_allclose(mine, reference, rtol=1e-9, atol=1e-12 * np.abs(reference).max())


def test_costates_are_derivatives_in_the_states() -> None:
    sgd, eta = SGDDynamics(3.0, 0.5), _rates(3, 0.4, 0.0)
    plain = PlainChain(sgd, plain_parts(sgd, MODES, LENGTH, {"eta": eta[:-1]}, {"eta": eta[1:]}))
    end = np.linspace(1.0, 2.0, len(MODES.lam))
    costates = plain.costates(end)
    states = plain.states(MODES.mu)
    direction = np.random.default_rng(0).uniform(0.0, 1.0, len(end)) * MODES.mu
    # The chain is affine in its start.
    moved = plain.states(MODES.mu + direction)
    assert (moved[-1] - states[-1]) @ end == pytest.approx(costates[0] @ direction, rel=1e-9)
    np.testing.assert_allclose(plain.advanced(states[:-1]), states[1:], rtol=1e-12)


def test_batch_size_along_a_block_is_that_of_jax() -> None:
    sgd, eta = SGDDynamics(5.0, 0.25), _rates(4, 0.3, 0.0)
    knots = {"eta": eta, "batch_size": np.linspace(1.0, 40.0, len(eta))}
    first = {name: value[:-1] for name, value in knots.items()}
    last = {name: value[1:] for name, value in knots.items()}
    parts = plain_parts(sgd, MODES, LENGTH, first, last)
    with jax.enable_x64(True):
        table = {name: jnp.asarray(value) for name, value in knots.items()}
        maps: BlockMaps = block_maps(sgd, MODES, knot_blocks(jnp.asarray(LENGTH), table))
    np.testing.assert_allclose(parts.half_phi, maps.half_phi[..., 0, 0], rtol=1e-11)
    np.testing.assert_allclose(np.stack(parts.w, 1), maps.w[..., 0], rtol=1e-9, atol=1e-17)
    np.testing.assert_allclose(
        np.stack(parts.half_w, 1), maps.half_w[..., 0], rtol=1e-9, atol=1e-17
    )


@pytest.mark.parametrize(("horizon", "warmup"), [(40, 0), (3000, 11), (10**8, 0)])
def test_objective_is_that_of_jax(horizon: int, warmup: int) -> None:
    problem = Problem(1.8, 2.3, horizon, warmup=warmup)
    modes, cap = problem.modes, problem.eta_cap
    path = relaxed_geodesic(modes, problem.batch_size, problem.noise**2, cap, horizon)
    mesh = graded_mesh(path, horizon, 40, 1.0, warmup)
    assert isinstance(problem.dynamics, SGDDynamics)
    plain = PlainObjective(problem.dynamics, modes, mesh)
    traced = TracedObjective(problem.dynamics, modes, mesh)
    x = np.log(np.interp(mesh.free_steps, path.t, 0.7 * path.eta))
    for mine, reference in zip(plain(x), traced(x), strict=True):
        np.testing.assert_allclose(mine, reference, rtol=1e-9, atol=1e-12)
    audit, known = plain.audit(x), traced.audit(x)
    j = len(modes.lam)
    np.testing.assert_allclose(audit.states, known.states[:, :j], rtol=1e-9)
    np.testing.assert_allclose(audit.costates, known.costates[:, :j], rtol=1e-9)
    np.testing.assert_allclose(audit.errors, known.errors, rtol=1e-4, atol=1e-14)


def _written_out(modes: Modes, sigma2: float, eta: Floats, m: Floats) -> tuple[Floats, Floats]:
    """Excess loss and bias after every step, in the plainest way."""
    e, h = modes.mu.copy(), modes.mu.copy()
    curves = [(e.sum(), h.sum())]
    for rate, size in zip(eta, m, strict=True):
        x = rate * modes.lam
        factor = (1.0 - x) ** 2 + x**2 / size
        e = factor * e + rate**2 / size * modes.nu * (e.sum() + sigma2)
        h = factor * h
        curves.append((e.sum(), h.sum()))
    excess, bias = np.array(curves).T
    return excess, bias


@pytest.mark.parametrize("horizon", [1, 2, 700, 2500])
def test_steps_are_the_recursion(horizon: int) -> None:
    rng = np.random.default_rng(horizon)
    eta, m = rng.uniform(0.0, 0.5, horizon), rng.uniform(1.0, 9.0, horizon)
    spectrum = PowerLawSpectrum(1.7, 1.4, 90)
    schedule = Schedule(horizon, np.arange(horizon), {"eta": eta, "batch_size": m})
    played = replay(spectrum, SGDDynamics(5.0, 0.3), schedule)
    excess, bias = _written_out(spectrum.full(), 0.3, eta, m)
    np.testing.assert_allclose(played.excess_curve, excess[played.steps], rtol=1e-12)
    np.testing.assert_allclose(played.bias_curve, bias[played.steps], rtol=1e-12)


def test_steps_on_nodes_of_which_some_have_no_noise() -> None:
    modes = PowerLawSpectrum(1.7, 1.4, math.inf).modes(500.0)
    assert (modes.nu == 0.0).any() and (modes.mu == 0.0).any()
    eta = np.full(300, 0.2)
    played = replay(
        PowerLawSpectrum(1.7, 1.4, math.inf),
        SGDDynamics(4.0, 0.3),
        Schedule.from_array(eta),
        modes=modes,
    )
    excess, bias = _written_out(modes, 0.3, eta, np.full(300, 4.0))
    np.testing.assert_allclose(played.excess_curve, excess[played.steps], rtol=1e-12)
    np.testing.assert_allclose(played.bias_curve, bias[played.steps], rtol=1e-12)


def test_modes_that_underflow_do_no_harm() -> None:
    """Eigenvalues whose square is 0 to the machine carry their bias along."""
    spectrum = TabulatedSpectrum(np.array([1.0, 1e-90, 1e-100]), np.array([1.0, 1e45, 1e50]))
    modes = spectrum.full()._replace(nu=np.array([1.0, 0.0, 0.0]))
    eta = np.full(50, 0.5)
    played = replay(spectrum, SGDDynamics(2.0, 0.0), Schedule.from_array(eta))
    excess, _ = _written_out(modes, 0.0, eta, np.full(50, 2.0))
    assert played.excess_loss == pytest.approx(excess[-1], rel=1e-12)


@pytest.mark.parametrize("count", [4, 5, 6, 33, 400])
def test_spline_is_the_usual_one(count: int) -> None:
    x = np.linspace(-2.0, 3.0, count)
    y = np.cumsum(np.random.default_rng(count).normal(size=count))
    at = np.linspace(-2.5, 3.5, 301)
    np.testing.assert_allclose(
        EvenSpline(-2.0, 3.0, y)(at), CubicSpline(x, y)(at), atol=1e-12 * np.abs(y).max() * 10
    )
    even = np.arange(count)
    reference = CubicSpline(even, np.eye(count))(even[:-1] + 0.5).T
    np.testing.assert_allclose(halfway(count), reference, atol=1e-14)


@pytest.mark.parametrize("s", [1.0001, 1.3, 2.0, 7.7, 60.0])
@pytest.mark.parametrize("first", [1.0, 2.0, 31.0, 1001.0])
def test_zeta(s: float, first: float) -> None:
    assert zeta(s, first) == pytest.approx(float(hurwitz(s, first)), rel=2e-15)


@pytest.mark.parametrize("power", [0.2, 1.0, 5.0])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_root(power: float, scale: float) -> None:
    calls = []

    def function(x: float) -> float:
        calls.append(x)
        return 0.5 - 1.0 / (1.0 + x**power * math.exp(x) / scale)

    got, count = monotone_root(function, 0.0, 30.0), len(calls)
    assert got == pytest.approx(brentq(function, 0.0, 30.0, xtol=1e-300, maxiter=900), rel=2e-15)  # type: ignore[arg-type]
    assert count < 60
    with pytest.raises(ValueError, match="one sign"):
        monotone_root(function, 29.0, 30.0)


WITHOUT_COMPILER = """
import json, sys
import numpy as np
from optsched import Problem, Schedule, replay, solve
from optsched.model.ode import ode_excess_loss
from optsched.studies.compare.baselines import best_baselines
from optsched.studies.verify import verify

problem = Problem(a=3.5, b=2, horizon=300)
solution = solve(problem, gap=0.005)
best_baselines(problem)
verify(problem, Schedule.from_array(np.full(300, 0.1)))
ode_excess_loss(problem.modes, problem.dynamics, solution.schedule)
solve(Problem(a=1.5, b=2, horizon=10**9, warmup=10**4, eta_min=1e-4))
long = Problem(a=3.5, b=2, horizon=10**9)
ramp = Schedule(10**9, [0, 10**9 - 1], {"eta": [0.1, 0.0], "batch_size": [1.0, 9.0]})
replay(long.spectrum, long.dynamics, ramp)
heavy = {"jax", "casadi", "matplotlib", "scipy"}
print(json.dumps(sorted(heavy & {name.split(".")[0] for name in sys.modules})))
"""


def test_a_plain_solve_loads_no_compiler() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_COMPILER], check=True, capture_output=True, text=True
    )
    assert json.loads(done.stdout) == []


STRICT = """
import numpy as np
np.seterr(all="raise")
import jax
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_transfer_guard", "disallow")
from optsched import Problem, solve
from optsched.studies.compare.baselines import best_baselines
from optsched.studies.verify import verify
steep = Problem(a=50, b=50, horizon=500, noise=0.0)  # most of its numbers underflow
best_baselines(steep)
print(verify(steep, solve(steep).schedule).status)
print(solve(Problem(a=3.5, b=2, horizon=12, controls="eta,batch")).status)
"""


def test_settings_of_the_process_are_its_own() -> None:
    command = [sys.executable, "-W", "error", "-c", STRICT]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["ok", "converged"]


def test_a_platform_that_is_not_there() -> None:
    options = ["--a", "3.5", "--b", "2", "--horizon", "12"]
    command = [sys.executable, "-m", "optsched.cli", "solve", *options]
    env = {**os.environ, "JAX_PLATFORMS": "cuda"}
    plain = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert plain.returncode == 0, plain.stderr
    joint = [*command, "--control", "eta,batch"]
    done = subprocess.run(joint, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("optsched: JAX has no device to compute on")
    assert len(done.stderr.splitlines()) == 1
