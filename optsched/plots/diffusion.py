"""Noise schedules: log SNR over the levels, and where on its scale they are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optsched.plots.common import CURVES
from optsched.rules.diffusion.capacity import capacity
from optsched.rules.diffusion.schedules import NoiseSchedule

__all__ = ["plot_capacity", "plot_log_snr", "plot_noise_figure"]


def plot_log_snr(ax: Axes, schedules: Sequence[tuple[str, NoiseSchedule]]) -> Axes:
    """Log SNR against the share of the levels, for up to four schedules.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    schedules : sequence of (str, NoiseSchedule)
        Labels and schedules.

    Returns
    -------
    matplotlib.axes.Axes
    """
    for (label, schedule), (colour, style) in zip(schedules, CURVES, strict=False):
        done = (np.arange(len(schedule)) + 1.0) / len(schedule)
        marker = "o" if len(schedule) <= 40 else None
        ax.plot(
            done,
            schedule.log_snr,
            color=colour,
            linestyle=style,
            marker=marker,
            markersize=3,
            label=label,
        )
    ax.axhline(0.0, color="0.7", linewidth=0.8, zorder=0)
    ax.set_xlim(0.0, 1.0)
    ax.set_xlabel("share of the levels, $(i + 1)/T$")
    ax.set_ylabel(r"log SNR, $\lambda$")
    ax.legend(frameon=False)
    return ax


def plot_capacity(
    ax: Axes, schedules: Sequence[tuple[str, NoiseSchedule]], loss: str | None = None
) -> Axes:
    """Density of the levels, or of a loss's weight, over log SNR, for up to four schedules.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    schedules : sequence of (str, NoiseSchedule)
        Labels and schedules of two levels or more.
    loss : str, optional
        As for `optsched.rules.diffusion.capacity.capacity`.

    Returns
    -------
    matplotlib.axes.Axes
    """
    for (label, schedule), (colour, style) in zip(schedules, CURVES, strict=False):
        found = capacity(schedule, loss)
        ax.plot(found.log_snr, found.density, color=colour, linestyle=style, label=label)
    # Training goes from little noise at the right to much at the left; time runs to the right.
    ax.invert_xaxis()
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel(r"log SNR, $\lambda$ (noise grows to the right)")
    what = "levels" if loss is None else f"the weight of the {loss} loss"
    ax.set_ylabel(rf"density of {what} over $\lambda$")
    return ax


def plot_noise_figure(
    schedules: Sequence[tuple[str, NoiseSchedule]], loss: str | None = None
) -> Figure:
    """A figure of both panels.

    Parameters
    ----------
    schedules, loss
        As for `plot_capacity`.

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to pyplot; save it with ``savefig``.
    """
    figure = Figure(figsize=(9.0, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_log_snr(left, schedules)
    plot_capacity(right, schedules, loss)
    return figure
