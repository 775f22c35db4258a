"""Colours, line styles and axes that figures share."""

from __future__ import annotations

from matplotlib.axes import Axes

__all__ = ["BIAS", "CURVES", "DASHED", "DOTTED", "OPTIMUM", "OTHERS", "VARIANCE", "log_axes"]

OPTIMUM, BIAS, VARIANCE = "#000000", "#0072B2", "#D55E00"
DASHED, DOTTED = (0, (5, 2)), (0, (1, 1))
OTHERS = (("#009E73", DASHED), ("#CC79A7", (0, (3, 1, 1, 1))), ("#56B4E9", DOTTED))
# Up to four curves of one kind.
CURVES = (
    (BIAS, "solid"),
    (VARIANCE, DASHED),
    ("#009E73", (0, (3, 1, 1, 1))),
    ("#CC79A7", DOTTED),
)


def log_axes(ax: Axes, x: str, y: str) -> Axes:
    """Both axes logarithmic, with their labels and a legend."""
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(x)
    ax.set_ylabel(y)
    ax.legend(frameon=False)
    return ax
