"""Where the cells of a sweep run: this process, a pool of spawned processes, any executor.

Workers of the own pool are spawned, never forked, as JAX does not survive a fork. Each uses one
thread: processes are the parallelism, and threads of the linear algebra would only wait for each
other. Code that this process has compiled is shared through JAX's cache on disk, if it has one.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    wait,
)
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from optsched.cache import heal_cache
from optsched.errors import InvalidProblem, OptschedError
from optsched.studies.sweep.cells import plain
from optsched.studies.sweep.cluster import Cluster, line, named
from optsched.studies.sweep.shards import SIGNALS

__all__ = [
    "Outcome",
    "Setup",
    "WorkerLost",
    "check_task",
    "default_workers",
    "own_pool",
    "run_here",
    "run_on",
]

Cell = dict[str, Any]
Task = Callable[[Cell, Cell], Mapping[str, Any]]

AHEAD = 2  # cells in flight a worker: the next one is there when it is done with one
IN_FLIGHT = 64  # of an executor whose number of workers is not known
BLAS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT = 2**26  # bytes of free memory that a worker keeps
XLA_FLAG = "--xla_cpu_multi_thread_eigen=false"
JAX_CACHE = (
    "jax_compilation_cache_dir",
    "jax_persistent_cache_min_compile_time_secs",
    "jax_persistent_cache_min_entry_size_bytes",
)


class WorkerLost(Exception):
    """An executor gave no outcome for a cell; the message says why."""


@dataclass(frozen=True)
class Outcome:
    """What a worker sends back."""

    status: str
    result: dict[str, Any]
    error: str
    seconds: float


@dataclass(frozen=True)
class Setup:
    """What a worker needs to know of the process that asked for it."""

    host: str
    process: int
    jax: dict[str, Any]
    one_thread: bool = False

    @staticmethod
    def of_this_process() -> Setup:
        """Settings of this process; JAX is not imported for it."""
        cache: dict[str, Any] = {}
        if "jax" in sys.modules:
            import jax

            cache = {name: getattr(jax.config, name) for name in JAX_CACHE}
        return Setup(socket.gethostname(), os.getpid(), cache if cache.get(JAX_CACHE[0]) else {})


_prepared: set[int] = set()  # processes, as a fork would inherit a plain flag


def _prepare(setup: Setup) -> None:
    """Set up this process for tasks, once; the process that asked is left alone."""
    here = os.getpid()
    if here in _prepared or (setup.host, setup.process) == (socket.gethostname(), here):
        return
    _prepared.add(here)
    _keep_memory()
    heal_cache()
    if os.environ.get(BLAS[0]) == "1":  # as Dask has it for its workers
        _limit_xla()
    if setup.one_thread:
        from threadpoolctl import threadpool_limits

        # Environment variables come too late for libraries that the main module has loaded.
        threadpool_limits(1)
        _limit_xla()
    # Code compiled on one machine can crash on another.
    if setup.jax and setup.host == socket.gethostname():
        import jax

        if setup.one_thread or not getattr(jax.config, JAX_CACHE[0]):
            for name, value in setup.jax.items():
                jax.config.update(name, value)


def _work(task: Task, setup: Setup, cell: Cell, settings: Cell) -> Outcome:
    """Run a task on a cell, in a worker."""
    _prepare(setup)
    begin = time.perf_counter()
    status, result, error = "done", {}, ""
    try:
        found = task(cell, settings)
        if not isinstance(found, Mapping):
            raise InvalidProblem("result", found, "a dict")
        result = plain(found, "result")
    except OptschedError as failure:
        status, error = "failed", line(failure)
    except Exception as failure:
        status, error = "failed", named(failure)
    return Outcome(status, result, error, time.perf_counter() - begin)


def check_task(task: Task) -> None:
    """Refuse now what no worker could load."""
    allowed = "a function at the top level of a module, which workers can import"
    if not callable(task):
        raise InvalidProblem("task", task, allowed)
    try:
        pickle.dumps(task)
    except Exception:  # pickle.PicklingError, AttributeError, TypeError and what classes raise
        raise InvalidProblem("task", task, allowed) from None


def default_workers() -> int:
    """Number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


# Takes the key of a cell, its outcome, and whether to report progress.
Finish = Callable[[str, Outcome, bool], None]


# The cells that are still to be done, one after another; what it gives has to be done.
Wanted = Iterator[tuple[str, Cell]]


def run_here(task: Task, setup: Setup, cells: Wanted, settings: Cell, finish: Finish) -> None:
    """Run cells one after another in this process."""
    for key, cell in cells:
        finish(key, _work(task, setup, cell, settings), True)


