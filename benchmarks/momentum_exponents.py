"""Which loss exponent the optimum of momentum follows in the hard phase.

Optima of SGD (eta), heavy ball (eta, beta) and quasi-hyperbolic momentum (eta, beta, nu) along
horizons T = 10^2 .. 10^5, N infinite, sigma = 0.5, beside the predictions (a-1)/b of SGD,
(a-1)(2b-1)/b^2 of memory that grows with time, and the floor (a-1)/a. Then the form of the best
QHM schedule at the longest horizon. Run: ``python -m benchmarks.momentum_exponents``.

Rows go to ``--rows`` as they are found, one JSON object a line; a run that is started again with
the same file takes them from there.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from optsched import Problem
from optsched.exponents import ExponentFit, fit_exponent
from optsched.studies.scaling import (
    SCHEDULES,
    Scaling,
    ScalingPoint,
    scaling,
)


class Case(NamedTuple):
    """A line of the table."""

    a: float
    b: float
    m: float
    controls: str

    @property
    def key(self) -> str:
        return f"{self.a:g},{self.b:g},{self.m:g},{self.controls}"


SGD, HEAVY, QHM = "eta", "eta,beta", "eta,beta,nu"
PLANE = ((3.5, 5.0), (2.0, 3.0), (1.5, 4.0))
CASES = {
    "qhm": [Case(a, b, 5.0, QHM) for a, b in PLANE],
    "sgd": [Case(a, b, 5.0, SGD) for a, b in PLANE],
    "heavy-ball": [Case(a, b, 5.0, HEAVY) for a, b in PLANE],
    "batch": [Case(1.5, 4.0, m, QHM) for m in (1.0, 64.0)],
}
NAMES = {SGD: "SGD", HEAVY: "heavy ball", QHM: "QHM"}
# Where the form of a schedule is fitted, in shares of the horizon: early, from step 10; and late,
# in steps to go.
EARLY, LATE = (10.0, 0.03), (0.03, 0.7)


def horizons(longest: float, count: int = 7) -> list[int]:
    """From 100 to the longest, evenly spaced in log T."""
    return [round(t) for t in np.geomspace(100.0, longest, count)]


def power(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope of log y in log x, and half the difference of the slopes of the two halves."""
    u, v = np.log(x), np.log(y)
    lower = u < u.mean()
    first, second = (np.polyfit(u[part], v[part], 1)[0] for part in (lower, ~lower))
    return float(np.polyfit(u, v, 1)[0]), 0.5 * abs(float(second - first))


def shape(row: Mapping[str, Any]) -> dict[str, tuple[float, float]]:
    """How a QHM schedule scales, in terms that do not depend on the scale of its momentum.

    With ``1 - beta = memory / t``, update t moves by
    ``direct_t g_t + kick_t sum_s (s/t)^(memory-1) g_s``, where ``direct = eta (1-nu)`` and
    ``kick = eta nu (1-beta)``. A memory of 1 is the plain sum of all gradients; so is a 1 - beta
    far below 1/T, whose kick is the same.
    """
    knots = {name: np.array(values) for name, values in row["knots"].items()}
    horizon = row["horizon"]
    early = np.geomspace(EARLY[0], EARLY[1] * horizon, 60)
    togo = np.geomspace(LATE[0] * horizon, LATE[1] * horizon, 60)
    out = {}
    for part, x, steps in (("early", early, early), ("late", togo, horizon - togo)):
        eta, nu, beta = (np.interp(steps, knots["step"], knots[k]) for k in ("eta", "nu", "beta"))
        out[f"direct {part}"] = power(x, eta * (1.0 - nu))
        if part == "early":
            out["kick early"] = power(x, eta * nu * (1.0 - beta))
            values = (1.0 - beta) * steps
            out["memory"] = float(np.median(values)), float(np.ptp(values)) / 2.0
    return out


