"""Curves of a sweep over rate and weight decay, and how they collapse."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure

from optsched.plots.common import BIAS, DASHED, DOTTED, OPTIMUM, VARIANCE
from optsched.rules.adamw.invariance import Invariance
from optsched.rules.adamw.sweep_runs import SweepRun, sweep_cells

__all__ = ["plot_collapse", "plot_invariance", "plot_sweep_curves"]


def plot_sweep_curves(ax: Axes, runs: Sequence[SweepRun], by: str) -> Axes:
    """Mean loss curves of all settings, coloured by what should decide them.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    runs : sequence of SweepRun
    by : {"lr", "gamma"}
        Rate, or rate times weight decay.

    Returns
    -------
    matplotlib.axes.Axes
    """
    cells = sweep_cells(runs)
    values = np.exp(cells.log_lr if by == "lr" else cells.log_lr + cells.log_wd)
    norm = LogNorm(values.min(), values.max())
    # Without its pale end, on white.
    shades = colormaps["viridis"](np.linspace(0.0, 0.9, 256))
    scale = ScalarMappable(norm, ListedColormap(shades))
    for value, curve in zip(values, cells.losses, strict=True):
        ax.plot(cells.steps, curve, color=scale.to_rgba(value), linewidth=0.9)
    label = r"rate $\eta$" if by == "lr" else r"effective rate $\gamma = \eta\lambda$"
    assert ax.figure is not None
    ax.figure.colorbar(scale, ax=ax, label=label)
    ax.set_xscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("loss")
    low, high = cells.losses.min(), float(np.quantile(cells.losses, 0.97))
    ax.set_ylim(low - 0.03 * (high - low), high)
    return ax


def plot_collapse(ax: Axes, found: Invariance) -> Axes:
    """Change of the loss per factor e within groups, with the shift.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    found : Invariance

    Returns
    -------
    matplotlib.axes.Axes
    """
    ax.plot(found.steps, found.along_lr.per_efold, color=BIAS, label=r"equal $\eta$")
    ax.plot(
        found.steps,
        found.along_gamma.per_efold,
        color=VARIANCE,
        linestyle=DASHED,
        label=r"equal $\gamma = \eta\lambda$",
    )
    if math.isfinite(found.shift):
        label = f"shift, step {found.shift:,.0f}"
        ax.axvline(found.shift, color=OPTIMUM, linestyle=DOTTED, label=label)
        low, high = found.shift - found.shift_stderr, found.shift + found.shift_stderr
        if math.isfinite(found.shift_stderr) and low > 0.0:
            ax.axvspan(low, high, color=OPTIMUM, alpha=0.12, linewidth=0.0)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel("change of the loss per factor e")
    ax.legend(loc="lower left", bbox_to_anchor=(0.0, 0.25), framealpha=1.0, edgecolor="none")
    return ax


def plot_invariance(runs: Sequence[SweepRun], found: Invariance) -> Figure:
    """A figure of the curves, by rate and by effective rate, and of their collapse.

    Parameters
    ----------
    runs : sequence of SweepRun
    found : Invariance
        As `optsched.rules.adamw.invariance.measure_invariance` measured them.

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to pyplot; save it with ``savefig``.
    """
    figure = Figure(figsize=(12.0, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    plot_sweep_curves(axes[0], runs, "lr")
    plot_sweep_curves(axes[1], runs, "gamma")
    plot_collapse(axes[2], found)
    return figure
