"""The recorder: rows that survive a kill, runs that go on, what is measured and what is refused."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched.diagnostics.curvature import Hessian
from optsched.diagnostics.log import COLUMNS, read_log
from optsched.diagnostics.noise import from_micro_batches, from_two_batches
from optsched.diagnostics.norms import snapshot, tree_distance, tree_norm
from optsched.diagnostics.recorder import NonFinite, Recorder
from optsched.errors import BadFile, BadLog, InvalidProblem
from optsched.rules.batch.noise_scale import NoiseScale


def test_norms_of_trees() -> None:
    tree = {"b": [np.ones((2, 3)), None], "a": (jnp.full(4, 2.0), 3.0)}
    assert tree_norm(tree) == pytest.approx(np.sqrt(6.0 + 16.0 + 9.0))
    # Squares of these leave the range of float32.
    for size in (1e-30, 1e30):
        assert tree_norm([jnp.full(100, size)]) == pytest.approx(10.0 * size, rel=1e-6)
    assert tree_norm([jnp.full(3, 2.0, jnp.bfloat16)]) == pytest.approx(np.sqrt(12.0))
    assert np.isnan(tree_norm([jnp.array([1.0, jnp.nan])]))
    assert tree_norm([jnp.array([1.0, jnp.inf]), np.ones(2)]) == np.inf
    assert tree_norm([jnp.zeros(3), np.zeros(2)]) == 0.0
    assert tree_distance({"w": jnp.ones(4)}, {"w": jnp.full(4, 3.0)}) == pytest.approx(4.0)
    for bad in ([], {"w": None}, "text", [object()]):
        with pytest.raises(InvalidProblem, match="tree: got"):
            tree_norm(bad)
    with pytest.raises(InvalidProblem, match="before: got"):
        tree_distance([np.ones(2)], [np.ones(3)])
    kept = np.ones(2)
    copy = snapshot([kept])
    kept += 1.0
    assert tree_distance([kept], copy) == pytest.approx(np.sqrt(2.0))


def test_noise_estimators_are_unbiased() -> None:
    """Over 4,000 batches of gradients of known mean and covariance."""
    rng = np.random.default_rng(0)
    mean, scale, parts, micro = rng.normal(size=5), rng.uniform(0.5, 2.0, 5), 4, 3
    for two in (False, True):
        samples = []
        for _ in range(4000):
            g = (mean + scale * rng.normal(size=(parts, micro, 5))).mean(1)
            if two:
                samples.append(from_two_batches([g[0]], micro, [g.mean(0)], parts * micro))
            else:
                samples.append(from_micro_batches(([part] for part in g), micro))
        for found, exact in (
            ([s.gradient_square for s in samples], mean @ mean),
            ([s.trace for s in samples], scale @ scale),
        ):
            error = np.std(found) / np.sqrt(len(found))
            assert abs(np.mean(found) - exact) < 3.0 * error < 0.1 * exact


def noise(square: float, variance: float) -> NoiseScale:
    return NoiseScale(variance, square, np.nan, np.nan, np.nan, 1.0)


def test_noise_scale_is_a_ratio_of_averages(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.csv", nonfinite="keep") as log:
        found = [
            log.record(step, lr=1, loss=1, noise=noise(*parts))
            for step, parts in enumerate([(-1.0, 2.0), (3.0, 6.0), (np.nan, np.nan)])
        ]
    assert found[0] is not None and "noise_scale" not in found[0]  # noise hides the gradient
    scale = (0.9 * 2.0 + 6.0) / (0.9 * -1.0 + 3.0)
    for row in found[1:]:  # what is not a number is written, and not averaged
        assert row is not None and row["noise_scale"] == pytest.approx(scale)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: from_two_batches([np.ones(1)], -4, [np.ones(1)], 8), "small: got -4"),
        (lambda: from_two_batches([np.ones(1)], 8, [np.ones(1)], 8), "small: got 8.0"),
        (lambda: from_two_batches([], 4, [np.ones(1)], 8), "tree: got 'no arrays'"),
        (lambda: from_micro_batches([np.ones(2)], 4), "gradients: got '1 of them'"),
        (lambda: from_micro_batches([], 4), "gradients: got '0 of them'"),
        (lambda: from_micro_batches([np.ones(2), np.ones(3)], 4), "different shapes"),
        (lambda: from_micro_batches([np.ones(2)] * 2, 0), "micro_batch: got 0"),
    ],
)
def test_bad_noise(make: Any, text: str) -> None:
    with pytest.raises(InvalidProblem, match=text):
        make()


def quadratic(params: Any, scale: Any) -> Any:
    return 0.5 * scale * jnp.sum(params["w"] ** 2)


def test_a_jax_loop(tmp_path: Path) -> None:
    path, hessian = tmp_path / "run.csv", Hessian(quadratic)
    params = {"w": jnp.ones(12)}
    calls = []

    def sharpness() -> Any:
        calls.append(step)
        return hessian.largest(params, 3.0)

    with Recorder(path, every=2, at={"sharpness": [0, 3], "trace": 4}, extra=["val_loss"]) as log:
        for step in range(6):
            g = {"w": 3.0 * params["w"]}
            new = {"w": params["w"] - 0.1 * g["w"]}
            log.record(
                step,
                lr=0.1,
                loss=quadratic(params, 3.0),
                batch_size=8,
                gradients=g,
                parameters=new,
                before=params,
                noise=lambda: from_micro_batches([{"w": jnp.ones(12)}, {"w": 3 * jnp.ones(12)}], 4),
                sharpness=sharpness,
                trace=lambda params=params: hessian.trace(params, 3.0, samples=4),
                val_loss=lambda: 7.0,
            )
            params = new
    assert calls == [0, 3]  # what is not due is not computed
    read = read_log(path)
    assert read.steps.tolist() == [0, 2, 3, 4]
    columns = read.columns
    shrink = 0.7 ** np.array([0, 2, 3, 4])
    np.testing.assert_allclose(columns["loss"], 18.0 * shrink**2, rtol=1e-5)
    np.testing.assert_allclose(columns["gradient_norm"], 3.0 * np.sqrt(12.0) * shrink, rtol=1e-5)
    np.testing.assert_allclose(columns["update_norm"], 0.1 * columns["gradient_norm"], rtol=1e-4)
    np.testing.assert_allclose(columns["parameter_norm"], 0.7 * np.sqrt(12.0) * shrink, rtol=1e-5)
    assert read.series("sharpness")[0].tolist() == [0, 3]
    np.testing.assert_allclose(read.series("sharpness")[1], 3.0, rtol=1e-5)
    assert read.series("trace")[0].tolist() == [0, 4]
    np.testing.assert_allclose(read.series("trace")[1], 36.0, rtol=1e-5)
    assert read.series("gradient_square")[0].tolist() == [0, 2, 4]
    # |g_small|^2 = 60, |g_big|^2 = 48: variance 12 / (1/8), square 36.
    np.testing.assert_allclose(read.series("noise_scale")[1], 96.0 / 36.0, rtol=1e-5)
    assert np.all(columns["val_loss"] == 7.0)


def test_the_log_is_one_that_fit_reads(tmp_path: Path) -> None:
    from optsched.logs.read import read_run

    path = tmp_path / "run.csv"
    with Recorder(path, every=10) as log:
        for step in range(0, 200, 10):
            log.record(step, lr=1e-3, loss=2.0 + 1.0 / (1 + step))
    run = read_run(path, warmup=0)
    assert run.loss[0] == 3.0 and len(run.loss) == 20


def test_going_on_from_a_step(tmp_path: Path) -> None:
    """A run that is cut and resumed at a checkpoint has the log of one that was not."""

    def train(path: Path, start: int, stop: int) -> None:
        with Recorder(path, every=2, start=start, run="a") as log:
            for step in range(start, stop):
                loss = 1.0 / (1 + step)
                log.record(step, lr=0.1, loss=loss, noise=noise(1.0 + step, 2.0))

    whole, parts = tmp_path / "whole.csv", tmp_path / "parts.csv"
    train(whole, 0, 20)
    train(parts, 0, 13)
    with parts.open("a") as file:
        file.write("14,0.1,0.0")  # cut short by a kill
    train(parts, 9, 20)
    assert parts.read_text() == whole.read_text()
    train(parts, 1, 20)
    assert parts.read_text() == whole.read_text()
    assert read_log(whole).run == "a"


def test_a_log_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    Recorder(path, run="a").close()
    text = path.read_text()
    assert text == ",".join([*COLUMNS, "run"]) + "\n"
    with pytest.raises(BadFile, match="exists already"):
        Recorder(path)
    with pytest.raises(BadFile, match=r"columns .* expected"):
        Recorder(path, start=3)
    with Recorder(path, start=3, run="a") as log:
        log.record(3, lr=1, loss=1)
        with pytest.raises(BadFile, match="is being written by another recorder"):
            Recorder(path, start=4, run="a")
    with pytest.raises(BadFile, match="line 2: is of run 'a', not of 'b'"):
        Recorder(path, start=4, run="b")
    with pytest.raises(BadFile, match="no such log to go on with"):
        Recorder(tmp_path / "other.csv", start=3)
    with pytest.raises(BadFile, match="No such file"):
        Recorder(tmp_path / "nowhere" / "run.csv")
    with pytest.raises(BadFile, match="the log was closed"):
        log.record(5, lr=1, loss=1)
    broken = tmp_path / "broken.csv"
    broken.write_text(text + "5" + "," * len(COLUMNS) + "a\n5" + "," * len(COLUMNS) + "a\n")
    with pytest.raises(BadFile, match=r"line 3: .* expected .* a step above 5"):
        Recorder(broken, start=9, run="a")
    assert broken.read_text().count("\n") == 3  # refused, and left as it was


def test_killed_with_sigkill(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    code = (
        "import itertools\n"
        "from optsched.diagnostics.recorder import Recorder\n"
        f"log = Recorder({str(path)!r})\n"
        "for step in itertools.count():\n"
        "    log.record(step, lr=0.1, loss=1.0 / (1 + step))\n"
        "    step == 50 and print('go', flush=True)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"go\n"
        os.kill(process.pid, signal.SIGKILL)
    with Recorder(path, start=40) as log:  # the lock went with the process
        log.record(40, lr=0.1, loss=5.0)
    read = read_log(path)
    assert read.steps.tolist() == list(range(41))
    np.testing.assert_array_equal(read.columns["loss"][:40], 1.0 / (1.0 + np.arange(40)))


def test_divergence_is_raised_after_its_row(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    with Recorder(path) as log:
        log.record(0, lr=0.1, loss=1.0)
        with pytest.raises(NonFinite, match="step 1: loss is nan: the run diverged after step 0"):
            log.record(1, lr=0.1, loss=jnp.nan)
    read = read_log(path)
    assert read.steps.tolist() == [0, 1] and read.nonfinite() == (1, "loss")
    with Recorder(tmp_path / "kept.csv", nonfinite="keep") as log:
        log.record(0, lr=0.1, loss=1.0, gradients=[jnp.array([jnp.inf])])
    assert read_log(tmp_path / "kept.csv").nonfinite() == (0, "gradient_norm")


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=5))
def test_numbers_come_back_exactly(tmp_path: Path, losses: list[float]) -> None:
    path = tmp_path / "run.csv"
    path.unlink(missing_ok=True)
    with Recorder(path) as log:
        for step, loss in enumerate(losses):
            log.record(step, lr=0.1, loss=loss)
    assert read_log(path).columns["loss"].tolist() == losses


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"every": 0}, "every: got 0"),
        ({"every": "all"}, "every: got 'all'"),
        ({"every": [-1]}, "every: got -1"),
        ({"at": {"loss": 3}}, "at: got"),
        ({"at": {"trace": 0}}, "trace: got 0"),
        ({"start": -1}, "start: got -1"),
        ({"run": "a,b"}, "run: got 'a,b'"),
        ({"extra": ["loss"]}, "extra: got 'loss'"),
        ({"extra": ["x", "x"]}, "extra: got 'x'"),
        ({"nonfinite": "skip"}, "nonfinite: got 'skip'"),
    ],
)
def test_bad_settings(settings: dict[str, Any], text: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidProblem, match=text):
        Recorder(tmp_path / "run.csv", **settings)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"step": 0}, "step: got 0, allowed: above 3"),
        ({"step": 4.5}, "step: got 4.5"),
        ({"loss": "low"}, "loss: got 'str'"),
        ({"loss": 1j}, "loss: got 'complex'"),
        ({"accuracy": 1.0}, "accuracy: got 'a value', allowed: columns named in extra="),
        ({"before": [np.ones(2)]}, "parameters: got None"),
        ({"noise": 3.0}, "noise: got 'float'"),
        ({"gradients": "none"}, "tree: got 'no arrays'|tree: got 'str'"),
    ],
)
def test_bad_values(values: dict[str, Any], text: str, tmp_path: Path) -> None:
    with Recorder(tmp_path / "run.csv") as log:
        log.record(3, lr=0.1, loss=1.0)
        with pytest.raises(InvalidProblem, match=text):
            log.record(**{"step": 4, "lr": 0.1, "loss": 1.0, **values})
        with pytest.raises(InvalidProblem, match="what: got 'loss'"):
            log.due(3, "loss")
    assert read_log(tmp_path / "run.csv").steps.tolist() == [3]


def test_logs_that_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    for text, message in (
        ("", "is empty"),
        ("step,loss\n", "no rows"),
        ("loss\n1\n", "no column of the step"),
        ("step,loss\n1,low\n", "line 2: loss is 'low'"),
        ("step,loss\n1.5,2\n", "line 2: step is 1.5"),
    ):
        path.write_text(text)
        with pytest.raises(BadLog, match=message):
            read_log(path)
    path.write_text("step,loss\n0,3\n1,2\n1,1\n")
    assert read_log(path).series("loss")[1].tolist() == [3, 1]  # the later pass
    with pytest.raises(BadLog, match="line 4: step is 1, expected more"):
        read_log(path, repeats="refuse")
    path.write_text("step,loss,note\n0,1,fine\n1,,\n2,nan,\n")
    log = read_log(path)
    assert "note" not in log.columns and log.nonfinite() == (2, "loss")
    assert log.series("loss")[0].tolist() == [0, 2] and len(log.series("sharpness")[0]) == 0


def test_torch_is_not_imported(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np\n"
        "from optsched.diagnostics.recorder import Recorder\n"
        f"log = Recorder({str(tmp_path / 'run.csv')!r})\n"
        "log.record(0, lr=1, loss=1, gradients=[np.ones(2)], parameters={'w': np.ones(3)})\n"
        "assert not {'torch', 'optax', 'keras', 'matplotlib'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_torch_loop(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    path = tmp_path / "run.csv"
    with Recorder(path) as log:
        for step in range(3):
            before = snapshot(model)
            loss = (model(torch.ones(2, 5)) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            parts = ([p.grad * (1 + part) for p in model.parameters()] for part in range(2))
            row = log.record(
                step,
                lr=optimizer.param_groups[0]["lr"],
                loss=loss,
                gradients=model,
                parameters=model,
                before=before,
                noise=lambda parts=parts: from_micro_batches(parts, 4),
            )
            assert row is not None
            assert tree_norm(iter(model.parameters())) == pytest.approx(row["parameter_norm"])
            norms = [p.grad.double().norm().item() for p in model.parameters()]
            assert row["gradient_norm"] == pytest.approx(np.hypot(*norms), rel=1e-6)
            assert row["update_norm"] == pytest.approx(0.1 * row["gradient_norm"], rel=1e-4)
            # Parts g and 2g: mean square 5/2, square of the mean 9/4.
            g2 = row["gradient_norm"] ** 2
            assert row["gradient_variance"] == pytest.approx(0.25 * g2 * 8.0, rel=1e-4)
    half = [torch.full((3,), 300.0, dtype=torch.float16)]
    assert tree_norm(half) == pytest.approx(300.0 * np.sqrt(3.0), rel=1e-5)
    assert read_log(path).steps.tolist() == [0, 1, 2]
