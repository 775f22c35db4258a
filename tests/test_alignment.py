"""A run beside its schedule: what fits passes, what does not is named with its usual cause."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched import InvalidProblem, Schedule
from optsched.schedules.exports.alignment import check_alignment

T = 1000
SCHEDULE = Schedule.from_knots([0, 100, 800, T - 1], eta=[1e-5, 3e-4, 3e-4, 0.0])
STEPS = np.arange(0, T // 10)


def logged(steps: np.ndarray, factor: float = 1.0) -> dict[int, float]:
    """Rates as a logger prints them, by update."""
    rates = factor * SCHEDULE(steps)
    return {int(k): float(f"{rate:.6g}") for k, rate in zip(STEPS, rates, strict=True)}


def message(**given) -> str:
    with pytest.raises(InvalidProblem) as caught:
        check_alignment(SCHEDULE, **given)
    return str(caught.value)


def test_what_fits() -> None:
    check_alignment(SCHEDULE)
    check_alignment(SCHEDULE, updates=T, rates=logged(STEPS))
    check_alignment(SCHEDULE, rates={k: float(np.float32(SCHEDULE(k))) for k in range(T)})
    check_alignment(SCHEDULE, rates={999: 0.0, 3: SCHEDULE(3)})


@given(factor=st.integers(2, 64), fast=st.booleans())
def test_a_factor_is_found(factor: int, fast: bool) -> None:
    steps = STEPS * factor if fast else STEPS // factor
    text = message(rates=logged(steps))
    assert f"is {factor} times too {'fast' if fast else 'slow'}" in text


def test_usual_mistakes() -> None:
    text = message(rates=logged(STEPS + 1))
    assert text.startswith("rates: got 1.29e-05, allowed: 1e-05 at update 0")
    assert "one step early" in text
    assert "one step late" in message(rates=logged(np.maximum(STEPS - 1, 0)))
    assert "every rate is 0.001 times that" in message(rates=logged(STEPS, 1e-3))
    # What nothing explains is said without a guess.
    assert message(rates={0: 1e-5, 1: 9.0}).endswith("allowed: 1.29e-05 at update 1")
    assert message(rates={5: 9.0}).endswith("at update 5")


@pytest.mark.parametrize(
    "updates, part",
    [
        (250, "a factor of 4: per_update(schedule, 4)"),
        (8000, "a factor of 8: count updates, not micro-batches or the steps of 8 processes"),
        (900, "solve again for 900 steps"),
    ],
)
def test_other_numbers_of_updates(updates: int, part: str) -> None:
    assert part in message(updates=updates)


def test_bad_input() -> None:
    assert message(updates=0).startswith("updates: got 0")
    assert message(rates={-1: 1.0}).startswith("step: got -1")
    assert message(rates={1.5: 1.0}).startswith("rates: got 1.5")
    assert message(rates={1: "x"}).startswith("rates: got")
    tokens = SCHEDULE.replace(unit="tokens")
    with pytest.raises(InvalidProblem, match="per_update"):
        check_alignment(tokens, updates=T)
