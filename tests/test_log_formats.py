"""The same run from every format, and the steps that the formats count in."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from optsched import BadLog, Schedule
from optsched.logs import Run, read_rates, read_run, read_runs
from optsched.schedules.families import cosine

Rows = tuple[list[int], list[float], list[float]]


def table(path: Path, names: list[str], *columns: list) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))
    return path


def write_csv(folder: Path, rows: Rows) -> Path:
    return table(
        folder / "a.csv",
        ["Learning_Rate", "other", "iter", "Train-Loss"],
        rows[1],
        rows[0],
        *[rows[0], rows[2]],
    )


def write_jsonl(folder: Path, rows: Rows) -> Path:
    path = folder / "a.jsonl"
    lines = [
        json.dumps(row)
        for s, r, x in zip(*rows, strict=True)
        for row in ({"step": s, "lr": r, "grad_norm": float("nan")}, {"step": s, "loss": x})
    ]
    path.write_text("\n".join(lines))
    return path


def write_trainer(folder: Path, rows: Rows) -> Path:
    history: list[dict] = []
    for s, r, x in zip(*rows, strict=True):
        history.append({"epoch": s / 7, "loss": x, "learning_rate": r, "step": s, "grad_norm": 1.0})
        history.append({"epoch": s / 7, "eval_loss": x + 1.0, "eval_runtime": 0.1, "step": s})
    history.append({"train_loss": 2.0, "train_runtime": 9.0, "step": rows[0][-1]})
    path = folder / "trainer_state.json"
    path.write_text(json.dumps({"global_step": rows[0][-1], "log_history": history}))
    return path


def write_tensorboard(folder: Path, rows: Rows) -> Path:
    times = [1.7e9 + s for s in rows[0]]
    names = ["Wall time", "Step", "Value"]
    table(folder / "run-a-tag-train_learning_rate.csv", names, times, rows[0], rows[1])
    table(folder / "run-a-tag-train_accuracy.csv", names, times, rows[0], rows[1])
    table(folder / "run-b-tag-train_learning_rate.csv", names, times, rows[0], rows[2])
    return table(folder / "run-a-tag-train_loss.csv", names, times, rows[0], rows[2])


def write_wandb(folder: Path, rows: Rows) -> tuple[Path, Path]:
    def panel(name: str, metric: str, values: list[float]) -> Path:
        names = ["train/global_step"]
        columns: list[list] = [rows[0]]
        for run in ("a", "b - old"):
            for end in ("", "__MIN", "__MAX"):
                names.append(f"{run} - {metric}{end}")
                columns.append(values)
            names.append(f"{run} - _step")
            columns.append([3 * s for s in rows[0]])
        return table(folder / name, names, *columns)

    return panel("w1.csv", "train/loss", rows[2]), panel("w2.csv", "train/learning_rate", rows[1])


WRITERS = [write_csv, write_jsonl, write_trainer, write_tensorboard, write_wandb]


@st.composite
def logs(draw: st.DrawFn) -> Rows:
    n = draw(st.integers(4, 12))
    gaps = draw(st.lists(st.integers(1, 500), min_size=n, max_size=n))
    steps = (np.cumsum(gaps) - gaps[0] * draw(st.booleans())).tolist()
    rates = draw(st.lists(st.floats(1e-7, 1.0), min_size=n, max_size=n))
    losses = draw(st.lists(st.floats(1e-3, 20.0), min_size=n, max_size=n))
    return steps, rates, losses


@pytest.mark.parametrize("write", WRITERS)
@given(rows=logs())
@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_run_reads_back_from_every_format(tmp_path: Path, write, rows: Rows) -> None:
    """Steps, losses and the rates at the rows as written, whatever the format."""
    run = read_run(write(tmp_path, rows), name="a", warmup=0, rate_of="next")
    steps, rates, losses = rows
    assert run.name == "a"
    assert_array_equal(run.steps, steps)
    assert_array_equal(run.loss, losses)
    assert run.schedule.horizon == steps[-1] + 1
    assert_array_equal(run.schedule(np.array(steps)), rates)
    # In between, what the rows hold; a ramp that they show may go on to where it meets them.
    assert run.schedule.eta.max() == max(rates)
    assert run.schedule.eta.min() >= 0.0


ROWS: Rows = ([0, 10, 20, 30, 40], [0.1, 0.1, 0.1, 0.05, 0.0], [5.0, 4.0, 3.5, 3.2, 3.1])


def test_which_loss(tmp_path: Path) -> None:
    path = write_trainer(tmp_path, ROWS)
    assert_array_equal(read_run(path).loss, ROWS[2])
    assert_array_equal(read_run(path, loss="train").loss, ROWS[2])
    assert_allclose(read_run(path, loss="eval").loss, np.array(ROWS[2]) + 1.0)
    assert_allclose(read_run(path, loss="eval_loss").loss, np.array(ROWS[2]) + 1.0)
    with pytest.raises(BadLog, match="no column 'perplexity', given for loss"):
        read_run(path, loss="perplexity")
    # A folder of a checkpoint will do, and gives the name.
    assert read_run(tmp_path).name == tmp_path.name
    state = json.loads(path.read_text())
    state["log_history"] = state["log_history"][:3] + state["log_history"][2:]
    path.write_text(json.dumps(state))
    assert "1 row comes again later (step 10)" in read_run(path).summary()
    with pytest.raises(BadLog, match=r"trainer_state\.json: entry 4: step is 10, expected more"):
        read_run(path, repeats="refuse")


def test_sparse_validation_losses_between_dense_rates(tmp_path: Path) -> None:
    steps = list(range(0, 1000, 10))
    evals = ["" if s % 250 else 4.0 - s / 1000 for s in steps]
    rates = [0.1 * (1 - s / 1000) for s in steps]
    run = read_run(table(tmp_path / "e.csv", ["step", "lr", "val_loss"], steps, rates, evals))
    assert run.steps.tolist() == [0, 250, 500, 750]
    assert_allclose(run.schedule.eta, 0.1 * (1 - np.arange(751) / 1000))
    assert "4 rows, every 250 steps" in run.summary()


def test_runs_of_one_weights_and_biases_export(tmp_path: Path) -> None:
    pair = write_wandb(tmp_path, ROWS)
    assert [run.name for run in read_runs([pair])] == ["a", "b - old"]
    with pytest.raises(BadLog, match=r"w1\.csv: has 2 runs, expected name=, one of a, b - old"):
        read_run(pair)
    with pytest.raises(BadLog, match=r"w1\.csv: no column of the learning rate.*rates beside it"):
        read_run(pair[0])


def test_rate_in_a_schedule_file_of_ours(tmp_path: Path) -> None:
    """A run that used an exported schedule needs to log nothing but its loss."""
    schedule = cosine(100, 0.1)
    schedule.save(tmp_path / "plan.npz")
    losses = table(tmp_path / "l.csv", ["step", "loss"], ROWS[0], ROWS[2])
    run = read_run((losses, tmp_path / "plan.npz"))
    assert_array_equal(run.schedule.eta, schedule.eta[:41])
    ramped = Schedule.from_knots([0, 10, 99], eta=[0.0, 0.1, 0.0])
    ramped.save(tmp_path / "ramped.json")
    run = read_run((losses, tmp_path / "ramped.json"))
    assert run.warmup == 10
    assert_allclose(run.schedule.eta, ramped.eta[:41])
    assert read_rates(tmp_path / "ramped.json").warmup == 10
    cosine(30, 0.1).save(tmp_path / "short.npz")
    with pytest.raises(BadLog, match=r"short\.npz: ends after 30 steps, but losses go to 40"):
        read_run((losses, tmp_path / "short.npz"))


@pytest.mark.parametrize("unit, name", [("tokens", "consumed_tokens"), ("samples", "samples")])
def test_units(tmp_path: Path, unit, name: str) -> None:
    """Counts need not be whole multiples: the last batch of an epoch may be smaller."""
    counts = [512 * s + 3 for s in ROWS[0]]
    path = table(
        tmp_path / "u.csv", ["step", name, "lr", "loss"], [9, 9, 9, 9, 9], counts, *ROWS[1:]
    )
    run = read_run(path, unit=unit, per_step=512)
    assert_array_equal(run.steps, ROWS[0])
    with pytest.raises(BadLog, match=rf"line 3: {name} is 5123, expected more than the step"):
        read_run(path, unit=unit, per_step=1e9)


def test_micro_steps(tmp_path: Path) -> None:
    """Loops that count every accumulated batch: some of them make an update."""
    steps = [4 * s for s in ROWS[0]]
    path = table(tmp_path / "m.csv", ["step", "lr", "loss"], steps, *ROWS[1:])
    assert_array_equal(read_run(path, per_step=4).steps, ROWS[0])


def test_rate_of_the_last_update(tmp_path: Path) -> None:
    """A drop at step 20 of 40: the row at 20 has the old rate still."""
    rows = ([10, 20, 30, 40], [0.1, 0.1, 0.01, 0.01], [4.0, 3.0, 2.0, 1.9])
    path = table(tmp_path / "l.csv", ["step", "lr", "loss"], *rows)
    trainer = read_run(write_trainer(tmp_path, rows))
    for run in (read_run(path, rate_of="last"), trainer):
        eta = run.schedule.eta
        assert np.all(eta[:20] == 0.1)
        assert np.all(eta[20:] == 0.01)
    for run in (read_run(path), read_run(tmp_path, rate_of="next")):
        assert np.all(run.schedule.eta[:30] == 0.1)


def test_the_rate_that_a_trainer_logs(tmp_path: Path) -> None:
    """A real Trainer with a drop in the rate: the log shows it a step late, we read it in time."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    model = torch.nn.Linear(2, 1)
    forward = model.forward
    model.forward = lambda x, y: {"loss": ((forward(x) - y) ** 2).mean() + 1.0}
    data = [{"x": torch.randn(2), "y": torch.randn(1)} for _ in range(64)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    drop = torch.optim.lr_scheduler.MultiStepLR(optimizer, [10])
    options = {
        "report_to": "none",
        "use_cpu": True,
        "disable_tqdm": True,
        "remove_unused_columns": False,
    }
    arguments = transformers.TrainingArguments(
        str(tmp_path),
        max_steps=20,
        logging_steps=5,
        save_steps=20,
        save_strategy="steps",
        weight_decay=0.07,
        warmup_steps=3,
        **options,
    )
    trainer = transformers.Trainer(
        model=model, args=arguments, train_dataset=data, optimizers=(optimizer, drop)
    )
    trainer.train()
    run = read_run(tmp_path / "checkpoint-20", warmup=0)  # its own scheduler has none
    assert run.steps.tolist() == [5, 10, 15, 20]
    assert_allclose(run.schedule.eta, [0.1] * 10 + [0.01] * 11)
    assert run.metadata["weight_decay"] == 0.07 and run.metadata["optimizer"].startswith("adamw")


def test_ambiguous_rates(tmp_path: Path) -> None:
    names = ["step", "lr-AdamW/pg1", "lr-AdamW/pg2", "loss"]
    tenth = [r / 10 for r in ROWS[1]]
    path = table(tmp_path / "l.csv", names, ROWS[0], tenth, ROWS[1], ROWS[2])
    with pytest.raises(BadLog, match=r"lr-AdamW/pg1, lr-AdamW/pg2 could all be"):
        read_run(path)
    run = read_run(path, columns={"lr": "lr-AdamW/pg2"})
    assert_array_equal(run.schedule(run.steps), ROWS[1])
    path = table(tmp_path / "l.csv", names, ROWS[0], ROWS[1], ROWS[1], ROWS[2])
    assert_array_equal(read_run(path).schedule(run.steps), ROWS[1])  # groups of one rate


@pytest.mark.parametrize(
    "text, error",
    [
        ('{"step": 1, "loss": 1.0}\nnot json\n', r"line 2: .*expected a JSON object a line"),
        ('{"step": 1, "lr": 1}\n[1, 2]\n', r"line 2: expected an object"),
        ("[]", r"has no rows"),
        ('{"log_history": 3}', r"log_history is no list"),
        ('{"step": [1, 2], "lr": [1]}', r"lists of \[1, 2\] values"),
        ("[1, 2", r"expected JSON"),
        ('{\n "log_history": [\n  {"step": 1,', r"line 3 column .*expected JSON"),
        ('[{"step": 1, "lr": "x", "loss": 1}]', r"entry 1: lr is 'x'"),
        ('[{"step": 1, "lr": true, "loss": 1}]', r"entry 1: lr is True"),
        ('[{"step": 1, "lr": 1, "loss": NaN}]', r"entry 1: loss is nan"),
        ('[{"lr": 1, "loss": 2, "step": null}, {"step": 2}]', r"entry 1: lr without a step"),
        ('{"step": ' + "[" * 100_000, r"JSON|nested too deeply"),
    ],
)
def test_bad_json(tmp_path: Path, text: str, error: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(BadLog, match=r"x\.json.*" + error):
        read_run(path)


def test_folders_and_devices(tmp_path: Path) -> None:
    with pytest.raises(BadLog, match=r"is a directory without a log, .*trainer_state\.json"):
        read_run(tmp_path)


def test_rates_of_a_file_with_rows(tmp_path: Path) -> None:
    """The steps of the rows are where a prediction is wanted."""
    log = read_rates(
        table(tmp_path / "s.csv", ["step", "lr"], [10, 20, 30], [1.0, 1.0, 0.0]), warmup=5
    )
    assert log.steps.tolist() == [10, 20, 30]
    assert_allclose(log.schedule.eta[:11], [0.0, 0.2, 0.4, 0.6, 0.8, 1, 1, 1, 1, 1, 1])
    assert log.warmup == 5


def test_a_run_checks_itself() -> None:
    from optsched.errors import InvalidProblem

    schedule = cosine(10, 0.1)
    for steps, loss, field in (
        ([1, 1], [1.0, 1.0], "steps"),
        ([1, 2], [1.0], "loss"),
        ([1, 2], [1.0, np.nan], "loss"),
        ([1, 20], [1.0, 1.0], "schedule"),
    ):
        with pytest.raises(InvalidProblem) as caught:
            Run("r", np.array(steps), np.array(loss), schedule)
        assert caught.value.field == field
