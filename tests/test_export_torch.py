"""Exports to PyTorch, and the recipes for what is built on it, with the real frameworks.

pip install '.[test,torch]' transformers accelerate lightning
python -m pytest tests/test_export_torch.py
"""

from __future__ import annotations

import copy
import importlib
import json
import pickle
import re
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsched import InvalidProblem, Schedule
from optsched.schedules.exports.snippets import snippet
from optsched.schedules.exports.torch import BatchSampler, to_lightning, to_torch

torch: Any = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("default")  # what frameworks warn of is theirs

T = 100
KNOTS = Schedule.from_knots([0, 10, 60, 99], eta=[0.25, 0.75, 0.1, 0.01])
HEAVY = KNOTS.replace(beta=[0.5, 0.95, 0.0, 0.9])
QHM = HEAVY.replace(nu=[0.25, 1.0, 0.5, 0.0])
PAGE = Path(__file__).parents[1] / "docs" / "exports.md"


def recipe(containing: str, **names: Any) -> Any:
    """Run the example of the documentation that contains some text."""
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.M | re.S)
    found = [block for block in blocks if containing in block]
    assert len(found) == 1, containing
    scope = {"torch": torch, "to_torch": to_torch, "to_lightning": to_lightning, **names}
    exec(found[0], scope)
    return types.SimpleNamespace(**scope)


def parameters(count: int = 1, **options: Any) -> list[Any]:
    return [torch.ones(3, requires_grad=True, **options) for _ in range(count)]


def update(optimizer: Any, step: int = 0) -> None:
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad = torch.full_like(p, np.sin(1.0 + step))
    optimizer.step()


def rates(optimizer: Any, scheduler: Any, steps: int, group: int = 0) -> list[float]:
    found = []
    for step in range(steps):
        found.append(float(optimizer.param_groups[group]["lr"]))
        update(optimizer, step)
        scheduler.step()
    return found


def test_rates_of_every_step() -> None:
    optimizer = torch.optim.SGD(parameters(), lr=7.0)
    scheduler = to_torch(KNOTS, optimizer)
    assert scheduler.get_last_lr() == [0.25]
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert rates(optimizer, scheduler, T + 3) == [KNOTS(k) for k in range(T + 3)]


def test_groups() -> None:
    def make() -> Any:
        a, b = parameters(2)
        return torch.optim.SGD([{"params": [a]}, {"params": [b], "lr": 0.1}], lr=1.0)

    with pytest.raises(InvalidProblem, match=r"scale: got None.*\[1.0, 0.1\]"):
        to_torch(KNOTS, make())
    optimizer = make()
    assert rates(optimizer, to_torch(KNOTS, optimizer, scale=[1.0, 0.5]), 30, group=1) == [
        0.5 * KNOTS(k) for k in range(30)
    ]
    optimizer = make()
    scheduler = to_torch(KNOTS, optimizer, scale=2.0)
    update(optimizer)
    optimizer.add_param_group({"params": parameters()})
    scheduler.step()
    assert scheduler.get_last_lr() == [2.0 * KNOTS(1)] * 3
    wrong: Any
    for wrong in ([1.0], -1.0, float("nan"), "ratio"):
        with pytest.raises(InvalidProblem, match="scale"):
            to_torch(KNOTS, make(), scale=wrong)


def named_groups(**options: Any) -> Any:
    a, b = parameters(2)
    return torch.optim.SGD(
        [{"params": [a], "name": "matrices"}, {"params": [b], "name": "rest", "lr": 0.1}], **options
    )


def test_schedules_and_factors_by_group_name() -> None:
    other = HEAVY.replace(eta=0.1 * HEAVY.controls["eta"][::-1])
    both = {"rest": other, "matrices": KNOTS}
    optimizer = named_groups(lr=1.0, momentum=0.5)
    scheduler = to_torch(both, optimizer, momentum="write", scale={"matrices": 2.0, "rest": 1.0})
    for k in range(T + 2):
        assert scheduler.get_last_lr() == [2.0 * KNOTS(k), other(k)]
        momenta = [group["momentum"] for group in optimizer.param_groups]
        assert momenta == [0.5, other(k, "beta")]  # the first schedule has none
        update(optimizer, k)
        scheduler.step()
    state = scheduler.state_dict()
    assert state == json.loads(json.dumps(state))
    again = to_torch(both, named_groups(lr=1.0, momentum=0.5), momentum="write", scale=[2.0, 1.0])
    again.load_state_dict(state)
    assert again.get_last_lr() == scheduler.get_last_lr()
    swapped = to_torch({"rest": KNOTS, "matrices": KNOTS}, named_groups(lr=1.0))
    with pytest.raises(InvalidProblem, match="digest"):
        swapped.load_state_dict(state)


