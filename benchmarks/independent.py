"""An optimiser of all T rates that shares no code with the library, set against `solve`.

``python -m benchmarks.independent --count 40``: random problems of the learning rate with at most
100 steps and rates up to the stability limit; L-BFGS-B on the textbook recursion of all modes, with
its adjoint, from 12 starts (constants, falls, zigzags, noise, the solution itself perturbed). The
gain is how much lower than the solution the best of them ends, relatively; at most 1e-4 is asked.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy.optimize import minimize

from benchmarks.fuzz.draw import said
from optsched import Problem, SolveFailed, solve

ALLOWED = 1e-4
STARTS = 12
LEAST = 1e-12  # of the largest rate
TINY = 1e-250  # losses at which nothing is left


class Recursion:
    """The log of the final excess loss and its gradient in the log rates."""

    def __init__(self, options: dict) -> None:
        k = np.arange(1.0, options["features"] + 1.0)
        self.lam, self.start = k ** -options["b"], k ** -options["a"]
        self.m, self.sigma2 = options["batch_size"], options["noise"] ** 2
        self.nu = self.lam**2

    def __call__(self, log_rates: np.ndarray) -> tuple[float, np.ndarray]:
        lam, m = self.lam, self.m
        eta = np.exp(log_rates)
        states, e = [], self.start
        for rate in eta:
            states.append(e)
            x = rate * lam
            loss = e.sum() + self.sigma2
            e = ((1.0 - x) ** 2 + x**2 / m) * e + rate**2 / m * loss * self.nu
        total = float(e.sum())
        p = np.ones_like(e)
        slope = np.empty_like(eta)
        for t in range(len(eta) - 1, -1, -1):
            rate, e = eta[t], states[t]
            x = rate * lam
            pushed = float(p @ self.nu)
            drift = 2.0 * lam * (x * (1.0 + 1.0 / m) - 1.0) * e
            slope[t] = float(p @ drift) + 2.0 * rate / m * (e.sum() + self.sigma2) * pushed
            p = ((1.0 - x) ** 2 + x**2 / m) * p + rate**2 / m * pushed
        return float(np.log(total)), slope * eta / total


def draw(rng: np.random.Generator) -> dict:
    """Arguments of a problem; the largest rate is within the limit of a constant one."""
    options = {
        "a": float(rng.uniform(1.05, 6.0)),
        "b": float(rng.uniform(1.05, 7.0)),
        "horizon": int(rng.integers(2, 101)),
        "batch_size": float(10 ** rng.uniform(0.0, 4.0)),
        "noise": float(rng.choice([0.0, 10 ** rng.uniform(-3.0, 1.0)])),
        "features": int(rng.choice([3, 30, 300])),
    }
    limit = Problem(**options, eta_max=1e-3).stability_limit  # type: ignore[arg-type]
    return options | {"eta_max": float(limit * 10 ** rng.uniform(-2.0, 0.0))}


def starts(rng: np.random.Generator, horizon: int, known: np.ndarray) -> list[np.ndarray]:
    """Shares of the largest rate."""
    togo = 1.0 - np.arange(horizon) / horizon
    found = [np.full(horizon, level) for level in (1.0, 0.5, 0.1)]
    found += [togo**power for power in (0.5, 1.0, 3.0)]
    found.append(np.where(np.arange(horizon) % 2, 1.0, 0.2))
    found.append(np.where(togo > 0.2, 1.0, 5.0 * togo))
    found += [np.exp(rng.normal(-1.0, 1.0, horizon)) for _ in range(2)]
    found += [known * np.exp(rng.normal(0.0, spread, horizon)) for spread in (0.1, 0.5)]
    return found


def gained(options: dict, rng: np.random.Generator) -> tuple[float, float, float]:
    """Relative gain of the best of all starts; seconds of the solve and of the rival."""
    cap, horizon = options["eta_max"], options["horizon"]
    began = time.process_time()
    solution = solve(Problem(**options), gap=1e3)
    solved = time.process_time() - began
    known = solution.schedule.eta
    recursion = Recursion(options)
    own = recursion(np.log(np.maximum(known, 1e-300)))[0]
    if solution.excess_loss < TINY:
        return 0.0, solved, 0.0
    if abs(np.exp(own) / solution.excess_loss - 1.0) > 1e-9:
        raise SystemExit(f"the recursions differ: {said(options)}")
    best = own
    began = time.process_time()
    for share in starts(rng, horizon, known / cap):
        result = minimize(
            recursion,
            np.log(np.clip(share, LEAST, 1.0) * cap),
            jac=True,
            method="L-BFGS-B",
            bounds=[(np.log(LEAST * cap), np.log(cap))] * horizon,
            options={"maxiter": 3000, "maxfun": 6000, "maxcor": 30, "ftol": 1e-15, "gtol": 1e-9},
        )
        best = min(best, float(result.fun))
    return 1.0 - float(np.exp(best - own)), solved, time.process_time() - began


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    gains, times = [], []
    for number in range(args.first, args.first + args.count):
        rng = np.random.default_rng([args.seed, number])
        options = draw(rng)
        try:
            gain, *seconds = gained(options, rng)
        except SolveFailed as error:
            gain, seconds = float("inf"), [0.0, 0.0]
            print(f"{number}: {error}")
        gains.append(gain)
        times.append(seconds)
        if not gain <= ALLOWED:
            print(f"{number}: gains {gain:.2e}: {said(options)}", flush=True)
    solved, rival = np.array(times).sum(0)
    above = int((~(np.array(gains) <= ALLOWED)).sum())
    print(
        f"{len(gains)} problems (seed {args.seed}), {STARTS} starts each: largest gain"
        f" {max(gains):.1e}, median {np.median(gains):.1e}; {above} above {ALLOWED:g}"
    )
    print(f"seconds of CPU: {solved:.1f} solving, {rival:.1f} the rival")
    return int(above > 0)


if __name__ == "__main__":
    raise SystemExit(main())
