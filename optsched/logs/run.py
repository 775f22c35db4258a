"""A pilot run: its losses at some steps, its learning rate at every step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.checks import integers, real_array, whole
from optsched.errors import InvalidProblem
from optsched.logs.rates import jumps
from optsched.schedules.schedule import Schedule

__all__ = ["MIN_POINTS", "Run", "noise_level"]


MIN_POINTS = 4


@dataclass(frozen=True, eq=False)
class Run:
    """A training run: its loss at some steps, its learning rate at every step.

    Attributes
    ----------
    name : str
    steps : numpy.ndarray of int64, shape (n,)
        Updates done when the loss was measured, counted from the start of training, warm-up
        included; increasing from 0 or more.
    loss : numpy.ndarray of float64, shape (n,)
        Finite, above 0.
    schedule : Schedule
        Learning rate of the updates 0 .. ``steps[-1]`` at least, warm-up included.
    warmup : int
        Length in steps of the linear ramp at the start; 0 for none.
    source : str
        The file.
    notes : tuple of str
        What was understood and what was assumed, in sentences.
    warnings : tuple of str
        Those of the notes that may be wrong by much, as of a warm-up that the log does not show.
    metadata : mapping of str to object
        What the file, or a configuration in its folder, says of the run: ``weight_decay``,
        ``optimizer``, ``warmup``, ``horizon``, ``batch_size``, ``peak``, where they are known.

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.
    """

    name: str
    steps: Ints
    loss: Floats
    schedule: Schedule
    warmup: int = 0
    source: str = ""
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps = integers("steps", self.steps)
        loss = real_array("loss", self.loss).astype(np.float64)
        if loss.shape != steps.shape:
            raise InvalidProblem("loss", f"shape {loss.shape}", f"shape {steps.shape}, as steps")
        if steps[0] < 0 or (np.diff(steps) <= 0).any():
            raise InvalidProblem("steps", f"{steps[0]} .. {steps[-1]}", "increasing, from 0 on")
        bad = ~(np.isfinite(loss) & (loss > 0.0))
        if bad.any():
            raise InvalidProblem("loss", float(loss[bad][0]), "finite numbers > 0")
        if self.schedule.horizon < steps[-1]:
            allowed = f"{steps[-1]} steps at least, as the losses go that far"
            raise InvalidProblem("schedule", f"{self.schedule.horizon} steps", allowed)
        whole("warmup", self.warmup, 0, self.schedule.horizon)
        for array in (steps, loss):
            array.setflags(write=False)
        object.__setattr__(self, "steps", steps)
        object.__setattr__(self, "loss", loss)

    @cached_property
    def noise(self) -> float:
        """Standard deviation of the loss of a row about a smooth curve; see `noise_level`."""
        return noise_level(self.steps, self.loss)

    def thin(self, points: int, spacing: Literal["log", "equal"] = "log") -> Run:
        """Average the losses over bins, for a training loss with thousands of noisy rows.

        Parameters
        ----------
        points : int
            Number of bins, at least 4; where a bin is empty there is no row. A run that has no
            more rows is returned as it is.
        spacing : {"log", "equal"}
            Bins of equal ratio, in ``step + 1``, or of equal length. No bin reaches over a jump
            of the rate.

        Returns
        -------
        Run
            With the mean loss and the mean step, rounded, of every bin.

        Raises
        ------
        InvalidProblem
            ``points`` or ``spacing`` not allowed.
        """
        whole("points", points, MIN_POINTS, 10**9)
        if spacing not in ("log", "equal"):
            raise InvalidProblem("spacing", spacing, "one of log, equal")
        if points >= len(self.steps):
            return self
        make: Any = np.geomspace if spacing == "log" else np.linspace
        edges = make(self.steps[0] + 1, self.steps[-1] + 1, points + 1)[1:-1] - 1
        knots = self.schedule.steps
        after_jumps = knots[jumps(knots, self.schedule.controls["eta"]) + 1]
        # The loss at a step has seen the updates before it only.
        edges = np.unique(np.concatenate([edges, after_jumps + 0.5]))
        _, label = np.unique(np.searchsorted(edges, self.steps), return_inverse=True)
        count = np.bincount(label)
        steps = np.round(np.bincount(label, self.steps) / count).astype(np.int64)
        loss = np.bincount(label, self.loss) / count
        note = (
            f"Averaged from {len(self.steps)} rows into {len(steps)} bins of {count.min()} to "
            f"{count.max()} rows; the noise of a row was {self.noise:.2g}."
        )
        return replace(self, steps=steps, loss=loss, notes=(*self.notes, note))

    def summary(self) -> str:
        """What was understood, as text: a line for the run and one for every note."""
        last = int(self.steps[-1])
        noise = f", noise {self.noise:.2g} a row" if len(self.steps) > 2 else ""
        head = (
            f"{self.name}: {len(self.steps)} losses, steps {self.steps[0]} to {last}, "
            f"{self.loss[0]:.6g} to {self.loss[-1]:.6g}{noise}; rate up to "
            f"{self.schedule.peak:.6g}, {self.schedule(last):.6g} at the end; "
            f"warm-up {self.warmup} steps"
        )
        return "\n".join([head, *(f"  {note}" for note in self.notes)])

    def __repr__(self) -> str:
        """One line."""
        return f"Run({self.summary().splitlines()[0]})"


def noise_level(steps: Ints, loss: Floats) -> float:
    r"""Standard deviation of independent noise about a smooth curve, without a model of it.

    Every loss is compared with the straight line between its neighbours,
    :math:`e_i = w y_{i-1} + (1-w) y_{i+1} - y_i` with
    :math:`w = (t_{i+1} - t_i)/(t_{i+1} - t_{i-1})`, divided by the standard deviation
    :math:`(1 + w^2 + (1-w)^2)^{1/2}` that unit noise gives it (Gasser, Sroka and Jennen-Steinmetz,
    Biometrika 73, 1986). The median of the absolute values, over 0.6745, ignores jumps.

    Parameters
    ----------
    steps : numpy.ndarray of int64, shape (n,)
        n >= 3.
    loss : numpy.ndarray of float64, shape (n,)

    Returns
    -------
    float
        Includes the curvature of the curve between rows: an upper estimate for sparse rows.
        Noise that neighbouring rows share, as between seeds, is not seen.
    """
    if len(steps) < 3:
        raise InvalidProblem("steps", f"{len(steps)} rows", "3 rows at least")
    weight = (steps[2:] - steps[1:-1]) / (steps[2:] - steps[:-2])
    line = weight * loss[:-2] + (1.0 - weight) * loss[2:]
    scaled = (line - loss[1:-1]) / np.sqrt(1.0 + weight**2 + (1.0 - weight) ** 2)
    return float(np.median(np.abs(scaled)) / 0.6744897501960817)
