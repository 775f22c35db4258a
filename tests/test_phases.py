"""Phase diagrams: cells, resuming, the command, the maps."""

from __future__ import annotations

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from optsched import InvalidProblem, Problem, solve
from optsched.cli import main
from optsched.errors import BadFile
from optsched.optimisers.momentum import SGD
from optsched.plots.phases import plot_phase, plot_phase_diagram
from optsched.studies.phases import FIELDS, PhaseDiagram, phase_cell, phase_diagram
from optsched.studies.scaling import scaling
from optsched.studies.sweep.cells import canonical

HORIZONS = (1000, 10_000, 100_000)
GRID = [1.5, 2.5], [2.0, 3.0]
ARGUMENTS = ["--a", "1.5,2.5", "--b", "2,3", "--horizons", "1e3:1e5:3"]


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTSCHED_NO_CACHE", "1")


@pytest.fixture(scope="module")
def diagram() -> PhaseDiagram:
    return phase_diagram(*GRID, HORIZONS, workers=1)


def test_a_cell_is_what_its_parts_say(diagram: PhaseDiagram) -> None:
    study = scaling(Problem(1.5, 3.0, HORIZONS[-1], features=math.inf), HORIZONS)
    assert diagram.field("exponent")[1, 0] == pytest.approx(study.exponent, abs=1e-4)
    assert diagram.field("theory")[1, 0] == pytest.approx(0.5 / 3.0)
    shares = [p.annealing_time / p.horizon for p in study.points]
    assert diagram.field("annealing")[1, 0] == pytest.approx(shares[-1], rel=1e-2)
    best = solve(Problem(2.5, 2.0, HORIZONS[-1], features=math.inf))
    (cell,) = (r for r in diagram.sweep.rows if r.cell == {"a": 2.5, "b": 2.0})
    assert cell.result["excess_loss"][-1] == pytest.approx(best.excess_loss, rel=1e-4)
    assert cell.result["phase"] == "easy"


def test_no_family_beats_the_optimum_in_any_cell(diagram: PhaseDiagram) -> None:
    for name in ("constant", "linear", "cosine", "wsd"):
        assert (diagram.field(name) > -1e-6).all()
    # A constant rate is the linear decay's special case of no decay; WSD contains the linear one.
    assert (diagram.field("wsd") <= diagram.field("linear") + 1e-3).all()
    assert (diagram.field("linear") < diagram.field("constant")).all()


def test_cells_know_the_optimisers_of_the_library() -> None:
    class Mine(SGD):
        """Known nowhere else: a cell, which may be another process, could not make it."""

    like = Problem(2.0, 2.0, 100, optimiser=Mine())
    with pytest.raises(InvalidProblem, match="like: got 'optimiser Mine'"):
        phase_diagram([1.5], [2.0], [10, 100], like=like)


def test_fields_have_the_shape_of_the_plane(diagram: PhaseDiagram) -> None:
    for name in FIELDS:
        assert diagram.field(name).shape == (2, 2)
    assert set(diagram.names) == set(FIELDS) - {"gain", "gain_exponent"}
    with pytest.raises(InvalidProblem, match="field: got 'colour'"):
        diagram.field("colour")
    rows = diagram.table()
    assert [(r["a"], r["b"]) for r in rows] == [(1.5, 2.0), (2.5, 2.0), (1.5, 3.0), (2.5, 3.0)]
    json.dumps(diagram.summary(), allow_nan=False)


def test_failed_cells_stay_as_rows() -> None:
    # One feature without noise: the loss falls exponentially, below what a float can hold.
    like = Problem(2.0, 2.0, 1000, features=1, noise=0.0)
    found = phase_diagram([2.0, 3.0], [2.0], [1000, 10_000], like=like, workers=1)
    assert [row.status for row in found.failed] == ["failed", "failed"]
    for line in found.table():
        assert "T = 1000" in line["messages"] and line["exponent"] is None
    assert np.isnan(found.field("exponent")).all()
    figure = plot_phase_diagram(found)  # nothing to draw, but no crash
    figure.canvas.draw()


@pytest.mark.slow
def test_momentum_adds_its_gain() -> None:
    like = Problem(3.5, 5.0, 100, features=100, controls="eta,beta,nu")
    settings = {
        "problem": {
            "features": 100,
            "batch_size": like.batch_size,
            "noise": like.noise,
            "controls": list(like.controls),
        },
        "horizons": [30, 100],
        "families": ["constant"],
    }
    cell = phase_cell({"a": 3.5, "b": 5.0}, settings)
    plain = solve(Problem(3.5, 5.0, 100, features=100))
    joint = solve(like)
    assert cell["gain"] == pytest.approx(plain.excess_loss / joint.excess_loss, rel=2e-3)
    assert cell["gain"] > 1.2
    assert cell["gain_exponent"] == pytest.approx(cell["exponent"] - cell["plain"]["exponent"])
    assert cell["regret"]["constant"] > 0.0


