"""The explorer answers who knows its token, in bounded time, and what is wrong in a sentence."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest

from optsched import InvalidProblem, Problem, cli, solve
from optsched.explore import work
from tests.explorer import PROBLEM, Explorer, explorer

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
ASSETS = files("optsched.explore").joinpath("assets")


@pytest.fixture(scope="module")
def page() -> Iterator[Explorer]:
    with explorer() as one:
        yield one


def test_the_token_becomes_a_cookie_and_leaves_the_address(page: Explorer) -> None:
    status, headers, _ = page.send("GET", f"/?token={page.app.token}", token=False)
    assert (status, headers["location"]) == (303, "/")
    cookie = headers["set-cookie"].lower()
    assert "httponly" in cookie and "samesite=strict" in cookie
    assert page.send("GET", "/?token=wrong", token=False)[0] == 403


@pytest.mark.parametrize("path", ["/", "/page.js", "/uplot.js", "/api/solve"])
def test_nobody_else_is_answered(page: Explorer, path: str) -> None:
    method = "POST" if path.startswith("/api") else "GET"
    body = json.dumps({"problem": PROBLEM}).encode() if method == "POST" else None
    kind = {"Content-Type": "application/json"}
    own = f"http://127.0.0.1:{page.port}"
    assert page.send(method, path, body, kind)[0] == 200
    assert page.send(method, path, body, kind | {"Origin": own})[0] == 200
    assert page.send(method, path, body, kind, token=False)[0] == 403
    assert page.send(method, path, body, kind | {"Cookie": "x=y"}, token=False)[0] == 403
    for foreign in ({"Host": "evil.example"}, {"Host": f"evil.example:{page.port}"}):
        assert page.send(method, path, body, kind | foreign)[0] == 403
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{page.port + 1}"):
        assert page.send(method, path, body, kind | {"Origin": origin})[0] == 403


def test_every_answer_says_what_the_page_may_load(page: Explorer) -> None:
    for path in ("/", "/page.css", "/nothing"):
        _, headers, _ = page.send("GET", path)
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert "server" not in headers


@pytest.mark.parametrize(
    "path",
    ["/../pyproject.toml", "/%2e%2e/server.py", "/..%2fserver.py", "/page.html", "/uplot.LICENSE"],
)
def test_no_path_comes_from_a_request(page: Explorer, path: str) -> None:
    assert page.send("GET", path)[0] == 404


def test_it_listens_on_the_loopback_alone() -> None:
    from optsched.explore.server import bound

    with bound(0) as place:
        host, port = place.getsockname()
        place.listen()
        assert host == "127.0.0.1"
        with pytest.raises(InvalidProblem, match=f"port: got {port}, allowed: a free port"):
            bound(port)


def test_questions_that_are_none(page: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = {"Content-Type": "application/json"}
    assert page.send("POST", "/api/nothing", b"{}", kind)[0] == 404
    assert page.send("GET", "/api/solve")[0] == 405
    assert page.send("POST", "/api/solve", b"{}", {"Content-Type": "text/plain"})[0] == 415
    for raw in (b"", b"{", b"[]", b"\xff", b"[" * 100_000):
        status, _, content = page.send("POST", "/api/solve", raw, kind)
        assert status == 200
        assert json.loads(content) == {"error": {"text": "a question is one JSON object"}}
    monkeypatch.setattr("optsched.explore.server.FEW_BYTES", 1000)
    status, _, content = page.send("POST", "/api/solve", b" " * 1001, kind)
    assert json.loads(content)["error"]["text"] == "this is more than 0.001 MB"


def test_an_answer_takes_no_longer_than_it_may(
    page: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process is ended, and the next question gets another one."""
    monkeypatch.setattr("optsched.explore.server.SECONDS", {"proof": 0.01})
    found = page.ask("proof", {"problem": PROBLEM | {"horizon": 1e6}})
    assert found["error"]["text"] == "this takes more than 0.01 s: run it on the command line"
    assert "error" not in page.ask("solve", {"problem": PROBLEM})


def test_the_optimum_is_that_of_the_library(page: Explorer) -> None:
    found = page.ask("solve", {"problem": PROBLEM | {"features": "inf"}})
    problem = Problem(3.5, 2.0, 1000, features=math.inf)
    expected = solve(problem)
    assert found["numbers"]["excess_loss"] == pytest.approx(expected.excess_loss, rel=1e-9)
    assert found["rate"]["steps"][0] == 0 and found["rate"]["steps"][-1] == 999
    for at in (0, 57, -1):
        step = found["rate"]["steps"][at]
        assert found["rate"]["eta"][at] == pytest.approx(expected.schedule(step), rel=2e-6)
    loss = found["loss"]
    assert loss["steps"][-1] == 1000
    assert loss["excess"][-1] == pytest.approx(expected.excess_loss, rel=1e-5)
    parts = [b + v for b, v in zip(loss["bias"], loss["variance"], strict=True)]
    assert parts == pytest.approx(loss["excess"], rel=1e-5)
    said = " ".join(found["words"])
    bound, floor = found["numbers"]["lower_bound"], found["numbers"]["floor"]
    assert f"no schedule with rates up to 1 is below {bound:.6g}" in said
    assert f"no optimiser that is linear in the labels is below {floor:.6g}" in said


