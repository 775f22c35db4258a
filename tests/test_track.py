"""Runs beside their law: forecasts, the test for faults, growing and rotated logs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsched import BadLog, InvalidProblem, Schedule
from optsched.logs import read_run
from optsched.logs.growing import read_growing
from optsched.logs.rates import cut
from optsched.logs.run import Run, noise_level
from optsched.pilot import Fit, fit, predict, track
from optsched.pilot.pieces import cut as pieces
from optsched.pilot.tracking import Follower
from optsched.pilot.tracking.alarm import Fault, judge
from optsched.pilot.tracking.anchor import anchored, linear, places
from optsched.pilot.tracking.discrepancy import discrepancy
from optsched.pilot.tracking.follow import continued
from optsched.pilot.tracking.outlook import changed, held, outlook
from optsched.pilot.tracking.rates import off_plan, spliced
from optsched.pilot.tracking.rows import edges_of, in_bins
from tests.pilots import DATA, TRAIN, WARMUP, chosen, public_runs

END = 24_000


@cache
def law() -> Fit:
    return fit(chosen("100M", TRAIN))


def until(run: Run, end: int) -> Run:
    keep = run.steps <= end
    return replace(run, steps=run.steps[keep], loss=run.loss[keep])


def run_of(name: str) -> Run:
    return public_runs("100M")[name]


def whole(name: str) -> Schedule:
    run = run_of(name)
    return cut(run.schedule, int(run.steps[-1]))


def drawn(
    schedule: Schedule, true: Schedule | None = None, seed: int = 0, noise: float = 1e-3
) -> Run:
    """A run that follows the law of the fit, with independent noise of the rows."""
    rng = np.random.default_rng(seed)
    steps = np.arange(WARMUP, schedule.horizon + 1, 120)
    found = law()
    loss = found.law.curve(found.theta, pieces(true or schedule, steps, found.scale))
    return Run(
        "drawn", steps, loss * np.exp(noise * rng.standard_normal(len(steps))), schedule, WARMUP
    )


@pytest.mark.parametrize("name", ["wsd_20000_24000", "wsdld_20000_24000", "wsdcon_18"])
def test_sound_runs_are_on_track(name: str) -> None:
    one = track(law(), run_of(name))
    assert not one.off_track and one.reasons == ()
    assert one.end.lower <= run_of(name).loss[-1] <= one.end.upper
    assert one.step == one.horizon == run_of(name).steps[-1]


def test_a_forecast_from_half_way_is_narrower_and_no_worse() -> None:
    errors = []
    for name in ("wsd_20000_24000", "wsdld_20000_24000", "wsdcon_18", "constant_72000"):
        run = run_of(name)
        one = track(law(), until(run, int(run.steps[-1]) // 2), whole(name))
        assert one.horizon == run.steps[-1] and one.step < 0.51 * one.horizon
        assert one.end.upper - one.end.lower <= one.before.upper - one.before.lower
        errors.append([abs(one.before.loss - run.loss[-1]), abs(one.end.loss - run.loss[-1])])
    before, after = np.mean(errors, axis=0)
    assert after < before + 2e-4


def test_before_any_row_the_forecast_is_the_prediction() -> None:
    schedule = whole("wsd_20000_24000")
    told = predict(law(), schedule, [schedule.horizon])
    one = track(law(), until(run_of("wsd_20000_24000"), WARMUP + 600), schedule)
    assert one.measured is None and one.end == one.before
    assert one.before.loss == pytest.approx(told.loss[0], rel=1e-9)
    assert one.before.upper - one.before.lower == pytest.approx(
        told.upper[0] - told.lower[0], rel=0.1
    )
    assert "too early" in one.line and any("No row past" in note for note in one.notes)


def test_rates_of_another_run_are_found() -> None:
    """The losses of a run that was held, with the rates of one that decayed, and the reverse."""
    for rates, losses, above in (
        ("wsdld_20000_24000", "constant_24000", True),
        ("constant_24000", "wsdld_20000_24000", False),
    ):
        run = until(run_of(losses), int(run_of(rates).steps[-1]))
        one = track(law(), replace(run, schedule=run_of(rates).schedule))
        assert one.off_track and one.alarm.at is not None and one.alarm.at > 20_000
        assert (one.alarm.effect > 0.0) is above and one.above is above
        assert one.outside is not None and one.outside > 20_000
        assert ("above" if above else "below") in one.reasons[0]


@pytest.mark.parametrize(
    ("fault", "kinds", "size"),
    [
        ("double", ("rate",), np.log(2.0)),
        ("held", ("held", "rate"), None),
        ("loss", ("loss",), 0.01),
    ],
)
def test_faults_are_named(fault: str, kinds: Sequence[str], size: float | None) -> None:
    schedule = whole("cosine_24000")
    half = schedule.horizon // 2
    true = {
        "double": changed(schedule, half, 2.0),
        "held": held(schedule, half, float(schedule(half))),
    }
    run = drawn(schedule, true.get(fault))
    if fault == "loss":
        run = replace(run, loss=run.loss * np.where(run.steps > half, 1.01, 1.0))
    one = track(law(), run)
    assert one.off_track and one.alarm.fault is not None and one.alarm.at is not None
    assert half < one.alarm.at < 0.95 * schedule.horizon
    assert one.alarm.fault.kind in kinds
    assert abs(one.alarm.fault.since - half) < 0.12 * schedule.horizon
    if size is not None:
        assert one.alarm.size == pytest.approx(size, abs=max(4.0 * one.alarm.error, 0.5 * size))


def test_a_spike_of_a_row_is_no_fault() -> None:
    run = drawn(whole("cosine_24000"))
    loss = run.loss.copy()
    loss[[60, 61, 120]] *= 1.2
    one = track(law(), replace(run, loss=loss))
    assert not one.off_track
    assert abs(one.end.loss - track(law(), run).end.loss) < 5e-4


def gaussian(n: int = 40) -> tuple[np.ndarray, dict[Fault, np.ndarray]]:
    at = np.linspace(1.0, 2.0, n)
    apart = np.abs(at[:, None] - at[None])
    covariance = np.exp(-apart / 0.5) + 0.3 * np.eye(n)
    faults = {Fault("loss", i): (np.arange(n) >= i).astype(float) for i in range(1, n, 3)}
    return covariance, faults


def test_false_alarms_are_as_many_as_are_allowed() -> None:
    """Over the whole run, with a look after every bin; the residuals are independent."""
    covariance, faults = gaussian()
    draws = np.random.default_rng(1).multivariate_normal(np.zeros(40), covariance, 200)
    told = [judge(off, covariance, faults, np.arange(40), 0.2) for off in draws]
    share = np.mean([alarm.off for alarm, _ in told])
    assert 0.12 < share < 0.29
    own = np.array([residuals for _, residuals in told])
    assert own.std() == pytest.approx(1.0, abs=0.03)
    assert abs(np.mean(own[:, 1:] * own[:, :-1])) < 0.03


def test_a_look_is_not_undone_by_a_later_one() -> None:
    covariance, faults = gaussian()
    off = np.random.default_rng(2).multivariate_normal(np.zeros(40), covariance)
    off += 6.0 * (np.arange(40) >= 19)
    last, own = judge(off, covariance, faults, np.arange(40), 0.02)
    assert last.off and last.at is not None and 18 < last.at < 30
    for n in (10, last.at, last.at + 1, 35):
        look, early = judge(off[:n], covariance, faults, np.arange(n), 0.02)
        assert look.off is (n > last.at) and look.limit == last.limit
        np.testing.assert_allclose(early, own[:n])
        assert look.at == (last.at if look.off else None)
    assert last.fault is not None and last.fault.since == 19
    assert last.size == pytest.approx(6.0, abs=3.0 * last.error)


def test_an_anchor_is_the_gaussian_condition() -> None:
    """Against the joint covariance of bins and end, at the same point."""
    found, run = law(), until(run_of("wsd_20000_24000"), 12_000)
    schedule, end = whole("wsd_20000_24000"), np.array([23_904])
    bins = in_bins(run, 5000, edges_of(5000, 23_904))
    assert bins is not None
    anchor = anchored(found, run, bins)
    told = anchor.forecast(schedule, end, 0.8)
    w = np.linalg.lstsq(anchor.root, anchor.theta - found.theta, rcond=None)[0]
    new = linear(
        found.law, anchor.theta, anchor.root, pieces(schedule, end, found.scale),
        places(schedule, end),
    )  # fmt: skip
    slope = np.vstack([anchor.slope, new.slope])
    n = len(anchor.rest)
    joint = slope @ slope.T
    joint[:n, :n] += discrepancy(found, anchor.at, anchor.at, schedule) + np.diag(anchor.noise**2)
    joint[n:, :n] += discrepancy(found, new.times, anchor.at, schedule)
    joint[:n, n:] = joint[n:, :n].T
    joint[n:, n:] += discrepancy(found, new.times, new.times, schedule)
    gain = np.linalg.solve(joint[:n, :n], joint[:n, n:]).T
    off = anchor.rest + anchor.slope @ w
    mean = new.value - new.slope @ w + gain @ off
    variance = joint[n:, n:] - gain @ joint[:n, n:]
    assert np.log(told.loss) == pytest.approx(mean, abs=2e-4)  # Gauss-Newton has converged
    assert told.covariance == pytest.approx(variance, rel=1e-6)
    half = np.log(told.upper / told.loss)
    assert half == pytest.approx(1.2815515655 * np.sqrt(variance[0]), rel=1e-6)


def test_the_fit_of_an_anchor_has_its_spread() -> None:
    found, run = law(), run_of("wsd_20000_24000")
    bins = in_bins(run, 5000, edges_of(5000, END))
    anchor = anchored(found, run, bins)
    covariance = np.cov(anchor.fit.members.T)
    wanted = anchor.root @ anchor._solved[1] @ anchor.root.T
    size = np.sqrt(np.diag(np.cov(found.members.T)))
    free = size > 1e-9
    scaled = (covariance - wanted)[np.ix_(free, free)] / np.outer(size, size)[np.ix_(free, free)]
    assert np.abs(scaled).max() < 0.05  # but for members at the end of a range
    assert np.all(np.diag(covariance) <= 1.05 * size**2)
    assert anchored(found, run, None).fit is found


def test_forecasts_hold_what_they_say() -> None:
    """Over runs that are drawn from the prior of the model."""
    found, schedule = law(), whole("wsdld_20000_24000")
    rng = np.random.default_rng(3)
    steps = np.append(np.arange(5000, schedule.horizon - 100, 250), schedule.horizon)
    run = Run("x", steps, np.full(len(steps), 3.0), schedule)
    bins = in_bins(run, 4000, edges_of(4000, schedule.horizon))
    assert bins is not None
    anchor = anchored(found, run, None)
    told = linear(
        found.law, found.theta, anchor.root, pieces(schedule, steps, found.scale),
        places(schedule, steps),
    )  # fmt: skip
    noise = 3e-4
    own = discrepancy(found, told.times, told.times, schedule)
    hits, z = [], []
    for extra in rng.multivariate_normal(np.zeros(len(steps)), own, 40):
        theta = found.theta + anchor.root @ rng.standard_normal(anchor.root.shape[1])
        theta = np.clip(theta, found.law.low, found.law.high)
        values = np.log(found.law.curve(theta, pieces(schedule, steps, found.scale))) + extra
        rows = values + noise * rng.standard_normal(len(steps))
        half = steps <= 12_000
        part = Run("x", steps[half], np.exp(rows[half]), schedule)
        one = track(found, part, schedule)
        hits.append(one.end.lower <= np.exp(values[-1]) <= one.end.upper)
        sd = np.log(one.end.upper / one.end.loss) / 1.28155
        z.append((values[-1] - np.log(one.end.loss)) / sd)
    assert 0.65 <= np.mean(hits) <= 0.95
    assert 0.75 < np.std(z) < 1.3 and abs(np.mean(z)) < 0.5


def test_noise_that_rows_share_counts() -> None:
    """Smoothed rows have less noise from one to the next than in a bin of them."""
    rng = np.random.default_rng(0)
    steps = np.arange(1000, 41_000, 100)
    white = 1e-2 * rng.standard_normal(len(steps) + 12)
    smooth = np.convolve(white, np.ones(13) / 13.0, "valid")
    schedule = Schedule.from_array(np.full(41_000, 1e-3))
    told = []
    for noise in (white[: len(steps)], smooth):
        bins = in_bins(Run("x", steps, np.exp(noise), schedule), 1000, edges_of(1000, 41_000))
        assert bins is not None
        told.append((noise_level(steps, noise), float(np.median(bins.noise(noise)))))
    rows, sizes = np.array(told).T
    assert rows[1] < 0.25 * rows[0]
    assert sizes[1] > 2.0 * rows[1] / np.sqrt(np.median(bins.count))
    assert 0.6 * sizes[0] < sizes[1] < 1.6 * sizes[0]


def test_bins_do_not_depend_on_how_much_is_done() -> None:
    run, edges = run_of("constant_24000"), edges_of(5000, END)
    part, full = in_bins(until(run, 12_000), 5000, edges), in_bins(run, 5000, edges)
    assert part is not None and full is not None
    n = len(part.steps) - 1
    np.testing.assert_array_equal(part.steps[:n], full.steps[:n])
    assert in_bins(run, END, edges) is None


def test_the_outlook_has_the_bins_to_come() -> None:
    found, run = law(), run_of("wsd_20000_24000")
    schedule, edges = whole("wsd_20000_24000"), edges_of(5000, 23_904)
    looks = []
    for end in (12_000, 23_904):
        bins = in_bins(until(run, end), 5000, edges)
        assert bins is not None
        looks.append(outlook(found, schedule, bins, edges))
    assert len(looks[0].off) < 0.7 * len(looks[0].covariance)
    assert abs(len(looks[0].covariance) - len(looks[1].covariance)) <= 6


def test_rates_off_the_plan() -> None:
    plan = whole("wsdld_20000_24000")
    late = Schedule.from_knots([0, 12_000, 12_001, 23_904], eta=[3e-4, 3e-4, 2e-4, 2e-4])
    run = replace(run_of("wsdld_20000_24000"), schedule=late)
    found = off_plan(run, plan)
    assert found is not None and 12_001 <= found.since <= 12_001 + 256
    assert (found.logged, found.planned) == (2e-4, pytest.approx(3e-4))
    assert off_plan(run_of("wsdld_20000_24000"), plan) is None
    one = track(law(), run, plan)
    assert one.off_track and "not the planned one from step 12,0" in one.reasons[0]
    # A loggers' step more or less is no other rate.
    steps = np.concatenate([[0], np.maximum(plan.steps - 128, 0)[1:], [plan.horizon - 1]])
    shifted = Schedule.from_knots(
        np.unique(steps), eta=plan(np.minimum(np.unique(steps) + 128, plan.horizon - 1)),
        horizon=plan.horizon,
    )  # fmt: skip
    assert off_plan(replace(run, schedule=shifted), plan) is None


def test_a_schedule_is_spliced() -> None:
    past = Schedule.from_knots([0, 99], eta=[0.1, 0.1])
    plan = Schedule.from_knots([0, 199], eta=[0.3, 0.0])
    both = spliced(past, 50, plan)
    assert both.horizon == 200
    assert both(49) == 0.1 and both(50) == plan(50) and both(199) == 0.0
    assert spliced(past, 50, None).horizon == 50
    assert spliced(past, 99, Schedule.from_knots([0, 59], eta=[1.0, 1.0])).horizon == 99


ROWS = [
    {"step": s, "lr": 1e-3, "loss": 3.0 + s**-0.3, "note": "a"} for s in range(100, 2100, 100)
]  # fmt: skip


def write(path: Path, kind: str, rows: Sequence[dict[str, Any]] = ROWS) -> Path:
    if kind == "jsonl":
        text = "".join(json.dumps(row) + "\n" for row in rows)
    elif kind == "csv":
        text = "step,lr,loss\n" + "".join(f"{r['step']},{r['lr']},{r['loss']}\n" for r in rows)
    else:
        text = "".join(f"step {r['step']} | lr {r['lr']} | loss {r['loss']:.6f}\n" for r in rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "text"])
def test_a_last_line_that_is_cut_is_left_out(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"log.{'txt' if kind == 'text' else kind}", kind)
    full = path.read_bytes()
    assert read_growing(path).notes == () and len(read_growing(path).run.steps) == 20
    last = full.rstrip(b"\n").rpartition(b"\n")[2]
    for cut_ in range(1, len(last), 7):
        path.write_bytes(full[: len(full) - 1 - cut_])
        log = read_growing(path)
        assert log.run.steps.tolist() == [row["step"] for row in ROWS[:-1]]
        assert log.stopped is None and "the last, is not finished" in log.notes[0]


def test_an_object_without_a_newline_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", "jsonl")
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    assert len(read_growing(path).run.steps) == 20 and read_growing(path).notes == ()


def test_a_reader_says_that_a_last_line_is_cut(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", "jsonl")
    full = path.read_text()
    path.write_text(full[:-20])
    with pytest.raises(BadLog, match=r"line 20.*the last line, and cut short.*optsched track"):
        read_run(path)
    first, second, rest = full.split("\n", 2)
    path.write_text("\n".join([first, second[:-20], rest]))
    with pytest.raises(BadLog, match="line 2: ") as error:
        read_run(path)
    assert "cut short" not in str(error.value)


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_a_loss_that_is_not_finite(tmp_path: Path, kind: str) -> None:
    rows = [dict(row) for row in ROWS]
    rows[5]["loss"] = float("nan")
    log = read_growing(write(tmp_path / f"a.{kind}", kind, rows))
    assert log.stopped is None and "1 losses that are no finite" in log.notes[0]
    assert 600 not in log.run.steps and len(log.run.steps) == 19
    for row in rows[15:]:
        row["loss"] = float("nan")
    log = read_growing(write(tmp_path / f"a.{kind}", kind, rows))
    assert log.stopped == 1600 and log.run.steps[-1] == 1500
    with pytest.raises(BadLog, match="expected a finite number"):
        read_run(tmp_path / f"a.{kind}")


def test_a_rule_of_rates_in_the_rows(tmp_path: Path) -> None:
    rows = [{**row, "lr": 1e-3 if row["step"] < 1250 else 1e-4} for row in ROWS]
    for rule, at in (("last", 1199), ("next", 1200)):
        path = write(tmp_path / "log.jsonl", "jsonl", [{**row, "rate_of": rule} for row in rows])
        found = read_run(path)
        assert any(f"between steps {at} and {at + 100}" in note for note in found.notes)


def test_rows_that_a_rotated_log_lost_are_kept(tmp_path: Path) -> None:
    run = run_of("wsd_20000_24000")
    rows = [
        {"step": int(s), "lr": float(run.schedule(int(s))), "loss": float(x)}
        for s, x in zip(run.steps, run.loss, strict=True)
    ]
    path = tmp_path / "log.jsonl"
    follower = Follower(law(), path, whole("wsd_20000_24000"), warmup=WARMUP)
    with pytest.raises(BadLog):
        follower.look()
    first = follower.look() if write(path, "jsonl", rows[:60]) else None
    assert first is not None and first.step == run.steps[59]
    assert follower.look() is None
    write(path, "jsonl", rows[62:90])  # rotated: two rows are lost
    second = follower.look()
    assert second is not None and follower.seen is not None
    assert second.step == run.steps[89] and second.horizon == 23_904
    assert follower.seen.steps[0] == run.steps[0] and len(follower.seen.steps) == 60 + 28
    assert not second.off_track
    assert continued(first_run := follower.seen, first_run) is first_run
    write(path, "jsonl", [*rows[62:], {**rows[-1], "step": 24_100, "loss": float("nan")}])
    last = follower.look()
    assert last is not None and last.stopped == 24_100 and "no finite" in last.reasons[0]


def test_bad_arguments() -> None:
    run = run_of("wsd_20000_24000")
    with pytest.raises(InvalidProblem, match="false_alarm"):
        track(law(), run, false_alarm=0.0)
    with pytest.raises(InvalidProblem, match="level"):
        track(law(), run, level=1.0)
    with pytest.raises(InvalidProblem, match="schedule"):
        track(law(), run, "plan.npz")  # type: ignore[arg-type]
    with pytest.raises(InvalidProblem, match="read already"):
        track(law(), run, warmup=10)
    with pytest.raises(InvalidProblem, match=r"does not describe|describes the runs"):
        track(replace(law(), failed="No law describes these losses"), run)


def test_another_loss_than_that_of_the_pilots() -> None:
    run = run_of("wsd_20000_24000")
    one = track(law(), replace(run, loss=run.loss * 1.06))
    assert one.off_track and one.alarm.effect > 0.0
    assert one.alarm.at is not None and one.alarm.at < 8000


def test_a_path(tmp_path: Path) -> None:
    path = DATA / "100M" / "wsdld_20000_24000.csv"
    one = track(law(), path, warmup=WARMUP)
    same = track(law(), run_of("wsdld_20000_24000"))
    assert one.end == same.end and one.name == same.name
    assert "Track(" in repr(one) and len(repr(one)) < 500


def test_a_batch_size_that_changes_is_said(tmp_path: Path) -> None:
    rows = [{**row, "batch_size": 8 if row["step"] < 900 else 16} for row in ROWS]
    (note,) = read_growing(write(tmp_path / "log.jsonl", "jsonl", rows)).notes
    assert "line 9: batch_size changes from 8 to 16" in note
    same = [{**row, "batch_size": 8} for row in ROWS]
    assert read_growing(write(tmp_path / "log.jsonl", "jsonl", same)).notes == ()


def test_a_warm_up_that_is_not_in_the_log_is_that_of_the_plan() -> None:
    """Without it the run would have begun at its peak."""
    plan, run = whole("wsd_20000_24000"), run_of("wsd_20000_24000")
    bare = replace(
        run, warmup=0, schedule=Schedule.from_knots([0, 23_904], eta=[3e-4, 3e-4]),
        warnings=("The log starts late: no warm-up is assumed, ...",),
    )  # fmt: skip
    one = track(law(), until(bare, 12_000), plan)
    same = track(law(), until(run, 12_000), plan)
    assert one.warnings == () and one.schedule(1000) == pytest.approx(plan(1000))
    assert one.end.loss == pytest.approx(same.end.loss, abs=2e-5)
