"""Fitted exponents of schedules beside theory: of the loss, the peak rate and the annealing time.

N infinite, m = 5, sigma = 0.5, eta_max = 1; five horizons T = 10^6 .. 10^10 of equal weight. Run:
``python -m benchmarks.exponents`` prints the tables of docs/scaling.md; ``--grid`` adds a plane of
(a, b) and counts how often a fit is within 0.02 of theory, and theory within two standard errors.
``--limits`` counts that alone, for optima over two decades at the short horizons of a usual study.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence

import numpy as np

from optsched import Problem
from optsched.exponents import fit_exponent
from optsched.studies.scaling import Scaling, scaling

SCHEDULES = ("optimal", "constant", "power", "linear", "cosine", "wsd")
PAPER = ((3.5, 5.0), (3.5, 2.0))
OTHERS = ((2.0, 1.5), (2.5, 4.0), (1.5, 2.5), (4.5, 3.0))
GRID = [(a, b) for a in (1.5, 2.0, 2.5, 3.5, 5.0) for b in (1.3, 1.7, 2.5, 3.5, 5.0)]
HORIZONS = [10**k for k in range(6, 11)]
SHORT = np.geomspace(100, 1e7, 16).round().astype(int).tolist()
RANGES = ((0, 7), (3, 10), (6, 13), (9, 16), (0, 10))
PLANE = [
    (a, b)
    for a in (1.5, 2.0, 2.5, 3.5, 5.0)
    for b in (1.2, 1.6, 2.0, 3.0, 5.0)
    if abs(a - b) >= 0.2  # nearer to it nothing has settled at any horizon
]
CLOSE, ERRORS = 0.02, 2.0
HEAD = (
    "a, b",
    "schedule",
    "loss",
    "last local slope",
    "extrapolated",
    "theory",
    "peak rate",
    "theory",
    "annealing time",
    "theory",
)


def study(a: float, b: float, schedule: str, horizons: Sequence[int] = HORIZONS) -> Scaling:
    problem = Problem(a, b, horizons[-1], features=math.inf)
    return scaling(problem, horizons, schedule=schedule, solve_options={"gap": 1e3})


def number(value: float, error: float | None = None) -> str:
    if math.isnan(value):
        return ""
    text = f"{round(value, 3) + 0.0:.3f}"
    return text if error is None else f"{text} ± {error:.3f}"


def row(found: Scaling) -> str:
    fit, theory, problem = found.fit, found.theory, found.problem
    assert fit is not None
    cells = [
        f"{problem.a:g}, {problem.b:g}",
        found.schedule,
        number(fit.exponent, fit.stderr),
        number(fit.local_slopes[-1]),
        number(fit.extrapolated, fit.extrapolated_stderr),
        number(theory["expected"]),
    ]
    for name in ("expected_peak", "expected_annealing"):
        shown = name in theory and name in found.exponents
        # The time of a fixed shape is a share of the horizon by definition.
        shown &= name == "expected_peak" or found.schedule in ("optimal", "wsd")
        cells += [number(*found.exponents[name]), number(theory[name])] if shown else ["", ""]
    return "| " + " | ".join(cells) + " |"


def table(points: Sequence[tuple[float, float]], said: list[Scaling]) -> Iterator[str]:
    yield "| " + " | ".join(HEAD) + " |"
    yield "|" + "---|" * len(HEAD)
    for a, b in points:
        for schedule in SCHEDULES:
            said.append(study(a, b, schedule))
            yield row(said[-1])


def summary(studies: Sequence[Scaling]) -> Iterator[str]:
    """How often theory is met, by schedule."""
    for schedule in SCHEDULES:
        off, sure, far = [], [], []
        for one in studies:
            if one.schedule == schedule and one.fit is not None:
                fit, expected = one.fit, one.theory["expected"]
                off.append(abs(fit.exponent - expected))
                sure.append(off[-1] / fit.stderr)
                if not math.isnan(fit.extrapolated):
                    far.append(abs(fit.extrapolated - expected) / fit.extrapolated_stderr)
        n = len(off)
        yield (
            f"{schedule}: {sum(x < CLOSE for x in off)} of {n} within {CLOSE:g} of theory"
            f" (median {np.median(off):.4f}, largest {max(off):.3f});"
            f" theory within {ERRORS:g} standard errors {sum(x < ERRORS for x in sure)} of {n},"
            f" of the extrapolation {sum(x < ERRORS for x in far)} of {len(far)}"
        )


def limits() -> Iterator[str]:
    """How often theory is within twice the errors of fit and limit, by range of horizons."""
    found = [study(a, b, "optimal", SHORT) for a, b in PLANE]
    for first, last in RANGES:
        steps = SHORT[first:last]
        fits = [
            (fit_exponent(steps, [p.excess_loss for p in one.points[first:last]]), one.theory)
            for one in found
        ]
        sure = [abs(f.exponent - t["expected"]) < ERRORS * f.stderr for f, t in fits]
        far = [
            abs(f.extrapolated - t["expected"]) < ERRORS * f.extrapolated_stderr
            for f, t in fits
            if not math.isnan(f.extrapolated)
        ]
        yield (
            f"T = {steps[0]:,} to {steps[-1]:,}: theory within {ERRORS:g} standard errors"
            f" {sum(sure)} of {len(sure)}, of the limit {sum(far)} of {len(far)}"
        )


def main() -> None:
    """Run the studies, and print their tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", action="store_true", help="add a plane of (a, b)")
    parser.add_argument("--limits", action="store_true", help="count the errors at short horizons")
    args = parser.parse_args()
    began = time.perf_counter()
    if args.limits:
        for line in limits():
            print(line)
        print(f"{time.perf_counter() - began:.0f} s")
        return
    for points in (PAPER, OTHERS, *([GRID] if args.grid else [])):
        studies: list[Scaling] = []
        for line in table(points, studies):
            print(line, flush=True)
        print()
        for line in summary(studies):
            print(line)
        for one in studies:
            for warning in one.warnings:
                print(f"{one.problem.a:g}, {one.problem.b:g} {one.schedule}: {warning}")
        print()
    print(f"{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
