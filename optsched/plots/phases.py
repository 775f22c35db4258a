"""Maps of phase diagrams."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize, TwoSlopeNorm
from matplotlib.figure import Figure

from optsched.arrays import Floats
from optsched.studies.phases import FAMILIES_SHOWN, FIELDS, PhaseDiagram

__all__ = ["plot_phase", "plot_phase_diagram"]

SHOWN = ("exponent", "deviation", "annealing", "peak_exponent", *FAMILIES_SHOWN, "over_floor")
SHOWN_JOINT = ("exponent", "gain_exponent", "gain")
SIGNED = ("deviation", "gain_exponent")
SMALLEST_LOG = 1e-4  # regrets below it look alike


def plot_phase(ax: Axes, diagram: PhaseDiagram, field: str, *, boundary: bool = True) -> Axes:
    """One number of every cell as a map over a and b.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
    diagram : PhaseDiagram
    field : str
        A name in `optsched.studies.phases.FIELDS`.
    boundary : bool
        Draw the theoretical boundary b = a of the easy and the hard phase.

    Returns
    -------
    matplotlib.axes.Axes
        With a colour bar beside it; failed cells are hatched.
    """
    values, what = diagram.field(field), FIELDS[field]
    x, y = _edges(diagram.a), _edges(diagram.b)
    norm, colours = _scale(field, values)
    shown = np.maximum(values, norm.vmin or 0.0) if what.log else values
    ax.set_facecolor("0.85")
    ax.patch.set_hatch("///")
    ax.patch.set_edgecolor("0.6")
    mesh = ax.pcolormesh(
        x, y, np.ma.masked_invalid(shown), norm=norm, cmap=colours, rasterized=True
    )
    if boundary:
        low, high = max(x[0], y[0]), min(x[-1], y[-1])
        if low < high:
            for colour, width in (("white", 3.0), ("black", 1.3)):
                ax.plot([low, high], [low, high], color=colour, linewidth=width, linestyle="--")
            _name_phases(ax, x, y)
    ax.set_xlim(x[0], x[-1])
    ax.set_ylim(y[0], y[-1])
    ax.set_xlabel("target exponent $a$")
    ax.set_ylabel("covariance exponent $b$")
    ax.set_title(what.label, fontsize=10)
    figure = ax.get_figure()
    if figure is not None:
        figure.colorbar(mesh, ax=ax, pad=0.02, extend=_extend(values, norm))
    return ax


def _edges(centres: Floats) -> Floats:
    """Borders of cells around their centres."""
    if len(centres) == 1:
        return np.array([centres[0] - 0.05, centres[0] + 0.05])
    middle = 0.5 * (centres[1:] + centres[:-1])
    return np.concatenate([[2 * centres[0] - middle[0]], middle, [2 * centres[-1] - middle[-1]]])


def _scale(field: str, values: Floats) -> tuple[Any, str]:
    """Norm and colour map: cividis, as colour-blind readers see it too; blue to red with a sign."""
    good = values[np.isfinite(values)]
    if not len(good):
        return Normalize(0.0, 1.0), "cividis"
    low, high = float(good.min()), float(good.max())
    if field in SIGNED:
        reach = max(abs(low), abs(high), 1e-6)
        return TwoSlopeNorm(0.0, -reach, reach), "RdBu_r"
    if FIELDS[field].log:
        low = max(low, SMALLEST_LOG)
        return LogNorm(low, max(high, 1.001 * low)), "cividis"
    return Normalize(low, high if high > low else low + 1e-6), "cividis"


def _extend(values: Floats, norm: Any) -> str:
    good = values[np.isfinite(values)]
    return (
        "min" if isinstance(norm, LogNorm) and len(good) and good.min() < norm.vmin else "neither"
    )


def _name_phases(ax: Axes, x: Floats, y: Floats) -> None:
    """Words on both sides of the boundary, where there is room for them."""
    style: dict[str, Any] = {
        "fontsize": 8,
        "ha": "center",
        "va": "center",
        "bbox": {"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 1.5},
    }
    for word, share, above in (("hard", (0.2, 0.85), True), ("easy", (0.82, 0.15), False)):
        at = x[0] + share[0] * (x[-1] - x[0]), y[0] + share[1] * (y[-1] - y[0])
        if (at[1] > at[0]) == above:
            ax.text(*at, word, **style)


def plot_phase_diagram(diagram: PhaseDiagram, names: Sequence[str] | None = None) -> Figure:
    """A figure with a map for each of several numbers.

    Parameters
    ----------
    diagram : PhaseDiagram
    names : sequence of str, optional
        Names in `optsched.studies.phases.FIELDS`; what the diagram has if not given.

    Returns
    -------
    matplotlib.figure.Figure
        Not attached to pyplot; save it with ``savefig``.
    """
    if names is None:
        wanted = dict.fromkeys((*SHOWN_JOINT, *SHOWN) if "gain" in diagram.names else SHOWN)
        names = [name for name in wanted if name in diagram.names] or ["exponent"]
    columns = 3 if len(names) in (3, 5, 6, 9) else min(4, len(names))
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(3.7 * columns, 3.3 * rows + 0.3), layout="constrained")
    axes = np.ravel(figure.subplots(rows, columns))
    for ax, name in zip(axes, names, strict=False):
        plot_phase(ax, diagram, name)
    for ax in axes[len(names) :]:
        ax.set_axis_off()
    figure.suptitle(_title(diagram), fontsize=10)
    return figure


def _title(diagram: PhaseDiagram) -> str:
    p, horizons = diagram.sweep.settings["problem"], diagram.horizons
    features = r"\infty" if p["features"] == math.inf else f"{p['features']:g}"
    controls = "" if p["controls"] == ["eta"] else f", controls {', '.join(p['controls'])}"
    return (
        f"$T$ = {horizons[0]:,} to {horizons[-1]:,} steps, maps at the longest; "
        f"$N = {features}$, $m$ = {p['batch_size']:g}, $\\sigma$ = {p['noise']:g}{controls}"
    )
