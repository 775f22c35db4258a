"""Damaged logs of every format, a few of each; `benchmarks.mutated_logs` does 10^4."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.mutated_logs import FORMATS, ROWS, Damage, check, damage, fault, numbers
from optsched.logs import read_run
from optsched.schedules.schedule import Schedule

TRUTH = numbers()


@pytest.mark.parametrize("name", FORMATS)
def test_damaged_logs_are_read_without_a_shift_or_refused(name: str, tmp_path: Path) -> None:
    text = FORMATS[name][1](TRUTH)
    raw = text if isinstance(text, bytes) else text.encode()
    met, why = check(name, raw, Damage(raw, 0, False, []), TRUTH, tmp_path)
    assert (met, why) == ("read", "")
    for i in range(40):
        done = damage(raw, np.random.default_rng([7, i]), 1 + i % 2)
        met, why = check(name, raw, done, TRUTH, tmp_path)
        assert met != "FAULT", (done.what, why, done.raw)


def test_the_judge_sees_shifts_and_losses(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    made = FORMATS["csv"][1](TRUTH)
    assert isinstance(made, str)
    path.write_text(made)
    run, none = read_run(path), Damage(b"", 2, False, [])
    assert fault(run, TRUTH, none, {}) is None
    shifted = replace(run, loss=np.roll(run.loss, 1))
    assert "are not those of the file" in str(fault(shifted, TRUTH, none, {}))
    exchanged = replace(run, loss=np.array(TRUTH["norm"]))
    assert "are not those of the file" in str(fault(exchanged, TRUTH, none, {}))
    misnamed = Damage(b"", 2, False, ["name"])
    assert fault(exchanged, TRUTH, misnamed, {}) is None  # all of one column
    assert "are not those of the file" in str(fault(shifted, TRUTH, misnamed, {}))
    half = replace(run, steps=run.steps[::2], loss=run.loss[::2])
    assert f"{ROWS // 2} rows are lost" in str(fault(half, TRUTH, none, {}))
    large = replace(run, schedule=Schedule.from_knots([0, 1000], eta=[1.0, 1.0]))
    assert "rates up to 1" in str(fault(large, TRUTH, none, {}))
