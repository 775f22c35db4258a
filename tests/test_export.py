"""Exports without a framework: units, fewer knots, snippets, batches, the command line."""

from __future__ import annotations

import json
import subprocess
import sys
import types
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched import InvalidProblem, MissingExtra, Schedule, cli
from optsched.schedules import families
from optsched.schedules.exports.common import per_update, simplified
from optsched.schedules.exports.snippets import FORMATS, MAX_KNOTS, csv_rows, snippet
from optsched.schedules.exports.torch import BatchSampler

KNOTS = Schedule.from_knots([0, 10, 60, 99], eta=[0.25, 0.75, 0.1, 1e-9])
HEAVY = KNOTS.replace(beta=[0.5, 0.95, 0.0, 0.9])
QHM = HEAVY.replace(nu=[0.25, 1.0, 0.5, 0.0])
STEPS = [0, 1, 98, 99, 100, 101, 10**9, *np.random.default_rng(0).integers(2, 98, 40).tolist()]


class FakeScheduler:
    """As much of torch's LRScheduler as a snippet leans on."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer, self.last_epoch = optimizer, -1
        self.step()

    def step(self) -> None:
        self.last_epoch += 1
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate

    def get_lr(self) -> list[float]:
        raise NotImplementedError

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)


def run(text: str) -> Any:
    code: dict[str, Any] = {}
    exec(compile(text, "snippet.py", "exec"), code)
    return types.SimpleNamespace(**code)


@pytest.fixture
def fake_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = types.ModuleType("torch")
    torch.optim = types.SimpleNamespace(  # type: ignore[attr-defined]
        lr_scheduler=types.SimpleNamespace(LRScheduler=FakeScheduler)
    )
    torch.Tensor = type("Tensor", (), {})  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch", torch)


def groups(**fields: Any) -> Any:
    return types.SimpleNamespace(param_groups=[{"lr": 1.0, **fields}, {"lr": 1.0, **fields}])


def at(scheduler: Any, step: int) -> dict[str, Any]:
    scheduler.last_epoch = step - 1
    scheduler.step()
    return scheduler.optimizer.param_groups[1]


@pytest.mark.usefixtures("fake_torch")
@pytest.mark.parametrize("extend", ["hold", "zero"])
def test_torch_snippet(extend: Any) -> None:
    schedule = KNOTS.replace(extend=extend)
    made = run(snippet(schedule, "torch-snippet").text).ScheduleLR(groups())
    assert made.optimizer.param_groups[0]["lr"] == 0.25
    for step in STEPS:
        assert at(made, step)["lr"] == pytest.approx(schedule(step), rel=1e-14, abs=1e-16)
    made.load_state_dict({"last_epoch": 30})
    assert made.optimizer.param_groups[0]["lr"] == pytest.approx(KNOTS(30), rel=1e-14)


@pytest.mark.usefixtures("fake_torch")
def test_torch_snippet_raises_past_the_end() -> None:
    made = run(snippet(KNOTS.replace(extend="raise"), "torch-snippet").text).ScheduleLR(groups())
    for _ in range(100):  # the call after the last update is the hundredth
        made.step()
    with pytest.raises(ValueError, match="step 101 is past the end"):
        made.step()


@pytest.mark.usefixtures("fake_torch")
def test_torch_snippet_momentum() -> None:
    made = run(snippet(QHM, "torch-snippet", momentum="write").text).ScheduleLR(
        groups(momentum=0.0, nu=0.0)
    )
    for step in STEPS:
        group = at(made, step)
        found = [group[name] for name in ("lr", "momentum", "nu")]
        expected = [QHM(step, name) for name in ("eta", "beta", "nu")]
        np.testing.assert_allclose(found, expected, rtol=1e-14, atol=1e-16)
    made = run(snippet(HEAVY, "torch-snippet", momentum="write").text).ScheduleLR(
        groups(betas=(0.0, 0.999))
    )
    assert at(made, 10)["betas"] == (0.95, 0.999)
    made = run(snippet(HEAVY, "torch-snippet", momentum="heavy-ball").text).ScheduleLR(
        groups(momentum=0.0)
    )
    buffer, average = 0.0, 0.0
    for step in range(105):
        group, gradient, beta = at(made, step), np.sin(step), HEAVY(step, "beta")
        buffer = group["momentum"] * buffer + gradient
        average = beta * average + (1.0 - beta) * gradient
        np.testing.assert_allclose(group["lr"] * buffer, HEAVY(step) * average, rtol=1e-10)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("extend", ["hold", "zero", "raise"])
def test_optax_snippet(extend: Any, x64: bool) -> None:
    import jax
    import jax.numpy as jnp

    schedule = HEAVY.replace(extend=extend)
    made = run(snippet(schedule, "optax-snippet", momentum="heavy-ball").text)
    assert not hasattr(made, "nu")
    counts = np.array(STEPS)
    rtol = 1e-13 if x64 else 1e-5
    with jax.enable_x64(x64):
        for name in ("eta", "beta"):
            own = schedule.replace(extend="hold")(counts, name)
            past = {"hold": own, "zero": 0.0 if name == "eta" else own, "raise": np.nan}[extend]
            found = jax.jit(jax.vmap(getattr(made, name)))(jnp.asarray(counts))
            assert found.weak_type
            wanted = np.where(counts > 99, past, own)
            np.testing.assert_allclose(found, wanted, rtol=rtol, atol=1e-8)
        buffer, average = 0.0, 0.0
        momentum, rate = (
            np.asarray(jax.jit(jax.vmap(f))(jnp.arange(100)), dtype=np.float64)
            for f in (made.momentum, made.learning_rate)
        )
        for step in range(100):
            gradient, beta = np.cos(step), HEAVY(step, "beta")
            buffer = momentum[step] * buffer + gradient
            average = beta * average + (1.0 - beta) * gradient
            update = rate[step] * buffer
            np.testing.assert_allclose(update, HEAVY(step) * average, rtol=100 * rtol, atol=1e-7)


def test_optax_snippet_of_a_long_horizon() -> None:
    schedule = Schedule.from_knots([0, 2**24, 2**24 + 1, 10**12], eta=[0.5, 0.5, 0.25, 0.0])
    made = run(snippet(schedule, "optax-snippet").text)
    for step in (2**24, 2**24 + 1, 2**31 - 1):
        assert float(made.eta(step)) == pytest.approx(schedule(step), rel=1e-6)


def test_single_steps() -> None:
    made = run(snippet(Schedule.from_array([0.5]), "optax-snippet").text)
    assert [float(made.eta(k)) for k in (0, 1, 9)] == [0.5, 0.5, 0.5]
    assert len(per_update(Schedule.from_array([0.5]), 7)) == 1


def test_snippets_compile() -> None:
    for form in FORMATS:
        compile(snippet(QHM, form, momentum="ignore").text, form, "exec")


def test_too_many_knots() -> None:
    noise = np.random.default_rng(0).uniform(0.1, 1.0, 5000)
    schedule = Schedule.from_array(noise)
    with pytest.raises(InvalidProblem, match=r"points: got None, .* 5000 are too many"):
        snippet(schedule, "torch-snippet")
    made = snippet(schedule, "torch-snippet", points=50)
    assert made.knots == 50
    assert f"50 of 5000 knots: off by {made.error:.1e} of the peak" in made.text
    dense = Schedule.from_array(families.wsd(20_000, 0.3, warmup=100, shape="linear").eta)
    made = snippet(dense, "torch-snippet")
    assert made.knots < 20 < MAX_KNOTS < len(dense.steps)
    assert made.error < 1e-14
    with pytest.raises(InvalidProblem, match="points"):
        snippet(KNOTS, "torch-snippet", points=0)


@given(st.integers(2, 60), st.integers(0, 2**32))
def test_simplified_states_its_error(points: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    schedule = Schedule.from_array(
        np.cumsum(rng.uniform(0, 1, 200)), beta=rng.uniform(0, 0.99, 200)
    )
    thin, error = simplified(schedule, points)
    assert len(thin.steps) <= points
    off = [np.abs(thin.array(n) - schedule.array(n)).max() / v.max() for n, v in
           schedule.controls.items()]  # fmt: skip
    assert max(off) == pytest.approx(error, rel=1e-9)
    assert simplified(thin, 500)[1] <= 1e-14


@given(st.integers(1, 300), st.integers(1, 12), st.integers(1, 400), st.integers(0, 2**32))
def test_per_update_averages(horizon: int, knots: int, units: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    inner = rng.integers(0, horizon, knots)
    steps = np.unique(np.concatenate([[0, horizon - 1], inner]))
    values = rng.uniform(0, 1, len(steps))
    schedule = Schedule(horizon, steps, {"eta": values}, unit="tokens")
    converted = per_update(schedule, units)
    dense = schedule.eta
    means = [dense[k : k + units].mean() for k in range(0, horizon, units)]
    np.testing.assert_allclose(converted.eta, means, rtol=1e-12, atol=1e-15)
    assert converted.unit == "steps"


def test_per_update_of_tokens() -> None:
    tokens = Schedule.from_knots([0, 10**12 - 1], eta=[1.0, 0.0], unit="tokens")
    updates = per_update(tokens, 524_288)
    assert len(updates) == -(-(10**12) // 524_288)
    assert len(updates.steps) <= 6
    assert updates(0) == pytest.approx(1.0 - 2.6e-7, abs=1e-8)
    with pytest.raises(InvalidProblem, match="unit 'tokens'"):
        snippet(tokens, "torch-snippet")


def test_batch_sampler_resumes() -> None:
    ramp = Schedule.from_array(np.full(6, 0.1), batch_size=[2, 2, 4, 4, 4, 16])
    whole = list(BatchSampler(ramp, 7, seed=3))
    assert [len(batch) for batch in whole] == [2, 2, 4, 4, 4, 16]
    seen = np.concatenate(whole)
    for start in range(0, 28, 7):  # each pass over the data sees every sample once
        assert sorted(seen[start : start + 7]) == list(range(7))
    for start in range(7):
        sampler = BatchSampler(ramp, 7, seed=3, start=start)
        assert list(sampler) == whole[start:]
        assert len(sampler) == 6 - start
    assert list(islice(BatchSampler(ramp, 7, seed=4), 2)) != whole[:2]
    with pytest.raises(InvalidProblem, match="batch_size"):
        BatchSampler(KNOTS, 7)
    with pytest.raises(InvalidProblem, match="integer_batches"):
        BatchSampler(KNOTS.replace(batch_size=[1, 2, 4, 8]), 7)


@pytest.mark.parametrize(
    ("schedule", "form", "momentum", "message"),
    [
        (HEAVY, "torch-snippet", None, "ignore or write or heavy-ball, as the schedule has beta"),
        (QHM, "optax-snippet", "heavy-ball", "ignore or write"),
        (HEAVY, "keras-snippet", "write", "allowed: ignore"),
        (KNOTS, "torch-snippet", "write", "the schedule has no beta"),
        (KNOTS, "tensorflow", None, "one of torch-snippet"),
    ],
)
def test_what_does_not_fit(schedule: Schedule, form: str, momentum: Any, message: str) -> None:
    with pytest.raises(InvalidProblem, match=message):
        snippet(schedule, form, momentum=momentum)


def test_modules_import_without_frameworks(tmp_path: Path) -> None:
    for name in ("torch", "keras"):
        (tmp_path / f"{name}.py").write_text("raise ModuleNotFoundError(name=__name__)")
    code = (
        "import sys, optsched.schedules.exports.torch as t, optsched.schedules.exports.keras as k, "
        "optsched.schedules.exports.optax\n"
        "assert not {'torch', 'keras', 'optax'} & set(sys.modules)\n"
        "from optsched import Schedule, MissingExtra\n"
        "for make in (lambda: t.to_torch(Schedule.from_array([1.0]), None), "
        "lambda: k.to_keras(Schedule.from_array([1.0]))):\n"
        "    try:\n        make()\n    except MissingExtra as error:\n        print(error)\n"
    )
    environment = {"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[1]}"}
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True
    ).stdout
    assert out.splitlines() == [
        "torch is not installed: pip install 'optsched[torch]'",
        "keras is not installed: pip install 'optsched[keras]'",
    ]
    assert issubclass(MissingExtra, ImportError)


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["export", *arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    HEAVY.save("a.npz")
    KNOTS.replace(unit="tokens").save("tokens.json")
    code, out, _ = command(
        capsys, "a.npz", "--format", "torch-snippet", "--momentum", "ignore", "--output", "a.py"
    )
    assert (code, out) == (0, "a.py: torch-snippet, 4 knots, exact\n")
    written = Path("a.py").read_text()
    code, out, _ = command(capsys, "a.npz", "--format", "torch-snippet", "--momentum", "ignore")
    assert (code, out) == (0, written)
    code, out, _ = command(
        capsys, "a.npz", "--format", "torch-snippet", "--momentum", "ignore",
        "--points", "3", "--output", "a.py", "--force",
    )  # fmt: skip
    assert out.startswith("a.py: torch-snippet, 3 knots, off by ")
    code, out, _ = command(capsys, "a.npz", "--format", "csv", "--output", "b.csv")
    assert (code, out) == (0, "b.csv: csv, 100 rows\n")
    back = Schedule.load("b.csv")
    for name in HEAVY.controls:
        np.testing.assert_array_equal(back.array(name), HEAVY.array(name))
    code, out, _ = command(capsys, "tokens.json", "--format", "csv", "--per-update", "50")
    assert out.splitlines()[0] == "step,eta"
    assert len(out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["a.npz"], "--format: got nothing, allowed: one of torch-snippet"),
        (["a.npz", "--format", "torch"], "format: got 'torch'"),
        (["none.npz", "--format", "csv"], "none.npz: cannot be read"),
        (
            ["a.npz", "--format", "torch-snippet"],
            "--momentum-as: got nothing, allowed: ignore or write",
        ),
        (["a.npz", "--format", "csv", "--momentum", "write"], "momentum: got 'write'"),
        (["a.npz", "--format", "csv", "--points", "1"], "points: got 1"),
        (["a.npz", "--format", "csv", "--output", "tokens.json"], "tokens.json: exists"),
        (["a.npz", "--format", "csv", "--per-update", "0"], "--per-update: got 0"),
        (["long.json", "--format", "csv"], "--points: got nothing, allowed: the rows to keep"),
        (["tokens.json", "--format", "torch-snippet"], "schedule: got \"unit 'tokens'\""),
    ],
)
def test_command_errors(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    HEAVY.save("a.npz")
    KNOTS.replace(unit="tokens").save("tokens.json")
    Schedule.from_knots([0, 10**9], eta=[1.0, 0.0]).save("long.json")
    code, out, err = command(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith("optsched: ")
    assert len(err.splitlines()) == 1
    assert message in err


def test_csv_rows() -> None:
    lines = "".join(csv_rows(QHM)).splitlines()
    assert lines[0] == "step,eta,beta,nu"
    assert [json.loads(x) for x in lines[11].split(",")] == [10, 0.75, 0.95, 1.0]
    assert len("".join(csv_rows(QHM, 7)).splitlines()) == 8
