"""Compute-optimal features and steps: exponents, the search, samples that run out, bad input."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.special import zeta

from optsched import InvalidProblem, Problem, SolveFailed, TabulatedSpectrum, solve
from optsched.cli import main
from optsched.plots.compute import plot_compute, plot_iso_flop, plot_split
from optsched.studies.compute import (
    ComputeOptimal,
    compute_optimal,
    compute_theory,
    data_limit,
    iso_flop,
)
from optsched.studies.compute_split import Split, Study, best_split
from optsched.studies.scaling import SCHEDULES, ScalingPoint

EASY, HARD = Problem(2, 1.5, 10), Problem(1.5, 2, 10)
OPTIONS = {"gap": 1e3, "replay_steps": 1000}
STEPS_LOSS = 0.4  # exponent of the toy schedule


def toy(problem: Problem, options: Mapping[str, Any], shorter: object) -> ScalingPoint:
    """A schedule whose loss is a power of T: the best split is known."""
    fails = options.get("fails", lambda problem: False)
    if fails(problem):
        raise SolveFailed("no such luck")
    return ScalingPoint(problem.horizon, problem.horizon**-STEPS_LOSS, 0.1, True, "toy", 0.0)


@pytest.fixture(autouse=True)
def _toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULES, "toy", toy)


def toy_loss(budget: float, features: int) -> float:
    return float((budget // features) ** -STEPS_LOSS + zeta(2.0, features + 1.0))


@pytest.fixture(scope="module")
def easy() -> ComputeOptimal:
    return compute_optimal(EASY, [1e6, 1e8, 1e10, 1e12])


@pytest.fixture(scope="module")
def hard() -> ComputeOptimal:
    return compute_optimal(HARD, [1e6, 1e8, 1e10, 1e12])


@pytest.mark.parametrize(("name", "loss"), [("easy", 1 / 3), ("hard", 1 / 6)])
def test_exponents_of_the_paper(name: str, loss: float, request: pytest.FixtureRequest) -> None:
    """Figure 4 of arXiv 2602.04774: sigma = 0.5, m = 5."""
    study = request.getfixturevalue(name)
    assert study.theory["loss"] == pytest.approx(loss)
    assert study.exponent("loss") == pytest.approx(loss, abs=0.01)
    assert study.exponent("features") == pytest.approx(1 / 3, abs=0.01)
    assert study.exponent("horizon") == pytest.approx(2 / 3, abs=0.01)
    last = study.local_slopes("loss")[-1]
    assert abs(last - loss) <= abs(study.local_slopes("loss")[0] - loss)
    assert last == pytest.approx(loss, abs=0.003)
    assert abs(study.exponent("loss") - loss) < 2 * study.fits["loss"].stderr
    assert study.warnings == ()


def test_peak_rate(easy: ComputeOptimal, hard: ComputeOptimal) -> None:
    """It falls in the easy phase only; the bound of 1 is felt up to 10^10."""
    assert easy.theory["peak_eta"] == pytest.approx(1 / 6)
    assert easy.local_slopes("peak_eta")[-1] == pytest.approx(1 / 6, abs=0.03)
    assert hard.exponent("peak_eta") == hard.theory["peak_eta"] == 0.0


@pytest.mark.slow
@pytest.mark.parametrize(("a", "b"), [(3, 2), (2, 3), (3, 1.5), (2, 1.5), (1.5, 2)])
def test_exponents_over_ten_decades(a: float, b: float) -> None:
    study = compute_optimal(Problem(a, b, 10), (10.0 ** np.arange(8, 19, 2)).tolist())
    for name in ("loss", "features", "horizon", "peak_eta"):
        assert study.local_slopes(name)[-1] == pytest.approx(study.theory[name], abs=0.005)


def test_theory() -> None:
    for problem, loss in ((EASY, 1 / 3), (HARD, 1 / 6)):
        known, a, b = compute_theory(problem), problem.a, problem.b
        assert a is not None and b is not None
        assert known["loss"] == pytest.approx(loss)
        assert known["features"] == pytest.approx(1 / (max(a, b) + 1))
        assert known["features"] + known["horizon"] == pytest.approx(1.0)
        constant = compute_theory(problem, "constant")
        assert constant["loss"] == pytest.approx((a - 1) / (a + b))
        assert constant["features"] == pytest.approx(1 / (a + b))
        assert constant["peak_eta"] == pytest.approx((a - 1) / (a + b))
        for name in ("linear", "cosine"):
            assert constant["loss"] < compute_theory(problem, name)["loss"] <= known["loss"] + 1e-9
    assert compute_theory(EASY)["peak_eta"] == pytest.approx((2 - 1.5) / 3)
    for problem, name in (
        (EASY, "unheard of"),
        (EASY.replace(noise=0.0), "optimal"),
        (EASY.replace(controls="eta,beta"), "optimal"),
    ):
        assert compute_theory(problem, name) == {}


@pytest.mark.parametrize("problem", [EASY, HARD], ids=["easy", "hard"])
def test_no_split_of_a_small_budget_is_better(problem: Problem) -> None:
    study = Study(problem, "optimal", None, True, OPTIONS)
    split = best_split(study, 100.0, 3.0)
    losses = {run.features: run.excess_loss for run in split.runs}
    for n in range(3, 13):
        losses.setdefault(n, study.run(n, 100 // n).excess_loss)
    assert split.best.features == min(losses, key=lambda n: losses[n])
    assert split.best.excess_loss == min(losses.values())
    good = [n for n, loss in sorted(losses.items()) if loss <= 1.01 * split.best.excess_loss]
    assert good[0] - 1 < split.features_low <= good[0]
    assert good[-1] <= split.features_high < good[-1] + 1


@given(st.floats(2.0, 1e5), st.floats(0.01, 100.0))
def test_the_search_finds_the_best_of_a_known_loss(budget: float, off: float) -> None:
    """Wherever it starts; the floor of T makes the loss a sawtooth, of a height N/C."""
    SCHEDULES["toy"] = toy
    study = Study(EASY, "toy", None, True, {})
    split = best_split(study, budget, off * budget ** (STEPS_LOSS / (1 + STEPS_LOSS)))
    losses = [toy_loss(budget, n) for n in range(1, 1 + min(int(budget), 500))]
    tooth = split.best.features / budget
    assert min(losses) <= split.best.excess_loss <= min(losses) * (1.0 + tooth + 1e-4)
    assert split.features_low <= split.best.features <= split.features_high


def test_exponents_of_a_known_loss() -> None:
    study = compute_optimal(EASY, (10.0 ** np.arange(8, 21, 3)).tolist(), schedule="toy")
    assert study.exponent("loss") == pytest.approx(STEPS_LOSS / (1 + STEPS_LOSS), abs=1e-3)
    assert study.exponent("features") == pytest.approx(STEPS_LOSS / (1 + STEPS_LOSS), abs=5e-3)
    assert study.exponent("horizon") == pytest.approx(1 / (1 + STEPS_LOSS), abs=5e-3)
    for split in study.splits:
        for n in (split.features_low, split.features_high):
            worse = toy_loss(split.budget, round(n)) / split.best.excess_loss
            assert worse == pytest.approx(1.01, abs=2e-3)


def test_a_run_is_the_problem_with_the_tail_as_noise() -> None:
    run = Study(EASY, "optimal", None, True, OPTIONS).run(12, 200)
    tail = sum(k**-2.0 for k in range(13, 10**6)) + 1e-6
    assert run.tail == pytest.approx(tail, rel=1e-6)
    problem = Problem(2, 1.5, 200, features=12, noise=math.sqrt(0.25 + tail))
    assert run.learnt == pytest.approx(solve(problem).excess_loss, rel=1e-6)
    assert run.excess_loss == run.learnt + run.tail
    quiet = Study(EASY, "optimal", None, False, OPTIONS).run(12, 200)
    assert quiet.learnt < run.learnt and quiet.tail == run.tail


def test_more_compute_is_better(easy: ComputeOptimal, hard: ComputeOptimal) -> None:
    for study in (easy, hard):
        losses = [split.best.excess_loss for split in study.splits]
        assert all(later < 0.7 * sooner for sooner, later in pairwise(losses))


@pytest.mark.slow
@given(st.floats(1.2, 4.0), st.floats(1.2, 4.0), st.floats(0.0, 2.0))
def test_more_compute_is_better_widely(a: float, b: float, noise: float) -> None:
    falls(Problem(a, b, 10, noise=noise), [300, 900, 2700, 1e5, 1e9])


def falls(problem: Problem, budgets: list[float]) -> None:
    losses = [split.best.excess_loss for split in compute_optimal(problem, budgets).splits]
    assert losses == sorted(losses, reverse=True) and len(set(losses)) == len(losses)


@pytest.mark.slow
def test_samples_run_out_in_the_hard_phase() -> None:
    """Then the features grow as C/T, and the loss saturates at that of endless features."""
    study = compute_optimal(HARD, [3e5, 1e6, 1e7, 1e8], samples=5e4)
    early, late = study.splits[:2], study.splits[2:]
    assert not any(split.data_limited for split in early)
    for split in late:
        assert split.data_limited and split.best.horizon == 10**4
        assert split.best.features == split.budget / 10**4
    limit = study.limit
    assert limit is not None and limit.best.features == math.inf
    assert early[1].budget < limit.crossover < late[0].budget
    assert late[1].best.excess_loss == pytest.approx(limit.best.excess_loss, rel=1e-4)
    assert late[1].best.excess_loss >= limit.best.excess_loss * (1 - 1e-5)
    assert limit.crossover_features < limit.enough_features < 1000
    assert len(study.fits["loss"].horizons) == 2
    assert sum("samples bound" in warning for warning in study.warnings) == 2


def test_the_crossover_is_where_the_samples_begin_to_bind() -> None:
    limit = data_limit(EASY, 5e5, schedule="toy")
    budgets = [0.9 * limit.crossover, 1.1 * limit.crossover]
    study = compute_optimal(EASY, budgets, schedule="toy", samples=5e5)
    assert [split.data_limited for split in study.splits] == [False, True]
    assert limit.best.features == math.inf


def test_more_features_than_the_samples_can_teach_do_harm_in_the_easy_phase() -> None:
    limit = data_limit(EASY, 5e4)
    study = Study(EASY, "optimal", None, True, OPTIONS)
    assert 4000 < limit.best.features < 6000
    for features in (limit.best.features / 4, math.inf):
        run = study.run(features if features == math.inf else round(features), 10**4)
        assert run.excess_loss > limit.best.excess_loss * (1 + 2e-5)
    assert limit.enough_features < limit.best.features / 4


def test_a_failed_solve_is_named_and_does_not_count() -> None:
    whole = compute_optimal(EASY, [1e6, 1e7], schedule="toy")
    best = whole.splits[0].best.features

    def fails(problem: Problem) -> bool:
        return problem.features in (best, round(2 * best))

    study = compute_optimal(EASY, [1e6, 1e7], schedule="toy", solve_options={"fails": fails})
    assert study.splits[0].best.features != best
    assert study.splits[0].best.excess_loss < 1.001 * whole.splits[0].best.excess_loss
    assert f"N = {best:g}" in study.warnings[0] and "no such luck" in study.warnings[0]
    assert study.exponent("loss") == pytest.approx(whole.exponent("loss"), abs=1e-3)


def test_a_budget_without_a_solve_is_not_fitted() -> None:
    options = {"fails": lambda problem: True}
    seen: list[Split] = []
    study = compute_optimal(
        EASY, [100, 1000], schedule="toy", solve_options=options, progress=seen.append
    )
    assert list(study.splits) == seen
    assert study.fits == {} and math.isnan(study.exponent("loss"))
    assert study.local_slopes("loss").size == 0
    assert "not fitted" in study.warnings[-1]
    told = json.loads(json.dumps(study.summary(), allow_nan=False))
    assert told["splits"][0]["excess_loss"] is None
    limit = data_limit(EASY, 500, schedule="toy", solve_options=options)
    assert math.isnan(limit.crossover) and not limit.best.converged


def test_a_budget_too_small_to_split() -> None:
    study = compute_optimal(EASY, [1, 2, 1e4, 1e5], schedule="toy")
    assert [split.bracketed for split in study.splits] == [False, False, True, True]
    assert "C = 1: no runs on both sides" in study.warnings[0]
    assert len(study.fits["loss"].horizons) == 2


def test_summary(easy: ComputeOptimal) -> None:
    told = json.loads(json.dumps(easy.summary(), allow_nan=False))
    assert told["exponents"]["features"] == easy.exponent("features")
    assert told["splits"][0]["features"] == easy.splits[0].best.features
    assert told["phase"] == "easy" and told["limit"] is None
    limit = data_limit(EASY.replace(warmup=2), 500, schedule="toy")
    json.dumps(limit.summary(), allow_nan=False)
    assert limit.horizon == 100


def test_iso_flop() -> None:
    curve = iso_flop(EASY, 1e5, schedule="toy")
    assert len(curve.features) == 17
    assert curve.losses.min() >= curve.split.best.excess_loss
    assert curve.losses[0] > curve.losses.min() < curve.losses[-1]
    np.testing.assert_array_equal(curve.horizons, 1e5 // curve.features)
    few = iso_flop(EASY, 1e5, [40, 10], schedule="toy")
    assert few.features.tolist() == [10.0, 40.0]
    json.dumps(few.summary(), allow_nan=False)


@pytest.mark.parametrize(
    ("field", "make"),
    [
        ("spectrum", lambda: compute_optimal(_tabulated(), [10, 100])),
        ("controls", lambda: compute_optimal(EASY.replace(controls="batch"), [10, 100])),
        ("schedule", lambda: compute_optimal(EASY, [10, 100], schedule="cubist")),
        ("samples", lambda: compute_optimal(EASY, [10, 100], samples=4)),
        ("samples", lambda: data_limit(EASY, math.inf)),
        ("budget", lambda: compute_optimal(EASY, [0.5, 100])),
        ("budget", lambda: iso_flop(EASY, "much")),  # type: ignore[arg-type]
        ("budget", lambda: compute_optimal(EASY, [10, 1e31])),
        ("budgets", lambda: compute_optimal(EASY, [100, 10])),
        ("budgets", lambda: compute_optimal(EASY, [])),
        ("features", lambda: iso_flop(EASY, 100, [200], schedule="toy")),
        ("features", lambda: iso_flop(EASY, 100, [1.5], schedule="toy")),  # type: ignore[list-item]
        ("points", lambda: iso_flop(EASY, 100, points=0)),
        ("span", lambda: iso_flop(EASY, 100, span=0.5)),
    ],
)
def test_bad_input(field: str, make: Any) -> None:
    with pytest.raises(InvalidProblem) as caught:
        make()
    assert caught.value.field == field


def _tabulated() -> Problem:
    return Problem(spectrum=TabulatedSpectrum([1.0, 0.5], [1.0, 1.0]), horizon=10)  # type: ignore[arg-type]


def test_plots() -> None:
    study = compute_optimal(EASY, [1e4, 1e5, 1e6, 1e7], schedule="toy", samples=2e5)
    left, middle, right = Figure().subplots(1, 3)
    assert plot_compute(left, study) is left
    assert plot_split(middle, study) is middle
    assert plot_iso_flop(right, [iso_flop(EASY, 1e4, schedule="toy")]) is right
    labels = [str(line.get_label()) for line in left.lines]
    assert labels[0] == "toy schedule" and "not fitted" in labels and "samples run out" in labels
    for ax in (left, middle, right):
        assert ax.get_xscale() == ax.get_yscale() == "log"
        assert ax.get_xlabel() and ax.get_ylabel()


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPTSCHED_NO_CACHE", "1")
    # The real schedules' commands are those of the docs.
    monkeypatch.setattr("optsched.commands.options.family_names", lambda: ["toy"])
    arguments = ["compute", "--a", "2", "--b", "1.5", "--budgets", "1e3", "--schedule", "toy"]
    picture = tmp_path / "compute.png"
    assert main([*arguments, "--plot", str(picture), "--json"]) == 0
    (split,) = json.loads(capsys.readouterr().out)["splits"]
    best = compute_optimal(Problem(2.0, 1.5, 1), [1e3], schedule="toy").splits[0].best
    assert split["features"] == best.features
    assert picture.stat().st_size > 5000
    assert main([*arguments, "--samples", "500"]) == 0
    assert "100" in capsys.readouterr().out  # steps: 500 samples in batches of 5
    for bad, message in (
        (["--budgets", "1e9:1e3:3"], "budgets: got '1e9:1e3:3'"),
        (["--budgets", "0.1"], "budgets: got '0.1'"),
        (["--schedule", "spiral"], "schedule: got 'spiral'"),
        (["--plot", str(picture)], str(picture)),
    ):
        assert main([*arguments, *bad]) == 2
        assert message in capsys.readouterr().err
