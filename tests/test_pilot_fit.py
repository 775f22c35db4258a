"""Fits of laws to runs: made and public ones, held-out runs, law files, predictions."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from optsched import BadFile, InvalidProblem, Schedule
from optsched.logs import Run
from optsched.pilot import LAWS, Fit, compare, fit, held_out, load_fit, predict, save_fit
from optsched.pilot.fitting import SEED_NOISE
from optsched.pilot.heldout import departure
from optsched.pilot.lawfile import summary
from optsched.pilot.laws import DEFAULT
from optsched.pilot.pieces import cut
from tests.pilots import (
    MODELS,
    PEAK,
    SCALE,
    SHAPES,
    TEST,
    THETAS,
    TRAIN,
    chosen,
    made_fit,
    made_law,
    made_run,
    public_runs,
    ramped,
)

PILOTS = (("constant", 24_000), ("cosine", 24_000), ("drop", 16_000), ("wsd", 12_000))
ERROR = {"25M": 3.3e-3, "100M": 2.3e-3}  # of the protocol: what has to be reached
R2 = {"25M": 0.9987, "100M": 0.9995}
MEDIAN = {"25M": 3.9e-3, "100M": 3.0e-3}  # over triples of training runs
SHORT = tuple(sorted(name for name in (*TRAIN, *TEST) if "72000" not in name))
QUICK = (
    ("constant_24000", "cosine_24000", "wsdcon_3"),
    ("constant_24000", "wsd_20000_24000", "wsdcon_18"),
    ("cosine_24000", "wsdcon_9", "wsdld_20000_24000"),
)


@cache
def protocol(model: str) -> Fit:
    return fit(chosen(model, TRAIN))


@cache
def made(name: str) -> Fit:
    return fit(_made_runs(name), LAWS[name](), members=8 if name != "features" else 2)


def _made_runs(name: str, noise: float = 2e-4) -> list[Run]:
    law = made_law(name)
    return [
        made_run(shape, law, THETAS[name], ramped(horizon, 1000, SHAPES[shape]), noise, i)
        for i, (shape, horizon) in enumerate(PILOTS)
    ]


# Made runs


@pytest.mark.parametrize("name", LAWS)
def test_a_fit_recovers_the_law_that_made_the_runs(name: str) -> None:
    found, theta = made(name), np.array(THETAS[name])
    # The rate and the span of the made runs are those of SCALE but for a few steps.
    assert found.scale.rate == SCALE.rate and found.scale.span == pytest.approx(24_000, rel=0.01)
    assert 0.5 * 2e-4 < found.misfit / 3.6 < 1.5 * 2e-4
    assert found.theta[0] == pytest.approx(theta[0], abs=0.02)
    exponent = found.law.parameters[2]
    assert found.parameters[exponent][0] == pytest.approx(theta[2], abs=0.02)
    assert found.theta[4] == pytest.approx(theta[4], abs=0.25)
    for shape, horizon in (("wsd", 48_000), ("linear", 24_000), ("power", 12_000)):
        schedule, at = ramped(horizon, 1000, SHAPES[shape]), np.array([horizon])
        truth = found.law.curve(theta, cut(schedule, at, SCALE))[0]
        told = predict(found, schedule, at)
        # Of the default law three parameters are known from their priors alone.
        room = told.upper[0] - told.loss[0] if name == DEFAULT else 1.5e-3
        assert told.loss[0] == pytest.approx(truth, abs=room)


def test_noise_free_runs_give_the_parameters_but_for_the_pieces() -> None:
    name = "momentum"
    # So few rows that none are averaged.
    runs = [
        replace(run, steps=run.steps[::-1][::3][::-1], loss=run.loss[::-1][::3][::-1])
        for run in _made_runs(name, 0.0)
    ]
    found = fit(runs, LAWS[name](), members=0)
    np.testing.assert_allclose(found.theta, THETAS[name], atol=1e-2)
    assert found.misfit < 1e-4


def test_exponents_of_features() -> None:
    """``s = (a - 1)/b`` and ``q = 1 - 1/b``."""
    found = made_fit("features", members=[THETAS["features"]] * 3)
    b = 1.0 / (1.0 - 0.6)
    assert found.exponents["b"] == (pytest.approx(b), pytest.approx(0.0, abs=1e-12))
    assert found.exponents["a"][0] == pytest.approx(1.0 + 0.45 * b)
    steep = np.array(THETAS["features"])
    steep[5] = 1.2  # no b has such a tail
    assert replace(found, theta=steep).exponents == {}
    assert made_fit("momentum").exponents == {}


def test_the_same_seed_gives_the_same_ensemble() -> None:
    runs = _made_runs("momentum")
    law = LAWS["momentum"]()
    one, same, other = (fit(runs, law, members=4, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.members, same.members)
    np.testing.assert_array_equal(one.theta, other.theta)
    assert np.any(one.members != other.members)


def test_no_members_is_no_uncertainty_but_misfit_and_seeds() -> None:
    found = fit(_made_runs("momentum"), LAWS["momentum"](), members=0)
    assert found.members.shape == (0, 9)
    assert all(error == 0.0 for _, error in found.parameters.values())
    told = predict(found, ramped(24_000, 1000, SHAPES["wsd"]), [24_000], level=0.6826894921)
    half = np.hypot(1.25 * found.misfit, found.seed_noise * told.loss[0])
    assert told.upper[0] - told.loss[0] == pytest.approx(half, rel=1e-6)


def test_one_run_is_fitted_with_a_warning() -> None:
    found = fit(_made_runs("fsl")[1:2], members=20)
    assert any("One run only" in line for line in found.warnings)
    assert any("priors" in line and "clock" in line for line in found.notes)
    assert not any("No run ends" in line for line in found.warnings)
    assert not any("One run only" in line for line in made("fsl").warnings)


def test_runs_without_a_decay_do_not_say_what_one_gains() -> None:
    """At a constant rate all that noise does is to raise the level."""
    runs = _made_runs("fsl")
    steady = [runs[0], replace(runs[0], name="again")]
    found = fit(steady, members=2)
    assert any("No run ends at a rate below its peak" in line for line in found.warnings)
    assert not any("No run ends" in line for line in made("fsl").warnings)


def test_the_noise_between_seeds_is_measured_where_there_are_seeds() -> None:
    runs = _made_runs("momentum")
    assert fit(runs, LAWS["momentum"](), members=0).seed_noise == SEED_NOISE
    twin = replace(runs[1], name="cosine again", loss=runs[1].loss * 1.002)
    found = fit([*runs, twin], LAWS["momentum"](), members=0)
    assert found.seed_noise == pytest.approx(0.002 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize(("steps", "rates"), [(1, 50.0), (1, 1e-3), (4, 1.0)])
def test_units_of_steps_and_rates_do_not_matter(steps: int, rates: float) -> None:
    runs = _made_runs("fsl")
    found = fit(runs, LAWS["fsl"](), members=0)

    def scaled(schedule: Schedule) -> Schedule:
        ends = np.append(schedule.steps, schedule.horizon) * steps
        last = np.unique(np.append(ends[:-1], ends[-1] - 1))
        eta = np.interp(last / steps, schedule.steps, schedule.controls["eta"]) * rates
        return Schedule.from_knots(last, eta=eta, horizon=int(ends[-1]))

    moved = [replace(r, steps=r.steps * steps, schedule=scaled(r.schedule)) for r in runs]
    other = fit(moved, LAWS["fsl"](), members=0)
    schedule = ramped(30_000, 1000, SHAPES["wsd"])
    one = predict(found, schedule, [10_000, 30_000]).loss
    two = predict(other, scaled(schedule), [10_000 * steps, 30_000 * steps]).loss
    # A ramp of 1,000 steps and one of 4,000 have other first steps: not the same rates.
    np.testing.assert_allclose(two, one, rtol=1e-6 if steps == 1 else 2e-5)


def test_a_loss_before_the_first_update_is_left_out() -> None:
    runs = _made_runs("momentum")
    first = runs[0]
    early = replace(
        first, steps=np.append(0, first.steps), loss=np.append(10.0, first.loss), name="early"
    )
    with_it = fit([early, *runs[1:]], LAWS["momentum"](), members=0)
    without = fit(runs, LAWS["momentum"](), members=0)
    np.testing.assert_allclose(with_it.theta, without.theta, atol=1e-9)


def test_what_is_no_run_is_refused() -> None:
    with pytest.raises(InvalidProblem, match="runs"):
        fit([])
    with pytest.raises(InvalidProblem, match="runs"):
        fit(["a.csv"])  # type: ignore[list-item]
    with pytest.raises(InvalidProblem, match="members"):
        fit(_made_runs("momentum"), members=-1)


# Public runs


def _rank(finals: Sequence[float], truth: Sequence[float]) -> float:
    found: Any = spearmanr(finals, truth)
    return float(found.statistic)


@pytest.mark.parametrize("model", MODELS)
def test_the_protocol_on_public_runs(model: str) -> None:
    found = protocol(model)
    errors, r2, finals, truth = [], [], [], []
    for run in chosen(model, TEST):
        off = predict(found, run.schedule, run.steps).loss - run.loss
        errors.append(np.abs(off).mean())
        r2.append(1.0 - np.sum(off**2) / np.sum((run.loss - run.loss.mean()) ** 2))
        finals.append(off[-1] + run.loss[-1])
        truth.append(run.loss[-1])
    assert np.mean(errors) <= ERROR[model]
    assert np.mean(r2) >= R2[model]
    assert _rank(finals, truth) >= 0.9


def _triple(model: str, names: Sequence[str], members: int) -> tuple[float, float, list[bool]]:
    """Held-out error behind the shared prefix, rank correlation, finals within the interval."""
    found = fit(chosen(model, names), members=members)
    errors, finals, truth, inside = [], [], [], []
    for name, run in public_runs(model).items():
        if name in names:
            continue
        told = predict(found, run.schedule, run.steps)
        leaves = 8_000 if name.startswith("wsdcon") else 20_000 if name.startswith("wsd") else 0
        errors.append(np.abs(told.loss - run.loss)[run.steps >= leaves].mean())
        finals.append(told.loss[-1])
        truth.append(run.loss[-1])
        inside.append(bool(told.lower[-1] <= run.loss[-1] <= told.upper[-1]))
    return float(np.mean(errors)), _rank(finals, truth), inside


def _judge(triples: Sequence[tuple[str, ...]], members: int) -> None:
    covered: list[bool] = []
    for model in MODELS:
        rows = [_triple(model, names, members) for names in triples]
        assert np.median([error for error, _, _ in rows]) <= MEDIAN[model]
        assert np.median([rank for _, rank, _ in rows]) >= 0.9
        covered += [one for _, _, inside in rows for one in inside]
    assert 0.65 <= np.mean(covered) <= 0.95


def test_a_few_triples_of_public_runs() -> None:
    _judge(QUICK, members=12)


@pytest.mark.slow
def test_all_triples_of_public_runs() -> None:
    _judge(list(combinations(SHORT, 3)), members=40)


# Held-out runs


def _knots(*pairs: tuple[int, float], horizon: int = 1000) -> Schedule:
    steps, eta = zip(*pairs, strict=True)
    return Schedule.from_knots(steps, eta=eta, horizon=horizon)


FLAT = _knots((0, 1.0), (999, 1.0))


@pytest.mark.parametrize(
    ("other", "step"),
    [
        (_knots((0, 1.0), (599, 1.0), (600, 0.5), (999, 0.5)), 600),
        (_knots((0, 0.5), (999, 0.5)), 0),
        (_knots((0, 1.0), (999, 1.0)), 1000),
        (_knots((0, 1.0), (399, 1.0), horizon=400), 400),
        (_knots((0, 1.0), (500, 1.0), (999, 0.0)), 501),
        (_knots((0, 1.0), (599, 1.0), (600, 0.9995), (999, 0.9995)), 1000),
    ],
)
def test_where_a_schedule_leaves_another(other: Schedule, step: int) -> None:
    assert departure(FLAT, [other]) == step
    early = _knots((0, 0.1), (999, 0.1))
    assert departure(FLAT, [early, other, early]) == step  # it is new where it has left all


def test_nothing_to_leave() -> None:
    assert departure(FLAT, []) == 0


def test_held_out_runs_leave_with_their_seeds() -> None:
    runs = _made_runs("momentum")
    twin = replace(runs[1], name="cosine again")
    (found,) = held_out([*runs, twin], {"momentum": LAWS["momentum"]()})
    assert set(found.runs) == {"constant", "cosine", "drop", "wsd", "cosine again"}
    assert found.error < 1e-3
    with pytest.raises(InvalidProblem, match="two or more runs"):
        held_out([runs[1], twin], {"momentum": LAWS["momentum"]()})


# Law files


def test_a_law_file_gives_the_fit_back(tmp_path: Path) -> None:
    for name in LAWS:
        found, path = made(name), tmp_path / f"{name}.json"
        save_fit(found, path)
        back = load_fit(path)
        assert summary(back) == summary(found)
        np.testing.assert_array_equal(back.theta, found.theta)
        np.testing.assert_array_equal(back.members, found.members)
        schedule = ramped(5000, 100, SHAPES["wsd"])
        np.testing.assert_array_equal(predict(back, schedule).loss, predict(found, schedule).loss)
    assert {path.name for path in tmp_path.iterdir()} == {f"{name}.json" for name in LAWS}


def test_a_law_file_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "law.json"
    path.write_text("mine")
    with pytest.raises(BadFile, match=r"law\.json"):
        save_fit(made("momentum"), path)
    assert path.read_text() == "mine"
    save_fit(made("momentum"), path, overwrite=True)
    assert load_fit(path).law.name == "momentum"


def _without(*keys: str) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        for key in keys[:-1]:
            data = data[key]
        del data[keys[-1]]

    return change


def _with(value: Any, *keys: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: Any) -> None:
        for key in keys[:-1]:
            data = data[key]
        data[keys[-1]] = value

    return change


BROKEN: dict[str, Callable[[dict[str, Any]], None]] = {
    "other format": _with("something", "format"),
    "other version": _with(1, "version"),
    "no law": _without("law"),
    "no priors": _without("law", "priors"),
    "no members": _without("members"),
    "no parameter": _without("parameters", "s"),
    "no scale": _without("scale", "span"),
    "no misfit": _without("misfit"),
    "unknown law": _with("ohm", "law", "name"),
    "unknown prior": _with([1.0, 1.0], "law", "priors", "luck"),
    "prior of one number": _with([1.0], "law", "priors", "s"),
    "parameter NaN": _with(float("nan"), "parameters", "s"),
    "member infinite": _with(float("inf"), "members", 0, 1),
    "member too short": _with([1.0, 2.0], "members", 0),
    "members flat": _with([1.0] * 7, "members"),
    "members short": _with([[1.0, 2.0, 3.0]] * 3, "members"),
    "parameter text": _with("much", "parameters", "level"),
    "scale zero": _with(0.0, "scale", "rate"),
    "scale NaN": _with(float("nan"), "scale", "rate"),
    "misfit NaN": _with(float("nan"), "misfit"),
    "misfit negative": _with(-1.0, "misfit"),
    "noise infinite": _with(float("inf"), "seed_noise"),
    "no runs": _with([], "runs"),
    "runs of another kind": _with([{"name": "x"}], "runs"),
    "run with peak text": _with("high", "runs", 0, "peak"),
    "run with peak NaN": _with(float("nan"), "runs", 0, "peak"),
    "run with horizon text": _with("long", "runs", 0, "horizon"),
    "parameters a list": _with([1.0], "parameters"),
    "law a text": _with("fsl", "law"),
    "warnings a number": _with(3, "warnings"),
    "prior NaN": _with([float("nan"), 0.1], "law", "priors", "s"),
    "prior spread negative": _with([0.5, -0.1], "law", "priors", "s"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_broken_law_file_is_named(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "broken.json"
    save_fit(made("fsl"), path)
    data = json.loads(path.read_text())
    BROKEN[kind](data)
    path.write_text(json.dumps(data))
    with pytest.raises(BadFile, match=r"broken\.json") as error:
        load_fit(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[1, 2]", "null", '"law"', "step,lr\n0,1\n", "\x00\xff"])
def test_what_is_no_law_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "law.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(BadFile, match=r"law\.json") as error:
        load_fit(path)
    assert "\n" not in str(error.value)


def test_no_file_and_a_truncated_one(tmp_path: Path) -> None:
    with pytest.raises(BadFile, match=r"none\.json"):
        load_fit(tmp_path / "none.json")
    with pytest.raises(BadFile, match=tmp_path.name):
        load_fit(tmp_path)
    path = tmp_path / "law.json"
    save_fit(made("fsl"), path)
    whole = path.read_text()
    for share in (0.1, 0.5, 0.99):
        path.write_text(whole[: int(share * len(whole))])
        with pytest.raises(BadFile, match=r"law\.json"):
            load_fit(path)


# Predictions


@given(st.floats(0.05, 0.98), st.floats(0.05, 0.98))
def test_intervals_widen_with_their_level(one: float, other: float) -> None:
    found, schedule = made("fsl"), ramped(8000, 500, SHAPES["cosine"])
    low, high = (predict(found, schedule, [100, 8000], level=x) for x in sorted((one, other)))
    assert np.all(low.lower >= high.lower) and np.all(low.upper <= high.upper)
    np.testing.assert_array_equal(low.loss, high.loss)
    assert np.all((high.lower < high.loss) & (high.loss < high.upper))


def test_a_prediction_has_the_rates_of_its_schedule() -> None:
    found, schedule = made("fsl"), ramped(30_000, 100, SHAPES["wsd"])
    told = predict(found, schedule)
    # From the first step that the runs have a loss for: the law is not made for those before.
    assert told.steps[0] == round(found.scale.first * found.scale.span)
    assert told.steps[-1] == 30_000 and len(told.steps) == 200 and not told.warnings
    np.testing.assert_allclose(told.rate[:-1], schedule.eta[told.steps[:-1]])
    assert told.rate[-1] == schedule.eta[-1]


def test_equal_schedules_cannot_be_told_apart_and_a_far_better_one_can() -> None:
    found = protocol("25M")
    flat, good = ramped(24_000, 2160, SHAPES["constant"]), ramped(24_000, 2160, SHAPES["wsd"])
    table = compare(
        found, {"flat": flat, "good": good, "again": ramped(24_000, 2160, SHAPES["wsd"])}
    )
    rows = {row.name: row for row in table.rows}
    assert [row.name for row in table.rows][-1] == "flat"
    assert rows["flat"].apart and rows["flat"].difference > 0.03
    assert not rows["good"].apart and not rows["again"].apart
    assert rows["good"].loss == rows["again"].loss
    noise = np.sqrt(2.0) * found.seed_noise * rows["good"].loss
    assert max(rows["good"].error, rows["again"].error) == pytest.approx(noise)
    assert table.warnings == ()


def test_steps_past_the_horizon_are_refused() -> None:
    schedule = ramped(1000, 100, SHAPES["cosine"])
    for steps in ([1001], [0, 10], [10, 10], []):
        with pytest.raises(InvalidProblem, match="steps"):
            predict(made("fsl"), schedule, steps)
    for level in (0.0, 1.0, 2.0, True, float("nan"), "80"):
        with pytest.raises(InvalidProblem, match="level"):
            predict(made("fsl"), schedule, level=level)  # type: ignore[arg-type]
    with pytest.raises(InvalidProblem, match="schedules"):
        compare(made("fsl"), {})


def test_another_peak_or_a_far_horizon_warns() -> None:
    found = made("fsl")
    fine = predict(found, ramped(24_000, 1000, SHAPES["wsd"]))
    assert fine.warnings == ()
    for factor in (0.5, 2.0):
        told = predict(found, ramped(24_000, 1000, SHAPES["wsd"], peak=factor * PEAK))
        assert len(told.warnings) == 1 and "Peak rate" in told.warnings[0]
    table = compare(found, {"far": ramped(250_000, 1000, SHAPES["wsd"])})
    assert table.warnings[0].startswith("far: 250,000 steps")
