"""Plans: optimal under their law, within their bounds, honest about what they rest on."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optsched import InvalidProblem, Schedule
from optsched.cli import main
from optsched.pilot import Fit, compare, save_fit
from optsched.pilot import plan as any_plan
from optsched.pilot.laws import KernelLaw, NormLaw
from optsched.pilot.planning.optimal import Plan
from optsched.pilot.planning.rivals import joined, rivals
from tests.pilots import PEAK, SCALE, SHAPES, THETAS, made_fit, ramped

PLANNED = ("fsl", "fsl-sgd", "features", "momentum")
STEPS, RAMP = 1000, 100
HORIZONS = (10, 100, 1000, 24_000, 10**6)


def plan(found: Fit, horizon: int, **options: Any) -> Plan:
    """The best of free rates under the parameters of the fit."""
    plain: dict[str, Any] = {"shape": "free", "robust": "none"}
    return any_plan(found, horizon, **plain | options)


def _loss(found: Fit, schedule: Schedule, theta: Any = None) -> float:
    """Final loss with every step a piece of its own: exact."""
    law, eta = found.law, np.maximum(schedule.eta, 1e-12 * PEAK)
    assert isinstance(law, KernelLaw)
    length = np.full(len(eta), 1.0 / found.scale.span)
    theta = found.theta if theta is None else theta
    return law.final(theta, eta / found.scale.rate, length, found.scale.first).loss


@pytest.fixture(scope="module")
def plans() -> dict[str, Plan]:
    return {name: plan(made_fit(name), STEPS, warmup=RAMP) for name in PLANNED}


@pytest.fixture(scope="module")
def ensemble() -> Fit:
    rng = np.random.default_rng(0)
    spread = np.array([0.02, 0.05, 0.02, 0.2, 0.8, 0.15, 0.1, 0.1, 0.02])
    return made_fit("fsl", members=THETAS["fsl"] + spread * rng.standard_normal((6, 9)))


@pytest.mark.parametrize("name", PLANNED)
def test_perturbations_do_not_beat_a_plan(name: str, plans: dict[str, Plan]) -> None:
    """200 of them: smooth and rough, small and large, in the log rate."""
    found, best = made_fit(name), plans[name]
    eta, rng = best.schedule.eta, np.random.default_rng(1)
    own = _loss(found, best.schedule)
    for i in range(200):
        size, knots = 10.0 ** rng.uniform(-2.5, 0.0), int(rng.integers(2, 40))
        bumps = np.interp(
            np.arange(STEPS - RAMP), np.linspace(0, STEPS - RAMP, knots), rng.standard_normal(knots)
        )
        other = eta.copy()
        other[RAMP:] = np.minimum(other[RAMP:] * np.exp(size * bumps), best.cap)
        other[:RAMP] *= other[RAMP] / eta[RAMP]  # the ramp leads to the rate at its end
        assert _loss(found, Schedule.from_array(other)) >= own - 1e-6, i


@pytest.mark.parametrize("name", PLANNED)
def test_tuned_families_do_not_beat_a_plan(name: str, plans: dict[str, Plan]) -> None:
    found, best = made_fit(name), plans[name]
    others = rivals(found, STEPS, peak=PEAK, warmup=RAMP)
    for family, schedule in others.items():
        assert schedule.horizon == STEPS and schedule.peak <= PEAK * (1 + 1e-12)
        assert _loss(found, schedule) >= _loss(found, best.schedule) - 1e-6, family
    table = compare(found, {"plan": best.schedule, **others})
    assert table.rows[0].name == "plan" or table.rows[0].difference == 0.0


@pytest.mark.parametrize("name", PLANNED)
def test_published_shapes_do_not_beat_a_plan(name: str) -> None:
    """Those that the multi-power law's authors found: flat to 88 %, then a power near 1.15."""
    found = made_fit(name)
    best = plan(found, 24_000, warmup=2160)
    for power in (1.0, 1.15, 1.3):
        published = ramped(
            24_000,
            2160,
            lambda t, p=power: np.maximum(np.minimum(1.0, ((1.0 - t) / 0.12) ** p), 1e-6 / PEAK),
        )
        assert _loss(found, published) >= _loss(found, best.schedule) - 1e-6


