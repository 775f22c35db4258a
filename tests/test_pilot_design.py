"""Which pilots to run: the linear model, the choice, and the command."""

from __future__ import annotations

import csv
import itertools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsched import InvalidProblem, Schedule
from optsched.cli import main
from optsched.logs import Run
from optsched.pilot import fit, save_fit
from optsched.pilot.design import design
from optsched.pilot.design.choose import best_set, plans_at
from optsched.pilot.design.information import OFFSET, PARTS, WANDER, Around, linearised
from optsched.pilot.design.prior import after_fit, from_nothing
from optsched.pilot.design.runs import candidates, lengths_of, shaped, usual_grid, usual_three
from optsched.pilot.laws import NormLaw
from optsched.pilot.pieces import cut
from tests.pilots import PEAK, THETAS, made_fit

PEAKS = [1e-4, 3e-4, 1e-3]
LAW = NormLaw(weight_decay=0.1)


@pytest.fixture(scope="module")
def model() -> Around:
    prior = from_nothing(LAW, 1e-3, 5000, 3.0, draws=2)
    return linearised(prior, RUNS, plans_at(40_000, PEAKS, 100))


RUNS = candidates(PEAKS, [2500, 5000], 100, ["constant", "cosine", "drop"])


def test_the_posterior_is_that_of_bayes(model: Around) -> None:
    """Variance by the precision, against conditioning on data that are drawn (linear Gaussian)."""
    some = [0, 4, 9]
    k, rng = 0, np.random.default_rng(0)
    information = model.runs[k, some].sum(0)
    root = np.linalg.cholesky(information + 1e-9 * np.eye(len(information))).T
    covariance = np.linalg.inv(model.prior)
    draws = rng.multivariate_normal(np.zeros(len(covariance)), covariance, 4000, method="eigh")
    data = draws @ root.T + rng.standard_normal(draws.shape)
    gain = covariance @ root.T @ np.linalg.inv(root @ covariance @ root.T + np.eye(len(root)))
    off = (draws - data @ gain.T) @ model.plans[k].T
    expected = float((off**2).sum(1).mean())
    assert model.variance(model.runs[:, some].sum(1))[k] == pytest.approx(expected, rel=0.05)


def test_more_runs_never_leave_more_open(model: Around) -> None:
    nothing = np.zeros_like(model.runs[:, 0])
    before = model.error(nothing)
    for some in itertools.accumulate([[i] for i in (3, 0, 11, 7)]):
        now = model.error(model.runs[:, some].sum(1))
        assert now < before
        before = now


def test_what_is_common_to_all_plans_does_not_matter(model: Around) -> None:
    """The level of the loss is no difference between plans."""
    level = LAW.parameters.index("level")
    weights = np.abs(model.plans[:, :, level])
    assert weights.max() < 1e-9 * np.abs(model.plans).max()


def test_gradients_are_those_of_the_law() -> None:
    """The linear model against the law itself, a small step away."""
    prior = from_nothing(LAW, 1e-3, 5000, 3.0, draws=1)
    plans = plans_at(40_000, PEAKS, 100)
    one = linearised(prior, RUNS[:2], plans)
    theta, size = prior.draws[0], len(prior.law.parameters)
    step = 1e-4 * np.random.default_rng(1).standard_normal(size)
    step[prior.law.parameters.index("decay")] = 0.0
    step[prior.law.parameters.index("level")] = 0.0

    def losses(at: np.ndarray) -> np.ndarray:
        ends = [cut(plan, np.array([40_000]), prior.scale) for plan, _ in plans]
        return np.array([prior.law.curve(at, end)[0] for end in ends])

    here = losses(theta)
    weights = np.exp(-(here - here.min()) / (0.01 * here.min()))
    weights /= weights.sum()
    moved = losses(theta + step) - losses(theta - step)
    expected = (moved - weights @ moved) * np.sqrt(weights) / 2.0
    np.testing.assert_allclose(one.plans[0][:, :size] @ step, expected, rtol=1e-3, atol=1e-9)


