"""Collapse, shift and salient direction, on runs of a stated model; the equilibrium of AdamW."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched import BadFile, InvalidProblem
from optsched.cli import main
from optsched.plots.invariance import plot_invariance
from optsched.rules.adamw.equilibrium import decay_time, equilibrium_square, relative_update
from optsched.rules.adamw.invariance import measure_invariance
from optsched.rules.adamw.salient import salient_direction
from optsched.rules.adamw.sweep_runs import SweepRun, read_sweep, sweep_cells

FACTORS = 2.0 ** np.arange(-2, 3)
STEPS = np.unique(np.round(np.geomspace(20, 20_000, 50)))


def sweep(
    shift: float, *, noise: float = 0.0, width: float = 0.5, seeds: int = 1, seed: int = 0
) -> list[SweepRun]:
    """The stated model: L = L0(t) + 0.1 [(1 - s) log eta + s log gamma], s logistic in log t.

    Along equal eta the loss changes by 0.1 s per factor e, along equal gamma by 0.1 (1 - s): the
    shift, where they are equal, is at s = 1/2, at the step ``shift``.
    """
    rng = np.random.default_rng(seed)
    s = 1.0 / (1.0 + (STEPS / shift) ** (-1.0 / width))
    runs = []
    for eta in 1e-3 * FACTORS:
        for decay in 0.1 * FACTORS:
            for i in range(seeds):
                loss = 2.0 + 5.0 * STEPS**-0.4 + 0.1 * (np.log(eta) + s * np.log(decay))
                # Noise of a run: a part that it keeps, and one that comes anew.
                kept, anew = noise * rng.standard_normal(), noise * rng.standard_normal(len(STEPS))
                runs.append(SweepRun(f"{eta}-{decay}-{i}", eta, decay, STEPS, loss + kept + anew))
    return runs


@given(shift=st.floats(100, 5000), width=st.floats(0.2, 1.0))
def test_shift_without_noise(shift: float, width: float) -> None:
    found = measure_invariance(sweep(shift, width=width), resamples=1)
    assert found.shift == pytest.approx(shift, rel=0.03)


@pytest.mark.parametrize("shift", [200.0, 1000.0, 4000.0])
@pytest.mark.parametrize("seeds", [1, 3])
def test_shift_is_recovered_within_20_percent(shift: float, seeds: int) -> None:
    off, stated = [], []
    for seed in range(8):
        found = measure_invariance(sweep(shift, noise=0.01, seeds=seeds, seed=seed), resamples=30)
        assert found.shift == pytest.approx(shift, rel=0.2)
        stated.append(found.shift_stderr / found.shift)
        off.append(math.log(found.shift / shift) / stated[-1])
    assert np.mean(np.abs(off) < 2.0) >= 0.6
    assert 0.02 < np.median(stated) < 0.3


def test_late_collapse_and_direction() -> None:
    found = measure_invariance(sweep(300.0, noise=0.002, seeds=2))
    late = found.steps >= 0.5 * found.steps[-1]
    s = 1.0 / (1.0 + (found.steps / 300.0) ** -2.0)
    assert found.along_lr.late == pytest.approx(0.1 * s[late].mean(), rel=0.05)
    assert found.along_gamma.late < 0.01
    assert found.ratio > 10.0
    assert found.seed_noise == pytest.approx(0.0016, rel=0.5)
    assert found.direction.angle == pytest.approx(45.0, abs=1.0)
    assert found.direction.share > 0.99
    assert found.shift_in_decays == pytest.approx(found.shift * 1e-4, rel=1e-6)
    assert (found.runs, found.settings) == (50, 25)
    early = measure_invariance(sweep(1e9))
    assert early.direction.angle == pytest.approx(0.0, abs=1.0)
    assert math.isnan(early.shift)
    assert "run longer" in early.notes[0]
    assert "from the first step" in measure_invariance(sweep(0.01)).notes[0]
    json.dumps(early.summary(), allow_nan=False)


def test_groups_of_any_extent_compare() -> None:
    """A loss with equal slopes along both: neither is tighter, though groups differ in size."""
    runs = [
        SweepRun(f"{x}{y}", math.exp(x), math.exp(y), STEPS, 3.0 + 0.1 * x + 0.05 * y + 0 * STEPS)
        for x in range(6)
        for y in range(3)
    ]
    found = measure_invariance(runs)
    assert found.along_lr.late == pytest.approx(0.05, rel=1e-6)
    assert found.along_gamma.late == pytest.approx(0.05, rel=1e-6)


def test_proposal_goes_along_the_direction() -> None:
    """A valley in gamma at 3e-4: the sweep is centred there, from the best run on."""
    runs = [
        SweepRun(f"{x:g}{y:g}", x, y, STEPS, 2.0 + 0.1 * np.log(x * y / 3e-4) ** 2 + 0 * STEPS)
        for x in 1e-3 * FACTORS
        for y in 0.2 * FACTORS
    ]
    found = measure_invariance(runs, count=5)
    gammas = [point.gamma for point in found.proposal]
    assert len(gammas) == 5
    assert gammas[2] == pytest.approx(3e-4, rel=0.05)
    ratios = np.diff(np.log(gammas))
    np.testing.assert_allclose(ratios, ratios[0])
    assert 0.3 < ratios[0] < 1.5
    for point in found.proposal:
        assert point.gamma == pytest.approx(point.lr * point.weight_decay)
    # Downhill to the edge: the sweep goes beyond what was run.
    beyond = measure_invariance(sweep(100.0)).proposal
    assert min(point.gamma for point in beyond) < 1e-4 / 16.0


def test_direction_of_a_plane_and_of_a_surface() -> None:
    x, y = (v.ravel() for v in np.meshgrid(np.linspace(0, 2, 4), np.linspace(0, 2, 4)))
    plane = salient_direction(x[:5], y[:5], 0.3 * x[:5] - 0.4 * y[:5])
    assert plane.model == "linear"
    surface = salient_direction(x, y, 0.3 * x - 0.4 * y)
    assert surface.model == "quadratic"
    assert surface.angle == pytest.approx(math.degrees(math.atan2(-0.4, 0.3)))
    assert surface.share == pytest.approx(1.0)


def test_runs_with_other_steps_are_interpolated() -> None:
    def run(lr: float, wd: float, steps: np.ndarray) -> SweepRun:
        return SweepRun(f"{lr}{wd}", lr, wd, steps, np.log(steps) + lr)

    steps = np.arange(1.0, 200.0)
    runs = [run(a, b, steps[i:]) for i, (a, b) in enumerate([(1, 1), (1, 2), (2, 1), (2, 2)])]
    cells = sweep_cells(runs)
    assert (cells.steps[0], cells.steps[-1]) == (pytest.approx(4.0), pytest.approx(199.0))
    np.testing.assert_allclose(cells.losses[0], np.log(cells.steps) + 1.0, atol=1e-9)


@pytest.mark.parametrize(
    ("lr", "decay", "beta"), [(0.01, 1.0, 0.9), (0.05, 1.0, 0.0), (0.1, 2.0, 0.95)]
)
def test_equilibrium_norm_of_adamw(lr: float, decay: float, beta: float) -> None:
    """Against optax's AdamW on gradients that are noise, orthogonal to the weights."""
    size, steps = 4000, round(12.0 * decay_time(lr, decay) + 30.0 / (1.0 - beta))
    optimiser = optax.adamw(lr, b1=beta, b2=0.9999, eps=0.0, weight_decay=decay)

    def body(carry: Any, key: jax.Array) -> tuple[Any, jax.Array]:
        w, state = carry
        g = jax.random.normal(key, w.shape)
        g -= w * (g @ w) / (w @ w)
        updates, state = optimiser.update(g, state, w)
        w = w + updates
        return (w, state), jnp.mean(w**2)

    w = jax.random.normal(jax.random.key(0), (size,)) * 0.01
    keys = jax.random.split(jax.random.key(1), steps)
    squares = np.asarray(jax.jit(lambda c: jax.lax.scan(body, c, keys))((w, optimiser.init(w)))[1])
    mean = squares[steps // 2 :].mean()
    assert mean == pytest.approx(equilibrium_square(lr, decay, beta), rel=0.04)
    # The way there takes a decay time (of the square, half).
    t = round(0.5 * decay_time(lr, decay))
    if beta == 0.0:
        assert squares[t] / mean == pytest.approx(1.0 - math.exp(-1.0), abs=0.05)


def test_equilibrium_limits() -> None:
    assert equilibrium_square(1e-4, 0.1) == pytest.approx(1e-4 / 0.2, rel=1e-4)
    assert relative_update(1e-4, 0.1) == pytest.approx(math.sqrt(2e-5), rel=1e-4)
    assert decay_time(1e-3, 0.1) == pytest.approx(1e4, rel=1e-3)
    for arguments, message in (
        ((0.0, 0.1), "lr: got 0.0"),
        ((0.1, -1.0), "weight_decay: got -1.0"),
        ((0.5, 2.0), "weight_decay: got 2.0, allowed: below 2, 1 / lr"),
        ((0.1, math.nan), "weight_decay: got nan"),
        ((0.1, 0.1, 1.0), "beta1: got 1.0"),
    ):
        with pytest.raises(InvalidProblem, match=message):
            equilibrium_square(*arguments)


def write(path: Path, runs: list[SweepRun]) -> None:
    lines = ["name,lr,weight_decay,step,loss"]
    for run in runs:
        rows = zip(run.steps, run.losses, strict=True)
        lines += [f"{run.name},{run.lr},{run.weight_decay},{t},{loss}" for t, loss in rows]
    path.write_text("\n".join(lines), encoding="utf-8")


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = sweep(500.0, noise=0.003, seeds=2)
    write(tmp_path / "runs.csv", runs)
    assert len(read_sweep(tmp_path / "runs.csv")) == 50
    figure = str(tmp_path / "f.png")
    assert main(["rules", "invariance", str(tmp_path / "runs.csv"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["shift"] == pytest.approx(500.0, rel=0.2)
    assert found["ratio"] > 5.0
    assert len(found["proposal"]) == 5
    assert main(["rules", "invariance", str(tmp_path / "runs.csv"), "--plot", figure]) == 0
    out = capsys.readouterr().out
    assert "shift at step" in out
    assert "tighter at equal lr * weight decay" in out
    assert Path(figure).stat().st_size > 20_000
    left = plot_invariance(runs, measure_invariance(runs)).axes[0]
    assert len(left.lines) == 25


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name,lr,step,loss\nx,1,1,1\n", "no column weight_decay; expected name,lr"),
        ("name,lr,weight_decay,step,loss\nx,1,1,1,a\n", "line 2: expected numbers"),
        ("name,lr,weight_decay,step,loss\nx,1,1\n", "line 2: expected numbers"),
        ("name,lr,weight_decay,step,loss\nx,1,1,1,1\nx,2,1,2,1\n", "run 'x' has several lr"),
        ("name,lr,weight_decay,step,loss\n", "RUNS: got '0 settings'"),
        ("name,lr,weight_decay,step,loss\nx,1,1,1,1\nx,1,1,2,1\nx,1,1,2,1\n", "steps of x: got"),
        ("name,lr,weight_decay,step,loss\nx,-1,1,1,1\nx,-1,1,2,1\nx,-1,1,3,1\n", "lr of x: got -1"),
    ],
)
def test_bad_tables(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    (tmp_path / "runs.csv").write_text(text)
    assert main(["rules", "invariance", str(tmp_path / "runs.csv")]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_bad_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(lr: float, wd: float, steps: np.ndarray = STEPS, loss: float = 1.0) -> SweepRun:
        return SweepRun("r", lr, wd, steps, np.full(len(steps), loss))

    with pytest.raises(InvalidProblem, match="losses of r: got"):
        run(1.0, 1.0, loss=math.nan)
    with pytest.raises(InvalidProblem, match="weight_decay of r: got 0"):
        run(1.0, 0.0)
    with pytest.raises(InvalidProblem, match="steps of r: got"):
        run(1.0, 1.0, STEPS[::-1])
    with pytest.raises(InvalidProblem, match="runs: got '1 settings'"):
        measure_invariance([run(1.0, 1.0)])
    with pytest.raises(InvalidProblem, match=r"with the same lr$"):
        measure_invariance([run(1.0, 1.0), run(2.0, 0.5), run(4.0, 0.25), run(8.0, 0.125)])
    with pytest.raises(InvalidProblem, match=r"with the same lr \* weight_decay"):
        measure_invariance([run(1.0, d) for d in (1.0, 2.0, 3.0, 5.0)])
    apart = [run(x, y, STEPS if x == 1.0 else 1e6 * STEPS) for x in (1.0, 2.0) for y in (1.0, 2.0)]
    with pytest.raises(InvalidProblem, match="overlap"):
        measure_invariance(apart)
    with pytest.raises(InvalidProblem, match="count: got 0"):
        measure_invariance(sweep(100.0), count=0)
    assert main(["rules", "invariance"]) == 2
    assert "RUNS: got nothing" in capsys.readouterr().err
    assert main(["rules", "invariance", str(tmp_path / "none.csv")]) == 2
    assert "cannot be read" in capsys.readouterr().err
    with pytest.raises(BadFile, match="cannot be read"):
        read_sweep(tmp_path)
