"""Logs of pilot runs: what is read, what is inferred, what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from optsched.errors import BadLog, InvalidProblem
from optsched.pilot import read_run, read_runs, read_schedule

STEPS = np.arange(2176, 8001, 128)


def write(path: Path, steps, rates, losses, header: str = "step,lr,loss") -> Path:
    rows = [f"{s},{r!r},{x!r}" for s, r, x in zip(steps, rates, losses, strict=True)]
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def losses(n: int) -> list[float]:
    return (4.0 * (1.0 + np.arange(n)) ** -0.1).tolist()


def constant(tmp_path: Path, steps=STEPS, **options):
    path = write(tmp_path / "c.csv", steps, [3e-4] * len(steps), losses(len(steps)))
    return read_run(path, **options)


def test_warmup_before_the_first_row(tmp_path: Path) -> None:
    """The ramp is the N steps from 0; the first row's rate holds from there."""
    run = constant(tmp_path, warmup=2160)
    assert run.name == "c"
    assert run.warmup == 2160
    assert run.schedule.horizon == STEPS[-1] + 1
    expected = 3e-4 * np.minimum(np.arange(STEPS[-1] + 1) / 2160, 1.0)
    np.testing.assert_allclose(run.schedule.eta, expected, rtol=1e-12)
    np.testing.assert_array_equal(run.steps, STEPS)
    assert run.loss.tolist() == losses(len(STEPS))


def test_steps_that_count_from_the_end_of_the_warmup(tmp_path: Path) -> None:
    run = constant(tmp_path, steps=STEPS - 2176, warmup=2160)
    np.testing.assert_array_equal(run.steps, STEPS - 16)
    expected = 3e-4 * np.minimum(np.arange(run.schedule.horizon) / 2160, 1.0)
    np.testing.assert_allclose(run.schedule.eta, expected, rtol=1e-12)
    assert "2160 are added" in run.summary()


def test_no_warmup_is_assumed_and_said(tmp_path: Path) -> None:
    run = constant(tmp_path)
    assert run.warmup == 0
    assert np.all(run.schedule.eta == 3e-4)
    assert "--warmup N" in run.summary()


@pytest.mark.parametrize("low, high, step", [(7936, 8000, 8000), (7900, 8100, 8000)])
def test_a_drop_is_a_jump_at_a_round_step(tmp_path: Path, low: int, high: int, step: int) -> None:
    steps = [*range(low - 1280, low + 1, 128), *range(high, high + 1281, 128)]
    rates = [3e-4 if s <= low else 9e-5 for s in steps]
    path = write(tmp_path / "drop.csv", steps, rates, losses(len(steps)))
    run = read_run(path, warmup=1000)
    eta = run.schedule.eta
    assert np.all(eta[1000:step] == 3e-4)
    assert np.all(eta[step:] == 9e-5)
    assert f"taken to be at step {step}" in run.summary()


def test_a_schedule_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("step,lr\n0,0.1\n10,0.0\n")
    np.testing.assert_allclose(read_schedule(path).eta, np.linspace(0.1, 0.0, 11), atol=1e-17)
    ours = tmp_path / "ours.npz"
    read_schedule(path).save(ours)
    assert read_schedule(ours) == read_schedule(path)


def test_two_runs_of_one_name(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    paths = [
        write(folder / "c.csv", STEPS, [1e-3] * len(STEPS), losses(len(STEPS)))
        for folder in (tmp_path, tmp_path / "sub")
    ]
    with pytest.raises(BadLog, match=r"sub.*'c' was read from .*c\.csv already"):
        read_runs(paths)


GOOD = [f"{s},0.1,{5 - s / 100}" for s in range(0, 100, 10)]


@pytest.mark.parametrize(
    "text, error",
    [
        ("", r"is empty"),
        ("\n \n", r"is empty"),
        ("step,lr,loss\n", r"no rows"),
        ("step,loss\n0,1\n1,1\n2,1\n3,1\n", r"no column of the learning rate; found step, loss"),
        ("lr,loss\n.1,1\n", r"no column of the step"),
        ("step,lr\n0,.1\n1,.1\n2,.1\n3,.1\n", r"no column of the loss"),
        ("step,lr,loss\n0,.1,1\n10,.1,nan\n", r"line 3: loss is 'nan', expected a finite"),
        ("step,lr,loss\n0,.1,1\n\n10,.1,bad\n", r"line 4: loss is 'bad'"),
        ("step,lr,loss\n0,.1,1\n10,.1,1\n10,.1,1\n", r"line 4: step is 10, expected more"),
        ("step,lr,loss\n0,.1,1\n2.5,.1,1\n", r"line 3: step is 2\.5, expected a whole"),
        ("step,lr,loss\n-1,.1,1\n", r"line 2: step is -1, expected a step >= 0"),
        ("step,lr,loss\n0,.1,1\n1,.1,1\n2,.1,1\n", r"3 losses of run 'x', expected 4 or more"),
        ("step,lr,loss\n0,0,1\n1,0,1\n2,0,1\n3,0,1\n", r"every rate of column 'lr' is 0"),
        ("step,lr,loss\n0,.1,1\n1,-.1,1\n2,.1,1\n3,.1,1\n", r"line 3: lr is -0\.1"),
        ("step,lr,loss\n0,.1,1\n1,.1,-1\n2,.1,1\n3,.1,1\n", r"line 3: loss is -1, expected .* > 0"),
        ("step,lr,loss\n0,.1\n", r"line 2: 2 fields, expected 3"),
        ("step,lr,lr,loss\n0,.1,.1,1\n", r"line 1: column 'lr' is there twice"),
        ("0,.1,1\n1,.1,1\n", r"line 1: numbers .*expected the names"),
        ("\x00\x01\x02", r"is no text in UTF-8"),
    ],
)
def test_bad_logs(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(BadLog, match=r"x\.csv.*" + error) as caught:
        read_run(path)
    assert "\n" not in str(caught.value)


def test_binary_and_missing_files(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(bytes(range(128, 256)))
    with pytest.raises(BadLog, match="is no text"):
        read_run(tmp_path / "x.csv")
    with pytest.raises(BadLog, match="cannot be read: No such file"):
        read_run(tmp_path / "y.csv")


@pytest.mark.parametrize(
    "options, field",
    [
        ({"warmup": -1}, "warmup"),
        ({"warmup": 1.5}, "warmup"),
        ({"unit": "epochs"}, "unit"),
        ({"unit": "tokens"}, "per_step"),
        ({"per_step": 0}, "per_step"),
        ({"rate_of": "this"}, "rate_of"),
        ({"columns": {"rate": "x"}}, "columns"),
    ],
)
def test_bad_arguments(tmp_path: Path, options: dict, field: str) -> None:
    with pytest.raises(InvalidProblem) as caught:
        constant(tmp_path, **options)
    assert caught.value.field == field
