"""Bound of LMO methods: closed forms, numerical minima, transfer, the flat valley."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from scipy.optimize import minimize as scipy_minimize
from scipy.optimize import minimize_scalar

from optsched import InvalidProblem
from optsched.cli import main
from optsched.plots.lmo import plot_valley
from optsched.rules.lmo.bound import EXPONENTS
from optsched.rules.lmo.transfer import transfer
from optsched.rules.lmo.tuned import LMOBound, Tuning, closed_form, minimise
from optsched.rules.lmo.valley import fitted_exponents, valley

PROBLEM = LMOBound(gap=3.0, smoothness=0.5, noise=2.0)
HELD: dict[tuple[str, str], dict[str, float]] = {
    ("fixed-momentum", "tokens"): {"momentum": 0.9},
    ("fixed-momentum", "steps"): {"momentum": 0.9, "batch": 64.0},
    ("fixed-batch", "tokens"): {"batch": 64.0},
    ("fixed-batch", "steps"): {"batch": 64.0},
    ("joint", "tokens"): {},
    ("joint", "steps"): {},
}
# Of the issue and of the paper; None where it says nothing.
STATED = {
    ("fixed-momentum", "tokens"): (-1 / 4, 0.0, 1 / 2, -1 / 4),
    ("fixed-momentum", "steps"): (-1 / 2, 0.0, 0.0, None),
    ("fixed-batch", "tokens"): (-3 / 4, -1 / 2, 0.0, -1 / 4),
    ("fixed-batch", "steps"): (-3 / 4, -1 / 2, 0.0, -1 / 4),
    ("joint", "tokens"): (-7 / 12, -1 / 3, 1 / 6, -1 / 4),
}
CONSTANT = st.floats(1e-3, 1e3)


def bound(p: LMOBound, eta: float, alpha: float, batch: float, steps: float) -> float:
    """Kovalev, arXiv 2503.12645, Theorem 2, with sigma over the root of the batch."""
    sigma = p.noise / batch**0.5
    first = p.gap / (eta * steps) + 2 * sigma / (alpha * steps) + 2 * alpha**0.5 * sigma
    return first + 3 * p.smoothness * eta / 2 + 2 * p.smoothness * eta / alpha


@given(CONSTANT, CONSTANT, CONSTANT, st.floats(1e-3, 1.0), st.floats(1e-3, 1e3))
def test_bound(gap: float, smooth: float, noise: float, alpha: float, eta: float) -> None:
    p = LMOBound(gap, smooth, noise)
    expected = bound(p, eta, alpha, 32.0, 500.0)
    assert float(p(eta, alpha, 32.0, 500.0)) == pytest.approx(expected, rel=1e-12)
    assert p.terms(eta, [alpha, 0.5], 32.0, 500.0).shape == (5, 2)


@pytest.mark.parametrize(("regime", "budget"), list(EXPONENTS))
def test_fitted_exponents_are_those_of_the_closed_form(regime: str, budget: str) -> None:
    budgets = np.geomspace(1e10, 1e15, 6)
    held = HELD[regime, budget]
    fits = fitted_exponents(PROBLEM, regime, budgets, budget=budget, **held)
    forms = [closed_form(PROBLEM, regime, **{budget: x}, **held) for x in budgets]  # type: ignore[arg-type]
    for name, expected in EXPONENTS[regime, budget]._asdict().items():
        assert -fits[name].exponent == pytest.approx(float(expected), abs=0.01)
        logs = np.log([getattr(form, name) for form in forms])
        slope = np.polyfit(np.log(budgets), logs, 1)[0]
        assert slope == pytest.approx(float(expected), abs=0.01)


@pytest.mark.parametrize(("regime", "budget"), list(STATED))
def test_exponents_are_those_of_the_paper(regime: str, budget: str) -> None:
    for ours, stated in zip(EXPONENTS[regime, budget], STATED[regime, budget], strict=True):
        assert stated is None or float(ours) == pytest.approx(stated, abs=1e-15)


def test_joint_in_steps_is_joint_in_tokens() -> None:
    """K = T / B ~ T^(5/6)."""
    tokens, steps = EXPONENTS["joint", "tokens"], EXPONENTS["joint", "steps"]
    assert [s * (1 - tokens.batch) for s in steps] == list(tokens)
    for tune in (closed_form, minimise):
        one = tune(PROBLEM, "joint", tokens=1e9)
        same = tune(PROBLEM, "joint", steps=one.steps)
        assert same.budget == "steps" and same.tokens == pytest.approx(1e9, rel=1e-6)
        assert (same.lr, same.alpha) == pytest.approx((one.lr, one.alpha), rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(CONSTANT, CONSTANT, CONSTANT, st.floats(3.0, 20.0), st.sampled_from(sorted(HELD)))
def test_nothing_beats_the_minimum(
    gap: float, smooth: float, noise: float, log_budget: float, where: tuple[str, str]
) -> None:
    """Neither steps aside nor another minimiser, which starts elsewhere, go below."""
    regime, budget = where
    p, held = LMOBound(gap, smooth, noise), HELD[where]
    if where == ("joint", "steps"):
        return  # no minimum at given steps: see test_more_batch_is_better_at_given_steps
    found = minimise(p, regime, **{budget: 10.0**log_budget}, **held)  # type: ignore[arg-type]
    best = bound(p, found.lr, found.alpha, found.batch, found.steps)
    assert found.bound == pytest.approx(best, rel=1e-12)
    free = [True, "momentum" not in held, "batch" not in held]
    start = np.log([found.lr, found.alpha, found.batch])

    def value(moved: np.ndarray) -> float:
        x = start.copy()
        x[free] += moved
        x[1] = min(x[1], 0.0)
        eta, alpha, batch = np.exp(x)
        return bound(p, eta, alpha, batch, found.tokens / batch)

    rng = np.random.default_rng(0)
    for scale in (1e-3, 0.1, 2.0):
        for moved in rng.normal(0.0, scale, (20, sum(free))):
            assert value(moved) >= best * (1.0 - 1e-12)
    options = {"xatol": 1e-6, "fatol": 1e-10, "maxiter": 4000}
    away = scipy_minimize(value, np.ones(sum(free)), method="Nelder-Mead", options=options)
    assert away.fun >= best * (1.0 - 1e-9)


def test_minimum_is_reached_by_another_minimiser() -> None:
    found = minimise(PROBLEM, "joint", tokens=1e8)

    def value(x: np.ndarray) -> float:
        eta, alpha, batch = np.exp(x)
        return np.log(bound(PROBLEM, eta, alpha, batch, 1e8 / batch))

    options = {"xatol": 1e-9, "fatol": 1e-15, "maxiter": 20_000, "maxfev": 20_000}
    start = np.array([-5.0, -2.0, 2.0])
    other = scipy_minimize(value, start, method="Nelder-Mead", options=options)
    mine = np.log([found.lr, found.alpha, found.batch])
    assert other.x == pytest.approx(mine, abs=2e-3)


@given(st.floats(0.0, 0.999), st.floats(1e2, 1e15))
@settings(deadline=None)
def test_fixed_momentum_is_exact(momentum: float, tokens: float) -> None:
    form = closed_form(PROBLEM, "fixed-momentum", tokens=tokens, momentum=momentum)
    found = minimise(PROBLEM, "fixed-momentum", tokens=tokens, momentum=momentum)
    assert (form.lr, form.batch) == pytest.approx((found.lr, found.batch), rel=1e-6)
    assert form.bound == pytest.approx(found.bound, rel=1e-10)


def test_best_lr() -> None:
    for alpha, batch in ((0.01, 8.0), (0.5, 100.0)):

        def value(x: float, a: float = alpha, b: float = batch) -> float:
            return bound(PROBLEM, float(np.exp(x)), a, b, 1e6 / b)

        found: Any = minimize_scalar(value, (-10.0, 0.0), options={"xtol": 1e-10})
        best = float(PROBLEM.best_lr(alpha, batch, 1e6))
        assert best == pytest.approx(float(np.exp(found.x)), rel=1e-6)


def test_more_batch_is_better_at_given_steps() -> None:
    bounds = [
        minimise(PROBLEM, "fixed-batch", steps=1e4, batch=float(b)).bound
        for b in np.geomspace(1.0, 1e14, 8)
    ]
    assert np.all(np.diff(bounds) < 0.0)
    assert bounds[-1] == pytest.approx(PROBLEM.limit(1e4), rel=1e-3)
    assert bounds[-1] > PROBLEM.limit(1e4)


def test_constraints_hold() -> None:
    short = minimise(PROBLEM, "fixed-batch", tokens=1e3, batch=1e3)
    assert short.alpha == 1.0 and short.momentum == 0.0
    noiseless = LMOBound(noise=1e-6)
    assert minimise(noiseless, "joint", tokens=1e6).batch < 1.0
    held = minimise(noiseless, "joint", tokens=1e6, min_batch=1.0)
    fixed = minimise(noiseless, "fixed-batch", tokens=1e6, batch=1.0)
    assert (held.batch, held.bound) == pytest.approx((1.0, fixed.bound), rel=1e-9)


def test_valley_is_flat_along_alpha_over_batch() -> None:
    problem, tokens = LMOBound(), 1e16
    shown = valley(problem, tokens, np.geomspace(1.0, 1e4, 9))
    assert shown.loss.max() < 1e-3 and shown.loss.min() >= -1e-12
    assert np.polyfit(np.log(shown.batch), np.log(shown.alpha), 1)[0] == pytest.approx(1, abs=0.01)
    assert np.polyfit(np.log(shown.batch), np.log(shown.lr), 1)[0] == pytest.approx(1, abs=0.01)
    # Across it, it is not: the same batch at another momentum.
    across = problem(problem.best_lr(shown.alpha * 10, shown.batch, tokens), shown.alpha * 10,
                     shown.batch, tokens / shown.batch)  # fmt: skip
    assert np.all(across > 1.5 * shown.best)
    low, high = shown.within(1e-5)
    assert 1.0 <= low < high < 1e4
    with pytest.raises(InvalidProblem, match="at least"):
        shown.within(1e-300)


def test_plot_shows_the_valley() -> None:
    ax = Figure().subplots()
    shown = valley(LMOBound(), 1e10, np.geomspace(1.0, 1e3, 7))
    assert plot_valley(ax, shown, point=(10.0, 1e-3)) is ax
    assert ax.get_xscale() == ax.get_yscale() == "log"
    best = ax.lines[0]
    assert np.array_equal(np.asarray(best.get_ydata()), shown.alpha)
    assert "B" in ax.get_xlabel() and "momentum" in ax.get_ylabel()


@pytest.mark.parametrize(
    ("regime", "momentum", "lr", "batch"),
    [("fixed-batch", 0.975, 3.54e-4, 64.0), ("joint", 0.9685, 4.454e-4, 80.6)],
)
def test_published_example(regime: str, momentum: float, lr: float, batch: float) -> None:
    moved = transfer(1e-3, 0.95, 64, regime=regime, from_tokens=1e9, to_tokens=4e9)
    assert moved.momentum == pytest.approx(momentum, abs=5e-5)
    assert moved.lr == pytest.approx(lr, rel=2e-3)
    assert moved.batch == pytest.approx(batch, rel=1e-3)


@pytest.mark.parametrize(("regime", "budget"), list(EXPONENTS))
def test_transfer_carries_one_optimum_to_the_next(regime: str, budget: str) -> None:
    """From the numerical minimum at one budget to that at another."""
    held, ends = HELD[regime, budget], (1e11, 1e14)
    start, end = (minimise(PROBLEM, regime, **{budget: x}, **held) for x in ends)  # type: ignore[arg-type]
    pair: dict[str, Any] = {f"from_{budget}": ends[0], f"to_{budget}": ends[1]}
    moved = transfer(start.lr, start.momentum, start.batch, regime=regime, **pair)
    assert moved.lr == pytest.approx(end.lr, rel=0.01)
    assert moved.alpha == pytest.approx(end.alpha, rel=0.01)
    assert moved.batch == pytest.approx(end.batch, rel=0.01)
    assert moved.steps == pytest.approx(end.steps, rel=0.01)
    assert not [line for line in moved.warnings if "neglected" in line]


def test_the_problem_of_a_tuned_run() -> None:
    tuned = closed_form(PROBLEM, "joint", tokens=1e12)
    again = LMOBound.from_tuned(tuned.lr, tuned.momentum, tuned.batch, 1e12)
    assert again.gap * PROBLEM.smoothness == pytest.approx(PROBLEM.gap, rel=1e-9)
    assert again.noise * PROBLEM.smoothness == pytest.approx(PROBLEM.noise, rel=1e-9)


def test_warnings_say_how_much_is_neglected() -> None:
    """They are ratios of terms of the bound, at the run's own optimum."""
    moved = transfer(1e-2, 0.5, 64, regime="fixed-batch", from_steps=400, to_steps=500)
    (curved,) = moved.warnings
    p = LMOBound.from_tuned(1e-2, 0.5, 64, 64 * 400)
    terms = p.terms(1e-2, 0.5, 64, 400)
    assert f"{100 * terms[3] / terms[4]:.0f} %" in curved  # 38 %
    short = transfer(1e-2, 0.99, 64, regime="fixed-batch", from_steps=1000, to_steps=1000)
    p = LMOBound.from_tuned(1e-2, 0.99, 64, 64 * 1000)
    terms = p.terms(1e-2, 0.01, 64, 1000)
    assert f"{100 * terms[1] / terms[2]:.0f} %" in short.warnings[0]
    far = transfer(1e-3, 0.95, regime="fixed-batch", from_tokens=1e6, to_tokens=1e12)
    assert far.warnings[-1].startswith("carried over a factor of 1e+06")


