"""Direction of largest change of a loss in (log lr, log weight_decay), and a sweep along it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from optsched.arrays import Floats

__all__ = ["SalientDirection", "SweepPoint", "salient_direction"]


LEAST_QUADRATIC = 8  # settings that six coefficients of a surface take at least
LEVELS = 3
DEFAULT_FACTOR = 2.0


@dataclass(frozen=True)
class SweepPoint:
    """A run to do next."""

    lr: float
    weight_decay: float
    gamma: float


@dataclass(frozen=True)
class SalientDirection:
    """Unit vector in (log lr, log weight_decay) along which the loss changes most.

    Attributes
    ----------
    log_lr, log_weight_decay : float
        Its components; the first is not negative. Both 0.71: along lr * weight_decay.
    angle, angle_stderr : float
        Degrees from the axis of log lr; 45 along lr * weight_decay, 0 along lr.
    share : float
        Part of the mean squared slope of the loss that lies along it.
    model : str
        ``quadratic`` or ``linear``: the surface that was fitted.
    """

    log_lr: float
    log_weight_decay: float
    angle: float
    angle_stderr: float
    share: float
    model: str

    def sweep(
        self, log_lr: Floats, log_wd: Floats, losses: Floats, count: int
    ) -> tuple[SweepPoint, ...]:
        """Settings along this direction about the best loss, from the best run on.

        A parabola in the coordinate along the direction has its lowest point within what was run:
        that is the centre. Else it is the best setting, at the edge, and the sweep goes beyond.
        """
        along = self.log_lr * log_lr + self.log_weight_decay * log_wd
        best = int(np.argmin(losses))
        steps = np.diff(np.unique(np.round(along, 6)))
        apart = steps[steps > 1e-3]
        spacing = float(apart.min()) if len(apart) else math.log(DEFAULT_FACTOR)
        spacing = max(spacing, 0.5 * math.log(DEFAULT_FACTOR))
        centre = along[best]
        if len(np.unique(np.round(along, 6))) >= LEVELS:
            curve, slope, _ = np.polyfit(along - along[best], losses, 2)
            lowest = along[best] - 0.5 * slope / curve if curve > 0.0 else math.nan
            if along.min() < lowest < along.max():
                centre = lowest
        offsets = centre - along[best] + spacing * (np.arange(count) - 0.5 * (count - 1))
        points = []
        for offset in offsets:
            lr = math.exp(log_lr[best] + offset * self.log_lr)
            decay = math.exp(log_wd[best] + offset * self.log_weight_decay)
            points.append(SweepPoint(lr, decay, lr * decay))
        return tuple(points)


def salient_direction(
    log_lr: Floats, log_wd: Floats, losses: Floats, angle_stderr: float = math.nan
) -> SalientDirection:
    """Leading eigenvector of the mean outer product of the slopes of a fitted surface.

    Parameters
    ----------
    log_lr, log_wd, losses : numpy.ndarray, shape (n,)
        Settings and their losses. With 8 or more settings, of three rates and decays or more, the
        surface is a quadratic; else a plane.
    angle_stderr : float
        Standard error to carry.
    """
    x, y = log_lr - log_lr.mean(), log_wd - log_wd.mean()
    levels = min(len(np.unique(np.round(v, 6))) for v in (x, y))
    one = np.ones_like(x)
    quadratic = len(x) >= LEAST_QUADRATIC and levels >= LEVELS
    columns = [one, x, y, x * x, x * y, y * y] if quadratic else [one, x, y]
    c = np.linalg.lstsq(np.column_stack(columns), losses, rcond=None)[0]
    if quadratic:
        slopes = np.stack([c[1] + 2.0 * c[3] * x + c[4] * y, c[2] + c[4] * x + 2.0 * c[5] * y])
    else:
        slopes = np.stack([c[1] * one, c[2] * one])
    values, vectors = np.linalg.eigh(slopes @ slopes.T / len(x))
    first, second = (float(v) for v in vectors[:, 1])
    if first < 0.0 or (first == 0.0 and second < 0.0):
        first, second = -first, -second
    total = float(values.sum())
    return SalientDirection(
        log_lr=first,
        log_weight_decay=second,
        angle=math.degrees(math.atan2(second, first)),
        angle_stderr=angle_stderr,
        share=float(values[1]) / total if total > 0.0 else math.nan,
        model="quadratic" if quadratic else "linear",
    )
