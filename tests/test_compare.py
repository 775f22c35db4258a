"""The optimum beside tuned families: never beaten, nothing swallowed, and the command line."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

import optsched.studies.compare.families as module
from optsched import InvalidProblem, Problem, SolveFailed, solve
from optsched.cli import main
from optsched.plots.compare import (
    plot_best,
    plot_comparison,
    plot_comparison_figure,
    plot_parts,
)
from optsched.studies.compare.families import COMMON, Comparison, compare
from optsched.studies.compare.tuning import tune

SMALL = Problem(2.5, 2.0, 120, features=100)
ARGUMENTS = ["--a", "2.5", "--b", "2", "--horizon", "120", "--features", "100"]
FEW = ["constant", "linear", "cosine"]


@pytest.fixture(autouse=True)
def _no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPTSCHED_NO_CACHE", "1")


@pytest.fixture(scope="module")
def small() -> Comparison:
    return compare(SMALL, [*FEW, "wsd_power"])


def random_cell(rng: np.random.Generator) -> Problem:
    return Problem(
        a=rng.uniform(1.2, 4.0),
        b=rng.uniform(1.1, 4.0),
        horizon=int(10 ** rng.uniform(1.0, 6.0)),
        batch_size=10 ** rng.uniform(0.0, 3.0),
        noise=float(rng.choice([0.0, rng.uniform(0.0, 2.0)])),
        eta_max=rng.uniform(0.05, 1.9),
    )


def assert_not_beaten(problem: Problem, families: list[str]) -> None:
    found = compare(problem, families, replay_steps=5000)
    proof = found.optimum.certificate
    assert not found.failed and len(found.members) == len(families)
    for member in found.members:
        errors = member.replay.error + found.optimum.replay.error
        assert member.excess_loss >= proof.lower_bound * (1.0 - errors)
        assert found.regret(member) >= -1e-6 - errors, problem
    # A second local optimum is rare, and hardly better.
    assert found.gained < 1e-3


@pytest.mark.parametrize("seed", range(4))
def test_no_family_beats_the_optimum(seed: int) -> None:
    assert_not_beaten(random_cell(np.random.default_rng(seed)), ["linear", "wsd_power"])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 150))
def test_no_family_beats_the_optimum_anywhere(seed: int) -> None:
    families = ["linear", "cosine", "polynomial", "wsd_linear", "wsd_power", "one_cycle"]
    assert_not_beaten(random_cell(np.random.default_rng(seed)), families)


@pytest.mark.parametrize(
    ("a", "b", "horizon", "batch_size", "noise", "eta_max"),
    [
        (1.4463839235326001, 2.7151966501893368, 368, 332.27282162339856, 0.0, 1.6657514000220142),
        (3.3520395204745697, 2.670749273746416, 30, 271.96, 0.6424336493274445, 1.33091252915),
        (2.625580911090289, 1.7696043166346676, 113, 5.078357101828629, 0.0, 0.5140175395266557),
    ],
)
def test_an_optimum_that_a_family_beats_is_solved_again_from_there(
    a: float, b: float, horizon: int, batch_size: float, noise: float, eta_max: float
) -> None:
    """Large rates: local optima that differ by up to 6e-4, a step apart in where they anneal."""
    problem = Problem(a, b, horizon, batch_size=batch_size, noise=noise, eta_max=eta_max)
    found = compare(problem, ["wsd_power"])
    assert found.regret(found.members[0]) >= -1e-6
    first = solve(problem).excess_loss
    assert found.optimum.excess_loss <= first * (1.0 + 1e-9)
    if found.restarted is not None:
        assert found.gained == pytest.approx(1.0 - found.optimum.excess_loss / first)
        assert "wsd_power beat the first solve" in found.warnings[0]


def test_comparison(small: Comparison) -> None:
    losses = [member.excess_loss for member in small.members]
    assert losses == sorted(losses) and small.best is small.members[0]
    assert small.members[0].name == "wsd_power" and small.warnings == () and small.restarted is None
    assert [*small.regrets] == [member.name for member in small.members]
    for member in small.members:
        assert small.regret(member) == member.excess_loss / small.optimum.excess_loss - 1.0
        assert member.replay.bias + member.replay.variance == pytest.approx(member.excess_loss)
        alone = tune(SMALL, member.name, free=())
        assert member.excess_loss <= alone.excess_loss * (1.0 + 1e-6)
    told = json.loads(json.dumps(small.summary(), allow_nan=False))
    assert told["tuned"] == "all" and told["best"] == "wsd_power"
    assert told["families"][0]["options"].keys() == {"warmup", "decay", "power", "final"}


def test_the_peak_alone() -> None:
    parts: list[tuple[str, int, int]] = []
    found = compare(SMALL, ["wsd", "linear"], free=(), progress=lambda *part: parts.append(part))
    assert parts == [("optimum", 0, 3), ("wsd_linear", 1, 3), ("linear", 2, 3), ("", 3, 3)]
    assert found.summary()["tuned"] == ["peak"]
    by_name = {member.name: member.options for member in found.members}
    assert by_name["linear"] == {"warmup": 0.0, "final": 0.0}
    some = compare(SMALL, ["wsd", "linear"], free=["decay"])
    by_name = {member.name: member.options for member in some.members}
    assert by_name["wsd_linear"]["decay"] != 0.2 and by_name["linear"] == {
        "warmup": 0.0,
        "final": 0.0,
    }


def test_defaults_are_known_families() -> None:
    from optsched.schedules.families import FAMILIES

    assert set(COMMON) <= set(FAMILIES)


def test_failures_stay_as_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def sometimes(problem: Problem, family: Any, **options: Any) -> Any:
        if family.name == "linear":
            raise InvalidProblem("up", 0, "more")
        found = tune(problem, family, **options)
        if family.name == "cosine":
            return replace(found, replay=replace(found.replay, excess_loss=math.inf))
        return found

    monkeypatch.setattr(module, "tune", sometimes)
    found = compare(SMALL, FEW, free=())
    assert [member.name for member in found.members] == ["constant"]
    assert [one.name for one in found.failed] == ["linear", "cosine"]
    assert "more" in found.warnings[0] and "diverges" in found.warnings[1]
    rows = found.summary()["families"]
    assert [row["schedule"] for row in rows] == ["constant", "linear", "cosine"]
    assert "failed" in rows[2]
    figure = plot_comparison_figure(found)
    assert [text.get_text() for text in figure.axes[1].get_yticklabels()][1:] == FEW[1:]
    nothing = compare(SMALL, ["linear"], free=())
    assert nothing.best is None and nothing.summary()["best"] is None
    plot_comparison_figure(nothing).savefig("/dev/null", format="png")


def test_a_beaten_optimum_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    true = solve(SMALL)
    worse = replace(true, excess_loss=2.0 * true.excess_loss)
    monkeypatch.setattr(module, "solve", lambda *given, **options: worse)
    found = compare(SMALL, ["linear"])
    assert found.regrets["linear"] < -0.3
    assert "linear beats the optimum by" in found.warnings[0]
    monkeypatch.setattr(module, "solve", lambda *given, **o: true if "initial" in o else worse)
    found = compare(SMALL, ["linear"])
    assert found.regrets["linear"] > 0.0 and found.restarted == "linear"
    assert found.gained == pytest.approx(0.5) and "50 % lower" in found.warnings[0]


def test_an_optimum_that_does_not_converge_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(problem: Problem, **options: Any) -> Any:
        raise SolveFailed("too hard")

    monkeypatch.setattr(module, "solve", fails)
    with pytest.raises(SolveFailed):
        compare(SMALL, ["linear"])


def test_an_optimum_that_underflows_has_no_regrets(monkeypatch: pytest.MonkeyPatch) -> None:
    none = replace(solve(SMALL), excess_loss=0.0)
    monkeypatch.setattr(module, "solve", lambda problem, **options: none)
    found = compare(SMALL, ["linear"], free=())
    assert math.isnan(found.regrets["linear"]) and "underflows" in found.warnings[0]
    assert found.summary()["families"][0]["regret"] is None
    plot_comparison_figure(found).savefig("/dev/null", format="png")


def test_other_controls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Held momentum is kept; where more is scheduled, families are of plain SGD."""
    held = SMALL.replace(momentum="heavy-ball", beta=0.5)
    plain = solve(SMALL)
    seen: list[Problem] = []

    def solved(problem: Problem, **options: Any) -> Any:
        return replace(plain, problem=problem)

    def tuned(problem: Problem, family: str, **options: Any) -> Any:
        seen.append(problem)
        return tune(problem, family, **options)

    monkeypatch.setattr(module, "solve", solved)
    monkeypatch.setattr(module, "tune", tuned)
    assert "local" in compare(held, ["linear"], free=()).warnings[0]
    compare(SMALL.replace(controls="eta,beta"), ["linear"], free=())
    assert seen[0] == held and seen[1].rate_only


