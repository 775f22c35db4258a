"""Bad input and odd parameters of fits, predictions and plans: one clear error, or a result."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsched import Schedule, cli
from optsched.errors import BadFile, InvalidProblem
from optsched.logs import Run
from optsched.pilot import compare, fit, plan
from optsched.pilot.identify import ONE_RUN
from optsched.pilot.lawfile import load_fit, save_fit
from optsched.pilot.pieces import FAR
from tests.pilots import PEAK, made_fit


@pytest.fixture
def law(tmp_path: Path) -> str:
    path = tmp_path / "law.json"
    save_fit(made_fit("fsl"), path)
    return str(path)


def refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """The one line on stderr of a command that is refused."""
    assert cli.main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ""
    (line,) = err.splitlines()
    return line


def log(path: Path, loss: float = 3.0) -> str:
    rows = [f"{100 * k},{PEAK},{loss * (1.0 + 1.0 / (1.0 + k))}" for k in range(1, 9)]
    path.write_text("step,lr,loss\n" + "\n".join(rows) + "\n")
    return str(path)


def flat(rate: float, horizon: int) -> Schedule:
    return Schedule.from_array(np.full(horizon, rate))


def test_what_is_read_is_not_written_over(
    tmp_path: Path, law: str, capsys: pytest.CaptureFixture[str]
) -> None:
    csv = log(tmp_path / "run.csv")
    json_log = str(tmp_path / "run.json")
    Path(json_log).write_text(json.dumps([{"step": 1, "loss": 2.0, "lr": 0.1}]))
    same = str(tmp_path / "x" / ".." / "run.csv")
    (tmp_path / "x").mkdir()
    before = {path: Path(path).read_bytes() for path in (law, csv, json_log)}
    plans = ["plan", "--law", law, "--horizon", "1000", "--force"]
    for argv in (
        [*plans, "--output", law],
        [*plans, "--from-step", "500", "--history", csv, "--output", same],
        ["predict", "--law", law, csv, "--output", csv, "--force"],
        ["fit", json_log, "--output", json_log, "--force"],
    ):
        assert "is read by this command; give another file" in refused(capsys, *argv)
    assert before == {path: Path(path).read_bytes() for path in before}


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("cosine --horizon nan", "horizon: got nan, allowed: a whole number of steps >= 1"),
        ("cosine --horizon inf", "horizon: got inf"),
        ("cosine --horizon 9 --warmup nan", "warmup: got nan, allowed: a whole number of steps"),
        ("cosine --horizon 9 --warmup inf", "warmup: got inf"),
        ("cosine --horizon 9 --peak 0", "peak: got 0.0, allowed: a finite number > 0"),
        ("constant --horizon 9 --peak 1e300", "peak: got 1e+300, allowed: at most 1e+06 times"),
    ],
)
def test_numbers_of_predict(
    law: str, argv: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert said in refused(capsys, "predict", "--law", law, *argv.split())


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        ("--horizon inf", "horizon: got inf, allowed: a whole number of steps >= 1"),
        ("--peak 1e300 --extrapolate", "peak: got 1e+300, allowed: at most 1e+06 times"),
        ("--momentum 1", "momentum: got 1.0, allowed: a number in [0, 1)"),
        ("--level 1", "level: got 1.0, allowed: a number between 0 and 1"),
        ("--families ,", "families: got '', allowed: one of constant"),
        ("--warmup 1000", "warmup: got 1000, allowed: a whole number from 0 to 999"),
        ("--floor 3e-4", "floor: got 0.0003, allowed: a number below the peak"),
    ],
)
def test_numbers_of_plan(
    law: str, argv: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.setattr(
        "optsched.pilot.planning.optimal.projected_descent", None
    )  # before any solve
    assert said in refused(capsys, "plan", "--law", law, "--horizon", "1000", *argv.split())


BREAKS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "far parameter": (lambda d: d["parameters"].update(s=1e300), "s is 1e+300, expected 0.02 to 4"),
    "far member": (lambda d: d["members"].append([*[*d["parameters"].values()][:-1], 99.0]),
                   "offset is 99"),
    "priors": (lambda d: d["law"].update(priors=[1]), "is no complete law file"),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_law_files_edited_by_hand(law: str, name: str) -> None:
    data = json.loads(Path(law).read_text())
    BREAKS[name][0](data)
    Path(law).write_text(json.dumps(data))
    with pytest.raises(BadFile) as error:
        load_fit(law)
    assert BREAKS[name][1] in str(error.value)


def test_law_file_nested_too_deep(law: str) -> None:
    Path(law).write_text("[" * 100_000)
    with pytest.raises(BadFile, match="is no JSON"):
        load_fit(law)


@pytest.mark.parametrize("scale", [1e-300, 1e-9, 1e4, 1e300])
def test_losses_outside_of_what_laws_hold(scale: float) -> None:
    steps = np.arange(100, 900, 100)
    run = Run("far", steps, scale * (1.0 + 100.0 / steps), flat(PEAK, 900))
    with pytest.raises(InvalidProblem, match=r"loss of far: .* 1e-07 to 1000; multiply"):
        fit([run])


def test_rates_up_to_the_limit_are_finite() -> None:
    found = made_fit("fsl")
    row = compare(found, {"far": flat(FAR * found.scale.rate, 100)}).rows[0]
    assert np.isfinite([row.loss, row.lower, row.upper]).all()


def test_predictions_repeat_that_there_was_one_run() -> None:
    found = replace(made_fit("fsl"), warnings=(f"{ONE_RUN}: guessed.", "Another."))
    told = compare(found, {"flat": flat(PEAK, 24_000)}).warnings
    assert told == (f"{ONE_RUN}: guessed.",)


def test_run_shorter_than_the_first_loss() -> None:
    found = made_fit("fsl")
    told = plan(found, 100).warnings
    assert any("100 steps end before the first loss of the runs, at step 2,160" in w for w in told)
    assert len(set(told)) == len(told)


def test_small_losses_keep_their_digits(law: str, capsys: pytest.CaptureFixture[str]) -> None:
    data = json.loads(Path(law).read_text())
    data["parameters"].update(level=0.0, log_bias=-15.0, log_noise=-18.0)
    Path(law).write_text(json.dumps(data))
    assert cli.main(["predict", "--law", law, "cosine", "--horizon", "24000"]) == 0
    shown = capsys.readouterr().out.split("cosine")[1].split()[1]
    assert 0.0 < float(shown) < 1e-5
    assert len(shown.strip("0.")) >= 4


def test_plan_too_long_for_a_table(
    tmp_path: Path, law: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "plan.csv"
    command = ["plan", "--law", law, "--output", str(path), "--json"]
    told = refused(capsys, *command, "--horizon", "1e12")
    assert "--points" in told and not path.exists()
    assert cli.main([*command, "--horizon", "20000", "--points", "50"]) == 0
    assert len(Schedule.load(path).steps) == 50


def test_schedule_without_a_step(
    tmp_path: Path, law: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "start.csv"
    path.write_text(f"step,lr\n0,{PEAK}\n")
    assert "start.csv: no row past step 0" in refused(capsys, "predict", "--law", law, str(path))