GOOD: dict[str, Any] = {"regime": "joint", "from_tokens": 1e9, "to_tokens": 1e10}


@pytest.mark.parametrize(
    ("values", "changes", "field"),
    [
        ((1e-3, 1.0, 64), {}, "momentum"),
        ((1e-3, -0.1, 64), {}, "momentum"),
        ((0.0, 0.9, 64), {}, "lr"),
        ((1e-3, 0.9, -64), {}, "batch"),
        ((1e-3, 0.9, None), {}, "batch"),
        ((1e-3, 0.9, 64), {"regime": "both"}, "regime"),
        ((1e-3, 0.9, 64), {"to_tokens": None}, "to_tokens"),
        ((1e-3, 0.9, 64), {"from_tokens": 0.5}, "from_tokens"),
        ((1e-3, 0.9, 64), {"from_steps": 10}, "from_tokens"),
        ((1e-3, 0.9, 64), {"to_tokens": 1e5}, "to_tokens"),  # alpha above 1
        ((1e-3, 0.9999, 1.5), {"to_tokens": 1e7}, "to_tokens"),  # batch below 1
        ((1e-3, 0.99999, 1e7), {"to_tokens": 1e6}, "to_tokens"),  # less than one step
    ],
)
def test_bad_transfers(values: Any, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidProblem) as caught:
        transfer(*values, **(GOOD | changes))
    assert caught.value.field == field


