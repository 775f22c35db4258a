"""Numbers of a figure of a paper: panels of curves, and exponents beside what is stated there."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from optsched.arrays import Brief, Floats
from optsched.control.problem import Problem
from optsched.exponents import ExponentFit, json_ready
from optsched.model.replay import Replay
from optsched.schedules.schedule import Schedule
from optsched.studies.finders import ScalingPoint

__all__ = [
    "Curve",
    "Exponent",
    "PaperFigure",
    "Panel",
    "curve",
    "guide",
    "losses",
    "over_time",
    "path",
    "profile",
    "tens",
    "where",
]


@dataclass(frozen=True, eq=False, repr=False)
class Curve(Brief):
    """One line of a panel.

    ``kind`` is ``line``, ``points``, ``mark``, ``guide`` or ``guide above``.
    """

    name: str
    x: Floats
    y: Floats
    kind: str = "line"


@dataclass(frozen=True, eq=False, repr=False)
class Panel(Brief):
    """Curves on common axes."""

    name: str
    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    log_x: bool = True
    log_y: bool = True


@dataclass(frozen=True)
class Exponent:
    """A fitted exponent beside that of the paper and of theory; NaN where there is none."""

    quantity: str
    phase: str
    ours: float
    stderr: float
    paper: float
    theory: float
    points: str

    @classmethod
    def of(
        cls, quantity: str, problem: Problem, fit: ExponentFit, *, paper: float, theory: float
    ) -> Exponent:
        """From a fit along horizons."""
        first, last = fit.horizons[0], fit.horizons[-1]
        text = f"{len(fit.horizons)} from {first:.3g} to {last:.3g}"
        return cls(quantity, problem.phase, fit.exponent, fit.stderr, paper, theory, text)


@dataclass(frozen=True, eq=False, repr=False)
class PaperFigure(Brief):
    """Numbers of a figure.

    Attributes
    ----------
    name, caption : str
    panels : tuple of tuple of Panel
        Rows of panels.
    exponents : tuple of Exponent
    """

    name: str
    caption: str
    panels: tuple[tuple[Panel, ...], ...]
    exponents: tuple[Exponent, ...] = field(default=())

    def rows(self) -> list[dict[str, Any]]:
        """All points: panel, curve, x, y."""
        return [
            {"panel": panel.name, "curve": curve.name, "x": float(x), "y": float(y)}
            for row in self.panels
            for panel in row
            for curve in panel.curves
            for x, y in zip(curve.x, curve.y, strict=True)
        ]

    def exponent_rows(self) -> list[dict[str, Any]]:
        """The exponents; None where one is not known."""
        return [{k: json_ready(v) for k, v in vars(one).items()} for one in self.exponents]

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Rows of ``NAME.csv`` and, if there are exponents, of ``NAME-exponents.csv``."""
        found = {f"{self.name}.csv": self.rows()}
        if self.exponents:
            found[f"{self.name}-exponents.csv"] = self.exponent_rows()
        return found


def curve(name: str, x: ArrayLike, y: ArrayLike, kind: str = "line") -> Curve:
    """A curve from anything that is an array."""
    return Curve(name, np.asarray(x, float), np.asarray(y, float), kind)


def where(problem: Problem) -> str:
    """Phase and exponents, for a title."""
    return f"{problem.phase} phase, $a$ = {problem.a:g}, $b$ = {problem.b:g}"


def tens(name: str, value: float) -> str:
    """Name of a curve at a power of ten, or near one."""
    return f"{name} = 10^{math.log10(value):.3g}"


def guide(name: str, x: ArrayLike, exponent: float, end: float, *, above: bool = False) -> Curve:
    """Power law that falls with an exponent to its last value; named on one side of it."""
    x = np.asarray(x, float)
    return Curve(name, x, end * (x / x[-1]) ** -exponent, "guide above" if above else "guide")


def profile(name: str, schedule: Schedule) -> Curve:
    """Learning rate against the share of the horizon."""
    steps = np.unique(np.linspace(0, schedule.horizon - 1, 500).round().astype(np.int64))
    return curve(name, (steps + 0.5) / schedule.horizon, schedule(steps))


def path(name: str, played: Replay, part: str = "excess") -> Curve:
    """Loss, bias or variance over time, thinned to what can be seen."""
    values = {
        "excess": played.excess_curve,
        "bias": played.bias_curve,
        "variance": played.excess_curve - played.bias_curve,
    }[part]
    keep = np.unique(np.geomspace(1, len(played.steps) - 1, 300).round().astype(int))
    # Close to the end a step is a large share of what is left: every one is kept.
    keep = np.union1d(keep, np.arange(max(len(played.steps) - 60, 1), len(played.steps)))
    keep = keep[values[keep] > 0.0]
    return curve(name, played.steps[keep], values[keep])


def losses(name: str, points: Sequence[ScalingPoint]) -> Curve:
    """Final losses of the horizons that converged."""
    steps, values = np.array([(p.horizon, p.excess_loss) for p in points if p.converged]).T
    return curve(name, steps, values, "points")


def over_time(name: str, schedule: Schedule, control: str) -> Curve:
    """A control on logarithmic time, dense at both ends."""
    end = schedule.horizon - 1
    part = np.geomspace(1, end, 300).round().astype(np.int64)
    steps = np.unique(np.clip(np.concatenate([[0, end], part, end - part]), 0, end))
    values = schedule(steps, control)
    if control == "beta":
        values = 1.0 - values
    keep = values > 1e-6 * values.max()
    return curve(name, steps[keep] + 1.0, values[keep])
