"""Random problems of plain SGD, and whether a solve from another shape ends in a better optimum.

``python -m benchmarks.local_optima --count 320``: problems of T = 3..10^4 steps, each solved with
and without the search among neighbouring optima (`optsched.control.rate.neighbours`), and from
the four best of up to 280 shapes that are constant and then fall as a power, over 1 step to all of
them.
"""

from __future__ import annotations

import argparse
import time
from contextlib import nullcontext
from unittest.mock import patch

import numpy as np

from optsched import Problem, Schedule, Solution, solve
from optsched.control.bounds.geodesic import relaxed_geodesic
from optsched.control.certificate import UNREFINED
from optsched.control.mesh import graded_mesh
from optsched.control.traced import TracedObjective

WORSE = 1e-6
SEARCH = "optsched.control.solve._best_neighbour"
LEVELS = (0.1, 0.3, 0.6, 0.9, 1.2, 1.5, 1.9)
OPTIONS = {"throw": False, "gap": UNREFINED, "replay_steps": 10**4}


def draw(rng: np.random.Generator, longest: float) -> Problem:
    """One problem; a third without noise, a third with little."""
    a, b = rng.uniform(1.1, 5.0), rng.uniform(1.1, 6.0)
    horizon, batch_size = int(10 ** rng.uniform(0.5, longest)), 10 ** rng.uniform(0.0, 4.0)
    noise = float(rng.choice([0.0, rng.uniform(0.0, 3.0), 10 ** rng.uniform(-3.0, 0.0)]))
    eta_max = rng.uniform(0.01, 1.9)
    return Problem(a, b, horizon, batch_size=batch_size, noise=noise, eta_max=eta_max)


def annealed(problem: Problem) -> list[Schedule]:
    """The best constant-then-power shapes, no two with the same length of the fall."""
    assert problem.spectrum is not None
    horizon, cap = problem.horizon, problem.eta_cap
    path = relaxed_geodesic(
        problem.modes, problem.batch_size, problem.noise**2, problem.eta_cap, horizon
    )
    mesh = graded_mesh(path, horizon, 60, problem.spectrum.largest)
    objective = TracedObjective(problem.dynamics, problem.modes, mesh)
    shares = [1, 2, 3, 4, 6, 9, 0.05 * horizon, 0.2 * horizon, 0.5 * horizon, horizon]
    best = {}
    for length in np.unique(np.clip(np.round(shares), 1, horizon)):
        togo = np.minimum(1.0, (horizon - mesh.free_steps) / (length + 1.0))
        rates = [
            np.maximum(level * togo**power, 1e-12 * cap)
            for level in np.unique(np.minimum(LEVELS, cap))
            for power in (0.5, 1, 2, 4)
        ]
        losses = [objective(np.log(one))[0] for one in rates]
        best[min(losses)] = rates[int(np.argmin(losses))]
    return [
        Schedule.from_knots(mesh.steps, {"eta": best[loss]}, horizon=horizon)
        for loss in sorted(best)[:4]
    ]


def timed(problem: Problem, neighbours: bool) -> tuple[Solution, float]:
    """Solution and processor time."""
    fresh = problem.replace(noise=problem.noise)  # nothing remembered
    with nullcontext() if neighbours else patch(SEARCH, lambda stage: stage):
        began = time.process_time()
        return solve(fresh, **OPTIONS), time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=320)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--longest", type=float, default=4.0, help="log10 of the horizons")
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    worse, seconds, evaluations = np.zeros(2, int), [], []
    for i in range(args.count):
        problem = draw(rng, args.longest)
        # In turn, as the first of the two may have to compile.
        found = {
            which: timed(problem, which) for which in ((False, True) if i % 2 else (True, False))
        }
        (first, short), (full, long) = found[False], found[True]
        seconds.append((short, long))
        with patch(SEARCH, lambda stage: stage):
            others = [solve(problem, initial=start, **OPTIONS) for start in annealed(problem)]
        evaluations.append((first.stats["evaluations"], full.stats["evaluations"]))
        best = min(one.excess_loss for one in (first, full, *others) if one.converged)
        if best == 0.0:
            continue
        lost = [one.excess_loss / best - 1.0 for one in (first, full)]
        worse += np.array(lost) > WORSE
        if max(lost) > WORSE:
            print(f"{problem}\n  first {lost[0]:.1e}, with neighbours {lost[1]:.1e}", flush=True)
    print(
        f"{args.count} problems (seed {args.seed}): more than {WORSE:g} above the best known:"
        f" {worse[0]} without, {worse[1]} with the neighbours"
    )
    times, counts = np.array(seconds), np.array(evaluations)
    print(
        f"processor time of a solve: {np.median(times[:, 1] / times[:, 0]):.2f} times as much in"
        f" the median; evaluations {counts[:, 1].sum() / counts[:, 0].sum():.2f} times in all"
    )


if __name__ == "__main__":
    main()
