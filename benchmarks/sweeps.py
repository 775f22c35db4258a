"""Time a phase diagram: cells a second on one and two workers, of processes and of Dask.

``python -m benchmarks.sweeps [--cells 100] [--on processes,dask]``. Each pool first does the same
cells shifted by a hair, twice, as each worker compiles what it meets, so that what is timed is
compiled. Workers share compiled code through a temporary folder, as with the command line.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from tempfile import TemporaryDirectory
from typing import Any

import jax
import numpy as np

from optsched.studies.executors import Setup, own_pool
from optsched.studies.phases import phase_diagram
from optsched.studies.sweep import dask_executor

HORIZONS = [10**k for k in range(3, 9)]
CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    options = {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 50}
    with LocalCluster(n_workers=int(sys.argv[1]), **options) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""


def seconds(executor: Executor, side: int, shift: float) -> float:
    """Wall time of a grid of cells; a failed cell is an error."""
    a, b = np.linspace(1.2, 4.0, side) + shift, np.linspace(1.1, 4.0, side) + shift
    begin = time.perf_counter()
    done = phase_diagram(a, b, HORIZONS, executor=executor)
    assert not done.failed
    return time.perf_counter() - begin


@contextmanager
def processes(count: int) -> Iterator[Executor]:
    with own_pool(count, Setup.of_this_process()) as (pool, _):
        yield pool


@contextmanager
def dask(count: int) -> Iterator[Executor]:
    """Executor on a cluster in another process."""
    command = [sys.executable, "-c", CLUSTER, str(count)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as cluster:
        assert cluster.stdout is not None and cluster.stdin is not None
        with dask_executor(cluster.stdout.readline().strip()) as executor:
            yield executor
        cluster.stdin.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--on", default="processes")
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the workers
    side = round(options.cells**0.5)
    print(f"{side * side} cells of {len(HORIZONS)} horizons, 4 tuned families each")
    with TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        for name in options.on.split(","):
            report(name, {"processes": processes, "dask": dask}[name], side)


def report(name: str, place: Any, side: int) -> None:
    """Time one and two workers."""
    times = []
    for count in (1, 2):
        with place(count) as executor:
            first = seconds(executor, side, 0.02)
            seconds(executor, side, 0.01)
            times.append(seconds(executor, side, 0.0))
        cell = times[-1] / side**2
        print(
            f"{name}, {count} worker(s): {times[-1]:.1f} s, {cell:.3f} s a cell,"
            f" {900 * cell:.0f} s for 900 cells; compiling added {first - times[-1]:.0f} s"
        )
    print(f"{name}: two workers are {times[0] / times[1]:.2f} times as fast as one")


if __name__ == "__main__":
    main()
