"""Curvature by products with the Hessian, against dense linear algebra."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.flatten_util import ravel_pytree

from optsched.diagnostics.curvature import Hessian, adam_preconditioner
from optsched.diagnostics.lanczos import DiagnosticFailed, extreme_eigenvalue, matrix_eigenvalue
from optsched.errors import InvalidProblem

SIZES = (10, 24, 9, 1)


def network(params: Any, x: Any, y: Any) -> Any:
    h = x
    for layer in params["hidden"]:
        h = jnp.tanh(h @ layer["w"] + layer["b"])
    return jnp.mean((h @ params["out"]["w"] + params["out"]["b"] - y) ** 2)


@pytest.fixture(scope="module")
def model() -> tuple[Any, Any, Any]:
    """A network with 499 parameters, in float32, and its data."""
    rng = np.random.default_rng(3)

    def layer(rows: int, columns: int) -> dict[str, Any]:
        w = rng.normal(size=(rows, columns)) / np.sqrt(rows)
        return {"w": jnp.asarray(w, jnp.float32), "b": jnp.zeros(columns, jnp.float32)}

    layers = [layer(i, j) for i, j in pairwise(SIZES)]
    x = jnp.asarray(rng.normal(size=(64, SIZES[0])), jnp.float32)
    return {"hidden": layers[:-1], "out": layers[-1]}, x, jnp.sin(2.0 * x[:, :1])


@pytest.fixture(scope="module")
def dense(model: tuple[Any, Any, Any]) -> np.ndarray:
    """The Hessian as JAX forms it, in float64."""
    with jax.enable_x64(True):
        params, x, y = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), model)
        flat, unravel = ravel_pytree(params)
        return np.asarray(jax.jit(jax.hessian(lambda v: network(unravel(v), x, y)))(flat))


@pytest.mark.parametrize("float64", [False, True])
def test_extreme_eigenvalues_of_500_parameters(
    model: tuple[Any, Any, Any], dense: np.ndarray, float64: bool
) -> None:
    params, x, y = model
    exact = np.linalg.eigvalsh(dense)
    hessian = Hessian(network, float64=float64)
    largest, smallest = hessian.largest(params, x, y), hessian.smallest(params, x, y)
    for found, value in ((largest, exact[-1]), (smallest, exact[0])):
        assert found.size == 499
        assert abs(found.value - value) < 1e-4 * abs(value)
        # The bound holds, and says something.
        assert abs(found.value - value) <= found.error + 1e-13
        assert found.error < 1e-3 * abs(value)
        assert np.linalg.norm(dense @ found.vector - value * found.vector) < 2.0 * found.error
    assert largest.products < 60
    assert jnp.ones(1).dtype == jnp.float32


def test_product(model: tuple[Any, Any, Any], dense: np.ndarray) -> None:
    params, x, y = model
    v = np.random.default_rng(0).normal(size=499)
    vector = ravel_pytree(params)[1](jnp.asarray(v, jnp.float32))
    product = Hessian(network).product(params, vector, x, y)
    assert jax.tree.leaves(product)[0].dtype == jnp.float32
    np.testing.assert_allclose(ravel_pytree(product)[0], dense @ v, rtol=1e-4, atol=2e-5)
    wide = Hessian(network, float64=True).product(params, vector, x, y)
    flat = np.concatenate([np.asarray(leaf).ravel() for leaf in jax.tree.leaves(wide)])
    assert flat.dtype == np.float64
    v32 = np.asarray(v, np.float32).astype(float)
    np.testing.assert_allclose(flat, dense @ v32, rtol=1e-9, atol=1e-12)


def test_preconditioned_eigenvalue(model: tuple[Any, Any, Any], dense: np.ndarray) -> None:
    params, x, y = model
    rng = np.random.default_rng(1)
    moment = jax.tree.map(lambda p: rng.uniform(0.0, 4.0, p.shape) ** 2, params)
    diagonal = adam_preconditioner(moment, 7, beta2=0.9, eps=1e-3)
    flat = np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(moment)])
    p = np.sqrt(flat / (1.0 - 0.9**7)) + 1e-3
    # The matrix is not symmetric as it stands; its eigenvalues are real all the same.
    exact = np.linalg.eigvals(dense / p[:, None])
    assert np.abs(exact.imag).max() < 1e-9
    hessian = Hessian(network)
    for found, value in (
        (hessian.largest(params, x, y, preconditioner=diagonal), exact.real.max()),
        (hessian.smallest(params, x, y, preconditioner=diagonal), exact.real.min()),
    ):
        assert abs(found.value - value) < 1e-4 * abs(value)
        assert abs(found.value - value) <= found.error


@pytest.mark.parametrize("deflate", [0, 20])
def test_trace_is_unbiased(model: tuple[Any, Any, Any], dense: np.ndarray, deflate: int) -> None:
    """Over 60 seeds of 20 probes, whose mean is known eight times better than one of them."""
    params, x, y = model
    hessian, exact = Hessian(network), np.trace(dense)
    found = [
        hessian.trace(params, x, y, samples=20, seed=seed, deflate=deflate) for seed in range(60)
    ]
    off = np.array([one.value - exact for one in found])
    errors = np.array([one.stderr for one in found])
    assert abs(off.mean()) < 3.0 * off.std(ddof=1) / np.sqrt(len(off))
    assert np.mean(np.abs(off) < 3.0 * errors) > 0.95
    # The stated error is the spread that there is.
    assert 0.75 < np.sqrt(np.mean(errors**2)) / off.std(ddof=1) < 1.33
    if not deflate:
        # Hutchinson's variance: twice the sum of squares off the diagonal.
        variance = 2.0 * ((dense**2).sum() - (np.diag(dense) ** 2).sum()) / 20
        assert np.mean(errors**2) == pytest.approx(variance, rel=0.15)
        assert found[0].products == 20
    else:
        assert found[0].products == 60


def test_deflation_is_quieter(model: tuple[Any, Any, Any]) -> None:
    params, x, y = model
    hessian = Hessian(network)
    plain = hessian.trace(params, x, y, samples=60)
    assert hessian.trace(params, x, y, samples=20, deflate=20).stderr < 0.8 * plain.stderr


def test_full_deflation_is_exact() -> None:
    matrix = np.diag([1.0, 2.0, 30.0, -4.0])
    estimate = Hessian(lambda p: 0.5 * p @ jnp.asarray(matrix) @ p, float64=True).trace(
        np.ones(4), samples=2, deflate=4
    )
    assert estimate.value == pytest.approx(29.0, rel=1e-12)
    assert estimate.stderr < 1e-12


@given(st.integers(1, 40), st.integers(0, 2**32), st.sampled_from(["LA", "SA"]))
def test_random_symmetric_matrices(size: int, seed: int, which: str) -> None:
    a = np.random.default_rng(seed).normal(size=(size, size))
    a = a + a.T
    exact = np.linalg.eigvalsh(a)[-1 if which == "LA" else 0]
    found = matrix_eigenvalue(a, which=which)
    scale = np.abs(a).max() * size
    assert found.value == pytest.approx(exact, rel=1e-7, abs=1e-12 * scale)
    assert abs(found.value - exact) <= found.error + 1e-14 * scale


def test_zero_and_sparse_matrices() -> None:
    from scipy.sparse import diags_array

    assert matrix_eigenvalue(np.zeros((30, 30))).value == 0.0
    assert matrix_eigenvalue(diags_array(np.arange(1.0, 51.0))).value == pytest.approx(50.0)
    low = matrix_eigenvalue(np.diag(np.arange(50.0)), which="SA", tol=1e-9)
    assert abs(low.value) < 1e-8


def test_matrices_that_are_refused() -> None:
    rotation = np.kron(np.eye(20), [[0.0, 1.0], [-1.0, 0.0]])  # eigenvalues +-i
    for matrix, text in (
        (rotation, "symmetric one: others may have complex eigenvalues"),
        (np.eye(12) + 1e-6 * np.triu(np.ones((12, 12))), "symmetric"),
        (1j * np.eye(3), "complex128 array"),
        (np.ones((3, 4)), r"shape \(n, n\)"),
        (np.full((3, 3), np.nan), "finite"),
        (np.empty((0, 0)), "shape"),
    ):
        with pytest.raises(InvalidProblem, match=text):
            matrix_eigenvalue(matrix)


def test_too_few_products() -> None:
    matrix = np.diag(1.0 + 1e-9 * np.arange(400.0))
    with pytest.raises(DiagnosticFailed, match=r"did not converge.*raise most_products"):
        extreme_eigenvalue(lambda v: matrix @ v, 400, tol=1e-15, most_products=30)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"params": {}}, "params: got 'no arrays'"),
        ({"params": {"w": np.arange(3)}}, "params: got 'int64 array'"),
        ({"params": {"w": np.ones(3, complex)}}, "params: got 'complex128 array'"),
        ({"preconditioner": {"w": -np.ones(3)}}, "preconditioner: got -1.0, allowed: finite"),
        ({"preconditioner": {"w": np.ones(4)}}, "preconditioner: got 'shapes"),
        ({"tol": 0.0}, "tol: got 0.0"),
        ({"most_products": 3}, "most_products: got 3"),
        ({"seed": -1}, "seed: got -1"),
    ],
)
def test_bad_input(change: dict[str, Any], text: str) -> None:
    arguments: dict[str, Any] = {"params": {"w": np.ones(3)}, **change}
    with pytest.raises(InvalidProblem, match=text.replace("(", r"\(")):
        Hessian(lambda p: sum(jnp.sum(x**2) for x in p.values())).largest(**arguments)


def test_bad_losses_and_moments() -> None:
    with pytest.raises(InvalidProblem, match="loss: got 'float'"):
        Hessian(3.0)  # type: ignore[arg-type]
    with pytest.raises(InvalidProblem, match="loss: got 'a product with nan or inf'"):
        Hessian(lambda p: jnp.sum(jnp.sqrt(p - p))).largest(np.ones(3))
    with pytest.raises(InvalidProblem, match="samples: got 1"):
        Hessian(jnp.sum).trace(np.ones(3), samples=1)
    with pytest.raises(InvalidProblem, match="deflate: got 4"):
        Hessian(jnp.sum).trace(np.ones(3), deflate=4)
    for change in ({"step": 0}, {"beta2": 1.0}, {"eps": 0.0}, {"second_moment": -np.ones(2)}):
        with pytest.raises(InvalidProblem, match=next(iter(change))):
            adam_preconditioner(**{"second_moment": np.ones(2), "step": 3, **change})
