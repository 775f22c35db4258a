"""Exports to optax, with the real framework; what needs JAX alone runs without.

pip install '.[test,optax]'
python -m pytest tests/test_export_optax.py
"""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from optsched import InvalidProblem, Schedule
from optsched.schedules.exports.optax import heavy_ball, to_optax
from optsched.schedules.exports.snippets import snippet

T = 100
KNOTS = Schedule.from_knots([0, 10, 60, 99], eta=[0.25, 0.75, 0.1, 0.01])
HEAVY = KNOTS.replace(beta=[0.5, 0.95, 0.0, 0.9])
QHM = HEAVY.replace(nu=[0.25, 1.0, 0.5, 0.0])
PAGE = Path(__file__).parents[1] / "docs" / "exports.md"
TYPES = {"w": jnp.bfloat16, "b": jnp.float32}
PARAMETERS = {"w": jnp.ones(3, jnp.bfloat16), "b": jnp.ones(2, jnp.float32)}


def recipe(containing: str, **names: Any) -> Any:
    """Run the example of the documentation that contains some text."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    found = [block for block in blocks if containing in block]
    assert len(found) == 1, containing
    scope = {"jax": jax, "jnp": jnp, "to_optax": to_optax, "heavy_ball": heavy_ball, **names}
    exec(found[0], scope)
    return types.SimpleNamespace(**scope)


def gradients(parameters: Any, step: Any) -> Any:
    return jax.tree.map(lambda p: jnp.full_like(p, jnp.sin(1.0 + step)), parameters)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("extend", ["hold", "zero", "raise"])
def test_values(extend: Any, x64: bool) -> None:
    schedule = HEAVY.replace(extend=extend)
    counts = np.arange(T + 3)
    with jax.enable_x64(x64):
        for name in ("eta", "beta"):
            f = to_optax(schedule, name)
            held = HEAVY(counts, name)
            past = {"hold": held, "zero": 0.0 if name == "eta" else held, "raise": np.nan}[extend]
            wanted = np.where(counts < T, held, past)
            options: Any = {"rtol": 1e-12 if x64 else 1e-5, "atol": 1e-7}
            np.testing.assert_allclose(jax.vmap(f)(jnp.asarray(counts)), wanted, **options)
            jitted = jax.jit(f)
            for step in (0, 1, T - 1, T, T + 1):
                np.testing.assert_allclose(jitted(step), wanted[step], **options)
                if step < T or extend != "raise":
                    for count in (step, jnp.asarray(step), np.int32(step)):
                        np.testing.assert_allclose(f(count), wanted[step], **options)
            _, scanned = jax.lax.scan(lambda k, _, f=f: (k + 1, f(k)), 0, length=T)
            np.testing.assert_allclose(scanned, wanted[:T], **options)
    if extend == "raise":
        with pytest.raises(InvalidProblem, match="step: got 100"):
            to_optax(schedule)(T)


def test_below_zero_the_first_value_holds() -> None:
    for extend in ("hold", "zero", "raise"):
        f = to_optax(KNOTS.replace(extend=extend))
        for count in (-5, jnp.int32(-5), np.int64(-1)):
            assert float(f(count)) == float(jax.jit(f)(jnp.asarray(count))) == KNOTS(0)
    np.testing.assert_allclose(f(jnp.arange(-2, 2)), [KNOTS(0), KNOTS(0), KNOTS(0), KNOTS(1)])
    optax = pytest.importorskip("optax")
    joined = optax.join_schedules([optax.linear_schedule(0.0, 1.0, 5), to_optax(KNOTS)], [5])
    wanted = [0.0, 0.8, KNOTS(0), KNOTS(1)]
    np.testing.assert_allclose([joined(k) for k in (0, 4, 5, 6)], wanted, rtol=1e-6)
    jitted = jax.jit(joined)
    np.testing.assert_allclose([jitted(jnp.int32(k)) for k in (0, 4, 5, 6)], wanted, rtol=1e-6)


def test_large_counts() -> None:
    schedule = Schedule.from_knots([0, 2**24, 2**24 + 1, 10**12], eta=[0.5, 0.5, 0.25, 0.0])
    f = jax.jit(to_optax(schedule))
    for step in (2**24 - 1, 2**24, 2**24 + 1, 2**31 - 1):
        assert float(f(step)) == pytest.approx(schedule(step), rel=1e-6)
    assert float(to_optax(schedule)(10**12)) == 0.0  # a Python int has no limit


def test_types() -> None:
    f = to_optax(KNOTS)
    for value in (f(3), f(jnp.int32(3)), jax.jit(f)(3), jax.vmap(f)(jnp.arange(3))):
        assert value.dtype == jnp.float32
        assert (value * jnp.ones((), jnp.bfloat16)).dtype == jnp.bfloat16
    assert jax.jit(to_optax(KNOTS, dtype=jnp.float16))(3).dtype == jnp.float16
    with pytest.raises(InvalidProblem, match="control: got 'nu'"):
        to_optax(KNOTS, "nu")
    with pytest.raises(InvalidProblem, match="per_update"):
        to_optax(KNOTS.replace(unit="tokens"))
    with pytest.raises(InvalidProblem, match="step: got"):
        f(jnp.float32(0.5))
    with pytest.raises(InvalidProblem, match="no nu"):
        heavy_ball(QHM)


def run(optimizer: Any, start: int, stop: int, parameters: Any, state: Any = None) -> Any:
    """Parameters after some updates under jit, and the state."""
    return path(optimizer, start, stop, parameters, state)[-1]


def path(optimizer: Any, start: int, stop: int, parameters: Any, state: Any = None) -> Any:
    """Parameters and state after each update."""
    optax = pytest.importorskip("optax")

    @jax.jit
    def update(parameters: Any, state: Any, step: Any) -> Any:
        updates, state = optimizer.update(gradients(parameters, step), state, parameters)
        return optax.apply_updates(parameters, updates), state

    state = optimizer.init(parameters) if state is None else state
    found = []
    for step in range(start, stop):
        parameters, state = update(parameters, state, step)
        found.append((parameters, state))
    return found


def test_optimizers_keep_types_and_resume() -> None:
    optax = pytest.importorskip("optax")
    made = recipe("inject_hyperparams(optax.adamw", optax=optax, schedule=HEAVY)
    for optimizer in (made.optimizer, made.logged):
        whole, state = run(optimizer, 0, T, PARAMETERS)
        assert {name: p.dtype for name, p in whole.items()} == TYPES
        half, saved = run(optimizer, 0, 37, PARAMETERS)
        saved = jax.tree.map(jnp.asarray, jax.tree.map(np.asarray, saved))  # as a checkpoint would
        resumed, _ = run(optimizer, 37, T, half, saved)
        for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(resumed), strict=True):
            np.testing.assert_array_equal(np.asarray(a, float), np.asarray(b, float))
    # The hyperparameters in the state are those of the update before.
    assert float(state.hyperparams["learning_rate"]) == pytest.approx(KNOTS(T - 1), rel=1e-5)
    assert float(state.hyperparams["b1"]) == pytest.approx(HEAVY(T - 1, "beta"), rel=1e-5)
    plain = optax.inject_hyperparams(optax.sgd)(to_optax(KNOTS))
    half = {"w": PARAMETERS["w"]}  # of several types optax takes the highest
    updates, _ = plain.update(gradients(half, 0), plain.init(half), half)
    assert updates["w"].dtype == jnp.bfloat16


def test_every_update_uses_its_step() -> None:
    optax = pytest.importorskip("optax")
    optimizer, one = optax.sgd(to_optax(KNOTS)), jnp.ones(())
    state = optimizer.init(one)
    for step in range(T + 2):
        updates, state = optimizer.update(one, state)
        assert float(-updates) == pytest.approx(KNOTS(step), rel=1e-6)
    steps = optax.MultiSteps(optax.sgd(to_optax(KNOTS)), every_k_schedule=3)
    state, found = steps.init(one), []
    for _ in range(9):
        updates, state = steps.update(one, state)
        found.append(-float(updates))
    np.testing.assert_allclose(found, [0, 0, KNOTS(0), 0, 0, KNOTS(1), 0, 0, KNOTS(2)], rtol=1e-6)


@pytest.mark.parametrize("kind", ["ball", "method"])
def test_momentum_is_that_of_optsched(kind: str) -> None:
    optax = pytest.importorskip("optax")
    optimizer = getattr(recipe("def qhm(", optax=optax, schedule=QHM), kind)
    w, v = 1.0, 0.0
    for step, (p, _) in enumerate(path(optimizer, 0, T, jnp.ones(()))):
        g, beta = np.sin(1.0 + step), QHM(step, "beta")
        nu = QHM(step, "nu") if kind == "method" else 1.0
        v = beta * v + (1.0 - beta) * g
        w -= QHM(step) * ((1.0 - nu) * g + nu * v)
        assert float(p) == pytest.approx(w, rel=2e-5, abs=2e-5)
    if kind == "method":
        half, _ = run(optimizer, 0, 5, PARAMETERS)
        assert half["w"].dtype == jnp.bfloat16


def test_snippet() -> None:
    optax = pytest.importorskip("optax")
    scope: dict[str, Any] = {}
    exec(snippet(HEAVY, "optax-snippet", momentum="heavy-ball").text, scope)
    ours = optax.inject_hyperparams(optax.sgd)(*heavy_ball(HEAVY))
    theirs = optax.inject_hyperparams(optax.sgd)(scope["learning_rate"], scope["momentum"])
    p = {"b": jnp.ones(2)}
    np.testing.assert_allclose(run(ours, 0, T, p)[0]["b"], run(theirs, 0, T, p)[0]["b"], rtol=1e-4)
