"""Weight decay: what configurations say of it, and plans and predictions with another one."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from optsched import InvalidProblem
from optsched.cli import main
from optsched.pilot import compare, fit, plan, predict
from optsched.pilot.decays import at_decay
from optsched.pilot.fitting import Fit
from optsched.pilot.lawfile import save_fit
from optsched.pilot.laws import NormLaw
from optsched.pilot.laws.state import reference
from optsched.pilot.pieces import cut
from optsched.schedules.families import wsd
from tests.pilots import PEAK, SCALE, SHAPES, THETAS, made_fit, made_run, ramped


def made(decay: float = 0.1, **settings) -> Fit:
    """A fit with members, of runs with that weight decay."""
    law = NormLaw(weight_decay=decay, **settings).for_runs(SCALE, [3.2])
    theta = np.array(THETAS["fsl-norm"])
    theta[law.parameters.index("decay")] = law.priors["decay"].mean
    rng = np.random.default_rng(0)
    spread = 0.01 * rng.standard_normal((4, len(theta)))
    spread[:, law.parameters.index("decay")] = 0.0
    return replace(made_fit("fsl-norm", law=law), theta=theta, members=theta + spread)


def by_steps(found: Fit, theta: np.ndarray, eta: np.ndarray, decay: float) -> float:
    """The law step by step, with another decay and the units that the runs have given."""
    law = found.law
    assert isinstance(law, NormLaw)
    p, n = law.named(theta), SCALE.span
    unit = decay * n * (SCALE.rate if law.coupled else 1.0)
    weight, clock, x = 1.0, [0.0], []
    e = eta / SCALE.rate
    middle = reference(p.growth, p.decay).value
    for rate in e:
        pace = rate if law.coupled else 1.0
        kept = math.exp(-unit * pace / n)
        grown = 0.5 * p.growth * rate**2 / n
        weight = weight * kept + grown
        x.append(rate * (middle / weight) ** p.norm)
        weight = weight * kept + grown
        clock.append(clock[-1] + (x[-1] / (1.0 + p.saturation * x[-1])) ** p.clock / n)
    left = clock[-1] - np.array(clock)
    tail = (1.0 + p.speed * left) ** -p.q
    noise = np.array(x) ** p.amplitude @ np.diff(tail)
    return p.level + p.bias * (clock[-1] + p.offset) ** -p.s + p.noise * noise


@pytest.mark.parametrize("coupled", [True, False])
@pytest.mark.parametrize("decay", [0.0, 0.03, 0.3])
def test_another_decay_is_the_law_step_by_step(decay: float, coupled: bool) -> None:
    """In the units of the pilots: nothing but the norm of the weights knows of the decay."""
    found = made(0.1, coupled=coupled)
    if not coupled:
        found = made(0.1 * PEAK, coupled=False)
        decay *= PEAK
    schedule = ramped(6000, 300, SHAPES["wsd"])
    moved = at_decay(found, decay)
    pieces = cut(schedule, np.array([6000]), SCALE, change=0.002)
    for theta, other in zip([found.theta, *found.members], [moved.theta, *moved.members],
                            strict=True):  # fmt: skip
        told = moved.law.curve(other, pieces)[0]
        assert told == pytest.approx(by_steps(found, theta, schedule.array("eta"), decay), abs=4e-5)
    same = found.law.curve(found.theta, pieces)[0]
    assert abs(moved.law.curve(moved.theta, pieces)[0] - same) > 3e-3


def test_there_and_back_is_the_fit() -> None:
    found = made()
    moved = at_decay(found, 0.02)
    assert moved.pilot_decay == 0.1 and moved.decay_shift != 0.0
    back = at_decay(moved, 0.1)
    assert back.pilot_decay is None and back.decay_shift == pytest.approx(0.0, abs=1e-12)
    np.testing.assert_allclose(back.theta, found.theta, rtol=1e-12)
    np.testing.assert_allclose(back.members, found.members, rtol=1e-12)
    assert at_decay(found, 0.1) is found and at_decay(found, None) is found


@pytest.mark.parametrize("decay", [0.03, 0.3])
def test_a_plan_with_another_decay(decay: float) -> None:
    """Is a plan of that law: above its bound, not beaten, and with what it says about itself."""
    found = made()
    result = plan(found, 20_000, weight_decay=decay, warmup=500)
    assert 0.0 <= result.gap < 1e-3
    assert result.schedule.metadata["plan"]["weight_decay"] == decay
    assert "The runs had weight decay 0.1" in " ".join(result.warnings)
    told = predict(found, result.schedule, [20_000], weight_decay=decay)
    assert result.loss == told.loss[0] and result.upper == told.upper[0]
    names = {"plan": result.schedule, "wsd": wsd(20_000, PEAK, warmup=500, cooldown=4000)}
    names["linear"] = ramped(20_000, 500, SHAPES["linear"])
    names["usual"] = plan(found, 20_000, warmup=500).schedule
    rows = compare(found, names, weight_decay=decay).rows
    losses = {row.name: row.loss for row in rows}
    assert losses["plan"] <= min(losses["wsd"], losses["linear"])
    assert losses["plan"] <= losses["usual"] + max(row.error for row in rows)
    assert abs(result.loss - plan(found, 20_000, warmup=500).loss) > 5e-3


def test_the_interval_widens_with_what_the_decay_moves() -> None:
    found = replace(made(), members=made().members[:0])
    schedule = ramped(20_000, 500, SHAPES["wsd"])
    widths = []
    for decay in (0.1, 0.05, 0.02, 0.0):
        told = predict(found, schedule, [20_000], weight_decay=decay)
        widths.append((told.upper[0] - told.loss[0]) / told.loss[0])
        assert bool(told.warnings) == (decay != 0.1)
    assert np.all(np.diff(widths) > 0.0)
    moved = at_decay(found, 0.02)
    own = math.hypot(1.25 * found.misfit / told.loss[0], found.seed_noise)
    other = math.hypot(own, 3e-3 * moved.decay_shift)
    assert widths[2] == pytest.approx(1.2816 * other, rel=2e-2)


@pytest.mark.parametrize(
    "found, decay",
    [(made(), -1.0), (made(), math.nan), (made_fit("fsl"), 0.1), (made(0.0), 0.1)],
)
def test_decays_that_are_refused(found: Fit, decay: float) -> None:
    with pytest.raises(InvalidProblem, match="weight_decay"):
        plan(found, 5000, weight_decay=decay)
    with pytest.raises(InvalidProblem, match="weight_decay"):
        predict(found, ramped(5000, 0, SHAPES["wsd"]), weight_decay=decay)


def test_the_command_plans_with_another_decay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    law = tmp_path / "law.json"
    save_fit(made(), law)
    asked = ["plan", "--law", str(law), "--horizon", "5000", "--weight-decay"]
    assert main([*asked, "0.03", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    expected = plan(made(), 5000, weight_decay=0.03)
    assert told["weight_decay"] == 0.03 and told["loss"] == pytest.approx(expected.loss, abs=1e-9)
    assert "The runs had weight decay 0.1" in told["warnings"][0]
    assert main([*asked, "0.03"]) == 0
    out, err = capsys.readouterr()
    assert out.startswith("law fsl-norm: 5,000 steps, weight decay 0.03 (pilots: 0.1)\n")
    assert err.count("The runs had weight decay 0.1") == 1
    assert main([*asked, "-1"]) == 2
    assert "--weight-decay" in capsys.readouterr().err


# What the configurations beside logs say.


def runs(decays: tuple, optimisers: tuple = ("adamw_torch",) * 2):
    law = NormLaw(weight_decay=0.1).for_runs(SCALE, [3.2])
    shapes = ("constant", "wsd")
    made_runs = [
        made_run(shape, law, THETAS["fsl-norm"], ramped(24_000, 1000, SHAPES[shape]), 2e-4, i)
        for i, shape in enumerate(shapes)
    ]
    return [
        replace(
            run,
            metadata={
                key: value
                for key, value in (("weight_decay", decay), ("optimizer", name))
                if value is not None
            },
        )
        for run, decay, name in zip(made_runs, decays, optimisers, strict=True)
    ]


def test_the_decay_of_the_configurations_is_used_and_named() -> None:
    """Even one that is not among those that are tried."""
    found = fit(runs((0.07, 0.07)), members=0)
    assert isinstance(found.law, NormLaw) and found.law.weight_decay == 0.07
    assert found.notes[:2] == (
        "optimiser adamw, weight decay 0.07", "weight decay 0.07, as the configurations say"
    )  # fmt: skip
    assert found.theta[NormLaw.parameters.index("decay")] == pytest.approx(
        0.07 * PEAK * found.horizon
    )
    given = fit(runs((0.07, 0.07)), NormLaw(weight_decay=0.1), members=0)
    assert isinstance(given.law, NormLaw) and given.law.weight_decay == 0.1
    assert "say weight decay 0.07, not 0.1 as was given" in given.warnings[0]


@pytest.mark.parametrize(
    "decays, optimisers, says",
    [
        ((0.07, 0.1), ("adamw", "adamw"), r"differ \(weight decay 0.07, 0.1\)"),
        ((0.07, None), ("adamw", None), r"say it of some only \(weight decay 0.07\)"),
        ((0.1, 0.1), ("sgd", "sgd"), "say optimiser sgd; the law takes it for AdamW"),
        ((None, None), ("lion_32bit", None), "say optimiser lion_32bit"),
    ],
)
def test_configurations_that_cannot_be_used_are_told(
    decays: tuple, optimisers: tuple, says: str
) -> None:
    found = fit(runs(decays, optimisers), members=0)
    assert "as the configurations say" not in " ".join(found.notes)
    assert re.search(says, found.warnings[0])


def test_runs_without_a_configuration_say_nothing() -> None:
    found = fit(runs((None, None), (None, None)), members=0)
    assert not any("onfiguration" in line for line in (*found.notes, *found.warnings))
    other = fit(runs((0.1, 0.1), ("sgd", "sgd")), NormLaw(optimiser="sgd"), members=0)
    assert not any("onfiguration" in line for line in (*other.notes, *other.warnings))


def write_run(folder: Path, name: str, config: str | None) -> Path:
    """A log of the law, with a configuration of Weights & Biases beside it."""
    (run,) = (one for one in runs((None, None), (None, None)) if one.name == name)
    place = folder / name
    place.mkdir()
    rows = [
        f"{step},{run.schedule(step):.9g},{loss:.8g}"
        for step, loss in zip(run.steps, run.loss, strict=True)
    ]
    (place / "metrics.csv").write_text("\n".join(["step,lr,loss", *rows]) + "\n")
    if config is not None:
        (place / "config.yaml").write_text(config)
    return place


def test_the_command_takes_the_decay_from_files_beside_the_logs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = "weight_decay:\n    value: 0.05\noptim:\n    value: adamw_torch_fused\n"
    places = [str(write_run(tmp_path, name, config)) for name in ("constant", "wsd")]
    asked = ["fit", *places, "--warmup", "1000"]
    assert main([*asked, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["law"]["settings"]["weight_decay"] == 0.05
    assert "weight decay 0.05, as the configurations say" in told["notes"]
    assert main(asked) == 0
    assert "weight decay 0.05, as the configurations say" in capsys.readouterr().out
    assert main([*asked, "--weight-decay", "0.1", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["law"]["settings"]["weight_decay"] == 0.1
    assert any("say weight decay 0.05, not 0.1" in line for line in told["warnings"])
