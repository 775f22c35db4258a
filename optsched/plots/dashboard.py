"""One page of a run from its log: loss, curvature against the edge, gradients, updates, noise."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optsched.diagnostics.alarms import Alarm, Limits, alarms, edge_ratio, update_ratio
from optsched.diagnostics.log import Log
from optsched.errors import InvalidProblem
from optsched.plots.common import BIAS, DASHED, DOTTED, OPTIMUM, OTHERS, VARIANCE
from optsched.rules.stability import UpdateRule

__all__ = [
    "plot_dashboard",
    "plot_edge",
    "plot_gradients",
    "plot_loss",
    "plot_noise",
    "plot_rate",
    "plot_updates",
]

MARKED = 100  # with fewer points than this each is marked


def plot_loss(ax: Axes, log: Log, found: Sequence[Alarm] = ()) -> Axes:
    """Loss against the step, with the first step of every alarm.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    log : Log
    found : sequence of Alarm
        Those that went off are drawn as lines, one for those within 3 % of the steps; notes on
        noise are not.

    Returns
    -------
    matplotlib.axes.Axes
    """
    _line(ax, *log.series("loss"), OPTIMUM, "loss")
    fired = [(one.step, one.name) for one in found if one.step is not None and one.name != "noise"]
    steps, _ = log.series("loss")
    near = 0.03 * float(steps[-1] - steps[0]) if len(steps) else 0.0
    groups: list[list[tuple[int, str]]] = []
    for step, name in sorted(fired):
        if groups and step - groups[-1][0][0] <= near:
            groups[-1].append((step, name))
        else:
            groups.append([(step, name)])
    for group, (colour, style) in zip(groups, _styles(), strict=False):
        label = "\n".join(f"{name}, {step:,}" for step, name in group)
        ax.axvline(group[0][0], color=colour, linestyle=style, linewidth=1.2, label=label)
    return _finish(ax, "loss", len(fired) > 0)


def plot_rate(ax: Axes, log: Log) -> Axes:
    """Learning rate against the step."""
    _line(ax, *log.series("lr"), OPTIMUM, "learning rate")
    return _finish(ax, r"learning rate $\eta$", False)


def plot_edge(ax: Axes, log: Log, rule: UpdateRule) -> Axes:
    r"""Sharpness, and the largest that is stable at the rate of each step.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    log : Log
    rule : UpdateRule

    Returns
    -------
    matplotlib.axes.Axes
    """
    steps, sharpness = log.series("sharpness")
    _line(ax, steps, sharpness, BIAS, "measured")
    rates, lr = log.series("lr")
    kept = np.isfinite(lr) & (lr > 0.0)
    # Where it has been measured: elsewhere the edge may be decades away.
    kept &= (rates >= steps.min(initial=0)) & (rates <= steps.max(initial=0))
    if kept.any():
        edge = rule.sharpest(lr[kept])
        label = rf"edge, ${rule.edge:.3g}/\eta$"
        ax.plot(rates[kept], edge, color=VARIANCE, linestyle=DASHED, label=label)
    name = r"sharpness $\lambda_1(P^{-1}H)$" if rule.preconditioned else r"sharpness $\lambda_1(H)$"
    return _finish(ax, name, True)


def plot_gradients(ax: Axes, log: Log) -> Axes:
    """Norm of the gradient against the step."""
    _line(ax, *log.series("gradient_norm"), OPTIMUM, "gradient")
    return _finish(ax, "norm of the gradient", False)


def plot_updates(ax: Axes, log: Log, limits: Limits) -> Axes:
    """Norm of the update over that of the parameters, and the limit of its alarm."""
    _line(ax, *update_ratio(log), OPTIMUM, "update / parameters")
    label = f"alarm, {limits.ratio:g}"
    ax.axhline(limits.ratio, color=VARIANCE, linestyle=DASHED, linewidth=1.2, label=label)
    return _finish(ax, "update / parameters (norms)", True)


def plot_noise(ax: Axes, log: Log) -> Axes:
    """Noise scale and batch size, in samples."""
    # No line: where noise hides the gradient there is no noise scale.
    ax.plot(*log.series("noise_scale"), ".", color=BIAS, markersize=3, label="noise scale")
    steps, batch = log.series("batch_size")
    if len(steps):
        ax.plot(steps, batch, color=VARIANCE, linestyle=DASHED, label="batch size")
    return _finish(ax, "samples", True)


def plot_dashboard(
    log: Log, rule: UpdateRule | None = None, limits: Limits | None = None
) -> Figure:
    """A page of the panels that the log has numbers for, of six.

    Parameters
    ----------
    log : Log
    rule : UpdateRule, optional
        Of the optimiser, for the edge of stability; gradient descent by default.
    limits : Limits, optional

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to pyplot; save it with ``savefig``.

    Raises
    ------
    InvalidProblem
        A log with none of those numbers.
    """
    rule, limits = rule or UpdateRule(), limits or Limits()
    found = alarms(log, rule, limits)
    panels: tuple[tuple[tuple[str, ...], Callable[[Axes], Axes]], ...] = (
        (("loss",), lambda ax: plot_loss(ax, log, found)),
        (("lr",), lambda ax: plot_rate(ax, log)),
        (("sharpness",), lambda ax: plot_edge(ax, log, rule)),
        (("gradient_norm",), lambda ax: plot_gradients(ax, log)),
        (("update_norm", "parameter_norm"), lambda ax: plot_updates(ax, log, limits)),
        (("noise_scale",), lambda ax: plot_noise(ax, log)),
    )
    drawn = [draw for needed, draw in panels if all(len(log.series(name)[0]) for name in needed)]
    if not drawn:
        names = ", ".join(name for needed, _ in panels for name in needed)
        raise InvalidProblem("log", log.path, f"a log with one of {names}")
    columns = min(len(drawn), 3) if len(drawn) != 4 else 2
    rows = -(-len(drawn) // columns)
    size = (11.0 / 3 * columns, 3.3 * rows)
    figure = Figure(figsize=(max(size[0], 5.0), max(size[1], 3.6)), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, squeeze=False).ravel()
    for ax, draw in zip(axes, drawn, strict=False):
        draw(ax)
    for ax in axes[len(drawn) :]:
        ax.remove()
    for ax in axes[max(len(drawn) - columns, 0) : len(drawn)]:
        ax.set_xlabel("step")
        ax.tick_params(labelbottom=True)
    figure.suptitle(_title(log, rule, found), fontsize=10)
    return figure


def _line(ax: Axes, steps: np.ndarray, values: np.ndarray, colour: str, label: str) -> None:
    kept = np.isfinite(values)
    marker = "." if kept.sum() <= MARKED else ""
    ax.plot(
        steps[kept], values[kept], color=colour, label=label, linewidth=1.2, marker=marker, ms=3
    )


def _styles() -> list[tuple[str, object]]:
    return [(VARIANCE, DASHED), (BIAS, DOTTED), *OTHERS]


def _finish(ax: Axes, label: str, legend: bool) -> Axes:
    """Logarithmic where all values allow it, as these numbers grow by factors."""
    values = [np.asarray(line.get_ydata(), float) for line in ax.get_lines() if len(_y(line)) > 2]
    if values and min(v.min() for v in values) > 0.0:
        ax.set_yscale("log")
    ax.set_ylabel(label)
    if legend:
        ax.legend(frameon=False, fontsize=8)
    return ax


def _y(line: object) -> np.ndarray:
    return np.asarray(line.get_ydata(), float)  # type: ignore[attr-defined]


def _title(log: Log, rule: UpdateRule, found: Sequence[Alarm]) -> str:
    name = log.run or Path(log.path).name
    fired = [f"{one.name} at {one.step:,}" for one in found if one.step is not None]
    _, ratio = edge_ratio(log, rule)
    worst = f"; largest rate over the stable one {ratio.max():.2f}" if len(ratio) else ""
    return f"{name} ({rule.optimiser}): " + (", ".join(fired) or "no alarm") + worst
