"""What a law said before the long runs, and tables and the figure of how they ended."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.real_training.common import mean_error, with_error
from optsched import Schedule
from optsched.studies.sweep.run import Row

__all__ = [
    "PLAN",
    "Forecast",
    "Order",
    "Prediction",
    "comparison",
    "figure",
    "forecast",
    "order",
    "shown",
    "verdict",
]

PLAN = "plan"
# Told apart by colour, dash and width; of the set that colour-blind readers can tell.
STYLES = {
    "plan": ("#000000", "solid", 2.4),
    "cosine": ("#0072B2", (0, (6, 2)), 1.6),
    "wsd": ("#D55E00", (0, (3, 1, 1, 1)), 1.6),
    "linear": ("#009E73", (0, (1.5, 1)), 1.6),
}


@dataclass(frozen=True)
class Prediction:
    """Final loss of a schedule by a law.

    Attributes
    ----------
    loss, low, high : float
        With the interval, in nats.
    error : float
        Standard error of the difference from the schedule that the law likes best; 0 for that one.
    """

    loss: float
    low: float
    high: float
    error: float = math.nan

    def shifted(self, by: float) -> Prediction:
        """On other validation blocks, which are harder by so much."""
        return replace(self, loss=self.loss + by, low=self.low + by, high=self.high + by)


@dataclass(frozen=True)
class Forecast:
    """What a law says, before the long runs, that its plan gains over its best rival.

    Attributes
    ----------
    rival : str
        The one with the least predicted loss.
    gain : float
        Predicted loss of that rival minus that of the plan, in nats.
    error : float
        Its standard error by the law.
    most : float
        What any schedule could gain over that rival under the law; NaN where no bound is known.
    """

    rival: str
    gain: float
    error: float
    most: float

    def __str__(self) -> str:
        flat = "flat: " if self.gain <= self.error else ""
        told = f"{flat}{1e3 * self.gain:.1f} +- {1e3 * self.error:.1f} to gain over {self.rival}"
        if math.isnan(self.most):
            return told
        return f"{told}, at most {1e3 * self.most:.1f} by any schedule with this peak and warm-up"


def forecast(predictions: Mapping[str, Prediction], lower_bound: float) -> Forecast:
    """Gain of the plan over the best of the others, as predicted; ``lower_bound`` is the law's."""
    rivals = {name: told for name, told in predictions.items() if name != PLAN}
    rival = min(rivals, key=lambda name: rivals[name].loss)
    # The command has the errors of differences from the best: one of these two is nearly always it.
    error = max(predictions[PLAN].error, rivals[rival].error)
    gain = rivals[rival].loss - predictions[PLAN].loss
    return Forecast(rival, gain, error, rivals[rival].loss - lower_bound)


@dataclass(frozen=True)
class Order:
    """How many pairs of schedules a law orders as they were measured.

    Attributes
    ----------
    right, pairs : int
        Among all pairs.
    right_apart, apart : int
        Among those whose mean losses differ by more than two paired standard errors.
    """

    right: int
    pairs: int
    right_apart: int
    apart: int


def order(losses: Mapping[str, Sequence[float]], predictions: Mapping[str, Prediction]) -> Order:
    """Compare the order of predicted losses with that of the measured ones."""
    right, apart = [], []
    for one, other in combinations(losses, 2):
        mean, error = mean_error(np.asarray(losses[one]) - np.asarray(losses[other]))
        right.append(mean * (predictions[one].loss - predictions[other].loss) > 0.0)
        apart.append(abs(mean) > 2.0 * error)
    both = [r and a for r, a in zip(right, apart, strict=True)]
    return Order(sum(right), len(right), sum(both), sum(apart))


def verdict(losses: Mapping[str, Sequence[float]]) -> tuple[str, float, float]:
    """The rival that ended lowest in the mean, and the plan's loss minus its: mean and error.

    The rival is chosen after the fact, which favours it by about half a standard error.
    """
    rival = min((name for name in losses if name != PLAN), key=lambda n: float(np.mean(losses[n])))
    difference = np.asarray(losses[PLAN], dtype=np.float64) - np.asarray(losses[rival])
    return rival, *mean_error(difference)


