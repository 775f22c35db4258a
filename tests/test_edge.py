"""The edge of stability: closed forms against iterated optimisers, and warm-ups below it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched import cli
from optsched.errors import InvalidProblem
from optsched.rules.stability import SharpnessTrace, UpdateRule, stable_rate, stable_warmup
from optsched.schedules.schedule import Schedule

MOMENTA = st.floats(0.0, 0.99)


def radius(rule: UpdateRule, eta: float, lam: float) -> float:
    """Spectral radius of one step on a quadratic loss, built by taking the step.

    Columns are the images of a unit error and of a unit momentum.
    """
    beta, decay = rule.momentum, rule.weight_decay

    def step(w: float, v: float) -> tuple[float, float]:
        g = lam * w + (decay * w if rule.decay == "coupled" else 0.0)
        v = beta * v + (g if rule.convention == "sum" else (1.0 - beta) * g)
        move = v
        if rule.optimiser == "gd":
            move = g
        elif rule.optimiser == "nesterov":
            move = beta * v + (g if rule.convention == "sum" else (1.0 - beta) * g)
        shrink = 1.0 - eta * decay if rule.decay == "decoupled" else 1.0
        return shrink * w - eta * move, v

    matrix = np.array([step(1.0, 0.0), step(0.0, 1.0)]).T
    return float(np.abs(np.linalg.eigvals(matrix)).max())


@given(
    st.sampled_from(["gd", "heavy-ball", "nesterov"]),
    MOMENTA,
    st.sampled_from(["average", "sum"]),
    st.sampled_from([0.0, 0.01, 3.0]),
    st.sampled_from(["coupled", "decoupled"]),
    st.floats(1e-3, 1e3),
)
def test_limit_is_where_the_iteration_turns_unstable(
    optimiser: Any, beta: float, convention: Any, omega: float, decay: Any, lam: float
) -> None:
    beta = 0.0 if optimiser == "gd" else beta
    rule = UpdateRule(optimiser, beta, convention, omega, decay)
    limit = rule.limit(lam)
    assert radius(rule, limit * (1.0 - 1e-4), lam) < 1.0 + 1e-12
    assert radius(rule, limit * (1.0 + 1e-4), lam) > 1.0
    assert rule.sharpest(limit) == pytest.approx(lam, rel=1e-6, abs=1e-9 * omega)


def test_stated_edges() -> None:
    assert UpdateRule().edge == 2.0
    assert UpdateRule("heavy-ball", 0.9).edge == pytest.approx(38.0)
    assert UpdateRule("heavy-ball", 0.9, "sum").edge == pytest.approx(3.8)
    assert UpdateRule("nesterov", 0.9, "sum").edge == pytest.approx(3.8 / 2.8)
    assert UpdateRule("adamw", 0.9).edge == pytest.approx(38.0)
    assert UpdateRule("adamw", 0.9).preconditioned
    assert UpdateRule("adamw", 0.9).limit(40.0) == pytest.approx(0.95)


@pytest.mark.parametrize("nesterov", [False, True])
def test_edge_of_torch_and_optax_sgd(nesterov: bool) -> None:
    """The sum convention is that of optax.sgd (and torch.optim.SGD)."""
    optax = pytest.importorskip("optax")
    rule = UpdateRule("nesterov" if nesterov else "heavy-ball", 0.8, "sum")
    for factor, grows in ((0.97, False), (1.03, True)):
        optimiser = optax.sgd(factor * rule.limit(5.0), momentum=0.8, nesterov=nesterov)
        w = jnp.ones(1)
        state = optimiser.init(w)
        for _ in range(400):
            change, state = optimiser.update(5.0 * w, state)
            w = w + change
            if abs(w[0]) > 1e6:
                break
        assert (abs(w[0]) > 1.0) == grows


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_adamw_at_a_frozen_preconditioner(decay: float) -> None:
    """AdamW's own update on a quadratic, v held: it turns unstable at the limit."""
    rng = np.random.default_rng(0)
    a = rng.normal(size=(6, 6))
    h, p = a @ a.T, rng.uniform(0.5, 3.0, 6)
    rule = UpdateRule("adamw", 0.9, weight_decay=decay)
    lam = float(np.linalg.eigvals(h / p[:, None]).real.max())
    for factor, grows in ((0.98, False), (1.02, True)):
        eta, w, m = factor * rule.limit(lam), np.ones(6), np.zeros(6)
        for _ in range(3000):
            m = 0.9 * m + 0.1 * (h @ w)
            w = (1.0 - eta * decay) * w - eta * m / p
            if np.linalg.norm(w) > 1e6:
                break
        assert (np.linalg.norm(w) > 1.0) == grows


