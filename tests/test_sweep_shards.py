"""Many processes on the folder of one sweep, and ends that schedulers ask for."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from optsched.cli import main
from optsched.errors import BadFile, InvalidProblem
from optsched.studies.sweep import Shard, stopping, sweep
from tests.test_sweep import CELLS, SETTINGS, cluster, cube, fragile, mended, run, until

__all__ = ["cluster"]

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "sweeps.md").read_text(encoding="utf-8")
POSIX = pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="signals of POSIX")
CODE = (
    "from tests.test_sweep import logged; from optsched.studies.sweep import stopping, sweep;"
    "import json, sys; o = json.loads(sys.argv[1])\n"
    "if __name__ == '__main__':\n"
    "    with stopping() as stop:\n"
    "        sweep(logged, kind='cubes', stop=stop, **o)\n"
    "    sys.exit(143 if stop() else 0)\n"
)


def start(tmp_path: Path, **options: Any) -> subprocess.Popen:
    """A process that runs the sweep `logged` in the folder ``s``."""
    given = {
        "cells": [{"x": x} for x in range(options.pop("count", 24))],
        "settings": {
            "scale": 0.1,
            "seconds": options.pop("seconds", 0.02),
            "log": str(tmp_path / "log"),
        },
        "folder": str(tmp_path / "s"),
        "workers": 1,
        **options,
    }
    script = tmp_path / "script.py"  # as spawned workers import it again
    script.write_text(CODE)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    own = given.pop("group", False)
    return subprocess.Popen(
        [sys.executable, str(script), json.dumps(given)], env=environment, start_new_session=own
    )


def done(tmp_path: Path) -> list[int]:
    """The cells that were done, each time that one was."""
    log = tmp_path / "log"
    return [int(x.split()[0]) for x in log.read_text().splitlines()] if log.exists() else []


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("count", [1, 2, 5, 7, 100])
def test_shards_are_a_partition(count: int) -> None:
    keys = [f"k{i}" for i in range(23)]
    parts = [Shard(i, count).of(keys) for i in range(count)]
    assert sorted(key for part in parts for key in part) == sorted(keys)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    # Arrays that begin at 1 have the same parts.
    assert sorted(map(tuple, parts)) == sorted(
        tuple(Shard.parse(f"{i}/{count}").of(keys[::-1])) for i in range(1, count + 1)
    )


@pytest.mark.parametrize(
    "text", ["", "3", "a/b", "1/0", "5/4", "-1/4", "1/4/2", "1.0/2", "/", "1/"]
)
def test_what_is_no_shard(text: str) -> None:
    with pytest.raises(InvalidProblem, match=r"^shard: .*I/N"):
        Shard.parse(text)


def test_a_shard_needs_a_folder() -> None:
    with pytest.raises(InvalidProblem, match="folder: got None"):
        run(shard=(0, 2))


def test_shards_make_the_whole(tmp_path: Path) -> None:
    first = run(tmp_path, shard=(0, 2))
    assert [row.status for row in first.rows].count("missing") == 3 == len(first.missing)
    assert [row["status"] for row in table(tmp_path)].count("missing") == 3
    second = run(tmp_path, shard=Shard(1, 2), task=fragile)
    assert not second.missing and second.resumed == 0
    whole = run(tmp_path, task=fragile)
    assert whole.rows == second.rows and whole.resumed == len(CELLS)
    rows = table(tmp_path)
    assert [int(row["x"]) for row in rows] == [cell["x"] for cell in CELLS]
    assert [row["status"] for row in rows] == [row.status for row in whole.rows]
    assert all((tmp_path / row["file"]).is_file() for row in rows)
    assert [row["error"] for row in rows] == [row.error for row in whole.rows]


def test_only_failed_cells_are_retried(tmp_path: Path) -> None:
    before = run(tmp_path, task=fragile)
    seen = []
    for index in range(3):
        options = {"shard": (index, 3), "retry_failed": True}
        run(tmp_path, mended, progress=lambda p: seen.append(p.row), **options)
    again = [row.cell for row in seen if row is not None]
    assert sorted(map(str, again)) == sorted(str(row.cell) for row in before.failed)
    found = run(tmp_path, mended)
    assert not found.failed and found.rows == run().rows


def test_columns_that_have_names_of_ours(tmp_path: Path) -> None:
    cells = [{"x": 1, "status": "\ud800,\n", "n": {"a": [1.5]}}, {"x": 2, "error": None}]
    run(tmp_path, cells=cells)
    first, second = table(tmp_path)
    assert (first["status"], second["status"]) == ("done", "done")
    assert (first["n"], second["cell.error"], second["cell.status"]) == ('{"a":[1.5]}', "null", "")


@POSIX
def test_processes_side_by_side_do_every_cell_once(tmp_path: Path) -> None:
    """Equal shards, other counts, and one that is killed: no cell twice but those in its hands."""
    processes = [start(tmp_path, shard=shard) for shard in ((0, 1), (0, 1), (0, 2), (1, 2), (2, 3))]
    assert [one.wait(120) for one in processes] == [0] * 5
    assert sorted(done(tmp_path)) == list(range(24))
    folder, settings = tmp_path / "s", {"scale": 0.1, "seconds": 0.02, "log": str(tmp_path / "log")}
    found = run(folder, cells=[{"x": x} for x in range(24)], settings=settings)
    assert found.resumed == 24 and not found.corrupt
    assert found.rows == run(cells=[{"x": x} for x in range(24)], settings=settings).rows
    assert {row["status"] for row in table(folder)} == {"done"}


@POSIX
def test_a_killed_shard_lets_go_of_its_cell(tmp_path: Path) -> None:
    one = start(tmp_path, shard=(0, 1), seconds=0.3, count=6)
    until(lambda: len(done(tmp_path)) >= 2, one)
    two = start(tmp_path, shard=(0, 1), seconds=0.3, count=6)
    time.sleep(0.2)
    one.kill()
    one.wait()
    assert two.wait(60) == 0
    three = start(tmp_path, shard=(0, 1), seconds=0.3, count=6)
    assert three.wait(60) == 0
    assert {*done(tmp_path)} == {*range(6)} and len(done(tmp_path)) <= 7


@POSIX
def test_a_run_alone_and_shards_do_not_mix(tmp_path: Path) -> None:
    one = start(tmp_path, shard=(0, 1), seconds=0.1)
    try:
        until(lambda: len(done(tmp_path)) >= 1, one)
        with pytest.raises(BadFile, match=r"a shard in process \d+ on .* works on this sweep"):
            run(tmp_path / "s", cells=[{"x": x} for x in range(24)], settings=_settings(tmp_path))
    finally:
        one.kill()
        one.wait()


def _settings(tmp_path: Path) -> dict[str, Any]:
    return {"scale": 0.1, "seconds": 0.1, "log": str(tmp_path / "log")}


@POSIX
@pytest.mark.parametrize(("workers", "name"), [(1, "SIGTERM"), (2, "SIGUSR1"), (2, "SIGTERM")])
def test_signals_finish_the_cell_in_hand(tmp_path: Path, workers: int, name: str) -> None:
    """To the whole group, as schedulers send them; workers do not die of it."""
    process = start(tmp_path, seconds=0.3, workers=workers, group=True)
    until(lambda: len(done(tmp_path)) >= 2, process)
    os.killpg(process.pid, getattr(signal, name))
    assert process.wait(30) == 143
    kept = [*(tmp_path / "s" / "cells").glob("*=*.json")]
    # What was done is kept: nothing begun was lost.
    assert 2 <= len(done(tmp_path)) == len(kept) < 24
    assert [row["status"] for row in table(tmp_path / "s")].count("done") == len(kept)
    again = start(tmp_path, seconds=0.0, settings=_settings(tmp_path) | {"seconds": 0.3}, count=24)
    until(lambda: len(done(tmp_path)) > len(kept), again)
    again.kill()
    again.wait()


def test_a_stop_between_cells_leaves_the_rest(tmp_path: Path) -> None:
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 3

    found = run(tmp_path, stop=stop)
    assert [row.status for row in found.rows] == ["done"] * 3 + ["missing"] * 3
    assert run(tmp_path).resumed == 3
    assert len(run(stop=lambda: True).missing) == len(CELLS)


@POSIX
def test_stopping_gives_the_signals_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stopping() as stop:
        assert not stop()
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop() and stop.by == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


# Recipes of the page, as they stand there


def shown(first: str) -> str:
    return next(
        text
        for _, text in re.findall(r"^```(\w+)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
        if text.startswith(first)
    )


@pytest.fixture
def recipes(tmp_path: Path) -> Path:
    for name in ("grid.py", "shards.py", "on_dask.py"):
        (tmp_path / name).write_text(shown(f"# {name}"))
    return tmp_path


def call(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess:
    settings = {**os.environ, "PYTHONPATH": f"{ROOT}:{folder}", "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=folder, env=settings | environment, capture_output=True, text=True, timeout=240
    )


@POSIX
def test_recipe_of_processes(recipes: Path) -> None:
    found = call(recipes, sys.executable, "shards.py")
    assert found.returncode == 0, found.stderr
    assert [row["status"] for row in table(recipes / "grid")] == ["done"] * 6
    # The script of the first recipe finds them all.
    assert call(recipes, sys.executable, "grid.py").stdout.count("excess_loss") == 6


def test_recipe_of_dask(recipes: Path, cluster: str) -> None:
    # Workers that are there already import the module of the task by its name.
    source = (recipes / "on_dask.py").read_text().replace("from grid", "from tests.test_sweep")
    source = source.replace("import loss", "import cube as loss").replace('"a": a', '"x": a')
    (recipes / "on_dask.py").write_text(source.replace('"horizon": 1000', '"scale": 1.0'))
    found = call(recipes, sys.executable, "on_dask.py", cluster)
    assert found.returncode == 0, found.stderr
    assert [row["status"] for row in table(recipes / "dask")] == ["done"] * 3


@POSIX
def test_recipe_of_slurm(tmp_path: Path) -> None:
    """The script under a SLURM that is made of two lines of shell; a small grid in its place."""
    script = shown("#!/bin/bash").replace("--a 1.2:4:15 --b 1.1:4:15", "--a 2,3 --b 2")
    script = script.replace("--output", "--horizons 100,1000 --families constant --output")
    (tmp_path / "job.sh").write_text(script)
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {
        "srun": '"$@"',
        "scontrol": 'echo "$@" >> scontrol.log',
        "optsched": f'exec "{sys.executable}" -m optsched "$@"',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(0o755)
    place = {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_CPUS_PER_TASK": "1"}
    task = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_COUNT": "2"}
    for index in ("0", "1"):
        found = call(tmp_path, "bash", "job.sh", **place, **task, SLURM_ARRAY_TASK_ID=index)
        assert found.returncode == 0, found.stderr
    assert [row["status"] for row in table(tmp_path / "phases")] == ["done"] * 2
    assert (tmp_path / "phases" / "phases.csv").exists()
    assert not (tmp_path / "scontrol.log").exists()
    # A task that is told to stop asks to be queued again.
    (tools / "srun").write_text("#!/bin/sh\nexit 143\n")
    found = call(tmp_path, "bash", "job.sh", **place, **task, SLURM_ARRAY_TASK_ID="1")
    assert found.returncode == 143
    assert (tmp_path / "scontrol.log").read_text() == "requeue 7_1\n"


@POSIX
def test_the_command_stops_with_143(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from optsched.studies import phases

    def told(cell: dict[str, Any], settings: dict[str, Any]) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGUSR1)
        return real(cell, settings)

    real = phases.phase_cell
    monkeypatch.setattr(phases, "phase_cell", told)
    monkeypatch.setattr("optsched.studies.sweep.run.check_task", lambda task: None)
    common = ["phase-diagram", "--a", "2,3", "--b", "2", "--horizons", "100,1000", "--families"]
    common += ["constant", "--workers", "1", "--output", str(tmp_path / "p")]
    assert main(common) == 143
    out, err = capsys.readouterr()
    assert err == "optsched: stopped by SIGUSR1; run the same again to go on\n"
    assert "2 cells, 1 left, 0 failed" in out and "manifest.csv" in out
    monkeypatch.setattr(phases, "phase_cell", real)
    assert main([*common, "--json"]) == 0
    told_json = json.loads(capsys.readouterr().out)
    assert (told_json["missing"], told_json["resumed"]) == (0, 1)
    assert main([*common, "--shard", "5/4"]) == 2
    assert capsys.readouterr().err.startswith("optsched: --shard: got '5/4', allowed: I/N")


def test_shards_with_equal_settings_only(tmp_path: Path) -> None:
    run(tmp_path, shard=(0, 2))
    with pytest.raises(BadFile, match="has another sweep"):
        sweep(cube, CELLS, kind="cubes", settings={"scale": 3}, folder=tmp_path, shard=(1, 2))
    assert SETTINGS == {"scale": 0.1}
