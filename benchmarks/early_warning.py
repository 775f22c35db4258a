"""Which number crosses its limit first in runs that are driven past the edge of stability.

A network with one hidden layer learns a teacher's labels, with gradient descent, heavy ball,
Adam, and SGD on small batches. Runs are *driven*, the rate growing tenfold every 150 steps without
bound, or *healthy*, at a constant rate of a quarter of the limit at the start (Adam, whose limit
falls as gradients do: 0.001). A run has failed at the first loss that is four times that of the
start, or not finite. A row is the median over seeds of the steps between an alarm and the failure,
with the range, and in how many runs the alarm came before it.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from optsched.diagnostics.alarms import ALARMS, alarms
from optsched.diagnostics.curvature import Hessian, adam_preconditioner
from optsched.diagnostics.log import Log, read_log
from optsched.diagnostics.noise import from_micro_batches
from optsched.diagnostics.recorder import NonFinite, Recorder
from optsched.rules.stability import UpdateRule

INPUTS, WIDTH, SAMPLES, BATCH = 10, 32, 256, 32
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8
RULES = {
    "gd": UpdateRule(),
    "heavy-ball": UpdateRule("heavy-ball", 0.9),
    "adam": UpdateRule("adam", BETA1),
    "sgd": UpdateRule(),
}
FAILED = 4.0  # times the loss at the start


def loss(params: Any, x: Any, y: Any) -> Any:
    hidden = jnp.tanh(x @ params["in"] + params["bias"])
    return jnp.mean((hidden @ params["out"] - y) ** 2)


def model(seed: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)

    def network(width: int) -> Any:
        return {
            "in": jnp.asarray(rng.normal(size=(INPUTS, width)) / math.sqrt(INPUTS), jnp.float32),
            "bias": jnp.zeros(width, jnp.float32),
            "out": jnp.asarray(rng.normal(size=width) / math.sqrt(width), jnp.float32),
        }

    x = jnp.asarray(rng.normal(size=(SAMPLES, INPUTS)), jnp.float32)
    teacher = network(8)
    y = 2.0 * jnp.tanh(x @ teacher["in"]) @ teacher["out"]
    return network(WIDTH), x, y + jnp.asarray(0.1 * rng.normal(size=SAMPLES), jnp.float32)


@jax.jit
def update(params: Any, m: Any, v: Any, g: Any, lr: Any, beta: Any, adam: Any, t: Any) -> Any:
    """One step of every optimiser here: momentum as an average, preconditioned for Adam."""
    m = jax.tree.map(lambda a, b: beta * a + (1.0 - beta) * b, m, g)
    v = jax.tree.map(lambda a, b: BETA2 * a + (1.0 - BETA2) * b * b, v, g)
    start = jnp.where(adam, 1.0 - beta**t, 1.0)  # Adam undoes the start at zero

    def move(a: Any, b: Any) -> Any:
        return a / start / jnp.where(adam, jnp.sqrt(b / (1.0 - BETA2**t)) + EPS, 1.0)

    change = jax.tree.map(lambda a, b: -lr * move(a, b), m, v)
    return jax.tree.map(jnp.add, params, change), m, v, change


def train(path: Path, name: str, seed: int, healthy: bool, steps: int, every: int) -> Log:
    """Train until the loss has failed, or to the last step; return the log."""
    rule, rng = RULES[name], np.random.default_rng(1000 + seed)
    params, x, y = model(seed)
    hessian, gradient = Hessian(loss), jax.jit(jax.value_and_grad(loss))
    m = v = jax.tree.map(jnp.zeros_like, params)
    limit = first = math.nan
    preconditioned, batch = rule.preconditioned, BATCH if name == "sgd" else SAMPLES

    def sharpness() -> Any:
        if not preconditioned:
            return hessian.largest(params, x, y)
        diagonal = adam_preconditioner(v, step, beta2=BETA2, eps=EPS)
        return hessian.largest(params, x, y, preconditioner=diagonal)

    with Recorder(path, at={"sharpness": every}) as recorder:
        for step in range(steps):
            parts = rng.permutation(SAMPLES)[:batch].reshape(2, -1)
            halves = [gradient(params, x[part], y[part]) for part in parts]
            g = jax.tree.map(lambda a, b: 0.5 * (a + b), halves[0][1], halves[1][1])
            now = float(halves[0][0] + halves[1][0]) / 2.0
            if step == 0:
                first = now
                v0 = jax.tree.map(lambda a: (1.0 - BETA2) * a * a, g)
                diagonal = adam_preconditioner(v0, 1, beta2=BETA2) if preconditioned else None
                limit = rule.limit(hessian.largest(params, x, y, preconditioner=diagonal).value)
            lr = limit * 0.02 * 10.0 ** (step / 150.0)
            if healthy:
                lr = 1e-3 if preconditioned else 0.25 * limit
            new, m, v, change = update(
                params, m, v, g, lr, rule.momentum, preconditioned, float(step + 1)
            )
            try:
                recorder.record(
                    step,
                    lr=lr,
                    loss=now,
                    batch_size=batch,
                    gradients=g,
                    updates=change,
                    parameters=params,
                    noise=from_micro_batches([half[1] for half in halves], batch / 2),
                    sharpness=sharpness if step else None,
                )
            except NonFinite:
                break
            if not now <= FAILED * first:
                break
            params = new
    return read_log(path)


def failure(log: Log) -> int | None:
    """First step at which the loss is four times that of the start, or not finite."""
    values = log.columns["loss"]
    bad = np.flatnonzero(~(values <= FAILED * values[0]))
    return int(log.steps[bad[0]]) if bad.size else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--every", type=int, default=5, help="steps between sharpnesses")
    parser.add_argument("--optimisers", default="gd,heavy-ball,adam,sgd")
    parser.add_argument("--keep", type=Path, help="folder in which the logs stay")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for name in options.optimisers.split(","):
            table(folder, name, options)


def table(folder: Path, name: str, options: argparse.Namespace) -> None:
    warned: dict[str, list[float]] = {one: [] for one in ALARMS}
    false: dict[str, int] = dict.fromkeys(ALARMS, 0)
    firsts: list[str] = []
    ends = []
    for seed in range(options.seeds):
        for healthy in (False, True):
            path = folder / f"{name}-{'healthy' if healthy else 'driven'}-{seed}.csv"
            log = train(path, name, seed, healthy, options.steps, options.every)
            failed, found = failure(log), alarms(log, RULES[name])
            if healthy:
                for alarm in found:
                    false[alarm.name] += alarm.step is not None
                if failed is not None:
                    print(f"{name}: healthy run of seed {seed} failed at step {failed}")
                continue
            if failed is None:
                print(f"{name}: driven run of seed {seed} did not fail in {options.steps} steps")
                continue
            ends.append(failed)
            early = [one for one in found if one.step is not None and one.step < failed]
            firsts += [next((one.name for one in early if one.name != "noise"), "none")]
            for one in early:
                warned[one.name].append(failed - one.step)  # type: ignore[operator]
    count = max(firsts.count(one) for one in firsts) if firsts else 0
    top = next((one for one in firsts if firsts.count(one) == count), "none")
    print(f"\n{name}: fails at step {np.median(ends) if ends else math.nan:.0f} (median),")
    print(f"first to warn: {top} in {count} of {len(firsts)} runs")
    print(f"{'alarm':16} {'steps before failure':>22} {'warned':>8} {'healthy runs':>14}")
    for one, leads in warned.items():
        lead = f"{np.median(leads):.0f} ({min(leads):.0f} to {max(leads):.0f})" if leads else "-"
        print(f"{one:16} {lead:>22} {len(leads):>4}/{len(ends)} {false[one]:>12}/{options.seeds}")


if __name__ == "__main__":
    main()
