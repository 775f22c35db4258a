"""Plans of real runs: CPU time of the command, and losses beside an independent optimiser's.

Laws are fitted to the public runs in `tests/data`. A plan's free and simple schedules, the best
tuned rival and the lower bound stand beside what L-BFGS-B finds over the log rates of many pieces
from three starts; all in 1e-3 nats above the bound.
"""

from __future__ import annotations

import argparse
import math
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from scipy.optimize import minimize

from optsched.logs import read_runs
from optsched.pilot import Fit, compare, fit, load_fit, plan, save_fit
from optsched.pilot.laws import NormLaw
from optsched.pilot.planning.rivals import rivals

DATA = Path("tests/data")
PUBLIC = ("cosine_24000", "constant_24000", "wsdcon_9")
CASES = {
    "25M": ("llm-loss-curves/25M", PUBLIC, 2160),
    "100M": ("llm-loss-curves/100M", PUBLIC, 2160),
    "124M, one peak": ("llama-124m", ("cos0_25000_0.002", "linear0.2_25000_0.002"), 300),
    "124M, two peaks": ("llama-124m", ("cos0_25000_0.0005", "linear0.2_25000_0.002"), 300),
}
PIECES = 300


def fitted(case: str) -> Fit:
    """The default law on the runs of a case."""
    folder, names, warmup = CASES[case]
    runs = read_runs([DATA / folder / f"{name}.csv" for name in names], warmup=warmup)
    return fit(runs, NormLaw())


def independent(found: Fit, horizon: int) -> float:
    """Final loss of the best of three runs of L-BFGS-B over the log rates of pieces."""
    edges = 1.0 / (1.0 + np.exp(-np.linspace(-9.0, 9.0, PIECES + 1)))
    edges = (edges - edges[0]) / (edges[-1] - edges[0])
    lengths = np.diff(edges) * horizon / found.scale.span
    left = 1.0 - 0.5 * (edges[1:] + edges[:-1])

    def value(logs: np.ndarray) -> tuple[float, np.ndarray]:
        last = found.law.final(found.theta, np.exp(logs), lengths, found.scale.first)
        return 1e3 * last.loss, 1e3 * (last.drift + last.noise)

    starts = (np.minimum(left / 0.2, 1.0), left, np.full(PIECES, 0.3))
    runs = [
        minimize(
            value,
            np.log(np.maximum(start, 1e-4)),
            jac=True,
            method="L-BFGS-B",
            bounds=[(-18.0, 0.0)] * PIECES,
            options={"maxiter": 1500, "maxfun": 3000, "maxcor": 40, "ftol": 1e-13, "gtol": 1e-7},
        )
        for start in starts
    ]
    return min(float(run.fun) for run in runs) / 1e3


def seconds(law: str, horizon: int, *options: str) -> float:
    """CPU time of the command."""
    command = [sys.executable, "-m", "optsched.cli", "plan", "--law", law, "--json"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*command, "--horizon", str(horizon), *options], check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--horizons", default="50000,250000")
    horizons = [int(part) for part in parser.parse_args().horizons.split(",")]
    print("case              steps    bound    free  simple  rival  L-BFGS-B   s  s (--peak auto)")
    with tempfile.TemporaryDirectory() as folder:
        for i, case in enumerate(CASES):
            path = f"{folder}/{i}.json"
            save_fit(fitted(case), path)
            found = load_fit(path)
            for horizon in horizons:
                free = plan(found, horizon, shape="free", robust="none")
                simple = plan(found, horizon, shape="simple", robust="none")
                others = compare(found, rivals(found, horizon, peak=free.cap)).rows
                rows = (free.loss, simple.loss, others[0].loss, independent(found, horizon))
                above = [1e3 * (loss - free.lower_bound) for loss in rows]
                assert not math.isnan(free.lower_bound)
                spent = [seconds(path, horizon, *way) for way in ((), ("--peak", "auto"))]
                print(
                    f"{case:16} {horizon:7,} {free.lower_bound:8.5f} {above[0]:7.3f}"
                    f" {above[1]:7.3f} {above[2]:6.2f} {above[3]:9.3f} {spent[0]:4.1f}"
                    f" {spent[1]:4.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
