"""Plans in tokens, as numbers for trainers, and as a ramp of the batch: library and commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsched import Schedule
from optsched.cli import main
from optsched.commands.tokens import in_tokens, short, steps_of
from optsched.errors import InvalidProblem
from optsched.pilot import plan, predict, save_fit
from optsched.pilot.planning.numbers import plain_numbers
from optsched.schedules.families import wsd
from tests.pilots import DATA, PEAK, THETAS, made_fit

LOG = str(DATA / "25M" / "wsd_20000_24000.csv")


@pytest.fixture(autouse=True)
def _inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def law(tmp_path: Path) -> str:
    for name in ("fsl-norm", "fsl", "multi-power"):
        theta = np.array(THETAS[name])
        jitter = 0.01 * np.random.default_rng(0).standard_normal((5, len(theta)))
        save_fit(made_fit(name, members=np.abs(theta + jitter) * np.sign(theta)), f"{name}.json")
    return "fsl-norm.json"


def _json(capsys: pytest.CaptureFixture[str], *argv: str) -> dict[str, Any]:
    assert main(list(argv)) == 0
    return json.loads(capsys.readouterr().out)


def _refused(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(list(argv)) == 2
    return capsys.readouterr().err


def test_numbers_find_the_best_decay_of_their_form() -> None:
    found = made_fit("fsl-norm")
    best = plan(found, 40_000, warmup=500)
    told = plain_numbers(found, best.schedule, warmup=500)
    assert (told.warmup, told.warmup + told.hold + told.decay) == (500, 40_000)

    def loss(shape: Any, decay: int, final: float) -> float:
        one = wsd(40_000, told.peak, warmup=500, cooldown=decay, shape=shape, final=final)
        return float(predict(found, one, [40_000]).loss[0])

    mine = loss(told.shape, told.decay, told.final)
    assert told.loss == pytest.approx(mine, abs=1e-6)
    assert told.cost == pytest.approx(mine - best.loss, abs=1e-6)
    assert 0.0 < told.cost < 5e-3
    for shape in ("linear", "cosine", "1-sqrt"):
        for decay in (told.decay - 900, told.decay + 900, 4000, 20_000):
            for final in (0.0, 0.1):
                assert loss(shape, decay, final) > mine - 2e-6


def test_numbers_of_what_they_can_say_lose_nothing() -> None:
    found = made_fit("fsl-norm")
    told = plain_numbers(found, plan(found, 40_000, warmup=500).schedule, warmup=500)
    shape: Any = told.shape
    again = wsd(40_000, told.peak, warmup=500, cooldown=told.decay, shape=shape, final=told.final)
    same = plain_numbers(found, again, warmup=500)
    assert (same.shape, same.cost) == (told.shape, pytest.approx(0.0, abs=1e-6))
    assert same.decay == pytest.approx(told.decay, abs=100)


def test_numbers_of_a_run_that_goes_on() -> None:
    found = made_fit("fsl-norm")
    history = Schedule.from_knots([0, 23_999], eta=[PEAK, PEAK])
    best = plan(found, 30_000, from_step=20_000, history=history)
    told = plain_numbers(found, best.schedule, start=20_000, history=history, floor=1e-5)
    assert told.hold + told.decay == 10_000
    assert told.final in (pytest.approx(1e-5 / told.peak), 0.1)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (1, "1"),
        (999, "999"),
        (2e3, "2K"),
        (999_999, "1M"),
        (52_428_800_000, "52.4B"),
        (3e15, "3000T"),
    ],
)
def test_short_counts(count: float, text: str) -> None:
    assert short(count) == text


def test_words_in_tokens() -> None:
    text = "warm up 2,000 steps, hold 0.0003 to step 72,418, then decay over the last 27.6 %"
    assert in_tokens(text, 1e6) == (
        "warm up 2,000 steps (2B tokens), hold 0.0003 to step 72,418 (72.4B tokens), then decay"
        " over the last 27.6 %"
    )


def test_steps_of_tokens() -> None:
    assert steps_of(None, 5e10, 524_288) == 95_368  # rounded up
    assert steps_of(None, 3e6, 1e6) == 3
    assert steps_of(7.0, None, 3.0) == 7.0
    for arguments, field in (
        ((10, 1e6, 2), "tokens"),
        ((None, 1e6, None), "batch"),
        ((None, 1.0, 2.0), "tokens"),
        ((None, float("nan"), 2.0), "tokens"),
        ((None, float("inf"), 2.0), "tokens"),
        ((None, 10.0, 0.0), "batch"),
        ((5, None, -1.0), "batch"),
    ):
        with pytest.raises(InvalidProblem) as error:
            steps_of(*arguments)
        assert error.value.field == field


def test_plan_in_tokens_with_a_ramp(law: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = _json(
        capsys, "plan", "--law", law, "--tokens", "2e10", "--batch", "524288", "--batch-ramp",
        "--batch-sizes", "524288,1048576,3145728", "--output", "ramp.csv", "--json",
    )  # fmt: skip
    assert told["tokens"] == 38_147 * 524_288
    assert (
        "(14.5B tokens), then decay" in told["words"] and "tokens)" in told["schedules"][1]["words"]
    )
    ramp = told["ramp"]
    assert (ramp["rule"], ramp["horizon_before"]) == ("adaptive", 38_147)
    assert 0.05 < ramp["saved"] == 1 - ramp["horizon"] / 38_147
    assert ramp["samples"] == pytest.approx(told["tokens"], abs=524_288)
    written = Schedule.load("ramp.csv")
    assert written.horizon == ramp["horizon"]
    assert {*written.array("batch_size")} == {524_288, 1_048_576, 3_145_728}
    assert [stage["batch_size"] for stage in ramp["stages"]] == [524_288, 1_048_576, 3_145_728]
    assert told["numbers"]["cost"] > 0 and told["numbers"]["peak"] == told["peak"]


def test_ramp_in_words(law: str, capsys: pytest.CaptureFixture[str]) -> None:
    common = ("plan", "--law", law, "--horizon", "30000", "--families", "linear")
    assert main([*common, "--batch", "512", "--batch-ramp"]) == 0
    out = capsys.readouterr().out
    assert "batch ramp: batch 512 to step" in out and "% fewer) on the same data" in out
    assert "falls by its root" in out and "critical batch" in out and "in numbers: peak" in out
    # The law of rates alone does not say whose updates it is of.
    other = ("plan", "--law", "fsl.json", *common[3:], "--batch", "512", "--batch-ramp")
    assert "adaptive or sgd: the law fsl does not say" in _refused(capsys, *other)
    assert main([*other, "sgd", "--critical-batch", "2048"]) == 0
    out = capsys.readouterr().out
    assert "for plain SGD" in out and "2,048 to the end" in out and "do not where" not in out


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        ("--horizon 9000 --batch-ramp", "--batch: got nothing"),
        ("--horizon 9000 --batch-ramp --batch 2.5", "--batch: got 2.5"),
        ("--horizon 9000 --batch-ramp adamw --batch 2", "--batch-ramp: got 'adamw'"),
        ("--horizon 9000 --batch-sizes 2,4", "--batch-sizes: got '2,4', allowed: nothing without"),
        ("--horizon 9000 --critical-batch 9", "--critical-batch: got 9.0, allowed: nothing with"),
        ("--horizon 9000 --batch-ramp --batch 8 --batch-sizes 2,a", "--batch-sizes: got '2,a'"),
        ("--horizon 9000 --batch-ramp --batch 8 --critical-batch 7", "--critical-batch: got 7.0"),
        ("--horizon 9000 --tokens 1e9 --batch 8", "--tokens: got 1000000000.0"),
        ("--tokens 1e9", "--batch: got nothing, allowed: the tokens of an update"),
        ("--tokens x --batch 3", "--tokens: got 'x'"),
        ("", "--horizon: got nothing"),
    ],
)
def test_plan_refuses(
    law: str, capsys: pytest.CaptureFixture[str], arguments: str, start: str
) -> None:
    assert _refused(capsys, "plan", "--law", law, *arguments.split()).startswith(
        f"optsched: {start}"
    )


def test_a_law_without_plans_has_no_ramp(law: str, capsys: pytest.CaptureFixture[str]) -> None:
    error = _refused(
        capsys, "plan", "--law", "multi-power.json", "--horizon", "9000", "--batch-ramp", "--batch",
        "8",
    )  # fmt: skip
    assert error.startswith("optsched: --law: got 'multi-power', allowed: a law whose loss has a")


def test_predict_and_fit_in_tokens(law: str, capsys: pytest.CaptureFixture[str]) -> None:
    told = _json(
        capsys, "predict", "--law", law, "cosine", LOG, "--warmup", "2160", "--tokens", "2.4e9",
        "--batch", "1e5", "--json",
    )  # fmt: skip
    tokens = {row["name"]: row["tokens"] for row in told["schedules"]}
    assert tokens["cosine"] == 2.4e9
    steps = np.loadtxt(LOG, delimiter=",", skiprows=1)[-1, 0]
    assert tokens["wsd_20000_24000"] == steps * 1e5
    assert main(["predict", "--law", law, "cosine", "--tokens", "2.4e9", "--batch", "1e5"]) == 0
    assert "cosine: 24,000 steps, 2.4B tokens" in capsys.readouterr().out
    assert "--batch: got nothing" in _refused(
        capsys, "predict", "--law", law, "linear", "--tokens", "9"
    )

    rows = np.loadtxt(LOG, delimiter=",", skiprows=1)
    head = Path(LOG).read_text().splitlines()[0].replace("step", "tokens")
    rows[:, 0] *= 1e5
    lines = [head, *(",".join(f"{x:.10g}" for x in row) for row in rows)]
    Path("t.csv").write_text("\n".join(lines) + "\n")
    told = _json(
        capsys, "fit", "t.csv", "--law", "momentum", "--unit", "tokens", "--batch", "1e5",
        "--warmup", "2160", "--json",
    )  # fmt: skip
    assert told["runs"][0]["horizon"] == steps
    assert told["tokens"] == {"t": steps * 1e5}
