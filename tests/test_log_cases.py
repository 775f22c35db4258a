"""Logs in the wild: what is right for each kind, whoever wrote it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from optsched.diagnostics.log import read_log
from optsched.errors import BadFile, BadLog
from optsched.logs import Run, read_rates, read_run, read_runs
from tests.events import scalar, tensor, write_events

CASES = Path(__file__).parent / "data" / "log-cases"


def change(run: Run) -> list[int]:
    """Updates at which the rate is another than before."""
    return (np.flatnonzero(np.diff(run.schedule.eta)) + 1).tolist()


@pytest.mark.parametrize(
    "name, rate_of",
    [("hf_drop_old.json", "next"), ("hf_drop_new.json", "last"), ("wandb_hf_drop_new.csv", "last")],
)
def test_a_drop_is_at_its_update_whichever_rate_is_logged(name: str, rate_of: Any) -> None:
    run = read_run(CASES / name)
    assert change(run) == [1000]
    assert f"The rate of a row is that of the {rate_of} update" in run.summary()
    assert change(read_run(CASES / name, rate_of=rate_of)) == [1000]
    wrong: Any = {"next": "last", "last": "next"}[rate_of]
    assert change(read_run(CASES / name, rate_of=wrong)) == [{"next": 900, "last": 1100}[rate_of]]


def made(
    path: Path, rates: np.ndarray, every: int, rate_of: str, start: int = 0, digits: int = 17
) -> Path:
    """A csv of a run that used ``rates``, logged in one of the conventions."""
    steps = np.arange(start or every, len(rates) + 1, every)
    padded = np.append(rates, max(2 * rates[-1] - rates[-2], 0.0))
    logged = {
        "next": padded[steps],
        "last": rates[steps - 1],
        "mean": np.array([rates[max(s - every, 0) : s].mean() for s in steps]),
    }[rate_of]
    lines = [f"{s},{r:.{digits}g},{3 + s**-0.5}" for s, r in zip(steps, logged, strict=True)]
    path.write_text("\n".join(["step,lr,loss", *lines]))
    return path


RAMP = np.minimum(np.arange(1000) / 100, 1.0) * 1e-3
COOLED = np.append(RAMP[:800], 1e-3 * (1.0 - np.arange(200) / 200))
DROPPED = np.where(np.arange(1000) < 500, 1e-3, 1e-4)


@pytest.mark.parametrize(
    "rates, rate_of, said",
    [
        (RAMP, "last", "last update: the ramp is 0 at step 1"),
        (np.minimum((np.arange(1000) + 1) / 100, 1.0), "next", "the ramp is 0 at step -1"),
        (COOLED[100:], "next", "next update: it is 0 at step 900, the last"),
        (DROPPED, "next", "next update: so it jumps at round steps (500)"),
        (DROPPED, "last", "last update: so it jumps at round steps (500)"),
    ],
)
def test_the_convention_is_found(tmp_path: Path, rates: Any, rate_of: str, said: str) -> None:
    run = read_run(made(tmp_path / "r.csv", rates, 20, rate_of))
    assert said in run.summary()
    # Between the rows of a ramp and at the end little is left open.
    off = np.abs(run.schedule.eta[: len(rates)] - rates) > 1e-9 * rates.max()
    assert off.sum() <= 20


@pytest.mark.parametrize("at", [500, 503, 511, 519])
def test_a_mean_that_mixes_two_rates_tells_the_update(tmp_path: Path, at: int) -> None:
    """A row whose mean has both: the step of the change is exact, wherever it falls."""
    rates = np.where(np.arange(1000) < at, 1e-3, 1e-4)
    path = made(tmp_path / "m.csv", rates, 20, "mean")
    assert change(read_run(path, rate_of="mean")) == [at]
    if at % 20:
        run = read_run(path)
        assert change(run) == [at] and "as a mean" in run.summary()


def test_means_of_a_smooth_decay(tmp_path: Path) -> None:
    rates = 1e-3 * 0.5 * (1.0 + np.cos(np.pi * np.arange(1000) / 1000))
    run = read_run(made(tmp_path / "c.csv", rates, 10, "mean"), rate_of="mean")
    late = read_run(tmp_path / "c.csv", rate_of="next")
    error = np.abs(run.schedule.eta[20:980] - rates[20:980]).max()
    assert error < 2e-6 < 5e-6 < np.abs(late.schedule.eta[20:980] - rates[20:980]).max()


def test_rounded_rates_are_no_evidence_and_no_staircase() -> None:
    """llm.c prints six digits after the point: 0 at the end may be rounded."""
    run = read_run(CASES / "llmc_main.log")
    assert run.steps[0] == 0 and run.steps[-1] == 995 and len(run.steps) == 200
    assert run.loss[0] == 3.2181
    assert "jump" not in run.summary() and "next update" not in run.summary()
    truth = 0.5e-3 * (1.0 + np.cos(np.pi * np.arange(996) / 1000))
    assert_allclose(run.schedule.eta, truth, atol=2.5e-6)
    assert read_run(CASES / "llmc_main.log", loss="train").loss[1] == 3.1423


def test_lines_of_text() -> None:
    run = read_run(CASES / "megatron.log")
    assert_array_equal(run.steps, np.arange(10, 401, 10))
    assert run.loss[0] == 3.081396 and run.schedule(10) == 9.997533e-04
    assert run.metadata["horizon"] == 1000
    samples = read_run(CASES / "megatron.log", unit="samples", per_step=64)
    assert_array_equal(samples.steps, run.steps)
    with pytest.raises(BadLog, match="no column of the learning rate; found step, loss"):
        read_run(CASES / "nanogpt_stdout.log")
    run = read_run(CASES / "nanogpt_stdout.log", rates=1e-3)
    assert_array_equal(run.steps, np.arange(0, 1000, 10))
    assert run.loss[1] == 3.0812 and run.schedule.peak == 1e-3


@pytest.mark.parametrize(
    "line, head",
    [
        ("step {s} | loss {x} | lr {r}", ""),
        ("[2024-05-01 10:00:00,123] INFO trainer: step={s}, loss={x}, lr={r}", "starting up"),
        ("INFO:root:iter: {s}/5000 train loss: {x} learning rate: {r:e} time 1.5s", ""),
        ("{{'loss': {x}, 'learning_rate': {r}, 'global_step': {s}}}", "tokenizing ..."),
        ("{{'loss': '{x}', 'grad_norm': '1.2', 'learning_rate': '{r}', 'step': '{s}'}}", ""),
        ("\x1b[34m[titan]\x1b[0m - step: {s}  loss: {x}  lr: {r}  tps: 1,234  mfu: 31.2%", "x"),
        ("Iteration {s}: train_loss = {x:.4f}; lr = {r:.3e}", "Namespace(lr=0.5, seed=1)"),
        ("step={s}, skipped=0, lr=[{r}], mom=[(0.9, 0.95)], loss={x}", ""),
        ("[step={s}/5000]\n    train/CrossEntropyLoss={x}\n    optim/learning_rate_group0={r}", ""),
        ("0: step {s} of run 7b-v2.1 loss {x} lr {r}", ""),
        (
            "time per iteration: 2.5 | iteration {s}/ 9000 | learning rate: {r:.9E} | lm loss: "
            "{x:.9E} | number of skipped iterations: 0 | best loss: 1.0",
            "warmup steps 7 total loss 3",
        ),
        (
            '| INFO | train_inner | {{"epoch": 1, "update": 0.{s}, "loss": "{x}", '
            '"num_updates": "{s}", "lr": "{r}"}}',
            "",
        ),
        ("Epoch 0 | completed step: {s}, seconds: 1.5, loss: {x}, LR: {r}", ""),
    ],
)
def test_text_of_many_programs(tmp_path: Path, line: str, head: str) -> None:
    rows = [(100 * k, 1e-3 / k, 4.0 - k / 100) for k in range(1, 30)]
    path = tmp_path / "out.log"
    path.write_text("\n".join([head, *(line.format(s=s, r=r, x=x) for s, r, x in rows)]))
    run = read_run(path)
    steps, rates, losses = map(np.array, zip(*rows, strict=True))
    assert_array_equal(run.steps, steps)
    assert_allclose(run.loss, losses, atol=1e-9)
    assert_allclose(run.schedule(steps), rates, rtol=1e-3)


@pytest.mark.parametrize(
    "text", ["hello world\nthis is no log\n", "epoch one\nepoch two\n", "1\n2\n3\n", "a b c\n" * 9]
)
def test_what_is_no_log_is_said(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.log").write_text(text)
    with pytest.raises(BadLog, match=r"is neither csv nor JSON, nor lines|no column of"):
        read_run(tmp_path / "x.log")


def test_epochs_are_not_updates() -> None:
    path = CASES / "keras_csvlogger.csv"
    with pytest.raises(BadLog, match=r"'epoch' counts epochs, .* give steps_per_epoch=N"):
        read_run(path)
    for options in ({}, {"columns": {"step": "epoch"}}, {"unit": "epochs"}):
        run = read_run(path, steps_per_epoch=400, **options)  # type: ignore[arg-type]
        assert run.steps[0] == 400 and run.steps[-1] == 12_000
        assert change(run) == [17 * 400, 27 * 400]
        assert run.schedule(0) == 1e-3
    val = read_run(path, steps_per_epoch=400, loss="eval")
    assert_array_equal(val.steps, run.steps)


def test_epochs_from_one_and_in_parts(tmp_path: Path) -> None:
    path = tmp_path / "e.csv"
    path.write_text("epoch,lr,loss\n" + "".join(f"{e},0.1,{3 - e / 10}\n" for e in range(1, 6)))
    run = read_run(path, steps_per_epoch=50)
    assert run.steps.tolist() == [50, 100, 150, 200, 250]
    path.write_text("epoch,lr,loss\n" + "".join(f"{e / 4},0.1,{3 - e / 10}\n" for e in range(1, 6)))
    assert read_run(path, steps_per_epoch=50).steps.tolist() == [12, 25, 38, 50, 62]


def test_epochs_of_a_resumed_keras_run_are_not_shifted(tmp_path: Path) -> None:
    """``CSVLogger(append=True)`` in a file of its own: from epoch 10 on, still counted from 0."""
    lines = (CASES / "keras_csvlogger.csv").read_text().splitlines()
    path = tmp_path / "k.csv"
    path.write_text("\n".join([lines[0], *lines[11:]]))
    run = read_run(path, steps_per_epoch=400)
    assert "a CSVLogger of Keras" in run.summary()
    whole = read_run(CASES / "keras_csvlogger.csv", steps_per_epoch=400)
    assert_array_equal(run.steps, whole.steps[10:])
    assert_array_equal(run.loss, whole.loss[10:])


def test_rates_beside_a_log(tmp_path: Path) -> None:
    path = CASES / "no_lr.csv"
    with pytest.raises(BadLog, match=r"no column of the learning rate.*rates="):
        read_run(path)
    run = read_run(path, rates=CASES / "own_schedule.json")
    own = read_rates(CASES / "own_schedule.json").schedule
    assert_allclose(run.schedule.eta, own.eta[: len(run.schedule.eta)])
    constant = read_run(path, rates=2e-4)
    assert np.all(constant.schedule.eta == 2e-4) and "rate: a constant" in constant.summary()
    log = tmp_path / "lr.csv"
    log.write_text("step,lr\n0,1e-3\n3000,0\n")
    assert_allclose(read_run(path, rates=log).schedule(1500), 5e-4)
    both = read_runs([path, CASES / "nanogpt_stdout.log"], rates=[1e-3, 2e-3])
    assert [one.schedule.peak for one in both] == [1e-3, 2e-3]
    # A constant rate for a log that has its own is the caller's word.
    assert read_run(CASES / "hf_drop_new.json", rates=1e-3).schedule(1500) == 1e-3


def test_a_restart_keeps_the_later_pass() -> None:
    path = CASES / "resumed.jsonl"
    run = read_run(path)
    assert_array_equal(run.steps, np.arange(20, 3001, 20))
    assert "25 rows come again later (steps 1020 to 1500): the later pass is kept" in run.summary()
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    later = {row["step"]: row["loss"] for row in rows}  # the last of each
    assert_array_equal(run.loss, [later[s] for s in run.steps])
    with pytest.raises(BadLog, match="line 76: step is 1020, expected more than the step before"):
        read_run(path, repeats="refuse")
    tokens = read_run(path, unit="tokens", per_step=1000)
    assert_array_equal(tokens.steps, run.steps)
    run = read_run(CASES / "hf_evaluate_after.json", loss="eval")
    assert run.steps.tolist() == [500, 1000, 1500, 2000, 2500, 3000]


def test_restarts_every_few_steps(tmp_path: Path) -> None:
    """Killed at 130, 230, ... and resumed from the last checkpoint, which had other rows."""
    rows: list[tuple[int, int]] = []
    for start in range(0, 1000, 100):
        rows += [(s, start) for s in range(start, min(start + 140, 1001), 10)]
    path = tmp_path / "r.csv"
    lines = [f"{s},0.1,{3 + start / 1e6}" for s, start in rows]
    path.write_text("step,lr,loss\n" + "\n".join(lines))
    run = read_run(path)
    assert_array_equal(run.steps, np.arange(0, 1001, 10))
    # Of each step the pass that came last.
    expected = 3 + np.minimum(run.steps // 100, 9) * 100 / 1e6
    assert_allclose(run.loss, expected, rtol=1e-12)


@pytest.mark.parametrize("typed", ["5", "51", "0"])
def test_a_lost_digit_is_no_restart(tmp_path: Path, typed: str) -> None:
    steps = [str(s) for s in range(10, 1000, 10)]
    steps[50] = typed
    path = tmp_path / "d.csv"
    path.write_text("step,lr,loss\n" + "".join(f"{s},0.1,3.0\n" for s in steps))
    with pytest.raises(BadLog, match=f"line 52: step is {typed}, expected .* a restart"):
        read_run(path)


def test_jumps_in_the_unit_of_the_log(tmp_path: Path) -> None:
    """A drop at two billion tokens, which is no round step."""
    per, drop = 524_288, 2_000_000_000
    steps = np.arange(100, 8000, 100)
    rates = np.where(steps * per < drop, 1e-3, 1e-4)
    path = tmp_path / "t.csv"
    rows = [f"{s * per},{r},{3 + 1 / s}" for s, r in zip(steps, rates, strict=True)]
    path.write_text("tokens,lr,loss\n" + "\n".join(rows))
    run = read_run(path, unit="tokens", per_step=per)
    assert change(run) == [int(np.ceil(drop / per))]
    assert "taken to be at 2,000,000,000 tokens, step 3815" in run.summary()


def history(steps: Any, rates: Any) -> list[tuple[int, bytes]]:
    """Events as two tags a step."""
    return [
        event
        for s, r in zip(steps, rates, strict=True)
        for event in (
            (int(s), scalar("train/learning_rate", r) + scalar("train/epoch", s / 7)),
            (int(s), tensor("train/loss", 3.0 + 1.0 / s)),
        )
    ]


def test_event_files_of_tensorboard(tmp_path: Path) -> None:
    """A folder with two files, as a restart leaves it; a run for every folder below."""
    steps = np.arange(10, 300, 10)
    rates = 1e-3 * np.minimum(1.0, 100 / steps)
    run_folder = tmp_path / "logs" / "a"
    write_events(run_folder / "events.out.tfevents.100.h", history(steps[:20], rates[:20]))
    write_events(run_folder / "events.out.tfevents.200.h", history(steps[15:], rates[15:]))
    run = read_run(run_folder, rate_of="next")
    assert run.name == "a" and "Read as events of TensorBoard" in run.summary()
    assert_array_equal(run.steps, steps)
    assert_allclose(run.loss, 3.0 + 1.0 / steps, rtol=1e-7)
    assert_allclose(run.schedule(steps), rates, rtol=1e-7)
    assert run.schedule(50) == 1e-3  # not 0.0010000000474974513
    write_events(tmp_path / "logs" / "b" / "events.out.tfevents.1", history(steps, rates))
    assert [one.name for one in read_runs([tmp_path / "logs"])] == ["a", "b"]
    single = run_folder / "events.out.tfevents.100.h"
    assert read_run(single).steps[-1] == steps[19]
    raw = single.read_bytes()
    single.write_bytes(raw[:-7])  # a run that is killed
    assert read_run(single).steps[-1] == steps[18]
    single.write_bytes(raw[:200] + bytes([raw[200] ^ 1]) + raw[201:])
    with pytest.raises(BadLog, match=r"record \d+: a checksum is wrong"):
        read_run(single)


def test_event_files_of_the_real_writer(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    with tensorboard.SummaryWriter(str(tmp_path / "run")) as writer:
        for k in range(1, 20):
            writer.add_scalar("lr", 1e-3 / k, 10 * k)
            writer.add_scalar("loss", 3.0 + 1.0 / k, 10 * k)
            writer.add_text("note", "words", 10 * k)
            writer.add_histogram("weights", np.arange(5.0), 10 * k)
    run = read_run(tmp_path / "run")
    assert_array_equal(run.steps, np.arange(10, 200, 10))
    assert_allclose(run.loss, 3.0 + 10.0 / run.steps, rtol=1e-6)
    assert_allclose(run.schedule(run.steps), 1e-2 / run.steps, rtol=1e-6)


def trainer_state(path: Path, last: int, horizon: int = 1000) -> None:
    steps = range(20, last + 1, 20)
    rows = [
        {"step": s, "loss": 4 - s / 1000, "learning_rate": 1e-3 * (1 - (s - 1) / horizon)}
        for s in steps
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    state = {"global_step": last, "max_steps": horizon, "log_history": rows}
    path.write_text(json.dumps(state))


def test_the_folder_of_a_trainer(tmp_path: Path) -> None:
    """Of several checkpoints the newest by its number, not by its name or time."""
    run = tmp_path / "runs" / "cosine"
    for last in (100, 400, 80):
        trainer_state(run / f"checkpoint-{last}" / "trainer_state.json", last)
    assert read_run(run).steps[-1] == 400 and read_run(run).name == "cosine"
    assert read_run(run / "checkpoint-100").steps[-1] == 100
    assert read_run(run / "checkpoint-100").name == "cosine"
    trainer_state(run / "trainer_state.json", 200)
    assert read_run(run).steps[-1] == 400  # the state of an earlier training
    trainer_state(run / "trainer_state.json", 420)
    assert read_run(run).steps[-1] == 420
    trainer_state(tmp_path / "runs" / "wsd" / "checkpoint-400" / "trainer_state.json", 400)
    assert [one.name for one in read_runs([tmp_path / "runs"])] == ["cosine", "wsd"]
    other = tmp_path / "again" / "wsd" / "checkpoint-400"
    trainer_state(other / "trainer_state.json", 400)
    both = read_runs([tmp_path / "runs" / "wsd", other])
    assert [one.name for one in both] == ["runs/wsd", "again/wsd"]
    assert read_run(run).metadata["horizon"] == 1000
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadLog, match="is a directory without a log, expected one of"):
        read_run(tmp_path / "empty")


def pickled_arguments(path: Path, **values: Any) -> None:
    """``training_args.bin`` in the form of torch.save: a pickle in a zip."""
    import pickle
    import zipfile

    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("args/data.pkl", pickle.dumps({"output_dir": "x", **values}, 2))


def test_the_arguments_of_a_trainer_are_read_and_not_run(tmp_path: Path) -> None:
    """Weight decay, optimiser and warm-up of its pickle; one that would do harm does none."""
    run = tmp_path / "a"
    trainer_state(run / "checkpoint-400" / "trainer_state.json", 400)
    arguments = run / "checkpoint-400" / "training_args.bin"
    known = {"weight_decay": 0.1, "optim": "adamw_torch", "learning_rate": 1e-3}
    pickled_arguments(arguments, warmup_steps=20, warmup_ratio=0.0, **known)
    found = dict(read_run(run).metadata)
    assert found == {
        "weight_decay": 0.1, "optimizer": "adamw_torch", "warmup": 20, "peak": 1e-3, "horizon": 1000
    }  # fmt: skip
    assert read_run(run).warmup == 20
    pickled_arguments(arguments, warmup_steps=0, warmup_ratio=0.1, **known)
    assert "warmup" not in read_run(run).metadata

    class Harm:
        def __reduce__(self) -> Any:
            return os.mkdir, (str(tmp_path / "harm"),)

    pickled_arguments(arguments, first=Harm(), **known)
    assert read_run(run).metadata["weight_decay"] == 0.1
    assert not (tmp_path / "harm").exists()
    arguments.write_bytes(arguments.read_bytes()[:-40])
    assert "weight_decay" not in read_run(run).metadata


def test_other_files_of_runs(tmp_path: Path) -> None:
    steps = range(10, 200, 10)
    lightning = tmp_path / "lightning_logs" / "version_3"
    lightning.mkdir(parents=True)
    rows = [f"0,1e-3,{s},,\n0,,{s},{3 + 1 / s},\n" for s in steps]
    text = "epoch,lr-AdamW,step,train_loss_step,val_loss\n" + "".join(rows)
    (lightning / "metrics.csv").write_text(text)
    (lightning / "hparams.yaml").write_text(
        "weight_decay: 0.1  # decoupled\noptimizer: adamw\nwarmup_steps: 5\nmodel:\n  lr: 3\n"
    )
    run = read_run(lightning)
    assert run.name == "version_3" and run.steps.tolist() == [*steps]
    assert dict(run.metadata) == {"weight_decay": 0.1, "optimizer": "adamw", "warmup": 5}
    assert run.warmup == 5 and "Its configuration says 5 steps of warm-up" in run.summary()
    assert read_run(lightning, warmup=0).warmup == 0

    factory = tmp_path / "sft" / "trainer_log.jsonl"
    factory.parent.mkdir()
    rows = [
        {"current_steps": s, "total_steps": 190, "loss": 3 + 1 / s, "lr": 1e-3, "epoch": s / 90}
        for s in steps
    ]
    factory.write_text("\n".join(map(json.dumps, rows)))
    run = read_run(factory)
    assert run.name == "sft" and run.steps.tolist() == [*steps]
    assert "the log of LLaMA-Factory" in run.summary() and run.metadata["horizon"] == 190

    metrics = tmp_path / "det" / "metrics.json"
    metrics.parent.mkdir()
    rows = [{"iteration": s, "lr": 1e-3, "total_loss": 3 + 1 / s, "time": 0.1} for s in steps]
    metrics.write_text("\n".join(map(json.dumps, rows)))
    assert read_run(metrics.parent).steps.tolist() == [*steps]


@pytest.mark.parametrize(
    "text, error",
    [
        ("step,lr,loss,Loss\n0,.1,1,2\n", "columns loss, Loss could all be the loss"),
        ("step,lr,train_loss,train-loss\n0,.1,1,2\n", "train_loss, train-loss could all be"),
        ('{"step":1,"lr":1,"loss":1,"loss":2}\n{}\n', "line 1: an object has 'loss' twice"),
        ('[{"step":1,"lr":1,"lr":2,"loss":1}]', "an object has 'lr' twice"),
        ("step,lr,loss\n0,.1,3_7156\n", "line 2: loss is '3_7156', expected a finite number"),
        ("step,lr,loss\n0,.1,\uff13\n", "line 2: loss is '.', expected a finite number"),
        ('step,lr,loss,n\n0,.1,3,"a\n1,.1,3,b\n2,.1,3,c"\n', "line 2: a quoted field holds whole"),
        ('step,lr,loss,n\n0,.1,3,"a\n1,.1,3,b\n', "line 2: unexpected end of data"),
        (
            "step,lr,loss\n" + "".join(f"{k},{3 - k / 9},{1e-4 * (8 - k)}\n" for k in range(8)),
            "the rates in 'lr' are above the losses in 'loss': are the names exchanged",
        ),
    ],
)
def test_what_could_be_read_in_two_ways_is_refused(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BadLog, match=error):
        read_run(path)


def test_a_quoted_field_with_lines_and_a_hash_is_a_field(tmp_path: Path) -> None:
    rows = [f'{k},0.1,{3 - k / 10},"first\n# second\n\nthird {k}"\n' for k in range(8)]
    path = tmp_path / "q.csv"
    path.write_text("# made up\nstep,lr,loss,note\n# a comment\n" + "".join(rows))
    run = read_run(path)
    assert run.steps.tolist() == [*range(8)]
    path.write_text(path.read_text() + "8,0.1,bad,x\n")
    with pytest.raises(BadLog, match="line 36: loss is 'bad'"):
        read_run(path)


def test_exchanged_names_may_be_insisted_on(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    rows = [f"{k},{10.0 - k},{0.01 - k / 1000}\n" for k in range(8)]
    path.write_text("step,lr,loss\n" + "".join(rows))
    with pytest.raises(BadLog, match="are the names exchanged"):
        read_run(path)
    assert read_run(path, columns={"lr": "lr", "loss": "loss"}).schedule.peak == 10.0
    # Digits are learned to losses far below a rate of 0.1, which is held.
    rows = [f"{k},{0.1 if k < 90 else 0.05},{1 / (40 + k)}\n" for k in range(99)]
    path.write_text("step,lr,loss\n" + "".join(rows))
    assert read_run(path).schedule.peak == 0.1
    # One row that is damaged hides no exchange.
    rows = [f"{k},{3 - k / 9},{1e-4 * (8 - k)}\n" for k in range(7)] + ["7,2.2,1\n"]
    path.write_text("step,lr,loss\n" + "".join(rows))
    with pytest.raises(BadLog, match="are the names exchanged"):
        read_run(path)


def test_only_regular_files_of_a_sane_size_are_read(tmp_path: Path, monkeypatch: Any) -> None:
    with pytest.raises(BadFile, match="is a device, a pipe or a socket"):
        read_run("/dev/zero")
    os.mkfifo(tmp_path / "fifo")
    for read in (read_run, read_rates, read_log):
        with pytest.raises(BadFile, match="is a device, a pipe or a socket"):
            read(tmp_path / "fifo")
    with pytest.raises(BadFile, match="is a device, a pipe or a socket"):
        read_run(CASES / "no_lr.csv", rates=tmp_path / "fifo")
    large = tmp_path / "large.csv"
    large.write_bytes(b"")
    os.truncate(large, 600_000_000)  # of holes
    with pytest.raises(BadFile, match="has 600,000,000 bytes, expected 500,000,000 at most"):
        read_run(large)


def test_a_late_start_warns_and_a_first_interval_does_not(tmp_path: Path) -> None:
    steps = range(2176, 4000, 128)
    path = tmp_path / "l.csv"
    path.write_text("step,lr,loss\n" + "".join(f"{s},1e-3,3.0\n" for s in steps))
    (warned,) = read_run(path).warnings
    assert "starts at step 2176" in warned and "no warm-up is assumed" in warned
    assert read_run(path, warmup=2160).warnings == ()
    assert read_run(CASES / "hf_drop_new.json").warnings == ()


def test_a_count_of_calls_is_taken_for_steps_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "w.csv"
    for gap, warned in ((1, True), (10, False)):
        rows = "".join(f"{gap * k},0.1,{3 - k / 100}\n" for k in range(20))
        path.write_text("_step,train/lr,train/loss\n" + rows)
        told = read_run(path, warmup=0).warnings
        assert ["counts calls of the tracker" in line for line in told] == [True] * warned


def test_a_number_a_row_and_a_history_by_itself(tmp_path: Path) -> None:
    steps = range(10, 200, 10)
    rows = [f"a,{s},{tag},{x}\n" for s in steps for tag, x in (("lr", 0.1), ("loss", 3 + 1 / s))]
    path = tmp_path / "long.csv"
    path.write_text(
        "run_id,step,key,value\n" + "".join(rows + [r.replace("a,", "b,") for r in rows])
    )
    runs = read_runs([path], warmup=0)
    assert [run.name for run in runs] == ["a", "b"] and runs[0].steps.tolist() == [*steps]
    assert_allclose(runs[1].loss, 3 + 1 / np.arange(10, 200, 10))
    state = json.loads((CASES / "hf_drop_new.json").read_text())
    (tmp_path / "h.json").write_text(
        json.dumps([*state["log_history"], {"train_runtime": 1.0, "train_loss": 9.0, "step": 2000}])
    )
    run = read_run(tmp_path / "h.json")
    assert change(run) == [1000] and len(run.steps) == 20
