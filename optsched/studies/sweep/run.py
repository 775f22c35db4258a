"""Sweeps: one function over many cells, on any executor, that a killed run can resume.

A *cell* is a dict of values that JSON can hold; a *task* is a function ``task(cell, settings)`` at
the top level of a module that returns such a dict. With a folder, each cell is kept as soon as it
is finished, by the process that called `sweep`: whatever ends that process, the same call goes on
with what is missing, and its result is that of a run without a break, timings apart.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

from optsched.arrays import Brief
from optsched.errors import InvalidProblem, SweepFailed
from optsched.studies.sweep.cells import Row, Store, Work, open_store
from optsched.studies.sweep.cluster import Cluster, dask_executor
from optsched.studies.sweep.executors import (
    Outcome,
    Setup,
    Task,
    WorkerLost,
    check_task,
    default_workers,
    own_pool,
    run_here,
    run_on,
)
from optsched.studies.sweep.shards import Shard

__all__ = ["Progress", "Row", "Sweep", "dask_executor", "sweep"]


@dataclass(frozen=True)
class Progress:
    """Where a sweep is; the first report comes before the first cell.

    Attributes
    ----------
    done, total, failed : int
        Cells that are finished, those that are wanted, and the failed ones among the finished.
    resumed : int
        Cells that an earlier run had finished.
    corrupt : tuple of str
        Cell files that could not be used and are done again.
    row : Row, optional
        The cell that is just finished; None in the first report.
    seconds_left : float
        From the cells that this run has finished; NaN before there is one.
    """

    done: int
    total: int
    failed: int
    resumed: int
    corrupt: tuple[str, ...]
    row: Row | None
    seconds_left: float


@dataclass(frozen=True, eq=False, repr=False)
class Sweep(Brief):
    """Result of a sweep.

    Attributes
    ----------
    kind : str
        Name of what was computed.
    settings : dict
        What all cells share.
    rows : tuple of Row
        In the order of the cells that were given.
    resumed : int
        Cells that were finished before.
    corrupt : tuple of str
        Cell files that could not be used and were done again.
    """

    kind: str
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    resumed: int = field(default=0, compare=False)
    corrupt: tuple[str, ...] = field(default=(), compare=False)

    @property
    def missing(self) -> tuple[Row, ...]:
        """The rows of cells that are left to other shards, or to another call after a stop."""
        return tuple(row for row in self.rows if row.status == "missing")

    @property
    def failed(self) -> tuple[Row, ...]:
        """The rows of cells that failed."""
        return tuple(row for row in self.rows if row.status == "failed")


class _Tally:
    """Rows so far: keeps them and reports them."""

    def __init__(
        self,
        work: Work,
        store: Store | None,
        progress: Callable[[Progress], None] | None,
        retry_failed: bool,
        shard: Shard | None,
        stop: Callable[[], bool],
    ) -> None:
        self.work, self.store, self.progress, self.stop = work, store, progress, stop
        found, self.corrupt = store.load() if store is not None else ({}, ())
        mine = [*work.cells] if shard is None else shard.of([*work.cells])
        self.total = len(mine)
        # What failed before is told from what another shard has failed at since.
        self.before = {k: r for k, r in found.items() if r.status == "failed" and retry_failed}
        self.rows = {k: found[k] for k in mine if k in found and k not in self.before}
        self.todo = {key: work.cells[key] for key in mine if key not in self.rows}
        self.resumed = len(self.rows)
        self.failed = sum(row.status == "failed" for row in self.rows.values())
        self.begin = time.perf_counter()

    def wanted(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Cells to do, until somebody stops it; none that another process does or has done."""
        for key, cell in self.todo.items():
            if self.stop():
                return
            if self.store is None or not self.store.shared:
                yield key, cell
            elif self.store.claim(key):
                row = self.store.found(key)
                old = self.before.get(key)
                if row is None or _same(row, old):
                    yield key, cell
                else:
                    self.store.release(key)
                    self.rows[key] = row
                    self.resumed += 1
                    self.failed += row.status == "failed"

    def give_back(self, key: str) -> None:
        """A cell that was wanted and is not done."""
        if self.store is not None:
            self.store.release(key)

    def finish(self, key: str, outcome: Outcome, report: bool) -> None:
        """Take in an outcome."""
        row = Row(self.work.cells[key], **vars(outcome))
        if self.store is not None:
            self.store.keep(key, row)
            self.store.release(key)
        self.rows[key] = row
        self.failed += row.status == "failed"
        if report:
            self.report(row)

    def report(self, row: Row | None) -> None:
        """Tell the caller."""
        if self.progress is None:
            return
        done, total = len(self.rows), self.total
        fresh, left = done - self.resumed, math.nan
        if done == total:
            left = 0.0
        elif fresh:
            left = (time.perf_counter() - self.begin) / fresh * (total - done)
        self.progress(
            Progress(done, total, self.failed, self.resumed, self.corrupt, row, seconds_left=left)
        )

    def kept(self) -> str:
        """What is left of a sweep that could not go on."""
        done = f"{len(self.rows)} of {self.total} cells are finished"
        if self.store is None:
            return f"{done} and lost; with a folder they would be kept"
        return f"{done} and kept in {self.store.folder}; run the same again to resume"


