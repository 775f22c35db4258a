"""Dropped logs and drawn schedules: every one is understood or refused in a sentence."""

from __future__ import annotations

import base64
import io
import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsched import Problem, Schedule, solve
from optsched.cli import main
from optsched.explore.folder import dropped, inside
from optsched.explore.work import answer
from optsched.studies.verify import verify
from tests.pilots import DATA, TRAIN

PATHS = [DATA / "25M" / f"{name}.csv" for name in TRAIN]
PROBLEM: dict[str, Any] = {"a": 3.5, "b": 2.0, "horizon": 300}


def packed(name: str, content: bytes) -> dict[str, str]:
    return {"name": name, "data": base64.b64encode(content).decode()}


LOGS = [packed(path.name, path.read_bytes()) for path in PATHS]


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    bad = packed("notes.txt", b"the runs of last week\n")
    return answer("fit", {"files": [*LOGS, bad], "options": {"warmup": "2160"}})


def test_a_fit_is_that_of_the_command(
    fitted: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", *map(str, PATHS), "--warmup", "2160", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert fitted["law"]["parameters"] == pytest.approx(told["parameters"], rel=1e-9)
    assert fitted["misfit"] == told["misfit"]
    assert [row["ok"] for row in fitted["files"]] == [True, True, True, False]
    assert fitted["files"][3]["lines"][0].startswith("notes.txt: ")
    assert [run["name"] for run in fitted["runs"]] == list(TRAIN)
    for run in fitted["runs"]:
        law, loss = np.array(run["law"]), np.array(run["loss"])
        assert np.array(run["residual"]) == pytest.approx(law - loss, abs=2e-5)
        assert np.sqrt(np.mean((law - loss)[20:] ** 2)) < 5.0 * told["misfit"]


def test_a_plan_is_that_of_the_command(
    fitted: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = {"horizon": "20000", "peak": "2e-4", "level": "0.9"}
    found = answer("plan", {"law": fitted["law"], "options": options})
    (tmp_path / "law.json").write_text(json.dumps(fitted["law"]))
    command = ["plan", "--law", str(tmp_path / "law.json"), "--json"]
    assert main([*command, *(f"--{key}={value}" for key, value in options.items())]) == 0
    told = json.loads(capsys.readouterr().out)
    assert found["numbers"]["loss"] == pytest.approx(told["loss"], rel=1e-9)
    assert found["level"] == 0.9
    curves = {one["name"]: one for one in found["curves"]}
    for row in told["schedules"]:
        one = curves[row["name"]]
        assert one["steps"][-1] == 20000
        ends = one["loss"][-1], one["lower"][-1], one["upper"][-1]
        assert ends == pytest.approx((row["loss"], row["lower"], row["upper"]), rel=1e-5)
        assert max(one["rate"]["eta"]) == pytest.approx(row["peak"], rel=1e-4)
    assert f"plan: {told['words']}" in found["lines"]
    assert not any("wrote" in line for line in found["lines"])
    # The schedule that is downloaded is the plan.
    got = answer("export", {"schedule": found["schedule"], "format": "npz"})
    (tmp_path / got["name"]).write_bytes(base64.b64decode(got["data"]))
    schedule = Schedule.load(tmp_path / got["name"])
    assert schedule.horizon == 20000 and schedule.peak == pytest.approx(2e-4)


@pytest.mark.parametrize(
    ("options", "field", "text"),
    [
        ({"horizon": "0"}, "horizon", "whole number of steps"),
        ({"horizon": ""}, "horizon", "got nothing"),
        ({"horizon": "9000", "peak": "1"}, "peak", "the highest peak of the runs"),
        ({"horizon": "9000", "peak": "high"}, "peak", "a word or a number"),
        ({"horizon": "9000", "output": "/tmp/x"}, "output", "one of horizon, peak"),
        ({"horizon": "9000", "shape": "round"}, "shape", "auto, simple, free"),
        ({"horizon": "9000", "history": "/etc/passwd"}, "history", "one of horizon, peak"),
    ],
)
def test_plans_that_are_none(
    fitted: dict[str, Any], options: dict[str, str], field: str, text: str
) -> None:
    error = answer("plan", {"law": fitted["law"], "options": options})["error"]
    assert error.get("field", field) == field and text in error["text"]


def test_a_law_is_data_and_never_code(fitted: dict[str, Any]) -> None:
    options = {"horizon": "9000"}
    for law in (
        None,
        [],
        {},
        {"law": {}},
        fitted["law"] | {"law": fitted["law"]["law"] | {"class": "os:system"}},
        fitted["law"] | {"law": fitted["law"]["law"] | {"name": "mine"}},
    ):
        assert answer("plan", {"law": law, "options": options})["error"]["field"] == "law"
    broken = fitted["law"] | {"parameters": {}}
    assert (
        "is no complete law file"
        in answer("plan", {"law": broken, "options": options})["error"]["text"]
    )


@pytest.mark.parametrize(
    "name", ["log-format", "law", "rates", "plot", "report", "output", "x", "columns=a --plot"]
)
def test_options_that_name_files_or_code_are_refused(name: str) -> None:
    found = answer("fit", {"files": LOGS[:1], "options": {name: "json:JSONDecoder"}})
    assert found["error"]["field"] == name


def test_files_stay_inside_of_their_folder(tmp_path: Path) -> None:
    here = os.getcwd()
    with inside() as folder:
        names = [
            "../../up.csv",
            "/etc/x.csv",
            "..\\..\\w.csv",
            "a/../b.csv",
            "~/c.csv",
            "-rf",
            "a\0b",
        ]
        top = dropped([packed(name, b"1") for name in names])
        files = [path for path in folder.rglob("*") if path.is_file()]
        assert len(files) == len(names)
        assert all(path.resolve().is_relative_to(folder.resolve()) for path in files)
        assert set(top) == {path.name for path in folder.iterdir()}
        # Of one name, both are kept.
        assert dropped([packed("same.csv", b"1"), packed("same.csv", b"2")]) == [
            "same.csv",
            "same (2).csv",
        ]
    assert os.getcwd() == here and not folder.exists()


@pytest.mark.parametrize(
    "files",
    [
        None,
        [],
        "x",
        [1],
        [{}],
        [{"name": "..", "data": ""}],
        [{"name": "a", "data": "?"}],
        [{"name": "a", "data": 5}],
    ],
)
def test_files_that_are_none(files: Any) -> None:
    assert answer("fit", {"files": files})["error"]["field"] == "files"


def mutated(draw: random.Random, content: bytes) -> bytes:
    """A log with something wrong, or not."""
    lines = content.splitlines(keepends=True)
    kind = draw.randrange(8)
    if kind == 0:
        return content[: draw.randrange(len(content))]
    if kind == 1:
        lines.insert(
            draw.randrange(len(lines)), draw.choice([b"\xff\xfe\n", b"nan,nan,nan\n", b"\n\n"])
        )
    elif kind == 2:
        lines = lines[:1] + draw.sample(lines[1:], len(lines) - 1)
    elif kind == 3:
        lines[0] = b"x" + lines[0]
    elif kind == 4:
        lines = lines[: draw.randrange(1, 6)]
    elif kind == 5:
        return bytes(draw.randrange(256) for _ in range(500))
    elif kind == 6:
        return content.replace(b",", draw.choice([b";", b"\t", b" , "]))
    return b"".join(lines)


def test_a_folder_of_logs_is_read_file_by_file() -> None:
    files = [one | {"name": f"pilots/{one['name']}"} for one in LOGS[:2]]
    state = {
        "log_history": [{"step": k, "learning_rate": 1e-3, "loss": 3 + 9 / k} for k in range(9, 90)]
    }
    trainer = packed("trained/trainer_state.json", json.dumps(state).encode())
    found = answer("fit", {"files": [*files, packed("pilots/notes.md", b"mine"), trainer]})
    names = {row["name"]: row["ok"] for row in found["files"]}
    assert names == {
        "pilots/constant_24000.csv": True,
        "pilots/cosine_24000.csv": True,
        "pilots/notes.md": False,
        "trained": True,
    }
    assert [run["name"] for run in found["runs"]] == ["constant_24000", "cosine_24000", "trained"]


@pytest.mark.parametrize("seed", range(12))
def test_any_file_gets_an_answer(seed: int) -> None:
    draw = random.Random(seed)
    files = [
        packed(f"{i}{path.suffix}", mutated(draw, path.read_bytes()))
        for i, path in enumerate(draw.choices(PATHS, k=3))
    ]
    found = answer("fit", {"files": files})
    assert "error" not in found, found
    assert len(found["files"]) == 3
    assert "law" in found or found["problem"]
    for row in found["files"]:
        assert row["lines"] and "optsched-" not in " ".join(row["lines"])  # no folder of ours


def test_the_report_of_each_page(fitted: dict[str, Any]) -> None:
    for body in (
        {"what": "solve", "problem": PROBLEM | {"features": "inf"}},
        {"what": "fit", "files": LOGS, "options": {"warmup": "2160"}},
        {"what": "plan", "law": fitted["law"], "options": {"horizon": "9000"}},
    ):
        found = answer("report", body)
        text = base64.b64decode(found["data"]).decode()
        assert found["name"] == f"optsched-{body['what']}.html"
        assert text.startswith("<!doctype html>") and f"<h1>optsched {body['what']}</h1>" in text
        assert "optsched-" not in text.split("<h2>Command</h2>")[1].split("</pre>")[0]
    assert answer("report", {"what": "all"})["error"]["field"] == "what"


@pytest.mark.parametrize("form", ["json", "csv", "npz", "torch-snippet", "optax-snippet"])
def test_the_optimum_in_every_form(form: str, tmp_path: Path) -> None:
    found = answer("export", {"problem": PROBLEM, "format": form})
    data = base64.b64decode(found["data"])
    if "snippet" in form:
        compile(data, found["name"], "exec")
        return
    (tmp_path / found["name"]).write_bytes(data)
    expected = solve(Problem(**PROBLEM)).schedule
    assert np.allclose(Schedule.load(tmp_path / found["name"]).eta, expected.eta, rtol=1e-9)


def test_a_drawn_schedule_is_judged_as_by_verify() -> None:
    found = answer("judge", {"problem": PROBLEM, "knots": [[0.5, 0.2], [1.0, 0.0]]})
    steps = np.arange(300)
    eta = np.interp(steps, [0, 150, 299], [0.2, 0.2, 0.0])  # held before the first knot
    problem = Problem(**PROBLEM)
    expected = verify(problem, Schedule.from_array(eta))
    loss = found["numbers"]["excess_loss"]
    assert loss == pytest.approx(expected.replay.excess_loss, rel=1e-9)
    least = solve(problem).excess_loss
    assert found["regret"] == pytest.approx(loss / least - 1.0, rel=1e-6)
    assert found["to_optimum"] == f"{100 * found['regret']:+.3g} %"


def test_a_pasted_csv_brings_its_own_horizon() -> None:
    best = solve(Problem(3.5, 2.0, 100)).schedule
    text = io.StringIO()
    text.write("step,lr\n" + "".join(f"{k},{float(best(k))!r}\n" for k in range(100)))
    found = answer("judge", {"problem": PROBLEM, "csv": text.getvalue()})
    assert found["horizon"] == 100
    assert found["regret"] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"knots": []},
        {"knots": [[0, -1]]},
        {"knots": [[1.5, 1]]},
        {"knots": [[0, "x"]]},
        {"knots": [[0]]},
        {"knots": [[0, 1e400]]},
        {"csv": ""},
        {"csv": "no,columns\n1,2"},
        {"csv": "step,lr\n0,-1\n9,0"},
        {"csv": 7},
    ],
)
def test_schedules_that_are_none(body: dict[str, Any]) -> None:
    error = answer("judge", {"problem": PROBLEM} | body)["error"]
    assert "this did not work" not in error["text"]


@pytest.mark.parametrize("horizon", [1, 2, 10**9])
def test_a_drawn_schedule_fits_any_horizon(horizon: int) -> None:
    body = {"problem": PROBLEM | {"horizon": horizon}, "knots": [[0, 0.1], [0.5, 0.1], [1, 0]]}
    found = answer("judge", body)
    assert found["horizon"] == horizon and found["status"] == "ok"


def test_a_schedule_that_diverges_is_no_error() -> None:
    found = answer("judge", {"problem": PROBLEM, "knots": [[0, 50]]})
    assert found["status"] == "diverges" and found["loss"] is None and found["regret"] is None
