"""Pilot runs, their law, predictions with intervals, and plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from optsched.pilot.pieces import cut

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from optsched.logs.run import Run
    from optsched.pilot.fitting import Fit
    from optsched.pilot.prediction import Prediction
    from optsched.schedules.schedule import Schedule

__all__ = [
    "fit_figure",
    "plan_figure",
    "plot_finals",
    "plot_fit",
    "plot_predictions",
    "plot_rates",
    "plot_residuals",
    "prediction_figure",
]

# Colour-blind safe (Okabe and Ito), told apart by the line too.
COLOURS = ("#000000", "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
LINES = ("-", (0, (5, 2)), (0, (1, 1)), (0, (3, 1, 1, 1)))


def _style(i: int) -> dict[str, object]:
    return {"color": COLOURS[i % len(COLOURS)], "linestyle": LINES[i // len(COLOURS) % len(LINES)]}


def plot_fit(ax: Axes, found: Fit, runs: Sequence[Run]) -> Axes:
    """Losses of the runs as points, the law as lines, against the step.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    found : Fit
    runs : sequence of Run

    Returns
    -------
    matplotlib.axes.Axes
    """
    for i, run in enumerate(runs):
        shown = run.thin(60, "equal") if len(run.steps) > 60 else run
        late = run.steps[run.steps > 0]
        law = found.law.curve(found.theta, cut(run.schedule, late, found.scale))
        style = _style(i)
        ax.plot(shown.steps, shown.loss, "o", color=style["color"], markersize=2.5, alpha=0.6)
        ax.plot(late, law, linewidth=1.4, label=run.name, **style)  # type: ignore[arg-type]
    _zoom(ax, [run.loss for run in runs])
    ax.set_ylabel("loss (nats)")
    title = "points: runs, lines: law"
    ax.legend(frameon=False, title=title, title_fontsize="small", fontsize="small")
    return _steps(ax)


def _zoom(ax: Axes, losses: Sequence[np.ndarray]) -> None:
    """The start of training, steep and long past, leaves the axis."""
    low = min(float(loss.min()) for loss in losses)
    high = max(float(np.quantile(loss, 0.93)) for loss in losses)
    ax.set_ylim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def plot_residuals(ax: Axes, found: Fit, runs: Sequence[Run]) -> Axes:
    """Law minus loss, in 1e-3 nats, against the step; the band is the misfit.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    found : Fit
    runs : sequence of Run

    Returns
    -------
    matplotlib.axes.Axes
    """
    width = 1e3 * found.misfit
    ax.axhspan(-width, width, color="0.9", zorder=0, label=f"misfit ±{width:.2g}")
    ax.axhline(0.0, color="0.5", linewidth=0.8)
    for i, run in enumerate(runs):
        run = run.thin(80, "equal") if len(run.steps) > 80 else run
        late = run.steps > 0
        law = found.law.curve(found.theta, cut(run.schedule, run.steps[late], found.scale))
        ax.plot(run.steps[late], 1e3 * (law - run.loss[late]), linewidth=1.1, **_style(i))  # type: ignore[arg-type]
    ax.set_ylim(-5.0 * width, 5.0 * width)
    ax.set_ylabel("law minus loss (1e-3 nats)")
    ax.legend(frameon=False, fontsize="small")
    return _steps(ax)


def plot_rates(ax: Axes, schedules: Mapping[str, Schedule], first: str | None = None) -> Axes:
    """Learning rates against the step.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    schedules : mapping of str to Schedule
    first : str, optional
        The one that matters: drawn last and thick, and the step at which its rate begins to fall
        for good is marked.

    Returns
    -------
    matplotlib.axes.Axes
    """
    for i, (name, schedule) in enumerate(schedules.items()):
        even = np.linspace(0, schedule.horizon - 1, 800).round().astype(np.int64)
        knots = schedule.steps[:: max(1, len(schedule.steps) // 4000)]
        steps = np.union1d(even, knots)
        ax.plot(steps, schedule(steps), label=name, **_weight(name, first), **_style(i))  # type: ignore[arg-type]
    if first is not None:
        _mark(ax, _fall(schedules[first]))
    ax.set_ylim(bottom=0.0)
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    ax.set_ylabel(r"learning rate $\eta$")
    ax.legend(frameon=False, fontsize="small")
    return _steps(ax)


def plot_predictions(
    ax: Axes,
    curves: Mapping[str, Prediction],
    *,
    first: str | None = None,
    measured: Mapping[str, Run] | None = None,
) -> Axes:
    """Predicted losses against the step, with their intervals, and what was measured as points.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    curves : mapping of str to Prediction
    first : str, optional
        The one that matters: drawn last and thick, and the only one with its interval, as bands of
        several cover each other.
    measured : mapping of str to Run, optional
        Runs of the same names.

    Returns
    -------
    matplotlib.axes.Axes
    """
    seen = measured or {}
    for i, (name, curve) in enumerate(curves.items()):
        style = _style(i)
        colour = str(style["color"])
        ax.plot(curve.steps, curve.loss, label=name, **_weight(name, first), **style)  # type: ignore[arg-type]
        if first is None or name == first:
            band = {"color": colour, "alpha": 0.12, "linewidth": 0}
            ax.fill_between(curve.steps, curve.lower, curve.upper, **band)
        if name in seen:
            run = seen[name]
            shown = run.thin(60, "equal") if len(run.steps) > 60 else run
            ax.plot(shown.steps, shown.loss, "o", color=colour, markersize=2.5, alpha=0.6)
    losses = [curve.loss for curve in curves.values()]
    _zoom(ax, [*losses, *(run.loss for run in seen.values())])
    level = next(iter(curves.values())).level
    points = "points: measured, " if seen else ""
    title = f"{points}band: {100 * level:.0f} % interval of a run"
    ax.set_ylabel("predicted loss (nats)")
    ax.legend(frameon=False, title=title, title_fontsize="small", fontsize="small")
    return _steps(ax)


def plot_finals(ax: Axes, curves: Mapping[str, Prediction]) -> Axes:
    """Final losses as points with their intervals, the lowest first.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    curves : mapping of str to Prediction

    Returns
    -------
    matplotlib.axes.Axes
    """
    colours = {name: str(_style(i)["color"]) for i, name in enumerate(curves)}
    order = sorted(curves, key=lambda name: curves[name].loss[-1])
    for i, name in enumerate(order):
        curve = curves[name]
        loss, below, above = (float(line[-1]) for line in (curve.loss, curve.lower, curve.upper))
        reach = [[max(loss - below, 0.0)], [max(above - loss, 0.0)]]
        ax.errorbar([loss], [i], xerr=reach, fmt="o", color=colours[name], markersize=5, capsize=3)
    ax.set_yticks(range(len(order)), order)
    ax.invert_yaxis()
    ax.grid(axis="x", color="0.9")
    ax.xaxis.set_major_locator(MaxNLocator(5))
    level = next(iter(curves.values())).level
    ax.set_xlabel(f"final loss (nats), {100 * level:.0f} % interval")
    return ax


def _weight(name: str, first: str | None) -> dict[str, float]:
    """Line width and order: the first thick and above the others."""
    return {"linewidth": 2.6, "zorder": 4.0} if name == first else {"linewidth": 1.3, "zorder": 2.0}


def _fall(schedule: Schedule) -> int:
    """The step from which on the rate is below its peak until the end."""
    rates = schedule(schedule.steps)
    return int(schedule.steps[np.flatnonzero(rates >= (1.0 - 1e-9) * rates.max())[-1]])


def _mark(ax: Axes, step: int) -> None:
    ax.axvline(step, color="0.45", linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    ax.annotate(
        f"falls after step {step:,}",
        (step, 0.02),
        xycoords=("data", "axes fraction"),
        xytext=(-4, 0),
        textcoords="offset points",
        ha="right",
        fontsize="small",
        color="0.35",
    )


def _steps(ax: Axes) -> Axes:
    """Steps with their thousands as k, so that numbers of six digits do not meet."""
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    ax.set_xlabel("step")
    return ax


def fit_figure(found: Fit, runs: Sequence[Run]) -> Figure:
    """A figure of the fit, its residuals and the rates of the runs."""
    figure = Figure(figsize=(13.0, 4.0), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    plot_fit(left, found, runs)
    plot_residuals(middle, found, runs)
    plot_rates(right, {run.name: run.schedule for run in runs})
    figure.suptitle(f"law {found.law.name}: misfit {found.misfit:.2g} nats", fontsize=10)
    return figure


def prediction_figure(
    curves: Mapping[str, Prediction], measured: Mapping[str, Run] | None = None
) -> Figure:
    """A figure of predicted losses, beside what was measured where it was."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    plot_predictions(figure.subplots(), curves, measured=measured)
    return figure


