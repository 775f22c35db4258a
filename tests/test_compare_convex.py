"""The bound of convex optimisation as a judge, the rules that follow from it, and the commands."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from optsched import InvalidProblem, Schedule
from optsched.cli import main
from optsched.plots.compare import plot_bounds_figure
from optsched.plots.convex import plot_along, plot_cooldowns
from optsched.rules.convex.bound import convex_bound, least_bound
from optsched.schedules.families import FAMILIES, linear, wsd
from optsched.studies.compare.convex import compare_convex, tune_convex
from optsched.studies.compare.families import COMMON


def test_families_are_tuned_and_in_order() -> None:
    parts: list[tuple[str, int, int]] = []
    found = compare_convex(
        400, ["cosine", "linear", "wsd"], progress=lambda *part: parts.append(part)
    )
    assert parts == [("cosine", 0, 3), ("linear", 1, 3), ("wsd_linear", 2, 3), ("", 3, 3)]
    assert found.least == least_bound(400) and found.warnings == () and found.free is None
    values = [member.bound.value for member in found.members]
    assert values == sorted(values) and found.best is found.members[0]
    for member in (found.optimum, *found.members):
        assert member.bound == convex_bound(member.schedule)
        assert member.bound.scale == pytest.approx(1.0, rel=1e-9)
        assert found.regret(member) >= -1e-12
    assert abs(found.regret(found.optimum)) < 1e-12
    for member in found.members:
        alone = tune_convex(400, member.name, free=())
        assert member.bound.value <= alone.bound.value * (1.0 + 1e-12)
        assert alone.options == FAMILIES[member.name].defaults
        assert alone.peak == pytest.approx(
            convex_bound(FAMILIES[member.name](400, 1.0)).scale, rel=1e-12
        )
    # The best decay of WSD is the whole run: linear decay again.
    wide = next(member for member in found.members if member.name == "wsd_linear")
    assert wide.options["decay"] > 0.99 and wide.options["warmup"] == 0.0
    told = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert told["judge"] == "convex" and told["tuned"] == "all"
    assert told["optimum"]["scaled_bound"] == pytest.approx(2.0, abs=0.01)


@pytest.mark.parametrize("horizon", [1, 3, 10**6 + 1, 10**12])
def test_any_horizon(horizon: int) -> None:
    found = compare_convex(horizon, free=())
    assert {member.name for member in found.members} == set(COMMON) and not found.failed
    assert all(found.regret(member) >= -1e-9 for member in found.members)
    assert abs(found.regret(found.optimum)) < 1e-5
    assert found.summary()["tuned"] == ["peak"]


def test_the_order_holds_for_any_distance_and_norm() -> None:
    found = compare_convex(300, ["linear", "cosine", "wsd", "constant"], free=())
    bounds = [
        convex_bound(FAMILIES[member.name](300, 1.0), distance=7.0, norms=0.01).best
        for member in found.members
    ]
    assert bounds == sorted(bounds)


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({"horizon": 0}, "horizon"),
        ({"horizon": 10**16}, "horizon"),
        ({"families": ["no"]}, "families"),
        ({"families": ["linear", "linear"]}, "families"),
        ({"families": []}, "families"),
        ({"families": "linear"}, "families"),
        ({"families": ["linear"], "free": ["decay"]}, "free"),
    ],
)
def test_bad_comparisons(arguments: dict, field: str) -> None:
    with pytest.raises(InvalidProblem) as caught:
        compare_convex(**{"horizon": 10, **arguments})
    assert caught.value.field == field


def test_compare_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, figure = tmp_path / "t.csv", tmp_path / "f.png"
    argv = ["compare", "--judge", "convex", "--horizon", "1000", "--peak-only"]
    argv += ["--families", "linear,cosine,wsd,constant"]
    assert main([*argv, "--output", str(table), "--plot", str(figure)]) == 0
    shown = capsys.readouterr().out
    assert "no schedule is below 0.06332" in shown and f"wrote {figure}" in shown
    with table.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [r["schedule"] for r in rows] == [
        "optimal",
        "linear",
        "cosine",
        "wsd_linear",
        "constant",
    ]
    for row in rows[1:]:
        bound = convex_bound(FAMILIES[row["schedule"]](1000, float(row["peak"])))
        assert float(row["bound"]) == pytest.approx(bound.value, rel=1e-12)
        assert float(row["regret"]) == pytest.approx(bound.value / least_bound(1000) - 1.0)
    assert figure.stat().st_size > 10_000
    assert main([*argv, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["families"][0]["schedule"] == told["best"] == "linear"
    assert main([*argv, "--output", str(table)]) == 2
    assert "exists" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "field"),
    [
        (["--judge", "loss", "--horizon", "10"], "--judge"),
        (["--judge", "convex"], "--horizon"),
        (["--judge", "convex", "--horizon", "1.5"], "--horizon"),
        (["--judge", "convex", "--horizon", "10", "--a", "2"], "--a"),
        (["--judge", "convex", "--horizon", "10", "--control", "beta"], "--control"),
        (["--judge", "convex", "--horizon", "10", "--batch", "2"], "--batch"),
        (["--judge", "convex", "--horizon", "10", "--families", "x"], "--families"),
    ],
)
def test_bad_compare_commands(
    capsys: pytest.CaptureFixture[str], argv: list[str], field: str
) -> None:
    assert main(["compare", *argv]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"optsched: {field}: ") and shown.err.count("\n") == 1


def test_extend_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.csv"
    argv = ["rules", "extend", "--cooldown", "0.2", "--from-horizon", "50000", "--to-horizon"]
    assert main([*argv, "100000", "--peak", "1e-3", "--output", str(plan), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["factor"] == pytest.approx(0.53, abs=0.01)
    assert told["second_peak"] == pytest.approx(1e-3 * told["factor"])
    schedule = Schedule.load(plan)
    assert schedule(39_999) == 1e-3 and schedule(40_000) == pytest.approx(told["second_peak"])
    assert schedule.horizon == 100_000 and schedule(90_000) < 0.51 * told["second_peak"]
    assert main([*argv, "200000"]) == 0
    assert "0.3744" in capsys.readouterr().out
    assert main([*argv, "100000"]) == 0
    assert "needs a checkpoint of step" in capsys.readouterr().out
    short = ["rules", "extend", "--cooldown", "0.1", "--from-horizon", "10", "--to-horizon", "11"]
    assert main([*short, "--output", str(tmp_path / "none.csv")]) == 1
    assert "no factor" in capsys.readouterr().err and not (tmp_path / "none.csv").exists()


def test_convex_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, figure = tmp_path / "s.csv", tmp_path / "f.svg"
    wsd(500, 0.1).save(file)
    argv = ["rules", "convex", str(file), "--distance", "3", "--norm", "0.5"]
    assert main([*argv, "--json", "--plot", str(figure)]) == 0
    told = json.loads(capsys.readouterr().out)
    bound = convex_bound(wsd(500, 0.1), distance=3.0, norms=0.5)
    assert told["bound"] == pytest.approx(bound.value)
    assert told["best_peak"] == pytest.approx(0.1 * bound.scale)
    assert told["regret"] == pytest.approx(bound.best / least_bound(500) / 1.5 - 1.0)
    assert figure.stat().st_size > 5_000
    assert main(argv) == 0
    assert "best factor" in capsys.readouterr().out


def test_cooldown_command(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["rules", "cooldown", "--horizon", "4000", "--from-cooldown", "0.2"]
    assert main([*argv, "--to-cooldown", "1", "--peak", "0.1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["factor"] == pytest.approx(1.95, abs=0.01)
    assert told["peak"] == pytest.approx(0.1 * told["factor"])
    assert main(argv) == 2
    assert "--to-cooldown" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "field"),
    [
        (["extend", "--from-horizon", "100"], "--to-horizon"),
        (["extend", "--from-horizon", "100", "--to-horizon", "50"], "--to-horizon"),
        (["extend", "--from-horizon", "100", "--to-horizon", "x"], "--to-horizon"),
        (
            ["extend", "--from-horizon", "100", "--to-horizon", "200", "--cooldown", "-1"],
            "--cooldown",
        ),
        (
            ["cooldown", "--horizon", "9", "--from-cooldown", "2", "--to-cooldown", "1"],
            "--from-cooldown",
        ),
        (["convex", "missing.csv"], "missing.csv"),
        (["convex", "missing.csv", "--norm", "0"], "--norm"),
        (["convex", "missing.csv", "--distance", "-1"], "--distance"),
    ],
)
def test_bad_rules(capsys: pytest.CaptureFixture[str], argv: list[str], field: str) -> None:
    assert main(["rules", *argv]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"optsched: {field}: ") and shown.err.count("\n") == 1


def test_figures() -> None:
    figure = Figure()
    left, right = figure.subplots(1, 2)
    best = linear(200, convex_bound(linear(200, 1.0)).scale)
    plot_along(left, [("linear", best)], points=50)
    x, y = (np.asarray(part) for part in left.lines[0].get_data())
    assert x[-1] == 200 and y[-1] == pytest.approx(convex_bound(best).value)
    assert "D G" in left.get_ylabel()
    plot_cooldowns(right, 400, shares=(0.2, 1.0))
    values = np.asarray(right.lines[0].get_ydata(), float)
    assert values == pytest.approx([0.51, 1.0], abs=0.02)
    panels = plot_bounds_figure(compare_convex(100, ["linear", "cosine"], free=())).axes
    assert "bound above the least" in panels[1].get_xlabel() and len(panels) == 2
    assert math.isclose(panels[0].get_xlim()[1], 100)