def comparison(
    losses: Mapping[str, Sequence[float]], predictions: Mapping[str, Prediction]
) -> list[dict[str, Any]]:
    """A row a schedule, the plan first: prediction, measured loss, difference from the plan.

    ``losses`` has the final loss by seed; differences are paired by seed.
    """
    base = np.asarray(losses[PLAN], dtype=np.float64)
    rows = []
    for name in sorted(losses, key=lambda name: name != PLAN):
        mean, error = mean_error(losses[name])
        difference, spread = mean_error(np.asarray(losses[name]) - base)
        told = predictions[name]
        rows.append(
            {
                "schedule": name,
                "predicted": told.loss,
                "low": told.low,
                "high": told.high,
                "loss": mean,
                "stderr": error,
                "inside": told.low <= mean <= told.high,
                "predicted_difference": told.loss - predictions[PLAN].loss,
                "difference": difference,
                "difference_stderr": spread,
                **{f"seed_{i}": value for i, value in enumerate(losses[name])},
            }
        )
    return rows


def shown(row: Mapping[str, Any]) -> dict[str, str]:
    """A row of `comparison` as text; differences in units of 0.001 nats."""
    plan = row["schedule"] == PLAN
    paired = with_error(1e3 * row["difference"], 1e3 * row["difference_stderr"])
    return {
        "schedule": row["schedule"],
        "predicted": f"{row['predicted']:.4f} ({row['low']:.4f} to {row['high']:.4f})",
        "measured": with_error(row["loss"], row["stderr"]),
        "inside": "yes" if row["inside"] else "no",
        "predicted above plan": "" if plan else f"{1e3 * row['predicted_difference']:.1f}",
        "measured above plan": "" if plan else paired,
    }


def _style(name: str) -> dict[str, Any]:
    colour, dash, width = STYLES[name.split("_")[0]]
    return {"color": colour, "linestyle": dash, "linewidth": width}


def _plot_rates(ax: Axes, schedules: Mapping[str, Schedule]) -> Axes:
    for name, schedule in schedules.items():
        steps = np.unique(np.linspace(0, schedule.horizon - 1, 1000).astype(int))
        ax.plot(steps, 1e3 * np.asarray(schedule(steps)), label=name, **_style(name))
    ax.set_xlabel("step")
    ax.set_ylabel(r"learning rate, $10^{-3}$")
    ax.set_ylim(bottom=0.0)
    ax.legend(frameon=False)
    return ax


def _plot_losses(ax: Axes, rows: Sequence[Row], warmup: int) -> Axes:
    """Mean over the seeds of the validation loss, from the last 80 % of the run."""
    names = list(dict.fromkeys(row.cell["name"] for row in rows))
    for name in sorted(names, key=lambda name: name == PLAN):
        mine = [row.result for row in rows if row.cell["name"] == name]
        steps = np.array(mine[0]["step"])
        late = steps >= max(warmup, steps[-1] // 5)
        mean = np.mean([run["loss"] for run in mine], axis=0)
        ax.plot(steps[late], mean[late], label=name, **_style(name))
    ax.set_xlabel("step")
    ax.set_ylabel("validation loss, nats a character")
    return ax


def _plot_final(ax: Axes, table: Sequence[Mapping[str, Any]]) -> Axes:
    """Measured final losses with standard errors, and the law's with its intervals."""
    for place, row in enumerate(table):
        colour = _style(row["schedule"])["color"]
        reach = [[row["predicted"] - row["low"]], [row["high"] - row["predicted"]]]
        ax.errorbar(
            row["predicted"],
            place + 0.15,
            xerr=reach,
            fmt="s",
            mfc="white",
            color=colour,
            capsize=3,
            label="predicted, with interval" if place == 0 else None,
        )
        ax.errorbar(
            row["loss"],
            place - 0.15,
            xerr=row["stderr"],
            fmt="o",
            color=colour,
            capsize=3,
            label="measured, with standard error" if place == 0 else None,
        )
    ax.set_yticks(range(len(table)), [row["schedule"] for row in table])
    ax.set_ylim(len(table) - 0.4, -1.3)
    ax.set_xlabel("final validation loss, nats a character")
    ax.legend(frameon=False, loc="upper right", fontsize="small")
    return ax


def figure(
    schedules: Mapping[str, Schedule],
    rows: Sequence[Row],
    table: Sequence[Mapping[str, Any]],
    warmup: int,
) -> Figure:
    """Schedules of the long runs, their losses, and their final losses beside the prediction.

    Parameters
    ----------
    schedules : mapping of str to Schedule
    rows : sequence of Row
        The long runs.
    table : sequence of dict
        Of `comparison`.
    warmup : int
        Steps that are not shown.
    """
    drawn = Figure(figsize=(12.5, 3.9), layout="constrained")
    left, middle, right = drawn.subplots(1, 3)
    _plot_rates(left, schedules)
    _plot_losses(middle, rows, warmup)
    _plot_final(right, table)
    for ax in (left, middle, right):
        ax.spines[["top", "right"]].set_visible(False)
    return drawn
