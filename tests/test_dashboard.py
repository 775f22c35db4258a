"""Alarms from logs with known crossings, the page of a run, and the command that makes both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from optsched import cli
from optsched.diagnostics.alarms import Alarm, Limits, alarms, edge_ratio, update_ratio
from optsched.diagnostics.log import Log
from optsched.diagnostics.recorder import Recorder
from optsched.errors import InvalidProblem
from optsched.plots.dashboard import plot_dashboard, plot_edge, plot_loss
from optsched.rules.stability import UpdateRule


def make(rows: int = 100, **columns: Any) -> Log:
    """A log of the columns; nan where a quantity was not measured, for all but the loss."""
    table = {"step": np.arange(rows, dtype=float), **{k: np.array(v) for k, v in columns.items()}}
    present = {name: ~np.isnan(values) | (name == "loss") for name, values in table.items()}
    return Log("log.csv", table, present)


def by_name(log: Log, *settings: Any) -> dict[str, Alarm]:
    return {one.name: one for one in alarms(log, *settings)}


def test_first_steps_of_all_alarms() -> None:
    rng = np.random.default_rng(0)
    noisy = 1.0 + 0.01 * rng.normal(size=100)
    loss, norm, update = noisy.copy(), noisy.copy(), 1e-3 * noisy
    loss[70], norm[60], update[80] = 1.2, 4.0, 0.3
    sharpness = np.full(100, np.nan)
    sharpness[::10] = np.linspace(10.0, 30.0, 10)  # 21.1 at step 50
    noise = np.full(100, np.nan)
    noise[[30, 40]] = 79.0, 81.0
    log = make(
        lr=np.full(100, 0.1),
        loss=loss,
        gradient_norm=norm,
        update_norm=update,
        parameter_norm=np.ones(100),
        sharpness=sharpness,
        noise_scale=noise,
        batch_size=np.full(100, 8.0),
    )
    found = by_name(log)
    steps = {name: one.step for name, one in found.items()}
    assert steps == {
        "noise": 40,
        "edge": 50,
        "gradient growth": 60,
        "loss spike": 70,
        "update ratio": 80,
        "not finite": None,
    }
    assert list(found) == sorted(found, key=lambda name: steps[name] or 1000)
    assert found["edge"].value == pytest.approx(0.1 * sharpness[50] / 2.0)
    assert found["edge"].measured == 10 and found["gradient growth"].measured == 80
    assert found["gradient growth"].value == pytest.approx(4.0 / np.median(norm[40:60]))
    past = loss[50:70]
    scatter = 1.4826 * np.median(np.abs(past - np.median(past)))
    assert found["loss spike"].value == pytest.approx((1.2 - np.median(past)) / scatter)
    assert found["update ratio"].value == pytest.approx(0.3)
    # Momentum as an average moves the edge out of reach, other limits move the rest.
    other = by_name(log, UpdateRule("heavy-ball", 0.9), Limits(spike=100.0, growth=5.0, noise=9.0))
    assert [other[name].step for name in ("edge", "loss spike", "gradient growth", "noise")] == [
        None, None, None, 30,
    ]  # fmt: skip


@given(st.integers(0, 10**6))
def test_quiet_runs_are_quiet(seed: int) -> None:
    """A loss and a gradient that fall, with 1 % of noise, over 300 rows."""
    rng = np.random.default_rng(seed)
    fall = np.arange(1.0, 301.0) ** -0.3
    log = make(
        300,
        lr=np.full(300, 0.1),
        loss=fall * (1.0 + 0.01 * rng.normal(size=300)),
        gradient_norm=fall * (1.0 + 0.2 * rng.uniform(-1.0, 1.0, 300)),
    )
    assert all(one.step is None for one in alarms(log))


def test_nan_is_an_alarm_everywhere_it_shows() -> None:
    loss = np.ones(60)
    loss[50:] = np.nan
    found = by_name(make(60, loss=loss))
    assert found["not finite"].step == found["loss spike"].step == 50
    # Before the window is full there is nothing to compare with, but nan needs none.
    assert by_name(make(3, loss=[1.0, 1.0, np.nan]))["loss spike"].step == 2


def test_an_alarm_looks_back_only() -> None:
    rng = np.random.default_rng(1)
    loss = 1.0 + 0.01 * rng.normal(size=200)
    loss[120] = 2.0
    first = by_name(make(200, loss=loss))["loss spike"]
    cut = by_name(make(121, loss=loss[:121]))["loss spike"]
    assert first.step == cut.step == 120 and first.value == cut.value


def test_ratios_with_gaps_and_no_columns() -> None:
    log = make(4, loss=np.ones(4), lr=[0.1, np.nan, 0.2, 0.1], sharpness=[10.0, 10.0, 20.0, np.nan])
    steps, ratio = edge_ratio(log, UpdateRule())
    assert steps.tolist() == [0, 2] and ratio == pytest.approx([0.5, 2.0])
    assert len(edge_ratio(make(4, loss=np.ones(4)), UpdateRule())[0]) == 0
    log = make(3, update_norm=[1.0, np.nan, 3.0], parameter_norm=[2.0, 2.0, 0.0])
    assert update_ratio(log)[0].tolist() == [0]
    assert set(by_name(make(4, loss=np.ones(4)))) == {"not finite"}


@pytest.mark.parametrize(
    "change", [{"window": 3}, {"spike": 0.0}, {"growth": -1.0}, {"ratio": np.nan}, {"noise": 0}]
)
def test_bad_limits(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidProblem, match=next(iter(change))):
        Limits(**change)


@pytest.fixture
def log_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.csv"
    with Recorder(path, run="pilot") as log:
        for step in range(40):
            w = np.full(3, 1.0 / (1 + step))
            log.record(
                step, lr=0.1, loss=1.0 / (1 + step), gradients=[w], updates=[0.2 * w],
                parameters=[w], sharpness=15.0 + step,
            )  # fmt: skip
    return path


def test_command(log_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    figure = log_file.with_suffix(".png")
    assert cli.main(["dashboard", str(log_file), "--plot", str(figure), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["run"], found["rows"], found["last_step"]) == ("pilot", 40, 39)
    fired = {one["name"]: one["step"] for one in found["alarms"] if one["step"] is not None}
    assert list(fired.items()) == [("update ratio", 0), ("edge", 6)]
    assert figure.read_bytes()[:4] == b"\x89PNG"
    assert cli.main(["dashboard", str(log_file), "--optimiser", "adam", "--momentum", "0.9"]) == 0
    assert "edge" in capsys.readouterr().out
    for arguments, text in (
        (["--plot", str(figure)], "exists already"),
        (["--plot", "x.txt"], "suffix '.txt'"),
        (["--window", "2"], "window: got 2"),
        (["--optimiser", "adam"], "--momentum: got nothing"),
    ):
        assert cli.main(["dashboard", str(log_file), *arguments]) == 2
        assert text in capsys.readouterr().err
    assert cli.main(["dashboard", "none.csv"]) == 2
    assert "none.csv: cannot be read" in capsys.readouterr().err


def test_page(log_file: Path) -> None:
    from optsched.diagnostics.log import read_log

    log = read_log(log_file)
    figure = plot_dashboard(log)
    assert len(figure.axes) == 5 and "edge at 6" in str(figure.get_suptitle())  # no noise scale
    assert not [text for ax in figure.axes for text in ax.texts]
    assert [bool(ax.get_xlabel()) for ax in figure.axes] == [False, False, True, True, True]
    with pytest.raises(InvalidProblem, match=r"log: got .*, allowed: a log with one of loss, lr"):
        plot_dashboard(make(3, weather=[1.0, 2.0, 3.0]))
    ax = Figure().subplots()
    assert plot_edge(ax, log, UpdateRule()) is ax
    measured, edge = ax.get_lines()
    np.testing.assert_allclose(np.asarray(measured.get_ydata(), float), 15.0 + np.arange(40))
    np.testing.assert_allclose(np.asarray(edge.get_ydata(), float), 20.0)
    ax = Figure().subplots()
    plot_loss(ax, log, alarms(log))
    assert len(ax.get_lines()) == 1 + 2  # the edge and the update ratio


def test_alarms_that_fall_together_are_one_line() -> None:
    log = make(1000, loss=np.linspace(3.0, 2.0, 1000))
    steps = {"edge": 600, "loss spike": 960, "update ratio": 970}
    found = [Alarm(name, 1000, step, 1.0, 1.0, "") for name, step in steps.items()]
    ax = Figure().subplots()
    plot_loss(ax, log, found)
    _, labels = ax.get_legend_handles_labels()
    assert labels[1:] == ["edge, 600", "loss spike, 960\nupdate ratio, 970"]
