"""``optsched track``: exit codes, JSON, a figure, and a log that grows while it is read."""

from __future__ import annotations

import json
import threading
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from optsched.cli import main
from optsched.pilot import fit, save_fit
from tests.pilots import DATA, TRAIN, chosen, public_runs

RUN = DATA / "100M" / "wsd_20000_24000.csv"
LINES = RUN.read_text().splitlines()


@cache
def found() -> Any:
    return fit(chosen("100M", TRAIN), members=24)


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_fit(found(), "law.json")


def track(*argv: str) -> int:
    return main(["track", "--law", "law.json", *argv])


def test_a_sound_run(capsys: pytest.CaptureFixture[str]) -> None:
    Path("half.csv").write_text("\n".join([*LINES[:70], ""]))
    argv = ["half.csv", "--schedule", str(RUN), "--warmup", "2160"]
    assert track(*argv, "--plot", "track.png") == 0
    out = capsys.readouterr().out
    assert out.startswith("half: step 10,880 of 23,904\n") and "on track: score" in out
    assert Path("track.png").stat().st_size > 10_000
    assert track(*argv, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["off_track"] is False and told["reasons"] == []
    assert told["before"]["lower"] < told["end"]["loss"] < told["before"]["upper"]
    assert {len(column) for column in told["rows"].values()} == {len(told["rows"]["steps"])}
    page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text(encoding="utf-8")
    for key in (*told, *told["rows"], *told["end"]):
        assert f"`{key}`" in page.partition("## optsched track")[2], key


def test_off_track_is_an_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    run = public_runs("100M")["constant_24000"]
    path = Path("held.csv")
    rows = [
        f"{s},{public_runs('100M')['wsdld_20000_24000'].schedule(int(s))},{x}"
        for s, x in zip(run.steps[:-1], run.loss[:-1], strict=True)
    ]
    path.write_text("\n".join(["step,lr,loss", *rows, ""]))
    assert track(str(path), "--warmup", "2160") == 3
    out = capsys.readouterr().out
    assert "off track: since step 2" in out and "above its 80 % band since step 2" in out
    assert track(str(path), str(RUN), "--warmup", "2160", "--json") == 3
    told = json.loads(capsys.readouterr().out)["runs"]
    assert [one["off_track"] for one in told] == [True, False]
    assert told[0]["fault"] in ("held", "rate") and told[0]["off_since"] > 20_000
    assert told[1]["fault"] is None


def test_a_run_that_diverged(capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*LINES[:70], "12000,0.0003,nan", "12128,0.0003,nan"]
    Path("nan.csv").write_text("\n".join([*rows, ""]))
    assert track("nan.csv", "--warmup", "2160") == 3
    assert "no finite number from step 12,000 on" in capsys.readouterr().out


def test_following_a_log_that_grows(capsys: pytest.CaptureFixture[str]) -> None:
    """Rows come while it looks, the last of each part cut; it ends with the run."""
    path, wait = Path("long.csv"), threading.Event()

    def writer() -> None:
        for rows, tail in ((30, "99"), (80, "12,"), (len(LINES), "")):
            wait.wait(0.4)
            path.write_text("\n".join([*LINES[:rows], tail]))

    thread = threading.Thread(target=writer)
    thread.start()
    argv = ["long.csv", "--schedule", str(RUN), "--warmup", "2160", "--follow", "--every", "0.05"]
    assert track(*argv) == 0
    thread.join()
    shown = capsys.readouterr()
    assert "waiting: long.csv" in shown.err
    lines = shown.out.splitlines()
    assert lines[-1].startswith("long: step 23,904 of 23,904") and lines[-1].endswith("on track")
    assert 1 <= len(lines) <= 3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["track", "a.csv"], "--law: got nothing"),
        (["track", "--law", "law.json"], "runs: got 'none'|RUNS: got 'none'"),
        (["track", "--law", "law.json", "a", "b", "--follow"], "--follow: got '2 runs'"),
        (["track", "--law", "law.json", "a", "--every", "0"], "--every: got 0"),
        (["track", "--law", "law.json", "gone.csv"], "gone.csv"),
        (["track", "--law", "law.json", str(RUN), "--false-alarm", "2"], "--false-alarm: got 2"),
        (["track", "--law", str(RUN), str(RUN)], "is no JSON"),
    ],
)
def test_bad_input_is_one_line(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and any(part in err for part in said.split("|")), err


def test_rates_beside_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    run = public_runs("100M")["constant_24000"]
    rows = [f"{s},{x}" for s, x in zip(run.steps[:90], run.loss[:90], strict=True)]
    Path("bare.csv").write_text("\n".join(["step,loss", *rows, ""]))
    assert track("bare.csv") == 2
    assert "--rates" in capsys.readouterr().err
    run.schedule.save("rates.npz")
    assert track("bare.csv", "--rates", "rates.npz", "--json") == 0
    assert json.loads(capsys.readouterr().out)["step"] == run.steps[89]
