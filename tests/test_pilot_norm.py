"""The default law: its state against the recursion, its derivatives, what is known of optimisers.

What holds for every law of the library is in `test_pilot_law`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched import InvalidProblem, Schedule
from optsched.logs import Run, read_runs
from optsched.pilot import Fit, fit, load_fit, plan, predict, save_fit
from optsched.pilot.laws import NormLaw, Prior, fsl
from optsched.pilot.laws.norm import DECAYS
from optsched.pilot.laws.state import reference, squared_norm
from optsched.pilot.pieces import Pieces, Scale, cut
from tests.pilots import PEAK, SCALE, SHAPES, THETAS, made_law, ramped

THETA = np.array(THETAS["fsl-norm"])
NAMES = NormLaw.parameters
LLAMA = Path(__file__).parent / "data" / "llama-124m"


def changed(**values: float) -> np.ndarray:
    theta = THETA.copy()
    for name, value in values.items():
        theta[NAMES.index(name)] = value
    return theta


def summed(theta: np.ndarray, schedule: Schedule, *, coupled: bool = True) -> float:
    """The law step by step, by the recursion of the norm."""
    p, n = NormLaw().named(theta), schedule.horizon
    eta, span = schedule.eta / SCALE.rate, SCALE.span
    norm, x = 1.0, np.empty(n)
    for k, rate in enumerate(eta):
        x[k] = rate * norm**-p.norm
        held = p.decay * (rate if coupled else 1.0) / span
        norm = norm * (1.0 - 2.0 * held) + p.growth * rate**2 / span
    kept = math.exp(-2.0 * p.decay)
    at = kept + p.growth * (1.0 - kept) / (2.0 * p.decay) if p.decay else 1.0 + p.growth
    x *= at**p.norm
    tick = (x / (1.0 + p.saturation * x)) ** p.clock / span
    after = np.append(np.cumsum(tick[::-1])[::-1], 0.0)
    noise = np.diff((1.0 + p.speed * after) ** -p.q) @ x**p.amplitude
    return p.level + p.bias * (after[0] + p.offset) ** -p.s + p.noise * float(noise)


@pytest.mark.parametrize("shape", ["constant", "cosine", "drop", "wsd"])
@pytest.mark.parametrize("decay", [0.0, 0.7, 6.0])
@pytest.mark.parametrize("coupled", [True, False])
def test_pieces_give_the_sum_over_steps(shape: str, decay: float, coupled: bool) -> None:
    schedule = ramped(6000, 500, SHAPES[shape])
    theta = changed(decay=decay, log_growth=3.0)
    found = NormLaw(coupled=coupled).curve(theta, cut(schedule, np.array([6000]), SCALE))
    exact = summed(theta, schedule, coupled=coupled)
    assert found[0] == pytest.approx(exact, abs=1e-4)
    other = NormLaw(coupled=not coupled).curve(theta, cut(schedule, np.array([6000]), SCALE))
    assert decay < 6.0 or shape != "cosine" or other[0] != pytest.approx(exact, abs=5e-4)


def test_the_norm_settles_where_growth_and_decay_agree() -> None:
    """``W -> c eta / (2 lambda)``: only the product of rate and decay sets the effective rate."""
    settled = []
    for rate, decay in ((1.0, 8.0), (2.0, 4.0), (0.5, 16.0)):
        pieces = Pieces(np.full((3, 9), rate), np.full(9, 0.5), np.array([9]), 0.1)
        norm = squared_norm(pieces, 30.0, decay, coupled=True).value[2, -1]
        assert norm == pytest.approx(30.0 * rate / (2.0 * decay), rel=1e-6)
        settled.append(rate / math.sqrt(norm))
    np.testing.assert_allclose(settled, settled[0], rtol=1e-6)


@given(
    growth=st.floats(0.01, 300.0),
    decay=st.sampled_from([0.0, 1e-6, 0.3, 5.0, 900.0]),
    coupled=st.booleans(),
)
def test_derivatives_of_the_norm(growth: float, decay: float, coupled: bool) -> None:
    pieces = cut(ramped(3000, 300, SHAPES["cosine"]), np.array([3000]), SCALE)
    found = squared_norm(pieces, growth, decay, coupled=coupled)
    h = 1e-6
    up, down = (
        squared_norm(pieces, growth * math.exp(s * h), decay, coupled=coupled).value
        for s in (1, -1)
    )
    np.testing.assert_allclose(found.in_growth, (up - down) / (2 * h), rtol=1e-5, atol=1e-7)
    assert np.all(found.value > 0.0)
    h = 1e-5 * (1.0 + decay)
    up, here, later = (
        squared_norm(pieces, growth, decay + s * h, coupled=coupled).value for s in (1, 0, 2)
    )
    slope = (4.0 * up - 3.0 * here - later) / (2 * h)
    np.testing.assert_allclose(found.in_decay, slope, rtol=1e-4, atol=1e-6 * (1.0 + growth))


@given(growth=st.floats(0.01, 300.0), decay=st.floats(0.0, 30.0))
def test_the_reference_is_the_norm_after_a_span(growth: float, decay: float) -> None:
    pieces = Pieces(np.ones((3, 1)), np.ones(1), np.array([1]), 0.1)
    found, norm = reference(growth, decay), squared_norm(pieces, growth, decay, coupled=True)
    assert found.value == pytest.approx(norm.value[2, 0], rel=1e-12)
    assert found.in_growth == pytest.approx(norm.in_growth[2, 0], rel=1e-12)
    assert found.in_decay == pytest.approx(norm.in_decay[2, 0], rel=1e-9, abs=1e-12)


@pytest.mark.parametrize("coupled", [True, False])
@given(data=st.data())
def test_the_last_loss_and_its_derivatives(coupled: bool, data: st.DataObject) -> None:
    law = NormLaw(coupled=coupled)
    theta = changed(
        decay=data.draw(st.floats(0.0, 9.0)),
        log_growth=data.draw(st.floats(-1.0, 6.0)),
        norm=data.draw(st.floats(-0.1, 1.0)),
        saturation=data.draw(st.floats(0.0, 1.0)),
    )
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    log_rate, length = rng.uniform(-3, 0, 80), rng.uniform(0.005, 0.02, 80)

    def loss(x: np.ndarray) -> float:
        return law.final(theta, np.exp(x), length, SCALE.first).loss

    found = law.final(theta, np.exp(log_rate), length, SCALE.first)
    own = Pieces(np.tile(np.exp(log_rate), (3, 1)), length, np.array([80]), SCALE.first)
    own.__dict__["fine"] = own  # the curve on the same pieces, not on finer ones
    assert found.loss == pytest.approx(law.curve(theta, own)[0], rel=1e-12)
    h, some = 1e-5, rng.choice(80, 12, replace=False)
    unit = np.eye(80)
    slopes = [(loss(log_rate + h * unit[i]) - loss(log_rate - h * unit[i])) / (2 * h) for i in some]
    total = (found.drift + found.noise)[some]
    np.testing.assert_allclose(total, slopes, atol=1e-7 * (1.0 + np.abs(slopes).max()))


@given(data=st.data())
def test_derivatives_where_the_decay_is_not_multiplied_by_the_rate(data: st.DataObject) -> None:
    law = NormLaw(coupled=False)
    theta = changed(decay=data.draw(st.floats(0.1, 9.0)), norm=data.draw(st.floats(0.1, 0.9)))
    pieces = cut(ramped(12_000, 2160, SHAPES["wsd"]), np.array([5000, 12_000]), SCALE)
    _, slopes = law.jacobian(theta, pieces)
    for name in ("log_growth", "decay", "norm"):
        i, step = NAMES.index(name), 1e-5 * np.eye(len(theta))[NAMES.index(name)]
        rise = (law.curve(theta + step, pieces) - law.curve(theta - step, pieces)) / 2e-5
        np.testing.assert_allclose(slopes[:, i], rise, rtol=1e-5, atol=1e-8)


def test_for_sgd_the_rate_is_the_rate() -> None:
    """Without the power of the norm and saturation the law is the functional scaling law."""
    theta = changed(norm=0.0, saturation=0.0)
    other = theta[:9].copy()
    other[8] /= SCALE.first
    pieces = cut(ramped(12_000, 2160, SHAPES["wsd"]), np.array([3000, 9000, 12_000]), SCALE)
    found = NormLaw(optimiser="sgd").curve(theta, pieces)
    np.testing.assert_allclose(found, fsl().curve(other, pieces), atol=2e-6)
    held = NormLaw(optimiser="sgd").for_runs(SCALE, [3.0]).held
    assert held.keys() >= {"norm", "saturation", "clock", "amplitude", "decay"}
    assert held["norm"] == 0.0 and not NormLaw(optimiser="sgd").carries


# What is known of the optimiser


def test_priors_are_in_the_units_of_the_runs() -> None:
    law = NormLaw(weight_decay=0.1, init_std=0.02).for_runs(Scale(1e-3, 1e4, 0.1), [3.0])
    assert law.held["decay"] == pytest.approx(1.0)  # .1 x 1e-3 x 1e4
    assert law.priors["log_growth"].mean == pytest.approx(math.log(2000.0 * 1e-6 * 1e4))
    loose = NormLaw(weight_decay=0.1, coupled=False).for_runs(Scale(1e-3, 1e4, 0.1), [3.0])
    assert loose.priors["decay"].mean == pytest.approx(1000.0)
    mine = NormLaw({"q": Prior(0.7, 0.1)}, weight_decay=0.1).for_runs(SCALE, [3.0])
    assert mine.priors["q"] == Prior(0.7, 0.1) and mine.settings()["weight_decay"] == 0.1
    far = NormLaw(weight_decay=0.1).for_runs(Scale(3.0, 1e6, 0.1), [3.0])  # a rate of muP
    assert far.priors["log_growth"].mean < 6.0


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"optimiser": "rprop"}, "optimiser"),
        ({"weight_decay": -0.1}, "weight_decay"),
        ({"weight_decay": math.nan}, "weight_decay"),
        ({"optimiser": "adam", "weight_decay": 0.1}, "weight_decay"),
        ({"optimiser": "sgd", "weight_decay": 5e-4}, "weight_decay"),
        ({"init_std": 0.0}, "init_std"),
        ({"priors": {"luck": Prior(0.0, 1.0)}}, "priors"),
    ],
)
def test_settings_out_of_range(settings: dict, field: str) -> None:
    with pytest.raises(InvalidProblem, match=field):
        NormLaw(**settings)


def made_runs(decay: float, peaks: tuple[float, ...] = (PEAK,), growth: float = 4.0) -> list[Run]:
    """Runs of the law with a decay of the weights, each at all peaks."""
    law = NormLaw(weight_decay=decay)
    top = max(peaks)
    scale = Scale(top, 24_000.0, 0.09)
    theta = changed(decay=decay * top * scale.span, log_growth=growth)
    runs = []
    for i, (shape, horizon) in enumerate(
        (("constant", 24_000), ("cosine", 24_000), ("wsd", 14_000))
    ):
        for peak in peaks:
            schedule = ramped(horizon, 1000, SHAPES[shape], peak=peak)
            steps = np.arange(1000, horizon + 1, 250)
            loss = law.curve(theta, cut(schedule, steps, scale))
            loss = loss * (1.0 + 2e-4 * np.random.default_rng(i).standard_normal(len(steps)))
            longer = Schedule.from_array(np.append(schedule.eta, schedule.eta[-1]))
            runs.append(Run(f"{shape} {peak:g}", steps, loss, longer, 1000))
    return runs


@pytest.mark.parametrize("decay", DECAYS)
def test_an_unknown_decay_is_found(decay: float) -> None:
    peak = 3e-3  # where .01 and .1 differ
    found = fit(made_runs(decay, (0.5 * peak, peak)), members=0)
    assert isinstance(found.law, NormLaw) and found.law.chosen
    assert found.law.weight_decay == decay
    assert f"weight decay {decay:g}: the one of 0, 0.01, 0.1" in found.notes[0]
    known = fit(made_runs(decay, (0.5 * peak, peak)), NormLaw(weight_decay=decay), members=0)
    assert known.notes[0] == f"optimiser adamw, weight decay {decay:g}"
    assert known.theta == pytest.approx(found.theta, abs=1e-6)


@pytest.fixture(scope="module")
def two_peaks() -> Fit:
    return fit(made_runs(0.1, (1e-3, 2e-3)), NormLaw(weight_decay=0.1))


def test_runs_of_several_peaks_are_one_fit(two_peaks: Fit) -> None:
    assert two_peaks.peaks == (1e-3, 2e-3) and two_peaks.warnings == ()
    assert two_peaks.misfit < 1.3e-3
    scale = Scale(2e-3, 24_000.0, 0.09)
    theta = changed(decay=0.1 * 2e-3 * 24_000, log_growth=4.0)
    for peak, room in ((1.4e-3, 2e-3), (1e-3, 2e-3), (5e-4, 6e-3)):
        schedule, at = ramped(30_000, 1000, SHAPES["wsd"], peak=peak), np.array([30_000])
        truth = two_peaks.law.curve(theta, cut(schedule, at, scale))[0]
        told = predict(two_peaks, schedule, at)
        assert told.warnings == () and told.loss[0] == pytest.approx(truth, abs=room)
        assert told.lower[0] < truth < told.upper[0]


def test_intervals_widen_away_from_the_peaks_of_the_runs(two_peaks: Fit) -> None:
    def told(peak: float) -> tuple[float, tuple[str, ...]]:
        found = predict(two_peaks, ramped(24_000, 1000, SHAPES["wsd"], peak=peak), [24_000])
        return float(found.upper[0] - found.loss[0]), found.warnings

    widths = [told(peak)[0] for peak in (2e-3, 2.5e-3, 3e-3, 6e-3)]
    assert np.all(np.diff(widths) > 0.0) and widths[-1] > 2.0 * widths[0]
    assert told(5e-4)[0] > told(1e-3)[0]
    assert told(2.01e-3)[1] == () == told(3e-4)[1]
    assert "is above those of the runs (0.001 to 0.002)" in told(3e-3)[1][0]
    assert "is below a quarter of those of the runs" in told(2e-4)[1][0]


def test_plans_go_between_the_peaks_and_above_them_when_told(two_peaks: Fit) -> None:
    best = plan(two_peaks, 3000, peak=1.5e-3, warmup=100)
    assert best.cap == 1.5e-3 and best.warnings[:1] == () and abs(best.replay_gap) < 1e-4
    linear = ramped(3000, 100, SHAPES["linear"], peak=1.5e-3)
    assert best.loss < predict(two_peaks, linear, [3000]).loss[0]
    with pytest.raises(InvalidProblem, match=r"peak: got 0\.003, allowed: at most 0\.002"):
        plan(two_peaks, 3000, peak=3e-3)
    assert "above" in plan(two_peaks, 3000, peak=3e-3, extrapolate=True).warnings[0]


def test_settings_are_in_the_law_file(two_peaks: Fit, tmp_path: Path) -> None:
    law = NormLaw(weight_decay=0.03, coupled=False, init_std=0.01)
    found = replace(two_peaks, law=law.for_runs(two_peaks.scale, [3.0]))
    save_fit(found, tmp_path / "law.json")
    back = load_fit(tmp_path / "law.json")
    assert back.law == found.law and back.notes == found.notes
    schedule = ramped(5000, 100, SHAPES["wsd"])
    np.testing.assert_array_equal(predict(back, schedule).upper, predict(found, schedule).upper)


# Real runs at several peaks: a model that no prior was chosen without, so that this pins the code


def llama(*names: str) -> list[Run]:
    return read_runs([str(LLAMA / f"{name}.csv") for name in names], warmup=300)


def test_pilots_at_two_peaks_say_what_a_third_gives() -> None:
    found = fit(llama("cos0_25000_0.0005", "linear0.2_25000_0.002"))
    assert "weight decay 0.1: the one of" in found.notes[0]
    for run in llama("cos0_25000_0.001", "cos0_50000_0.001", "linear0.2_50000_0.001"):
        told = predict(found, run.schedule, run.steps[-1:])
        assert abs(told.loss[0] - run.loss[-1]) < 9e-3 and told.warnings == ()
        assert told.lower[0] < run.loss[-1] < told.upper[0]
    old = fit(llama("cos0_25000_0.0005", "linear0.2_25000_0.002"), fsl())
    assert old.misfit > 3.0 * found.misfit


def test_a_made_law_is_that_of_its_units() -> None:
    assert made_law("fsl-norm").held == {
        "decay": pytest.approx(THETA[NAMES.index("decay")], abs=1e-2)
    }
