"""How far the three ways to compute-optimal sizes are from the truth, and whether intervals hold.

Tables are drawn from laws whose exponents are uniform in [.25, .5] and [.2, .45], with relative
noise, in two designs: equal computes with sizes around the best, and a grid of sizes and tokens.
The size is asked for at ten times the largest compute. Beside them the published second way,
parabolas in log N. Run: ``python -m benchmarks.compute_law``, a minute of one core.
"""

from __future__ import annotations

import argparse
import math

import numpy as np

from optsched.measure.compute_law import FLOPS, ComputeLaw, compute_optimal

NOISE = 0.003


def draw(rng: np.random.Generator, grid: bool) -> tuple[ComputeLaw, np.ndarray, np.ndarray]:
    """A law, sizes and tokens."""
    size, tokens = 400.0 * rng.uniform(0.5, 2.0), 1000.0 * rng.uniform(0.5, 2.0)
    law = ComputeLaw(1.7, size, rng.uniform(0.25, 0.5), tokens, rng.uniform(0.2, 0.45), NOISE)
    if grid:
        n0 = law.best_size(1e19)
        pairs = [
            (n, d)
            for n in n0 * np.geomspace(0.1, 10.0, 7)
            for d in 1e19 / (FLOPS * n0) * np.geomspace(0.1, 10.0, 6)
        ]
    else:
        pairs = [
            (n, c / (FLOPS * n))
            for c in np.geomspace(1e18, 1e20, 5)
            for n in law.best_size(c) * np.geomspace(0.12, 8.0, 7)
        ]
    n, d = np.array(pairs).T
    return law, n, d


def parabolas(n: np.ndarray, d: np.ndarray, y: np.ndarray, goal: float) -> tuple[float, float]:
    """The second way as published: exponent and size at a compute."""
    computes, sizes = [], []
    for c in np.unique((FLOPS * n * d).round(-12)):
        at = np.isclose(FLOPS * n * d, c, rtol=1e-3)
        bend, slope, _ = np.polyfit(np.log(n[at]), y[at], 2)
        computes.append(math.log(c / goal))
        sizes.append(-slope / (2.0 * bend))
    exponent, best = np.polyfit(computes, sizes, 1)
    return float(exponent), math.exp(float(best))


def main() -> None:
    """Draw, fit and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=int, default=100, help="of each design")
    parser.add_argument("--draws", type=int, default=60, help="refits of a table")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    rows: dict[tuple[str, str], list[tuple[float, float, bool]]] = {}
    for grid in (False, True):
        design = "sizes x tokens" if grid else "equal computes"
        for seed in range(options.tables):
            law, n, d = draw(rng, grid)
            y = law.loss(n, d) * np.exp(NOISE * rng.standard_normal(len(n)))
            goal = 10.0 * float((FLOPS * n * d).max())
            found = compute_optimal(n, d, y, goal, draws=options.draws, seed=seed)
            best = law.best_size(goal)
            for way in found.ways:
                if math.isfinite(way.exponent):
                    low, high = way.parameters_interval
                    told = (way.exponent - law.exponent, way.parameters / best, low <= best <= high)
                    rows.setdefault((design, way.name), []).append(told)
            if not grid:
                exponent, size = parabolas(n, d, y, goal)
                told = (exponent - law.exponent, size / best, False)
                rows.setdefault((design, "parabolas"), []).append(told)
    titles = (
        "design",
        "way",
        "tables",
        "exponent: bias ± scatter",
        "size: off by, rms",
        "80 % holds",
    )
    print(f"| {' | '.join(titles)} |")
    print("|---|---|---|---|---|---|")
    for (design, way), told in rows.items():
        off, ratio, holds = np.array(told, float).T
        factor = math.exp(math.sqrt(float(np.mean(np.log(ratio) ** 2))))
        held = "none given" if way == "parabolas" else f"{100 * holds.mean():.0f} %"
        print(
            f"| {design} | {way} | {len(told)} | {off.mean():+.3f} ± {off.std():.3f} "
            f"| {factor:.2f} | {held} |"
        )


if __name__ == "__main__":
    main()