def plan_figure(schedules: Mapping[str, Schedule], curves: Mapping[str, Prediction]) -> Figure:
    """A figure of a plan, the first of the schedules, beside what people use.

    Rates; losses while the plan cools down; final losses with their intervals.
    """
    plan = next(iter(schedules))
    figure = Figure(figsize=(13.0, 4.0), layout="constrained")
    left, middle, right = figure.subplots(1, 3, width_ratios=(1.15, 1.15, 0.9))
    legend = plot_rates(left, schedules, plan).get_legend()
    if legend is not None:  # that of the losses serves both
        legend.remove()
    plot_predictions(middle, curves, first=plan)
    _cooldown(middle, curves, _fall(schedules[plan]))
    plot_finals(right, curves)
    return figure


def _cooldown(ax: Axes, curves: Mapping[str, Prediction], start: int) -> None:
    """The end of training alone: the cooldown of the plan and half as much before it."""
    end = max(int(curve.steps[-1]) for curve in curves.values())
    low = max(start - (end - start) // 2, int(0.1 * end))
    seen = [line[curve.steps >= low] for curve in curves.values() for line in (curve.loss,)]
    first = next(iter(curves.values()))
    late = first.steps >= low
    seen += [first.lower[late], first.upper[late]]
    bottom, top = (f(float(f(line)) for line in seen if len(line)) for f in (min, max))
    ax.set_xlim(low, end)
    ax.set_ylim(bottom - 0.05 * (top - bottom), top + 0.05 * (top - bottom))
    if start > low:
        _mark(ax, start)
