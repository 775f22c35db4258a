"""Random problems over all that the library accepts, each judged by code of its own.

``python -m benchmarks.fuzz --count 3000 --joint 300 --seed 1 --workers 2 --output DIR``

The rate alone: a in 1.01..8, b in 1.01..10, T to 10^12, m to 10^6, label noise 0 or 1e-6..1e3, a
largest rate of 1e-6..50, 1 to infinitely many features, a third with a warm-up, a floor of the rate
or a bounded change. Joint: every set of controls in turn, in both phases, T to 10^6. A problem may
converge or be refused honestly (`SolveFailed`); anything else is a fault: another exception, a
warning, a number that is none, a constraint that is not kept, a loss that a recursion written
apart (`benchmarks.fuzz.recursion`) contradicts, that is below a bound or the floor, or above that
of the rate alone. With --output a run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.fuzz.judge import judged

Row = dict[str, Any]
Case = tuple[str, int, int]  # kind, seed, number


def worked(case: Case, limit: float, long_check: bool) -> Row:
    return json.loads(judged(*case, limit, long_check).row())


def _known(folder: Path | None) -> dict[Case, Row]:
    """Rows of earlier runs; of one that was cut off, all whole lines."""
    if folder is None or not (folder / "rows.jsonl").exists():
        return {}
    found = {}
    for line in (folder / "rows.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        found[row["kind"], row["seed"], row["number"]] = row
    return found


def _run(cases: list[Case], args: argparse.Namespace) -> Iterator[Row]:
    began, rest = time.monotonic(), iter(cases)
    if args.workers == 1:
        for case in rest:
            if time.monotonic() - began > args.stop_after:
                return
            yield worked(case, args.limit, case[2] % args.long_every == 0)
        return
    with ProcessPoolExecutor(args.workers, get_context("spawn")) as pool:
        for start in range(0, len(cases), 32 * args.workers):
            if time.monotonic() - began > args.stop_after:
                return
            some = cases[start : start + 32 * args.workers]
            jobs = [pool.submit(worked, c, args.limit, c[2] % args.long_every == 0) for c in some]
            for job in as_completed(jobs):
                yield job.result()


def _table(kind: str, rows: list[Row]) -> None:
    outcomes = Counter(row["outcome"] for row in rows)
    count = len(rows)
    shares = ", ".join(f"{outcomes[name]} {name}" for name in ("converged", "refused", "fault"))
    checked = sum(row["off"] == row["off"] for row in rows)
    print(
        f"\n{kind}: {count} problems: {shares} ({100 * outcomes['refused'] / count:.2g} % refused)"
    )
    print(f"  loss judged by our own recursion: {checked}")
    titles = ("certified gap", "over floor", "off", "residual", "seconds")
    print(" " * 8 + "".join(f"{title:>14}" for title in titles))
    names = ("gap", "over_floor", "off", "residual", "seconds")
    good = [row for row in rows if row["outcome"] == "converged"]
    table = [np.abs([row[name] for row in good], dtype=float) for name in names]
    table = [column[np.isfinite(column)] for column in table]
    for q in (50, 90, 99, 100):
        shown = (f"{np.percentile(c, q):>14.3g}" if len(c) else f"{'none':>14}" for c in table)
        print(f"{q:>6} %" + "".join(shown))
    for row in rows:
        if row["outcome"] != "converged":
            print(f"{row['outcome']} {row['seed']}/{row['number']}: {row['problem']}")
            for line in row["faults"] or [row["message"]]:
                print(f"  {line}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=300, help="problems of the rate alone")
    parser.add_argument("--joint", type=int, default=0, help="problems with other or more controls")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first problem")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument(
        "--limit", type=float, default=120.0, help="processor seconds for one problem"
    )
    parser.add_argument("--long-every", type=int, default=1, help="judge one long run in so many")
    parser.add_argument("--stop-after", type=float, default=1e9, help="begin nothing after seconds")
    parser.add_argument("--output", type=Path, help="folder in which rows are kept")
    args = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    wanted = [
        (kind, args.seed, number)
        for kind, count in (("rate", args.count), ("joint", args.joint))
        for number in range(args.first, args.first + count)
    ]
    known = _known(args.output)
    todo = [case for case in wanted if case not in known]
    if args.output is not None:
        args.output.mkdir(parents=True, exist_ok=True)
    for i, row in enumerate(_run(todo, args)):
        known[row["kind"], row["seed"], row["number"]] = row
        if args.output is not None:
            with (args.output / "rows.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        if row["outcome"] != "converged" or (i + 1) % 50 == 0:
            shown = "; ".join(row["faults"]) or row["outcome"]
            print(f"{i + 1} of {len(todo)}: {row['kind']} {row['number']} {shown}", flush=True)
    done = [known[case] for case in wanted if case in known]
    for kind in ("rate", "joint"):
        if rows := [row for row in done if row["kind"] == kind]:
            _table(kind, rows)
    return int(any(row["outcome"] == "fault" for row in done))


if __name__ == "__main__":
    raise SystemExit(main())