def run_on(
    executor: Executor,
    task: Task,
    setup: Setup,
    cells: Wanted,
    settings: Cell,
    finish: Finish,
    stop: Callable[[], bool],
    give_back: Callable[[str], None],
) -> None:
    """Run cells on an executor, a bounded number in flight; of a stop, those that have not begun.

    Raises
    ------
    WorkerLost
        The executor cannot give an outcome; what others had finished is passed on before.
    """
    pending: dict[Future[Outcome], str] = {}
    try:
        while True:
            for key, cell in islice(cells, max(0, _in_flight(executor) - len(pending))):
                pending[_submit(executor, task, setup, cell, settings)] = key
            for future in [*pending] if stop() else ():
                if future.cancel():
                    give_back(pending.pop(future))
            if not pending:
                return
            done, _ = wait(pending, return_when=FIRST_COMPLETED)
            lost = _collect(done, pending, finish, report=True)
            if lost is not None:
                raise lost
    except BaseException:
        for future in pending:
            future.cancel()
        # Finished since: not worth losing, whatever ended the sweep.
        _collect({f for f in pending if f.done()}, pending, finish, report=False)
        raise


def _submit(
    executor: Executor, task: Task, setup: Setup, cell: Cell, settings: Cell
) -> Future[Outcome]:
    try:
        return executor.submit(_work, task, setup, cell, settings)
    except Exception as error:  # broken or shut down
        raise _lost(error) from error


def _collect(
    done: Iterable[Future[Outcome]],
    pending: dict[Future[Outcome], str],
    finish: Finish,
    report: bool,
) -> WorkerLost | None:
    """Pass on all outcomes; the first reason why there is none."""
    lost = None
    for future in done:
        key = pending.pop(future)
        if future.cancelled():
            lost = lost or WorkerLost("the executor dropped a cell: connection lost, or shut down")
        elif (error := future.exception()) is None:
            finish(key, future.result(), report)
        elif isinstance(error, KeyboardInterrupt):
            raise error
        else:
            lost = lost or _lost(error, key)
    return lost


def _lost(error: BaseException, key: str = "") -> WorkerLost:
    if isinstance(error, BrokenExecutor):
        reason = (
            "a worker died: killed, out of memory, a crash of compiled code, or a script without"
            " `if __name__ == '__main__':`"
        )
    elif type(error).__name__ == "KilledWorker":
        reason = f"workers of the cluster died, again and again, on cell {key}"
    else:
        reason = f"a worker cannot run the task: {named(error)}"
    lost = WorkerLost(reason)
    lost.__cause__ = error
    return lost


def _in_flight(executor: Executor) -> int:
    if isinstance(executor, _OwnPool):
        return AHEAD * executor.workers
    if isinstance(executor, Cluster):
        return max(IN_FLIGHT, AHEAD * executor.workers)
    return IN_FLIGHT


class _OwnPool(ProcessPoolExecutor):
    """A pool that says how many workers it has."""

    def __init__(self, workers: int, **options: Any) -> None:
        super().__init__(workers, **options)
        self.workers = workers


@contextmanager
def own_pool(workers: int, setup: Setup) -> Iterator[tuple[Executor, Setup]]:
    """Context of a pool of spawned processes, and what to tell them.

    They end with the context: when their work is done, or at once if an error ends it or if this
    process dies, however it dies.
    """
    setup = replace(setup, one_thread=not any(name in os.environ for name in BLAS))
    context = multiprocessing.get_context("spawn")
    # Workers wait for the end of this pipe, whose other end only this process holds. Python's own
    # pool leaves its workers behind for ever if its process is killed.
    leash, held = context.Pipe(duplex=False)
    pool = _OwnPool(workers, mp_context=context, initializer=_begin, initargs=(leash,))
    try:
        yield pool, setup
    except BaseException:
        held.close()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    else:
        pool.shutdown()
    finally:
        held.close()
        leash.close()


def _begin(leash: Any) -> None:
    """First thing in a worker of the own pool."""
    for name in ("SIGINT", *SIGNALS):  # the parent is told too, and ends its workers
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_follow, args=(leash,), daemon=True).start()
    if not any(name in os.environ for name in BLAS):
        os.environ.update(dict.fromkeys(BLAS, "1"))
    _limit_xla()


def _limit_xla() -> None:
    """One thread for compiled code, if nothing has run yet: XLA reads this once.

    Two workers of two threads are in each other's way, by a sixth of the processor time on two
    cores.
    """
    os.environ.setdefault("NPROC", "1")
    flags = os.environ.get("XLA_FLAGS", "")
    if XLA_FLAG.partition("=")[0] not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} {XLA_FLAG}".strip()


def _keep_memory() -> None:
    """Undo a `malloc` told to hand all free memory back to the system at once.

    Dask tells its workers so. The arrays of a recursion, of a hundred kilobytes each, are then
    mapped anew in every block, which takes 1.5 times the processor time.
    """
    told = os.environ.get("MALLOC_TRIM_THRESHOLD_", "")
    if not told.isdecimal() or int(told) >= KEPT or not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in every C library
    if mallopt is not None:
        mallopt(M_TRIM_THRESHOLD, KEPT)
        mallopt(M_MMAP_THRESHOLD, KEPT // 2)


def _follow(leash: Any) -> None:
    try:
        leash.recv_bytes()
    except (EOFError, OSError):
        os._exit(1)
