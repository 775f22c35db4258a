"""A small residual network for images of 8 by 8 pixels in JAX: pre-norm blocks of 3 by 3 filters.

Half the blocks see all pixels, then means of 2 by 2 of them with twice the channels; RMSNorm over
the channels, no bias; float32. The mean over the pixels is classified by a linear map.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.real_training.images import CLASSES, SIDE
from optsched import InvalidProblem

__all__ = ["Network", "decayed", "initialise", "logits", "loss"]

Parameters = dict[str, Any]
EPSILON = 1e-6  # of RMSNorm
FILTER = 3


@dataclass(frozen=True)
class Network:
    """Sizes of the network.

    Attributes
    ----------
    channels : int
        Of the first half; twice as many in the second.
    depth : int
        Residual blocks of two filters in each half.
    """

    channels: int = 16
    depth: int = 1

    def __post_init__(self) -> None:
        for field in ("channels", "depth"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidProblem(field, value, "a whole number >= 1")


def initialise(key: jax.Array, shape: Network) -> Parameters:
    """Random parameters: normal, of variance 1 / fan-in; residual outputs smaller by depth.

    Filters are matrices, from the channels of 3 by 3 pixels to those of one.
    """
    narrow, wide, n = shape.channels, 2 * shape.channels, shape.depth
    keys = iter(jax.random.split(key, 7))
    area = FILTER * FILTER

    def normal(size: tuple[int, ...], fan_in: float) -> jax.Array:
        return jax.random.normal(next(keys), size, jnp.float32) / math.sqrt(fan_in)

    def half(width: int) -> Parameters:
        fan_in = area * width
        return {
            "first": normal((n, fan_in, width), fan_in),
            "second": normal((n, fan_in, width), 4.0 * n * fan_in),
            "norm": jnp.ones((n, width), jnp.float32),
        }

    return {
        "stem": normal((area, narrow), area),
        "fine": half(narrow),
        "widen": normal((narrow, wide), narrow),
        "coarse": half(wide),
        "norm": jnp.ones(wide, jnp.float32),
        "classes": normal((wide, CLASSES), wide),
    }


def decayed(parameters: Parameters) -> Parameters:
    """Which parameters weight decay acts on: all but the gains."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: not path[-1].key.endswith("norm"), parameters
    )


def logits(parameters: Parameters, pixels: jax.Array, shape: Network) -> jax.Array:
    """Logits of the classes, shape (batch, 10), from bytes of shape (batch, 64)."""
    x = (pixels.astype(jnp.float32) / 85.0 - 1.0).reshape(-1, SIDE, SIDE, 1)
    x = _filtered(x, parameters["stem"])
    x = _blocks(x, parameters["fine"], shape.depth)
    batch, side, _, channels = x.shape
    x = x.reshape(batch, side // 2, 2, side // 2, 2, channels).mean(axis=(2, 4))
    x = _blocks(x @ parameters["widen"], parameters["coarse"], shape.depth)
    return _normed(x, parameters["norm"]).mean(axis=(1, 2)) @ parameters["classes"]


def loss(parameters: Parameters, rows: jax.Array, shape: Network) -> jax.Array:
    """Mean cross-entropy in nats an image over rows of 64 pixels and a label."""
    scores = jax.nn.log_softmax(logits(parameters, rows[:, :-1], shape))
    return -jnp.mean(jnp.take_along_axis(scores, rows[:, -1:].astype(jnp.int32), axis=-1))


def _normed(x: jax.Array, gain: jax.Array) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + EPSILON) * gain


def _filtered(x: jax.Array, weights: jax.Array) -> jax.Array:
    """A 3 by 3 filter with zeros outside: one product of matrices, which CPUs are good at."""
    side = x.shape[1]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    near = [padded[:, i : i + side, j : j + side] for i in range(FILTER) for j in range(FILTER)]
    return jnp.concatenate(near, axis=-1) @ weights


def _blocks(x: jax.Array, half: Parameters, depth: int) -> jax.Array:
    for i in range(depth):
        hidden = jax.nn.gelu(_filtered(_normed(x, half["norm"][i]), half["first"][i]))
        x = x + _filtered(hidden, half["second"][i])
    return x
