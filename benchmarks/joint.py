"""Joint solves: loss, time and evidence over horizons, beside the learning rate alone.

Run on one core: ``OMP_NUM_THREADS=1 taskset -c 0 python -m benchmarks.joint``. Every case is solved
twice; the second time counts, the first compiles. Rows come as they are done.
"""

from __future__ import annotations

import argparse
import math
import time

from optsched import Problem, solve

CASES = (
    ("QHM", {"controls": "eta,beta,nu"}),
    ("Nesterov", {"controls": "eta,beta", "momentum": "nesterov"}),
    ("heavy ball", {"controls": "eta,beta"}),
    ("eta, batch", {"controls": "eta,batch"}),
    ("eta, ema", {"controls": "eta,ema"}),
)


def main() -> None:
    """Print one row a solve."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--a", type=float, default=3.5)
    parser.add_argument("--b", type=float, default=5.0)
    parser.add_argument("--horizons", type=float, nargs="+", default=[1e3, 1e4, 1e5, 1e6])
    parser.add_argument("--cases", nargs="+", default=["QHM", "Nesterov", "heavy ball"])
    arguments = parser.parse_args()
    print(
        f"{'case':<12}{'T':>9}{'excess loss':>14}{'plain SGD':>12}{'slope':>7}{'seconds':>9}"
        f"{'first':>7}{'starts':>7}{'KKT':>9}{'replay gap':>12}"
    )
    for name, options in CASES:
        if name not in arguments.cases:
            continue
        before = None
        for horizon in map(int, arguments.horizons):
            problem = Problem(arguments.a, arguments.b, horizon, **options)  # type: ignore[arg-type]
            seconds = []
            solution = None
            while solution is None or len(seconds) < 2:
                began = time.perf_counter()
                solution = solve(problem, throw=False)
                seconds.append(time.perf_counter() - began)
            plain = solve(problem.plain, throw=False, gap=1e3)
            loss, proof = solution.excess_loss, solution.certificate
            slope = math.nan
            if before is not None:
                slope = -math.log(loss / before[1]) / math.log(horizon / before[0])
            before = horizon, loss
            print(
                f"{name:<12}{horizon:>9}{loss:>14.5g}{plain.excess_loss:>12.4g}{slope:>7.3f}"
                f"{seconds[1]:>9.1f}{seconds[0]:>7.0f}{len(proof.starts):>7}"
                f"{proof.kkt_residual:>9.1e}{100 * proof.replay_gap:>+11.2f}%"
                f"{'' if proof.local_optimum else '  not shown to be a local optimum'}",
                flush=True,
            )


if __name__ == "__main__":
    main()
