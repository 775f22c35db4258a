"""Trajectory invariance on real training: ``python -m benchmarks.invariance --output FOLDER``.

AdamW at constant rates on a network that is exactly scale-invariant: next-character prediction on
the source of the standard library, every batch fresh; an embedding and two hidden layers, each
followed by a normalisation without gain, the logits too, so that no weight matrix knows its length.
A sweep of 5 rates times 5 weight decays, by factors of 2, with several seeds, all in one compiled
loop. About 8 minutes on two cores. Prints the table of `docs/invariance.md`; writes runs.csv (which
``optsched rules invariance`` reads) and invariance.png to the folder.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.real_training.text import VOCABULARY, standard_library
from optsched.plots.invariance import plot_invariance
from optsched.rules.adamw.equilibrium import equilibrium_square
from optsched.rules.adamw.invariance import measure_invariance
from optsched.rules.adamw.sweep_runs import read_sweep

CONTEXT, WIDTH, EMBED = 12, 64, 12
BATCH, HELD_OUT = 32, 4096
LOGIT_SCALE = 3.0
B1, B2 = 0.9, 0.98
CENTRE_RATE, CENTRE_DECAY = 2e-3, 0.5
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)


def normalised(x: jax.Array) -> jax.Array:
    return x / jnp.sqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-12)


def initial(key: jax.Array) -> dict[str, jax.Array]:
    shapes = {
        "embed": (VOCABULARY, EMBED),
        "first": (CONTEXT * EMBED, WIDTH),
        "second": (WIDTH, WIDTH),
        "out": (WIDTH, VOCABULARY),
    }
    keys = jax.random.split(key, len(shapes))
    # The embedding's rows are normalised; a row has the usual size of a hidden layer's columns.
    return {
        name: jax.random.normal(k, shape) / np.sqrt(WIDTH)
        for k, (name, shape) in zip(keys, shapes.items(), strict=True)
    }


def logits(params: dict[str, jax.Array], contexts: jax.Array) -> jax.Array:
    h = normalised(params["embed"][contexts]).reshape(len(contexts), -1)
    h = jax.nn.relu(normalised(h @ params["first"]))
    h = jax.nn.relu(normalised(h @ params["second"]))
    return LOGIT_SCALE * normalised(h @ params["out"])


def loss(params: dict[str, jax.Array], contexts: jax.Array, after: jax.Array) -> jax.Array:
    scores = optax.softmax_cross_entropy_with_integer_labels(logits(params, contexts), after)
    return scores.mean()


def check_scale_invariance(letters: jax.Array) -> float:
    """Largest change of a logit when any one weight matrix is scaled by 7.3."""
    params = initial(jax.random.key(0))
    contexts, _ = windows(letters, jnp.arange(256))
    base = logits(params, contexts)
    scaled = [logits({**params, name: 7.3 * w}, contexts) for name, w in params.items()]
    return float(max(jnp.abs(value - base).max() for value in scaled))


def windows(letters: jax.Array, starts: jax.Array) -> tuple[jax.Array, jax.Array]:
    at = starts[:, None] + jnp.arange(CONTEXT + 1)
    rows = letters[at].astype(jnp.int32)
    return rows[:, :-1], rows[:, -1]


def step(carry: Any, key: jax.Array, rate: jax.Array, decay: jax.Array, letters: jax.Array) -> Any:
    """One AdamW step on a fresh batch; `optax` does the moments, the rate is this run's own."""
    params, state = carry
    starts = jax.random.randint(key, (BATCH,), 0, len(letters) - CONTEXT - 1)
    grads = jax.grad(loss)(params, *windows(letters, starts))
    updates, state = optax.scale_by_adam(B1, B2).update(grads, state)
    params = jax.tree.map(lambda w, u: w - rate * (u + decay * w), params, updates)
    return params, state