def test_names_must_fit() -> None:
    for wrong in ({"matrices": KNOTS}, {"matrices": KNOTS, "rest": KNOTS, "more": KNOTS}):
        with pytest.raises(InvalidProblem, match=r"schedule: .*\['matrices', 'rest'\]"):
            to_torch(wrong, named_groups(lr=1.0))
    with pytest.raises(InvalidProblem, match=r"scale: .*names of the groups"):
        to_torch(KNOTS, named_groups(lr=1.0), scale={"matrices": 1.0})
    with pytest.raises(InvalidProblem, match="add 'name' to the groups"):
        to_torch({"a": KNOTS}, torch.optim.SGD(parameters(), lr=1.0))
    with pytest.raises(InvalidProblem, match="momentum: got None"):
        to_torch({"matrices": KNOTS, "rest": HEAVY}, named_groups(lr=1.0, momentum=0.5))


def test_a_tensor_that_groups_share_becomes_one_a_group() -> None:
    def make() -> Any:
        groups = [{"params": [p]} for p in parameters(3)]
        return torch.optim.AdamW(groups, lr=torch.tensor(1.0))

    optimizer, scales = make(), [1.0, 0.1, 0.5]
    first = optimizer.param_groups[0]["lr"]
    scheduler = to_torch(KNOTS, optimizer, scale=scales)
    for k in range(5):
        found = [float(group["lr"]) for group in optimizer.param_groups]
        assert found == pytest.approx([KNOTS(k) * factor for factor in scales])
        assert optimizer.param_groups[0]["lr"] is first  # still written in place
        update(optimizer, k)
        scheduler.step()
    # A checkpoint of an optimizer whose groups shared it shares it again.
    old = make()
    for group in old.param_groups[1:]:
        group["lr"] = old.param_groups[0]["lr"]
    optimizer.load_state_dict(old.state_dict())
    scheduler.load_state_dict(scheduler.state_dict())
    found = [float(group["lr"]) for group in optimizer.param_groups]
    assert found == pytest.approx([KNOTS(5) * factor for factor in scales])


def test_past_the_end() -> None:
    optimizer = torch.optim.SGD(parameters(), lr=1.0)
    found = rates(optimizer, to_torch(KNOTS.replace(extend="zero"), optimizer), T + 2)
    assert found[T - 1 :] == [KNOTS(T - 1), 0.0, 0.0]
    optimizer = torch.optim.SGD(parameters(), lr=1.0)
    scheduler = to_torch(KNOTS.replace(extend="raise"), optimizer)
    rates(optimizer, scheduler, T)
    with pytest.raises(InvalidProblem, match="step: got 101, allowed: 0 to 99"):
        scheduler.step()


def test_resume_is_exact(tmp_path: Path) -> None:
    """Saved, loaded in torch, trained, checkpointed and resumed by the recipe."""
    KNOTS.save(tmp_path / "schedule.npz")

    def make() -> tuple[Any, Any, Any]:
        torch.manual_seed(0)
        model = torch.nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1.0)
        return model, optimizer, to_torch(Schedule.load(tmp_path / "schedule.npz"), optimizer)

    model, optimizer, scheduler = make()
    whole = rates(optimizer, scheduler, T)
    assert whole == KNOTS.eta.tolist()
    other, optimizer, scheduler = make()
    first = rates(optimizer, scheduler, 37)
    text = PAGE.read_text("utf-8").split("Resume:\n")[1]
    code = text.split("```python\n")[1].split("```")[0].replace("checkpoint.pt", "{}")
    save, load = code.replace("{}", (tmp_path / "a.pt").as_posix()).split("\n\n")
    scope = {"torch": torch, "model": other, "optimizer": optimizer, "scheduler": scheduler}
    exec(save, scope)
    scope["model"], scope["optimizer"], scope["scheduler"] = make()
    exec(load, scope)
    resumed = [float(scope["optimizer"].param_groups[0]["lr"])]
    for step in range(37, T):
        update(scope["optimizer"], step)
        scope["scheduler"].step()
        resumed.append(float(scope["optimizer"].param_groups[0]["lr"]))
    assert first + resumed[:-1] == whole
    for a, b in zip(model.parameters(), scope["model"].parameters(), strict=True):
        assert torch.equal(a, b)


