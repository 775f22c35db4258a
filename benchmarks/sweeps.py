"""Time a phase diagram: cells a second on one and two workers, of processes and of Dask.

``python -m benchmarks.sweeps [--cells 36] [--on ceiling,processes,dask] [--rounds 3]``. Each pool
first does the same cells shifted by a hair, twice, as each worker compiles what it meets, so that
what is timed is compiled. Workers share compiled code through a temporary folder, as with the
command line. One and two workers are timed in turn, and the load of the machine is told: what
others do at the time changes the ratio.

``ceiling`` is what the machine itself gives: a loop of NumPy on small arrays, which shares nothing,
in one process and in two at once. Cores that share their units or their clock rate give less than
2, and no pool can give more.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from multiprocessing import get_context
from tempfile import TemporaryDirectory

import jax
import numpy as np

from optsched.studies.phases import phase_diagram
from optsched.studies.sweep.executors import Setup, own_pool
from optsched.studies.sweep.run import dask_executor

HORIZONS = [10**k for k in range(3, 9)]
CLUSTER = """
import sys
from distributed import LocalCluster
if __name__ == "__main__":
    options = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50}
    with LocalCluster(n_workers=int(sys.argv[1]), **options) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""
# Dask looks at what its workers do a hundred times a second, unless it is told not to.
QUIET = {
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__SCHEDULER__WORK_STEALING": "False",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
}
LOOPS = 40_000


def grid(executor: Executor, side: int, shift: float) -> None:
    """A grid of cells; a failed cell is an error."""
    a, b = np.linspace(1.2, 4.0, side) + shift, np.linspace(1.1, 4.0, side) + shift
    assert not phase_diagram(a, b, HORIZONS, executor=executor).failed


@contextmanager
def processes(count: int) -> Iterator[Executor]:
    with own_pool(count, Setup.of_this_process()) as (pool, _):
        yield pool


@contextmanager
def dask(count: int) -> Iterator[Executor]:
    """Executor on a cluster in another process."""
    command = [sys.executable, "-c", CLUSTER, str(count)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | QUIET
    ) as cluster:
        assert cluster.stdout is not None and cluster.stdin is not None
        with dask_executor(cluster.stdout.readline().strip()) as executor:
            yield executor
        cluster.stdin.close()


def burn(loops: int) -> float:
    """Work on small arrays, as a recursion of 64 modes does."""
    x, decay = np.ones(64), np.linspace(0.1, 0.9, 64)
    for _ in range(loops):
        x = decay * x + 1e-3 * x.sum() * np.exp(-decay)
    return float(x.sum())


def spread(executor: Executor, side: int, shift: float) -> None:
    """As many equal shares of the loop as there are cells."""
    del shift
    list(executor.map(burn, [LOOPS] * side**2))


@contextmanager
def plain(count: int) -> Iterator[Executor]:
    with ProcessPoolExecutor(count, get_context("spawn")) as pool:
        yield pool


PLACES = {"ceiling": (plain, spread), "processes": (processes, grid), "dask": (dask, grid)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=100)
    parser.add_argument("--on", default="processes")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # of the workers
    side = round(options.cells**0.5)
    print(f"{side * side} cells of {len(HORIZONS)} horizons, 4 tuned families each")
    with TemporaryDirectory() as folder:
        jax.config.update("jax_compilation_cache_dir", folder)
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        for name in options.on.split(","):
            report(name, side, options.rounds)


def report(name: str, side: int, rounds: int) -> None:
    """Time one and two workers, in turn."""
    place, work = PLACES[name]
    times: dict[int, list[float]] = {1: [], 2: []}
    with ExitStack() as stack:
        pools = {count: stack.enter_context(place(count)) for count in times}
        for shift in (0.02, 0.01):
            for pool in pools.values():
                work(pool, side, shift)
        for _ in range(rounds):
            for count, pool in pools.items():
                begin = time.perf_counter()
                work(pool, side, 0.0)
                times[count].append(time.perf_counter() - begin)
    for count, taken in times.items():
        cell = min(taken) / side**2
        each = "" if name == "ceiling" else f", {900 * cell:.0f} s for 900 cells"
        shown = ", ".join(f"{one:.1f}" for one in taken)
        print(f"{name}, {count} worker(s): {shown} s; at best {cell:.3f} s a cell{each}")
    ratios = sorted(one / two for one, two in zip(times[1], times[2], strict=True))
    print(
        f"{name}: two workers are {float(np.median(ratios)):.2f} times as fast as one"
        f" ({ratios[0]:.2f} to {ratios[-1]:.2f}; load {os.getloadavg()[0]:.1f}"
        f" on {os.cpu_count()} cores)",
        flush=True,
    )


if __name__ == "__main__":
    main()
