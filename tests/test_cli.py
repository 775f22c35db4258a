"""The command line: its contract, its errors, its files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import optsched.cli as command_line
from optsched import Schedule
from optsched.cli import main

KEYS = {
    "a",
    "b",
    "horizon",
    "phase",
    "excess_loss",
    "ode_excess_loss",
    "bias",
    "variance",
    "lower_bound",
    "certified_gap",
    "kkt_residual",
    "method",
    "status",
    "seconds",
}
SMALL = ["--a", "2.5", "--b", "2", "--horizon", "120", "--features", "100"]


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTSCHED_NO_CACHE", "1")


def _json(capsys: pytest.CaptureFixture[str], *argv: str) -> dict:
    assert main(list(argv)) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def _refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Exit code 2, one line on stderr, nothing on stdout."""
    assert main(list(argv)) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("optsched: ") and shown.err.count("\n") == 1
    return shown.err


def test_solve_prints_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = _json(capsys, "solve", *SMALL, "--json")
    assert numbers.keys() >= KEYS
    assert numbers["phase"] == "easy" and numbers["status"] == "converged"
    assert numbers["method"] == "pontryagin" and numbers["horizon"] == 120
    assert 0 <= numbers["certified_gap"] < 0.05 and numbers["kkt_residual"] <= 1e-6
    assert numbers["bias"] + numbers["variance"] == pytest.approx(numbers["excess_loss"])


