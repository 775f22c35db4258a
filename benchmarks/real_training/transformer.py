r"""A small transformer language model in JAX: pre-norm blocks of causal attention and an MLP.

Characters in, logits of the next character out; float32; RMSNorm without bias; learned positions;
the output shares the table of the input. Parameters are a dict of arrays, so any optimiser of
optax takes them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.real_training.text import VOCABULARY
from optsched import InvalidProblem

__all__ = [
    "Shape",
    "decayed",
    "initialise",
    "logits",
    "loss",
    "matrix_count",
    "parameter_count",
    "shapes",
]

Parameters = dict[str, Any]
EPSILON = 1e-6  # of RMSNorm


@dataclass(frozen=True)
class Shape:
    """Sizes of the model.

    Attributes
    ----------
    width : int
        Of the residual stream; a multiple of ``heads``.
    layers, heads : int
    context : int
        Number of characters that a prediction may look back on.
    expansion : int
        Width of the MLP over ``width``.
    """

    width: int = 32
    layers: int = 2
    heads: int = 4
    context: int = 64
    expansion: int = 4

    def __post_init__(self) -> None:
        for field in ("width", "layers", "heads", "context", "expansion"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidProblem(field, value, "a whole number >= 1")
        if self.width % self.heads:
            raise InvalidProblem("width", self.width, f"a multiple of the {self.heads} heads")


def initialise(key: jax.Array, shape: Shape) -> Parameters:
    """Random parameters: normal, of variance 1 / fan-in; residual outputs smaller by depth.

    Matrices of all layers are stacked, shape (layers, in, out).
    """
    d, n, wide = shape.width, shape.layers, shape.expansion * shape.width
    keys = iter(jax.random.split(key, 6))

    def normal(size: tuple[int, ...], fan_in: float) -> jax.Array:
        return jax.random.normal(next(keys), size, jnp.float32) / math.sqrt(fan_in)

    return {
        "embedding": normal((VOCABULARY, d), d),
        "position": normal((shape.context, d), d),
        "blocks": {
            "attention": normal((n, d, 3 * d), d),
            "joined": normal((n, d, d), 2.0 * n * d),
            "up": normal((n, d, wide), d),
            "down": normal((n, wide, d), 2.0 * n * wide),
            "attention_norm": jnp.ones((n, d), jnp.float32),
            "mlp_norm": jnp.ones((n, d), jnp.float32),
        },
        "norm": jnp.ones(d, jnp.float32),
    }


def matrix_count(shape: Shape) -> int:
    """Parameters that a character is multiplied with: the blocks' matrices and the output table."""
    d = shape.width
    return shape.layers * d * d * (4 + 2 * shape.expansion) + VOCABULARY * d


def shapes(shape: Shape) -> Parameters:
    """Shapes and types of the parameters, without making them."""
    return jax.eval_shape(lambda: initialise(jax.random.key(0), shape))


def decayed(parameters: Parameters) -> Parameters:
    """Which parameters weight decay acts on: the matrices of the blocks, not tables and gains."""

    def matrix(path: tuple[Any, ...], _: jax.Array) -> bool:
        return path[0].key == "blocks" and not path[-1].key.endswith("norm")

    return jax.tree_util.tree_map_with_path(matrix, parameters)


def parameter_count(parameters: Parameters) -> int:
    """Number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(parameters))


def _normed(x: jax.Array, gain: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPSILON) * gain


def _attention(x: jax.Array, block: Parameters, heads: int) -> jax.Array:
    batch, length, d = x.shape
    split = (batch, length, 3, heads, d // heads)
    query, key, value = jnp.moveaxis((x @ block["attention"]).reshape(split), 2, 0)
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key) / math.sqrt(d // heads)
    causal = jnp.tril(jnp.ones((length, length), bool))
    shares = jax.nn.softmax(jnp.where(causal, scores, -jnp.inf), axis=-1)
    mixed = jnp.einsum("bhqk,bkhd->bqhd", shares, value).reshape(batch, length, d)
    return mixed @ block["joined"]


def logits(parameters: Parameters, characters: jax.Array, shape: Shape) -> jax.Array:
    """Logits of the next character, shape (batch, length, vocabulary), from (batch, length)."""
    x = parameters["embedding"][characters] * math.sqrt(shape.width)
    x = x + parameters["position"][: characters.shape[1]]
    for i in range(shape.layers):
        block = {name: value[i] for name, value in parameters["blocks"].items()}
        x = x + _attention(_normed(x, block["attention_norm"]), block, shape.heads)
        hidden = jax.nn.gelu(_normed(x, block["mlp_norm"]) @ block["up"])
        x = x + hidden @ block["down"]
    return _normed(x, parameters["norm"]) @ parameters["embedding"].T


def loss(parameters: Parameters, blocks: jax.Array, shape: Shape) -> jax.Array:
    """Mean cross-entropy in nats a character over blocks of shape (batch, context + 1)."""
    characters = blocks.astype(jnp.int32)
    scores = jax.nn.log_softmax(logits(parameters, characters[:, :-1], shape))
    return -jnp.mean(jnp.take_along_axis(scores, characters[:, 1:, None], axis=-1))
