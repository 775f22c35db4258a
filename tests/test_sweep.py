"""Sweeps: what is kept when a run dies, what is refused, and that every executor agrees."""

from __future__ import annotations

import json
import logging
import math
import os
import pickle
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched.errors import BadFile, InvalidProblem, MissingExtra, SolveFailed, SweepFailed
from optsched.studies.sweep.cells import Work, canonical, cell_key, open_store, plain
from optsched.studies.sweep.executors import Setup, own_pool
from optsched.studies.sweep.run import Progress, Row, Sweep, dask_executor, sweep

ROOT = Path(__file__).parents[1]
CELLS = [{"x": x} for x in (3, 1, 2, 5, 4, 0)]
SETTINGS = {"scale": 0.1}


def cube(cell: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    return {"value": cell["x"] ** 3 * settings["scale"] / 3.0, "of": (cell["x"],)}


def fragile(cell: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    if cell["x"] == 1:
        raise SolveFailed("did not converge;\ntry again")
    if cell["x"] == 2:
        raise KeyError("x")
    if cell["x"] == 4:
        return {"value": object()}
    return cube(cell, settings)


def mended(cell: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    return cube(cell, settings)


def logged(cell: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    time.sleep(settings["seconds"])
    with open(settings["log"], "a") as log:
        log.write(f"{cell['x']} {os.getpid()}\n")
    return cube(cell, settings)


def deadly(cell: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    if cell["x"] == 4:
        time.sleep(settings.get("wait", 0.0))
        os._exit(9)
    return cube(cell, settings)


def surroundings(cell: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    import jax
    from threadpoolctl import threadpool_info

    return {
        "threads": max(library["num_threads"] for library in threadpool_info()),
        "flags": os.environ.get("XLA_FLAGS", ""),
        "cache": jax.config.jax_compilation_cache_dir,  # pyright: ignore
    }


def page_faults(cell: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    import resource

    def faults() -> int:
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

    least = np.inf
    for _ in range(10):  # other threads of the worker fault too, now and then
        before = faults()
        for _ in range(20):
            np.ones(50_000)  # 400 kB, a hundred pages
        least = min(least, (faults() - before) / 20)
    return {"each": least}


def run(folder: Any = None, task: Any = cube, cells: Any = CELLS, **options: Any) -> Sweep:
    options = {"kind": "cubes", "settings": SETTINGS, "workers": 1, **options}
    return sweep(task, cells, folder=folder, **options)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_rows_are_in_the_order_of_the_cells(tmp_path: Path) -> None:
    seen: list[Progress] = []
    found = run(tmp_path / "a" / "b", progress=seen.append)
    assert [row.cell for row in found.rows] == CELLS
    assert found.rows[0] == Row({"x": 3}, "done", {"value": 27 * 0.1 / 3.0, "of": [3]}, "", 0.0)
    assert (found.resumed, found.corrupt, found.failed) == (0, (), ())
    again = run(tmp_path / "a" / "b", cells=CELLS[::-1])
    assert again.resumed == len(CELLS)
    assert again.rows == found.rows[::-1]
    assert [p.done for p in seen] == list(range(7))
    assert seen[0].row is None and math.isnan(seen[0].seconds_left)
    assert [p.row for p in seen[1:]] == list(found.rows)
    assert seen[1].seconds_left > 0.0 and seen[-1].seconds_left == 0.0


def test_executors_agree(tmp_path: Path) -> None:
    expected = run().rows
    with ThreadPoolExecutor(3) as threads:
        assert run(tmp_path / "threads", executor=threads, workers=None).rows == expected
        assert threads.submit(int, "1").result() == 1
    assert run(tmp_path / "pool", workers=2).rows == expected
    one, two = (run(tmp_path / name, task=fragile) for name in ("threads", "pool"))
    assert one.rows == two.rows == expected  # the task is not called


def test_workers_are_set_up_and_this_process_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jax

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    before = jax.config.jax_compilation_cache_dir  # pyright: ignore
    jax.config.update("jax_compilation_cache_dir", str(tmp_path))
    try:
        here = run(task=surroundings, cells=CELLS[:1]).rows[0].result
        environment = dict(os.environ)  # now, as threadpoolctl sets a variable when it is imported
        there = run(task=surroundings, cells=CELLS[:2], workers=2).rows[0].result
        assert dict(os.environ) == environment
        assert run(task=surroundings, cells=CELLS[:1]).rows[0].result == here
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert there["threads"] == 1
    assert "--xla_cpu_multi_thread_eigen=false" in there["flags"]
    assert there["cache"] == str(tmp_path)


def start_and_kill(folder: Path, settings: Mapping[str, Any], cells: Any, workers: int) -> None:
    code = (
        "from tests.test_sweep import logged, sweep; import json, sys;"
        "sweep(logged, json.loads(sys.argv[1]), kind='cubes', settings=json.loads(sys.argv[2]),"
        " folder=sys.argv[3], workers=int(sys.argv[4]))"
    )
    arguments = [json.dumps(cells), json.dumps(settings), str(folder), str(workers)]
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], cwd=ROOT)
    try:
        until(lambda: len([*folder.glob("cells/*=*.json")]) >= 3, process)
    finally:
        process.kill()
        process.wait()


def until(
    condition: Callable[[], bool], process: subprocess.Popen | None = None, limit: float = 120.0
) -> None:
    end = time.monotonic() + limit
    while not condition():
        assert time.monotonic() < end and (process is None or process.poll() is None)
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_killed_run_is_resumed(tmp_path: Path, workers: int) -> None:
    folder, log = tmp_path / "sweep", tmp_path / "log"
    cells = [{"x": x} for x in range(12)]
    settings = {"scale": 0.1, "seconds": 0.1, "log": str(log)}
    start_and_kill(folder, settings, cells, workers)
    kept = [json.loads(p.read_text())["cell"]["x"] for p in folder.glob("cells/*=*.json")]
    assert 3 <= len(kept) < 12
    pids = {int(line.split()[1]) for line in log.read_text().splitlines()}
    if Path("/proc/self").exists():
        until(lambda: not any(map(alive, pids)), limit=20.0)  # no worker is left behind
    left_over = folder / "cells" / f".optsched-{'0' * 16}.json"
    left_over.write_text("{")
    found = run(folder, logged, cells, settings=settings)
    assert found.resumed == len(kept) and found.corrupt == ()
    assert not left_over.exists()
    done = [int(line.split()[0]) for line in log.read_text().splitlines()]
    assert all(done.count(x) == 1 for x in kept) and set(done) == set(range(12))
    fresh = run(None, cube, cells, settings=settings)
    assert canonical([row.result for row in found.rows]) == canonical(
        [row.result for row in fresh.rows]
    )
    assert found.rows == fresh.rows


def test_unusable_cell_files_are_named_and_redone(tmp_path: Path) -> None:
    expected = run(tmp_path)
    run(tmp_path.with_name("other"), settings={"scale": 0.2})
    paths = [tmp_path / "cells" / f"{cell_key(cell)}.json" for cell in CELLS]
    paths[0].write_bytes(paths[0].read_bytes()[:-20])  # cut short
    paths[1].write_text("")
    paths[2].write_text(paths[2].read_text().replace('"status": "done"', '"status": "failed"'))
    shutil.copy(paths[4], paths[3])  # of another cell
    shutil.copy(tmp_path.with_name("other") / "cells" / paths[4].name, paths[4])
    (tmp_path / "cells" / "notes.json").write_text("mine")
    seen: list[Progress] = []
    found = run(tmp_path, progress=seen.append)
    names = tuple(f"cells/{path.name}" for path in paths[:5])
    assert found.rows == expected.rows
    assert found.corrupt == names and found.resumed == 1
    assert seen[0].corrupt == names and (seen[0].done, seen[0].resumed) == (1, 1)
    assert run(tmp_path).resumed == 6
    assert (tmp_path / "cells" / "notes.json").read_text() == "mine"


def test_a_cell_that_is_no_file_is_named_and_the_sweep_goes_on(tmp_path: Path) -> None:
    """A folder with the name of a cell, or a pipe, which would wait for ever: left as they are."""
    expected = run(tmp_path)
    folder, pipe = (tmp_path / "cells" / f"{cell_key(cell)}.json" for cell in CELLS[:2])
    folder.unlink()
    folder.mkdir()
    (folder / "inner").write_text("mine")
    pipe.unlink()
    os.mkfifo(pipe)
    for _ in range(2):
        found = run(tmp_path)
        assert found.rows == expected.rows and found.resumed == len(CELLS) - 2
        assert found.corrupt == (f"cells/{folder.name}", f"cells/{pipe.name}")
    assert (folder / "inner").read_text() == "mine" and pipe.is_fifo()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "squares"}, "kind: 'cubes' there, 'squares' asked for"),
        ({"settings": {"scale": 0.2}}, "settings.scale: 0.1 there, 0.2 asked for"),
        ({"settings": {"scale": 0.1, "n": 1}}, "settings.n: 'nothing' there, 1 asked for"),
        (
            {"settings": {"scale": {"x": 1}}},
            "settings.scale: 0.1 there, {'x': 1} asked for",
        ),
        ({"cells": [*CELLS, {"x": 9}]}, "cells: 6 there, 7 asked for; only asked for: {'x': 9}"),
        ({"cells": CELLS[1:]}, "cells: 6 there, 5 asked for; only there: {'x': 3}"),
    ],
)
def test_another_sweep_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    run(tmp_path)
    before = files(tmp_path)
    with pytest.raises(BadFile, match=re.escape(reason)):
        run(tmp_path, **change)
    assert files(tmp_path) == before


def test_a_setting_inside_another_is_named(tmp_path: Path) -> None:
    run(tmp_path, settings={"scale": 0.1, "problem": {"noise": 0.0, "m": 1}})
    with pytest.raises(
        BadFile, match=r"sweep: settings\.problem\.noise: 0\.0 there, 1\.0 asked for;"
    ):
        run(tmp_path, settings={"scale": 0.1, "problem": {"noise": 1.0, "m": 1}})


def test_other_folders_are_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(BadFile, match=r"thesis\.tex"):
        run(tmp_path)
    assert files(tmp_path) == {"thesis.tex": b"x"}
    with pytest.raises(BadFile, match="no directory"):
        run(tmp_path / "thesis.tex")
    with pytest.raises(BadFile):
        run(tmp_path / "thesis.tex" / "below")
    started = tmp_path / "started"  # killed before its manifest
    started.mkdir()
    (started / ".lock").touch()
    (started / f".optsched-{'a' * 16}.json").touch()
    assert len(run(started).rows) == 6


@pytest.mark.parametrize("damage", [b"", b"{}", b"\xff", None])
def test_damaged_manifest(tmp_path: Path, damage: bytes | None) -> None:
    run(tmp_path)
    manifest = tmp_path / "manifest.json"
    text = manifest.read_bytes()
    manifest.write_bytes(text.replace(b"0.1", b"0.3") if damage is None else damage)
    before = files(tmp_path)
    with pytest.raises(BadFile, match=r"manifest\.json"):
        run(tmp_path)
    assert files(tmp_path) == before


def test_failed_cells_are_rows_and_can_be_retried(tmp_path: Path) -> None:
    seen: list[Progress] = []
    found = run(tmp_path, fragile, progress=seen.append)
    errors = {row.cell["x"]: row.error for row in found.failed}
    assert errors[1] == "did not converge; try again"
    assert errors[2] == "KeyError: 'x'"
    assert errors[4].startswith("result.value: got <object")
    assert seen[-1].failed == 3 and seen[-1].done == 6
    kept = run(tmp_path, mended)
    assert kept.rows == found.rows and kept.resumed == 6
    retried = run(tmp_path, mended, retry_failed=True)
    assert retried.failed == () and retried.resumed == 3
    assert retried.rows == run(tmp_path).rows


def odd_numbers(cell: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
    return {"numbers": np.array(settings["numbers"]), "same": cell["x"], "none": None}


def test_numbers_come_back_bit_for_bit(tmp_path: Path) -> None:
    numbers = [0.1 + 0.2, 5e-324, 1.7976931348623157e308, -0.0, math.inf, -math.inf, math.nan]
    settings = {"numbers": numbers}
    cells = [{"x": np.float32(0.1)}, {"x": math.inf}, {"x": 10**30}, {"x": "ü\ud800"}]
    first = run(tmp_path, odd_numbers, cells, settings=settings)
    second = run(tmp_path, cube, cells, settings=settings)
    assert second.resumed == 4
    for one, two in zip(first.rows, second.rows, strict=True):
        assert one.status == "done"
        for row in (one, two):
            assert [x.hex() for x in row.result["numbers"]] == [x.hex() for x in numbers]
            assert type(row.result["numbers"]) is list
        assert canonical(one.cell) == canonical(two.cell) == canonical({"x": one.result["same"]})
    for content in files(tmp_path).values():
        assert b"NaN" not in content and b"Infinity" not in content


def test_two_runs_on_one_folder(tmp_path: Path) -> None:
    work = Work.make("cubes", SETTINGS, CELLS)
    with open_store(tmp_path, work):
        before = files(tmp_path)
        with pytest.raises(BadFile, match=f"process {os.getpid()} on .* works on this sweep"):
            run(tmp_path)
        assert files(tmp_path) == before
    assert len(run(tmp_path).rows) == 6


def test_a_worker_that_dies(tmp_path: Path) -> None:
    settings = {"scale": 0.1, "wait": 0.3}
    with pytest.raises(SweepFailed, match=r"a worker died.*of 6 cells are finished and kept in"):
        run(tmp_path, deadly, settings=settings, workers=2)
    found = run(tmp_path, cube, settings=settings)
    assert found.resumed >= 2  # all but those in flight
    assert found.rows == run(None, cube, settings=settings).rows
    assert pickle.loads(pickle.dumps(SweepFailed("text"))).args == ("text",)


class Interrupted(Executor):
    """Three outcomes, then ctrl-C while others are in flight."""

    def __init__(self) -> None:
        self.futures: list[Future] = []

    def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
        future: Future = Future()
        self.futures.append(future)
        if len(self.futures) <= 3:
            future.set_result(fn(*args, **kwargs))
        return future


def test_interrupt_keeps_what_is_finished(tmp_path: Path) -> None:
    executor = Interrupted()

    def stop(progress: Progress) -> None:
        if progress.row is not None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, executor=executor, workers=None, progress=stop)
    assert [future.cancelled() for future in executor.futures] == [False] * 3 + [True] * 3
    assert run(tmp_path).resumed == 3


def test_an_error_ends_the_own_pool_at_once() -> None:
    pids: list[int] = []
    begin = math.inf
    with (
        pytest.raises(KeyboardInterrupt),
        own_pool(2, Setup.of_this_process()) as (pool, _),
    ):
        pids.append(pool.submit(os.getpid).result())
        begin = time.monotonic()
        pool.submit(time.sleep, 60.0)
        raise KeyboardInterrupt
    assert time.monotonic() - begin < 5.0
    until(lambda: not any(map(alive, pids)), limit=20.0)


def test_an_executor_gets_a_bounded_number_of_cells() -> None:
    lock, most = threading.Lock(), [0, 0]

    class Counting(ThreadPoolExecutor):
        def submit(self, fn: Callable, /, *args: Any, **kwargs: Any) -> Future:
            with lock:
                most[0] += 1
                most[1] = max(most)
            future = super().submit(fn, *args, **kwargs)
            future.add_done_callback(self._less)
            return future

        @staticmethod
        def _less(_: Future) -> None:
            with lock:
                most[0] -= 1

    with Counting(2) as executor:
        found = run(cells=[{"x": x} for x in range(200)], executor=executor, workers=None)
    assert len(found.rows) == 200
    assert most[1] <= 64


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"cells": []}, "cells"),
        ({"cells": [{"x": 1}, {"x": np.int64(1)}]}, "cells[1]"),
        ({"cells": [{"x": 1}, {}]}, "cells[1]"),
        ({"cells": [{"x": {1, 2}}]}, "cells[0].x"),
        ({"cells": [{"x": {"$float": "nan"}}]}, "cells[0].x"),
        ({"cells": [{"x": 1j}]}, "cells[0].x"),
        ({"settings": {"x": {1: 2}}}, "settings.x"),
        ({"settings": 3}, "settings"),
        ({"kind": ""}, "kind"),
        ({"workers": 0}, "workers"),
        ({"workers": 1.5}, "workers"),
        ({"executor": ThreadPoolExecutor()}, "workers"),
        ({"executor": 3, "workers": None}, "executor"),
        ({"task": lambda cell, settings: {}}, "task"),
        ({"task": 3}, "task"),
    ],
)
def test_bad_input(tmp_path: Path, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidProblem) as caught:
        run(tmp_path / "new", **options)
    assert caught.value.field == field
    assert not (tmp_path / "new").exists()


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=4,
)