@pytest.mark.parametrize(
    ("problem", "options", "field"),
    [
        (SMALL.replace(warmup=5), {}, "warmup"),
        (SMALL.replace(eta_min=0.01), {}, "eta_min"),
        (SMALL.replace(max_change=0.01), {}, "max_change"),
        (SMALL, {"families": ["cosin"]}, "families"),
        (SMALL, {"families": []}, "families"),
        (SMALL, {"families": "cosine"}, "families"),
        (SMALL, {"families": ["wsd", "wsd_linear"]}, "families"),
        (SMALL, {"families": ["linear"], "free": ["decay"]}, "free"),
        (SMALL, {"families": ["linear"], "free": "final"}, "free"),
        ("problem", {}, "problem"),
    ],
)
def test_bad_arguments(problem: Any, options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidProblem, match=f"^{field}: got"):
        compare(problem, **options)


def test_plots(small: Comparison) -> None:
    left, middle, right = Figure().subplots(1, 3)
    assert plot_best(left, small, 2) is left
    assert len(left.lines) == 3 and left.get_yscale() == "log"
    assert plot_comparison(middle, small) is middle
    points = [line for line in middle.lines if line.get_marker() == "o"]
    drawn = [float(line.get_xdata()[0]) for line in points]  # type: ignore[index]
    assert drawn == pytest.approx([100.0 * regret for regret in small.regrets.values()])
    assert plot_parts(right, small) is right
    assert len(right.patches) == 2 * len(small.members)


