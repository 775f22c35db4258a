"""Schedules and losses of one solution."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optsched.control.solution import Solution
from optsched.plots.common import BIAS, DASHED, DOTTED, OPTIMUM, OTHERS, VARIANCE, log_axes
from optsched.schedules.schedule import Schedule
from optsched.studies.compare.tuning import Tuned

__all__ = [
    "plot_batch_size",
    "plot_loss",
    "plot_memory",
    "plot_rates",
    "plot_schedule",
    "plot_solution",
]


def _sample(schedule: Schedule, points: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    steps, controls = schedule.thin(min(points, schedule.horizon))
    return steps, controls["eta"]


def plot_schedule(
    ax: Axes, schedule: Schedule, others: Sequence[tuple[str, Schedule]] = ()
) -> Axes:
    r"""Learning rate against the step, with other schedules behind it.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    schedule : Schedule
        Drawn in black, labelled as the optimum.
    others : sequence of (str, Schedule)
        Names and schedules drawn thin, at most three told apart by colour.

    Returns
    -------
    matplotlib.axes.Axes
    """
    for i, (name, other) in enumerate(others):
        colour, style = OTHERS[i % len(OTHERS)]
        ax.plot(*_sample(other), color=colour, linestyle=style, linewidth=1.2, label=name)
    steps, eta = _sample(schedule)
    ax.plot(steps, eta, color=OPTIMUM, linewidth=2.0, label=r"optimal $\eta^*(t)$")
    ax.set_xlim(0, max(schedule.horizon, 2))
    ax.set_ylim(0, None)
    ax.set_xlabel("step $t$")
    ax.set_ylabel(r"learning rate $\eta$")
    ax.legend(frameon=False)
    return ax


def plot_rates(ax: Axes, schedule: Schedule) -> Axes:
    r"""Rates of the gradient, eta (1 - nu), and of the momentum, eta nu, on logarithmic axes.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    schedule : Schedule
        With eta; nu is 0 without a control of that name.

    Returns
    -------
    matplotlib.axes.Axes
    """
    steps, controls = _dense_at_both_ends(schedule)
    eta = controls["eta"]
    nu = controls.get("nu", np.zeros_like(eta))
    floor = 1e-8 * eta.max()
    for values, colour, style, label in (
        (eta * (1.0 - nu), OPTIMUM, "solid", r"gradient $\eta(1-\nu)$"),
        (eta * nu, BIAS, DASHED, r"momentum $\eta\nu$"),
    ):
        if values.max() > floor:
            shown = np.where(values > floor, values, np.nan)
            ax.plot(steps + 1, shown, color=colour, linestyle=style, label=label)
    # What is 10^-4 of the largest momentum rate moves nothing.
    ax.set_ylim(1e-6 * eta.max(), 3.0 * eta.max())
    return log_axes(ax, "step $t + 1$", "rate")


def plot_memory(ax: Axes, schedule: Schedule) -> Axes:
    r"""Forgetting 1 - beta of the momentum, and 1 - rho of the weight average, if scheduled.

    The momentum is drawn where it moves the weights: its rate above 1 % of the gradient's.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    schedule : Schedule

    Returns
    -------
    matplotlib.axes.Axes
    """
    steps, controls = _dense_at_both_ends(schedule)
    if "beta" in controls:
        used = controls.get("nu", np.ones(len(steps))) > 0.01
        shown = np.where(used, 1.0 - controls["beta"], np.nan)
        ax.plot(steps + 1, shown, color=OPTIMUM, label=r"momentum $1-\beta$")
    if "ema" in controls:
        style = DASHED
        shown = 1.0 - controls["ema"]
        ax.plot(steps + 1, shown, color=BIAS, linestyle=style, label=r"average $1-\rho$")
    return log_axes(ax, "step $t + 1$", "forgetting per step")


def plot_batch_size(ax: Axes, schedule: Schedule) -> Axes:
    """Batch size against the step, with a logarithmic axis.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    schedule : Schedule
        With a batch size.

    Returns
    -------
    matplotlib.axes.Axes
    """
    steps, controls = _dense_at_both_ends(schedule)
    ax.plot(steps, controls["batch_size"], color=OPTIMUM, linewidth=2.0)
    ax.set_xlim(0, max(schedule.horizon, 2))
    ax.set_yscale("log")
    ax.set_xlabel("step $t$")
    ax.set_ylabel("batch size $m$ (samples)")
    return ax


def _dense_at_both_ends(schedule: Schedule) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Steps that show a schedule on a logarithmic axis too, and its controls there."""
    end = schedule.horizon - 1
    part = np.geomspace(1, max(end, 1), 600).round().astype(np.int64)
    steps = np.unique(np.clip(np.concatenate([[0, end], part, end - part, schedule.steps]), 0, end))
    return steps, {name: schedule(steps, name) for name in schedule.controls}


