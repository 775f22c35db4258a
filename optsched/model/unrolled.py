"""Small matrices whose entries are arrays, or None where an entry is zero for every input.

Products are unrolled, so that the compiler fuses them over all modes and blocks, and zeros cost
nothing.
"""

from __future__ import annotations

import jax.numpy as jnp
from jax import Array

__all__ = [
    "Entry",
    "Matrix",
    "Vector",
    "add",
    "apply",
    "closure",
    "dense",
    "dot",
    "plus",
    "product",
    "times",
]

Entry = Array | float | None
Vector = list[Entry]
Matrix = list[list[Entry]]


def add(*terms: Entry) -> Entry:
    """Sum of entries."""
    real = [term for term in terms if term is not None]
    return sum(real[1:], real[0]) if real else None


def times(x: Entry, y: Entry) -> Entry:
    """Product of two entries."""
    return None if x is None or y is None else x * y


def dot(row: Vector, column: Vector) -> Entry:
    """Sum of products."""
    return add(*(times(x, y) for x, y in zip(row, column, strict=True)))


def apply(matrix: Matrix, vector: Vector) -> Vector:
    """Matrix times vector."""
    return [dot(row, vector) for row in matrix]


def product(left: Matrix, right: Matrix) -> Matrix:
    """Matrix times matrix."""
    columns = list(map(list, zip(*right, strict=True)))
    return [apply(columns, row) for row in left]


def plus(left: Matrix, right: Matrix) -> Matrix:
    """Sum of two matrices."""
    pairs = zip(left, right, strict=True)
    return [[add(x, y) for x, y in zip(*rows, strict=True)] for rows in pairs]


def closure(matrix: Matrix) -> list[list[bool]]:
    """Where some power of I + matrix can be unlike the identity."""
    size = range(len(matrix))
    reach = [[matrix[i][j] is not None for j in size] for i in size]
    for k in size:
        for i in size:
            for j in size:
                reach[i][j] = reach[i][j] or (reach[i][k] and reach[k][j])
    return reach


def dense(matrix: Matrix, like: Array | float = 0.0) -> Array:
    """One array with the shape of ``like``, then rows and columns."""
    zero = jnp.zeros(jnp.shape(like))
    rows = [jnp.stack([zero if x is None else zero + x for x in row], -1) for row in matrix]
    return jnp.stack(rows, -2)