def test_refusal_names_the_shortest_budget() -> None:
    with pytest.raises(InvalidProblem, match=r"at least 1e\+06"):
        transfer(1e-3, 0.9, 64, regime="joint", from_tokens=1e9, to_tokens=1e5)
    edge = transfer(1e-3, 0.9, 64, regime="joint", from_tokens=1e9, to_tokens=1.000001e6)
    assert edge.alpha == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"regime": "none", "tokens": 1e9}, "regime"),
        ({"regime": "joint"}, "tokens"),
        ({"regime": "joint", "tokens": 1e9, "steps": 1e5}, "tokens"),
        ({"regime": "joint", "tokens": 1e9, "batch": 3}, "batch"),
        ({"regime": "fixed-batch", "tokens": 1e9}, "batch"),
        ({"regime": "fixed-batch", "tokens": 1e9, "batch": -1}, "batch"),
        ({"regime": "fixed-momentum", "tokens": 1e9}, "momentum"),
        ({"regime": "fixed-momentum", "tokens": 1e9, "momentum": 1.0}, "momentum"),
        ({"regime": "joint", "tokens": 0.0}, "tokens"),
    ],
)
@pytest.mark.parametrize("tune", [closed_form, minimise])
def test_bad_tunings(tune: Any, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidProblem) as caught:
        tune(PROBLEM, **changes)
    assert caught.value.field == field


