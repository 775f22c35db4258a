"""``optsched fit``, ``predict`` and ``plan`` in process: files, JSON, one line for bad input."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsched import Schedule
from optsched.cli import main
from optsched.logs import read_rates
from optsched.pilot import LAWS, load_fit, predict, save_fit
from tests.pilots import DATA, PEAK, SCALE, SHAPES, THETAS, TRAIN, made_fit, ramped

TRAINED = [str(DATA / "25M" / f"{name}.csv") for name in TRAIN]
TESTED = str(DATA / "25M" / "wsd_20000_24000.csv")


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def law(tmp_path: Path) -> str:
    """A law file with a small ensemble."""
    theta = np.array(THETAS["fsl"])
    jitter = 0.02 * np.random.default_rng(0).standard_normal((5, 9))
    save_fit(made_fit("fsl", members=theta + jitter), tmp_path / "law.json")
    return "law.json"


def _json(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert main(list(argv)) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    return json.loads(out)


def _rows(path: str) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_from_logs_to_a_plan(capsys: pytest.CaptureFixture[str]) -> None:
    """The whole way on public runs."""
    told = _json(capsys, "fit", *TRAINED, "--warmup", "2160", "--output", "l.json", "--json")
    assert told["law"]["name"] == "fsl-norm" and [run["name"] for run in told["runs"]] == list(
        TRAIN
    )
    assert told.keys() >= {"parameters", "stderr", "exponents", "scale", "misfit", "seed_noise"}
    assert told.keys() >= {"cost", "warnings", "members", "held_out"}
    assert load_fit("l.json").misfit == told["misfit"]

    options = ["--law", "l.json", TESTED, "--warmup", "2160", "--output", "pred.csv", "--json"]
    table = _json(capsys, "predict", *options)
    assert table["level"] == 0.8 and table["warnings"] == []
    (row,) = table["schedules"]
    assert row["name"] == "wsd_20000_24000" and row["lower"] < row["loss"] < row["upper"]
    rows, measured = _rows("pred.csv"), _rows(TESTED)
    assert list(rows[0]) == ["step", "lr", "loss", "lo", "hi"]
    assert [int(r["step"]) for r in rows] == [int(r["step"]) for r in measured]
    loss = np.array([[float(r[key]) for key in ("lo", "loss", "hi")] for r in rows])
    assert np.all(np.diff(loss, axis=1) > 0.0)
    # The rows of the file are edges of pieces, along which the weights change.
    assert loss[-1, 1] == pytest.approx(row["loss"], rel=1e-6)
    truth = np.array([float(r["loss"]) for r in measured])
    assert np.abs(loss[:, 1] - truth).mean() < 3.5e-3
    rates = np.array([[float(one["lr"]) for one in some] for some in (rows, measured)])
    np.testing.assert_allclose(rates[0, :-1], rates[1, :-1], rtol=1e-9)

    best = _json(
        capsys, "plan", "--law", "l.json", "--horizon", "24000", "--warmup", "2160",
        "--output", "plan.npz", "--json",
    )  # fmt: skip
    assert best["loss"] < row["loss"] and best["schedules"][0]["name"] == "plan"
    schedule = Schedule.load("plan.npz")
    assert schedule.horizon == 24_000 and schedule.peak <= PEAK * (1 + 1e-12)
    again = _json(capsys, "predict", "--law", "l.json", "plan.npz", "--json")
    assert again["schedules"][0]["loss"] == pytest.approx(best["loss"], rel=1e-9)


def test_json_of_a_plan(law: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = _json(
        capsys, "plan", "--law", law, "--horizon", "2000", "--families", "cosine,linear",
        "--momentum", "0.9", "--robust", "mean", "--json",
    )  # fmt: skip
    keys = {"loss", "lower", "upper", "level", "lower_bound", "residual", "replay_gap", "robust"}
    assert told.keys() >= keys | {"schedules", "warnings"}
    assert told["lower_bound"] <= told["loss"] and told["robust"] == "mean"
    assert told.keys() >= {"shape", "cost", "peak", "words"}
    assert {row["name"] for row in told["schedules"]} == {"plan", "cosine", "linear"}
    row = {"name", "peak", "loss", "lower", "upper", "difference", "error", "apart", "words"}
    assert all(set(one) == row for one in told["schedules"])
    assert all(isinstance(one["apart"], bool) for one in told["schedules"])


def test_tables_for_people(law: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--law", law, "--horizon", "2000", "--warmup", "100"]) == 0
    out = capsys.readouterr().out
    assert "plan" in out and "wsd" in out and "no schedule with rates up to" in out
    assert main(["predict", "--law", law, "cosine", "linear", "--horizon", "5000"]) == 0
    shown = capsys.readouterr()
    assert "cosine" in shown.out and "80 % interval" in shown.out and shown.err == ""


def test_another_peak_warns_on_stderr(law: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--law", law, "cosine", "--horizon", "5000", "--peak", "1e-3", "--json"]
    assert main(["predict", *options]) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("warning: ") and "Peak rate" in shown.err
    assert len(json.loads(shown.out)["warnings"]) == 1


def test_a_run_is_continued(law: str, capsys: pytest.CaptureFixture[str]) -> None:
    history = ramped(4000, 200, SHAPES["cosine"])
    history.save("history.npz")
    told = _json(
        capsys, "plan", "--law", law, "--horizon", "3000", "--from-step", "1000",
        "--history", "history.npz", "--output", "rest.csv", "--families", "linear", "--json",
    )  # fmt: skip
    assert [row["name"] for row in told["schedules"]] == ["plan", "linear"]
    np.testing.assert_allclose(Schedule.load("rest.csv").eta[:1000], history.eta[:1000], rtol=1e-9)


def _csv(name: str, steps: Any, rates: Any, losses: Any = None) -> str:
    columns = [steps, rates] if losses is None else [steps, rates, losses]
    head = "step,lr" if losses is None else "step,lr,loss"
    lines = [",".join(map(str, row)) for row in zip(*columns, strict=True)]
    Path(name).write_text("\n".join([head, *lines]) + "\n")
    return name


@pytest.mark.parametrize("start", [0, 2160])
def test_warmup_of_a_schedule_to_predict(
    start: int, law: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows from step 2160 have their ramp before them; rows from 0 count from its end."""
    steps = np.arange(start, start + 5001, 100)
    path = _csv("s.csv", steps, np.full(len(steps), PEAK))
    assert main(["predict", "--law", law, path, "--warmup", "2160", "--output", "p.csv"]) == 0
    rows = _rows("p.csv")
    log = read_rates(path, warmup=2160)
    assert [int(row["step"]) for row in rows] == log.steps[log.steps > 0].tolist()
    assert int(rows[-1]["step"]) == 7160  # both are one run: a ramp, then 5,000 steps
    ramp = PEAK * np.minimum(np.arange(7160) / 2160, 1.0)
    np.testing.assert_allclose(log.schedule.eta[:7160], ramp, rtol=1e-9)
    expected = predict(load_fit(law), Schedule.from_array(ramp), [7160]).loss[0]
    assert float(rows[-1]["loss"]) == pytest.approx(expected, abs=2e-5)
    capsys.readouterr()
    assert main(["predict", "--law", law, path, "--warmup", "0", "--output", "q.csv"]) == 0
    assert float(_rows("q.csv")[-1]["loss"]) != pytest.approx(expected, abs=1e-3)


