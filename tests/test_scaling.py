"""Exponents of power laws, with errors that are honest; studies along horizons."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from optsched import InvalidProblem, Problem, Schedule, SolveFailed, solve
from optsched.cli import main
from optsched.commands.options import Grid, Horizons
from optsched.control.solution import Status
from optsched.exponents import fit_exponent
from optsched.plots.scaling import plot_scaling, plot_scaling_loss, plot_scaling_slopes
from optsched.schedules.families import FAMILIES, linear
from optsched.studies import finders
from optsched.studies import scaling as module
from optsched.studies.scaling import (
    SCHEDULES,
    Scaling,
    ScalingPoint,
    annealing_time,
    scaling,
    scaling_theory,
)

HORIZONS = np.geomspace(1e2, 1e5, 7)
LONG = [10**k for k in range(6, 11)]
QUICK = {"gap": 1e3, "replay_steps": 100}
EXPECTED = ("expected", "expected_peak", "expected_annealing")


@cache
def study(a: float, b: float, schedule: str) -> Scaling:
    problem = Problem(a, b, 10, features=math.inf)
    if schedule == "power":
        # Step by step: replays by blocks would compile anew for each number of knots.
        steps = [round(10**k) for k in (4.0, 4.5, 5.0, 5.5, 6.0)]
        return scaling(problem, steps, schedule=schedule, solve_options={"replay_steps": 10**6})
    return scaling(problem, LONG, schedule=schedule, solve_options=QUICK)


def test_a_power_law_is_recovered() -> None:
    fit = fit_exponent(HORIZONS, 3.0 * HORIZONS**-0.7)
    assert fit.exponent == pytest.approx(0.7, abs=1e-12)
    assert fit.stderr < 1e-10
    assert fit.amplitude == pytest.approx(3.0)
    np.testing.assert_allclose(fit.local_slopes, 0.7)
    assert fit.extrapolated == pytest.approx(0.7, abs=1e-10)


@pytest.mark.parametrize("size", [0.01, 0.1])
@pytest.mark.parametrize("points", [4, 7, 13])
def test_scatter_is_covered(points: int, size: float) -> None:
    """Monte Carlo: how often the truth is within one and two standard errors."""
    rng = np.random.default_rng(points)
    horizons = np.geomspace(1e2, 1e5, points)
    off = []
    for _ in range(400):
        loss = horizons**-0.5 * np.exp(size * rng.standard_normal(points))
        fit = fit_exponent(horizons, loss)
        off.append(abs(fit.exponent - 0.5) / fit.stderr)
    assert np.mean(np.array(off) < 1.0) > 0.66
    assert np.mean(np.array(off) < 2.0) > 0.90


def test_stated_errors_are_covered() -> None:
    rng = np.random.default_rng(5)
    errors = np.geomspace(0.01, 0.2, 7)
    off = []
    for _ in range(400):
        loss = HORIZONS**-0.5 * np.exp(errors * rng.standard_normal(7))
        fit = fit_exponent(HORIZONS, loss, errors=errors)
        off.append(abs(fit.exponent - 0.5) / fit.stderr)
    assert np.mean(np.array(off) < 1.0) > 0.66
    assert np.mean(np.array(off) < 2.0) > 0.93


@pytest.mark.parametrize("scatter", [0.0, 1e-3, 1e-2])
def test_corrections_to_scaling_are_covered(scatter: float) -> None:
    """E = T^-p (1 + B T^-w), over p, B and w: points without noise are no proof of a law."""
    rng = np.random.default_rng(0)
    off, far = [], []
    for _ in range(300):
        p, w = rng.uniform(0.2, 0.8), rng.uniform(0.2, 1.0)
        b = rng.uniform(-0.9, 3.0) * 100.0**w  # not small at the shortest horizon
        b = max(b, -0.9 * 100.0**w)
        loss = HORIZONS**-p * (1.0 + b * HORIZONS**-w)
        fit = fit_exponent(HORIZONS, loss * np.exp(scatter * rng.standard_normal(7)))
        off.append(abs(fit.exponent - p) / fit.stderr)
        if not math.isnan(fit.extrapolated):
            far.append(abs(fit.extrapolated - p) / fit.extrapolated_stderr)
    assert np.mean(np.array(off) < 2.0) > 0.95
    assert len(far) > (20 if scatter else 250)
    assert np.mean(np.array(far) < 2.0) > 0.93


def test_slopes_that_turn_have_an_error_that_knows() -> None:
    """Of two corrections of opposite signs the parabola sees no drift."""
    horizons = np.geomspace(1e2, 1e5, 7)
    loss = horizons**-0.7 * (1.0 + 3.0 * horizons**-0.6 - 0.6 * horizons**-0.25)
    fit = fit_exponent(horizons, loss)
    turns = np.sign(np.diff(fit.local_slopes))
    assert turns[0] < 0.0 < turns[-1] or turns[0] > 0.0 > turns[-1]
    assert abs(fit.drift) < fit.spread and abs(fit.exponent - 0.7) < 2.0 * fit.stderr


def _along(low: float, high: float, count: int) -> Scaling:
    steps = np.geomspace(low, high, count).round().astype(int).tolist()
    return scaling(Problem(3.5, 2.0, 10, math.inf), steps, solve_options=QUICK)


def test_slopes_that_turn_are_told_and_have_a_limit() -> None:
    found = _along(100, 1e5, 7)
    assert found.fit is not None
    assert any("do not settle on this range" in line for line in found.warnings)
    assert abs(found.fit.exponent - 5 / 7) < 2.0 * found.fit.stderr
    assert "turn" in found.fit.remark
    assert abs(found.fit.extrapolated - 5 / 7) < found.fit.extrapolated_stderr < 0.02
    assert abs(found.fit.extrapolated - 5 / 7) < abs(found.fit.local_slopes[-1] - 5 / 7)


def test_a_fit_that_theory_contradicts_says_so() -> None:
    found = _along(1e3, 1e5, 5)
    assert found.fit is not None
    (told,) = [line for line in found.warnings if "from theory" in line]
    assert f"{found.fit.exponent - 5 / 7:+.4f} from theory" in told
    assert f"{found.fit.local_slopes[-1] - 5 / 7:+.4f} from it" in told


def test_the_best_power_law_is_scaled_by_the_bound() -> None:
    """min(c, 1) t^-chi, of steps counted from one."""
    for b, loss in ((2.0, 0.002632), (5.0, 0.02203)):
        (point,) = (SCHEDULES["power"](Problem(3.5, b, 1000), {}, None),)
        assert point.excess_loss == pytest.approx(loss, rel=3e-4)
        assert point.tuned is not None
        eta = point.tuned.schedule.eta
        np.testing.assert_allclose(eta, eta[0] * np.arange(1, 1001.0) ** -point.options["chi"])


def test_few_points() -> None:
    two = fit_exponent([10, 100], [1.0, 0.1])
    assert two.exponent == pytest.approx(1.0)
    assert math.isnan(two.stderr)
    assert two.summary()["stderr"] is None
    known = fit_exponent([10, 100], [1.0, 0.1], errors=[0.1, 0.1])
    assert known.stderr == pytest.approx(0.1 * math.sqrt(2.0) / math.log(10.0))
    assert "fewer" in fit_exponent([10, 100, 1000], [1.0, 0.1, 0.02]).remark


def test_short_horizons_can_be_left_out() -> None:
    loss = HORIZONS**-0.5
    loss[0] *= 2.0
    assert fit_exponent(HORIZONS, loss, skip=1).exponent == pytest.approx(0.5)
    assert len(fit_exponent(HORIZONS, loss, skip=1).local_slopes) == 5


@pytest.mark.parametrize(
    ("horizons", "losses", "more", "name"),
    [
        ([100], [1.0], {}, "horizons"),
        ([], [], {}, "horizons"),
        ([10, 100], [1.0], {}, "losses"),
        ([10, 100], [1.0, -0.1], {}, "losses"),
        ([10, 100], [1.0, 0.0], {}, "losses"),
        ([10, 100], [1.0, math.nan], {}, "losses"),
        ([10, 100], ["one", "two"], {}, "losses"),
        ([100, 10], [0.1, 1.0], {}, "horizons"),
        ([10, 10], [0.1, 1.0], {}, "horizons"),
        ([10, 100], [1.0, 0.1], {"skip": 1}, "horizons"),
        ([10, 100], [1.0, 0.1], {"skip": -1}, "skip"),
        ([10, 100], [1.0, 0.1], {"errors": [0.1]}, "errors"),
        ([10, 100], [1.0, 0.1], {"errors": [0.1, 0.0]}, "errors"),
    ],
)
def test_bad_points_are_refused(
    horizons: list[float], losses: Any, more: dict[str, Any], name: str
) -> None:
    with pytest.raises(InvalidProblem, match=f"^{name}: got"):
        fit_exponent(horizons, losses, **more)


@pytest.mark.parametrize("horizons", [[], [100], [100, 10], [100, 100]])
def test_bad_horizons_are_refused(horizons: list[int]) -> None:
    with pytest.raises(InvalidProblem, match="horizons"):
        scaling(Problem(3.5, 2, 10), horizons)
    with pytest.raises(InvalidProblem, match="schedule"):
        scaling(Problem(3.5, 2, 10), [10, 20], schedule="none such")


@pytest.mark.parametrize(
    ("a", "b", "schedule", "exponent"),
    [
        # The parameters of the paper.
        (3.5, 5.0, "optimal", 0.5),
        (3.5, 5.0, "constant", 1.0 / 3.0),
        (3.5, 5.0, "power", 1.0 / 3.0),
        (3.5, 2.0, "optimal", 5.0 / 7.0),
        (3.5, 2.0, "constant", 5.0 / 9.0),
        (3.5, 2.0, "power", 5.0 / 9.0),
        # Shapes that saturate, alpha = min(b, g + 1) = 2, 3, and 2 for both at b = 2.
        (3.5, 5.0, "linear", 0.5),
        (3.5, 5.0, "wsd", 0.5),
        (3.5, 5.0, "cosine", 0.5),
        (3.5, 2.0, "cosine", 5.0 / 7.0),
        # Others; s = 0.375 and 7/6.
        (2.5, 4.0, "optimal", 0.375),
        (2.5, 4.0, "constant", 1.5 / 5.5),
        (2.5, 4.0, "cosine", 0.375),
        (4.5, 3.0, "optimal", 3.5 / 4.5),
        (4.5, 3.0, "constant", 3.5 / 6.5),
        (4.5, 3.0, "linear", 0.7),
    ],
)
def test_exponents_of_the_loss(a: float, b: float, schedule: str, exponent: float) -> None:
    found = study(a, b, schedule)
    assert all(point.converged for point in found.points)
    assert found.fit is not None
    assert found.exponent == pytest.approx(exponent, abs=0.02)
    assert found.fit.local_slopes[-1] == pytest.approx(exponent, abs=0.02)
    assert found.theory["expected"] == pytest.approx(exponent)
    assert abs(found.exponent - exponent) < 2.0 * found.fit.stderr + 2e-4
    assert not found.warnings


def test_a_logarithm_at_the_boundary_is_announced() -> None:
    """Linear at b = 2: T / log T stands where T does, and no power of T describes that."""
    found = study(3.5, 2.0, "linear")
    assert found.fit is not None
    assert found.theory["expected"] - found.exponent > 0.02
    assert "logarithm" in found.warnings[-1]
    steps, losses = found.fit.horizons, found.fit.losses
    # The intrinsic time is T^(4/7).
    corrected = fit_exponent(steps / np.log(steps ** (4.0 / 7.0)), losses)
    assert corrected.exponent == pytest.approx(5.0 / 7.0, abs=0.02)


@pytest.mark.parametrize(
    ("a", "b", "schedule", "peak", "annealing"),
    [
        (3.5, 5.0, "optimal", 0.0, 7.5 / 9.0),
        (3.5, 2.0, "optimal", 3.0 / 7.0, 1.0),
        (2.5, 4.0, "optimal", 0.0, 5.5 / 7.0),
        (4.5, 3.0, "optimal", 1.0 / 3.0, 1.0),
        (3.5, 5.0, "constant", 1.0 / 3.0, None),
        (3.5, 2.0, "constant", 5.0 / 9.0, None),
        (3.5, 2.0, "cosine", 3.0 / 7.0, 1.0),
        (4.5, 3.0, "linear", 0.4, 1.0),
        (2.5, 4.0, "wsd", 0.0, 2.0 * 1.375 / 3.0),
    ],
)
def test_exponents_of_peak_and_annealing(
    a: float, b: float, schedule: str, peak: float, annealing: float | None
) -> None:
    found = study(a, b, schedule)
    told = dict(zip(EXPECTED[1:], (peak, annealing), strict=True))
    for name, value in told.items():
        if value is None:
            assert name not in found.theory and name not in found.exponents
            continue
        fitted, error = found.exponents[name]
        assert found.theory[name] == pytest.approx(value)
        assert fitted == pytest.approx(value, abs=0.05)
        assert abs(fitted - value) < 2.5 * error + 2e-3
    told = json.loads(json.dumps(found.summary(), allow_nan=False))
    assert {"exponent", "stderr", "theory", "local_slopes", "horizons", "excess_loss"} <= set(told)
    assert {"peak_exponent", "peak_stderr", "annealing_exponent", "annealing_stderr"} <= set(told)
    assert told["peak_exponent"] == pytest.approx(peak, abs=0.05)
    assert (told["annealing_exponent"] is None) == (annealing is None)


@pytest.mark.slow
@pytest.mark.parametrize("b", [1.3, 1.7, 2.5, 3.5, 5.0])
@pytest.mark.parametrize("a", [1.5, 2.0, 2.5, 3.5, 5.0])
def test_exponents_over_a_plane(a: float, b: float) -> None:
    for schedule in ("optimal", "constant", "power", "linear", "cosine", "wsd"):
        found = study(a, b, schedule)
        fit, theory = found.fit, found.theory["expected"]
        assert fit is not None and all(point.converged for point in found.points)
        near = abs(found.exponent - theory) < max(0.02, 2.0 * fit.stderr)
        assert near or found.warnings, (schedule, found.exponent, theory)


def test_annealing_time_is_continuous() -> None:
    # Averages over steps: eta_k ~ T - k - 1/2, of which the first is the peak.
    for horizon in (9, 10, 1000):
        middle = annealing_time(linear(horizon, 0.3))
        assert middle == pytest.approx(0.5 * horizon - 0.25, abs=1e-9)
    assert annealing_time(linear(10**15, 0.3)) == pytest.approx(5e14, rel=1e-12)
    assert math.isnan(annealing_time(Schedule.from_array([0.3] * 5)))
    # What counts is where the rate falls below for good.
    dip = Schedule.from_array([1.0, 0.1, 1.0, 1.0, 0.0])
    assert annealing_time(dip) == pytest.approx(1.0)


def test_every_family_can_be_followed() -> None:
    assert {"optimal", "constant", "power", "linear", "cosine", "wsd", *FAMILIES} == set(SCHEDULES)
    problem = Problem(3.5, 2, 10, features=math.inf)
    found = scaling(problem, [1000, 2000], schedule="polynomial", solve_options=QUICK)
    assert found.tuned == ("peak", "warmup", "power", "final")
    best = [solve(problem.replace(horizon=p.horizon), gap=1e3).excess_loss for p in found.points]
    for point, least in zip(found.points, best, strict=True):
        assert least < point.excess_loss < 1.005 * least
        assert point.options["power"] == pytest.approx(2.5, abs=0.7)
    # A start from the horizon before is a short cut, not another answer.
    alone = SCHEDULES["polynomial"](problem.replace(horizon=2000), QUICK, None)
    assert found.points[1].excess_loss == pytest.approx(alone.excess_loss, rel=1e-3)
    assert found.points[1].tuned is not None and alone.tuned is not None
    assert found.points[1].tuned.evaluations < alone.tuned.evaluations


@pytest.mark.parametrize(
    ("changes", "name"),
    [({"controls": ("eta", "beta")}, "control"), ({"eta_min": 0.01}, "eta_min")],
)
def test_families_refuse_what_they_would_ignore(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidProblem, match=f"^{name}: got"):
        scaling(Problem(3.5, 2, 10, **changes), [10, 20], schedule="linear")


def test_theory_of_schedules() -> None:
    hard, easy = Problem(1.5, 4, 10), Problem(3.5, 1.5, 10)
    s = 0.125
    assert scaling_theory(hard, "wsd")["expected_annealing"] == pytest.approx(2 * (1 + s) / 3)
    assert scaling_theory(hard, "cosine")["expected"] == s
    # Below b = 2 no tail is too short, and the whole schedule scales as the optimum's.
    best = scaling_theory(easy)
    for schedule in ("linear", "cosine", "wsd"):
        theory = scaling_theory(easy, schedule)
        assert [theory[name] for name in EXPECTED] == pytest.approx([best[n] for n in EXPECTED])
    assert "expected" not in scaling_theory(easy, "polynomial")
    assert "expected" not in scaling_theory(easy.replace(eta_min=0.01))
    assert scaling_theory(easy.replace(noise=0.0), "linear") == {}


def test_numbers_at_the_end_of_their_range_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def at_end(problem: Problem, options: Any, shorter: Any) -> ScalingPoint:
        ends = ("power",) if problem.horizon > 10 else ()
        return ScalingPoint(problem.horizon, 1.0 / problem.horizon, 1.0, True, "", at_end=ends)

    monkeypatch.setitem(SCHEDULES, "at_end", at_end)
    found = scaling(Problem(3.5, 2, 10), [10, 20, 30, 40], schedule="at_end")
    assert found.warnings == ("power was tuned to an end of its range at T = 20, 30, 40",)


@pytest.mark.parametrize(
    ("text", "horizons"),
    [
        ("1e2:1e8:4", (100, 10**4, 10**6, 10**8)),
        ("1:1e15:2", (1, 10**15)),
        ("1000,3162,1e4", (1000, 3162, 10_000)),
    ],
)
def test_horizons_are_read(text: str, horizons: tuple[int, ...]) -> None:
    assert Horizons().convert(text, None, None) == horizons


def test_grids_are_read() -> None:
    assert Grid().convert("1.2:4:15", None, None)[:3] == (1.2, 1.4, 1.6)
    assert len(Grid().convert("1.2:4:29", None, None)) == 29
    assert Grid().convert("1.5, 2,3", None, None) == (1.5, 2.0, 3.0)
    assert Grid(least=1).convert("2", None, None) == (2.0,)
    for text, allowed in (("4:1:3", "LOW below HIGH"), ("a", "finite"), ("1:inf:3", "finite")):
        with pytest.raises(InvalidProblem, match=allowed):
            Grid().convert(text, None, None)


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", "whole numbers of steps"),
        ("100", "2 horizons or more"),
        ("100:1e4", "three numbers in LOW:HIGH:COUNT"),
        ("1e4:1e2:5", "LOW below HIGH"),
        ("1e4:1e4:5", "LOW below HIGH"),
        ("1e2:1e4:1", "a whole COUNT from 2"),
        ("1e2:1e4:2.5", "a whole COUNT from 2"),
        ("1e2:1e4:x", "a whole COUNT from 2"),
        ("1:3:10", "a lower COUNT: two of 10 horizons round to 1"),
        ("1e2:1e16:3", "whole numbers of steps"),
        ("0:10:3", "whole numbers of steps"),
        ("10.5,20", "whole numbers of steps"),
        ("nan,20", "whole numbers of steps"),
        ("20,10", "horizons that increase"),
        ("10,10", "horizons that increase"),
    ],
)
def test_bad_ranges_are_one_line(
    text: str, allowed: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scaling", "--a", "3.5", "--b", "2", "--horizons", text]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    assert err.startswith(f"optsched: --horizons: got {text!r}, allowed: {allowed}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "--horizons: got nothing"),
        (["--horizons", "10,20", "--skip", "1"], "horizons: got '2 with skip 1'"),
        (["--horizons", "10,20", "--skip", "-1"], "skip: got"),
        (["--horizons", "10,20", "--skip", "0.5"], "skip: got"),
        (["--horizons", "10,20", "--schedule", "best"], "schedule: got 'best'"),
        (["--horizons", "10,20", "--warmup", "15"], "warmup: got"),
        (["--horizons", "10,20", "--plot", "x.txt"], "x.txt"),
    ],
)
def test_bad_input_is_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["scaling", "--a", "3.5", "--b", "2", *options]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1 and message in err


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OPTSCHED_NO_CACHE", "1")
    figure = str(tmp_path / "fit.png")
    line = ["scaling", "--a", "3.5", "--b", "2", "--horizons", "1e3:1e6:4"]
    line += ["--schedule", "constant"]
    assert main([*line, "--plot", figure]) == 0
    shown = capsys.readouterr().out
    for text in ("1,000,000", "loss ~ T^-p", "peak rate ~ T^-q", "tuned: peak", "0.5556"):
        assert text in shown
    assert (tmp_path / "fit.png").stat().st_size > 10_000
    assert main([*line, "--plot", figure]) == 2
    assert "exists" in capsys.readouterr().err
    assert main([*line, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["exponent"] == pytest.approx(0.5546, abs=1e-3)
    assert told["theory"]["expected"] == pytest.approx(5.0 / 9.0)
    assert told["features"] == "inf" and len(told["local_slopes"]) == 3
    page = Path(__file__).parents[1] / "docs" / "cli.md"
    part = page.read_text(encoding="utf-8").split("The JSON object of `scaling --json`")[1]
    table = part.split("\n## ")[0]
    for key in (*told, *told["points"][0], *told["fit"], *told["theory"]):
        assert f"`{key}`" in table, key


def test_too_small_numbers_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    """Features and horizons that bend the slope, in the JSON too."""
    line = ["scaling", "--a", "1.5", "--b", "2", "--horizons", "1e1:1e4:5", "--features", "50"]
    assert main([*line, "--schedule", "constant", "--json"]) == 0
    warnings = json.loads(capsys.readouterr().out)["warnings"]
    assert "N = 50 leaves out" in warnings[0]
    assert "the slope still drifts" in warnings[1]


def test_figures() -> None:
    ax = Figure().subplots()
    found = study(3.5, 2.0, "optimal")
    assert plot_scaling_loss(ax, found) is ax
    assert ax.get_xscale() == ax.get_yscale() == "log"
    names = [text.get_text() for text in ax.get_legend().get_texts()]  # pyright: ignore
    assert names[0] == "optimal schedule" and "0.707" in names[1] and "0.714" in names[2]
    right = Figure().subplots()
    assert plot_scaling_slopes(right, found) is right
    assert len(plot_scaling(found).axes) == 2
    bare = replace(found, fit=None, theory={})
    assert len(plot_scaling(bare).axes) == 2


def test_theory() -> None:
    hard = scaling_theory(Problem(1.5, 4, 10, controls=("eta", "beta", "nu")))
    assert hard["sgd"] == pytest.approx(0.125)
    assert hard["floor"] == pytest.approx(1.0 / 3.0)
    assert hard["growing_memory"] == pytest.approx(0.5 * 7.0 / 16.0)
    assert "expected" not in hard
    # Where the prediction would pass the floor, or in the easy phase, the floor is what is left.
    assert scaling_theory(Problem(3.5, 5, 10))["growing_memory"] == pytest.approx(2.5 / 3.5)
    easy = scaling_theory(Problem(3.5, 2, 10))
    assert easy["growing_memory"] == easy["floor"] == easy["sgd"]
    assert scaling_theory(Problem(3.5, 2, 10, noise=0.0)) == {}


def test_failed_solves_stay_as_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    def sometimes(problem: Problem, options: Any, shorter: Any) -> ScalingPoint:
        if problem.horizon == 20:
            raise SolveFailed("nothing found")
        if problem.horizon == 30:
            return ScalingPoint(30, 5.0, 1.0, False, "KKT residual too large")
        return ScalingPoint(problem.horizon, problem.horizon**-0.5, 1.0, True, "fine")

    monkeypatch.setitem(module.SCHEDULES, "sometimes", sometimes)
    seen: list[ScalingPoint] = []
    problem = Problem(3.5, 2, 10, features=20)
    found = scaling(problem, [10, 20, 30, 40], schedule="sometimes", progress=seen.append)
    assert [point.converged for point in found.points] == [True, False, False, True]
    assert list(found.points) == seen
    assert found.exponent == pytest.approx(0.5)
    assert "nothing found" in found.warnings[0]
    assert "KKT" in found.warnings[1]
    assert "leaves out" not in "".join(found.warnings)
    told = found.summary()
    assert told["excess_loss"][1] is None
    assert told["excess_loss"][2] == 5.0
    assert told["points"][1]["message"] == "nothing found"


def test_left_out_features_are_named() -> None:
    found = scaling(Problem(1.5, 2, 10, features=1000), [100, 200], solve_options={"gap": 1e3})
    assert "leaves out" in found.warnings[0]
    assert "too few" in found.warnings[1]


@pytest.mark.slow
def test_momentum_pays_in_the_hard_phase() -> None:
    """QHM contains heavy ball, and heavy ball SGD: each is better than the one before."""
    losses = [
        solve(Problem(3.5, 5, 300, controls=controls)).excess_loss
        for controls in (("eta", "beta", "nu"), ("eta", "beta"), ("eta",))
    ]
    assert losses[0] < 0.9 * losses[1]
    assert losses[1] < 0.7 * losses[2]


def test_a_failed_solve_starts_again_from_the_horizon_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    starts: list[tuple[int, bool]] = []

    def first_fails(problem: Problem, **options: Any) -> Any:
        starts.append((problem.horizon, "initial" in options))
        found = solve(problem, **options)
        bad = problem.horizon == 400 and "initial" not in options
        return replace(found, status=Status.UNFINISHED) if bad else found

    monkeypatch.setattr(finders, "solve", first_fails)
    found = scaling(Problem(3.5, 2, 10), [200, 400], solve_options={"gap": 1e3})
    assert starts == [(200, False), (400, False), (400, True)]
    assert [point.converged for point in found.points] == [True, True]
    straight = solve(Problem(3.5, 2, 400), gap=1e3).excess_loss
    assert found.points[1].excess_loss == pytest.approx(straight, rel=1e-3)