def test_state_alone_sets_the_rates() -> None:
    optimizer = torch.optim.SGD(parameters(), lr=1.0)
    scheduler = to_torch(HEAVY, optimizer, momentum="write")
    rates(optimizer, scheduler, 20)
    state = scheduler.state_dict()
    kinds = {type(value) for value in state.values()}
    assert kinds <= {int, float, str, list}
    fresh = torch.optim.SGD(parameters(), lr=1.0)
    again = to_torch(HEAVY, fresh, momentum="write")
    again.load_state_dict(state)
    for name in ("lr", "momentum"):
        assert fresh.param_groups[0][name] == optimizer.param_groups[0][name]
    assert again.get_last_lr() == scheduler.get_last_lr()
    assert rates(fresh, again, 90) == [HEAVY(k) for k in range(20, 110)]


def test_other_states_are_refused() -> None:
    optimizer = torch.optim.SGD(parameters(), lr=1.0)
    state = to_torch(KNOTS, optimizer).state_dict()
    other: Schedule
    options: dict[str, Any]
    for other, options, field in (
        (KNOTS.scaled(2.0), {}, "digest"),
        (KNOTS, {"every": 2}, "every"),
        (KNOTS, {"scale": 2.0}, "scale"),
    ):
        with pytest.raises(InvalidProblem, match=f"{field}: got"):
            to_torch(other, optimizer, **options).load_state_dict(state)
    foreign = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1.0).state_dict()
    with pytest.raises(InvalidProblem, match="the state of a ScheduleLR"):
        to_torch(KNOTS, optimizer).load_state_dict(foreign)