def test_a_peak_without_pilots_stays_uncertain(model: Around) -> None:
    """However many runs there are at another one."""
    at = [i for i, run in enumerate(RUNS) if run.peak == PEAKS[0]]
    near = [i for i, run in enumerate(RUNS) if run.peak != PEAKS[0]]
    one, two = (model.error(1e6 * model.runs[:, some].sum(1)) for some in (at, near[:6]))
    assert one > 0.3 * WANDER > two * 0.1
    both = model.error(1e6 * model.runs.sum(1))
    assert both < 0.5 * one


def test_exchange_finds_the_best_set(model: Around) -> None:
    """Every set of the same budget, by force."""
    cost = np.array([run.steps for run in RUNS])
    budget = 12_500
    found = best_set(model, cost, budget)
    assert cost[found].sum() <= budget and len(set(found)) == len(found)

    def score(some: Any) -> float:
        return float(model.error(model.runs[:, list(some)].sum(1)))

    every = [
        some
        for count in range(1, 6)
        for some in itertools.combinations(range(len(RUNS)), count)
        if cost[list(some)].sum() <= budget
    ]
    best = min(map(score, every))
    assert score(found) <= best * 1.02
    assert score(found) < np.median([*map(score, every)]) * 0.9


def test_the_design_is_better_than_the_usual() -> None:
    found = design(20_000, 100_000, peaks=[1e-4, 3e-4, 1e-3, 3e-3])
    assert 18_000 < found.cost <= 20_000
    assert found.error < min(found.three, found.grid) < found.before
    assert len({run.peak for run in found.runs}) >= 3
    assert len({run.name for run in found.runs}) == len(found.runs)
    again = design(20_000, 100_000, peaks=[1e-4, 3e-4, 1e-3, 3e-3])
    assert [run.name for run in again.runs] == [run.name for run in found.runs]
    # A larger budget leaves less open.
    assert design(60_000, 100_000, peaks=[1e-4, 3e-4, 1e-3, 3e-3]).error < found.error


def made_runs() -> list[Run]:
    """Three pilots of one peak by a known law."""
    truth = made_fit("fsl-norm")
    out = []
    for shape in ("constant", "cosine", "drop"):
        one = shaped(shape, 24_000, PEAK, 500)
        steps = np.arange(2000, 24_001, 400)
        loss = truth.law.curve(np.array(THETAS["fsl-norm"]), cut(one.schedule, steps, truth.scale))
        out.append(Run(shape, steps, loss, one.schedule, 500))
    return out


def test_after_the_first_pilots_other_peaks_are_asked_for() -> None:
    found = fit(made_runs(), LAW)
    best = design(30_000, 100_000, fit=found)
    assert best.error < best.before
    assert all(run.warmup == 500 for run in best.runs)
    # At the peak of the runs nearly all is known.
    assert any(abs(math.log(run.peak / PEAK)) > 0.5 for run in best.runs)
    prior = after_fit(found)
    assert prior.peaks.tolist() == [run.peak for run in found.runs]


def test_lengths() -> None:
    assert lengths_of(24_000, 100_000, 100, None) == [3000, 4000, 4800, 6000, 8000, 12_000]
    assert lengths_of(24_000, 5000, 100, None) == [3000, 4000, 4800, 5000]
    assert lengths_of(24_000, 9, 0, [50, 20, 50]) == [20, 50]
    for budget, given in ((100, None), (1000, [2000]), (1000, [90]), (1000, [])):
        with pytest.raises(InvalidProblem):
            lengths_of(budget, 10_000, 100, given)


def test_the_usual_cost_as_much() -> None:
    for runs in (usual_three(30_000, 1e-3, 100), usual_grid(30_000, PEAKS, 100)):
        assert 29_990 < sum(run.steps for run in runs) <= 30_000
    assert len(usual_grid(700, PEAKS, 100)) == 2  # where there are steps for two only


