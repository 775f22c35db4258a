"""What the recipe measures on the small model: noise scale, sharpness, averaged weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.real_training.text import standard_library
from benchmarks.real_training.train import Recipe, evaluate, train
from benchmarks.real_training.transformer import Parameters, loss
from optsched.diagnostics.curvature import Hessian, adam_preconditioner
from optsched.diagnostics.lanczos import Eigenvalue
from optsched.rules.averaging import MovingAverage
from optsched.rules.batch.noise_scale import NoiseScale, two_batch

__all__ = ["Averages", "curvature_blocks", "gradient_noise", "measured_cell", "sharpness"]

PARTS, DRAWS = 32, 16  # blocks of the big batch, and independent big batches
CURVATURE_BLOCKS = 64
CURVATURE_ERROR = 0.02  # relative: batches differ by more


@cache
def _blocks(count: int, length: int, seed: int) -> jax.Array:
    """Blocks of the training part, at random places."""
    text = standard_library().train
    starts = np.random.default_rng(seed).integers(0, len(text) - length, count)
    return jnp.asarray(text[starts[:, None] + np.arange(length)])


@partial(jax.jit, static_argnames="recipe")
def _squares(
    parameters: Parameters, blocks: jax.Array, recipe: Recipe
) -> tuple[jax.Array, jax.Array]:
    """Mean square norm of the gradients of single blocks, and that of their mean."""
    one = jax.grad(lambda p, block: loss(p, block[None], recipe.language))
    each = jax.vmap(one, in_axes=(None, 0))(parameters, blocks)
    rows = jnp.hstack([g.reshape(len(blocks), -1) for g in jax.tree.leaves(each)])
    return jnp.mean(jnp.sum(rows**2, axis=1)), jnp.sum(jnp.mean(rows, axis=0) ** 2)


def gradient_noise(parameters: Parameters, recipe: Recipe) -> NoiseScale:
    """Noise scale of the gradient, in blocks, from batches of one and of 32 blocks."""
    length = recipe.language.context + 1
    batches = (_blocks(PARTS, length, seed) for seed in range(DRAWS))
    pairs = np.array([_squares(parameters, blocks, recipe) for blocks in batches], dtype=float)
    return two_batch(pairs[:, 0], pairs[:, 1], 1, PARTS)


@cache
def _hessian(recipe: Recipe) -> Hessian:
    return Hessian(lambda parameters, blocks: loss(parameters, blocks, recipe.language))


def curvature_blocks(recipe: Recipe) -> jax.Array:
    """The 64 blocks that the curvature is measured on."""
    return _blocks(CURVATURE_BLOCKS, recipe.language.context + 1, DRAWS)


def sharpness(parameters: Parameters, state: Any, recipe: Recipe) -> Eigenvalue:
    """Largest eigenvalue of the Hessian preconditioned by AdamW, on 64 blocks.

    ``state`` is that of `train.optimiser`, after one update at least.
    """
    import optax

    adam = next(
        part
        for part in jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, optax.ScaleByAdamState))
        if isinstance(part, optax.ScaleByAdamState)
    )
    count = int(np.asarray(adam.count))
    scale = adam_preconditioner(adam.nu, count, beta2=recipe.beta2)
    blocks = curvature_blocks(recipe)
    return _hessian(recipe).largest(parameters, blocks, preconditioner=scale, tol=CURVATURE_ERROR)


class Averages:
    """Moving averages of the weights along a run, updated at every evaluation.

    Parameters
    ----------
    windows : sequence of float
        Effective windows, in steps; long against the steps from one evaluation to the next.
    """

    def __init__(self, windows: Sequence[float]) -> None:
        self.averages = [MovingAverage.from_window(window) for window in windows]
        self.weights: list[Parameters] = []
        self.last = 0

    def __call__(self, step: int, parameters: Parameters, state: Any) -> None:
        """Take in the weights after ``step`` updates."""
        if not self.weights:
            copied = jax.tree.map(lambda p: np.array(p, dtype=np.float64), parameters)
            self.weights = [copied for _ in self.averages]
        for i, average in enumerate(self.averages):
            keep = average.memory(step - self.last)
            self.weights[i] = jax.tree.map(
                lambda w, p, keep=keep: keep * w + (1.0 - keep) * np.asarray(p, dtype=np.float64),
                self.weights[i],
                parameters,
            )
        self.last = step


def measured_cell(cell: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """A run as `train.run_cell`, with the losses of averaged weights and the noise at the end."""
    recipe = Recipe.from_settings(settings)
    rates = np.interp(np.arange(cell["horizon"]), cell["steps"], cell["eta"])
    averages = Averages(cell["windows"])
    log, parameters = train(rates, cell["seed"], recipe, averages)
    single = [jax.tree.map(jnp.float32, weights) for weights in averages.weights]
    noise = gradient_noise(parameters, recipe)
    return {
        **log,
        "averaged": [evaluate(weights, recipe) for weights in single],
        "noise_scale": noise.value,
        "noise_scale_stderr": noise.stderr,
    }
