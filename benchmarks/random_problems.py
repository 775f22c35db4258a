"""Random problems over the whole promised range: convergence, and honesty.

a in 1.1..5, b in 1.1..6, T log-uniform in 10..10^9, m log-uniform in 1..10^4, sigma in 0..3,
eta_max in 0.01..1.9, N = 1000. Run: ``python -m benchmarks.random_problems --count 500``.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from optsched import Problem, SolveFailed, solve


def draw(rng: np.random.Generator) -> Problem:
    """One problem."""
    return Problem(
        a=rng.uniform(1.1, 5.0),
        b=rng.uniform(1.1, 6.0),
        horizon=int(10 ** rng.uniform(1.0, 9.0)),
        batch_size=10 ** rng.uniform(0.0, 4.0),
        noise=rng.uniform(0.0, 3.0),
        eta_max=rng.uniform(0.01, 1.9),
    )


def main() -> None:
    """Solve, and print failures, quantiles and the worst cases."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--replay-steps",
        type=int,
        default=10_000,
        help="largest horizon replayed step by step on all modes",
    )
    args = parser.parse_args()
    rng = np.random.default_rng(args.seed)
    rows, failures, contradicted = [], [], 0
    for i in range(args.count):
        problem = draw(rng)
        began = time.perf_counter()
        try:
            solution = solve(problem, replay_steps=args.replay_steps)
        except SolveFailed as error:
            failures.append((problem, str(error)))
            continue
        proof = solution.certificate
        allowed = 3.0 * proof.discretisation_error + proof.replay_error + 1e-6
        contradicted += abs(proof.replay_gap) > allowed
        rows.append(
            (
                proof.certified_gap,
                proof.kkt_residual,
                abs(proof.replay_gap),
                solution.stats["evaluations"],
                time.perf_counter() - began,
                i,
            )
        )
        if (i + 1) % 50 == 0:
            print(f"{i + 1} problems, {len(failures)} raised", flush=True)
    table = np.array(rows)
    print(
        f"\n{args.count} problems (seed {args.seed}): {len(failures)} raised, "
        f"{contradicted} contradicted by their replay, "
        f"{int((table[:, 0] < -1e-9).sum())} below their bound"
    )
    print(
        f"{'':>10} {'certified gap':>14} {'KKT residual':>13} {'replay gap':>11} "
        f"{'evaluations':>12} {'seconds':>8}"
    )
    for q in (50, 75, 90, 95, 99, 100):
        gap, kkt, replay, evaluations, seconds = np.percentile(table[:, :5], q, axis=0)
        print(
            f"{q:>8} % {100 * gap:>12.3f} % {kkt:>13.1e} {replay:>11.1e} "
            f"{evaluations:>12.0f} {seconds:>8.3f}"
        )
    print("(the longest times include compilation)")
    for problem, message in failures:
        print(f"raised: {problem}\n  {message}")


if __name__ == "__main__":
    main()
