"""How much the schedules people use lose against the optimum, as the table of docs/compare.md.

Infinitely many features, m = 5, sigma = 0.5, eta_max = 1. Cells: regret with all hyperparameters
tuned, and with the peak alone in parentheses. Run: ``python -m benchmarks.regrets``, about four
minutes on one busy core.
"""

from __future__ import annotations

import argparse
import math
import time

from optsched import Problem
from optsched.studies.compare.families import compare

FAMILIES = ("constant", "linear", "cosine", "wsd_linear", "wsd_power")
PAIRS = ((3.5, 2.0), (2.5, 1.5), (2.0, 1.2), (3.5, 5.0), (2.0, 3.0), (1.5, 4.0))
HORIZONS = (10**3, 10**5, 10**7)
REPLAY_STEPS = 10_000  # longer horizons by exact blocks


def percent(regret: float) -> str:
    """A regret in percent with two or three digits."""
    value = 100.0 * regret
    return f"{value:.0f} %" if value >= 10.0 else f"{value:.2g} %"


def cell(full: float | None, alone: float | None) -> str:
    """Regret with everything tuned, and with the peak alone."""
    return "failed" if full is None or alone is None else f"{percent(full)} ({percent(alone)})"


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--horizons", type=float, nargs="*", default=HORIZONS)
    args = parser.parse_args()
    began = time.perf_counter()
    print("| phase | a, b | T | " + " | ".join(f"`{name}`" for name in FAMILIES) + " |")
    print("|" + "---|" * (3 + len(FAMILIES)))
    lowest, told = math.inf, []
    for a, b in PAIRS:
        for horizon in args.horizons:
            problem = Problem(a, b, int(horizon), features=math.inf)
            tuned = compare(problem, FAMILIES, replay_steps=REPLAY_STEPS)
            peak = compare(problem, FAMILIES, free=(), replay_steps=REPLAY_STEPS)
            full, alone = tuned.regrets, peak.regrets
            lowest = min(lowest, *full.values(), *alone.values())
            told += tuned.warnings + peak.warnings
            cells = [cell(full.get(name), alone.get(name)) for name in FAMILIES]
            power = f"$10^{{{math.log10(horizon):g}}}$"
            row = [problem.phase, f"{a:g}, {b:g}", power, *cells]
            print("| " + " | ".join(row) + " |", flush=True)
    print(f"\nleast regret {lowest:.2g}; {time.perf_counter() - began:.0f} s")
    for line in told:
        print(f"warning: {line}")


if __name__ == "__main__":
    main()