def test_start_and_every() -> None:
    optimizer = torch.optim.SGD(parameters(), lr=1.0)
    assert rates(optimizer, to_torch(KNOTS, optimizer, start=42), 10) == [
        KNOTS(k) for k in range(42, 52)
    ]
    optimizer = torch.optim.SGD(parameters(), lr=1.0)
    assert rates(optimizer, to_torch(KNOTS, optimizer, every=4), 40) == [
        KNOTS(k // 4) for k in range(40)
    ]


def test_momentum_is_written() -> None:
    optimizer = torch.optim.Adam(parameters(), lr=1.0)
    scheduler = to_torch(HEAVY, optimizer, momentum="write")
    for step in range(T + 2):
        assert optimizer.param_groups[0]["betas"] == (HEAVY(step, "beta"), 0.999)
        update(optimizer, step)
        scheduler.step()
    optimizer = torch.optim.SGD(parameters(), lr=1.0, momentum=0.9)
    to_torch(HEAVY, optimizer, momentum="ignore")
    assert optimizer.param_groups[0]["momentum"] == 0.9
    with pytest.raises(InvalidProblem, match="momentum: got None, allowed: ignore, write or"):
        to_torch(HEAVY, optimizer)
    with pytest.raises(InvalidProblem, match="no beta"):
        to_torch(KNOTS, optimizer, momentum="write")
    with pytest.raises(InvalidProblem, match="a QHM optimizer"):
        to_torch(QHM, optimizer, momentum="write")
    nesterov = torch.optim.SGD(parameters(), lr=1.0, momentum=0.9, nesterov=True)
    for schedule, wrong in ((QHM, optimizer), (HEAVY, nesterov)):
        with pytest.raises(InvalidProblem, match="for schedules without nu and SGD without"):
            to_torch(schedule, wrong, momentum="heavy-ball")


@pytest.mark.parametrize("kind", ["heavy-ball", "qhm"])
def test_momentum_is_that_of_optsched(kind: str) -> None:
    schedule, (p,) = QHM if kind == "qhm" else HEAVY, parameters(dtype=torch.float64)
    if kind == "qhm":
        optimizer = recipe("class QHM").QHM([p])
        scheduler = to_torch(schedule, optimizer, momentum="write")
    else:
        optimizer = torch.optim.SGD([p], lr=1.0)
        scheduler = to_torch(schedule, optimizer, momentum="heavy-ball")
    w, v = 1.0, 0.0
    for step in range(T):
        update(optimizer, step)
        scheduler.step()
        g, beta = np.sin(1.0 + step), schedule(step, "beta")
        nu = schedule(step, "nu") if kind == "qhm" else 1.0
        v = beta * v + (1.0 - beta) * g
        w -= schedule(step) * ((1.0 - nu) * g + nu * v)
        assert p[0].item() == pytest.approx(w, rel=1e-12)


def test_tensor_rate_is_written_in_place() -> None:
    rate = torch.tensor(1.0)
    optimizer = torch.optim.Adam(parameters(), lr=rate)
    held = optimizer.param_groups[0]["lr"]
    scheduler = to_torch(KNOTS, optimizer)
    np.testing.assert_allclose(rates(optimizer, scheduler, T), KNOTS.eta, rtol=1e-6)
    assert optimizer.param_groups[0]["lr"] is held
    state = scheduler.state_dict()
    assert {type(x) for x in state["_last_lr"]} == {float}
    scheduler.load_state_dict(state)
    assert optimizer.param_groups[0]["lr"] is held


def test_skipped_updates() -> None:
    optimizer = torch.optim.SGD(parameters(), lr=1.0)
    scheduler = to_torch(KNOTS, optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    used = []
    for step in range(20):
        for p in optimizer.param_groups[0]["params"]:
            p.grad = torch.full_like(p, np.inf if step in (0, 3, 4) else 1.0)
        rate, scale = optimizer.param_groups[0]["lr"], scaler.get_scale()
        scaler.scale(torch.ones(1))
        scaler.step(optimizer)
        scaler.update()
        if scaler.get_scale() >= scale:
            used.append(rate)
            scheduler.step()
    assert used == [KNOTS(k) for k in range(17)]


def test_bfloat16_stays() -> None:
    for make in (torch.optim.SGD, torch.optim.AdamW):
        (p,) = parameters(dtype=torch.bfloat16)
        optimizer = make([p], lr=1.0)
        rates(optimizer, to_torch(KNOTS, optimizer), 5)
        assert p.dtype == torch.bfloat16


def test_copies_and_pickles() -> None:
    optimizer = torch.optim.SGD(parameters(), lr=1.0)
    scheduler = to_torch(KNOTS, optimizer)
    rates(optimizer, scheduler, 5)
    for again in (copy.deepcopy(scheduler), pickle.loads(pickle.dumps(scheduler))):
        again.step()
        assert again.get_last_lr() == [KNOTS(6)]


def test_compiled_optimizer_compiles_once() -> None:
    dynamo = importlib.import_module("torch._dynamo.testing")
    torch._dynamo.reset()
    counter = dynamo.CompileCounter()
    (p,) = parameters()
    optimizer = torch.optim.Adam([p], lr=torch.tensor(1.0))
    scheduler = to_torch(KNOTS, optimizer)
    p.grad = torch.ones_like(p)
    step = torch.compile(optimizer.step, backend=counter)
    counts = []
    for _ in range(6):
        step()
        scheduler.step()
        counts.append(counter.frame_count)
    assert counts[2] == counts[-1]
    assert scheduler.get_last_lr() == [pytest.approx(KNOTS(6))]


def test_a_scheduler_inside_a_compiled_step_compiles_once() -> None:
    dynamo = importlib.import_module("torch._dynamo.testing")
    torch._dynamo.reset()
    counter = dynamo.CompileCounter()
    (p,) = parameters()
    p.grad = torch.ones_like(p)
    optimizer = torch.optim.Adam([p], lr=torch.tensor(1.0), foreach=False)
    scheduler = to_torch(KNOTS, optimizer)

    @torch.compile(backend=counter)
    def step() -> None:
        optimizer.step()
        scheduler.step()

    counts = []
    for _ in range(12):
        step()
        counts.append(counter.frame_count)
    assert counts[2] == counts[-1]
    assert scheduler.get_last_lr() == [pytest.approx(KNOTS(12))]


@pytest.mark.parametrize("momentum", ["ignore", "write", "heavy-ball"])
def test_snippet(momentum: Any, tmp_path: Path) -> None:
    scope: dict[str, Any] = {}
    exec(snippet(HEAVY, "torch-snippet", momentum=momentum).text, scope)

    def run(make: Callable[[Any], Any], steps: range, state: Any = None) -> tuple[list[Any], Any]:
        optimizer = torch.optim.SGD(parameters(), lr=1.0)
        scheduler = make(optimizer)
        if state is not None:
            scheduler.load_state_dict(state)
        found = []
        for step in steps:
            group = optimizer.param_groups[0]
            found.append((group["lr"], group["momentum"]))
            update(optimizer, step)
            scheduler.step()
        return found, scheduler.state_dict()

    own, _ = run(lambda o: to_torch(HEAVY, o, momentum=momentum), range(T + 2))
    made, _ = run(scope["ScheduleLR"], range(T + 2))
    np.testing.assert_allclose(made, own, rtol=1e-13, atol=1e-16)
    first, state = run(scope["ScheduleLR"], range(37))
    torch.save(state, tmp_path / "a.pt")
    state = torch.load(tmp_path / "a.pt", weights_only=True)
    rest, _ = run(scope["ScheduleLR"], range(37, T + 2), state)
    assert first + rest == made


# Recipes ----------------------------------------------------------------------------------------


class Data:
    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> dict[str, Any]:
        x = torch.full((3,), index / 64.0)
        return {"x": x, "labels": x[:1]}


def make_model(seen: list[float], optimizer_of: Callable[[], Any]) -> Any:
    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 1)

        def forward(self, x: Any, labels: Any) -> Any:
            return {"loss": ((self.linear(x) - labels) ** 2).mean()}

    return Model()


def recorded(seen: list[float]) -> Any:
    """AdamW that notes the rate of every update."""

    class Recorded(torch.optim.AdamW):
        def step(self, closure: Any = None) -> Any:
            seen.append(float(self.param_groups[0]["lr"]))
            return super().step(closure)

    return Recorded


SHORT = Schedule.from_knots([0, 3, 11], eta=[0.1, 0.3, 0.01])


def fake_torch(seen: list[float]) -> Any:
    """The framework with an AdamW that notes its rates."""
    optim = types.SimpleNamespace(AdamW=recorded(seen))
    return types.SimpleNamespace(optim=optim)


def test_loop_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    SHORT.save("schedule.npz")
    model = torch.nn.Linear(3, 1)
    made = recipe(
        'Schedule.load("schedule.npz")',
        model=model,
        compute_loss=lambda model, step: model(torch.ones(3)).sum(),
    )
    assert made.scheduler.last_epoch == 12


def test_loader_recipe() -> None:
    ramp = Schedule.from_array(np.full(20, 0.1), batch_size=np.linspace(4, 16, 20))
    data = torch.utils.data.TensorDataset(torch.arange(50))
    sizes: list[int] = []
    made = recipe(
        "batch_sampler=", ramp=ramp, data=data, update=lambda batch: sizes.append(len(batch[0]))
    )
    assert sizes == made.whole.array("batch_size").astype(int).tolist()
    assert isinstance(made.sampler, BatchSampler)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_trainer_recipe(accumulation: int, tmp_path: Path, monkeypatch: Any) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    options = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": accumulation,
        "save_steps": 5,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }

    def run(resume: bool) -> list[float]:
        seen: list[float] = []
        made_torch = fake_torch(seen)
        if resume:  # by the recipe, but for the last line
            block = PAGE.read_text("utf-8").split("## Hugging Face Trainer")[1]
            code = block.split("```python\n")[1].split("```")[0]
            code = code.replace("train()", "train(resume_from_checkpoint='run/checkpoint-5')")
            scope = {"torch": made_torch, "to_torch": to_torch, "transformers": transformers}
            model = make_model(seen, list)
            scope |= {"schedule": SHORT, "model": model, "data": Data(), "options": options}
            exec(code, scope)
        else:
            recipe(
                "optimizers=(optimizer", torch=made_torch, transformers=transformers,
                schedule=SHORT, model=make_model(seen, list), data=Data(), options=options,
            )  # fmt: skip
        return seen

    assert run(False) == SHORT.eta.tolist()
    assert run(True) == SHORT.eta[5:].tolist()


