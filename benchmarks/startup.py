"""CPU seconds of short commands, each in fresh processes: what a start of optsched costs."""

from __future__ import annotations

import argparse
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile

MODULE = f"{shlex.quote(sys.executable)} -m optsched.cli"
PROBLEM = "--a 3.5 --b 2"
COMMANDS = {
    "python": f"{shlex.quote(sys.executable)} -c pass",
    "import optsched": f"{shlex.quote(sys.executable)} -c 'import optsched'",
    "import optsched, Schedule": f"{shlex.quote(sys.executable)} -c "
    "'from optsched import Schedule'",
    "--help": f"{MODULE} --help",
    "--version": f"{MODULE} --version",
    "solve --help": f"{MODULE} solve --help",
    "solve --a x": f"{MODULE} solve --a x",
    "rules lmo": f"{MODULE} rules lmo --regime joint --from-tokens 1e9 --to-tokens 1e10"
    " --lr 0.01 --momentum 0.9 --batch 1e5",
    "rules stability": f"{MODULE} rules stability --sharpness 20",
    "rules extend": f"{MODULE} rules extend --from-horizon 1000 --to-horizon 4000",
    "export": f"{MODULE} export schedule.csv --format torch-snippet",
    "verify, 10^3 steps": f"{MODULE} verify schedule.csv {PROBLEM}",
    "verify, 10^5 steps": f"{MODULE} verify long.csv {PROBLEM}",
    "solve, 10^3 steps": f"{MODULE} solve {PROBLEM} --horizon 1000 --json",
}


def seconds(command: str, folder: str) -> float:
    """CPU time of a command, its children's too."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(shlex.split(command), cwd=folder, capture_output=True, check=False)
    assert run.returncode == (2 if command.endswith(" x") else 0), run.stderr
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with tempfile.TemporaryDirectory() as folder:
        from optsched import Schedule
        from optsched.schedules.families.registry import find_family

        cosine = find_family("cosine")
        assert cosine is not None
        for name, steps in (("schedule.csv", 1000), ("long.csv", 100_000)):
            schedule: Schedule = cosine(steps, 0.2)
            schedule.save(f"{folder}/{name}")
        print(f"{'command':26} median   least  CPU seconds of {repeats} runs")
        for name, command in COMMANDS.items():
            seconds(command, folder)  # files come from the disk once, compiled code from nowhere
            taken = [seconds(command, folder) for _ in range(repeats)]
            print(f"{name:26} {statistics.median(taken):6.2f}  {min(taken):6.2f}", flush=True)


if __name__ == "__main__":
    main()
