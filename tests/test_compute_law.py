"""Size and tokens from a table of runs: laws that are known, by brute force, and the command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.compute_law import draw, parabolas
from optsched import InvalidProblem
from optsched.cli import main
from optsched.measure.compute_law import (
    FLOPS,
    ComputeLaw,
    compute_optimal,
    fit_compute_law,
    model_size,
)

LAW = ComputeLaw(1.7, 400.0, 0.34, 1500.0, 0.28, 0.0)


def table(law: ComputeLaw = LAW, noise: float = 0.0, seed: int = 0):
    c, n = np.meshgrid(np.geomspace(1e18, 1e20, 5), np.geomspace(0.2, 5.0, 6))
    n = n * np.vectorize(law.best_size)(c)
    d = c / (FLOPS * n)
    rng = np.random.default_rng(seed)
    y = law.loss(n, d) * np.exp(noise * rng.standard_normal(n.shape))
    return n.ravel(), d.ravel(), y.ravel()


@settings(max_examples=25, deadline=None)
@given(st.floats(0.15, 0.8), st.floats(0.15, 0.8), st.floats(0.5, 3.0), st.floats(0.05, 1.0))
def test_a_law_is_found_again(alpha: float, beta: float, floor: float, part: float) -> None:
    law = ComputeLaw(floor, part * 1e8**alpha, alpha, part * 2e9**beta, beta, 0.0)
    n, d, y = table(law)
    found = fit_compute_law(n, d, y)
    assert found.misfit < 1e-7
    np.testing.assert_allclose(
        [found.floor, found.alpha, found.beta], [floor, alpha, beta], rtol=1e-3
    )
    assert found.best_size(1e21) == pytest.approx(law.best_size(1e21), rel=1e-2)


@given(st.floats(1e15, 1e25))
def test_the_best_size_is_best(compute: float) -> None:
    best = LAW.best_size(compute)
    sizes = best * np.array([0.9, 1.0, 1.1])
    losses = LAW.loss(sizes, compute / (FLOPS * sizes))
    assert losses[1] < losses[0] and losses[1] < losses[2]
    assert LAW.best_size(100 * compute) == pytest.approx(best * 100**LAW.exponent)


def test_without_noise_the_ways_agree_and_a_parabola_does_not() -> None:
    n, d, y = table()
    found = compute_optimal(n, d, y, 1e21, draws=10)
    ways = {way.name: way for way in found.ways}
    assert ways["law"].parameters == pytest.approx(LAW.best_size(1e21), rel=1e-3)
    assert ways["equal compute"].parameters == pytest.approx(LAW.best_size(1e21), rel=1e-3)
    law = ComputeLaw(1.7, 1000.0, 0.45, 1500.0, 0.22, 0.0)
    n, d, y = table(law)
    ways = {way.name: way for way in compute_optimal(n, d, y, 1e21, draws=10).ways}
    assert ways["equal compute"].parameters == pytest.approx(law.best_size(1e21), rel=1e-3)
    assert abs(np.log(parabolas(n, d, y, 1e21)[1] / law.best_size(1e21))) > 0.05


def test_envelope_of_a_grid() -> None:
    sizes, tokens = np.meshgrid(np.geomspace(3e5, 3e8, 13), np.geomspace(3e7, 3e11, 9))
    y = LAW.loss(sizes, tokens)
    found = compute_optimal(sizes.ravel(), tokens.ravel(), y.ravel(), 1e20, draws=10)
    way = found.ways[0]
    assert way.name == "envelope" and way.exponent == pytest.approx(LAW.exponent, abs=0.03)
    assert way.parameters == pytest.approx(LAW.best_size(1e20), rel=0.1)


def test_intervals_hold() -> None:
    """80 % of them; half as wide, or without the noise, they would hold half of the time."""
    rng, held = np.random.default_rng(5), []
    for seed in range(30):
        law, n, d = draw(rng, seed % 2 == 0)
        y = law.loss(n, d) * np.exp(0.003 * rng.standard_normal(len(n)))
        found = compute_optimal(n, d, y, 1e21, draws=40, seed=seed)
        best = law.best_size(1e21)
        low, high = found.ways[-1].parameters_interval
        below, above = found.loss_interval
        held += [low <= best <= high, below <= law.loss(best, 1e21 / (FLOPS * best)) <= above]
    assert 0.66 <= np.mean(held) <= 0.93


def test_what_a_table_does_not_tell_is_said() -> None:
    n = np.geomspace(1e7, 1e9, 8)
    rng = np.random.default_rng(0)
    y = LAW.loss(n, 20 * n) * np.exp(0.002 * rng.standard_normal(8))
    found = compute_optimal(n, 20 * n, y, 1e22, draws=20)
    assert any("hardly tells size from tokens" in text for text in found.warnings)
    assert all(np.isnan(way.parameters) for way in found.ways[:-1])
    n, d, y = table()
    strange = compute_optimal(n, d, y * (1 + 0.05 * np.sin(np.arange(len(y)))), 1e23, draws=20)
    assert any("does not describe the table" in text for text in strange.warnings)
    assert any("1e+03 times the largest compute" in text for text in strange.warnings)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss": [1.0] * 5}, "loss: got 5, allowed: as many values as parameters, 30"),
        ({"loss": [-1.0] * 30}, "loss: got .*, allowed: a list of finite numbers > 0"),
        ({"tokens": [1e9] * 30}, "tokens: got 1, allowed: 3 or more different values"),
        ({"compute": 0.0}, "compute: got 0.0"),
        ({"level": 1.0}, "level: got 1.0"),
    ],
)
def test_bad_input(change: dict, message: str) -> None:
    n, d, y = table()
    with pytest.raises(InvalidProblem, match=message):
        compute_optimal(**({"parameters": n, "tokens": d, "loss": y, "compute": 1e21} | change))


def test_size_of_a_transformer() -> None:
    assert model_size(768, 12) == 12 * 12 * 768**2
    assert model_size(768, 12, 50257) == 12 * 12 * 768**2 + 50257 * 768


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    n, d, y = table(noise=0.002)
    file = tmp_path / "runs.csv"
    lines = [f"run,{a},{b},{c}" for a, b, c in zip(n, d, y, strict=True)]
    file.write_text("name,parameters,tokens,loss\n" + "\n".join(lines))
    command = ["rules", "compute-optimal", str(file), "--compute", "1e21"]
    assert main([*command, "--batch", "524288", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    found = compute_optimal(n, d, y, 1e21)
    assert told["parameters"] == pytest.approx(found.parameters, rel=1e-6)
    assert told["steps"] == pytest.approx(found.tokens / 524288, rel=1e-6)
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "equal compute: 5 computes with their minimum inside" in out
    wide = tmp_path / "wide.csv"
    rows = [f"{w},{k},{t},{3 + k / w}" for w in (128, 256, 512) for k in (4, 8) for t in (1e8, 1e9)]
    wide.write_text("width,depth,tokens,loss\n" + "\n".join(rows))
    for arguments, message in (
        ([str(wide)], "tokens: got 2, allowed: 3 or more different values"),
        ([str(file), "--vocabulary", "50000"], "--vocabulary: got 50000.0, allowed: nothing where"),
        ([str(tmp_path / "none.csv")], "cannot be read"),
    ):
        assert main(["rules", "compute-optimal", *arguments, "--compute", "1e21"]) == 2
        assert message in capsys.readouterr().err
    wide.write_text("size,loss\n1,2\n")
    assert main(["rules", "compute-optimal", str(wide), "--compute", "1e21"]) == 2
    assert "no column parameters, and not width and depth" in capsys.readouterr().err