def test_defaults_are_the_contract(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = _json(capsys, "solve", "--a", "3.5", "--b", "2", "--horizon", "50", "--json")
    assert (numbers["features"], numbers["batch_size"]) == (1000, 5.0)
    assert (numbers["noise"], numbers["eta_max"]) == (0.5, 1.0)


@pytest.mark.parametrize(("method", "knots"), [(None, 96), ("shooting", 20), ("collocation", 20)])
def test_knots(capsys: pytest.CaptureFixture[str], method: str | None, knots: int) -> None:
    given = ["--method", method] if method else []
    numbers = _json(capsys, "solve", *SMALL, *given, "--knots", str(knots), "--json")
    fewer = _json(capsys, "solve", *SMALL, *given, "--knots", "8", "--json")
    assert numbers["knots"] >= 0.6 * knots
    assert numbers["knots"] > fewer["knots"]
    assert fewer["knots"] < numbers["knots"]


@pytest.mark.parametrize(
    ("knots", "more"), [("1", []), ("2.5", []), ("20000", []), ("20", ["--control", "eta,batch"])]
)
def test_knots_are_checked(capsys: pytest.CaptureFixture[str], knots: str, more: list[str]) -> None:
    assert main(["solve", *SMALL, *more, "--knots", knots]) == 2
    assert capsys.readouterr().err.startswith(f"optsched: --knots: got {float(knots)}, allowed: ")


@pytest.mark.parametrize("method", ["pontryagin", "shooting", "collocation"])
def test_methods(capsys: pytest.CaptureFixture[str], method: str) -> None:
    numbers = _json(capsys, "solve", *SMALL, "--method", method, "--json")
    assert numbers["method"].split(", finished by ")[0] == method


def test_infinite_features(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = _json(
        capsys, "solve", "--a", "2", "--b", "1.5", "--horizon", "60", "--features", "inf", "--json"
    )
    assert numbers["features"] == "inf"


@pytest.mark.parametrize("suffix", ["npz", "csv", "json"])
def test_verify_replays_what_solve_wrote(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, suffix: str
) -> None:
    file = str(tmp_path / f"schedule.{suffix}")
    solved = _json(capsys, "solve", *SMALL, "--output", file, "--json")
    again = _json(capsys, "verify", file, *SMALL, "--json")
    assert again["excess_loss"] == pytest.approx(solved["excess_loss"], rel=1e-12)
    assert again["status"] == "ok" and again["certified_gap"] >= -1e-9
    assert len(Schedule.load(file)) == 120


def test_npz_has_the_arrays(tmp_path: Path) -> None:
    file = tmp_path / "schedule.npz"
    assert main(["solve", *SMALL, "--output", str(file), "--json"]) == 0
    with np.load(file, allow_pickle=False) as arrays:
        assert arrays["step"].tolist() == list(range(120))
        assert arrays["eta"].shape == (120,) and (arrays["eta"] > 0).all()


def test_report_for_people(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    assert main(["solve", *SMALL, "--plot", str(picture)]) == 0
    out = capsys.readouterr().out
    for word in ("optimal", "constant", "linear", "cosine", "certified within", "KKT"):
        assert word in out
    assert picture.read_bytes().startswith(b"\x89PNG")
    file = tmp_path / "schedule.csv"
    assert main(["solve", *SMALL, "--output", str(file), "--json"]) == 0
    capsys.readouterr()
    assert main(["verify", str(file), *SMALL]) == 0
    assert "excess loss" in capsys.readouterr().out


def test_stability_limit_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["solve", *SMALL, "--batch", "1", "--peak", "5"]
    numbers = _json(capsys, *argv, "--json")
    assert numbers["eta_cap"] < numbers["eta_max"] and numbers["status"] == "converged"
    assert "stability limit" in numbers["message"]
    assert main(argv) == 0
    assert "stability limit" in capsys.readouterr().out


def test_long_horizons_are_written_thin(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    long = ["--a", "2.5", "--b", "2", "--horizon", "1e9", "--features", "inf"]
    table = str(tmp_path / "long.npz")
    assert "--points" in _refused(capsys, "solve", *long, "--output", table, "--json")
    _json(capsys, "solve", *long, "--output", table, "--points", "2000", "--json")
    with np.load(table) as arrays:
        assert len(arrays["step"]) == 2000 and arrays["step"][-1] == 10**9 - 1
    knots = str(tmp_path / "long.json")
    solved = _json(capsys, "solve", *long, "--output", knots, "--json")
    assert Path(knots).stat().st_size < 40_000
    for file in (table, knots):
        again = _json(capsys, "verify", file, *long, "--json")
        assert again["excess_loss"] == pytest.approx(solved["excess_loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--a", "1"], ["a:", "1.0", "greater than 1"]),
        (["--b", "0.3"], ["b:", "0.3", "greater than 1"]),
        (["--a", "nan"], ["a:", "nan"]),
        (["--b", "inf"], ["b:", "inf", "finite"]),
        (["--a", "three"], ["a:", "three", "greater than 1"]),
        (["--horizon", "0"], ["horizon:", "0", "whole number"]),
        (["--horizon", "-5"], ["horizon:", "-5"]),
        (["--horizon", "10.5"], ["horizon:", "10.5", "whole number"]),
        (["--horizon", "inf"], ["horizon:", "inf"]),
        (["--features", "0"], ["features:", "0"]),
        (["--peak", "0"], ["--peak:", "0", "> 0"]),
        (["--peak", "-1"], ["--peak:", "-1"]),
        (["--batch", "0.5"], ["--batch:", "0.5", ">= 1"]),
        (["--noise", "-0.1"], ["noise:", "-0.1", ">= 0"]),
        (["--tol", "0"], ["tol:", "0", "> 0"]),
        (["--method", "magic"], ["method:", "magic", "pontryagin"]),
        (["--points", "1.5"], ["points:", "1.5"]),
        (["--nonsense", "1"], ["nonsense"]),
    ],
)
def test_bad_options(
    capsys: pytest.CaptureFixture[str], options: list[str], words: list[str]
) -> None:
    message = _refused(capsys, "solve", *SMALL, *options)
    for word in words:
        assert word in message


def test_missing_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert "a:" in _refused(capsys, "solve", "--b", "2", "--horizon", "10")
    assert "horizon:" in _refused(capsys, "solve", "--a", "2", "--b", "2")


def test_bad_outputs(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for option in ("--output", "--plot"):
        assert "nowhere" in _refused(
            capsys, "solve", *SMALL, option, str(tmp_path / "nowhere" / "x.png")
        )
        assert ".docx" in _refused(capsys, "solve", *SMALL, option, str(tmp_path / "x.docx"))
    file = tmp_path / "mine.npz"
    file.write_text("precious")
    assert "exists" in _refused(capsys, "solve", *SMALL, "--output", str(file))
    assert file.read_text() == "precious"
    assert main(["solve", *SMALL, "--output", str(file), "--force", "--json"]) == 0
    assert len(Schedule.load(file)) == 120
    assert [path.name for path in tmp_path.iterdir()] == ["mine.npz"]


def test_bad_files_for_verify(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    good = tmp_path / "good.npz"
    assert main(["solve", *SMALL, "--output", str(good), "--json"]) == 0
    capsys.readouterr()
    cut = tmp_path / "cut.npz"
    cut.write_bytes(good.read_bytes()[:300])
    foreign = tmp_path / "foreign.npz"
    np.savez(foreign, x=np.arange(3))
    text = tmp_path / "text.csv"
    text.write_text("hello,world\n1,2\n")
    broken = tmp_path / "broken.json"
    broken.write_text('{"a": 1')
    for file in (cut, foreign, text, broken, tmp_path / "missing.npz"):
        assert file.name in _refused(capsys, "verify", str(file), *SMALL)
    assert "horizon" in _refused(
        capsys, "verify", str(good), "--a", "2", "--b", "2", "--horizon", "99"
    )


def test_verify_reports_broken_constraints(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    file = tmp_path / "flat.csv"
    Schedule.from_array(np.linspace(0.5, 0.1, 50)).save(file)
    options = ["--a", "2", "--b", "1.5", "--warmup", "5", "--floor", "0.2"]
    options += ["--max-change", "0.001", "--peak", "0.4"]
    broken = _json(capsys, "verify", str(file), *options, "--json")["violations"]
    assert len(broken) == 4
    assert (
        _json(capsys, "verify", str(file), "--a", "2", "--b", "1.5", "--json")["violations"] == []
    )
    assert main(["verify", str(file), *options]) == 0
    out = capsys.readouterr().out
    assert out.count("breaks a constraint") == 4 and "below --floor 0.2" in out


def test_devices_are_not_replaced(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    link = tmp_path / "link.csv"
    link.symlink_to("/dev/null")
    assert "device" in _refused(capsys, "solve", *SMALL, "--output", str(link), "--force")
    assert Path("/dev/null").is_char_device()


def test_underflow_is_an_answer(capsys: pytest.CaptureFixture[str]) -> None:
    numbers = _json(
        capsys, "solve", "--a", "3.5", "--b", "2", "--horizon", "1e9", "--noise", "0", "--json"
    )
    assert numbers["status"] == "converged" and numbers["excess_loss"] < 1e-200


def test_verify_reports_divergence(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = tmp_path / "wild.csv"
    Schedule.from_array(np.full(3000, 1.9)).save(file)
    options = ["--a", "2", "--b", "1.5", "--features", "30", "--batch", "1"]
    numbers = _json(capsys, "verify", str(file), *options, "--json")
    assert numbers["status"] == "diverges" and numbers["excess_loss"] is None
    assert main(["verify", str(file), *options]) == 0
    assert "diverges" in capsys.readouterr().out


def test_a_solve_that_fails_exits_with_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["solve", *SMALL, "--tol", "1e-300"]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_help_and_version() -> None:
    runner = CliRunner()
    assert "solve" in runner.invoke(command_line.cli, ["--help"]).output
    assert "--features" in runner.invoke(command_line.cli, ["solve", "--help"]).output
    assert runner.invoke(command_line.cli, ["--version"]).exit_code == 0


def test_installed_as_a_module(tmp_path: Path) -> None:
    """A separate process, so that the compilation cache and the entry point are real."""
    out = subprocess.run(
        [sys.executable, "-m", "optsched.cli", "solve", "--a", "2", "--b", "2", "--horizon", "x"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert out.returncode == 2 and out.stdout == "" and "horizon" in out.stderr
    assert "Traceback" not in out.stderr and list(tmp_path.iterdir()) == []