@pytest.mark.parametrize("warmup", [0, 0.1])
@pytest.mark.parametrize("horizon", HORIZONS)
def test_a_plan_reaches_its_bound(horizon: int, warmup: float) -> None:
    best = plan(made_fit("fsl"), horizon, warmup=int(warmup * horizon))
    # The bound gives a warm-up no noise: looser, by the noise that is left of it.
    assert -1e-7 <= best.gap < (3e-3 if best.schedule.eta[0] < 0.9 * PEAK else 1e-4)
    assert abs(best.replay_gap) < 2e-5
    assert best.schedule.horizon == horizon and best.schedule.peak <= PEAK * (1 + 1e-12)
    assert best.lower < best.loss < best.upper and best.warnings[1:] == ()


@given(data=st.data())
@pytest.mark.parametrize("name", ["fsl", "features"])
def test_no_schedule_is_below_the_bound(
    name: str, plans: dict[str, Plan], data: st.DataObject
) -> None:
    knots = data.draw(st.integers(2, 30))
    logs = data.draw(st.lists(st.floats(-9.0, 0.0), min_size=knots, max_size=knots))
    k = np.arange(STEPS)
    shape = np.exp(np.interp(k, np.linspace(RAMP, STEPS - 1, knots), logs))
    shape *= np.minimum((k + 1) / (RAMP + 1), 1.0)
    schedule = Schedule.from_array(PEAK * shape)
    assert _loss(made_fit(name), schedule) >= plans[name].lower_bound - 1e-7


@settings(max_examples=8)
@given(
    s=st.floats(0.25, 0.8),
    noise=st.floats(-3.0, -0.5),
    speed=st.floats(1.0, 7.0),
    q=st.floats(0.2, 1.4),
    clock=st.floats(0.45, 1.2),
    horizon=st.integers(20, 50_000),
)
def test_plans_under_other_parameters(
    s: float, noise: float, speed: float, q: float, clock: float, horizon: int
) -> None:
    theta = np.array([2.9, -1.1, s, noise, speed, q, clock, 1.0, 0.05])
    best = plan(replace(made_fit("fsl"), theta=theta), horizon)
    assert -1e-6 <= best.gap < 5e-4


def test_one_step() -> None:
    for name in PLANNED:
        best = plan(made_fit(name), 1)
        assert best.schedule.horizon == 1 and 0.0 < best.schedule.eta[0] <= PEAK * (1 + 1e-12)


def test_a_floor_holds() -> None:
    found = made_fit("fsl")
    free, held = plan(found, 2000), plan(found, 2000, floor=0.8 * PEAK)
    assert free.schedule.eta.min() < 0.7 * PEAK
    assert held.schedule.eta.min() >= 0.8 * PEAK * (1 - 1e-9)
    assert held.loss > free.loss and -1e-7 <= held.gap < 1e-4


def test_the_warm_up_is_a_line_to_the_rate_at_its_end(plans: dict[str, Plan]) -> None:
    for best in plans.values():
        eta = best.schedule.eta
        np.testing.assert_allclose(
            eta[:RAMP], eta[RAMP] * np.arange(1, RAMP + 1) / (RAMP + 1), rtol=1e-9
        )


def test_a_plan_falls_at_the_end_and_keeps_the_peak_before(plans: dict[str, Plan]) -> None:
    for name in ("fsl", "fsl-sgd", "features"):
        eta = plans[name].schedule.eta[RAMP:]
        assert np.all(eta[:300] > 0.99 * PEAK)
        assert np.all(np.diff(eta) <= 1e-9 * PEAK)
    last = [plan(made_fit("fsl"), horizon).schedule.eta[-1] for horizon in (2000, 10_000, 50_000)]
    assert np.all(np.diff(last) < 0.0) and last[-1] < 0.3 * PEAK