@given(st.lists(st.dictionaries(st.text(max_size=8), VALUES, min_size=1), max_size=8))
def test_keys_are_file_names_and_tell_cells_apart(cells: list[dict[str, Any]]) -> None:
    keys = [cell_key(plain(cell, "cell")) for cell in cells]
    assert all(re.fullmatch(r"[\w=][\w.=-]*", key, re.ASCII) and len(key) < 100 for key in keys)
    distinct = {canonical(plain(cell, "cell")) for cell in cells}
    assert len(set(map(str.lower, keys))) == len(distinct)
    for cell in cells:
        turned = dict(reversed(cell.items()))
        assert cell_key(turned) == cell_key(cell)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Address of a cluster in another process; one death of a worker is enough."""
    pytest.importorskip("distributed")
    code = (
        "import sys, dask; from distributed import LocalCluster\n"
        "dask.config.set({'distributed.scheduler.allowed-failures': 0})\n"
        "with LocalCluster(n_workers=1, threads_per_worker=2, dashboard_address=None) as it:\n"
        "    print(it.scheduler_address, flush=True); sys.stdin.read()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def test_dask(tmp_path: Path, cluster: str) -> None:
    expected = run(task=fragile)
    with dask_executor(cluster) as executor:
        options: dict[str, Any] = {"executor": executor, "workers": None}
        found = run(tmp_path / "a", fragile, **options)
        assert [r.result for r in found.rows] == [r.result for r in expected.rows]
        assert [r.status for r in found.rows] == [r.status for r in expected.rows]
        assert run(tmp_path / "a", cube, **options).resumed == 6
        with pytest.raises(SweepFailed, match=r"died.*x=4-.*cells are finished and kept"):
            run(tmp_path / "b", deadly, settings={"scale": 0.1, "wait": 0.5}, **options)
    resumed = run(tmp_path / "b", cube, settings={"scale": 0.1, "wait": 0.5})
    assert resumed.resumed == 5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of glibc")
def test_dask_workers_keep_their_memory_and_have_one_thread(cluster: str) -> None:
    with dask_executor(cluster) as executor:
        options: dict[str, Any] = {"executor": executor, "workers": None, "cells": CELLS[:2]}
        assert run(task=page_faults, **options).rows[-1].result["each"] < 10
        told = run(task=surroundings, **options).rows[0].result
    assert told["threads"] == 1
    assert "--xla_cpu_multi_thread_eigen=false" in told["flags"]


def test_dask_scheduler_that_is_not_there(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("distributed")
    caplog.set_level(logging.WARNING)
    with socket.socket() as silent, socket.socket() as unused:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        unused.bind(("127.0.0.1", 0))
        for place, reason in ((silent, "no answer"), (unused, "(refused|OSError)")):
            address = f"tcp://127.0.0.1:{place.getsockname()[1]}"
            with (
                pytest.raises(
                    SweepFailed, match=f"{address}: not reached within 1 s: [^<]*{reason}"
                ),
                dask_executor(address, timeout=1.0),
            ):
                pass
    for address in ("nonsense", "", "tcp://host:port", "http://127.0.0.1:80", "127.0.0.1:99999"):
        with pytest.raises(InvalidProblem, match="HOST:PORT"), dask_executor(address):
            pass
    assert not caplog.records
    assert capfd.readouterr() == ("", "")


def test_dask_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(MissingExtra, match=r"optsched\[dask\]"), dask_executor("tcp://a:1"):
        pass


def test_an_executor_that_is_shut_down() -> None:
    with ThreadPoolExecutor(1) as executor:
        pass
    with pytest.raises(SweepFailed, match="0 of 6 cells are finished and lost"):
        run(executor=executor, workers=None)
