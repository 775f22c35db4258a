"""Whether the first halves of runs tell their ends, and what follows where they do not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from optsched.logs.run import Run
from optsched.pilot import compare, fit, load_fit, plan, predict, save_fit
from optsched.pilot.halves import FIRST_HALF, NO_SLIP, Slip, slip
from optsched.pilot.laws import NormLaw, fsl
from tests.pilots import SCALE, SHAPES, THETAS, TRAIN, chosen, made_fit, made_run, ramped

LAW = NormLaw(weight_decay=0.1)


def runs(late: float = 0.0, noise: float = 2e-4) -> list[Run]:
    """Runs of the law, whose loss falls by a share ``late`` more in every doubling past half."""
    law = LAW.for_runs(SCALE, [3.2])
    out = []
    for i, (shape, horizon) in enumerate((("constant", 24_000), ("wsd", 24_000), ("drop", 16_000))):
        run = made_run(
            shape, law, THETAS["fsl-norm"], ramped(horizon, 1000, SHAPES[shape]), noise, i
        )
        past = np.log2(np.maximum(run.steps / 12_000, 1.0))
        out.append(replace(run, loss=run.loss * (1.0 - late * past)))
    return out


@pytest.mark.parametrize("late", [0.03, 0.06, -0.03])
def test_what_comes_late_is_noticed_with_its_size(late: float) -> None:
    found = slip(runs(late), LAW)
    assert found.mean == pytest.approx(late, abs=0.4 * abs(late)) and found.size == abs(found.mean)
    (line,) = found.warnings
    assert line.startswith(FIRST_HALF) and ("too high" in line) == (late > 0.0)
    assert ("less than predicted" in line) == (late > 0.0)


@pytest.mark.parametrize("noise", [0.0, 2e-4, 5e-3])
def test_runs_of_the_law_do_not_slip(noise: float) -> None:
    found = slip(runs(noise=noise), LAW)
    assert abs(found.mean) < 5e-3 and found.size == 0.0 and found.warnings == ()


@pytest.mark.parametrize("model", ["25M", "100M"])
def test_public_runs_do_not_slip(model: str) -> None:
    found = slip(chosen(model, TRAIN), LAW)
    assert abs(found.mean) < 3e-3 and found.error < 5e-3 and not found.size


def test_noise_alone_is_no_slip() -> None:
    """Neither is what the ends of few rows in much noise seem to be."""
    assert Slip(0.02, 0.011).size == 0.0 and Slip(0.02, 0.009).size == 0.02
    assert Slip(0.009, 1e-4).size == 0.0 and Slip(-0.02, 1e-3).size == 0.02
    for seed in range(4):
        noisy = [
            replace(run, loss=run.loss * np.exp(0.05 * np.random.default_rng(9 * seed + i)
                                                .standard_normal(len(run.loss))))
            for i, run in enumerate(runs())
        ]  # fmt: skip
        assert slip(noisy, LAW).size == 0.0


def test_short_logs_have_no_halves() -> None:
    few = [replace(run, steps=run.steps[-5:], loss=run.loss[-5:]) for run in runs(0.05)]
    assert slip(few, LAW) is NO_SLIP and math.isnan(NO_SLIP.mean) and NO_SLIP.size == 0.0
    assert slip(few[:1], fsl()) is NO_SLIP


def test_a_fit_that_slips_says_so_and_its_intervals_too(tmp_path) -> None:
    found = fit(runs(0.04), LAW)
    assert found.slip == pytest.approx(0.04, abs=0.015)
    assert any(line.startswith(FIRST_HALF) for line in found.warnings)
    save_fit(found, tmp_path / "law.json")
    assert load_fit(tmp_path / "law.json").slip == found.slip
    steady = replace(found, slip=0.0)
    long = ramped(96_000, 1000, SHAPES["wsd"])
    at = np.array([12_000, 23_000, 48_000, 96_000])
    told, usual = predict(found, long, at), predict(steady, long, at)
    half, before = told.upper - told.loss, usual.upper - usual.loss
    np.testing.assert_array_equal(half[:2], before[:2])  # no longer than the pilots
    added = 1.2816 * found.slip * np.log2(at[2:] / found.horizon) * told.loss[2:]
    np.testing.assert_allclose(half[2:], np.hypot(before[2:], added), rtol=1e-4)
    assert told.warnings[0].startswith(FIRST_HALF)
    table = compare(found, {"wsd": long, "linear": ramped(96_000, 1000, SHAPES["linear"])})
    assert sum(line.startswith(FIRST_HALF) for line in table.warnings) == 1
    assert next(row.upper for row in table.rows if row.name == "wsd") == pytest.approx(
        told.upper[-1]
    )


def test_a_law_that_slips_plans_the_simplest() -> None:
    """Where it would else take a power that gains less than a standard error."""
    steady = replace(made_fit("fsl-norm"), misfit=6e-3)
    usual, simple = (plan(replace(steady, slip=s), 50_000, warmup=500) for s in (0.0, 0.03))
    assert usual.shape == "hold and decay" and simple.shape == "hold and linear decay"
    assert simple.cost < 5e-3


def test_fits_without_members_are_not_judged() -> None:
    assert fit(runs(0.06), LAW, members=0).slip == 0.0
