"""Compute: best losses, splits, and losses at fixed compute."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from optsched.plots.common import BIAS, DASHED, DOTTED, OPTIMUM, OTHERS, VARIANCE, log_axes
from optsched.studies.compute import ComputeOptimal, IsoFlop

__all__ = ["plot_compute", "plot_iso_flop", "plot_split"]

COMPUTE = "compute $C = NT$ (features x steps)"


def plot_compute(ax: Axes, study: ComputeOptimal) -> Axes:
    """Best excess loss against compute, with the fitted line and the slope of theory.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    study : ComputeOptimal
        Budgets that are not fitted are hollow; with samples that run out, the limit is drawn too.

    Returns
    -------
    matplotlib.axes.Axes
    """
    budgets = np.array([split.budget for split in study.splits])
    losses = np.array([split.best.excess_loss for split in study.splits])
    fit = study.fits.get("loss")
    fitted = np.isin(budgets, [] if fit is None else fit.horizons)
    label = f"{study.schedule} schedule"
    ax.plot(budgets[fitted], losses[fitted], "o", color=OPTIMUM, label=label)
    if not fitted.all():
        ax.plot(
            budgets[~fitted],
            losses[~fitted],
            "o",
            color=OPTIMUM,
            fillstyle="none",
            label="not fitted",
        )
    if fit is not None:
        x = fit.horizons
        line = fit.amplitude * x**-fit.exponent
        label = rf"fit $C^{{-{fit.exponent:.3f}}}$"
        ax.plot(x, line, color=BIAS, linestyle=DASHED, label=label)
        if "loss" in study.theory:
            slope = study.theory["loss"]
            line = fit.losses[-1] * (x / x[-1]) ** -slope
            label = rf"theory $C^{{-{slope:.3f}}}$"
            ax.plot(x, line, color=VARIANCE, linestyle=DOTTED, linewidth=1.8, label=label)
    if study.limit is not None:
        colour, style = OTHERS[0]
        label = "samples run out"
        ax.axhline(study.limit.best.excess_loss, color=colour, linestyle=style, linewidth=1.0)
        ax.axvline(study.limit.crossover, color=colour, linestyle=style, linewidth=1.0, label=label)
    return log_axes(ax, COMPUTE, "best loss above the noise floor")


def plot_split(ax: Axes, study: ComputeOptimal) -> Axes:
    """Best number of features and of steps against compute, with the slopes of theory.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    study : ComputeOptimal
        The band holds the numbers of features within 1 % of the best loss.

    Returns
    -------
    matplotlib.axes.Axes
    """
    splits = [split for split in study.splits if split.best.converged]
    budgets = np.array([split.budget for split in splits])
    low = np.array([split.features_low for split in splits])
    high = np.array([split.features_high for split in splits])
    ax.fill_between(budgets, low, high, color=BIAS, alpha=0.2, linewidth=0.0, label="within 1 %")
    for name, colour, marker, letter in (
        ("features", BIAS, "o", "N"),
        ("horizon", VARIANCE, "s", "T"),
    ):
        values = np.array([getattr(split.best, name) for split in splits], float)
        ax.plot(budgets, values, marker, color=colour, label=f"{name} ${letter}$")
        if name in study.theory and name in study.fits:
            fit, slope = study.fits[name], study.theory[name]
            line = fit.losses[-1] * (fit.horizons / fit.horizons[-1]) ** slope
            label = rf"theory $C^{{{slope:.3f}}}$"
            ax.plot(fit.horizons, line, color=colour, linestyle=DOTTED, label=label)
    return log_axes(ax, COMPUTE, "best features $N$, steps $T$")


def plot_iso_flop(ax: Axes, curves: Sequence[IsoFlop]) -> Axes:
    """Loss against the number of features along lines of equal compute, and their best splits.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    curves : sequence of IsoFlop
        The tail that is never learnt is dotted.

    Returns
    -------
    matplotlib.axes.Axes
    """
    colours = [OPTIMUM, BIAS, VARIANCE, *(colour for colour, _ in OTHERS)]
    for i, curve in enumerate(curves):
        colour = colours[i % len(colours)]
        exponent = np.log10(curve.budget)
        label = f"$C = 10^{{{exponent:.3g}}}$"
        ax.plot(curve.features, curve.losses, color=colour, label=label)
        best = curve.split.best
        ax.plot(best.features, best.excess_loss, "o", color=colour)
    if curves:
        pairs = [np.column_stack([curve.features, curve.tails]) for curve in curves]
        features, tails = np.unique(np.concatenate(pairs), axis=0).T
        label = "tail, never learnt"
        ax.plot(features, tails, color="0.5", linestyle=DOTTED, label=label)
    return log_axes(ax, "features $N$", "loss above the noise floor")
