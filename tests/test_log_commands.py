"""Logs on the command line: every way to read one, and what is said of it, in options."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsched.cli import main
from optsched.logs import Run
from optsched.pilot import fitting, load_fit, save_fit
from tests.pilots import PEAK, made_fit
from tests.test_log_cases import CASES, pickled_arguments, trainer_state

FIT = ("fit", "--law", "features")
FITTED = fitting.fit


def unfitted(runs: list[Run], law: Any) -> Any:
    """In place of a fit, as what is asked here is how logs are read: the law where fits start."""
    theta = np.asarray(next(iter(law.starts())), float)
    notes = tuple(map(fitting._note, runs))
    none = np.empty((0, len(theta)))
    return replace(made_fit("features"), law=law, theta=theta, members=none, runs=notes)


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(fitting, "fit", unfitted)


def said(capsys: Any, *argv: str, code: int = 0) -> tuple[str, str]:
    assert main([*argv]) == code
    shown = capsys.readouterr()
    return shown.out, shown.err


@pytest.mark.parametrize(
    "argv, line",
    [
        (("fit", "no_lr.csv"), "give --columns lr=NAME; or the rates beside it, --rates, a file"),
        (("predict", "--law", "law.json", "no_lr.csv"), "train_loss, val_loss; give --columns lr="),
        (("fit", "keras_csvlogger.csv"), "give --steps-per-epoch N, the number of updates in one"),
        (("dashboard", "keras_csvlogger.csv"), "give --steps-per-epoch N, the number of updates"),
        (("fit", "resumed.jsonl", "--repeats", "refuse"), "line 76: step is 1020, expected more"),
        (("fit", "resumed.jsonl", "--unit", "tokens"), "--per-update: got nothing, allowed: how"),
        (("fit", "resumed.jsonl", "--unit", "epochs"), "--steps-per-epoch: got nothing, allowed"),
        (("fit", "no_lr.csv", "--rates", "-1"), "--rates: got -1.0, allowed: a finite number > 0"),
        (("fit", "no_lr.csv", "--rates", "1", "--rates", "2"), "--rates: got '2 of them', allowed"),
        (("fit", "no_lr.csv", "--log-format", "os:path"), "--log-format: got 'os:path', allowed"),
        (("fit", "no_lr.csv", "--log-format", "none"), "--log-format: got 'none', allowed: module"),
        (("fit", "resumed.jsonl", "resumed.jsonl"), "is given twice, expected different runs"),
        (("fit", "resumed.jsonl", "--columns", "lr=rate"), "no column 'rate', given for lr; found"),
    ],
)
def test_errors_speak_of_options(argv: tuple[str, ...], line: str, capsys: Any) -> None:
    save_fit(made_fit("fsl"), "law.json")
    known = [str(CASES / text) if (CASES / text).exists() else text for text in argv]
    out, err = said(capsys, *known, code=2)
    assert out == "" and line in err and err.count("\n") == 1
    assert not re.search(r"=N\b|=\{", err)


def test_rates_epochs_and_conventions(capsys: Any) -> None:
    out, _ = said(
        capsys, *FIT, str(CASES / "no_lr.csv"), "--rates", str(CASES / "own_schedule.json"),
        "--output", "law.json",
    )  # fmt: skip
    assert "rate: that of the schedule in own_schedule.json" in out
    assert load_fit("law.json").peaks[1] == pytest.approx(0.00099983, rel=1e-4)
    logs = [str(CASES / name) for name in ("no_lr.csv", "nanogpt_stdout.log")]
    told, _ = said(capsys, *FIT, *logs, "--rates", "1e-3", "--rates", "2e-3", "--json")
    assert [run["peak"] for run in json.loads(told)["runs"]] == [1e-3, 2e-3]
    keras = str(CASES / "keras_csvlogger.csv")
    out, _ = said(capsys, *FIT, keras, "--steps-per-epoch", "400")
    assert "30 losses, steps 400 to 12000" in out and "counts epochs of 400 updates from 0" in out
    drop = str(CASES / "hf_drop_new.json")
    for options, step in (([], 1000), (["--rate-of", "next"], 1100), (["--rate-of", "last"], 1000)):
        out, _ = said(capsys, *FIT, drop, *options)
        assert f"taken to be at step {step}." in out


def test_rate_of_for_predict_and_plan(capsys: Any) -> None:
    """A drop one step earlier or later is another prediction, and another past."""
    save_fit(made_fit("fsl"), "law.json")
    steps = range(100, 2001, 100)
    rows = [f"{s},{PEAK if s <= 1000 else PEAK / 10}" for s in steps]
    Path("s.csv").write_text("step,lr\n" + "\n".join(rows))
    law = ("--law", "law.json")
    finals = {}
    for kind in ("next", "last"):
        told, _ = said(capsys, "predict", *law, "s.csv", "--rate-of", kind, "--json")
        finals[kind] = json.loads(told)["schedules"][0]["loss"]
        history = ("--history", "s.csv", "--from-step", "1500", "--rate-of", kind)
        said(capsys, "plan", *law, "--horizon", "3000", *history, "--families", "linear",
             "--output", f"{kind}.npz")  # fmt: skip
    assert finals["next"] != finals["last"]
    from optsched.schedules.schedule import Schedule

    assert Schedule.load("next.npz")(1050) == PEAK
    assert Schedule.load("last.npz")(1050) == pytest.approx(PEAK / 10)


def test_folders_of_runs(capsys: Any) -> None:
    for name in ("cosine", "wsd"):
        trainer_state(Path("runs") / name / "checkpoint-400" / "trainer_state.json", 400)
        trainer_state(Path("runs") / name / "checkpoint-80" / "trainer_state.json", 80)
    told, _ = said(capsys, *FIT, "runs/cosine", "runs/wsd", "--json")
    found = json.loads(told)["runs"]
    assert [(run["name"], run["horizon"]) for run in found] == [("cosine", 400), ("wsd", 400)]
    again, _ = said(capsys, *FIT, "runs", "--json")
    assert json.loads(again)["runs"] == found
    trainer_state(Path("more/wsd/checkpoint-400/trainer_state.json"), 400)
    both = ("runs/wsd", "more/wsd")
    told, _ = said(capsys, *FIT, *both, "--json")
    assert [run["name"] for run in json.loads(told)["runs"]] == ["runs/wsd", "more/wsd"]
    told, _ = said(capsys, *FIT, *both, "--seeds", "average", "--json")
    assert len(json.loads(told)["runs"]) == 1
    _, err = said(capsys, *FIT, *both, "--seeds", "refuse", code=2)
    assert "a run named 'wsd' was read from" in err


def test_the_weight_decay_of_a_configuration_is_taken(
    capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If all runs agree on it, and nothing else was asked for."""
    monkeypatch.setattr(fitting, "fit", FITTED)
    for name, decay in (("a", 0.05), ("b", 0.05), ("c", 0.2)):
        trainer_state(Path(name) / "checkpoint-400" / "trainer_state.json", 400)
        arguments = Path(name) / "checkpoint-400" / "training_args.bin"
        pickled_arguments(arguments, weight_decay=decay, optim="adamw_torch")
    cases = (((), 0.05), (("b",), 0.05), (("--weight-decay", "0.1"), 0.1))
    for more, decay in cases:
        told = json.loads(said(capsys, "fit", "a", "--json", *more)[0])
        assert told["law"]["settings"]["weight_decay"] == decay
    assert "weight decay 0.05, as the configurations say" in said(capsys, "fit", "a")[0]
    assert "as the configurations say" not in said(capsys, "fit", "a", "c")[0]


