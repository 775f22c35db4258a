"""An optimiser of all controls of all steps that shares no code with the library, against `solve`.

``python -m benchmarks.independent_joint --count 40``: random problems of heavy ball, Nesterov and
QHM in both phases with at most 100 steps; L-BFGS-B on the textbook recursion, differentiated by
JAX, from 12 starts (constants, falls, growing memory, zigzags, noise, the solution perturbed). The
gain is how much lower than the best schedule of the solver (``smooth=0``) the best of them ends,
relatively; at most 0.3 % is asked, and of the smooth schedule at most 0.1 % above the best.
"""

from __future__ import annotations

import argparse
import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import minimize

from benchmarks.fuzz.draw import said
from optsched import Problem, SolveFailed, solve

ALLOWED, CONCEDED = 3e-3, 1e-3
FEATURES, LONGEST = 30, 100
KINDS: dict[str, dict[str, Any]] = {
    "heavy ball": {"controls": "eta,beta"},
    "nesterov": {"controls": "eta,beta", "momentum": "nesterov"},
    "qhm": {"controls": "eta,beta,nu"},
}


@partial(jax.jit, static_argnames="kind")
def _loss(u: jax.Array, kind: str, numbers: jax.Array, real: jax.Array) -> jax.Array:
    """Log of the final excess loss in logs of rate and 1 - beta, and the logit of nu, (3, T)."""
    a, b, m, sigma2 = numbers
    k = jnp.arange(1.0, FEATURES + 1.0)
    lam, start = k**-b, k**-a
    eta, beta = jnp.where(real, jnp.exp(u[0]), 0.0), 1.0 - jnp.exp(u[1])
    nu = {"heavy ball": jnp.ones_like(eta), "nesterov": beta, "qhm": jax.nn.sigmoid(u[2])}[kind]

    def step(state: Any, now: Any) -> tuple[Any, None]:
        x, y, z = state
        eta, beta, nu = now
        p, q, gain = eta * (1.0 - nu * beta), eta * nu * beta, 1.0 - beta
        # Error, momentum and gradient; the gradient is lam * error plus noise.
        noise = lam**2 / m * (x + x.sum() + sigma2)
        e_e, e_v = 1.0 - p * lam, -q
        v_e, v_v = gain * lam, beta
        after = (
            e_e**2 * x + 2.0 * e_e * e_v * y + e_v**2 * z + p**2 * noise,
            e_e * v_e * x + (e_e * v_v + e_v * v_e) * y + e_v * v_v * z - p * gain * noise,
            v_e**2 * x + 2.0 * v_e * v_v * y + v_v**2 * z + gain**2 * noise,
        )
        return after, None

    zero = jnp.zeros_like(start)
    return jnp.log(jax.lax.scan(step, (start, zero, zero), (eta, beta, nu))[0][0].sum())


_slope = jax.jit(jax.value_and_grad(_loss), static_argnames="kind")


def draw(rng: np.random.Generator) -> tuple[str, dict[str, Any]]:
    """A kind of momentum, and the arguments of a problem."""
    kind, hard = str(rng.choice(list(KINDS))), bool(rng.random() < 0.5)
    a = float(rng.uniform(1.3, 4.0))
    b = float(rng.uniform(a + 0.3, a + 3.0) if hard else rng.uniform(1.2, max(a - 0.2, 1.25)))
    return kind, {
        "a": a,
        "b": b,
        "horizon": int(rng.integers(10, LONGEST + 1)),
        "batch_size": float(10 ** rng.uniform(0.0, 2.0)),
        "noise": float(rng.uniform(0.1, 1.0)),
        "features": FEATURES,
        **KINDS[kind],
    }


def starts(rng: np.random.Generator, known: np.ndarray, rate: float) -> list[np.ndarray]:
    """Coordinates, (3, T) each."""
    horizon = known.shape[1]
    t, one = np.arange(horizon), np.ones(horizon)
    togo = 1.0 - t / horizon
    fall, grown = np.log(rate * np.maximum(togo, 0.01)), -np.log(1.2 + t / 3.0)
    zigzag = np.where(t % 2, 0.0, -1.5)
    found = [np.stack([np.log(rate) * one, np.log(g) * one, w * one]) for g, w in START]
    found += [np.stack([fall + s, np.log(0.3) * one, w * one]) for s, w in ((0.0, 0.0), (-1.0, 2))]
    found += [np.stack([fall + s - grown, grown, 2.0 * one]) for s in (-0.5, -1.5)]
    found.append(np.stack([fall + zigzag, np.log(0.5) * one, one]))
    found.append(np.stack([fall, np.log(0.5) * one, 0.0 * one]) + rng.normal(0, 0.5, (3, horizon)))
    found += [known + rng.normal(0.0, s, known.shape) for s in (0.05, 0.3, 1.0)]
    return found


