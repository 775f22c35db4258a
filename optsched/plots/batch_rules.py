"""Steps against samples, and rates against the batch size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from optsched.plots.common import BIAS, DASHED, DOTTED, OPTIMUM, OTHERS, VARIANCE
from optsched.rules.batch.scaling import (
    CriticalBatch,
    rate_factor,
    samples_at_steps,
    samples_factor,
    steps_factor,
)

__all__ = ["plot_rate_rules", "plot_tradeoff"]

MARKS = (0.1, 1.0, 10.0)


def plot_tradeoff(
    ax: Axes, fit: CriticalBatch, batches: Sequence[float] = (), steps: Sequence[float] = ()
) -> Axes:
    """Samples against steps to the same loss, with the runs that were fitted.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    fit : CriticalBatch
    batches, steps : sequence of float, shape (n,)
        Runs, if they are to be shown.

    Returns
    -------
    matplotlib.axes.Axes
    """
    factors = 1.0 + np.geomspace(0.02, 50.0, 200)
    curve = fit.min_steps * factors, fit.min_samples * samples_at_steps(factors)
    ax.plot(*curve, color=OPTIMUM, label=r"$(S/S_{min}-1)(E/E_{min}-1) = 1$")
    for ratio, marker in zip(MARKS, "<o>", strict=True):
        batch = ratio * fit.value
        at = steps_factor(batch, fit.value), samples_factor(batch, fit.value)
        label = f"B = {ratio:g} x critical ({batch:,.0f})"
        place = fit.min_steps * at[0], fit.min_samples * at[1]
        ax.plot(*place, marker, color=VARIANCE, label=label, linestyle="none")
    if len(batches):
        seen = np.asarray(steps, float)
        ax.plot(seen, seen * np.asarray(batches, float), "x", color=BIAS, label="runs")
    ax.axvline(fit.min_steps, color="0.6", linestyle=DOTTED)
    ax.axhline(fit.min_samples, color="0.6", linestyle=DOTTED)
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("steps $S$")
    ax.set_ylabel("samples $E$")
    ax.legend(frameon=False, fontsize=8)
    return ax


def plot_rate_rules(ax: Axes, noise_scale: float, from_batch: float) -> Axes:
    """Rate against batch size by the four rules, all equal at the batch that was tuned.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    noise_scale, from_batch : float

    Returns
    -------
    matplotlib.axes.Axes
    """
    ends = min(from_batch, noise_scale) / 10.0, max(from_batch, noise_scale) * 30.0
    batch = np.geomspace(*ends, 200)
    styles = (
        ("linear", OPTIMUM, DOTTED),
        ("sgd", OPTIMUM, "-"),
        ("sqrt", BIAS, DOTTED),
        ("sign", BIAS, DASHED),
    )
    for rule, colour, style in styles:
        factor = rate_factor(batch, from_batch, rule, noise_scale)
        ax.plot(batch, factor, color=colour, linestyle=style, label=rule)
    ax.axvline(noise_scale, color=OTHERS[0][0], linewidth=1.0, label="noise scale")
    ax.plot(from_batch, 1.0, "o", color=VARIANCE, label="tuned")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(top=3.0 * float(rate_factor(batch, from_batch, "sgd", noise_scale).max()))
    ax.set_xlabel("batch size $B$ (samples)")
    ax.set_ylabel("rate / tuned rate")
    ax.legend(frameon=False, fontsize=8)
    return ax
