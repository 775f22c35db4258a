"""The bound of convex optimisation along a run, and what it says of cooldowns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from optsched.plots.common import CURVES, OPTIMUM
from optsched.rules.convex.bound import bound_along, convex_bound, least_bound
from optsched.rules.convex.horizons import cooldown_scale
from optsched.schedules.families import linear
from optsched.schedules.schedule import Schedule

__all__ = ["plot_along", "plot_cooldowns", "plot_run_figure"]


def plot_along(
    ax: Axes,
    schedules: Sequence[tuple[str, Schedule]],
    *,
    distance: float = 1.0,
    norm: float = 1.0,
    points: int = 300,
) -> Axes:
    """Bound of the last iterate against the step, for up to four schedules of one horizon.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    schedules : sequence of (str, Schedule)
        Labels and schedules, with their rates as they are.
    distance, norm : float
        D and G.
    points : int
        About how many steps are drawn.

    Returns
    -------
    matplotlib.axes.Axes
    """
    for (label, schedule), (colour, style) in zip(schedules, CURVES, strict=False):
        steps, bounds = bound_along(schedule, distance=distance, norms=norm, points=points)
        ax.plot(steps, bounds, color=colour, linestyle=style, linewidth=1.6, label=label)
    horizon = schedules[0][1].horizon
    least = least_bound(horizon, distance=distance, norms=norm)
    ax.axhline(least, color=OPTIMUM, linewidth=0.8, label=f"least bound at $T$ = {horizon:,}")
    ax.set_xlim(0, max(horizon, 2))
    ax.locator_params(axis="x", nbins=5)
    ax.set_ylim(0.8 * least, 6.0 * least)
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter(NullFormatter())
    ax.set_xlabel("step $t$")
    ax.set_ylabel(r"bound of $f(x_t) - f_*$" + (" / $(D G)$" if distance == norm == 1.0 else ""))
    ax.legend(frameon=False)
    return ax


def plot_cooldowns(ax: Axes, horizon: int = 10_000, shares: Sequence[float] | None = None) -> Axes:
    """Best peak of a constant rate with a linear cooldown, against the share of the cooldown.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    horizon : int
    shares : sequence of float, optional
        Of the cooldown, in [0, 1].

    Returns
    -------
    matplotlib.axes.Axes
    """
    c = np.linspace(0.0, 1.0, 51) if shares is None else np.asarray(shares)
    scales = [cooldown_scale(horizon, float(share)) * np.sqrt(horizon) for share in c]
    ax.plot(c, scales, color=OPTIMUM)
    ax.set_xlim(0.0, 1.0)
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("share of the cooldown, $c$")
    ax.set_ylabel(r"best peak, $\gamma_* \sqrt{T}\, G/D$")
    return ax


def plot_run_figure(schedule: Schedule, *, distance: float = 1.0, norm: float = 1.0) -> Figure:
    """A figure of the bound along a run: as it is, with its best factor, and of linear decay.

    Parameters
    ----------
    schedule : Schedule
    distance, norm : float
        D and G.

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to pyplot; save it with ``savefig``.
    """

    def tuned(one: Schedule) -> Schedule:
        return one.scaled(convex_bound(one, distance=distance, norms=norm).scale)

    runs = [
        ("rates as they are", schedule),
        ("with the best factor", tuned(schedule)),
        ("linear decay, tuned", tuned(linear(schedule.horizon, 1.0))),
    ]
    figure = Figure(figsize=(6.0, 4.0), layout="constrained")
    plot_along(figure.subplots(), runs, distance=distance, norm=norm)
    return figure
