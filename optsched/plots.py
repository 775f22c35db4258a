"""Figures. Every function takes and returns Axes; nothing here writes a file or sets a style."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optsched.control.solution import Solution
from optsched.schedules.schedule import Schedule
from optsched.studies.baselines import Baseline

__all__ = ["plot_loss", "plot_schedule", "plot_solution"]

# Okabe-Ito: told apart by colour-blind readers, and in print by their line styles.
OPTIMUM, BIAS, VARIANCE = "#000000", "#0072B2", "#D55E00"
OTHERS = (("#009E73", (0, (5, 2))), ("#CC79A7", (0, (3, 1, 1, 1))), ("#56B4E9", (0, (1, 1))))


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
    ax.plot(t, bias, color=BIAS, linestyle=(0, (5, 2)), label="bias")
    ax.plot(t, variance, color=VARIANCE, linestyle=(0, (1, 1)), linewidth=1.8, label="variance")
    # The floor hides a part that is long gone and would stretch the axis.
    ax.set_ylim(0.05 * min(excess[-1], excess.min()), 2.0 * excess.max())
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel("step $t$")
    ax.set_ylabel("loss above the noise floor")
    ax.legend(frameon=False)
    return ax


def plot_solution(solution: Solution, baselines: Sequence[Baseline] = ()) -> Figure:
    """A figure of two panels: the schedule, and its loss.

    Parameters
    ----------
    solution : Solution
    baselines : sequence of Baseline
        Drawn behind the schedule.

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to pyplot; save it with ``savefig``.
    """
    figure = Figure(figsize=(9.0, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    plot_schedule(left, solution.schedule, [(f"best {b.name}", b.schedule) for b in baselines])
    plot_loss(right, solution)
    problem = solution.problem
    where = "" if problem.a is None else f"a = {problem.a:g}, b = {problem.b:g}, "
    figure.suptitle(
        f"{where}T = {problem.horizon:,}, m = {problem.batch_size:g}, "
        f"$\\sigma$ = {problem.noise:g} ({problem.phase} phase): "
        f"excess loss {solution.excess_loss:.4g}, "
        f"certified within {100 * solution.certificate.certified_gap:.2g} % of optimal",
        fontsize=10,
    )
    return figure
