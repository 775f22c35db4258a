"""What a fit leaves out, how it is judged, what its intervals are, and laws of one's own."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.stats import norm

from optsched import BadPart, InvalidProblem, Schedule, cli
from optsched.arrays import Floats
from optsched.logs import Run
from optsched.pilot import Fit, compare, fit, held_out, load_fit, plan, predict, save_fit
from optsched.pilot.fitting import early_rows
from optsched.pilot.judge import UNDESCRIBED, judged
from optsched.pilot.laws import LAWS, Law, Prior, made_law
from optsched.pilot.pieces import Pieces
from tests.pilots import PEAK, SHAPES, THETAS, TRAIN, chosen, made_fit, ramped

# Rows of early training


def run_of(loss: Any, steps: Any, *, warmup: int = 0, name: str = "run") -> Run:
    steps = np.asarray(steps)
    schedule = ramped(int(steps[-1]) + 1, warmup, SHAPES["cosine"])
    return Run(name, steps, np.asarray(loss, float), schedule, warmup)


@pytest.mark.parametrize(
    ("ends", "warmup", "first"),
    [((1000, 5000), 0, 80), ((1000, 5000), 79, 80), ((1000, 5000), 300, 300), ((5000,), 0, 400)],
)
def test_which_rows_are_early(ends: tuple[int, ...], warmup: int, first: int) -> None:
    runs = [run_of(np.ones(50), np.linspace(1, n, 50).astype(int), warmup=warmup) for n in ends]
    assert early_rows(runs) == first


def test_early_rows_are_left_out_and_said_to_be() -> None:
    runs = chosen("25M", TRAIN)
    plain = fit(runs, members=0)
    assert not any("left out" in note for note in plain.notes)  # the logs begin after the warm-up
    early = np.array([500, 1000, 1500])
    worse = [
        replace(run, steps=np.append(early, run.steps), loss=np.append([9.0, 8.0, 7.0], run.loss))
        for run in runs
    ]
    found = fit(worse, members=0)
    np.testing.assert_array_equal(found.theta, plain.theta)
    assert "rows before step 2,160 left out (9 of 446): early training" in found.notes


def test_four_rows_are_kept_of_a_short_run() -> None:
    """A run that ends within the warm-up of another still counts."""
    short = run_of([5.0, 4.8, 4.7, 4.6, 4.5], [10, 20, 30, 40, 50], name="short")
    steps = np.arange(100, 5001, 100)
    long = run_of(3.0 + 40.0 / steps, steps, warmup=500, name="long")
    found = fit([short, long], members=0)
    assert "rows before step 500 left out (5 of 55): early training" in found.notes
    assert found.scale.first == pytest.approx(20 / 5000)


def test_a_row_before_the_first_update_breaks_nothing() -> None:
    runs = [
        replace(run, steps=np.append(0, run.steps), loss=np.append(11.0, run.loss))
        for run in chosen("25M", ["cosine_24000", "wsdcon_9"])
    ]
    table = held_out(runs, {"momentum": LAWS["momentum"]()})
    assert table[0].error < 0.1


# Judgement


def memorised(seed: int = 0) -> Run:
    """Fine-tuning that learns its data by heart."""
    steps = np.arange(25, 5001, 25)
    loss = 0.3 * np.exp(-7.0 * steps / 5000) + 2e-4
    noise = np.exp(0.05 * np.random.default_rng(seed).standard_normal(len(steps)))
    return run_of(loss * noise, steps, warmup=500, name="by heart")


def test_no_law_describes_what_is_known_by_heart(tmp_path: Path) -> None:
    found = fit([memorised()])
    assert found.failed.startswith(UNDESCRIBED) and found.warnings[0] == found.failed
    save_fit(found, tmp_path / "law.json")
    back, schedule = load_fit(tmp_path / "law.json"), ramped(3000, 0, SHAPES["cosine"])
    for call in (
        lambda: predict(back, schedule),
        lambda: compare(back, {"cosine": schedule}),
        lambda: plan(back, 3000),
    ):
        with pytest.raises(InvalidProblem, match="No law describes these losses: they are off by"):
            call()


def test_two_parameters_at_their_ends_fail_a_bad_fit() -> None:
    run = run_of(3.0 + np.arange(1, 41.0) ** -0.5, np.arange(100, 4001, 100))
    bad, good = np.full(40, 0.05), np.full(40, 1e-3)
    assert "(q, s at the end of their range)" in judged([run], bad, ["q", "s"]).failed
    assert judged([run], bad, ["q"]).failed == judged([run], good, ["q", "s"]).failed == ""
    assert "off by 12 % (rms), where 10 %" in judged([run], np.full(40, 0.12)).failed


def test_a_fit_that_describes_its_runs_is_not_blamed() -> None:
    for model in ("25M", "100M"):
        found = fit(chosen(model, TRAIN))
        assert found.failed == "" and found.warnings == ()


def test_noise_alone_does_not_fail_a_fit() -> None:
    """Losses of single batches, 8 % off, about a law: their means are what counts."""
    rng, steps = np.random.default_rng(0), np.arange(10, 20_001, 10)
    runs = [
        run_of((3.0 + 30.0 * steps**-0.5) * np.exp(0.08 * rng.standard_normal(len(steps))), steps)
    ]
    found = fit(runs)
    assert found.failed == "" and not any("misses" in line for line in found.warnings)


def _verdict(residuals: list[float], loss: np.ndarray) -> tuple[str, ...]:
    run = run_of(loss, np.arange(100, 100 * len(loss) + 1, 100))
    return judged([run], np.array(residuals)).warnings


def test_what_a_judge_says() -> None:
    steps = np.arange(1, 41.0)
    falling = 3.0 + 2.0 * steps**-0.5
    bent = falling * (1.0 - 0.05 * (steps > 20))  # what no power of the steps has
    small = [1e-3] * 40
    assert _verdict(small, bent) == ()
    (line,) = _verdict(small, falling)
    assert "no better than a power of the steps alone" in line
    (line,) = _verdict(small, np.full(40, 3.0))
    assert "no better than a constant" in line
    assert any("off by 5.0 % of the loss" in w for w in _verdict([0.05] * 40, bent))
    missed = [*([1e-3] * 39), -0.03]
    assert any("misses the last loss of run" in w and "-3.0 %" in w for w in _verdict(missed, bent))
    assert not any("misses" in w for w in _verdict([*([1e-3] * 39), -0.009], bent))


# Intervals


def spread_fit(law: str = "fsl", size: float = 0.01) -> Fit:
    """A fit whose members differ in their level alone, by ``size`` (rms)."""
    level = np.array([-1.0, 1.0, -1.0, 1.0]) * size * math.sqrt(3.0 / 4.0)
    members = np.array(THETAS[law]) + np.outer(level, np.eye(len(THETAS[law]))[0])
    return made_fit(law, members=members)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.95])
def test_the_width_of_every_interval(level: float) -> None:
    """Parameters, 1.25 misfits and the noise of a seed, in predictions, comparisons and plans."""
    found, schedule = spread_fit(), ramped(8000, 500, SHAPES["cosine"])
    z = norm.ppf(0.5 + 0.5 * level)

    def half(loss: float) -> float:
        return float(z * math.sqrt(0.01**2 + (1.25 * 2e-3) ** 2 + (4e-4 * loss) ** 2))

    told = predict(found, schedule, [4000, 8000], level=level)
    np.testing.assert_allclose(told.upper - told.loss, [half(x) for x in told.loss], rtol=1e-9)
    lower = [x * math.exp(-half(x) / x) for x in told.loss]  # never below 0
    np.testing.assert_allclose(told.lower, lower, rtol=1e-12)
    row = compare(found, {"cosine": schedule}, level=level).rows[0]
    assert (row.upper - row.loss) == pytest.approx(half(row.loss), rel=1e-9)
    assert row.lower == pytest.approx(row.loss * math.exp(-half(row.loss) / row.loss), rel=1e-12)
    best = plan(found, 500, level=level)
    assert best.upper - best.loss == pytest.approx(half(best.loss), rel=1e-9)
    assert best.loss - best.lower == pytest.approx(half(best.loss), rel=5e-3)


def test_the_error_of_a_difference() -> None:
    """Members that differ in their level cancel; half a misfit and two seeds stay."""
    found = spread_fit()
    table = compare(
        found, {name: ramped(8000, 500, SHAPES[name]) for name in ("wsd", "cosine", "constant")}
    )
    for row in table.rows[1:]:
        error = math.sqrt((0.5 * 2e-3) ** 2 + 2.0 * (4e-4 * row.loss) ** 2)
        assert row.error == pytest.approx(error, rel=1e-6)
        assert row.apart == (row.difference > norm.ppf(0.9) * error)


def test_what_other_peaks_add() -> None:
    """.15 % of the loss for a factor of e between or below those of the runs, .3 % above."""
    law = made_law("fsl-norm", weight_decay=0.1)
    runs = tuple(replace(made_fit("fsl").runs[0], peak=peak) for peak in (PEAK, 3.0 * PEAK))
    found = replace(spread_fit("fsl-norm"), law=law, runs=runs)

    def extra(peak: float) -> float:
        told = predict(found, ramped(8000, 500, SHAPES["cosine"], peak=peak), [8000], level=0.8)
        half, loss = float(told.upper[0] - told.loss[0]), float(told.loss[0])
        known = 0.01**2 + (1.25 * 2e-3) ** 2 + (4e-4 * loss) ** 2
        return math.sqrt(max((half / norm.ppf(0.9)) ** 2 - known, 0.0)) / loss

    assert extra(PEAK) == pytest.approx(0.0, abs=1e-6) == extra(3.0 * PEAK)
    assert extra(1.5 * PEAK) == pytest.approx(1.5e-3 * math.log(1.5), rel=1e-5)
    assert extra(2.5 * PEAK) == pytest.approx(1.5e-3 * math.log(3.0 / 2.5), rel=1e-5)
    assert extra(0.5 * PEAK) == pytest.approx(1.5e-3 * math.log(2.0), rel=1e-5)
    assert extra(6.0 * PEAK) == pytest.approx(3e-3 * math.log(2.0), rel=1e-5)


def test_pilots_far_apart_say_little_of_what_is_between() -> None:
    """1.5 % of the loss more, and a warning that does not stop a plan; not next to either."""
    law = made_law("fsl-norm", weight_decay=0.1)

    def told(high: float, peak: float) -> tuple[float, tuple[str, ...]]:
        runs = tuple(replace(made_fit("fsl").runs[0], peak=one) for one in (PEAK, high * PEAK))
        found = replace(spread_fit("fsl-norm"), law=law, runs=runs)
        shape = ramped(8000, 500, SHAPES["cosine"], peak=peak * PEAK)
        at = predict(found, shape, [8000])
        return float((at.upper[0] - at.loss[0]) / at.loss[0]), at.warnings

    near, far = told(4.5, 2.0), told(10.0, 2.0)
    assert near[1] == () and "10 times apart" in far[1][0]
    own = math.hypot(near[0] / norm.ppf(0.9), 1.5e-2)
    assert far[0] == pytest.approx(norm.ppf(0.9) * own, rel=1e-3)
    for peak in (1.0, 10.0):
        assert told(10.0, peak)[1] == () and told(10.0, peak)[0] < 0.5 * far[0]
    runs = tuple(replace(made_fit("fsl").runs[0], peak=one) for one in (PEAK, 10.0 * PEAK))
    found = replace(spread_fit("fsl-norm"), law=law, runs=runs)
    assert "10 times apart" in plan(found, 3000, peak=2.0 * PEAK, warmup=100).warnings[0]


def test_no_interval_goes_below_0() -> None:
    found = replace(spread_fit(), misfit=50.0)
    schedule = ramped(8000, 500, SHAPES["cosine"])
    told, row = predict(found, schedule), compare(found, {"cosine": schedule}).rows[0]
    assert np.all(told.lower > 0.0) and 0.0 < row.lower < row.loss < row.upper
    assert row.upper - row.loss > 50.0


def test_the_ensemble_has_the_covariance_of_the_fit() -> None:
    """Whatever the seed: a variance is no matter of luck."""
    one, other = (fit(chosen("25M", TRAIN), seed=seed) for seed in (0, 1))
    free = one.law.free
    a, b = (np.cov(found.members[:, free].T) for found in (one, other))
    np.testing.assert_allclose(a, b, rtol=0.2, atol=1e-3 * np.abs(a).max())
    np.testing.assert_allclose(one.members.mean(0), one.theta, atol=0.02)


# Laws of one's own


@dataclass(frozen=True)
class PowerLaw(Law):
    """A level and a power of the number of steps: with no more than a curve."""

    name: str = "steps"
    priors: Mapping[str, Prior] = field(default_factory=dict)
    sharp: bool = False

    parameters: ClassVar[tuple[str, ...]] = ("level", "log_bias", "s")
    low: ClassVar[Any] = np.array([0.0, -20.0, 0.05])
    high: ClassVar[Any] = np.array([100.0, 20.0, 2.0])
    linear: ClassVar[tuple[str, ...]] = ("level", "log_bias")

    def curve(self, theta: Any, pieces: Pieces) -> Any:
        clock = np.append(0.0, np.cumsum(pieces.length))[pieces.observed]
        return theta[0] + math.exp(theta[1]) * clock ** -theta[2]

    def settings(self) -> dict[str, Any]:
        return {"sharp": self.sharp}


def power_runs() -> list[Run]:
    steps = np.arange(1000, 10_001, 250)
    return [run_of(2.0 + 1.5 * (steps / 10_000) ** -0.4, steps, name=name) for name in "ab"]


def test_ones_own_law_is_fitted_saved_loaded_and_predicts(tmp_path: Path) -> None:
    found = fit(power_runs(), PowerLaw(sharp=True))
    np.testing.assert_allclose(found.theta, [2.0, math.log(1.5), 0.4], atol=2e-3)
    save_fit(found, tmp_path / "law.json")
    back = load_fit(tmp_path / "law.json")
    assert back.law == PowerLaw(sharp=True)
    data = json.loads((tmp_path / "law.json").read_text())
    assert data["law"]["class"] == "tests.test_pilot_judge:PowerLaw"
    schedule = ramped(20_000, 0, SHAPES["cosine"])
    told = predict(back, schedule, [20_000])
    assert told.loss[0] == pytest.approx(2.0 + 1.5 * 2.0**-0.4, abs=2e-3)
    with pytest.raises(InvalidProblem, match="a law whose loss has a least"):
        plan(back, 1000)
    data["law"]["class"] = "tests.no_such_module:PowerLaw"
    (tmp_path / "law.json").write_text(json.dumps(data))
    with pytest.raises(ValueError, match=r"law\.json.*no_such_module"):
        load_fit(tmp_path / "law.json")


def test_ones_own_law_by_the_place_of_its_class(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run, _) = power_runs()
    rows = [
        f"{k},{run.schedule(min(k, 10_000)):.9g},{x}"
        for k, x in zip(run.steps, run.loss, strict=True)
    ]
    (tmp_path / "run.csv").write_text("\n".join(["step,lr,loss", *rows]))
    path, place = str(tmp_path / "run.csv"), "tests.test_pilot_judge:PowerLaw"
    assert cli.main(["fit", path, "--law", place, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["law"]["name"] == "steps"
    for bad in ("tests.test_pilot_judge:Nothing", "tests.nowhere:X", "steps", "json:loads"):
        assert cli.main(["fit", path, "--law", bad]) == 2
        assert "module:Class of one's own" in capsys.readouterr().err


def test_settings_are_of_the_default_law_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InvalidProblem, match="fsl-norm with weight_decay"):
        made_law("fsl", weight_decay=0.1)
    for argv, said in (
        (
            ["--law", "fsl", "--weight-decay", "0.1"],
            "--law: got 'fsl', allowed: fsl-norm with --opt",
        ),
        (["--weight-decay", "much"], "--weight-decay: got 'much', allowed: unknown, or a number"),
        (["--weight-decay", "-1"], "--weight-decay: got -1.0, allowed: a finite number >= 0"),
        (["--optimizer", "rprop"], "--optimizer: got 'rprop', allowed: one of adamw, adam, sgd"),
        (["--optimizer", "adam", "--weight-decay", "0.1"], "--weight-decay: got 0.1, allowed: 0"),
        (["--init-std", "0"], "--init-std: got 0.0, allowed: a finite number > 0"),
    ):
        assert cli.main(["fit", "none.csv", *argv]) == 2
        assert said in capsys.readouterr().err


def test_a_schedule_of_rate_0_is_predicted() -> None:
    found = spread_fit("fsl-norm")
    told = predict(found, Schedule.from_array(np.zeros(5000)), [5000])
    assert np.isfinite([told.loss[0], told.lower[0], told.upper[0]]).all()


class Short(Law):
    """Three parameters, no priors, and nothing of our names but the level."""

    parameters = ("level", "log_a", "s")
    low, high = np.array([0.0, -20.0, 0.05]), np.array([20.0, 10.0, 2.0])

    def curve(self, theta: Floats, pieces: Any) -> Floats:
        clock = np.append(0.0, np.cumsum(pieces.mean(1.0) * pieces.length))
        return theta[0] + np.exp(theta[1]) * clock[pieces.observed] ** -theta[2]


def _falling() -> Run:
    steps = np.arange(100, 3001, 100)
    loss = np.array(2.0 + 3.0 * (1e-3 * steps) ** -0.4, np.float64)
    return Run("falling", steps, loss, Schedule.from_array(np.full(3000, 1e-3)))


def test_a_law_of_three_parameters_without_priors() -> None:
    found = fit([_falling()], Short(), members=0)
    assert found.law.name == "Short" and found.misfit < 1e-3
    assert found.parameters["level"][0] == pytest.approx(2.0, abs=0.02)
    assert found.parameters["s"][0] == pytest.approx(0.4, abs=0.02)


def test_a_law_is_known_by_its_name() -> None:
    assert fit([_falling()], "fsl", members=0).law.name == "fsl"
    for bad in ("ohm", Short, 3, None.__class__):
        with pytest.raises(InvalidProblem, match="law"):
            fit([_falling()], bad)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"curve": lambda self, theta, pieces: np.ones(3)}, "curve.*must have shape"),
        ({"curve": lambda self, theta, pieces: pieces.observed * np.nan}, "curve.*no NaN"),
        ({"low": np.zeros(2)}, "low and high must be numbers"),
        ({"high": np.full(3, -30.0)}, "low < high"),
        ({"parameters": ("log_a", "s", "q")}, "level among them"),
        ({"parameters": ("level", "s", "s")}, "different names"),
    ],
)
def test_a_law_that_breaks_a_rule_is_told_which(changes: dict[str, Any], rule: str) -> None:
    broken = type("Broken", (Short,), changes)
    with pytest.raises(BadPart, match=f"law Broken.*{rule}|law Short.*{rule}"):
        fit([_falling()], broken())
