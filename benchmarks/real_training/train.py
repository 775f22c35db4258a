"""Train the small model along a schedule: one run, as a function of its seed and its rates.

A seed fixes the first parameters and the order of the data, whatever the schedule: runs of two
schedules with one seed are a pair. Many steps are one compiled call, shared by all schedules and
horizons, as the rates are its argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from benchmarks.real_training.text import standard_library
from benchmarks.real_training.transformer import Parameters, Shape, decayed, initialise, loss
from optsched import InvalidProblem, MissingExtra

__all__ = ["Recipe", "evaluate", "optimiser", "run_cell", "sample", "train"]

EVALUATION_BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """What all runs share.

    Attributes
    ----------
    shape : Shape
    batch : int
        Blocks of ``shape.context`` characters an update.
    beta1, beta2, weight_decay : float
        Of AdamW; the decay is multiplied by the rate, as in optax and torch.
    every : int
        Steps from one evaluation to the next; horizons are multiples of it.
    blocks : int
        Validation blocks of an evaluation, a multiple of 64: the same ones every time.
    """

    shape: Shape = field(default_factory=Shape)
    batch: int = 8
    beta1: float = 0.9
    beta2: float = 0.95
    weight_decay: float = 0.1
    every: int = 50
    blocks: int = 128

    def __post_init__(self) -> None:
        for name in ("batch", "every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidProblem(name, value, "a whole number >= 1")
        if self.blocks < 1 or self.blocks % EVALUATION_BATCH:
            raise InvalidProblem("blocks", self.blocks, f"a multiple of {EVALUATION_BATCH}")

    def settings(self) -> dict[str, Any]:
        """As plain values, with the text's digest, for a sweep."""
        return {**asdict(self), "text": standard_library().digest}

    @staticmethod
    def from_settings(settings: Mapping[str, Any]) -> Recipe:
        """The recipe that `settings` described."""
        known = {name: value for name, value in settings.items() if name != "text"}
        return Recipe(**{**known, "shape": Shape(**known["shape"])})


def optimiser(recipe: Recipe, rate: Any) -> Any:
    """AdamW of optax at a rate: a number, a traced value or a function of the step."""
    try:
        import optax
    except ModuleNotFoundError:
        raise MissingExtra(
            "real training needs optax: pip install 'optsched[real-training]'"
        ) from None
    return optax.adamw(
        rate,
        b1=recipe.beta1,
        b2=recipe.beta2,
        weight_decay=recipe.weight_decay,
        mask=decayed,
    )


def sample(key: jax.Array, step: Any, data: jax.Array, recipe: Recipe) -> jax.Array:
    """Blocks of update ``step``, shape (batch, context + 1): a function of key and step alone."""
    length = recipe.shape.context + 1
    last = len(data) - length
    starts = jax.random.randint(jax.random.fold_in(key, step), (recipe.batch,), 0, last)
    return data[starts[:, None] + jnp.arange(length)]


@partial(jax.jit, static_argnames="recipe", donate_argnames=("parameters", "state"))
def _advance(
    parameters: Parameters,
    state: Any,
    key: jax.Array,
    first: jax.Array,
    rates: jax.Array,
    data: jax.Array,
    held_out: jax.Array,
    recipe: Recipe,
) -> tuple[Parameters, Any, jax.Array, jax.Array]:
    """``len(rates)`` updates from step ``first``, then the mean training and validation loss."""

    def update(carry: Any, now: Any) -> Any:
        parameters, state = carry
        step, rate = now
        blocks = sample(key, step, data, recipe)
        value, gradient = jax.value_and_grad(loss)(parameters, blocks, recipe.shape)
        change, state = optimiser(recipe, rate).update(gradient, state, parameters)
        return (jax.tree.map(jnp.add, parameters, change), state), value

    steps = first + jnp.arange(len(rates))
    (parameters, state), values = jax.lax.scan(update, (parameters, state), (steps, rates))
    return parameters, state, values.mean(), _validation(parameters, held_out, recipe)


@partial(jax.jit, static_argnames="recipe")
def _validation(parameters: Parameters, held_out: jax.Array, recipe: Recipe) -> jax.Array:
    parts = held_out.reshape(-1, EVALUATION_BATCH, held_out.shape[1])
    return jax.lax.map(lambda blocks: loss(parameters, blocks, recipe.shape), parts).mean()


def evaluate(parameters: Parameters, recipe: Recipe) -> float:
    """Validation loss, on the blocks that runs are evaluated on."""
    return float(_validation(parameters, _data(recipe)[1], recipe))


@cache
def _data(recipe: Recipe) -> tuple[jax.Array, jax.Array]:
    text = standard_library()
    held_out = text.validation_blocks(recipe.blocks, recipe.shape.context)
    return jnp.asarray(text.train), jnp.asarray(held_out)


def train(
    rates: NDArray[np.float64],
    seed: int,
    recipe: Recipe,
    visit: Callable[[int, Parameters, Any], None] | None = None,
) -> tuple[dict[str, list[float]], Parameters]:
    """Train for ``len(rates)`` steps.

    Parameters
    ----------
    rates : numpy.ndarray, shape (T,)
        Learning rate of every update; T a multiple of ``recipe.every``.
    seed : int
    recipe : Recipe
    visit : callable, optional
        Called with the number of updates done, the parameters and the state of the optimiser,
        before the first update and at every evaluation; what it keeps it must copy.

    Returns
    -------
    log : dict
        ``step`` (updates done), ``train`` (mean loss since the last row) and ``loss``
        (validation), a row every ``recipe.every`` steps.
    parameters : dict
        At the end.

    Raises
    ------
    InvalidProblem
        T is not a multiple of ``recipe.every``.
    FloatingPointError
        The loss is not finite: the rates are too large.
    """
    if not len(rates) or len(rates) % recipe.every:
        raise InvalidProblem("horizon", len(rates), f"a multiple of {recipe.every} steps")
    data, held_out = _data(recipe)
    first_key, data_key = jax.random.split(jax.random.key(seed))
    parameters = initialise(first_key, recipe.shape)
    state = optimiser(recipe, 0.0).init(parameters)
    log: dict[str, list[float]] = {"step": [], "train": [], "loss": []}
    if visit is not None:
        visit(0, parameters, state)
    for first in range(0, len(rates), recipe.every):
        part = jnp.asarray(rates[first : first + recipe.every], jnp.float32)
        parameters, state, mean, value = _advance(
            parameters, state, data_key, jnp.asarray(first), part, data, held_out, recipe
        )
        row = (first + recipe.every, float(mean), float(value))
        if not np.isfinite(row).all():
            raise FloatingPointError(f"loss not finite at step {row[0]}, peak {rates.max():g}")
        for column, entry in zip(log.values(), row, strict=True):
            column.append(entry)
        if visit is not None:
            visit(row[0], parameters, state)
    return log, parameters


def run_cell(cell: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """One run as a cell of a sweep: ``cell`` has a name, a seed and the rates as knots."""
    recipe = Recipe.from_settings(settings)
    rates = np.interp(np.arange(cell["horizon"]), cell["steps"], cell["eta"])
    return train(rates, cell["seed"], recipe)[0]