def _run(folder: Path, *more: str) -> list[str]:
    return ["phase-diagram", *ARGUMENTS, "--output", str(folder), "--workers", "1", *more]


def test_command(tmp_path: Path, diagram: PhaseDiagram, capsys: pytest.CaptureFixture[str]) -> None:
    folder, picture = tmp_path / "plane", tmp_path / "plane.png"
    assert main([*_run(folder), "--plot", str(picture), "--json"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert out["cells"] == 4 and out["failed"] == 0 and out["resumed"] == 0
    assert picture.stat().st_size > 10_000
    with open(folder / "phases.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    np.testing.assert_allclose(
        [float(r["exponent"]) for r in rows], diagram.field("exponent").ravel(), rtol=1e-6
    )
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    # Again: found finished; another plane in the same folder: refused, nothing touched.
    assert main(_run(folder)) == 0
    assert "4 found finished" in capsys.readouterr().out
    other = ["phase-diagram", "--a", "2,3", "--b", "2,3", "--horizons", "1e3:1e5:3"]
    assert main([*other, "--output", str(folder), "--workers", "1"]) == 2
    assert "cells" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_killed_and_resumed_is_the_same(tmp_path: Path, diagram: PhaseDiagram) -> None:
    folder = tmp_path / "plane"
    command = [sys.executable, "-m", "optsched.cli", *_run(folder)]
    process = subprocess.Popen(command, env={**os.environ, "OPTSCHED_NO_CACHE": "1"})
    cells = folder / "cells"
    for _ in range(3000):
        if any(cells.glob("[!.]*.json")):  # a dot: still being written
            break
        assert process.poll() is None, "the run ended before it could be killed"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    resumed = phase_diagram(*GRID, HORIZONS, folder=folder, workers=1)
    assert 1 <= resumed.sweep.resumed <= 4
    assert resumed.table() == diagram.table()
    assert [canonical(row.result) for row in resumed.sweep.rows] == [
        canonical(row.result) for row in diagram.sweep.rows
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--a", "4:1.2:5", "--b", "2,3"], "a: got '4:1.2:5'"),
        (["--a", "1.2:4:0", "--b", "2,3"], "a: got '1.2:4:0'"),
        (["--a", "0.5,2", "--b", "2,3"], "a: got 0.5"),
        (["--a", "1.5,2", "--b", "2,80"], "b: got 80"),
        (["--a", "1.5,2"], "--b: got nothing"),
        (["--a", "1.5,2", "--b", "2,3", "--families", "spiral"], "families: got 'spiral'"),
        (["--a", "1.5,2", "--b", "2,3", "--warmup", "9"], "warmup: got 9"),
        (["--a", "1.5,2", "--b", "2,3", "--dask", "tcp://127.0.0.1:9"], "tcp://127.0.0.1:9"),
        (["--a", "1.5,2", "--b", "2,3", "--workers", "0"], "workers: got 0"),
        (["--a", "1.5,2", "--b", "2,3", "--dask", "nowhere", "--workers", "2"], "workers: got 2"),
        (["--a", "1.5,2", "--b", "2,3", "--horizons", "1e5"], "horizons: got '1e5'"),
    ],
)
def test_bad_input_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    folder = tmp_path / "plane"
    assert main(["phase-diagram", *arguments, "--output", str(folder)]) > 0
    shown = capsys.readouterr()
    assert message in shown.err and shown.err.count("\n") == 1 and not shown.out
    assert not folder.exists()


def test_a_folder_with_other_things_is_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert main(_run(tmp_path)) == 2
    assert str(tmp_path) in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    with pytest.raises(BadFile):
        phase_diagram(*GRID, HORIZONS, folder=tmp_path, workers=1)


def test_maps(diagram: PhaseDiagram) -> None:
    ax = Figure().subplots()
    assert plot_phase(ax, diagram, "exponent") is ax
    assert ax.get_xlabel() == "target exponent $a$"
    assert any(line.get_linestyle() == "--" for line in ax.get_lines())  # the boundary b = a
    figure = plot_phase_diagram(diagram)
    titles = [axes.get_title() for axes in figure.axes]
    for name in ("exponent", "deviation", "annealing", "constant", "linear", "cosine", "wsd"):
        assert FIELDS[name].label in titles
    figure.canvas.draw()