START = ((0.8, -1.0), (0.5, 0.0), (0.1, 1.0))


def gained(kind: str, options: dict[str, Any], rng: np.random.Generator) -> list[float]:
    """Gain of the best start; loss of the smooth schedule; CPU seconds of solves and rival."""
    horizon, problem = options["horizon"], Problem(**options)
    began = time.process_time()
    best = solve(problem, smooth=0.0)
    solved = time.process_time() - began
    smooth = solve(problem)
    controls = best.schedule
    steps = np.arange(horizon)
    nu = np.clip(np.asarray(controls(steps, "nu")) if kind == "qhm" else 0.5, 1e-12, 1 - 1e-12)
    rows = controls(steps, "eta"), 1.0 - controls(steps, "beta"), nu / (1.0 - nu) + 0.0 * steps
    known = np.log(np.maximum(np.stack([np.asarray(row, float) for row in rows]), 1e-300))
    numbers = np.array([options["a"], options["b"], options["batch_size"], options["noise"] ** 2])
    real, pad = np.arange(LONGEST) < horizon, LONGEST - horizon

    def function(x: np.ndarray) -> tuple[float, np.ndarray]:
        u = np.pad(x.reshape(3, horizon), ((0, 0), (0, pad)))
        value, slope = _slope(u, kind, numbers, real)
        if not np.isfinite(value):
            return 1e3, np.zeros_like(x)
        return float(value), np.asarray(slope)[:, :horizon].ravel()

    own = function(known.ravel())[0]
    if abs(np.exp(own) / best.excess_loss - 1.0) > 1e-6:
        raise SystemExit(f"the recursions differ: {said(options)}")
    began, least = time.process_time(), own
    ends = [(-25.0, np.log(10.0 * horizon + 100.0)), (-12.0, 0.0), (-20.0, 20.0)]
    bounds = [pair for pair in ends for _ in range(horizon)]
    low, high = (np.array([pair[side] for pair in bounds]) for side in range(2))
    rate = min(problem.plain.stability_limit, 1e3)
    for start in starts(rng, known, 0.8 * rate):
        x = np.clip(start.ravel(), low, high)
        while function(x)[0] > 1.0 and x[0] > -20.0:
            x[:horizon] -= 0.7
        result = minimize(
            function,
            np.clip(x, low, high),
            jac=True,
            method="L-BFGS-B",
            bounds=bounds,
            options={"maxiter": 800, "maxfun": 1000, "maxcor": 40, "ftol": 1e-13, "gtol": 1e-8},
        )
        least = min(least, float(result.fun))
    lost = smooth.excess_loss / best.excess_loss - 1.0
    return [1.0 - np.exp(least - own), lost, solved, time.process_time() - began]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    rows = []
    with jax.enable_x64(True):
        for number in range(args.first, args.first + args.count):
            rng = np.random.default_rng([args.seed, number])
            kind, options = draw(rng)
            try:
                rows.append(gained(kind, options, rng))
            except SolveFailed as error:
                rows.append([float("inf"), 0.0, 0.0, 0.0])
                print(f"{number}: {error}")
            gain, lost, *seconds = rows[-1]
            mark = "" if gain <= ALLOWED and lost <= CONCEDED else "  ABOVE"
            print(
                f"{number:>3} {kind:<11} T = {options['horizon']:>3}: gain {gain:8.1e},"
                f" smooth {lost:8.1e}, {seconds[0]:.1f} s and {seconds[1]:.1f} s{mark}"
                + (f"  {said(options)}" if mark else ""),
                flush=True,
            )
    gains, lost, solved, rival = np.array(rows).T
    above = int(((gains > ALLOWED) | (lost > CONCEDED)).sum())
    print(
        f"{len(rows)} problems (seed {args.seed}), 12 starts each: largest gain {gains.max():.1e},"
        f" median {np.median(gains):.1e}; smooth within {lost.max():.1e}; {above} above"
    )
    print(f"seconds of CPU: {solved.sum():.0f} solving, {rival.sum():.0f} the rival")
    return int(above > 0)


if __name__ == "__main__":
    raise SystemExit(main())
