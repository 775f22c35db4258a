"""Train a small model along a schedule: one run, as a function of its seed and its rates.

A seed fixes the first parameters and the order of the data, whatever the schedule: runs of two
schedules with one seed are a pair. Many steps are one compiled call, shared by all schedules and
horizons, as the rates are its argument.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from benchmarks.real_training import network, transformer
from benchmarks.real_training.images import drawn_digits
from benchmarks.real_training.network import Network
from benchmarks.real_training.text import standard_library
from benchmarks.real_training.transformer import Parameters, Shape
from optsched import InvalidProblem, MissingExtra

__all__ = ["Recipe", "evaluate", "optimiser", "run_cell", "sample", "train"]

EVALUATION_BATCH = 64
OPTIMIZERS = ("adamw", "sgd")
MODELS: dict[type, ModuleType] = {Shape: transformer, Network: network}


@dataclass(frozen=True)
class Recipe:
    """What all runs share.

    Attributes
    ----------
    shape : Shape or Network
        The transformer, which learns text, or the residual network, which learns images.
    batch : int
        Blocks of ``shape.context`` characters an update, or images.
    optimizer : {'adamw', 'sgd'}
    beta1, beta2 : float
        Of AdamW.
    momentum : float
        Of SGD.
    weight_decay : float
        Of the matrices; multiplied by the rate, as in optax and torch. For SGD it is added to the
        gradient, for AdamW it is not.
    every : int
        Steps from one evaluation to the next; horizons are multiples of it.
    blocks : int
        Validation blocks or images of an evaluation, a multiple of 64: the same ones every time.
    final_blocks : int
        Those that the final weights are evaluated on as well; 0: none.
    """

    shape: Shape | Network = field(default_factory=Shape)
    batch: int = 8
    optimizer: str = "adamw"
    beta1: float = 0.9
    beta2: float = 0.95
    momentum: float = 0.9
    weight_decay: float = 0.1
    every: int = 50
    blocks: int = 128
    final_blocks: int = 0

    def __post_init__(self) -> None:
        for name in ("batch", "every"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InvalidProblem(name, value, "a whole number >= 1")
        for name, least in (("blocks", EVALUATION_BATCH), ("final_blocks", 0)):
            value = getattr(self, name)
            if value < least or value % EVALUATION_BATCH:
                allowed = f"a multiple of {EVALUATION_BATCH}" + (", or 0" if not least else "")
                raise InvalidProblem(name, value, allowed)
        if self.optimizer not in OPTIMIZERS:
            raise InvalidProblem("optimizer", self.optimizer, "one of " + ", ".join(OPTIMIZERS))

    @property
    def model(self) -> ModuleType:
        """Functions of the model: ``initialise``, ``loss``, ``decayed``."""
        return MODELS[type(self.shape)]

    @property
    def language(self) -> Shape:
        """The shape, where only a transformer will do.

        Raises
        ------
        InvalidProblem
            It is another model's.
        """
        if not isinstance(self.shape, Shape):
            raise InvalidProblem("shape", self.shape, "a transformer's")
        return self.shape

    def settings(self) -> dict[str, Any]:
        """As plain values, with the digest of the data, for a sweep."""
        text = isinstance(self.shape, Shape)
        digest = standard_library().digest if text else drawn_digits().digest
        return {**asdict(self), "model": type(self.shape).__name__, "data": digest}

    @staticmethod
    def from_settings(settings: Mapping[str, Any]) -> Recipe:
        """The recipe that `settings` described."""
        known = {k: value for k, value in settings.items() if k not in ("model", "data")}
        kind = {kind.__name__: kind for kind in MODELS}[settings["model"]]
        return Recipe(**{**known, "shape": kind(**known["shape"])})


def optimiser(recipe: Recipe, rate: Any) -> Any:
    """AdamW or SGD of optax at a rate: a number, a traced value or a function of the step."""
    try:
        import optax
    except ModuleNotFoundError:
        raise MissingExtra(
            "real training needs optax: pip install 'optsched[real-training]'"
        ) from None
    mask, decay = recipe.model.decayed, recipe.weight_decay
    if recipe.optimizer == "sgd":
        return optax.chain(
            optax.add_decayed_weights(decay, mask),
            optax.sgd(rate, momentum=recipe.momentum),
        )
    return optax.adamw(rate, b1=recipe.beta1, b2=recipe.beta2, weight_decay=decay, mask=mask)


def sample(key: jax.Array, step: Any, data: jax.Array, recipe: Recipe) -> jax.Array:
    """Rows of update ``step``, shape (batch, length): a function of key and step alone.

    ``data`` is a text of shape (n,), of which blocks of context + 1 characters are taken, or has a
    row an image.
    """
    key = jax.random.fold_in(key, step)
    if data.ndim > 1:
        return data[jax.random.randint(key, (recipe.batch,), 0, len(data))]
    length = recipe.language.context + 1
    starts = jax.random.randint(key, (recipe.batch,), 0, len(data) - length)
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
        value, gradient = jax.value_and_grad(recipe.model.loss)(parameters, blocks, recipe.shape)
        change, state = optimiser(recipe, rate).update(gradient, state, parameters)
        return (jax.tree.map(jnp.add, parameters, change), state), value

    steps = first + jnp.arange(len(rates))
    (parameters, state), values = jax.lax.scan(update, (parameters, state), (steps, rates))
    return parameters, state, values.mean(), _validation(parameters, held_out, recipe)


@partial(jax.jit, static_argnames="recipe")
def _validation(parameters: Parameters, held_out: jax.Array, recipe: Recipe) -> jax.Array:
    parts = held_out.reshape(-1, EVALUATION_BATCH, held_out.shape[1])
    return jax.lax.map(
        lambda blocks: recipe.model.loss(parameters, blocks, recipe.shape), parts
    ).mean()


def evaluate(parameters: Parameters, recipe: Recipe, blocks: int | None = None) -> float:
    """Validation loss on the blocks that runs are evaluated on, or on another number of them."""
    held_out = _held_out(recipe.shape, blocks or recipe.blocks)
    return float(_validation(parameters, held_out, recipe))


@cache
def _training_data(kind: type[Shape | Network]) -> jax.Array:
    """A text of shape (n,), or images of shape (n, 65)."""
    return jnp.asarray(drawn_digits().train if kind is Network else standard_library().train)


@cache
def _held_out(shape: Shape | Network, blocks: int) -> jax.Array:
    """Blocks of the validation text, or validation images."""
    if isinstance(shape, Network):
        return jnp.asarray(drawn_digits().held_out(blocks))
    return jnp.asarray(standard_library().validation_blocks(blocks, shape.context))


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
    data, held_out = _training_data(type(recipe.shape)), _held_out(recipe.shape, recipe.blocks)
    first_key, data_key = jax.random.split(jax.random.key(seed))
    parameters = recipe.model.initialise(first_key, recipe.shape)
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
    """One run as a cell of a sweep: ``cell`` has a name, a seed and the rates as knots.

    The log of `train`, and ``final``: the loss of the final weights on ``final_blocks``.
    """
    recipe = Recipe.from_settings(settings)
    rates = np.interp(np.arange(cell["horizon"]), cell["steps"], cell["eta"])
    log, parameters = train(rates, cell["seed"], recipe)
    if not recipe.final_blocks:
        return {**log}
    return {**log, "final": evaluate(parameters, recipe, recipe.final_blocks)}
