"""Planning a run that is under way: its losses count, ways to go on, fewest steps to a loss."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsched import InvalidProblem, Schedule
from optsched.cli import main
from optsched.pilot import compare, plan, predict, save_fit
from optsched.pilot.planning.rivals import joined
from optsched.pilot.tracking.under_way import (
    UnderWay,
    choices,
    rewarmed,
    steps_to,
    under_way,
)
from tests.pilots import DATA, WARMUP
from tests.test_track import law, run_of, until

STEP, END = 16_000, 30_000
LOG = str(DATA / "100M" / "constant_24000.csv")


@cache
def now() -> UnderWay:
    return under_way(law(), run_of("constant_24000"), STEP)


def test_what_is_measured_moves_the_forecast() -> None:
    """A run that is lower by 1 % in all its rows stays lower where its rate is held."""
    held = Schedule.from_knots([0, END - STEP - 1], eta=[3e-4, 3e-4])
    schedule = joined(now().history, STEP, held)
    run = run_of("constant_24000")
    moved = under_way(law(), replace(run, loss=0.99 * run.loss), STEP)
    assert moved.step == now().step == STEP
    loss, lower, upper = now().end(schedule)
    less = moved.end(schedule)[0] / loss
    assert 0.985 < less < 0.994
    told = predict(law(), schedule, [END])
    assert upper - lower < told.upper[0] - told.lower[0]
    assert "below" in moved.state.line or moved.state.off_track
    assert under_way(law(), run).step == run.steps[-1]
    with pytest.raises(InvalidProblem, match="from_step"):
        under_way(law(), run, 100)


def test_a_table_has_the_forecasts() -> None:
    found = plan(now().found, END, from_step=STEP, history=now().history)
    linear = joined(now().history, STEP, Schedule.from_knots([0, END - STEP - 1], eta=[3e-4, 0.0]))
    schedules = {"plan": found.schedule, "linear": linear}
    table = compare(now().found, schedules)
    ranked = now().ranked(table, schedules)
    assert [row.name for row in ranked.rows] == [row.name for row in table.rows]
    best = ranked.rows[0]
    assert (best.loss, best.lower, best.upper) == now().end(schedules[best.name])
    for one, other in zip(ranked.rows, table.rows, strict=True):
        assert one.loss - best.loss == pytest.approx(other.difference)
        assert one.lower < one.loss < one.upper
        assert one.loss == pytest.approx(now().end(schedules[one.name])[0], abs=1.5e-3)


def test_ways_to_go_on() -> None:
    ways = {one.name: one for one in choices(now(), END, peak=3e-4)}
    assert [*ways] == ["cool down now", "in 10 %", "at the end"]
    assert [one.since for one in ways.values()] == [STEP, STEP + 1400, END - 1400]
    best = plan(now().found, END, from_step=STEP, history=now().history)
    least = now().end(best.schedule)[0]
    for one in ways.values():
        assert one.lower < one.loss < one.upper and one.loss > least - 1e-4
    assert ways["at the end"].loss > ways["in 10 %"].loss  # too late
    now_schedule = joined(
        now().history, STEP, Schedule.from_knots([0, END - STEP - 1], eta=[3e-4, 0.0])
    )
    assert ways["cool down now"].loss == pytest.approx(now().end(now_schedule)[0], abs=1e-6)


def test_a_finished_run_may_keep_its_last_rate() -> None:
    done = under_way(law(), run_of("cosine_24000"))
    ways = {one.name: one for one in choices(done, 36_000, peak=3e-4)}
    kept = ways["without a higher rate"]
    raised = plan(done.found, 36_000, from_step=done.step, history=done.history, peak=3e-4)
    assert kept.loss > done.end(raised.schedule)[0] + 5e-3
    assert kept.loss <= ways["cool down now"].loss + 1e-4
    dead = replace(done, history=Schedule.from_knots([0, done.step - 1], eta=[3e-4, 0.0]))
    assert choices(dead, 36_000, peak=3e-4) == ()


def test_a_rise_is_a_line() -> None:
    schedule = Schedule.from_knots([0, 99, 100, 199], eta=[0.1, 0.1, 1.0, 0.0])
    warm = rewarmed(schedule, 100, 9)
    k = np.arange(100, 109)
    line = 0.1 + (schedule(k) - 0.1) * (k - 99) / 10.0
    np.testing.assert_allclose(warm(k), line, rtol=1e-12)
    after = np.arange(109, 200)
    np.testing.assert_allclose(warm(after), schedule(after), atol=1e-15)
    np.testing.assert_array_equal(warm(np.arange(100)), schedule(np.arange(100)))
    for bad in ((100, 0), (100, 100), (0, 5)):
        with pytest.raises(InvalidProblem):
            rewarmed(schedule, *bad)


@pytest.mark.parametrize("started", [False, True])
def test_the_fewest_steps_to_a_loss(started: bool) -> None:
    here = now() if started else None
    found = steps_to(law(), 2.93, now=here)
    assert found.lower < found.steps < found.upper < math.inf

    def end(horizon: int) -> tuple[float, float, float]:
        """Of a simple plan."""
        if here is None:
            told = plan(law(), horizon, robust="none", shape="simple")
            return told.loss, told.lower, told.upper
        told = plan(
            here.found, horizon, robust="none", shape="simple", from_step=STEP,
            history=here.history,
        )  # fmt: skip
        return here.end(told.schedule)

    assert end(found.steps)[0] == pytest.approx(2.93, abs=6e-4)
    assert end(round(found.lower))[1] == pytest.approx(2.93, abs=1.5e-3)
    assert end(round(found.upper))[2] == pytest.approx(2.93, abs=1.5e-3)


def test_losses_that_are_out_of_reach() -> None:
    with pytest.raises(InvalidProblem, match="reach no less under the law"):
        steps_to(law(), 2.2)
    with pytest.raises(InvalidProblem, match=r"below .*, which .* steps reach"):
        steps_to(law(), 5.0)


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_fit(law(), "law.json")


def asked(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[dict[str, Any], str]:
    assert main(["plan", "--law", "law.json", "--families", "linear", "--json", *argv]) == 0
    shown = capsys.readouterr()
    return json.loads(shown.out), shown.err


@pytest.mark.usefixtures("inside")
def test_the_command_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    """From the last row if no step is given; the history is used and may be off track."""
    history = ["--history", LOG, "--history-warmup", str(WARMUP)]
    told, err = asked(capsys, "--until-loss", "2.93", *history, "--output", "rest.npz")
    assert err == ""
    assert told["under_way"]["step"] == 23_936 and told["under_way"]["reasons"] == []
    assert told["until_loss"]["lower"] < told["until_loss"]["steps"] < told["until_loss"]["upper"]
    rest = Schedule.load("rest.npz")
    assert rest.horizon == told["until_loss"]["steps"]
    assert told["loss"] == pytest.approx(2.93, abs=1e-3)
    row = next(row for row in told["schedules"] if row["name"] == "plan")
    assert (row["loss"], row["upper"]) == (told["loss"], told["upper"])
    assert told["ways"][0]["name"] == "cool down now"
    assert told["lower_bound"] <= told["loss"] + 1e-5
    page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text(encoding="utf-8")
    for key in ("under_way", "until_loss", "ways", *told["under_way"], *told["ways"][0]):
        assert f"`{key}`" in page, key
    run = run_of("constant_24000")
    lost = replace(run, loss=run.loss * np.where(run.steps > 12_000, 1.02, 1.0))
    rows = [f"{s},0.0003,{x}" for s, x in zip(lost.steps, lost.loss, strict=True)]
    Path("lost.csv").write_text("\n".join(["step,lr,loss", *rows, ""]))
    _, err = asked(
        capsys, "--horizon", "30000", "--from-step", "20000", "--history", "lost.csv",
        "--history-warmup", str(WARMUP),
    )  # fmt: skip
    assert "warning: the history is off track" in err


@pytest.mark.usefixtures("inside")
def test_the_command_warms_again(capsys: pytest.CaptureFixture[str]) -> None:
    finished = str(DATA / "100M" / "cosine_24000.csv")
    history = ["--history", finished, "--history-warmup", str(WARMUP), "--horizon", "36000"]
    sharp, _ = asked(capsys, *history)
    warm, _ = asked(capsys, *history, "--rewarm", "400", "--output", "warm.npz")
    rates = Schedule.load("warm.npz")
    start = warm["under_way"]["step"]
    assert rates(start) < 0.2 * rates(start + 400)
    assert sharp["loss"] < warm["loss"] < sharp["loss"] + 5e-3
    assert warm["ways"][-1]["name"] == "without a higher rate"


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--until-loss", "2.9", "--horizon", "9000"], "--until-loss: got 2.9"),
        (["--until-loss", "2.9", "--peak", "auto"], "--peak: got 'auto'"),
        (["--horizon", "9000", "--rewarm", "10"], "--rewarm: got 10"),
        (["--until-loss", "9"], "--until-loss: got 9"),
        ([], "--horizon: got nothing"),
    ],
)
def test_bad_input(argv: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--law", "law.json", *argv]) == 2
    assert said in capsys.readouterr().err


def test_rows_after_the_step_do_not_count() -> None:
    run = run_of("constant_24000")
    later = replace(run, loss=np.where(run.steps > STEP, 1.1 * run.loss, run.loss))
    assert under_way(law(), later, STEP).end(now().history) == now().end(now().history)
    assert under_way(law(), until(run, STEP), STEP).state.end == now().state.end