def sweep(
    task: Task,
    cells: Iterable[Mapping[str, Any]],
    *,
    kind: str,
    settings: Mapping[str, Any],
    folder: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    shard: tuple[int, int] | Shard | None = None,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Sweep:
    """Run a task on every cell.

    Parameters
    ----------
    task : callable
        ``task(cell, settings)`` returns a dict; at the top level of a module. Any `Exception` it
        raises makes a row that failed.
    cells : iterable of dict
        Distinct; of numbers, strings, booleans, None, lists and dicts. 1 and 1.0 are distinct.
    kind : str
        Name of what the task computes. A folder belongs to one kind, settings and cells.
    settings : dict
        What all cells share; passed to the task.
    folder : path-like, optional
        Where finished cells are kept, and found again by the same call; default: nowhere.
    executor : concurrent.futures.Executor, optional
        Where to run, for example that of `dask_executor`. It is not shut down.
    workers : int, optional
        Number of processes to spawn, without an executor; 1: run in this process. Default: one a
        core.
    retry_failed : bool
        Whether cells that failed in an earlier run are done again; those that are done are not.
    shard : tuple of int, optional
        ``(i, n)``: do only every n-th cell, of a folder that other processes share, each with its
        own i. A cell is claimed before it is done, so that no two processes do the same one,
        whatever their shards are. Needs a folder.
    stop : callable, optional
        Asked before each cell whether to stop: cells in hand are finished, others are left. See
        `optsched.studies.sweep.shards.stopping`.
    progress : callable, optional
        Gets a `Progress` before the first cell and after each.

    Returns
    -------
    Sweep
        NumPy values of cells, settings and results are plain Python in it, tuples are lists. With a
        shard or after a stop, rows that the folder does not have yet are ``"missing"``.

    Raises
    ------
    InvalidProblem
        An argument is not allowed; nothing is written.
    BadFile
        The folder has something else in it, is in use or cannot be written.
    SweepFailed
        A worker died; the message says what is kept.
    """
    check_task(task)
    _check_places(executor, workers)
    part = shard if isinstance(shard, Shard) or shard is None else Shard(*shard)
    if part is not None and folder is None:
        raise InvalidProblem("folder", None, "the folder that the shards share")
    work = Work.make(kind, settings, cells)
    shared = part is not None
    with nullcontext() if folder is None else open_store(folder, work, shared=shared) as store:
        tally = _Tally(work, store, progress, retry_failed, part, stop or _never)
        tally.report(None)
        try:
            _run(task, tally, executor, workers or default_workers())
        except WorkerLost as lost:
            raise SweepFailed(f"{lost}; {tally.kept()}") from lost.__cause__
        found = tally.rows
        if store is not None:
            store.write_table()
            found = store.load()[0] if shared else found
    rows = tuple(
        found.get(key, Row(cell, "missing", {}, "", math.nan)) for key, cell in work.cells.items()
    )
    return Sweep(work.kind, work.settings, rows, tally.resumed, tally.corrupt)


def _same(row: Row, other: Row | None) -> bool:
    """Whether a row is the very one that was there, not another try with the same end."""
    return other is not None and row == other and row.seconds == other.seconds


def _never() -> bool:
    return False


def _check_places(executor: Executor | None, workers: int | None) -> None:
    if executor is not None and not isinstance(executor, Executor):
        raise InvalidProblem("executor", executor, "a concurrent.futures.Executor")
    if workers is None:
        return
    if executor is not None:
        raise InvalidProblem("workers", workers, "nothing, as an executor is given")
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise InvalidProblem("workers", workers, "a whole number >= 1")


def _run(task: Task, tally: _Tally, executor: Executor | None, workers: int) -> None:
    setup, settings = Setup.of_this_process(), tally.work.settings
    workers = min(workers, len(tally.todo))
    rest = tally.wanted(), settings, tally.finish, tally.stop, tally.give_back
    if executor is not None:
        # Workers of a cluster are there for this, as those of an own pool are.
        setup = replace(setup, one_thread=isinstance(executor, Cluster))
        run_on(executor, task, setup, *rest)
    elif workers > 1:
        with own_pool(workers, setup) as (pool, told):
            run_on(pool, task, told, *rest)
    else:
        run_here(task, setup, tally.wanted(), settings, tally.finish)
