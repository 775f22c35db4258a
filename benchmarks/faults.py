"""Deliberate faults, each of which the light tests must notice.

``python -m benchmarks.faults``: the repository is copied, one line of the copy is made wrong, and
the tests that are to notice are run on it. A fault that no test notices is printed as a survivor,
and the exit code is 1. ``--only WORD`` takes the faults with the word in their names.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
COPIED = ("optsched", "tests", "benchmarks", "pyproject.toml")


class Fault(NamedTuple):
    """A line that is made wrong, and the tests that are to fail then."""

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


EVIDENCE, FLOOR = "tests/test_evidence.py", "tests/test_floor.py"
FAULTS = (
    Fault(
        "any gradient at a bound counts as held in the KKT residual",
        "optsched/control/certificate.py",
        "held = (at_upper & (gradient < 0.0)) | (at_lower & (gradient > 0.0))",
        "held = at_upper | at_lower",
        (f"{EVIDENCE}::test_what_pushes_inwards_from_a_bound_is_no_optimum",),
    ),
    Fault(
        "any gradient at a bound counts as held in the search",
        "optsched/control/methods/descent.py",
        "held = ((x <= lower) & (gradient > 0.0)) | ((x >= upper) & (gradient < 0.0))",
        "held = (x <= lower) | (x >= upper)",
        (f"{EVIDENCE}::test_what_pushes_inwards_from_a_bound_is_no_optimum",),
    ),
    Fault(
        "the bound without its margin",
        "optsched/control/bounds/certified.py",
        "incumbent) * (1.0 - SAFETY)",
        "incumbent)",
        (f"{EVIDENCE}::test_a_refined_bound_is_lowered_by_its_margin",),
    ),
    Fault(
        "the replay's estimate of its error halved",
        "optsched/model/replay.py",
        "change = abs(value / last - 1.0) if",
        "change = 0.5 * abs(value / last - 1.0) if",
        (f"{EVIDENCE}::test_error_of_a_replay_is_what_halving_its_blocks_changed",),
    ),
    Fault(
        "the check of the rate's floor 10 % loose",
        "optsched/control/rate/constraints.py",
        "after.min() < problem.eta_min - slack",
        "after.min() < 0.9 * problem.eta_min - slack",
        (f"{EVIDENCE}::test_a_rate_a_little_below_the_floor_is_a_breach",),
    ),
    Fault(
        "floor under optimisers: blocks of modes count as if they were no random vectors",
        "optsched/control/bounds/floor.py",
        "length = last - end - n - 2.0",
        "length = last - end",
        (FLOOR,),
    ),
    Fault(
        "floor under optimisers: one direction too few is unseen",
        "optsched/control/bounds/floor.py",
        "math.ceil(samples) + 1.0",
        "math.ceil(samples) + 0.0",
        (FLOOR,),
    ),
    Fault(
        "floor under optimisers: batches between whole sizes taken as they are",
        "optsched/control/certificate.py",
        "mean, most = mean_batch(m) * steps, math.ceil(m) * steps",
        "mean, most = m * steps, m * steps",
        (f"{EVIDENCE}::test_batches_between_whole_sizes_have_more_samples_in_the_floor",),
    ),
    Fault(
        "plain objective: the errors of blocks halved",
        "optsched/control/rate/plain.py",
        "errors = ((halved - states[1:]) * costates[1:]).sum(1) / value",
        "errors = 0.5 * ((halved - states[1:]) * costates[1:]).sum(1) / value",
        (f"{EVIDENCE}::test_errors_of_blocks_are_what_halving_them_all_changes",),
    ),
    Fault(
        "plain objective: a knot pulls on the block after it only",
        "optsched/control/rate/plain.py",
        "knots[1 : n + 1] += ends[1]",
        "knots[1:n] += ends[1][:-1] * 0.9",
        ("tests/test_plain.py::test_objective_is_that_of_jax",),
    ),
    Fault(
        "plain objective: modes without noise are too coarse",
        "optsched/model/sgd/chain.py",
        "out=np.ones_like(sizes)",
        "out=np.zeros_like(sizes)",
        (f"{EVIDENCE}::test_modes_without_noise_do_not_make_a_block_coarse",),
    ),
    Fault(
        "law with a norm: the middle of a piece weighs too little",
        "optsched/pilot/laws/norm.py",
        "np.array([1.0, 4.0, 1.0])[:, None] / 6.0",
        "np.array([1.0, 3.6, 1.0])[:, None] / 6.0",
        ("tests/test_pilot_norm.py::test_pieces_give_the_sum_over_steps",),
    ),
    Fault(
        "bound of plans: the mean defect in place of the least",
        "optsched/pilot/planning/verified.py",
        "* stretch - change).min(1)",
        "* stretch - change).mean(1)",
        ("tests/test_plan_bound.py::test_a_wrong_value_function_gives_a_lower_bound",),
    ),
    Fault(
        "intervals of predictions half as wide",
        "optsched/pilot/prediction.py",
        "half = float(ndtri(0.5 + 0.5 * level)) * _spread",
        "half = 0.5 * float(ndtri(0.5 + 0.5 * level)) * _spread",
        ("tests/test_pilot_fit.py::test_no_members_is_no_uncertainty_but_misfit_and_seeds",),
    ),
)


def run(home: Path, tests: tuple[str, ...]) -> tuple[bool, str]:
    """Whether the tests pass in a copy, and their last line."""
    settings = {**os.environ, "PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=home, env=settings, capture_output=True, text=True)
    # 0: all passed, 1: some failed; anything else is no verdict.
    if done.returncode not in (0, 1):
        raise SystemExit(f"{' '.join(tests)}\n{done.stdout}{done.stderr}")
    return done.returncode == 0, done.stdout.strip().splitlines()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="a word in the name of a fault")
    args = parser.parse_args()
    chosen = [fault for fault in FAULTS if args.only in fault.name]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, home / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, home / name)
        tests = tuple(sorted({test for fault in chosen for test in fault.tests}))
        good, last = run(home, tests)
        print(f"without a fault: {last}", flush=True)
        if not good:
            return 1
        for fault in chosen:
            file = home / fault.file
            right = file.read_text(encoding="utf-8")
            if right.count(fault.right) != 1:
                raise SystemExit(f"{fault.file}: {fault.right!r} is not there once")
            file.write_text(right.replace(fault.right, fault.wrong), encoding="utf-8")
            began = time.perf_counter()
            passed, last = run(home, fault.tests)
            file.write_text(right, encoding="utf-8")
            survivors += passed
            verdict = "SURVIVES" if passed else "caught"
            print(
                f"{verdict:>9}  {fault.name} ({time.perf_counter() - began:.0f} s): {last}",
                flush=True,
            )
    print(f"{len(chosen)} faults, {survivors} of them survive")
    return int(survivors > 0)


if __name__ == "__main__":
    raise SystemExit(main())