def test_what_people_use_loses_more(page: Explorer) -> None:
    optimum = page.ask("proof", {"problem": PROBLEM})["numbers"]
    rows = page.ask("baselines", {"problem": PROBLEM})["rows"]
    assert [row["name"] for row in rows] == ["constant", "linear", "cosine", "wsd"]
    for row in rows:
        expected = row["excess_loss"] / optimum["excess_loss"] - 1.0
        assert row["regret"] == pytest.approx(expected, rel=1e-5) and expected > 0.0
        assert row["excess_loss"] == pytest.approx(row["bias"] + row["variance"], rel=1e-9)


def test_exponents_beside_theory(page: Explorer) -> None:
    found = page.ask("exponents", {"problem": PROBLEM | {"horizon": 100_000, "features": "inf"}})
    rows = {row["name"]: row for row in found["rows"]}
    assert rows["expected"]["theory"] == pytest.approx(2.5 / 3.5)
    assert rows["expected"]["fitted"] == pytest.approx(2.5 / 3.5, abs=0.02)
    assert (found["from"], found["to"]) == (12_500, 800_000)
    # One horizon has no slope, and that is no error.
    single = page.ask("exponents", {"problem": PROBLEM | {"horizon": 1}})
    assert "error" not in single


@pytest.mark.parametrize(
    ("field", "value", "text"),
    [
        ("a", 1, "got 1, allowed: a finite number greater than 1, up to 50"),
        ("b", "two", "got 'two', allowed: a finite number greater than 1, up to 50"),
        ("horizon", 0.5, "got 0.5, allowed: a whole number of steps, 1 to 10^15"),
        ("horizon", None, "got nothing, allowed: a whole number of steps, 1 to 10^15"),
        ("features", -1, "got -1, allowed: a whole number >= 1, or inf"),
        ("batch_size", [], "got [], allowed: a number >= 1, up to 1e15"),
        ("noise", {}, "got {}, allowed: a number >= 0, up to 1e9"),
        ("eta_max", 0, "got 0, allowed: a number > 0, 1e-100 or more"),
        ("spectrum", 1, "got 1, allowed: one of a, b, horizon"),
    ],
)
def test_an_error_is_a_sentence_beside_its_field(
    page: Explorer, field: str, value: Any, text: str
) -> None:
    for question in ("solve", "baselines", "exponents"):
        error = page.ask(question, {"problem": PROBLEM | {field: value}})["error"]
        assert error["field"] == field and error["text"].startswith(text)


def test_what_is_not_ours_is_said_too(monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    def broken(body: Any) -> Any:
        raise ZeroDivisionError("of a bug")

    monkeypatch.setattr("optsched.explore.model.optimum", broken)
    found = work.answer("solve", {})
    assert found == {"error": {"text": "this did not work: of a bug (ZeroDivisionError)"}}
    assert "in broken" in capfd.readouterr().err


def test_the_command_prints_its_address_and_ends_with_ctrl_c() -> None:
    command = [sys.executable, "-m", "optsched", "explore", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        found = re.fullmatch(
            r"http://127\.0\.0\.1:(\d+)/\?token=\S{20,}\n", process.stdout.readline()
        )
        assert found
        socket.create_connection(("127.0.0.1", int(found[1])), 10).close()
        process.send_signal(signal.SIGINT)
        rest = process.stdout.read()
        assert process.wait(60) == 0
    assert rest == "Ctrl-C ends it\nended\n"


@pytest.mark.parametrize("wait", [0.0, 4.0])
def test_ctrl_c_in_a_terminal_reaches_all_processes_and_is_quiet(wait: float) -> None:
    """While they load, and when they are ready."""
    command = [sys.executable, "-m", "optsched", "explore", "--no-browser"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, start_new_session=True, **pipes) as process:
        assert process.stdout is not None and process.stderr is not None
        process.stdout.readline()
        time.sleep(wait)
        os.killpg(process.pid, signal.SIGINT)
        said = process.stderr.read()
        assert process.wait(60) == 0
    assert "Traceback" not in said


@pytest.mark.parametrize("port", ["-1", "65536", "80.5"])
def test_ports_that_are_none(port: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["explore", f"--port={port}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("optsched: --port: got ") and "0 to 65535" in said


def test_a_missing_extra_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    monkeypatch.delitem(sys.modules, "optsched.explore.server", raising=False)
    assert cli.main(["explore", "--no-browser"]) == 1
    said = "optsched: explore needs uvicorn: pip install 'optsched[explore]'\n"
    assert capsys.readouterr().err == said


def test_the_page_loads_its_own_files_alone() -> None:
    from optsched.explore.server import ASSETS as KNOWN

    html = ASSETS.joinpath("page.html").read_text(encoding="utf-8")
    linked = re.findall(r'(?:src|href)="([^"#]+)"', html)
    assert linked and set(linked) <= set(KNOWN)
    for name in KNOWN:
        text = ASSETS.joinpath(name).read_text(encoding="utf-8")
        for other in re.findall(r'^import .* from "\./([^"]+)"', text, re.M):
            assert other in KNOWN
        if not name.startswith("uplot"):
            assert set(re.findall(r"https?://[^\"\s]+", text)) <= {"http://www.w3.org/2000/svg"}
    # Everything that is served is there, and the library's licence beside it.
    assert {*KNOWN, "page.html", "uplot.LICENSE"} == {one.name for one in ASSETS.iterdir()}
