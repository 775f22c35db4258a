"""How a solution shows itself: a line, a small table with a thumbnail, a figure."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from optsched.model.replay import Replay
from optsched.schedules.schedule import Schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["figure", "page", "thumbnail"]

WIDTH, HEIGHT, POINTS = 220, 80, 200
COLOURS = ("#1f5fa8", "#b3541e", "#3a7d44", "#7a3e9d", "#666666")


def _sampled(schedule: Schedule) -> dict[str, tuple[Any, Any]]:
    """Steps and values of every control, few enough to draw."""
    last = schedule.horizon - 1
    even = np.linspace(0, last, min(POINTS, schedule.horizon)).round().astype(np.int64)
    knots = schedule.steps[:: max(1, len(schedule.steps) // POINTS)]
    steps = np.union1d(even, knots)
    return {name: (steps, np.asarray(schedule(steps, name))) for name in schedule.controls}


def thumbnail(schedule: Schedule) -> str:
    """The controls against the step as an SVG image, each in units of its largest value."""
    lines = []
    for (name, (steps, values)), colour in zip(_sampled(schedule).items(), COLOURS, strict=False):
        top = max(float(values.max()), 1e-300)
        x = 2.0 + (WIDTH - 4.0) * steps / max(schedule.horizon - 1, 1)
        y = 2.0 + (HEIGHT - 4.0) * (1.0 - values / top)
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
        lines.append(
            f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.5">'
            f"<title>{html.escape(name)}, up to {top:.4g}</title></polyline>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}"'
        f' viewBox="0 0 {WIDTH} {HEIGHT}" role="img">{"".join(lines)}</svg>'
    )


def page(rows: Mapping[str, str], schedule: Schedule) -> str:
    """A table of words and a thumbnail of the schedule, as HTML."""
    cells = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th>"
        f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
        for name, value in rows.items()
    )
    return f"<div><table>{cells}</table>{thumbnail(schedule)}</div>"


def figure(schedule: Schedule, replay: Replay) -> Figure:
    """The controls and the loss curve, as a Matplotlib figure.

    Returns
    -------
    matplotlib.figure.Figure
        With two axes; it belongs to no window, and ``savefig`` writes it.
    """
    from matplotlib.figure import Figure

    made = Figure(figsize=(8.0, 3.2), layout="constrained")
    left, right = made.subplots(1, 2)
    for (name, (steps, values)), colour in zip(_sampled(schedule).items(), COLOURS, strict=False):
        left.plot(steps, values, color=colour, label=name)
    left.set(xlabel="step", ylabel="schedule", ylim=(0.0, None))
    if len(schedule.controls) > 1:
        left.legend()
    right.loglog(replay.steps[1:], replay.excess_curve[1:], label="excess loss")
    right.loglog(replay.steps[1:], replay.bias_curve[1:], "--", label="its bias")
    right.set(xlabel="steps done", ylabel="excess loss")
    right.legend()
    return made