def plot_loss(ax: Axes, solution: Solution) -> Axes:
    """Excess loss of a solution on the exact recursion, with its bias and variance.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    solution : Solution

    Returns
    -------
    matplotlib.axes.Axes
    """
    played = solution.replay
    done = played.steps > 0
    t = played.steps[done]
    excess, bias = played.excess_curve[done], played.bias_curve[done]
    variance = np.maximum(excess - bias, 0.0)
    ax.plot(t, excess, color=OPTIMUM, linewidth=2.0, label="excess loss")
    ax.plot(t, bias, color=BIAS, linestyle=DASHED, label="bias")
    ax.plot(t, variance, color=VARIANCE, linestyle=DOTTED, linewidth=1.8, label="variance")
    # The floor hides a part that is long gone and would stretch the axis.
    ax.set_ylim(0.05 * min(excess[-1], excess.min()), 2.0 * excess.max())
    return log_axes(ax, "step $t$", "loss above the noise floor")


def plot_solution(solution: Solution, baselines: Sequence[Tuned] = ()) -> Figure:
    """A figure of the schedule, a panel for each control, and of its loss.

    Parameters
    ----------
    solution : Solution
    baselines : sequence of Tuned
        Drawn behind the learning rate.

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to pyplot; save it with ``savefig``.
    """
    schedule, controls = solution.schedule, solution.schedule.controls
    panels: list[Callable[[Axes], Axes]] = [lambda ax: _plot_rate(ax, solution, baselines)]
    if "beta" in controls or "ema" in controls:
        panels.append(lambda ax: plot_memory(ax, schedule))
    if "batch_size" in controls:
        panels.append(lambda ax: plot_batch_size(ax, schedule))
    panels.append(lambda ax: plot_loss(ax, solution))
    figure = Figure(figsize=(4.5 * len(panels), 3.6), layout="constrained")
    for ax, draw in zip(figure.subplots(1, len(panels)), panels, strict=True):
        draw(ax)
    figure.suptitle(_title(solution), fontsize=10)
    return figure


def _plot_rate(ax: Axes, solution: Solution, baselines: Sequence[Tuned]) -> Axes:
    if "nu" in solution.schedule.controls:
        return plot_rates(ax, solution.schedule)
    others = [(f"best {b.name}", b.schedule) for b in baselines]
    return plot_schedule(ax, solution.schedule, others)


def _title(solution: Solution) -> str:
    problem, proof = solution.problem, solution.certificate
    where = "" if problem.a is None else f"a = {problem.a:g}, b = {problem.b:g}, "
    batch = "" if "batch_size" in problem.controls else f"m = {problem.batch_size:g}, "
    if problem.rate_only:
        gap = f"{100 * proof.certified_gap:.2g} %"
        claim = f"certified within {gap} of optimal for rates up to {problem.eta_top:g}"
    elif proof.local_optimum:
        claim = f"local optimum, best of {len(proof.starts)} starts"
    else:
        claim = "not shown to be optimal"
    return (
        f"{where}T = {problem.horizon:,}, {batch}$\\sigma$ = {problem.noise:g} "
        f"({problem.phase} phase): excess loss {solution.excess_loss:.4g}, {claim}"
    )