FIT = ("fit", "run.csv", "--output", "out.json")
PREDICT = ("predict", "--law", "law.json", "--output", "out.csv")
PLAN = ("plan", "--law", "law.json", "--output", "out.npz")
BAD = {
    "fit: no runs": ("fit", "--output", "out.json"),
    "fit: unknown law": (*FIT, "--law", "ohm"),
    "fit: no such file": ("fit", "none.csv", "--output", "out.json"),
    "fit: three points": ("fit", "short.csv", "--output", "out.json"),
    "fit: NaN loss": ("fit", "nan.csv", "--output", "out.json"),
    "fit: columns": (*FIT, "--columns", "nonsense"),
    "fit: columns, unknown": (*FIT, "--columns", "loss=cost"),
    "fit: warm-up": (*FIT, "--warmup", "1.5"),
    "fit: unit": (*FIT, "--unit", "miles"),
    "fit: suffix": ("fit", "run.csv", "--output", "out.txt"),
    "fit: output exists": ("fit", "run.csv", "--output", "law.json"),
    "predict: no law": ("predict", "cosine", "--horizon", "100", "--output", "out.csv"),
    "predict: law missing": ("predict", "--law", "no.json", "run.csv", "--output", "out.csv"),
    "predict: law broken": ("predict", "--law", "run.csv", "run.csv", "--output", "out.csv"),
    "predict: no schedule": PREDICT,
    "predict: unknown family": (*PREDICT, "sine", "--horizon", "100"),
    "predict: no horizon": (*PREDICT, "cosine"),
    "predict: horizon 0": (*PREDICT, "cosine", "--horizon", "0"),
    "predict: horizon 1.5": (*PREDICT, "cosine", "--horizon", "1.5"),
    "predict: horizon inf": (*PREDICT, "cosine", "--horizon", "inf"),
    "predict: horizon nan": (*PREDICT, "cosine", "--horizon", "nan"),
    "predict: peak text": (*PREDICT, "cosine", "--horizon", "100", "--peak", "abc"),
    "predict: peak negative": (*PREDICT, "cosine", "--horizon", "100", "--peak", "-1"),
    "predict: peak 0": (*PREDICT, "cosine", "--horizon", "100", "--peak", "0"),
    "predict: level": (*PREDICT, "run.csv", "--level", "2"),
    "predict: warm-up": (*PREDICT, "run.csv", "--warmup", "1.5"),
    "predict: warm-up inf": (*PREDICT, "run.csv", "--warmup", "inf"),
    "predict: warm-up negative": (*PREDICT, "run.csv", "--warmup", "-5"),
    "predict: two of one name": ("predict", "--law", "law.json", "run.csv", "sub/run.csv"),
    "predict: two to one file": (*PREDICT, "run.csv", "sub/run.csv"),
    "predict: output exists": ("predict", "--law", "law.json", "run.csv", "--output", "run.csv"),
    "plan: no law": ("plan", "--horizon", "100", "--output", "out.npz"),
    "plan: no horizon": PLAN,
    "plan: horizon 0": (*PLAN, "--horizon", "0"),
    "plan: horizon 1.5": (*PLAN, "--horizon", "1.5"),
    "plan: peak text": (*PLAN, "--horizon", "100", "--peak", "abc"),
    "plan: peak negative": (*PLAN, "--horizon", "100", "--peak", "-1"),
    "plan: other peak": (*PLAN, "--horizon", "100", "--peak", "1e-3"),
    "plan: level": (*PLAN, "--horizon", "100", "--level", "2"),
    "plan: warm-up": (*PLAN, "--horizon", "100", "--warmup", "1.5"),
    "plan: warm-up too long": (*PLAN, "--horizon", "100", "--warmup", "100"),
    "plan: robust": (*PLAN, "--horizon", "100", "--robust", "very"),
    "plan: shape": (*PLAN, "--horizon", "100", "--shape", "round"),
    "plan: peak of a run under way": (
        *PLAN, "--horizon", "900", "--from-step", "80", "--history", "run.csv", "--peak", "auto",
    ),
    "plan: momentum": (*PLAN, "--horizon", "100", "--momentum", "1.5"),
    "plan: families": (*PLAN, "--horizon", "100", "--families", "sine"),
    "plan: from-step alone": (*PLAN, "--horizon", "100", "--from-step", "10"),
    "plan: history short": (
        *PLAN, "--horizon", "9000", "--from-step", "8000", "--history", "run.csv",
    ),
    "plan: history warm-up": (
        *PLAN, "--horizon", "900", "--from-step", "80", "--history", "run.csv",
        "--history-warmup", "0.5",
    ),
    "plan: multi-power": ("plan", "--law", "mpl.json", "--horizon", "100", "--output", "out.npz"),
    "plan: output exists": ("plan", "--law", "law.json", "--horizon", "9", "--output", "old.npz"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_bad_input_is_one_line_and_writes_nothing(
    kind: str, law: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps = np.arange(100, 3001, 100)
    losses = (4.0 * steps**-0.05).tolist()
    Path("sub").mkdir()
    for name in ("run.csv", "sub/run.csv"):
        _csv(name, steps, [PEAK] * len(steps), losses)
    _csv("short.csv", steps[:3], [PEAK] * 3, losses[:3])
    _csv("nan.csv", steps, [PEAK] * len(steps), [*losses[:-1], "nan"])
    save_fit(made_fit("multi-power"), "mpl.json")
    Path("old.npz").write_bytes(b"mine")
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert main(list(BAD[kind])) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("optsched: ") and shown.err.count("\n") == 1
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_force_overwrites(law: str) -> None:
    Path("out.csv").write_text("old")
    options = ["predict", "--law", law, "cosine", "--horizon", "500", "--output", "out.csv"]
    assert main(options) == 2 and Path("out.csv").read_text() == "old"
    assert main([*options, "--force"]) == 0 and _rows("out.csv")[-1]["step"] == "500"


def test_every_law_can_be_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    steps = np.arange(100, 3001, 100)
    schedule = ramped(3001, 0, SHAPES["drop"])
    for name in ("momentum", "multi-power", "fsl-sgd"):
        loss = LAWS[name]()
        _csv("a.csv", steps, schedule.eta[steps], 3.0 + (steps / SCALE.span) ** -0.3)
        told = _json(capsys, "fit", "a.csv", "--law", name, "--json", "--warmup", "0")
        assert told["law"]["name"] == loss.name and told["warnings"]


def test_predict_draws_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The losses of a log beside its prediction; none of a family, nor of rates alone."""
    from optsched.commands import common

    drawn: list[Any] = []
    monkeypatch.setattr(common, "save_figure", lambda figure, path, force: drawn.append(figure))
    law = tmp_path / "law.json"
    save_fit(made_fit("fsl-norm"), law)
    rates = tmp_path / "rates.csv"
    rates.write_text("step,lr\n" + "\n".join(f"{k},1e-4" for k in range(100, 5000, 100)))
    log = str(DATA / "25M" / "wsdcon_3.csv")
    command = ["predict", "--law", str(law), "--horizon", "5000", "--warmup", "2160", "--plot"]
    assert main([*command, str(tmp_path / "a.png"), log, "cosine", str(rates)]) == 0
    points = [line for line in drawn[0].axes[0].lines if line.get_linestyle() == "None"]
    assert len(points) == 1 and len(points[0].get_xdata()) >= 40
