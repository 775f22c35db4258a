"""The panels of a figure, each as an image that stands in a page of HTML."""

from __future__ import annotations

import io
import re
from typing import Any

from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

__all__ = ["panels"]

PAD = 0.06  # inches around a panel
NO_METADATA = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def panels(figure: Figure) -> list[str]:
    """One SVG element for each panel, without anything that it would have to load.

    A figure of several panels in a row is too small on a phone: there they stand below each other.

    Parameters
    ----------
    figure : matplotlib.figure.Figure

    Returns
    -------
    list of str
        ``<svg ...>...</svg>``, of its own size, without a title above all panels.
    """
    if figure.get_suptitle():
        figure.suptitle("")
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    groups = _groups(figure)
    found = []
    for number, group in enumerate(groups):
        for ax in figure.axes:
            ax.set_visible(ax in group)
        figure.draw_without_rendering()
        boxes = [ax.get_tightbbox() for ax in group]
        box = Bbox.union([one for one in boxes if one is not None])
        inches = box.transformed(figure.dpi_scale_trans.inverted()).padded(PAD)
        text = io.StringIO()
        figure.savefig(text, format="svg", bbox_inches=inches, metadata=NO_METADATA)
        found.append(_inline(text.getvalue(), f"p{id(figure):x}-{number}-"))
    for ax in figure.axes:
        ax.set_visible(True)
    return found


def _groups(figure: Figure) -> list[list[Any]]:
    """Axes that are drawn on each other or belong to each other, as a map and its colour bar."""
    groups: list[list[Any]] = []
    for ax in figure.axes:
        if not ax.axison:
            continue
        bar = getattr(ax, "_colorbar", None)
        owner = None if bar is None else bar.mappable.axes
        for group in groups:
            same = ax.get_position().bounds == group[0].get_position().bounds
            # The names of rows stand beside the first of the panels that share them.
            same = same or group[0].get_shared_y_axes().joined(ax, group[0])
            if owner in group or (owner is None and same):
                group.append(ax)
                break
        else:
            groups.append([ax])
    return groups


def _inline(text: str, prefix: str) -> str:
    """The element alone, with names that no other image of the page has."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'(xlink:href="#|href="#|url\(#)', rf"\g<1>{prefix}", text)
    return text.replace(f'xlink:href="#{prefix}', f'href="#{prefix}').strip()