@pytest.mark.parametrize("start", [500, 2400])
def test_the_rest_of_a_run(start: int) -> None:
    found = made_fit("fsl")
    history = ramped(4000, 200, SHAPES["cosine"])
    best = plan(found, 3000, from_step=start, history=history)
    eta = best.schedule.eta
    assert len(eta) == 3000
    np.testing.assert_allclose(eta[:start], history.eta[:start], rtol=1e-12)
    assert -1e-7 <= best.gap < 1e-4
    others = rivals(found, 3000, peak=float(history(start)), start=start, history=history)
    others["as it was"] = joined(history, start, Schedule.from_array(history.eta[start:3000]))
    for name, schedule in others.items():
        np.testing.assert_allclose(schedule.eta[:start], history.eta[:start], err_msg=name)
        assert _loss(found, schedule) >= _loss(found, best.schedule) - 1e-6, name
    rng = np.random.default_rng(2)
    for _ in range(50):
        other = eta.copy()
        bumps = np.interp(
            np.arange(3000 - start), np.linspace(0, 3000 - start, 9), rng.normal(size=9)
        )
        other[start:] = np.minimum(other[start:] * np.exp(0.3 * bumps), best.cap)
        assert _loss(found, Schedule.from_array(other)) >= _loss(found, best.schedule) - 1e-6


def test_a_robust_plan_is_better_over_the_ensemble(ensemble: Fit) -> None:
    thetas = [ensemble.theta, *ensemble.members]
    plain, mean, worst = (
        plan(ensemble, STEPS, warmup=RAMP, robust=kind) for kind in ("none", "mean", "worst")
    )
    least = [plan(replace(ensemble, theta=t), STEPS, warmup=RAMP).lower_bound for t in thetas]
    losses = {
        one.robust: np.array([_loss(ensemble, one.schedule, t) for t in thetas])
        for one in (plain, mean, worst)
    }
    # With floors at the levels, the objective is the mean excess: the mean loss but for them.
    assert losses["mean"].mean() <= losses["none"].mean() + 1e-6
    regret = {name: float((values - least).max()) for name, values in losses.items()}
    assert regret["worst"] <= regret["none"] + 1e-5
    assert min(regret.values()) >= -1e-6
    assert losses["none"][0] <= min(losses["mean"][0], losses["worst"][0]) + 1e-6
    # The bound is that of the parameters of the fit, whatever the plan is for.
    assert mean.lower_bound == worst.lower_bound == plain.lower_bound


def test_another_peak_is_refused_unless_asked_for() -> None:
    found = made_fit("fsl")
    for peak in (0.5 * PEAK, 2 * PEAK):
        with pytest.raises(InvalidProblem, match="peak"):
            plan(found, 1000, peak=peak)
        best = plan(found, 1000, peak=peak, extrapolate=True)
        assert any("Peak rate" in line for line in best.warnings)
        assert best.schedule.peak == pytest.approx(peak, rel=1e-6)
    assert plan(found, 5000, peak=PEAK * 1.001).warnings == ()
    (short,) = plan(found, 1000).warnings  # the first loss of the runs is at step 2,160
    assert "nothing is known of so short a run" in short


def test_momentum_is_written_as_beta() -> None:
    found = made_fit("fsl")
    assert "beta" not in plan(found, 100).schedule.controls
    assert np.all(plan(found, 100, momentum=0.95).schedule.controls["beta"] == 0.95)


HISTORY = ramped(500, 10, SHAPES["constant"])


