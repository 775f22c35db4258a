"""Kill sweeps at random times, and compare what is left with a run without a break.

``python -m benchmarks.kills [--kills 100] [--cells 40] [--seed 0]``. Each sweep runs alone (in this
number of workers: 1 or 2) or as two shards side by side, and gets SIGKILL, SIGTERM, SIGUSR1 or
SIGINT, while it starts or a random time after a few cells, again and again until all its cells are
there; then a new one begins.
Cells write what they do to a log: a cell that was finished and is done again is a fault, and so is
one whose result differs from that of a run without a break in any bit, an exit code that is not
that of the signal, and a file that cannot be read.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from optsched.studies.sweep import stopping, sweep

SIGNALS = ("SIGKILL", "SIGTERM", "SIGUSR1", "SIGINT")
# 143 is that of sweeps that were asked to stop; the others end as Python does.
EXPECTED = {
    "SIGKILL": {-signal.SIGKILL},
    "SIGTERM": {143, -signal.SIGTERM},
    "SIGUSR1": {143, -signal.SIGUSR1},
    "SIGINT": {1, 130, -signal.SIGINT},
}
PLACES = ("one process", "two workers", "two shards")


def work(cell: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    """A number with all its digits, and a line in the log when it is done."""
    time.sleep(settings["seconds"])
    value = math.sin(cell["x"]) / 3.0
    with open(settings["log"], "a") as log:
        log.write(f"{cell['x']}\n")
    return {"value": value, "nan": math.nan, "list": [value / n for n in range(1, 9)]}


def child(text: str) -> None:
    """A sweep in a process of its own."""
    options = json.loads(text)
    with stopping() as stop:
        sweep(work, options.pop("cells"), kind="kills", stop=stop, **options)
    sys.exit(143 if stop() else 0)


def started(options: dict[str, Any], place: str) -> list[subprocess.Popen]:
    workers = 2 if place == "two workers" else 1
    shards = [(0, 2), (1, 2)] if place == "two shards" else [None]
    return [
        subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.kills", "--child"),
                json.dumps({**options, "workers": workers, "shard": shard}),
            ],
            stderr=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for shard in shards
    ]


def wait(log: Path, lines: int, processes: list[subprocess.Popen]) -> None:
    """Until so many cells are done, or nobody does any."""
    while any(one.poll() is None for one in processes):
        if (len(log.read_text().splitlines()) if log.exists() else 0) >= lines:
            return
        time.sleep(0.002)


def results(folder: Path) -> dict[str, Any]:
    """What the cell files have, seconds apart."""
    found = {}
    for path in sorted((folder / "cells").glob("*=*.json")):
        told = json.loads(path.read_text())
        found[path.name] = {name: told[name] for name in ("cell", "status", "result", "error")}
    return found


def killed(
    folder: Path, options: dict[str, Any], place: str, rng: random.Random, left: int, count: Counter
) -> int:
    """Kill one sweep until it is done; the number of kills."""
    kills, log = 0, Path(options["settings"]["log"])
    while True:
        kept = {told["cell"]["x"] for told in results(folder).values()}
        before = len(log.read_text().splitlines()) if log.exists() else 0
        processes = started(options, place)
        name = rng.choice(SIGNALS)
        if kills < left:
            wait(log, before + rng.randint(0, 12), processes)
            time.sleep(rng.uniform(0.0, 0.1))
            for one in processes:
                if one.poll() is None:
                    one.send_signal(getattr(signal, name))
        codes = [one.wait(120) for one in processes]
        again = (
            {int(x) for x in log.read_text().splitlines()[before:]} & kept
            if log.exists()
            else set()
        )
        count["done twice"] += len(again)
        count["exit codes"] += sum(code not in EXPECTED[name] | {0} for code in codes)
        hit = [code for code in codes if code != 0]
        kills += len(hit)
        count[name] += len(hit)
        if not hit:
            return kills


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--cells", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child")
    options = parser.parse_args()
    if options.child is not None:
        child(options.child)
    rng, count, kills, sweeps = random.Random(options.seed), Counter(), 0, 0
    cells = [{"x": x} for x in range(options.cells)]
    with TemporaryDirectory() as home:
        settings = {"seconds": 0.04, "log": f"{home}/log"}
        whole = Path(home) / "whole"
        sweep(work, cells, kind="kills", settings=settings, folder=whole, workers=1)
        expected = results(whole)
        while kills < options.kills:
            folder, place = Path(home) / str(sweeps), PLACES[sweeps % len(PLACES)]
            Path(settings["log"]).unlink(missing_ok=True)
            given = {"cells": cells, "settings": settings, "folder": str(folder)}
            kills += killed(folder, given, place, rng, options.kills - kills, count)
            found = sweep(work, cells, kind="kills", settings=settings, folder=folder, workers=1)
            count["lost"] += len(cells) - found.resumed
            count["corrupt"] += len(found.corrupt)
            count["different"] += results(folder) != expected
            sweeps += 1
    by = ", ".join(f"{name} {count[name]}" for name in SIGNALS)
    print(f"{kills} kills ({by}) of {sweeps} sweeps of {len(cells)} cells")
    faults = ("different", "done twice", "lost", "corrupt", "exit codes")
    print("faults: " + ", ".join(f"{name} {count[name]}" for name in faults))


if __name__ == "__main__":
    main()