def test_shapes_of_candidates() -> None:
    for run in candidates([1e-3], [1000], 100):
        eta = run.schedule.eta
        assert (len(eta), run.steps) == (1000, 1000)
        assert eta.max() == pytest.approx(1e-3, rel=1e-3) and eta[50] == pytest.approx(
            5e-4, rel=0.02
        )
    last = {run.shape: run.schedule.eta[-1] / 1e-3 for run in candidates([1e-3], [1000], 100)}
    assert last["constant"] == 1.0 and last["drop"] == 0.25
    assert last["cosine"] < 0.01 > last["wsd"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"budget": 0}, "budget"),
        ({"budget": 40}, "budget"),
        ({"horizon": 1}, "horizon"),
        ({"horizon": 15, "warmup": 0}, "horizon"),
        ({"peaks": None}, "peaks"),
        ({"peaks": [1e-3, 1e-4]}, "peaks"),
        ({"peaks": [0.0]}, "peaks"),
        ({"peaks": []}, "peaks"),
        ({"lengths": [30_000]}, "lengths"),
        ({"shapes": ["linear"]}, "shapes"),
        ({"shapes": []}, "shapes"),
        ({"warmup": -1}, "warmup"),
        ({"loss": 0.0}, "loss"),
        ({"most": 0}, "most"),
        ({"fit": made_fit("multi-power", members=np.tile(THETAS["multi-power"], (3, 1)))}, "law"),
        ({"fit": made_fit("fsl")}, "law"),
        ({"fit": made_fit("fsl", members=[THETAS["fsl"]] * 3), "peaks": [1e-3]}, "peaks"),
    ],
)
def test_bad_input(change: dict[str, Any], field: str) -> None:
    given: dict[str, Any] = {"budget": 20_000, "horizon": 100_000, "peaks": [1e-3], "warmup": 100}
    with pytest.raises(InvalidProblem) as error:
        design(**given | change)
    assert error.value.field == field


def test_constants_are_as_the_text_says() -> None:
    assert 0 < OFFSET < WANDER and PARTS == 8


# The command


def test_command_from_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    common = ["pilots", "--budget", "12000", "--horizon", "50000", "--peaks", "2e-4:2e-3:3"]
    assert main([*common, "--output", "next", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["cost"] == sum(run["steps"] for run in told["runs"]) <= 12_000
    assert 0 < told["error"] < told["error_before"]
    with open("next/pilots.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [run["name"] for run in told["runs"]]
    for row in rows:
        schedule = Schedule.load(f"next/{row['file']}")
        assert schedule.horizon == int(row["steps"])
        assert schedule.peak == pytest.approx(float(row["peak"]))
    assert told["files"] == ["next/pilots.csv", *(f"next/{row['file']}" for row in rows)]
    assert main([*common, "--output", "next"]) == 2
    assert capsys.readouterr().err == (
        "optsched: next: is not empty; give another folder, or pass --force\n"
    )
    assert main([*common, "--output", "next", "--force"]) == 0
    out = capsys.readouterr().out
    assert "the priors of the norm law, linearised" in out and "a sweep of the peak" in out


def test_command_after_a_fit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    save_fit(fit(made_runs(), LAW, members=20), "law.json")
    assert main(["pilots", "--budget", "20000", "--horizon", "90000", "--law", "law.json"]) == 0
    assert "by the fit of fsl-norm, linearised" in capsys.readouterr().out
    for options, start in (
        ("--weight-decay 0.1", "--weight-decay: got 0.1, allowed: nothing beside --law"),
        ("--peaks 1e-3,1e-4", "--peaks: got '1e-3,1e-4', allowed: rates that increase"),
        ("--shapes cosine,x", "--shapes: got ['x'], allowed: some of constant"),
        ("--count 0", "--count: got 0.0"),
        ("--lengths 1e9", "--lengths: got 1000000000"),
        ("--output law.json", "law.json: is read by this command"),
    ):
        command = ["pilots", "--budget", "20000", "--horizon", "90000", "--law", "law.json"]
        assert main([*command, *options.split()]) == 2
        assert capsys.readouterr().err.startswith(f"optsched: {start}")
    for options, start in (
        ("--horizon 90000 --peaks 1e-3", "--budget: got nothing"),
        ("--budget 9000 --peaks 1e-3", "--horizon: got nothing"),
        ("--budget 9000 --horizon 9000", "--peaks: got nothing, allowed: the rates in question"),
    ):
        assert main(["pilots", *options.split()]) == 2
        assert capsys.readouterr().err.startswith(f"optsched: {start}")
