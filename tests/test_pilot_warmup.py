"""Warm-up from the logs to the plan, and logs with a row before the first update."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from optsched.cli import main
from optsched.errors import InvalidProblem
from optsched.logs import read_runs
from optsched.pilot import LAWS, fit, held_out, load_fit, plan, save_fit
from optsched.schedules.schedule import Schedule
from tests.pilots import PEAK, SHAPES, THETAS, made_fit, made_run, ramped


def logs(folder: Path, shapes: tuple[str, ...], warmup: int, first: int) -> list[Path]:
    """Logs of made runs of 3,000 steps, with a row every 50 from ``first`` on."""
    theta = np.array(THETAS["fsl"])
    paths = []
    for i, shape in enumerate(shapes):
        schedule = ramped(3001, warmup, SHAPES[shape])
        steps = np.arange(first, 3001, 50)
        made = made_run(shape, LAWS["fsl"](), theta, schedule, 0.0, i)
        loss = np.interp(steps, made.steps, made.loss) + 0.5 / (1.0 + steps / 50.0)
        rows = [
            f"{s},{schedule(s)!r},{x!r}" for s, x in zip(steps.tolist(), loss.tolist(), strict=True)
        ]
        paths.append(folder / f"{shape}.csv")
        paths[-1].write_text("step,lr,loss\n" + "\n".join(rows))
    return paths


def test_a_fit_keeps_the_warmup_and_the_plan_takes_it(tmp_path: Path) -> None:
    runs = read_runs(logs(tmp_path, ("cosine", "drop"), 300, 50))
    found = fit(runs, members=0)
    assert found.warmup == max(run.warmup for run in runs) and 295 <= found.warmup <= 305
    save_fit(found, tmp_path / "law.json")
    again = load_fit(tmp_path / "law.json")
    assert again.warmup == found.warmup and again.runs == found.runs
    data = json.loads((tmp_path / "law.json").read_text())
    data["runs"][0]["warmup"] = -3
    (tmp_path / "bad.json").write_text(json.dumps(data))
    with pytest.raises(Exception, match="warm-up of a run"):
        load_fit(tmp_path / "bad.json")


def with_warmup(warmup: int):
    """A made fit to a run with such a warm-up."""
    from dataclasses import replace

    found = made_fit("fsl")
    return replace(found, runs=(replace(found.runs[0], warmup=warmup),))


def test_plan_and_predict_ramp_as_the_pilots_did(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = with_warmup(200)
    assert plan(found, 2000).schedule == plan(found, 2000, warmup=200).schedule
    first = plan(found, 2000).schedule
    assert first(0) < 0.01 * first.peak and first(200) > 0.5 * PEAK
    assert plan(found, 2000, warmup=0).schedule(0) > 0.5 * PEAK
    with pytest.raises(InvalidProblem, match="warmup: got 200"):
        plan(found, 150)
    history = ramped(1000, 200, SHAPES["constant"])
    assert plan(found, 2000, from_step=900, history=history).schedule.horizon == 2000

    save_fit(found, "law.json")
    options = ["plan", "--law", "law.json", "--horizon", "2000", "--families", "linear"]
    assert main([*options, "--output", "a.npz"]) == 0
    assert "warm-up of 200 steps, as the pilot runs had" in capsys.readouterr().out
    assert main([*options, "--warmup", "0", "--output", "b.npz"]) == 0
    assert "as the pilot runs had" not in capsys.readouterr().out
    assert Schedule.load("a.npz")(0) < 0.01 * PEAK < Schedule.load("b.npz")(0)

    losses = []
    for warmup in ([], ["--warmup", "200"], ["--warmup", "0"]):
        asked = ["predict", "--law", "law.json", "linear", "--horizon", "2000", "--json", *warmup]
        assert main(asked) == 0
        losses.append(json.loads(capsys.readouterr().out)["schedules"][0]["loss"])
    assert losses[0] == losses[1] != losses[2]


def test_rows_before_the_first_update(tmp_path: Path) -> None:
    """A loss at step 0 is no reason to fail, whatever is asked of the runs."""
    runs = read_runs(logs(tmp_path, ("cosine", "drop", "wsd"), 0, 0), warmup=0)
    assert runs[0].steps[0] == 0
    (told,) = held_out(runs, {"fsl": LAWS["fsl"]()})
    assert len(told.errors) == 3 and np.isfinite(told.errors).all()