def test_trainer_recipe_that_keeps_its_groups(tmp_path: Path, monkeypatch: Any) -> None:
    transformers = pytest.importorskip("transformers")
    monkeypatch.chdir(tmp_path)
    options: Any = {
        "per_device_train_batch_size": 4, "use_cpu": True, "report_to": [], "save_strategy": "no",
        "logging_strategy": "steps", "logging_steps": 1, "disable_tqdm": True, "weight_decay": 0.1,
    }  # fmt: skip
    made = recipe(
        "def create_scheduler", transformers=transformers, schedule=SHORT,
        model=make_model([], list), data=Data(), options=options,
    )  # fmt: skip
    groups = made.trainer.optimizer.param_groups
    assert sorted({group["weight_decay"] for group in groups}) == [0.0, 0.1]
    logged = [row["learning_rate"] for row in made.trainer.state.log_history if "loss" in row]
    # Trainer 5 logs the rate of the update before; others that of the next.
    shifted = [*SHORT.eta.tolist(), SHORT(12)]
    assert logged in (pytest.approx(shifted[:-1]), pytest.approx(shifted[1:]))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_lightning_recipe(accumulation: int, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")
    seen: list[float] = []
    made = recipe(
        "configure_optimizers", torch=fake_torch(seen), lightning=lightning, schedule=SHORT
    )

    class Model(made.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = torch.nn.Linear(3, 1)

        def training_step(self, batch: Any, index: int) -> Any:
            return ((self.linear(batch["x"]) - batch["labels"]) ** 2).mean()

    def run(steps: int, checkpoint: Any = None) -> Any:
        trainer = lightning.Trainer(
            max_steps=steps, accumulate_grad_batches=accumulation, accelerator="cpu", logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
            default_root_dir=tmp_path,
        )  # fmt: skip
        loader = torch.utils.data.DataLoader(Data(), batch_size=4)
        trainer.fit(Model(), loader, ckpt_path=checkpoint)
        return trainer

    run(12)
    assert seen == SHORT.eta.tolist()
    seen.clear()
    run(5).save_checkpoint(tmp_path / "a.ckpt")
    run(12, tmp_path / "a.ckpt")
    assert seen == SHORT.eta.tolist()


@pytest.mark.parametrize("processes", [1, 4])
def test_accelerate_recipe(processes: int, tmp_path: Path, monkeypatch: Any) -> None:
    accelerate = pytest.importorskip("accelerate")
    real = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    if processes > 1:
        module = importlib.import_module("accelerate.scheduler")
        state = types.SimpleNamespace(num_processes=processes)
        monkeypatch.setattr(module, "AcceleratorState", lambda: state)
        monkeypatch.setattr(accelerate.Accelerator, "num_processes", processes)
    seen: list[float] = []

    def run() -> Any:
        return recipe(
            "accelerator.prepare", torch=fake_torch(seen), accelerator=real, schedule=SHORT,
            model=torch.nn.Linear(3, 1), loader=torch.utils.data.DataLoader(Data(), 4 // processes),
            compute_loss=lambda model, batch: model(batch["x"]).sum(),
        )  # fmt: skip

    made = run()
    assert seen == SHORT.eta[:8].tolist()  # each process has 16 batches
    state = made.scheduler.state_dict()
    made.scheduler.load_state_dict(state)
    assert made.scheduler.get_last_lr() == [SHORT(8)]
    if processes == 1:
        real.save_state(tmp_path / "state")
        made.scheduler.step()
        real.load_state(tmp_path / "state")
        assert made.scheduler.get_last_lr() == [SHORT(8)]


TWO_PROCESSES = """
import json, sys
from pathlib import Path
import accelerate
from tests import test_export_torch as tests

def train():
    seen = []
    tests.recipe(
        "accelerator.prepare",
        torch=tests.fake_torch(seen),
        accelerator=accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2),
        schedule=tests.SHORT,
        model=tests.torch.nn.Linear(3, 1),
        loader=tests.torch.utils.data.DataLoader(tests.Data(), 2),
        compute_loss=lambda model, batch: model(batch["x"]).sum(),
    )
    rank = accelerate.PartialState().process_index
    Path(sys.argv[1], f"{rank}.json").write_text(json.dumps(seen))

accelerate.debug_launcher(train, num_processes=2)
"""


def test_accelerate_with_two_processes(tmp_path: Path) -> None:
    """Each has 16 batches of the 32, two an update; both use the rates of 8 updates."""
    pytest.importorskip("accelerate")
    done = subprocess.run(
        [sys.executable, "-c", TWO_PROCESSES, str(tmp_path)],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        assert json.loads((tmp_path / f"{rank}.json").read_text()) == SHORT.eta[:8].tolist()