def test_a_late_log_warns_in_options(capsys: Any) -> None:
    steps = np.arange(2176, 5000, 128)
    rows = [f"{s},3e-4,{3 + s**-0.5}" for s in steps.tolist()]
    Path("late.csv").write_text("step,lr,loss\n" + "\n".join(rows))
    out, err = said(capsys, *FIT, "late.csv")
    assert "warning: late: The log starts at step 2176 and shows no ramp" in err
    assert "give its length with --warmup N." in err and "give its length with --warmup N." in out
    told, _ = said(capsys, *FIT, "late.csv", "--json")
    assert "no warm-up is assumed" in json.loads(told)["warnings"][0]
    assert "starts at step" not in said(capsys, *FIT, "late.csv", "--warmup", "2160")[1]
    save_fit(made_fit("fsl"), "law.json")
    _, err = said(
        capsys, "plan", "--law", "law.json", "--horizon", "9000", "--from-step", "4000",
        "--history", "late.csv", "--families", "linear",
    )  # fmt: skip
    assert "give its length with --history-warmup N." in err


OWN = """
from optsched.logs import LogFormat, Table

class Pipes(LogFormat):
    def recognises(self, file):
        return file.path.suffix == ".pipes"

    def read(self, file):
        rows = [line.split("|") for line in file.text.splitlines()]
        table = [(i, dict(zip(("step", "lr", "loss"), row))) for i, row in enumerate(rows, 1)]
        return [Table.of_rows(file.path, "pipes", table)]
"""


def test_a_format_of_the_user(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("my_pipes.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(Path.cwd()))
    Path("a.pipes").write_text("".join(f"{k}|0.1|{3 - k / 100}\n" for k in range(9)))
    out, _ = said(capsys, *FIT, "a.pipes", "--log-format", "my_pipes:Pipes")
    assert "Read as pipes" in out
    sys.modules.pop("my_pipes")


def test_the_dashboard_reads_what_fit_reads(capsys: Any) -> None:
    """Norms by other names, rows of losses and of evaluations, restarts; only what is there."""
    from optsched.diagnostics.log import read_log
    from optsched.plots.dashboard import plot_dashboard

    log = read_log(CASES / "hf_drop_new.json")
    assert log.series("gradient_norm")[1].tolist() == [0.5] * 20
    labels = [ax.get_ylabel() for ax in plot_dashboard(log).axes]
    assert labels == ["loss", r"learning rate $\eta$", "norm of the gradient"]
    out, _ = said(capsys, "dashboard", str(CASES / "hf_drop_new.json"), "--plot", "d.png")
    assert "20 rows to step 2,000" in out and Path("d.png").exists()
    out, _ = said(capsys, "dashboard", str(CASES / "llmc_main.log"))
    assert "gradient growth" in out
    out, _ = said(capsys, "dashboard", str(CASES / "resumed.jsonl"), "--json")
    assert json.loads(out)["rows"] == 150
    keras = ("dashboard", str(CASES / "keras_csvlogger.csv"), "--steps-per-epoch", "400")
    assert "30 rows to step 12,000" in said(capsys, *keras)[0]
    trainer_state(Path("run") / "checkpoint-100" / "trainer_state.json", 100)
    told, _ = said(capsys, "dashboard", "run", "--json")
    assert json.loads(told)["run"] == "run"
