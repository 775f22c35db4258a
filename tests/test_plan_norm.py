"""Plans under laws that know the norm of the weights, simple plans, peaks, laws of one's own."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from optsched import InvalidProblem, Schedule
from optsched.cli import main
from optsched.pilot import Fit, compare, plan, save_fit
from optsched.pilot.laws import Final, Law, NormLaw
from optsched.pilot.pieces import Pieces
from optsched.pilot.planning.optimal import Plan
from optsched.pilot.planning.peaks import choose_peak
from optsched.pilot.planning.rivals import rivals
from optsched.pilot.planning.score import Score, finals
from optsched.pilot.planning.simple import Shape, best_shape
from optsched.pilot.planning.task import checked_task
from tests.pilots import PEAK, SHAPES, THETAS, made_fit, ramped

STEPS, RAMP = 2000, 200
NORM = np.array(THETAS["fsl-norm"])
NAMES = NormLaw.parameters


def _fit(members: int = 0, changed: Mapping[str, float] | None = None) -> Fit:
    """A fit of the norm law with some parameters changed, and members around it."""
    theta = NORM.copy()
    for name, value in (changed or {}).items():
        theta[NAMES.index(name)] = value
    spread = np.array([0.01, 0.03, 0.01, 0.1, 0.3, 0.04, 0.03, 0.04, 0.01, 0.3, 0.0, 0.05, 0.03])
    rng = np.random.default_rng(3)
    draws = theta + spread * rng.standard_normal((members, len(theta)))
    found = made_fit("fsl-norm", members=np.clip(draws, NormLaw.low, NormLaw.high))
    return replace(found, theta=theta)


# A small step of the clock, so that weights move over the run as they do over long ones.
FAST = {"log_growth": 5.5, "decay": 12.0}
FITS = {
    "usual": _fit(),
    "weights move": _fit(changed=FAST),
    "no decay": _fit(changed={"log_growth": 5.0, "decay": 0.0}),
}


def _loss(found: Fit, schedule: Schedule, theta: Any = None) -> float:
    """Final loss with every step a piece of its own."""
    eta = np.maximum(schedule.eta, 1e-12 * PEAK)
    length = np.full(len(eta), 1.0 / found.scale.span)
    theta = found.theta if theta is None else theta
    return found.law.final(theta, eta / found.scale.rate, length, found.scale.first).loss


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {
        name: plan(found, STEPS, warmup=RAMP, shape="free", robust="none")
        for name, found in FITS.items()
    }


@pytest.mark.parametrize("name", FITS)
def test_a_plan_is_within_a_hair_of_its_bound(name: str, plans: dict[str, Plan]) -> None:
    best = plans[name]
    assert -1e-6 <= best.gap < 1e-4
    assert _loss(FITS[name], best.schedule) >= best.lower_bound - 1e-6
    assert abs(best.replay_gap) < 1e-4 and best.residual < 1e-5
    assert best.shape == "free rates" and best.cost == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("name", FITS)
def test_perturbations_do_not_beat_a_plan(name: str, plans: dict[str, Plan]) -> None:
    found, best, rng = FITS[name], plans[name], np.random.default_rng(1)
    eta = best.schedule.eta
    own = _loss(found, best.schedule)
    for i in range(100):
        size, knots = 10.0 ** rng.uniform(-2.5, 0.0), int(rng.integers(2, 40))
        place = np.linspace(0, STEPS - RAMP, knots)
        bumps = np.interp(np.arange(STEPS - RAMP), place, rng.standard_normal(knots))
        other = eta.copy()
        other[RAMP:] = np.minimum(other[RAMP:] * np.exp(size * bumps), best.cap)
        other[:RAMP] *= other[RAMP] / eta[RAMP]  # the ramp leads to the rate at its end
        loss = _loss(found, Schedule.from_array(other))
        assert loss >= own - 2e-6 and loss >= best.lower_bound - 1e-6, i


@pytest.mark.parametrize("name", FITS)
def test_tuned_families_do_not_beat_a_plan(name: str, plans: dict[str, Plan]) -> None:
    found, best = FITS[name], plans[name]
    for family, schedule in rivals(found, STEPS, peak=PEAK, warmup=RAMP).items():
        assert _loss(found, schedule) >= _loss(found, best.schedule) - 1e-6, family


@pytest.mark.parametrize("horizon", [1, 2, 7, 300, 24_000, 10**6, 10**12])
def test_horizons(horizon: int) -> None:
    best = plan(FITS["usual"], horizon, shape="free", robust="none")
    # The first steps of training gain more and more each, where one price for all steps is loose.
    assert math.isnan(best.gap) == (horizon > 10**6)
    assert math.isnan(best.gap) or -1e-6 <= best.gap < (1e-4 if horizon >= 300 else 3e-2)
    assert best.schedule.horizon == horizon and best.schedule.peak <= PEAK * (1 + 1e-12)


def test_a_floor_and_a_past_are_in_the_bound() -> None:
    found = FITS["weights move"]
    held = plan(found, STEPS, floor=0.3 * PEAK, shape="free", robust="none")
    free = plan(found, STEPS, shape="free", robust="none")
    assert held.schedule.eta.min() >= 0.3 * PEAK * (1 - 1e-9)
    assert held.loss > free.loss and -1e-6 <= held.gap < 2e-4
    history = ramped(1500, 100, SHAPES["cosine"])
    for start in (50, 600, 1400):
        rest = plan(found, STEPS, from_step=start, history=history, shape="free", robust="none")
        np.testing.assert_allclose(rest.schedule.eta[:start], history.eta[:start], rtol=1e-9)
        # From low rates on, one price for all steps is loose.
        assert -1e-5 <= rest.gap < (2e-4 if start < 1000 else 5e-3)
        simple = plan(found, STEPS, from_step=start, history=history, shape="simple")
        assert rest.loss - 1e-6 <= simple.loss <= rest.loss + 5e-3


@pytest.mark.parametrize("name", FITS)
def test_simple_plans_cost_little_and_say_so(name: str, plans: dict[str, Plan]) -> None:
    found = FITS[name]
    simple = plan(found, STEPS, warmup=RAMP, shape="simple", robust="none")
    cost = _loss(found, simple.schedule) - _loss(found, plans[name].schedule)
    assert simple.cost == pytest.approx(cost, abs=2e-5) and -1e-6 <= cost < 3e-3
    assert simple.words.startswith("warm up 200 steps") and "then decay" in simple.words
    eta = simple.schedule.eta[RAMP:]
    assert np.all(np.diff(eta) <= 1e-12) and eta[0] == pytest.approx(PEAK)
    # Better than the tuned families, of which the linear decay is one of its shapes.
    others = rivals(found, STEPS, peak=PEAK, warmup=RAMP, names=["wsd_linear", "linear"])
    assert min(_loss(found, one) for one in others.values()) >= _loss(found, simple.schedule) - 2e-5


def test_auto_takes_the_simplest_that_cannot_be_told_apart() -> None:
    for found in FITS.values():
        best = plan(found, STEPS, warmup=RAMP, robust="none")
        rows = compare(found, {"free": best.free, "plan": best.schedule}).rows
        error = max(row.error for row in rows)
        assert best.cost <= error
        if best.shape == "hold and linear decay":
            assert best.cost <= 0.25 * error
            assert "decay linearly to 0" in best.words
    # What costs twice what two runs could show is not taken, what costs half of it is.
    found = FITS["no decay"]
    simple = plan(found, STEPS, warmup=RAMP, robust="none", shape="simple")
    for error, free in ((0.5 * simple.cost, True), (2.0 * simple.cost, False)):
        sure = replace(found, misfit=0.0, seed_noise=error / (math.sqrt(2.0) * simple.loss))
        assert (plan(sure, STEPS, warmup=RAMP, robust="none").shape == "free rates") == free


def test_shapes() -> None:
    task = checked_task(FITS["usual"], 5000, None, 0, 0.0, 0, None, False)
    one = Shape(3000, 1.5, 0.1)
    steps, eta = one.knots(task)
    k = np.arange(5000)
    left = np.clip((5000 - k) / 2000, 0.0, 1.0)
    exact = PEAK * (0.1 + 0.9 * left**1.5)
    np.testing.assert_allclose(np.interp(k, steps, eta), exact, atol=2e-4 * PEAK)
    assert steps[0] == 0 and steps[-1] == 4999
    loss = finals(task, [task.found.theta], *one.pieces(task))[0].loss
    schedule = Schedule.from_knots(steps, eta=eta, horizon=5000)
    assert loss == pytest.approx(_loss(task.found, schedule), abs=2e-5)


def test_a_search_near_a_shape_finds_what_the_whole_search_does() -> None:
    task = checked_task(FITS["weights move"], STEPS, None, RAMP, 0.0, 0, None, False)
    score = Score.mean(task, [task.found.theta])
    whole = best_shape(task, score)
    assert best_shape(task, score, near=whole[0])[1] <= whole[1] + 1e-4
    assert whole[1] <= best_shape(task, score, straight=True)[1] + 1e-4


def test_the_mean_over_members_is_what_is_minimised() -> None:
    found = _fit(8, FAST)
    thetas = [found.theta, *found.members]

    def mean(best: Plan) -> float:
        return float(np.mean([_loss(found, best.schedule, theta) for theta in thetas]))

    for shape in ("simple", "free"):
        plain, robust = (
            plan(found, STEPS, warmup=RAMP, shape=shape, robust=kind)  # type: ignore[arg-type]
            for kind in ("none", "mean")
        )
        assert mean(robust) <= mean(plain) + 2e-6
        assert _loss(found, plain.schedule) <= _loss(found, robust.schedule) + 2e-6


def test_peaks_below_and_between_the_runs_are_planned_and_above_only_if_told() -> None:
    found = FITS["usual"]
    for peak in (0.3 * PEAK, 0.9 * PEAK):
        best = plan(found, STEPS, peak=peak)
        assert best.schedule.peak == pytest.approx(peak, rel=1e-9)
        assert not any("Peak rate" in line for line in best.warnings)
    with pytest.raises(InvalidProblem, match="highest peak of the runs"):
        plan(found, STEPS, peak=2 * PEAK)
    assert any(
        "Peak rate" in line for line in plan(found, STEPS, peak=2 * PEAK, extrapolate=True).warnings
    )
    sgd = made_fit("fsl-sgd")
    with pytest.raises(InvalidProblem, match="the peaks of the runs"):
        plan(sgd, STEPS, peak=0.5 * PEAK)


def test_the_peak_is_chosen_with_the_schedule() -> None:
    found = _fit(12)
    best = plan(found, STEPS, warmup=RAMP, peak="auto")
    choice = best.choice
    assert choice is not None and best.cap == choice.peak
    assert choice.peaks[0] == pytest.approx(PEAK / 4) and choice.peaks[-1] == pytest.approx(PEAK)
    assert 0.0 <= choice.regret <= choice.high
    # At every peak of the grid the plan is as good as the choice thought.
    for peak, loss in zip(choice.peaks, choice.losses, strict=True):
        other = plan(found, STEPS, warmup=RAMP, peak=float(peak), shape="simple", robust="none")
        thetas = [found.theta, *found.members]
        mean = np.mean([_loss(found, other.schedule, theta) for theta in thetas])
        assert loss == pytest.approx(mean, abs=1e-4)
    assert choice.peak == choice.peaks[np.argmin(choice.losses)]
    lone = plan(replace(found, members=found.members[:0]), STEPS, peak="auto").choice
    assert lone is not None and math.isnan(lone.regret)


def test_a_peak_above_the_runs_has_to_win_by_more_than_laws_err() -> None:
    """Growth of the weights makes high peaks nearly free: a little more is no reason."""
    found = _fit(6)
    task = checked_task(found, STEPS, None, RAMP, 0.0, 0, None, False)
    above = choose_peak(task, [found.theta, *found.members], True)
    assert above.peaks[-1] == pytest.approx(2 * PEAK) and PEAK in above.peaks
    thetas = [found.theta, *found.members]
    raw = []
    for peak in above.peaks:
        own = replace(task, cap=float(peak))
        shape = best_shape(own, Score.mean(own, thetas[:1]))[0]
        raw.append(np.mean([one.loss for one in finals(own, thetas, *shape.pieces(own))]))
    added = above.losses - np.array(raw)
    high = above.peaks > PEAK * (1 + 1e-9)
    # Here every peak is searched afresh; the choice goes from peak to peak, on a flat least.
    assert np.all(np.abs(added[~high]) < 2e-5)
    expected = 6e-3 * np.array(raw)[high] * np.log(above.peaks[high] / PEAK)
    np.testing.assert_allclose(added[high], expected, atol=2e-5)


def test_regret_is_what_other_parameters_make_of_the_choice() -> None:
    """Members of which each wants another peak: the regret is that of the one chosen."""
    found = _fit(0)
    slow, fast = NORM.copy(), NORM.copy()
    slow[NAMES.index("log_noise")] += 2.0  # noise: a low peak is better
    fast[NAMES.index("log_noise")] -= 2.0
    found = replace(found, members=np.array([slow, fast]))
    choice = plan(found, STEPS, peak="auto").choice
    assert choice is not None and choice.regret > 0.0
    same = plan(replace(found, members=np.array([NORM, NORM])), STEPS, peak="auto").choice
    assert same is not None and same.regret < choice.regret


@dataclass(frozen=True)
class Plateau(Law):
    """A law from outside of the package: noise of the last rates over a power of their sum."""

    priors: Any = field(default_factory=dict)
    name: str = "plateau"

    parameters: ClassVar[tuple[str, ...]] = ("noise", "level", "bias")
    low: ClassVar[Any] = np.array([0.0, 0.0, 0.0])
    high: ClassVar[Any] = np.array([10.0, 10.0, 10.0])
    linear: ClassVar[tuple[str, ...]] = ("level",)
    plannable: ClassVar[bool] = True

    def curve(self, theta: Any, pieces: Pieces) -> Any:
        rate, length = pieces.mean(1.0), pieces.length
        return np.array([self._loss(theta, rate[:n], length[:n])[0] for n in pieces.observed])

    def _loss(self, theta: Any, rate: Any, length: Any) -> tuple[float, Any, Any, float]:
        noise, level, bias = theta
        left = np.append(np.cumsum(length[::-1])[::-1], 0.0)
        weight = np.diff(np.exp(-left / 0.05))
        clock = float(rate @ length)
        return level + bias / math.sqrt(clock) + noise * float(weight @ rate), weight, length, clock

    def final(self, theta: Any, rate: Any, length: Any, first: float) -> Final:
        loss, weight, length, clock = self._loss(theta, rate, length)
        return Final(loss, -0.5 * theta[2] * clock**-1.5 * rate * length, theta[0] * rate * weight)


def test_a_law_of_ones_own_is_planned_with() -> None:
    theta = np.array([0.5, 2.0, 0.3])
    found = replace(made_fit("fsl-norm"), law=Plateau(), theta=theta, members=np.zeros((0, 3)))
    best = plan(found, STEPS, warmup=RAMP, shape="free")
    assert math.isnan(best.lower_bound) and best.residual < 1e-5
    own, rng = _loss(found, best.schedule), np.random.default_rng(0)
    for _ in range(50):
        other = best.schedule.eta * np.exp(0.3 * rng.standard_normal(STEPS).cumsum() / 30)
        other = np.minimum(other, PEAK)
        other[:RAMP] = other[RAMP] * np.arange(1, RAMP + 1) / (RAMP + 1)
        assert _loss(found, Schedule.from_array(other)) >= own - 1e-6
    for schedule in rivals(found, STEPS, peak=PEAK, warmup=RAMP).values():
        assert _loss(found, schedule) >= own - 1e-6
    assert plan(found, STEPS, warmup=RAMP).cost >= -1e-6
    assert plan(found, STEPS, peak="auto").cap == PEAK  # it does not say that it carries
    unplanned = replace(found, law=replace_plannable())
    with pytest.raises(InvalidProblem, match="law"):
        plan(unplanned, STEPS)


def replace_plannable() -> Law:
    """The same law, for prediction only."""

    class Told(Plateau):
        plannable: ClassVar[bool] = False

    return Told()


def test_the_command_says_what_it_claims(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "law.json")
    save_fit(_fit(8), path)
    assert main(["plan", "--law", path, "--horizon", "20000", "--warmup", "500"]) == 0
    out = capsys.readouterr().out
    assert "plan: warm up 500 steps, hold 0.0003 to step" in out
    assert "wsd_sqrt: warm up 500 steps" in out
    assert "no schedule with rates up to 0.0003 after this warm-up is below" in out
    assert "nats above the best of 80 free rates" in out and "to gain over" in out
    options = ["plan", "--law", path, "--horizon", "20000", "--json", "--families", "wsd"]
    assert main([*options, "--peak", "auto"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["peak"] == told["choice"]["peaks"][int(np.argmin(told["choice"]["losses"]))]
    assert 0.0 <= told["choice"]["regret"] <= told["choice"]["regret_90"]
    assert all(row["words"] for row in told["schedules"]) and told["shape"] and told["words"]
    assert told["cost"] == pytest.approx(told["loss"] - told["lower_bound"], abs=1e-3)
    assert main([*options, "--shape", "free", "--robust", "none"]) == 0
    assert json.loads(capsys.readouterr().out)["shape"] == "free rates"


def test_a_plan_of_the_command_line_takes_few_seconds(tmp_path: Path) -> None:
    """Of CPU time, with the start of Python, and without jax."""
    path = tmp_path / "law.json"
    save_fit(_fit(40), path)
    code = (
        "import sys, time; from optsched.cli import main;"
        f"main(['plan', '--law', {str(path)!r}, '--horizon', '50000', '--warmup', '500',"
        " '--peak', 'auto']);"
        "print(time.process_time(), 'jax' in sys.modules, file=sys.stderr)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    spent, jax = shown.stderr.split()[-2:]
    assert float(spent) < 8.0 and jax == "False"