def test_closed_form_refuses_budgets_it_is_not_for() -> None:
    with pytest.raises(InvalidProblem, match="alpha"):
        closed_form(PROBLEM, "fixed-batch", tokens=10.0, batch=10.0)
    for field in ("gap", "smoothness", "noise"):
        with pytest.raises(InvalidProblem) as caught:
            LMOBound(**{field: -1.0})
        assert caught.value.field == field


def test_summary() -> None:
    tuned = closed_form(PROBLEM, "joint", tokens=1e9)
    assert isinstance(tuned, Tuning)
    numbers = json.loads(json.dumps(tuned.summary()))
    assert numbers["momentum"] == 1.0 - numbers["alpha"]
    assert numbers["steps"] * numbers["batch"] == pytest.approx(1e9)


LMO = ["rules", "lmo", "--lr", "1e-3", "--momentum", "0.95"]
TOKENS = ["--from-tokens", "1e9", "--to-tokens", "1e11"]


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    argv = [*LMO, "--regime", "joint", *TOKENS, "--batch", "512"]
    assert main([*argv, "--json"]) == 0
    numbers = json.loads(capsys.readouterr().out)
    assert numbers.keys() >= {"lr", "momentum", "batch", "regime"}
    assert numbers["regime"] == "joint"
    assert numbers["lr"] == pytest.approx(1e-3 * 100 ** (-7 / 12))
    assert numbers["momentum"] == pytest.approx(1 - 0.05 * 100 ** (-1 / 3))
    assert numbers["batch"] == pytest.approx(512 * 100 ** (1 / 6))
    figure = tmp_path / "valley.png"
    assert main([*argv, "--plot", str(figure)]) == 0
    assert figure.stat().st_size > 10_000
    assert "1 - momentum" in capsys.readouterr().out
    assert main([*argv, "--plot", str(figure)]) == 2  # exists


@pytest.mark.parametrize(
    ("argv", "field"),
    [
        (["--regime", "joint", *TOKENS], "batch"),
        (TOKENS, "regime"),
        (["--regime", "joint", "--batch", "8"], "from_tokens"),
        (["--regime", "joint", "--batch", "8", *TOKENS, "--momentum", "1"], "momentum"),
        (["--regime", "fixed-batch", *TOKENS, "--plot", "x.png"], "plot"),
    ],
)
def test_bad_commands(capsys: pytest.CaptureFixture[str], argv: list[str], field: str) -> None:
    assert main([*LMO, *argv]) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith(f"optsched: --{field.replace('_', '-')}: ")
    assert shown.err.count("\n") == 1
    assert not Path("x.png").exists()