class Rows:
    """Points that are kept in a file as they come."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[tuple[str, int], dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                row = json.loads(line)
                self.found[row["case"], row["horizon"]] = row

    def study(self, case: Case, steps: list[int]) -> Scaling:
        """Solve what the file does not have, and fit."""

        def kept(
            problem: Problem, options: Mapping[str, Any], shorter: ScalingPoint | None
        ) -> ScalingPoint:
            row = self.found.get((case.key, problem.horizon))
            point = None
            if row is None:
                point = SCHEDULES["optimal"](problem, options, shorter)
                row = {"case": case.key, **point.summary()}
                if point.solution is not None:
                    proof = point.solution.certificate
                    row["curvature"] = proof.curvature if math.isfinite(proof.curvature) else None
                    row["starts"] = len(proof.starts)
                    knots = {"step": point.solution.t, **point.solution.controls}
                    row["knots"] = {name: values.tolist() for name, values in knots.items()}
                self.found[case.key, problem.horizon] = row
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            loss, peak = (
                math.nan if row[name] is None else row[name] for name in ("excess_loss", "peak_eta")
            )
            return ScalingPoint(
                row["horizon"],
                loss,
                peak,
                row["converged"],
                row["message"],
                row["seconds"],
                None if point is None else point.solution,
            )

        def told(point: ScalingPoint) -> None:
            print(f"  {case.key} T = {point.horizon}: {point.excess_loss:.6g}", flush=True)

        problem = Problem(
            case.a,
            case.b,
            100,
            features=math.inf,
            batch_size=case.m,
            controls=tuple(case.controls.split(",")),
        )
        SCHEDULES["kept"] = kept
        try:
            options = {"gap": 1e3, "replay_steps": 10**6}
            return scaling(problem, steps, schedule="kept", solve_options=options, progress=told)
        finally:
            del SCHEDULES["kept"]


def number(value: float, error: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f} +- {error:.3f}"


def table(studies: Mapping[Case, Scaling]) -> Iterator[str]:
    """The exponents, one line a case."""
    yield (
        f"{'a':>4} {'b':>4} {'m':>3} {'optimum':<11} {'exponent':>15} {'extrapolated':>15}"
        f" {'(a-1)/b':>8} {'(2b-1).':>8} {'(a-1)/a':>8}  {'nearer to':<15} local slopes"
    )
    for case, study in studies.items():
        fit = study.fit
        if fit is None:
            yield f"{case.key}: no fit: {'; '.join(study.warnings)}"
            continue
        a, b = case.a, case.b
        memory = (a - 1.0) * (2.0 * b - 1.0) / b**2
        slopes = " ".join(f"{slope:.3f}" for slope in fit.local_slopes)
        yield (
            f"{a:>4g} {b:>4g} {case.m:>3g} {NAMES[case.controls]:<11}"
            f" {number(fit.exponent, fit.stderr):>15}"
            f" {number(fit.extrapolated, fit.extrapolated_stderr):>15}"
            f" {(a - 1) / b:>8.3f} {memory:>8.3f} {(a - 1) / a:>8.3f}"
            f"  {nearer(study):<15} {slopes}"
        )
    yield "(2b-1).: (a-1)(2b-1)/b^2, which counts only up to the floor (a-1)/a"


def nearer(study: Scaling) -> str:
    """The prediction that the optimum is nearest to, and ties."""
    words = {"sgd": "SGD", "growing_memory": "growing memory", "floor": "floor"}
    among = {words[name]: value for name, value in study.theory.items() if name in words}
    if study.fit is None:
        return ""
    fit = study.fit
    best = fit.exponent if math.isnan(fit.extrapolated) else fit.extrapolated
    least = min(abs(value - best) for value in among.values())
    return " = ".join(k for k, v in among.items() if math.isclose(abs(v - best), least))


def forms(rows: Rows, studies: Mapping[Case, Scaling]) -> Iterator[str]:
    """How the controls of QHM scale with t and with the time to go, at each horizon."""
    yield "\nform of QHM: direct = eta (1-nu), kick = eta nu (1-beta), memory = (1-beta) t"
    yield f"early: powers of t, t = 10 .. {EARLY[1]:g} T; error: half of late - early power"
    yield f"late: powers of T - t, T - t = {LATE[0]:g} T .. {LATE[1]:g} T"
    names = ("direct early", "kick early", "memory", "direct late")
    yield f"{'a':>4} {'b':>4} {'m':>3} {'T':>8}" + "".join(f" {name:>16}" for name in names)
    for case, study in studies.items():
        for point in study.points:
            row = rows.found[case.key, point.horizon]
            if case.controls == QHM and point.horizon > 3000 and "knots" in row:
                made = shape(row)
                powers = " ".join(f"{number(*made[name]):>16}" for name in names)
                yield f"{case.a:>4g} {case.b:>4g} {case.m:>3g} {point.horizon:>8} {powers}"


def gains(studies: Mapping[Case, Scaling]) -> Iterator[str]:
    """Loss of SGD and of heavy ball over that of QHM, with the exponent of the ratio."""
    yield "\nexcess loss over that of QHM at the same horizon, and the power of T of that ratio"
    for case, study in studies.items():
        other = studies.get(case._replace(controls=QHM))
        if case.controls == QHM or other is None:
            continue
        best = {point.horizon: point.excess_loss for point in other.points if point.converged}
        pairs = [
            (p.horizon, p.excess_loss / best[p.horizon])
            for p in study.points
            if p.converged and p.horizon in best
        ]
        if len(pairs) < 2:
            continue
        ratio: ExponentFit = fit_exponent(*zip(*pairs, strict=True))
        values = " ".join(f"{r:.3g}" for _, r in pairs)
        yield (
            f"{case.a:>4g} {case.b:>4g} {case.m:>3g} {NAMES[case.controls]:<11} {values}"
            f"  T^{number(-ratio.exponent, ratio.stderr)}"
        )


def main() -> None:
    """Run the study, and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default=",".join(CASES), help="of " + ", ".join(CASES))
    parser.add_argument("--longest", type=float, default=1e5, help="longest horizon")
    parser.add_argument("--points", type=int, default=7, help="number of horizons")
    parser.add_argument("--rows", type=Path, default=Path("momentum_exponents.jsonl"))
    args = parser.parse_args()
    unknown = set(args.cases.split(",")) - set(CASES)
    if unknown:
        parser.error(f"--cases: got {', '.join(sorted(unknown))}, allowed: {', '.join(CASES)}")
    if not 200.0 <= args.longest <= 1e9 or args.points < 2:
        parser.error("--longest: allowed: 200 to 1e9; --points: 2 or more")
    began = time.perf_counter()
    rows, studies = Rows(args.rows), {}
    for name in args.cases.split(","):
        for case in CASES[name]:
            studies[case] = rows.study(case, horizons(args.longest, args.points))
    print()
    for lines in (table(studies), gains(studies), forms(rows, studies)):
        print("\n".join(lines))
    for case, study in studies.items():
        for warning in study.warnings:
            print(f"warning: {case.key}: {warning}")
    print(f"{os.cpu_count()} cores, {time.perf_counter() - began:.0f} s, rows in {args.rows}")


if __name__ == "__main__":
    main()
