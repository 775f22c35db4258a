"""Draw the figures of a paper from their numbers."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_lowercase
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from optsched.studies.paper import Curve, Panel, PaperFigure

__all__ = ["plot_panel", "plot_paper_figure"]

# Okabe-Ito: told apart by colour-blind readers, and by their styles in print.
COLOURS = ("#0072B2", "#D55E00", "#000000", "#009E73", "#CC79A7", "#56B4E9")
STYLES: tuple[Any, ...] = ((0, (5, 2)), (0, (3, 1, 1, 1)), "solid", (0, (1, 1)), (0, (8, 2)), "-.")
MARKERS = "os^Dvp"
DECADES = 12  # more of an axis than this is a curve that has died out


def plot_panel(ax: Axes, panel: Panel, names: Sequence[str] = ()) -> Axes:
    """Draw the curves of a panel.

    Curves that stand for a sequence (``T = ...``, ``C = ...``) are drawn from light to dark, others
    told apart by colour and style.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    panel : Panel
    names : sequence of str
        Names of curves in the order of their colours, so that panels agree; those of this panel
        come after them.

    Returns
    -------
    matplotlib.axes.Axes
    """
    main = [one for one in panel.curves if one.kind in ("line", "points")]
    ordered = _ordered(panel)
    ramp = colormaps["viridis"](np.linspace(0.85, 0.0, max(len(main), 2)))
    order = list(dict.fromkeys([*(() if ordered else names), *(one.name for one in main)]))
    for one in panel.curves:
        rank = order.index(one.name) if one.name in order else 0
        colour = ramp[rank] if ordered else COLOURS[rank % len(COLOURS)]
        style = "solid" if ordered else STYLES[rank % len(STYLES)]
        _draw(ax, one, colour, style, MARKERS[rank % len(MARKERS)])
    ax.set_xscale("log" if panel.log_x else "linear")
    ax.set_yscale("log" if panel.log_y else "linear")
    if panel.log_y:
        values = np.concatenate([one.y[np.isfinite(one.y) & (one.y > 0.0)] for one in main])
        if values.max() / values.min() > 10.0**DECADES:
            ax.set_ylim(values.max() / 10.0**DECADES, None)
    else:
        ax.set_ylim(0.0, None)
    ax.set_xlabel(panel.x_label)
    ax.set_ylabel(panel.y_label)
    ax.set_title(panel.title, fontsize=9)
    ax.legend(frameon=False, fontsize=7.5)
    return ax


def _ordered(panel: Panel) -> bool:
    """Whether the curves stand for a sequence."""
    main = [one.name for one in panel.curves if one.kind in ("line", "points")]
    return len(main) > 2 and all(" = " in name for name in main)


def _draw(ax: Axes, one: Curve, colour: Any, style: Any, marker: str) -> None:
    if one.kind.startswith("guide"):
        ax.plot(one.x, one.y, color="0.5", linewidth=0.9, linestyle="solid")
        # Named beside the line: a legend entry for each would hide the curves.
        at, falls, above = len(one.x) // 2, one.y[-1] < one.y[0], one.kind != "guide"
        ax.annotate(
            one.name,
            (float(one.x[at]), float(one.y[at])),
            xytext=(2 if falls == above else -2, 3 if above else -3),
            textcoords="offset points",
            ha="left" if falls == above else "right",
            va="bottom" if above else "top",
            fontsize=7.5,
            color="0.35",
        )
    elif one.kind == "mark":
        ax.plot(
            one.x,
            one.y,
            linestyle="none",
            marker="*",
            markersize=9,
            color="#D55E00",
            markeredgecolor="black",
            markeredgewidth=0.5,
            label=one.name,
            zorder=5,
        )
    elif one.kind == "points":
        look: dict[str, Any] = {"marker": marker, "markersize": 4, "linewidth": 1.3}
        ax.plot(one.x, one.y, color=colour, linestyle=style, label=_label(one), **look)
    else:
        ax.plot(one.x, one.y, color=colour, linestyle=style, linewidth=1.5, label=_label(one))


def _label(one: Curve) -> str:
    """Name with a power of ten set as one."""
    return f"${one.name}$" if "^" in one.name and "$" not in one.name else one.name


def plot_paper_figure(paper: PaperFigure) -> Figure:
    """A figure with all panels.

    Parameters
    ----------
    paper : PaperFigure

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to pyplot; save it with ``savefig``.
    """
    rows, columns = len(paper.panels), max(len(row) for row in paper.panels)
    figure = Figure(figsize=(3.9 * columns, 3.2 * rows + 0.3), layout="constrained")
    axes = np.reshape(figure.subplots(rows, columns), (rows, columns))
    told = [one for row in paper.panels for one in row if not _ordered(one)]
    names = [c.name for one in told for c in one.curves if c.kind in ("line", "points")]
    letters = iter(ascii_lowercase)
    for line, panels in zip(axes, paper.panels, strict=True):
        shown: list[list[str]] = []
        for ax, panel in zip(line, panels, strict=False):
            plot_panel(ax, panel, names)
            ax.set_title(f"({next(letters)}) {panel.title}", fontsize=9)
            _, labels = ax.get_legend_handles_labels()
            if labels in shown:  # said in this row, where there may be more room
                ax.get_legend().remove()
            shown.append(labels)
        for ax in line[len(panels) :]:
            ax.set_axis_off()
    figure.suptitle(paper.caption, fontsize=10)
    return figure