def test_late_annealing_is_drawn_against_the_steps_to_go() -> None:
    found = compare(Problem(1.5, 4.0, 3000), ["wsd"], free=("decay",))
    ax = plot_best(Figure().subplots(), found)
    assert ax.get_xscale() == "log" and ax.get_xlim() == (3000, 1)
    assert "to go" in ax.get_xlabel()


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    table, picture = tmp_path / "table.csv", tmp_path / "picture.png"
    argv = ["compare", *ARGUMENTS, "--families", "linear, wsd", "--output", str(table)]
    assert main([*argv, "--plot", str(picture)]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    for word in ("optimal", "linear", "wsd_linear", "decay", "certified within", "wrote"):
        assert word in shown.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    rows = [*csv.DictReader(table.read_text(encoding="utf-8").splitlines())]
    assert rows[0]["schedule"] == "optimal" and len(rows) == 3
    assert float(rows[1]["regret"]) > 0.0 and rows[1]["failed"] == ""
    before = table.read_bytes()
    assert main(argv) == 2
    assert "exists" in capsys.readouterr().err and table.read_bytes() == before
    assert main([*argv, "--peak-only", "--force"]) == 0
    assert "the peak rate alone" in capsys.readouterr().out and table.read_bytes() != before


def test_json_keys_are_documented(capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["compare", *ARGUMENTS, "--families", "constant", "--peak-only", "--json"]
    assert main(argv) == 0
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    told = json.loads(out)
    page = (Path(__file__).parents[1] / "docs" / "cli.md").read_text(encoding="utf-8")
    part = page.split("\n## optsched compare\n")[1].split("\n## ")[0]
    part = part.split("The JSON object of `compare --json`:")[1]
    whole, row = part.split("An entry of `families`:")

    def keys(text: str) -> set[str]:
        cells = " ".join(line.split("|")[1] for line in text.splitlines() if "|" in line)
        return set(re.findall(r"`(\w+)`", cells))

    assert keys(whole) == set(told)
    assert keys(row) == {*told["families"][0], "failed"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--families", "linear,cosin"], ["families", "cosin", "polynomial"]),
        (["--families", "linear,,cosine"], ["families", "with commas"]),
        (["--families", "linear,linear"], ["families", "once"]),
        (["--warmup", "5"], ["--warmup"]),
        (["--output", "table.npz"], ["table.npz", ".csv"]),
        (["--plot", "nowhere/x.png"], ["nowhere"]),
        (["--a", "1"], ["a:", "greater than 1"]),
    ],
)
def test_bad_options(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: list[str], words: list[str]
) -> None:
    assert main(["compare", *ARGUMENTS, *options]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    for word in words:
        assert word in shown.err
