"""The flat valley of the LMO bound over batch size and momentum."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from optsched.plots.common import DASHED, OPTIMUM, VARIANCE
from optsched.rules.lmo.valley import Valley

__all__ = ["plot_valley"]

LEVELS = (0.01, 0.03, 0.1, 0.3, 1.0)
SHADES = ("#08519C", "#3182BD", "#6BAED6", "#BDD7E7", "#EFF3FF")
GRID = 400


def plot_valley(ax: Axes, valley: Valley, *, point: tuple[float, float] | None = None) -> Axes:
    r"""Bound above its minimum over batch and alpha, each at its best rate, with the valley.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    valley : Valley
        Its batch sizes span the axis.
    point : tuple of float, optional
        Batch and alpha of a run, to mark.

    Returns
    -------
    matplotlib.axes.Axes
    """
    problem, tokens = valley.problem, valley.tokens
    batch = np.geomspace(valley.batch.min(), valley.batch.max(), GRID)
    low = max(valley.alpha.min() / 10.0, 1e-12)
    alpha = np.geomspace(low, 1.0, GRID)
    x, y = np.meshgrid(batch, alpha)
    bound = problem(problem.best_lr(y, x, tokens), y, x, tokens / x)
    # The minimum itself may lie between grid points and rounding.
    cost = np.maximum(bound / valley.best - 1.0, 0.0)
    ax.contourf(x, y, cost, [0.0, *LEVELS], colors=SHADES)
    for level, shade in zip(LEVELS, SHADES, strict=True):
        ax.fill([], [], color=shade, label=f"within {100 * level:g} %")
    ax.plot(valley.batch, valley.alpha, color=OPTIMUM, label=r"best $\alpha$ for a batch")
    slope = np.sqrt(2.0 * problem.smoothness * problem.gap / tokens) / problem.noise
    within = slope * batch <= 1.0
    label = r"$\alpha = rB$, leading order"
    ax.plot(batch[within], slope * batch[within], color=VARIANCE, linestyle=DASHED, label=label)
    if point is not None:
        ax.plot(*point, "o", color="white", markeredgecolor=OPTIMUM, label="run")
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(batch[0], batch[-1])
    ax.set_ylim(low, 1.0)
    ax.set_xlabel("batch size $B$ (tokens)")
    ax.set_ylabel(r"$\alpha$ = 1 - momentum")
    ax.set_title("bound above its minimum, at the best rate", fontsize=10)
    ax.legend(frameon=False, loc="lower right", fontsize=8)
    return ax
