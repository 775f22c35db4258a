"""A run beside its law: losses with the band, what was surprising, and the forecast of its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from optsched.pilot.tracking.track import Track

__all__ = ["plot_surprise", "plot_track", "track_figure"]

POINTS = 120  # of the forecast
MEASURED, LAW, AHEAD, WRONG = "#000000", "#0072B2", "#D55E00", "#CC79A7"


def plot_track(ax: Axes, one: Track) -> Axes:
    """Measured losses, the band of the law, and the re-anchored forecast of the rest.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    one : Track

    Returns
    -------
    matplotlib.axes.Axes
    """
    now = one.measured
    share = f"{100 * one.level:.0f} %"
    if now is not None:
        ax.plot(now.steps, now.predicted, color=LAW, linewidth=1.2, label="law of the pilots")
        ax.fill_between(now.steps, now.lower, now.upper, color=LAW, alpha=0.15, linewidth=0,
                        label=f"its {share} band")  # fmt: skip
        ax.plot(now.steps, now.loss, "o", color=MEASURED, markersize=2.5, label="measured")
    if one.step < one.horizon:
        ahead = np.unique(np.linspace(one.step, one.horizon, POINTS).round().astype(np.int64))
        told = one.anchor.forecast(one.schedule, ahead[ahead > 0], one.level)
        ax.plot(told.steps, told.loss, color=AHEAD, linewidth=1.4, label="from this run too")
        ax.fill_between(told.steps, told.lower, told.upper, color=AHEAD, alpha=0.15, linewidth=0)
    if one.alarm.at is not None:
        ax.axvline(one.alarm.at, color=WRONG, linestyle="--", linewidth=1.0, label="off track")
    ax.set_xlabel("step")
    ax.set_ylabel("loss (nats)")
    ax.set_title(one.name, fontsize=10)
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_surprise(ax: Axes, one: Track) -> Axes:
    """What every bin is off by from what the bins before it let expect, in standard deviations.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    one : Track

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax.axhspan(-2.0, 2.0, color="0.92", zorder=0)
    ax.axhline(0.0, color="0.5", linewidth=0.8)
    if one.measured is not None:
        ax.plot(one.measured.steps, one.measured.surprise, "o", color=MEASURED, markersize=3.0)
    ax.set_xlabel("step")
    ax.set_ylabel("surprise (sd)")
    return ax


def track_figure(shown: Sequence[Track]) -> Figure:
    """A figure of runs beside their law, a row of two axes a run."""
    figure = Figure(figsize=(11.0, 3.8 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 2, squeeze=False, width_ratios=(2.0, 1.0))
    for (left, right), one in zip(axes, shown, strict=True):
        plot_track(left, one)
        plot_surprise(right, one)
    return figure
