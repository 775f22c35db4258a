"""Merging checkpoints in place of a decay: identities, the model, files and the torch code."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched import InvalidProblem, Problem, Schedule, cli
from optsched.model.replay import replay
from optsched.rules.averaging import average_for
from optsched.schedules.exports.merging import MergeWeights, merge_weights
from optsched.schedules.families import cosine, linear, wsd

DECAY = wsd(200, 0.1, warmup=20, cooldown=80, shape="1-sqrt")


def acts_as(merged: MergeWeights, horizon: int) -> np.ndarray:
    """Share with which every update of the held run counts in the merge."""
    later = merged.steps[None] > np.arange(horizon)[:, None]
    return later @ merged.weights


@st.composite
def _decays(draw: st.DrawFn) -> tuple[Schedule, dict]:
    horizon = draw(st.integers(3, 5000))
    inner = sorted(draw(st.sets(st.integers(1, horizon - 2), max_size=5)) | {0, horizon - 1})
    eta = np.sort(draw(st.lists(st.floats(0, 1), min_size=len(inner), max_size=len(inner))))[::-1]
    eta[0] = 1.0
    if eta[-1] == 1.0:
        eta[-1] = 0.5
    how = draw(
        st.one_of(
            st.builds(lambda n: {"every": n}, st.integers(1, horizon)),
            st.builds(lambda n: {"checkpoints": n}, st.integers(1, 60)),
            st.builds(
                lambda n: {"checkpoints": sorted(n | {horizon})},
                st.sets(st.integers(0, horizon), max_size=8),
            ),
        )
    )
    return Schedule(horizon, inner, {"eta": eta}), how


@given(_decays())
def test_updates_count_as_planned(case):
    """The share of an update is the mean of the planned rates between its checkpoints."""
    schedule, how = case
    merged = merge_weights(schedule, **how)
    assert merged.weights.sum() == pytest.approx(1.0, abs=1e-12)
    assert np.all(merged.weights > 0) and np.all(np.diff(merged.steps) > 0)
    share, planned = acts_as(merged, schedule.horizon), schedule.eta / schedule.peak
    assert np.abs(share - planned).max() <= merged.error + 1e-9
    if merged.steps[-1] == schedule.horizon and merged.steps[0] <= merged.begin + 1:
        # The sum of the rates stays.
        assert share.sum() == pytest.approx(planned.sum(), rel=1e-6)
    if how.get("every") == 1:
        assert merged.error < 1e-9


def test_merge_of_given_updates_is_the_decay():
    """Gradients that do not depend on the weights: exact, with a checkpoint a step."""
    rng = np.random.default_rng(0)
    gradients = rng.standard_normal((200, 3))
    merged = merge_weights(DECAY, every=1)
    held = np.vstack([np.zeros(3), -np.cumsum(merged.held.eta[:, None] * gradients, 0)])
    decayed = -(DECAY.eta[:, None] * gradients).sum(0)
    np.testing.assert_allclose(merged.weights @ held[merged.steps], decayed, rtol=1e-12)
    few = merge_weights(DECAY, checkpoints=4)
    assert np.abs(few.weights @ held[few.steps] - decayed).max() > 1e-6


def test_every_step_is_the_average_of_that_decay():
    """The same as what `average_for` says in another form."""
    mine, other = merge_weights(DECAY, every=1).average, average_for(DECAY)
    np.testing.assert_allclose(mine.eta, other.eta)
    at = merge_weights(DECAY, every=1).begin
    found, expected = mine.array("ema"), other.array("ema")
    np.testing.assert_allclose(found[at + 2 :], expected[at + 2 :], atol=1e-12)


@pytest.mark.parametrize("rho", [0.999, 0.95, 0.5, 0.1])
def test_bias_is_never_below_that_of_the_decay(rho):
    """Means on a quadratic: one number for all chances against one for each."""
    for decay in (DECAY, cosine(60, 1.0), linear(7, 2.0)):
        merged = merge_weights(decay, every=1)
        share = decay.eta / decay.peak
        tail = share[merged.begin + 1 :]
        decayed = np.prod(1.0 - tail * (1.0 - rho))
        mean = merged.weights @ rho ** (merged.steps - merged.begin - 1.0)
        assert mean >= decayed * (1 - 1e-12)
        # The decay's own law: a sum of independent successes, and this is exact.
        chances = np.array([1.0])
        for s in tail:
            chances = np.convolve(chances, [1.0 - s, s])
        assert chances @ rho ** np.arange(len(chances)) == pytest.approx(decayed, rel=1e-9)


def test_the_model_replays_what_a_merge_is():
    """Monte Carlo of runs on single samples whose checkpoints are merged, against the replay."""
    problem = Problem(2.5, 1.5, 60, features=3, batch_size=1, noise=0.5, eta_max=0.2)
    decay = wsd(60, 0.2, cooldown=30)
    merged = merge_weights(decay, checkpoints=4)
    dynamics = problem.replace(controls="eta,ema", ema=None).dynamics
    told = replay(problem.spectrum, dynamics, merged.average).excess_loss

    modes, rng, runs = problem.spectrum.full(), np.random.default_rng(1), 40_000
    lam = modes.lam
    # mu = lam^2 w^2: coefficients of the target in the basis of the features.
    target = np.sqrt(modes.mu / lam)
    weights, total = np.zeros((runs, 3)), np.zeros((runs, 3))
    keep = dict(zip(merged.steps.tolist(), merged.weights.tolist(), strict=True))
    for step, rate in enumerate(merged.held.eta):
        x = rng.standard_normal((runs, 3)) * np.sqrt(lam)
        y = x @ target + 0.5 * rng.standard_normal(runs)
        weights -= rate * ((weights * x).sum(1) - y)[:, None] * x
        total += keep.get(step + 1, 0.0) * weights
    losses = ((total - target) ** 2) @ lam
    assert abs(losses.mean() - told) < 4 * losses.std() / np.sqrt(runs)
    assert losses.std() / np.sqrt(runs) < 0.02 * told


def test_a_merge_takes_most_of_the_decay_on_the_model():
    problem = Problem(2.5, 1.5, 2000, features=200, batch_size=4, eta_max=0.1)
    decay = wsd(2000, 0.05, cooldown=0.2)
    dynamics = problem.replace(controls="eta,ema", ema=None).dynamics

    def loss(schedule: Schedule) -> float:
        full = schedule if "ema" in schedule.controls else schedule.replace(ema=0.0)
        return replay(problem.spectrum, dynamics, full).excess_loss

    held, decayed = loss(merge_weights(decay).held), loss(decay)
    many, few = (loss(merge_weights(decay, checkpoints=n).average) for n in (400, 6))
    assert decayed < 0.8 * held
    assert many < decayed * 1.02
    assert few < 0.5 * (decayed + held)


def test_places_of_checkpoints():
    assert merge_weights(DECAY, every=25).steps.tolist() == [100, 125, 150, 175, 200]
    assert merge_weights(DECAY, checkpoints=2).steps.tolist() == [120, 160, 200]
    assert merge_weights(DECAY, checkpoints=[0, 50, 110, 150, 199]).steps.tolist() == [
        110,
        150,
        199,
    ]
    # A merge from before the hold, warm-up and all, has the rates that the run itself had.
    early = merge_weights(DECAY, checkpoints=[0, 200])
    total = DECAY.eta.sum() / early.held.eta.sum()
    assert early.weights[-1] == pytest.approx(total)
    late = merge_weights(DECAY, checkpoints=[180, 190])
    assert late.error > 0.8


@pytest.mark.parametrize(
    ("schedule", "how", "field"),
    [
        (DECAY, {"every": 0}, "every"),
        (DECAY, {"every": 201}, "every"),
        (DECAY, {"every": 2.5}, "every"),
        (DECAY, {"checkpoints": 0}, "checkpoints"),
        (DECAY, {"checkpoints": 3, "every": 3}, "checkpoints"),
        (DECAY, {"checkpoints": []}, "checkpoints"),
        (DECAY, {"checkpoints": [150, 150]}, "checkpoints"),
        (DECAY, {"checkpoints": [150, 201]}, "checkpoints"),
        (DECAY, {"checkpoints": [-1, 150]}, "checkpoints"),
        (DECAY, {"checkpoints": [50, 100]}, "checkpoints"),
        (wsd(10**12, 1.0), {"every": 1}, "every"),
        (DECAY.replace(batch_size=2.0), {}, "schedule"),
        (DECAY.replace(ema=0.5), {}, "schedule"),
        (Schedule.from_array([1.0, 0.5, 0.7]), {}, "schedule"),
        (Schedule.from_array([0.0, 0.0]), {}, "schedule"),
        (Schedule.from_array([0.5, 1.0]), {}, "schedule"),
        (Schedule.from_knots([0, 9], eta=[1, 0], unit="tokens"), {}, "schedule"),
    ],
)
def test_bad_input(schedule, how, field):
    with pytest.raises(InvalidProblem) as error:
        merge_weights(schedule, **how)
    assert error.value.field == field


def test_long_runs_cost_nothing():
    merged = merge_weights(cosine(10**15, 1e-3), checkpoints=50)
    assert merged.weights.sum() == pytest.approx(1.0) and merged.steps[-1] == 10**15


# Files and the command


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    DECAY.save("plan.npz")


@pytest.mark.usefixtures("inside")
def test_files(capsys):
    expected = merge_weights(DECAY, checkpoints=6)
    command = ["export", "plan.npz", "--format", "merge-weights", "--checkpoints", "6"]
    assert cli.main(command) == 0
    out = capsys.readouterr().out
    for file in ("w.csv", "w.json"):
        assert cli.main([*command, "--output", file]) == 0
    said = capsys.readouterr().out
    assert "7 checkpoints of a run that holds 0.1 from step 119 to 200" in said
    assert Path("w.csv").read_text() == out
    with open("w.csv", newline="") as file:
        rows = [(int(r["step"]), float(r["weight"])) for r in csv.DictReader(file)]
    assert rows == list(zip(expected.steps.tolist(), expected.weights.tolist(), strict=True))
    told = json.loads(Path("w.json").read_text())
    assert told["checkpoints"] == [{"step": s, "weight": w} for s, w in rows]
    assert (told["hold_from"], told["train_to"], told["peak"]) == (119, 200, DECAY.peak)


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("options", "start"),
    [
        ("csv --every 5", "--every: got 5.0, allowed: nothing without --format merge-weights"),
        ("merge-weights --every 5 --checkpoints 5", "--checkpoints: got '5', allowed: nothing bes"),
        ("merge-weights --checkpoints x", "--checkpoints: got 'x', allowed: a whole number"),
        ("merge-weights --checkpoints 0", "--checkpoints: got 0"),
        ("merge-weights --checkpoints 9,5", "--checkpoints: got [9, 5]"),
        ("merge-weights --points 5", "--points: got 5.0, allowed: nothing with merge-weights"),
        ("merge-weights --momentum-as write", "--momentum-as: got 'write'"),
        ("merge-weights --output w.txt", "w.txt: suffix '.txt', expected one of .csv, .json, .py"),
    ],
)
def test_command_refuses(capsys, options, start):
    assert cli.main(["export", "plan.npz", "--format", *options.split()]) == 2
    assert capsys.readouterr().err.startswith(f"optsched: {start}")


@pytest.mark.usefixtures("inside")
def test_torch_code_merges(monkeypatch):
    torch = pytest.importorskip("torch")
    merged = merge_weights(DECAY, every=40)
    Path("merge.py").write_text(merged.text(".py"))
    state = {}
    for step in merged.steps.tolist():
        full = torch.arange(3, dtype=torch.float32) + step
        state[step] = {"w": full, "half": full.to(torch.bfloat16), "n": torch.tensor(step)}
        torch.save({"model": state[step], "step": step}, f"c-{step}.pt")
    monkeypatch.setattr(sys, "argv", ["merge.py", "out.pt", "c-{step}.pt"])
    runpy.run_path("merge.py", run_name="__main__")
    found = torch.load("out.pt", weights_only=True)
    mean = float(merged.weights @ merged.steps)
    np.testing.assert_allclose(found["w"].numpy(), mean + np.arange(3), rtol=1e-6)
    assert found["half"].dtype == torch.bfloat16 and found["n"] == 200
    code = runpy.run_path("merge.py")
    with pytest.raises(ValueError, match="expected"):
        code["merge"]({200: "c-200.pt"})
