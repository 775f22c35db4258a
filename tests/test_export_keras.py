"""Exports to Keras 3, with the real framework on whatever backend there is.

pip install '.[test,keras,torch]'
KERAS_BACKEND=torch python -m pytest tests/test_export_keras.py   # or jax
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from optsched import InvalidProblem, Schedule
from optsched.schedules.exports.keras import to_keras
from optsched.schedules.exports.snippets import snippet

if importlib.util.find_spec("keras") is None:
    pytest.skip("Keras is not installed", allow_module_level=True)
if importlib.util.find_spec("tensorflow") is None:
    os.environ.setdefault("KERAS_BACKEND", "jax")
keras: Any = importlib.import_module("keras")

# Keras does not follow NumPy 2 yet: its own affair.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

T = 100
KNOTS = Schedule.from_knots([0, 10, 60, 99], eta=[0.25, 0.75, 0.1, 0.01])
STEPS = [0, 1, 10, 37, T - 1, T, T + 1, 2**31 - 1]
PAGE = Path(__file__).parents[1] / "docs" / "exports.md"


def wanted(schedule: Schedule, step: int) -> float:
    past = schedule.extend == "raise" and step >= schedule.horizon
    return np.nan if past else schedule(step)


def from_snippet(schedule: Schedule) -> Any:
    scope: dict[str, Any] = {}
    exec(snippet(schedule, "keras-snippet").text, scope)
    return scope["ScheduleRate"]()


@pytest.mark.parametrize("make", [to_keras, from_snippet])
@pytest.mark.parametrize("extend", ["hold", "zero", "raise"])
def test_values(extend: Any, make: Any) -> None:
    schedule = KNOTS.replace(extend=extend)
    rate = make(schedule)
    for step in STEPS:
        for count in (step, keras.ops.convert_to_tensor(step, "int32")):
            found = float(keras.ops.convert_to_numpy(rate(count)))
            np.testing.assert_allclose(found, wanted(schedule, step), rtol=1e-6)


@pytest.mark.parametrize("make", [to_keras, from_snippet])
def test_odd_schedules(make: Any) -> None:
    assert float(make(Schedule.from_array([0.5]))(7)) == 0.5
    assert float(make(Schedule.from_array([0.5, 0.25]))(1)) == 0.25
    long = Schedule.from_knots([0, 2**24, 2**24 + 1, 10**12], eta=[0.5, 0.5, 0.25, 0.0])
    for step in (2**24 - 1, 2**24, 2**24 + 1, 2**31 - 1):
        assert float(make(long)(step)) == pytest.approx(long(step), rel=1e-6)


def test_what_does_not_fit() -> None:
    with pytest.raises(InvalidProblem, match="no beta"):
        to_keras(KNOTS.replace(beta=0.9))
    with pytest.raises(InvalidProblem, match="per_update"):
        to_keras(KNOTS.replace(unit="tokens"))


def test_config() -> None:
    rate = to_keras(KNOTS.replace(extend="zero"))
    again = type(rate).from_config(rate.get_config())
    assert again.get_config() == rate.get_config()
    config = keras.optimizers.serialize(keras.optimizers.SGD(learning_rate=rate))
    loaded = keras.optimizers.deserialize(config)
    assert float(loaded.learning_rate) == 0.25
    for step in STEPS:
        np.testing.assert_allclose(float(again(step)), float(rate(step)))


def test_every_update_uses_its_step() -> None:
    optimizer = keras.optimizers.SGD(learning_rate=to_keras(KNOTS))
    p = keras.Variable(np.zeros(1, np.float32))
    before = 0.0
    for step in range(T + 2):
        optimizer.apply([keras.ops.ones(1)], [p])
        now = float(keras.ops.convert_to_numpy(p.value)[0])
        assert before - now == pytest.approx(KNOTS(step), rel=1e-3)
        before = now


@pytest.mark.parametrize("every", [1, 4])
def test_accumulated_updates_use_their_step(every: int) -> None:
    accumulate = None if every == 1 else every
    rate = to_keras(KNOTS, every=every)
    again = type(rate).from_config(rate.get_config())
    for batch in (0, every - 1, every, 2 * every - 1, 10 * every, T * every + 1):
        assert float(rate(batch)) == float(again(batch)) == pytest.approx(KNOTS(batch // every))
    optimizer = keras.optimizers.SGD(learning_rate=rate, gradient_accumulation_steps=accumulate)
    p = keras.Variable(np.zeros(1, np.float32))
    optimizer.build([p])
    found, before = [], 0.0
    for _ in range(12 * every):
        optimizer.apply([keras.ops.ones(1)], [p])
        now = float(keras.ops.convert_to_numpy(p.value)[0])
        if now != before:
            found.append(before - now)
        before = now
    assert found == pytest.approx([KNOTS(k) for k in range(12)], rel=1e-3)
    for wrong in (0, 1.5, True):
        with pytest.raises(InvalidProblem, match="every"):
            to_keras(KNOTS, every=wrong)  # type: ignore[arg-type]


def make_model() -> Any:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    block = next(b for b in re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.S)
                 if "to_keras" in b)  # fmt: skip
    scope = {"keras": keras, "schedule": KNOTS}
    exec(block, scope)
    model.compile(optimizer=scope["optimizer"], loss="mse")
    return model


def test_training_resumes(tmp_path: Path) -> None:
    """The recipe, trained under the backend's compiler, saved, loaded and trained on."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 1))
    options = {"batch_size": 4, "shuffle": False, "verbose": 0}
    whole = make_model()
    whole.fit(x, y, epochs=4, **options)
    assert float(whole.optimizer.learning_rate) == pytest.approx(KNOTS(40), rel=1e-6)
    half = make_model()
    half.fit(x, y, epochs=2, **options)
    half.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert float(loaded.optimizer.learning_rate) == pytest.approx(KNOTS(20), rel=1e-6)
    loaded.fit(x, y, epochs=2, **options)
    for a, b in zip(whole.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
    code = (
        "import sys, keras, optsched.schedules.exports.keras; "
        f"model = keras.saving.load_model({str(tmp_path / 'model.keras')!r}); "
        "print(float(model.optimizer.learning_rate))"
    )
    root = os.pathsep.join([str(PAGE.parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": root}
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, env=environment, capture_output=True, text=True
    ).stdout
    assert float(out) == pytest.approx(KNOTS(20), rel=1e-6)
