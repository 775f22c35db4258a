"""Pilot runs, their law, predictions with intervals, and plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

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
    ax.set_xlabel("step")
    ax.set_ylabel("loss (nats)")
    ax.legend(frameon=False, title="points: runs, lines: law", fontsize="small")
    return ax


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
    ax.set_xlabel("step")
    ax.set_ylabel("law minus loss (1e-3 nats)")
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_rates(ax: Axes, schedules: Mapping[str, Schedule]) -> Axes:
    """Learning rates against the step.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    schedules : mapping of str to Schedule

    Returns
    -------
    matplotlib.axes.Axes
    """
    for i, (name, schedule) in enumerate(schedules.items()):
        even = np.linspace(0, schedule.horizon - 1, 800).round().astype(np.int64)
        knots = schedule.steps[:: max(1, len(schedule.steps) // 4000)]
        steps = np.union1d(even, knots)
        ax.plot(steps, schedule(steps), linewidth=1.4, label=name, **_style(i))  # type: ignore[arg-type]
    ax.set_ylim(bottom=0.0)
    ax.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    ax.set_xlabel("step")
    ax.set_ylabel(r"learning rate $\eta$")
    ax.legend(frameon=False, fontsize="small")
    return ax


def plot_predictions(ax: Axes, curves: Mapping[str, Prediction]) -> Axes:
    """Predicted losses with their intervals against the step.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    curves : mapping of str to Prediction

    Returns
    -------
    matplotlib.axes.Axes
    """
    for i, (name, curve) in enumerate(curves.items()):
        style = _style(i)
        ax.plot(curve.steps, curve.loss, linewidth=1.4, label=name, **style)  # type: ignore[arg-type]
        ax.fill_between(
            curve.steps,
            curve.lower,
            curve.upper,
            color=str(style["color"]),
            alpha=0.12,
            linewidth=0,
        )
    _zoom(ax, [curve.loss for curve in curves.values()])
    level = next(iter(curves.values())).level
    ax.set_xlabel("step")
    ax.set_ylabel("predicted loss (nats)")
    ax.legend(frameon=False, title=f"band: {100 * level:.0f} % interval of a run", fontsize="small")
    return ax


def fit_figure(found: Fit, runs: Sequence[Run]) -> Figure:
    """A figure of the fit, its residuals and the rates of the runs."""
    figure = Figure(figsize=(13.0, 4.0), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    plot_fit(left, found, runs)
    plot_residuals(middle, found, runs)
    plot_rates(right, {run.name: run.schedule for run in runs})
    figure.suptitle(f"law {found.law.name}: misfit {1e3 * found.misfit:.2g}e-3 nats", fontsize=10)
    return figure


def prediction_figure(curves: Mapping[str, Prediction]) -> Figure:
    """A figure of predicted losses."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    plot_predictions(figure.subplots(), curves)
    return figure


def plan_figure(schedules: Mapping[str, Schedule], curves: Mapping[str, Prediction]) -> Figure:
    """A figure of a plan beside what people use: rates and predicted losses."""
    figure = Figure(figsize=(11.0, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_rates(left, schedules)
    plot_predictions(right, curves)
    return figure
