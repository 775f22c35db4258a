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
from collections.abc import Callable, Iterable, Mapping
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
        Cells that were finished before; not compared.
    corrupt : tuple of str
        Cell files that could not be used and were done again; not compared.
    """

    kind: str
    settings: dict[str, Any]
    rows: tuple[Row, ...]
    resumed: int = field(default=0, compare=False)
    corrupt: tuple[str, ...] = field(default=(), compare=False)

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
    ) -> None:
        self.work, self.store, self.progress = work, store, progress
        found, self.corrupt = store.load() if store is not None else ({}, ())
        self.rows = {k: r for k, r in found.items() if r.status == "done" or not retry_failed}
        self.todo = {key: cell for key, cell in work.cells.items() if key not in self.rows}
        self.resumed = len(self.rows)
        self.failed = sum(row.status == "failed" for row in self.rows.values())
        self.begin = time.perf_counter()

    def finish(self, key: str, outcome: Outcome, report: bool) -> None:
        """Take in an outcome."""
        row = Row(self.work.cells[key], **vars(outcome))
        if self.store is not None:
            self.store.keep(key, row)
        self.rows[key] = row
        self.failed += row.status == "failed"
        if report:
            self.report(row)

    def report(self, row: Row | None) -> None:
        """Tell the caller."""
        if self.progress is None:
            return
        done, total = len(self.rows), len(self.work.cells)
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
        done = f"{len(self.rows)} of {len(self.work.cells)} cells are finished"
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
        Whether cells that failed in an earlier run are done again.
    progress : callable, optional
        Gets a `Progress` before the first cell and after each.

    Returns
    -------
    Sweep
        NumPy values of cells, settings and results are plain Python in it, tuples are lists.

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
    work = Work.make(kind, settings, cells)
    with nullcontext() if folder is None else open_store(folder, work) as store:
        tally = _Tally(work, store, progress, retry_failed)
        tally.report(None)
        try:
            _run(task, tally, executor, workers or default_workers())
        except WorkerLost as lost:
            raise SweepFailed(f"{lost}; {tally.kept()}") from lost.__cause__
    rows = tuple(tally.rows[key] for key in work.cells)
    return Sweep(work.kind, work.settings, rows, tally.resumed, tally.corrupt)


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
    if executor is not None:
        # Workers of a cluster are there for this, as those of an own pool are.
        setup = replace(setup, one_thread=isinstance(executor, Cluster))
        run_on(executor, task, setup, tally.todo, settings, tally.finish)
    elif workers > 1:
        with own_pool(workers, setup) as (pool, told):
            run_on(pool, task, told, tally.todo, settings, tally.finish)
    else:
        run_here(task, setup, tally.todo, settings, tally.finish)
