"""Comparisons of families with the optimum."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optsched.plots.common import BIAS, OPTIMUM, OTHERS, VARIANCE
from optsched.schedules.schedule import Schedule
from optsched.studies.compare.convex import ConvexComparison
from optsched.studies.compare.families import Comparison

__all__ = [
    "plot_best",
    "plot_bounds_figure",
    "plot_comparison",
    "plot_comparison_figure",
    "plot_parts",
]

STYLES = (*OTHERS, ("#E69F00", (0, (6, 1, 1, 1, 1, 1))))
FLOOR = 1e-3  # percent: smaller regrets are drawn there, hollow
POINTS = 2000


def plot_best(ax: Axes, comparison: Comparison | ConvexComparison, count: int = 4) -> Axes:
    r"""Learning rate against the step: the optimum, and the best few families on top of it.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    comparison : Comparison or ConvexComparison
    count : int
        How many families; four are told apart.

    Notes
    -----
    Where the optimum halves its rate in the last tenth of the run alone, the axis is that of the
    steps to go, logarithmic.

    Returns
    -------
    matplotlib.axes.Axes
    """
    optimum = comparison.optimum
    # Wide and behind, so that a family that all but equals it shows.
    curves = [(r"optimal $\eta^*(t)$", optimum.schedule, 4.5, OPTIMUM, "solid")]
    curves += [
        (member.name, member.schedule, 1.6, *STYLES[i % len(STYLES)])
        for i, member in enumerate(comparison.members[:count])
    ]
    horizon, top = optimum.schedule.horizon, 0.0
    late = _anneals_late(optimum.schedule)
    for name, schedule, width, colour, style in curves:
        steps, eta = _towards_end(schedule) if late else _evenly(schedule)
        top = max(top, float(eta.max()))
        shown = np.where(eta > 0.0, eta, np.nan)
        x = horizon - steps if late else steps
        ax.plot(x, shown, color=colour, linestyle=style, linewidth=width, label=name)
    if late:
        ax.set_xscale("log")
        ax.set_xlim(horizon, 1)
    else:
        ax.set_xlim(0, max(horizon, 2))
        ax.locator_params(axis="x", nbins=5)
    ax.set_yscale("log")
    # Rates a thousand times smaller than the peak move nothing.
    ax.set_ylim(1e-3 * top, 2.0 * top)
    ax.set_xlabel("steps to go $T - t$" if late else "step $t$")
    ax.set_ylabel(r"learning rate $\eta$")
    ax.legend(frameon=False, loc="upper right" if late else "lower left")
    return ax


def plot_comparison(ax: Axes, comparison: Comparison | ConvexComparison) -> Axes:
    """Regret of every family on a logarithmic axis, the best at the top.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    comparison : Comparison or ConvexComparison
        Regrets below 0.001 %, and negative ones, are hollow at the axis; families that failed
        have no point.

    Returns
    -------
    matplotlib.axes.Axes
    """
    regrets = [100.0 * regret for regret in comparison.regrets.values()]
    # An optimum that underflows has no regrets to draw.
    regrets = [0.0 if math.isnan(regret) else regret for regret in regrets]
    names = [*comparison.regrets, *(one.name for one in comparison.failed)]
    for row, regret in enumerate(regrets):
        shown = max(regret, FLOOR)
        fill = "full" if regret >= FLOOR else "none"
        ax.plot([0.1 * FLOOR, shown], [row, row], color="0.8", linewidth=1.2, zorder=1)
        ax.plot(shown, row, "o", color=OPTIMUM, fillstyle=fill, zorder=2)
        text = f"{regret:.3g} %" if abs(regret) >= FLOOR else f"< {FLOOR:g} %"
        ax.annotate(
            text, (shown, row), (6, 0), "data", "offset points", va="center", fontsize="small"
        )
    for row in range(len(regrets), len(names)):
        ax.annotate("failed", (0.02, row), xycoords=("axes fraction", "data"), va="center")
    ax.set_xscale("log")
    low = min([max(regret, FLOOR) for regret in regrets] or [1.0])
    high = max([max(regret, FLOOR) for regret in regrets] or [1.0])
    # Room at the right for the number beside the last point.
    ax.set_xlim(0.5 * low, high * (2.0 * high / low) ** 0.35)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.4, -0.6)
    what = (
        "loss above the optimum's"
        if isinstance(comparison, Comparison)
        else "bound above the least"
    )
    ax.set_xlabel(f"regret: {what}, %")
    return ax


def plot_parts(ax: Axes, comparison: Comparison) -> Axes:
    """Shares of bias and variance in the loss of every family, in the rows of `plot_comparison`.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    comparison : Comparison
        The dashed line is the share of the bias at the optimum.

    Returns
    -------
    matplotlib.axes.Axes
    """
    rows = np.arange(len(comparison.members))
    shares = np.array([_bias_share(m.excess_loss, m.replay.bias) for m in comparison.members])
    ax.barh(rows, 100.0 * shares, color=BIAS, height=0.6, label="bias")
    rest = 100.0 * (1.0 - shares)
    ax.barh(rows, rest, left=100.0 * shares, color=VARIANCE, height=0.6, label="variance")
    best = 100.0 * _bias_share(comparison.optimum.excess_loss, comparison.optimum.bias)
    ax.axvline(best, color=OPTIMUM, linestyle=(0, (5, 2)), linewidth=1.5, label="optimal")
    ax.set_xlim(0, 100)
    ax.set_xlabel("share of the loss, %")
    ax.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    return ax


def plot_comparison_figure(comparison: Comparison) -> Figure:
    """A figure of the best schedules, of all regrets, and of bias and variance.

    Parameters
    ----------
    comparison : Comparison

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to pyplot; save it with ``savefig``.
    """
    count = len(comparison.members) + len(comparison.failed)
    figure = Figure(figsize=(13.0, max(3.8, 1.6 + 0.27 * count)), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.0, 1.0, 0.6))
    plot_best(left, comparison)
    plot_comparison(middle, comparison)
    plot_parts(right, comparison)
    right.set_ylim(middle.get_ylim())
    right.set_yticks(middle.get_yticks(), [])
    figure.suptitle(_title(comparison), fontsize=10)
    return figure


def plot_bounds_figure(comparison: ConvexComparison) -> Figure:
    """A figure of the best schedules by the convex bound, and of all regrets.

    Parameters
    ----------
    comparison : ConvexComparison

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to pyplot; save it with ``savefig``.
    """
    count = len(comparison.members) + len(comparison.failed)
    figure = Figure(figsize=(9.5, max(3.8, 1.6 + 0.27 * count)), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_best(left, comparison)
    left.set_ylabel(r"learning rate $\eta$, in units of $D/G$")
    plot_comparison(right, comparison)
    title = f"T = {comparison.horizon:,}: least bound {comparison.least:.4g} $D G$"
    figure.suptitle(f"{title}; {_tuned(comparison)}", fontsize=10)
    return figure


def _anneals_late(schedule: Schedule) -> bool:
    """Whether the last rate above half of the peak is in the last tenth of the run."""
    eta = schedule.controls["eta"]
    last = int(schedule.steps[np.flatnonzero(eta >= 0.5 * eta.max())[-1]])
    return schedule.horizon > 100 and 0.9 * schedule.horizon < last < schedule.horizon - 1


def _evenly(schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    steps, controls = schedule.thin(min(POINTS, schedule.horizon))
    return steps, controls["eta"]


def _towards_end(schedule: Schedule) -> tuple[np.ndarray, np.ndarray]:
    """Steps and rates, evenly in the logarithm of the steps to go."""
    togo = np.geomspace(1, schedule.horizon, POINTS).round().astype(np.int64)
    steps = np.unique(np.concatenate([schedule.horizon - togo, schedule.steps]))
    return steps, schedule(steps)


def _bias_share(excess: float, bias: float) -> float:
    return min(bias / excess, 1.0) if excess > 0.0 else 0.0


def _tuned(comparison: Comparison | ConvexComparison) -> str:
    if comparison.free is None:
        return "all hyperparameters tuned"
    return ", ".join(["peak", *comparison.free]) + " tuned"


def _title(comparison: Comparison) -> str:
    p = comparison.problem
    where = "" if p.a is None else f"a = {p.a:g}, b = {p.b:g}, "
    return (
        f"{where}T = {p.horizon:,}, m = {p.batch_size:g}, $\\sigma$ = {p.noise:g}"
        f" ({p.phase} phase): optimal loss {comparison.optimum.excess_loss:.4g};"
        f" {_tuned(comparison)}"
    )
