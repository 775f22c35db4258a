"""Schedules in words: the sentence rebuilds the rates."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optsched import Schedule
from optsched.schedules.families import FAMILIES
from optsched.schedules.words import in_words

PEAK, STEPS = 3e-4, 100_000
SENTENCE = re.compile(
    r"^(?:warm up (?P<ramp>[\d,]+) steps(?: to [\d.e-]+)?, )?(?:start at [\d.e-]+, )?"
    r"(?:hold (?P<peak>[\d.e-]+) to step (?P<held>[\d,]+), )?then decay (?P<how>.+) to "
    r"(?P<last>[\d.e-]+) over the (?:whole run|last (?P<share>[\d.]+) %)$"
)
SHAPES: dict[str, Any] = {
    "linearly": lambda r: 1.0 - r,
    "as a cosine": lambda r: 0.5 * (1.0 + np.cos(np.pi * r)),
    "as 1 - sqrt": lambda r: 1.0 - np.sqrt(r),
}


def _rebuilt(words: str, horizon: int) -> Any:
    """Rates over the peak that the sentence says."""
    match = SENTENCE.match(words)
    assert match, words
    whole = {key: int((match[key] or "0").replace(",", "")) for key in ("ramp", "held")}
    share = float(match["share"] or 100.0) / 100.0
    begin = whole["held"] or round(horizon * (1.0 - share))
    k = np.arange(horizon)
    r = np.clip((k - begin) / (horizon - begin), 0.0, 1.0)
    how, last = match["how"], float(match["last"]) / PEAK
    if how == "exponentially":
        fall = last**r
    elif how in SHAPES:
        fall = last + (1.0 - last) * SHAPES[how](r)
    else:
        power = re.fullmatch(r"with power ([\d.]+)", how)
        assert power, how
        fall = last + (1.0 - last) * (1.0 - r) ** float(power[1])
    ramp = np.minimum((k + 1.0) / (whole["ramp"] + 1.0), 1.0) if whole["ramp"] else 1.0
    return fall * ramp


@pytest.mark.parametrize("warmup", [0, 1, 2000])
@pytest.mark.parametrize(
    ("name", "how", "options"),
    [
        ("linear", "linearly", {}),
        ("linear", "linearly", {"final": 0.1}),
        ("cosine", "as a cosine", {"final": 0.1}),
        ("polynomial", "with power 3", {"power": 3.0}),
        ("exponential", "exponentially", {"final": 0.05}),
        ("wsd_linear", "linearly", {"decay": 0.099}),
        ("wsd_sqrt", "as 1 - sqrt", {"decay": 0.3, "final": 0.02}),
        ("wsd_cosine", "as a cosine", {"decay": 0.5}),
        ("wsd_power", "with power 1.5", {"decay": 0.4, "power": 1.5, "final": 0.03}),
        ("wsd_exponential", "exponentially", {"decay": 0.2, "final": 0.01}),
    ],
)
def test_the_sentence_of_a_family_rebuilds_it(
    name: str, how: str, options: dict[str, float], warmup: int
) -> None:
    schedule = FAMILIES[name](STEPS, PEAK, warmup=warmup, **options)
    words = in_words(schedule)
    assert f"decay {how} to" in words
    if warmup > 1:
        assert words.startswith(f"warm up {warmup:,} steps")
    assert np.abs(_rebuilt(words, STEPS) - schedule.eta / PEAK).max() < 0.015


def test_the_sentence_of_the_issue() -> None:
    schedule = FAMILIES["wsd_linear"](STEPS, PEAK, warmup=2000, decay=9876 / 98_000)
    assert in_words(schedule) == (
        "warm up 2,000 steps, hold 0.0003 to step 90,124,"
        " then decay linearly to 0 over the last 9.9 %"
    )


@given(
    held=st.floats(0.0, 0.95),
    power=st.floats(0.4, 6.0),
    final=st.floats(0.0, 0.5),
    ramp=st.integers(0, 500),
)
def test_a_hold_and_a_power_rebuild(held: float, power: float, final: float, ramp: int) -> None:
    k, horizon = np.arange(10_000), 10_000
    begin = ramp + round(held * (horizon - ramp))
    r = np.clip((k - begin) / (horizon - begin), 0.0, 1.0)
    rate = final + (1.0 - final) * (1.0 - r) ** power
    rate *= np.minimum((k + 1.0) / (ramp + 1.0), 1.0)
    schedule = Schedule.from_array(PEAK * rate)
    # The power is told with two digits: a hundredth of the peak more.
    assert np.abs(_rebuilt(in_words(schedule), horizon) - rate).max() < 0.025


def test_what_has_no_name_says_where_it_is() -> None:
    k = np.arange(1000)
    words = in_words(Schedule.from_array(PEAK / (1.0 + k / 50.0)))
    assert words == (
        "start at 0.0003, then fall over the whole run: half at step 50, a tenth at step 450,"
        " 1.43e-05 at the end"
    )
    assert in_words(Schedule.from_array([PEAK] * 9)) == "hold 0.0003 to the end"
    assert in_words(Schedule.from_array([0.0] * 9)) == "a rate of 0"
    assert "as in the table" in in_words(FAMILIES["cosine_restarts"](STEPS, PEAK))
    assert "rise by step" in in_words(Schedule.from_array(PEAK * np.append(k**2 / 1e6, [1.0])))


def test_the_rest_of_a_run_is_told_from_its_step() -> None:
    whole = FAMILIES["wsd_linear"](1000, PEAK, decay=0.5)
    assert in_words(whole, 200) == in_words(whole)
    # Beyond its hold the rate begins where it is.
    assert in_words(whole, 750).startswith(
        "start at 0.00015, then decay linearly to 0 over the last 25"
    )


@pytest.mark.parametrize("horizon", [1, 2, 3, 7])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_words(name: str, horizon: int) -> None:
    assert in_words(FAMILIES[name](horizon, PEAK))
    assert in_words(FAMILIES[name](10**12, PEAK))