def test_agrees_with_the_model_of_power_law_features() -> None:
    from optsched import PowerLawSpectrum
    from optsched.model.stability import deterministic_limit

    spectrum = PowerLawSpectrum(2.0, 1.5, 100)
    for rule, nu in ((UpdateRule("heavy-ball", 0.7), 1.0), (UpdateRule("nesterov", 0.7), 0.7)):
        assert rule.limit(spectrum.largest) == pytest.approx(deterministic_limit(spectrum, 0.7, nu))


def test_rate_of_a_trace_with_its_uncertainty() -> None:
    trace = SharpnessTrace([0, 10, 20], [10.0, 40.0, 39.0], [1.0, 2.0, 4.0])
    found = stable_rate(trace, UpdateRule())
    assert (found.step, found.sharpness, found.error) == (10, 40.0, 2.0)
    assert found.rate == pytest.approx(0.05)
    assert found.low == pytest.approx(2.0 / 43.0)
    assert found.high == pytest.approx(2.0 / 38.0)


@given(
    st.lists(st.floats(1e-2, 1e4), min_size=1, max_size=12),
    st.integers(1, 30),
    st.floats(0.1, 0.99),
    st.booleans(),
)
def test_warmup_stays_below_and_is_the_largest(
    values: list[float], gap: int, margin: float, monotone: bool
) -> None:
    steps = gap * np.arange(len(values))
    trace = SharpnessTrace(steps, values, 0.1 * np.array(values))
    schedule = stable_warmup(trace, margin=margin, monotone=monotone)
    k = np.arange(schedule.horizon)
    lam = 1.1 * np.interp(k, steps, values)
    product = schedule.eta * lam
    assert np.all(product <= 2.0 * margin * (1.0 + 1e-12)) and np.all(schedule.eta > 0.0)
    if not monotone:
        np.testing.assert_allclose(product, 2.0 * margin)
        return
    assert np.all(np.diff(schedule.eta) >= 0.0)
    # Nothing is left: every rate is at the limit of its own step or of a later one.
    later = [np.max(lam[i:]) * schedule.eta[i] for i in k]
    np.testing.assert_allclose(later, 2.0 * margin)


def test_warmup_options() -> None:
    trace = SharpnessTrace([0, 50, 100], [100.0, 20.0, 10.0])
    long = stable_warmup(trace, peak=0.05, horizon=300)
    assert long.horizon == 300 and long.peak == 0.05 and long(299) == 0.05
    assert long(0) == pytest.approx(0.9 * 2.0 / 100.0)
    adam = UpdateRule("adamw", 0.9)
    assert stable_warmup(trace, adam)(0) == pytest.approx(0.9 * 38.0 / 100.0)
    assert stable_warmup(trace, adam, c=1.0)(0) == pytest.approx(0.9 / 100.0)
    # The digest of the schedule tells two edges apart.
    assert stable_warmup(trace).metadata["edge"] == 2.0