def train(
    kept: jax.Array,
    held: jax.Array,
    runs: tuple[np.ndarray, ...],
    steps: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Held-out losses, and mean squares of a matrix's weights, shape (steps, runs).

    ``runs`` are rates, weight decays and seeds.
    """
    rates, decays, seeds = runs
    starts = jax.random.randint(jax.random.key(99), (HELD_OUT,), 0, len(held) - CONTEXT - 1)
    contexts, after = windows(held, starts)
    params = jax.vmap(lambda seed: initial(jax.random.key(seed)))(jnp.asarray(seeds))
    state = jax.vmap(optax.scale_by_adam(B1, B2).init)(params)
    each = jnp.asarray(rates, jnp.float32), jnp.asarray(decays, jnp.float32), jnp.asarray(seeds)

    def advance(one: Any, rate: Any, decay: Any, seed: Any, first: Any, last: Any) -> Any:
        # The same seed sees the same batches at every rate: only the setting differs.
        def body(k: Any, carry: Any) -> Any:
            key = jax.random.fold_in(jax.random.key(seed + 1000), k)
            return step(carry, key, rate, decay, kept)

        return jax.lax.fori_loop(first, last, body, one)

    many = jax.jit(jax.vmap(advance, in_axes=(0, 0, 0, 0, None, None)))
    judge = jax.jit(jax.vmap(lambda p: loss(p, contexts, after)))
    norms = jax.jit(jax.vmap(lambda p: jnp.mean(p["second"] ** 2)))
    losses, squares, at, carry = [], [], 0, (params, state)
    for stop in steps:
        carry = many(carry, *each, at, int(stop))
        at = int(stop)
        losses.append(np.asarray(judge(carry[0])))
        squares.append(np.asarray(norms(carry[0])))
    return np.array(losses), np.array(squares)


def report(path: Path, rates: np.ndarray, decays: np.ndarray, squares: np.ndarray) -> None:
    """Collapse, shift and norms; the figure beside the table of runs."""
    curves = read_sweep(path)
    found = measure_invariance(curves)
    for name, group in (("equal lr", found.along_lr), ("equal gamma", found.along_gamma)):
        print(
            f"{name:12} last half: mean residual {group.late_residual:.4f}"
            f" ({group.late_residual_stderr:.4f}), per factor e {group.late:.4f}"
            f" ({group.late_stderr:.4f}); first step {group.per_efold[0]:.4f}"
        )
    late = found.steps >= 0.5 * found.steps[-1]
    print(
        f"spread of all runs {found.spread[late].mean():.4f}, noise of seeds {found.seed_noise:.4f}"
    )
    print(f"tighter along gamma by {found.ratio:.2f} ({found.ratio_stderr:.2f})")
    print(
        f"shift at step {found.shift:.0f} ({found.shift_stderr:.0f}), {found.shift_in_decays:.2f}"
        f" / gamma; direction {found.direction.angle:.1f}"
        f" ({found.direction.angle_stderr:.1f}) degrees"
    )
    gamma = rates * decays
    expected = [equilibrium_square(r, d, B1) for r, d in zip(rates, decays, strict=True)]
    print("gamma      steps * gamma  mean square of weights over that of equilibrium")
    for value in np.unique(np.round(gamma, 10)):
        chosen = np.abs(gamma / value - 1.0) < 1e-6
        ratio = (squares[-1] / expected)[chosen]
        extent = f"{ratio.min():.2f} to {ratio.max():.2f}"
        print(f"{value:.3e} {value * found.steps[-1]:10.2f}       {extent}")
    plot_invariance(curves, found).savefig(path.with_name("invariance.png"), dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=8000)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    text, start = standard_library(), time.perf_counter()
    kept, held = jnp.asarray(text.train), jnp.asarray(text.validation)
    change = check_scale_invariance(kept)
    print(
        f"{len(kept):,} characters; scaling a matrix by 7.3 changes a logit by {change:.0e} at most"
    )
    grid = [(CENTRE_RATE * f, CENTRE_DECAY * g) for f in FACTORS for g in FACTORS]
    runs = [(rate, decay, seed) for rate, decay in grid for seed in range(options.seeds)]
    columns = tuple(np.array(column) for column in zip(*runs, strict=True))
    steps = np.unique(np.round(np.geomspace(50, options.steps, 48)).astype(int))
    losses, squares = train(kept, held, columns, steps)
    options.output.mkdir(parents=True, exist_ok=True)
    path = options.output / "runs.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "lr", "weight_decay", "seed", "step", "loss", "mean_square"])
        for i, (rate, decay, seed) in enumerate(runs):
            for j, at in enumerate(steps):
                row = f"{rate:g}-{decay:g}-{seed}", rate, decay, seed, at
                writer.writerow([*row, f"{losses[j, i]:.6f}", f"{squares[j, i]:.6g}"])
    print(f"{len(runs)} runs of {options.steps} steps in {time.perf_counter() - start:.0f} s")
    report(path, columns[0], columns[1], squares)


if __name__ == "__main__":
    main()
