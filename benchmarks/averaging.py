"""A constant rate with an average of the weights against decay to zero; weight decay.

The tables of docs/averaging.md. Run: ``python -m benchmarks.averaging``, 5 to 10 minutes.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from optsched import Problem
from optsched.studies.averaging.against_decay import AveragingStudy, compare_averaging
from optsched.studies.averaging.exponents import averaging_exponents
from optsched.studies.averaging.weight_decay import compare_weight_decay

POINTS = {"easy": (3.5, 2.0), "hard": (3.5, 5.0)}
SHARES = (0.003, 0.01, 0.03, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99)


def _where(problem: Problem) -> str:
    return f"a = {problem.a:g}, b = {problem.b:g} ({problem.phase} phase), T = {problem.horizon:,}"


def _rows(problem: Problem) -> AveragingStudy:
    study = compare_averaging(problem)
    print(f"\n{_where(problem)}\n{study.table()}", flush=True)
    return study


def _shape(study: AveragingStudy) -> None:
    """The jointly optimal schedules: rate, and window of the average over the steps so far."""
    schedule, horizon = study.rows["both"].schedule, study.problem.horizon
    steps = np.array([int(share * horizon) for share in SHARES])
    eta, forget = schedule(steps), 1.0 - schedule(steps, "ema")
    print(f"\n{_where(study.problem)}: both scheduled")
    print("t/T              " + "".join(f"{share:9.3g}" for share in SHARES))
    print("eta              " + "".join(f"{x:9.3g}" for x in np.asarray(eta)))
    print("1/(1-rho)        " + "".join(f"{1.0 / x:9.3g}" for x in np.asarray(forget)))
    print("c = t(1-rho)/rho " + "".join(f"{x:9.3g}" for x in steps * forget / (1.0 - forget)))


def _exponents(problem: Problem, horizons: list[int]) -> None:
    found = averaging_exponents(problem, horizons)
    print(f"\na = {problem.a:g}, b = {problem.b:g}: slopes of log E over T, ", end="")
    print(f"predicted for the optimal decay {found.predicted:.3f}")
    print(f"{'':20}" + "".join(f"{f'E({t:.0e})':>10}" for t in horizons) + "  slopes")
    for name, slopes in found.slopes.items():
        losses = [study.rows[name].replay.excess_loss for study in found.studies]
        text = "".join(f"{x:10.3g}" for x in losses) + "".join(f"{x:7.3f}" for x in slopes)
        print(f"{name:20}{text}", flush=True)
    for study in found.studies:
        print(f"T = {study.problem.horizon:,}: {study.rows['constant, growing'].tuned}")
    _shape(found.studies[-1])


def _weight_decay(problem: Problem) -> None:
    print(f"\n{_where(problem)}, sigma = {problem.noise:g}: weight decay")
    print(f"{'decay':>8} {'scheduled rate':>15} {'ratio':>7} {'constant rate':>14} {'ratio':>7}")
    for row in compare_weight_decay(problem, (1e-4, 1e-3, 1e-2)):
        print(
            f"{row.weight_decay:8.0e} {row.scheduled.excess_loss:15.5g} "
            f"{row.scheduled_ratio:7.3f} {row.constant.excess_loss:14.5g} "
            f"{row.constant_ratio:7.3f}",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--horizons", type=float, nargs="+", default=[1e3, 1e4, 1e5])
    args = parser.parse_args()
    began = time.perf_counter()
    for a, b in POINTS.values():
        _shape(_rows(Problem(a, b, 1000)))
    for a, b in POINTS.values():
        _exponents(Problem(a, b, 1000), [int(t) for t in args.horizons])
    for a, b in POINTS.values():
        _weight_decay(Problem(a, b, 1000))
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
