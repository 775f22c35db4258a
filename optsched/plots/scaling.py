"""Losses along horizons with their fit, and local slopes."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optsched.plots.common import BIAS, DASHED, DOTTED, OPTIMUM, VARIANCE, log_axes
from optsched.studies.scaling import Scaling

__all__ = ["plot_scaling", "plot_scaling_loss", "plot_scaling_slopes"]


def plot_scaling_loss(ax: Axes, study: Scaling) -> Axes:
    """Excess loss against the horizon, with the fitted power law and the slope of theory.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    study : Scaling
        Horizons that are not fitted are hollow.

    Returns
    -------
    matplotlib.axes.Axes
    """
    steps = np.array([point.horizon for point in study.points], float)
    losses = np.array([point.excess_loss for point in study.points])
    fit = study.fit
    used = np.isin(steps, [] if fit is None else fit.horizons)
    label = f"{study.schedule} schedule"
    ax.plot(steps[used], losses[used], "o", color=OPTIMUM, label=label)
    if not used.all():
        rest = ~used
        ax.plot(steps[rest], losses[rest], "o", color=OPTIMUM, mfc="none", label="not fitted")
    if fit is not None:
        x = np.geomspace(fit.horizons[0], fit.horizons[-1], 2)
        label = rf"fit $T^{{-{fit.exponent:.3f}}}$"
        y = fit.amplitude * x**-fit.exponent
        ax.plot(x, y, color=BIAS, linestyle=DASHED, label=label)
        if "expected" in study.theory:
            slope = study.theory["expected"]
            label = rf"theory $T^{{-{slope:.3f}}}$ (shifted)"
            # Beside the points: through them it would be hidden.
            y = 0.5 * fit.losses[-1] * (x / x[-1]) ** -slope
            ax.plot(x, y, color=VARIANCE, linestyle=DOTTED, linewidth=1.8, label=label)
    return log_axes(ax, "horizon $T$ (steps)", "loss above the noise floor")


def plot_scaling_slopes(ax: Axes, study: Scaling) -> Axes:
    """Local slopes of the loss between neighbours, with the fit, its limit and theory.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    study : Scaling
        With a fit, and its exponent within one standard error as a band.

    Returns
    -------
    matplotlib.axes.Axes
    """
    fit = study.fit
    ax.set_xscale("log")
    ax.set_xlabel("horizon $T$ (steps)")
    ax.set_ylabel("local exponent of the loss")
    if fit is None:
        return ax
    middle = np.sqrt(fit.horizons[1:] * fit.horizons[:-1])
    ax.plot(middle, fit.local_slopes, "o-", color=OPTIMUM, label="between neighbours")
    # Lines of the range, not of the axes, so that the legend keeps off them.
    ends = fit.horizons[[0, -1]]
    if math.isfinite(fit.stderr):
        low, high = fit.exponent - fit.stderr, fit.exponent + fit.stderr
        ax.fill_between(ends, low, high, color=BIAS, alpha=0.15, linewidth=0.0)
    label = "fit and its standard error"
    ax.plot(ends, [fit.exponent] * 2, color=BIAS, linestyle=DASHED, label=label)
    if math.isfinite(fit.extrapolated):
        ax.errorbar(
            fit.horizons[-1:],
            [fit.extrapolated],
            yerr=[fit.extrapolated_stderr],
            fmt="s",
            color=BIAS,
            capsize=3,
            label="extrapolated",
        )
    if "expected" in study.theory:
        slope = study.theory["expected"]
        ax.plot(ends, [slope] * 2, color=VARIANCE, linestyle=DOTTED, linewidth=1.8, label="theory")
    low, high = ax.get_ylim()
    # Room for the legend; and slopes that agree to many digits are one line, not a curve across
    # the panel.
    centre, half = 0.5 * (low + high), 0.75 * max(high - low, 0.02)
    ax.set_ylim(centre - half, centre + half)
    ax.legend(frameon=False)
    return ax


def plot_scaling(study: Scaling) -> Figure:
    """A figure of the losses and of their local slopes.

    Parameters
    ----------
    study : Scaling

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to pyplot; save it with ``savefig``.
    """
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_scaling_loss(left, study)
    plot_scaling_slopes(right, study)
    p = study.problem
    where = "" if p.a is None else f"a = {p.a:g}, b = {p.b:g} ({p.phase} phase), "
    figure.suptitle(
        f"{where}N = {p.features:g}, m = {p.batch_size:g}, $\\sigma$ = {p.noise:g};"
        f" tuned: {', '.join(study.tuned)}",
        fontsize=10,
    )
    return figure
