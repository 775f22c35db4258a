"""From three pilot folders of a real Trainer to the end of the planned run, and its callbacks."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsched import BadFile, InvalidProblem, Schedule
from optsched.cli import main
from optsched.logs import read_run
from optsched.pilot import load_fit
from optsched.pilot.tracking import (
    RunLog,
    lightning_forecast,
    lightning_log,
    trainer_forecast,
    trainer_log,
)
from optsched.schedules.exports.huggingface import named_scheduler
from optsched.schedules.exports.torch import to_torch

torch: Any = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("default")  # what frameworks warn of is theirs

WIDTH, HIDDEN, PEAK, RAMP, SHORT, LONG = 24, 32, 2e-2, 20, 400, 700


class Rows(torch.utils.data.Dataset):
    """Rows of a teacher with noise; none comes twice in a run."""

    def __init__(self, count: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(7)
        spectrum = (1.0 + torch.arange(WIDTH)) ** -0.6
        teacher = torch.randn(WIDTH, generator=generator)
        generator.manual_seed(seed)
        self.x = torch.randn(count, WIDTH, generator=generator) * spectrum
        y = torch.tanh(self.x @ teacher)
        self.y = y + 0.5 * torch.randn(count, generator=generator)

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"x": self.x[i], "labels": self.y[i]}


class Net(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layers = torch.nn.Sequential(
            torch.nn.Linear(WIDTH, HIDDEN), torch.nn.Tanh(), torch.nn.Linear(HIDDEN, 1)
        )

    def forward(self, x: Any, labels: Any) -> dict[str, Any]:
        out = self.layers(x)[:, 0]
        return {"loss": ((out - labels) ** 2).mean(), "logits": out}


def ramped(after: Any, steps: int) -> Schedule:
    k = np.arange(steps)
    ramp = np.minimum((k + 1.0) / (RAMP + 1.0), 1.0)
    return Schedule.from_array(PEAK * ramp * np.vectorize(after)(k / steps))


def trained(folder: str, schedule: Schedule, seed: int = 0, **settings: Any) -> Any:
    transformers = pytest.importorskip("transformers")
    model, batch = Net(), 32
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.1)
    options: Any = {
        "max_steps": len(schedule), "per_device_train_batch_size": batch, "use_cpu": True,
        "report_to": [], "logging_steps": 5, "disable_tqdm": True, "save_steps": len(schedule),
        "dataloader_num_workers": 0, "max_grad_norm": 0.0, "save_only_model": True,
    }  # fmt: skip
    trainer = transformers.Trainer(
        model=model,
        args=transformers.TrainingArguments(folder, **options),
        train_dataset=Rows(batch * len(schedule), seed),
        optimizers=(optimizer, to_torch(schedule, optimizer)),
        **settings,
    )
    trainer.remove_callback(transformers.PrinterCallback)
    trainer.train()
    return trainer


def command(capsys: pytest.CaptureFixture[str], *argv: str, code: int = 0) -> str:
    """What a command prints; it takes no more than 6 seconds of CPU."""
    began = time.process_time()
    assert main(list(argv)) == code, capsys.readouterr().err
    assert time.process_time() - began < 6.0
    return capsys.readouterr().out


def test_from_pilots_to_the_last_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is copied or renamed by hand."""
    pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    trained("runs/constant", ramped(lambda share: 1.0, SHORT))
    trained("runs/linear", ramped(lambda share: 1.0 - share, SHORT))
    trained("runs/drop", ramped(lambda share: 1.0 if share < 0.5 else 0.2, SHORT))
    capsys.readouterr()
    told = command(capsys, "fit", "runs", "--output", "law.json")
    assert "fitted to 3 runs" in told
    assert load_fit("law.json").warmup == pytest.approx(RAMP, abs=3)
    told = command(
        capsys, "plan", "--law", "law.json", "--horizon", str(LONG), "--output", "plan.npz"
    )
    assert "plan: warm up" in told
    plan = Schedule.load("plan.npz")
    said: list[str] = []
    trainer = trained(
        "long",
        plan,
        seed=3,
        callbacks=[
            trainer_log("long/log.jsonl"),
            trainer_forecast("law.json", "long/log.jsonl", plan, every=200, report=said.append),
        ],
    )
    rows = [json.loads(line) for line in Path("long/log.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == list(range(5, LONG + 1, 5))
    assert [row["learning_rate"] for row in rows] == pytest.approx(
        [plan(row["step"] - 1) for row in rows]
    )
    assert [line.partition(", ")[0] for line in said] == [
        f"long: step {k} of {LONG}" for k in (200, 400, 600, LONG)
    ]
    capsys.readouterr()
    for path in ("long", "long/log.jsonl", f"long/checkpoint-{LONG}"):
        out = command(
            capsys, "track", "--law", "law.json", path, "--schedule", "plan.npz", "--json"
        )
        found = json.loads(out)
        assert found["step"] == found["horizon"] == LONG and not found["off_track"]
        logged = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        last = float(np.mean(logged[-10:]))
        assert found["end"]["loss"] == pytest.approx(last, rel=0.1)


def test_a_resumed_run_adds_to_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    log = RunLog("a/log.jsonl")
    log.begin(0)
    for step in (10, 20, 30):
        log.row(step, {"loss": 2.0 + 1.0 / step, "learning_rate": 0.1})
    with Path("a/log.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')  # a crash
    with pytest.raises(BadFile, match="overwrite=True"):
        RunLog("a/log.jsonl").begin(0)
    log.begin(30)
    for step in (30, 40, 50):
        log.row(step, {"loss": 1.0 + 1.0 / step, "learning_rate": 0.1})
    run = read_run("a/log.jsonl")
    assert run.steps.tolist() == [10, 20, 30, 40, 50]
    assert run.loss[2] == pytest.approx(1.0 + 1.0 / 30)
    RunLog("a/log.jsonl", overwrite=True).begin(0)
    assert Path("a/log.jsonl").read_text() == ""


def test_a_run_that_leaves_its_law_calls(tmp_path: Path) -> None:
    """The callback that is asked when the run is off track, once, and lines in between."""
    pytest.importorskip("transformers")
    from optsched.pilot.tracking.callbacks import _Speaker
    from tests.test_track import drawn, law, whole

    schedule = whole("cosine_24000")
    run = drawn(schedule)
    log, said, called = RunLog(tmp_path / "log.jsonl"), [], []
    log.begin(0)
    speaker = _Speaker(law(), log.path, schedule, 3000, said.append, called.append)
    for step, loss in zip(run.steps.tolist(), run.loss.tolist(), strict=True):
        rate = float(schedule(max(step - 1, 0)))
        log.row(step, {"loss": loss * (1.02 if step > 12_000 else 1.0), "learning_rate": rate})
        speaker.at(step)
    assert 6 <= len(said) <= 9 and len(called) == 1
    assert "on track" in said[3] and "off track" in said[-1]
    assert 12_000 < called[0].step < 19_000


def test_lightning_callbacks(tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    schedule = ramped(lambda share: 1.0 - 0.9 * share, 60)
    seen: list[float] = []

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = Net()

        def training_step(self, batch: Any, index: int) -> Any:
            loss = self.net(batch["x"], batch["labels"])["loss"]
            seen.append(loss.item())
            return loss

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", self.net(batch["x"], batch["labels"])["loss"])

        def configure_optimizers(self) -> Any:
            from optsched.schedules.exports.torch import to_lightning

            return to_lightning(schedule, torch.optim.AdamW(self.parameters(), lr=1.0))

    from tests.test_track import law

    path, said = tmp_path / "log.jsonl", []
    trainer = lightning.Trainer(
        max_steps=60, accumulate_grad_batches=2, accelerator="cpu", logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        val_check_interval=40, default_root_dir=tmp_path, num_sanity_val_steps=1,
        callbacks=[
            lightning_log(path, every=6),
            lightning_forecast(law(), path, every=30, report=said.append),
        ],
    )  # fmt: skip
    train = torch.utils.data.DataLoader(Rows(8 * 120, 1), batch_size=8)
    trainer.fit(Module(), train, torch.utils.data.DataLoader(Rows(32, 2), batch_size=32))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    losses = [row for row in rows if "loss" in row]
    assert [row["step"] for row in losses] == list(range(6, 61, 6))
    means = np.mean(np.reshape(seen, (10, 12)), axis=1)
    assert [row["loss"] for row in losses] == pytest.approx(means.tolist(), rel=1e-5)
    rates = [float(schedule(row["step"] - 1)) for row in losses]
    assert [row["learning_rate"] for row in losses] == pytest.approx(rates)
    assert [row["step"] for row in rows if "val_loss" in row] == [20, 40, 60]
    assert [line.partition(",")[0].rpartition(": ")[2] for line in said] == [
        "step 30 of 30",
        "step 60 of 60",
    ]


def test_a_scheduler_by_name(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    schedule = ramped(lambda share: 1.0 - share, 12)
    options: Any = {
        "max_steps": 12, "per_device_train_batch_size": 4, "use_cpu": True, "report_to": [],
        "logging_steps": 1, "disable_tqdm": True, "save_strategy": "no",
    }  # fmt: skip

    def run(**more: Any) -> list[float]:
        trainer = transformers.Trainer(
            model=Net(),
            args=transformers.TrainingArguments(str(tmp_path), **{**options, **more}),
            train_dataset=Rows(48, 0),
            callbacks=[trainer_log(tmp_path / "log.jsonl", overwrite=True)],
        )
        trainer.train()
        lines = (tmp_path / "log.jsonl").read_text().splitlines()
        return [json.loads(line)["learning_rate"] for line in lines]

    known = list(transformers.SchedulerType)
    with named_scheduler(schedule, "planned") as name:
        assert name == "planned" and name in [kind.value for kind in transformers.SchedulerType]
        assert run(lr_scheduler_type=name) == pytest.approx(schedule.eta.tolist())
        with pytest.raises(InvalidProblem, match="num_training_steps: got 6, allowed: 12"):
            run(lr_scheduler_type=name, max_steps=6)
        with pytest.raises(InvalidProblem, match="a name that transformers does not know"):
            next(iter([named_scheduler(schedule, "planned").__enter__()]))
    assert list(transformers.SchedulerType) == known
    with pytest.raises(ValueError, match="planned"):
        transformers.TrainingArguments(str(tmp_path), lr_scheduler_type="planned")
    with pytest.raises(InvalidProblem, match=r"not .*cosine"), named_scheduler(schedule, "cosine"):
        pass