@pytest.mark.parametrize(
    ("field", "options"),
    [
        ("horizon", {"horizon": 0}),
        ("horizon", {"horizon": 1.5}),
        ("horizon", {"horizon": True}),
        ("peak", {"peak": -1.0}),
        ("peak", {"peak": 0.0}),
        ("peak", {"peak": float("nan")}),
        ("peak", {"peak": "3e-4"}),
        ("floor", {"floor": -1e-5}),
        ("floor", {"floor": PEAK}),
        ("warmup", {"warmup": 1000}),
        ("warmup", {"warmup": -1}),
        ("robust", {"robust": "best"}),
        ("robust", {"robust": "worst"}),  # a fit without members
        ("shape", {"shape": "round"}),
        ("peak", {"peak": "auto", "from_step": 100, "history": HISTORY}),
        ("momentum", {"momentum": 1.5}),
        ("level", {"level": 2.0}),
        ("from_step", {"from_step": 10}),
        ("from_step", {"history": HISTORY}),
        ("from_step", {"from_step": 1000, "history": HISTORY}),
        ("history", {"from_step": 600, "history": HISTORY}),
        ("warmup", {"from_step": 100, "history": HISTORY, "warmup": 10}),
    ],
)
def test_bad_fields_are_named(field: str, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidProblem) as error:
        plan(made_fit("fsl"), **{"horizon": 1000, **options})
    assert error.value.field == field


def test_a_law_without_an_optimum_is_refused() -> None:
    with pytest.raises(InvalidProblem, match="multi-power"):
        plan(made_fit("multi-power"), 1000)
    with pytest.raises(InvalidProblem, match="families"):
        rivals(made_fit("fsl"), 1000, peak=PEAK, names=["sine"])
    # Without a bound the least under a member is that of its best simple schedule.
    momentum = made_fit("momentum", members=[THETAS["momentum"]] * 2)
    worst = plan(momentum, 1000, robust="worst")
    assert math.isnan(worst.lower_bound)
    assert worst.loss == pytest.approx(plan(momentum, 1000).loss, abs=2e-4)


def test_units_of_the_scale_do_not_matter() -> None:
    """The same law with its parameters over twice the span and the rate."""
    found = made_fit("fsl")
    level, log_bias, s, log_noise, log_speed, q, g, p, offset = found.theta
    tick = 2.0 ** -(1.0 + g)  # the clock of the new units over that of the old
    theta = [
        level, log_bias + s * math.log(tick), s, log_noise + p * math.log(2.0),
        log_speed - math.log(tick), q, g, p, offset * 2.0**-g,
    ]  # fmt: skip
    scale = replace(SCALE, rate=2 * SCALE.rate, span=2 * SCALE.span, first=SCALE.first / 2)
    other = replace(found, theta=np.array(theta), scale=scale)
    one, two = plan(found, 3000, warmup=200), plan(other, 3000, warmup=200)
    assert two.loss == pytest.approx(one.loss, abs=1e-6)
    assert two.lower_bound == pytest.approx(one.lower_bound, abs=1e-6)


@pytest.mark.parametrize(
    "found, horizon, why",
    [
        (made_fit("momentum"), 2000, "its noise fades with the steps"),
        (
            made_fit(
                "fsl-norm",
                law=NormLaw(weight_decay=3e-5, coupled=False).for_runs(SCALE, [3.2]),
            ),
            2000,
            "a decay that is not multiplied by the rate",
        ),
        (made_fit("fsl-norm"), 10**9, "in a run this long the weights move too far"),
    ],
)
def test_where_no_bound_is_known_the_reason_is_said(
    found: Fit, horizon: int, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "law.json")
    save_fit(found, path)
    asked = ["plan", "--law", path, "--horizon", str(horizon), "--warmup", "0", "--robust", "none"]
    assert main([*asked, "--shape", "simple", "--families", "linear"]) == 0
    out = capsys.readouterr().out
    assert f"what any schedule could gain is not known: no lower bound, as {why}" in out
    assert "to gain over" not in out and "no schedule with rates up to" not in out