def test_trace_at_the_edge() -> None:
    rule = UpdateRule()
    assert not SharpnessTrace([0, 1], [10.0, 11.0]).at_edge(rule)
    assert not SharpnessTrace([0, 1], [10.0, 11.0], lr=[0.1, 0.1]).at_edge(rule)
    assert SharpnessTrace([0, 1], [10.0, 19.0], lr=[0.1, 0.1]).at_edge(rule)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: UpdateRule("lion"), "optimiser: got 'lion'"),  # type: ignore[arg-type]
        (lambda: UpdateRule("heavy-ball", 1.0), "momentum: got 1.0, allowed: a number in"),
        (lambda: UpdateRule("heavy-ball", -0.1), "momentum: got -0.1"),
        (lambda: UpdateRule("gd", 0.9), "momentum: got 0.9, allowed: 0 with gd"),
        (lambda: UpdateRule("adam", 0.9, "sum"), "convention: got 'sum'"),
        (lambda: UpdateRule("gd", 0.0, "mean"), "convention: got 'mean'"),  # type: ignore[arg-type]
        (lambda: UpdateRule(weight_decay=-1.0), "weight_decay: got -1.0"),
        (lambda: UpdateRule("adam", 0.9, weight_decay=0.1), "weight_decay: got 0.1"),
        (lambda: UpdateRule(decay="both"), "decay: got 'both'"),  # type: ignore[arg-type]
        (lambda: UpdateRule().limit(-1.0), "sharpness: got -1.0"),
        (lambda: UpdateRule().limit(np.nan), "sharpness: got nan"),
        (lambda: UpdateRule().sharpest(0.0), "rate: got 0.0"),
        (lambda: SharpnessTrace([0, 0], [1.0, 1.0]), "step: got 0"),
        (lambda: SharpnessTrace([-1], [1.0]), "step: got -1"),
        (lambda: SharpnessTrace([], []), "step: got 'shape"),
        (lambda: SharpnessTrace([0, 1], [1.0, -2.0]), "sharpness: got -2.0"),
        (lambda: SharpnessTrace([0, 1], [1.0]), "sharpness: got 'shape"),
        (lambda: SharpnessTrace([0], [1.0], 1.0), "error: got 1.0, allowed: below"),
        (lambda: SharpnessTrace([0], [1.0], lr=[-1.0]), "lr: got -1.0"),
        (lambda: stable_warmup(SharpnessTrace([0], [1.0]), margin=1.0), "margin: got 1.0"),
        (lambda: stable_warmup(SharpnessTrace([0], [1.0]), c=0.0), "c: got 0.0"),
        (lambda: stable_warmup(SharpnessTrace([0], [1.0]), peak=np.inf), "peak: got inf"),
        (lambda: stable_warmup(SharpnessTrace([0], [1.0]), horizon=0), "horizon: got 0"),
    ],
)
def test_bad_input(make: Any, text: str) -> None:
    with pytest.raises(InvalidProblem, match=text):
        make()


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.main(["rules", "stability", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_command(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    adamw = ["--optimiser", "adamw", "--momentum", "0.9"]
    found = run(capsys, "--sharpness", "40", *adamw)
    assert found["lr"] == pytest.approx(0.95) and found["preconditioned"]
    found = run(capsys, "--sharpness", "40", "--sharpness-error", "2", "--lr", "0.051")
    assert (found["stable"], found["lr_low"]) == (False, pytest.approx(2.0 / 42.0))
    assert found["sharpest"] == pytest.approx(2.0 / 0.051)


def test_command_on_a_trace(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    log, output = tmp_path / "log.csv", tmp_path / "warmup.csv"
    log.write_text(
        "step,lr,loss,sharpness,sharpness_error\n0,.01,9,100,1\n5,.01,8,,\n10,.01,7,20,.5\n"
    )
    found = run(capsys, "--trace", str(log), "--output", str(output), "--horizon", "15")
    assert (found["step"], found["at_edge"], found["horizon"]) == (0, False, 15)
    assert found["lr_low"] == pytest.approx(2.0 / 101.0)
    warmup = Schedule.load(output)
    assert warmup.horizon == 15
    assert warmup(0) == pytest.approx(1.8 / 101.0) and warmup(14) == pytest.approx(1.8 / 20.5)
    # A rate near the edge is noticed.
    log.write_text("step,lr,loss,sharpness\n0,.01,9,100\n10,.01,7,190\n")
    assert run(capsys, "--trace", str(log))["at_edge"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "--sharpness: got nothing, allowed: exactly one of"),
        (["--sharpness", "1", "--trace", "log.csv"], "--sharpness: got 1.0, allowed: exactly"),
        (["--sharpness", "1", "--output", "w.csv"], "--output: got 'w.csv'"),
        (["--sharpness", "1", "--horizon", "9"], "--horizon: got 9.0, allowed: none without"),
        (["--sharpness", "1", "--lr", "-1"], "--lr: got -1.0"),
        (["--trace", "nan.csv"], "nan.csv: sharpness: got nan, allowed: finite numbers > 0"),
        (["--sharpness", "1", "--optimiser", "adamw"], "--momentum: got nothing"),
        (["--sharpness", "1", "--optimiser", "adamw", "--momentum", "1"], "--momentum: got 1.0"),
        (["--sharpness", "-1"], "--sharpness: got -1.0"),
        (["--sharpness", "many"], "--sharpness: got 'many'"),
        (["--trace", "none.csv"], "none.csv: cannot be read"),
        (["--trace", "empty.csv"], "column sharpness: empty"),
        (["--trace", "missing.csv"], "no column 'sharpness'"),
        (["--trace", "negative.csv"], "negative.csv: sharpness: got -3.0, allowed: finite"),
        (["--trace", "words.csv"], "line 2: sharpness is 'x', expected a number or nothing"),
        (
            ["--trace", "good.csv", "--sharpness-error", "1"],
            "--sharpness-error: got 1.0, allowed: none with --trace",
        ),
        (["--trace", "good.csv", "--output", "w.txt"], "suffix '.txt'"),
    ],
)
def test_command_says_what_is_wrong(
    arguments: list[str],
    text: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, body in (
        ("empty", "step,sharpness,lr\n0,,1\n"),
        ("missing", "step,lr\n0,1\n"),
        ("negative", "step,sharpness\n0,-3\n"),
        ("nan", "step,sharpness\n0,3\n1,nan\n"),
        ("words", "step,sharpness\n0,x\n"),
        ("order", "step,sharpness\n0,1\n0,2\n"),
        ("good", "step,sharpness\n0,1\n"),
    ):
        (tmp_path / f"{name}.csv").write_text(body)
    assert cli.main(["rules", "stability", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out and text in err and err.count("\n") == 1
    assert not (tmp_path / "w.csv").exists()
