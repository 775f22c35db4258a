"""Logs of pilot runs: what is read, what is inferred, what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optsched.errors import BadLog, InvalidProblem
from optsched.logs import average_seeds, read_run, read_runs, read_schedule
from optsched.logs.rates import fill_rates, jumps, roundest
from optsched.logs.run import noise_level

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
    assert "give its length with warmup=N" in run.summary()


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
    runs = read_runs(paths)
    assert [run.name for run in runs] == ["c", "sub/c"]
    assert "as other runs have that name" in runs[1].summary()
    with pytest.raises(BadLog, match=r"sub.*'c' was read from .*c\.csv already"):
        read_runs(paths, seeds="refuse")
    with pytest.raises(BadLog, match=r"c\.csv: is given twice"):
        read_runs([paths[0], paths[0]])


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
        ("step,lr,loss\n0,.1,1\n10,.1,1\n10,.1,1\n", r"'loss' has 2 rows, expected 4 or more"),
        ("step,lr,loss\n0,.1,1\n2.5,.1,1\n", r"line 3: step is 2\.5, expected a whole"),
        ("step,lr,loss\n-1,.1,1\n", r"line 2: step is -1, expected a step >= 0"),
        ("step,lr,loss\n0,.1,1\n1,.1,1\n2,.1,1\n", r"'loss' has 3 rows, expected 4 or more"),
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
        ({"unit": "miles"}, "unit"),
        ({"unit": "epochs"}, "steps_per_epoch"),
        ({"steps_per_epoch": 0}, "steps_per_epoch"),
        ({"repeats": "first"}, "repeats"),
        ({"rates": -1.0}, "rates"),
        ({"format": "csv"}, "format"),
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


@given(
    warmup=st.integers(20, 3000),
    every=st.integers(1, 150),
    first=st.sampled_from([0, 1, None]),
    floor=st.sampled_from([1.0, 0.1, 0.0]),
)
@settings(max_examples=60, deadline=None)
def test_a_ramp_in_the_rows_is_found(
    warmup: int, every: int, first: int | None, floor: float
) -> None:
    """Ramp and decay of `cosine`, as a log shows them at some steps: within a row of the truth."""
    every = min(every, warmup // 3)
    horizon = 4 * warmup
    truth = np.minimum(np.arange(horizon) / warmup, 1.0)
    tail = np.linspace(1.0, floor, horizon - warmup)
    truth[warmup:] = tail
    steps = np.arange(every if first is None else first, horizon, every)
    filled = fill_rates(steps, truth[steps], horizon=int(steps[-1]) + 1)
    assert abs(filled.warmup - warmup) <= every
    eta = filled.schedule.eta
    np.testing.assert_allclose(eta, truth[: len(eta)], atol=1.01 * every / warmup)
    # A plateau pins the end of the ramp.
    if floor == 1.0:
        assert abs(filled.warmup - warmup) <= 1
        np.testing.assert_allclose(eta, truth[: len(eta)], rtol=1e-9, atol=1.0 / warmup)


@given(st.integers(0, 10**6), st.integers(1, 10**4))
def test_the_roundest_step(low: int, width: int) -> None:
    """Against a search over all steps of the interval."""
    found = roundest(low, low + width)
    assert low < found <= low + width

    def roundness(k: int) -> float:
        zeros = len(str(k)) - len(str(k).rstrip("0"))
        return zeros + 0.5 * (k // 10**zeros % 5 == 0)

    assert roundness(found) == max(map(roundness, range(low + 1, low + width + 1)))


SHAPES = ["cosine", "linear", "exponential", "1-sqrt", "inverse sqrt", "restarts"]


@given(
    family=st.sampled_from(SHAPES),
    every=st.integers(1, 200),
    final=st.floats(0.0, 0.5),
)
@settings(max_examples=60, deadline=None)
def test_smooth_decays_have_no_jumps(family: str, every: int, final: float) -> None:
    """Held, then decayed: only restarts jump, and each of them does."""
    k = np.arange(4001)
    x = np.clip((k - 2000) / 2000, 0.0, 1.0)
    shape = {
        "cosine": final + (1 - final) * 0.5 * (1 + np.cos(np.pi * x)),
        "linear": 1 - (1 - final) * x,
        "exponential": max(final, 1e-3) ** x,
        "1-sqrt": 1 - (1 - final) * np.sqrt(x),
        "inverse sqrt": np.minimum(1.0, np.sqrt(2000 / np.maximum(k, 1))),
        "restarts": 0.5 * (1 + np.cos(np.pi * (k % 1000) / 1000)),
    }[family]
    # Of a restart at least ten rows a period must tell.
    steps = np.arange(0, 4001, min(every, 100) if family == "restarts" else every)
    found = jumps(steps, shape[steps])
    if family == "restarts":
        restarts = [k for k in (1000, 2000, 3000, 4000) if k <= steps[-1]]
        assert [roundest(int(steps[i]), int(steps[i + 1])) for i in found] == restarts
    else:
        assert found.size == 0


def test_a_staircase(tmp_path: Path) -> None:
    """Every step of a step schedule is a jump, wherever the rows fall."""
    steps = np.arange(57, 9000, 111)
    rates = 0.1 * 0.5 ** (steps // 1500)
    path = write(tmp_path / "s.csv", steps, rates.tolist(), losses(len(steps)))
    eta = read_run(path, warmup=0).schedule.eta
    drops = np.flatnonzero(np.diff(eta)) + 1
    assert drops.tolist() == [1500, 3000, 4500, 6000, 7500]


def test_a_given_warmup_beside_a_ramp_in_the_rows(tmp_path: Path) -> None:
    steps = np.arange(0, 2001, 100)
    rates = np.minimum(steps / 950, 1.0).tolist()
    path = write(tmp_path / "r.csv", steps, rates, losses(len(steps)))
    assert read_run(path).warmup == 950
    given = read_run(path, warmup=930)
    assert given.warmup == 930
    assert given.steps[0] == 0
    other = read_run(path, warmup=2160)
    assert other.warmup == 950
    assert "Warm-up of 2160 steps was given, but the rows show" in other.summary()


def test_a_warmup_that_ends_before_the_second_row(tmp_path: Path) -> None:
    """Sparse rows show that there was a ramp, not where it ended: N says so."""
    steps = np.arange(0, 5001, 1000)
    rates = np.minimum(steps / 500, 1.0).tolist()
    path = write(tmp_path / "r.csv", steps, rates, losses(len(steps)))
    run = read_run(path, warmup=500)
    np.testing.assert_allclose(run.schedule.eta, np.minimum(np.arange(5001) / 500, 1.0))
    assert run.warmup == 500
    guess = read_run(path)
    assert guess.warmup == 1000
    assert "a ramp up to step 1000 is assumed; give its length" in guess.summary()


def test_rows_that_begin_late_in_the_ramp(tmp_path: Path) -> None:
    """One row before the end of the warm-up: nothing is shifted, and the ramp is that of N."""
    steps = np.arange(2048, 8001, 128)
    rates = 3e-4 * np.minimum(steps / 2160, 1.0)
    path = write(tmp_path / "r.csv", steps, rates.tolist(), losses(len(steps)))
    run = read_run(path, warmup=2160)
    np.testing.assert_array_equal(run.steps, steps)
    truth = 3e-4 * np.minimum(np.arange(steps[-1] + 1) / 2160, 1.0)
    np.testing.assert_allclose(run.schedule.eta, truth, rtol=1e-9)
    assert "the rows begin within it" in run.summary()


def test_noise_level() -> None:
    """Of known noise about a curve and with a jump, within 4 standard errors (1.2/sqrt(n))."""
    rng = np.random.default_rng(3)
    steps = np.cumsum(rng.integers(1, 20, 4000))
    loss = 3.0 + 5.0 * (steps + 100.0) ** -0.4 - 0.3 * (steps > 20_000)
    for sigma in (1e-3, 0.05):
        found = noise_level(steps, loss + sigma * rng.standard_normal(4000))
        assert found == pytest.approx(sigma, rel=4 * 1.2 / np.sqrt(4000))


def test_thin_averages_within_bins(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    steps = np.arange(1, 20_001)
    rates = np.where(steps < 8000, 0.1, 0.01)
    curve = 2.0 + 3.0 * steps**-0.3 - 0.2 * (steps > 8000)
    path = tmp_path / "t.csv"
    noisy = curve + 0.1 * rng.standard_normal(20_000)
    run = read_run(write(path, steps, rates.tolist(), noisy.tolist()), warmup=0)
    assert run.noise == pytest.approx(0.1, rel=0.03)
    for spacing, most in (("log", 0.02), ("equal", 0.05)):
        thin = run.thin(100, spacing)
        assert 60 <= len(thin.steps) <= 102
        assert thin.schedule is run.schedule
        assert np.all(np.diff(thin.steps) > 0)
        # No bin mixes losses from before and from after the drop.
        late = thin.steps > 1000
        error = thin.loss - np.interp(thin.steps, steps, curve)
        assert np.abs(error[late]).max() < most
        assert "the noise of a row was 0.1" in thin.summary()
    assert run.thin(20_000) is run
    with pytest.raises(InvalidProblem, match="points: got 3"):
        run.thin(3)
    spacing: Any = "sqrt"
    with pytest.raises(InvalidProblem, match="spacing: got 'sqrt'"):
        run.thin(10, spacing)


def seeds(folder: Path, names: list[str], peak: float = 0.1, every: int = 10) -> list[Path]:
    steps = np.arange(0, 1001, every)
    paths = []
    for i, name in enumerate(names):
        noisy = 3.0 + (1.0 + steps) ** -0.5 + 0.01 * np.random.default_rng(i).standard_normal()
        (folder / name).parent.mkdir(exist_ok=True)
        paths.append(write(folder / name, steps, [peak] * len(steps), noisy.tolist()))
    return paths


def test_seeds_are_averaged(tmp_path: Path) -> None:
    names = [f"const_seed{i}.csv" for i in range(12)]
    paths = seeds(tmp_path, names) + seeds(tmp_path, ["other.csv"], peak=0.2)
    paths += seeds(tmp_path, ["x/other.csv", "y/sparse.csv"], peak=0.3, every=20)
    runs = read_runs(paths[:13])
    assert [run.name for run in runs] == [name[:-4] for name in names] + ["other"]
    many, single = average_seeds(runs)
    np.testing.assert_allclose(many.mean.loss, np.mean([run.loss for run in runs[:12]], axis=0))
    assert many.mean.name == "const"
    # One offset a seed, of standard deviation 0.01; 12 of them give it to 21 % (1 sigma).
    assert many.noise == pytest.approx(0.01, rel=0.65)
    offsets = [run.loss[0] for run in runs[:12]]
    assert many.noise == pytest.approx(np.std(offsets, ddof=1), rel=1e-6)
    assert single.noise is None
    assert single.mean is runs[12]
    assert "Mean of 12 seeds" in many.mean.summary()
    # The same through read_runs, where other.csv and sparse.csv have equal schedules too.
    means = read_runs([*paths[:12], *paths[13:]], seeds="average")
    assert len(means) == 2


def test_seeds_of_one_name(tmp_path: Path) -> None:
    paths = seeds(tmp_path, ["a/run.csv", "b/run.csv"])
    runs = read_runs(paths, seeds="keep")
    assert [run.name for run in runs] == ["run#1", "run#2"]
    (mean,) = read_runs(paths, seeds="average")
    assert mean.name == "run"
    other = seeds(tmp_path, ["c/run.csv"], peak=0.2)
    with pytest.raises(BadLog, match=r"c/run\.csv: run 'run' has another schedule"):
        read_runs([*paths, *other], seeds="keep")
    with pytest.raises(InvalidProblem, match="seeds"):
        read_runs(paths, seeds="yes")  # pyright: ignore[reportArgumentType]


def test_seeds_without_common_steps(tmp_path: Path) -> None:
    one = write(tmp_path / "a.csv", [0, 10, 20, 30], [1.0] * 4, losses(4))
    two = write(tmp_path / "b.csv", [1, 11, 21, 30], [1.0] * 4, losses(4))
    with pytest.raises(BadLog, match=r"share 1 steps, expected 4 or more"):
        average_seeds(read_runs([one, two], warmup=0))


LOG = "step,lr,loss\n" + "\n".join(f"{k * 10},{0.1 - k * 0.01},{5 - k / 10}" for k in range(8))


@given(
    at=st.integers(0, len(LOG)),
    cut=st.integers(0, 30),
    put=st.text(alphabet='0159.,-+e \n"#{[nalossteplr\t\x00\ud7ff', max_size=12),
)
@settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_damaged_log_is_read_or_refused(tmp_path: Path, at: int, cut: int, put: str) -> None:
    """Whatever is cut or typed: a run that is sound, or one error of ours in one line."""
    path = tmp_path / "d.csv"
    path.write_text(LOG[:at] + put + LOG[at + cut :], encoding="utf-8")
    try:
        run = read_run(path)
    except BadLog as error:
        assert str(error).startswith(str(path))
        assert "\n" not in str(error)
    else:
        assert len(run.steps) >= 4
        assert run.schedule.horizon == run.steps[-1] + 1


def test_a_log_of_every_step(tmp_path: Path) -> None:
    """A hundred thousand rows, as loops write that log each update."""
    steps = np.arange(100_000)
    rates = np.minimum(steps / 2000, 1.0) * 3e-4
    run = read_run(write(tmp_path / "l.csv", steps, rates.tolist(), losses(100_000)))
    assert run.warmup == 2000
    np.testing.assert_allclose(run.schedule.eta, rates, rtol=1e-12)
    assert len(run.thin(300).steps) <= 301


@given(
    warmup=st.integers(20, 3000),
    every=st.integers(1, 4000),
    first=st.integers(0, 6000),
    late=st.booleans(),
)
@settings(max_examples=100, deadline=None)
def test_a_given_warmup_holds_wherever_the_rows_fall(
    warmup: int, every: int, first: int, late: bool
) -> None:
    """From before, within or after the ramp on, with rows of the next or of the last update."""
    steps = np.arange(first, first + 12 * every, every)
    truth = np.minimum(np.arange(steps[-1] + 1) / warmup, 1.0)
    rates = truth[np.maximum(steps - late, 0)]
    filled = fill_rates(steps, rates, int(steps[-1]) + 1, warmup)
    assert filled.shift == 0
    np.testing.assert_allclose(filled.schedule.eta, truth, atol=1.001 * late / warmup + 1e-12)
