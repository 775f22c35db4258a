"""A small recorder for training loops, in JAX or torch: one row of numbers at every step it is due.

Rows are appended to a csv, each by one write: a run that is killed loses the last row at most, and
goes on with the same file from any step. The file is what ``optsched fit`` and ``optsched
dashboard`` read.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from optsched.checks import is_number, whole
from optsched.diagnostics.append import AppendOnly
from optsched.diagnostics.curvature import TraceEstimate
from optsched.diagnostics.lanczos import Eigenvalue
from optsched.diagnostics.log import COLUMNS
from optsched.diagnostics.norms import tree_distance, tree_norm
from optsched.errors import InvalidProblem, OptschedError
from optsched.rules.batch.noise_scale import NoiseScale, RunningNoiseScale

__all__ = ["NonFinite", "Recorder"]

LAST_STEP = 2**62
NOISE_DECAY = 0.9  # of the averages behind noise_scale, a row that has it
Every = int | Iterable[int]
# What is measured at steps of its own, and the columns that it fills.
MEASURED = {
    "noise": ("gradient_square", "gradient_variance", "noise_scale"),
    "sharpness": ("sharpness", "sharpness_error"),
    "trace": ("trace", "trace_error"),
}


class NonFinite(OptschedError, ArithmeticError):
    """A run has diverged: something that was recorded is nan or infinite.

    Parameters
    ----------
    message : str
    step : int
        Where.
    quantity : str
        What.
    """

    def __init__(self, message: str, step: int, quantity: str) -> None:
        super().__init__(message)
        self.step = step
        self.quantity = quantity

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.step, self.quantity)


class Recorder:
    """Log of one training run.

    Parameters
    ----------
    path : path-like
        The csv to write; its folder must exist.
    every : int or iterable of int
        Steps at which a row is written: all multiples of a number, or the steps of a list.
    at : mapping of str to int or iterable of int, optional
        The same for what is dear: ``noise``, ``sharpness``, ``trace``. By default at every row. A
        step at which one of them is due has a row, whatever ``every`` says.
    start : int
        Step from which the run goes on. Above 0 the file must be there, and its rows from that
        step on, which the run will make anew, are removed; at 0 it must not be there.
    run : str, optional
        Name of the run, kept in a column of its own: to go on with the file of another run is then
        refused.
    extra : sequence of str
        Names of further columns.
    nonfinite : {"raise", "keep"}
        Whether a value that is nan or infinite, once its row is written, raises `NonFinite`.

    Raises
    ------
    InvalidProblem
        Naming the setting, its value and what is allowed.
    BadFile
        A file that is there already, is another run's, has other columns, cannot be written, or is
        written by another process now.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        every: Every = 1,
        at: Mapping[str, Every] | None = None,
        start: int = 0,
        run: str | None = None,
        extra: Sequence[str] = (),
        nonfinite: Literal["raise", "keep"] = "raise",
    ) -> None:
        self.path = Path(path)
        self.start = whole("start", start, 0, LAST_STEP)
        self._due = _plan("every", every)
        at = dict(at or {})
        unknown = set(at) - set(MEASURED)
        if unknown:
            raise InvalidProblem("at", sorted(unknown), "keys " + ", ".join(MEASURED))
        self._at = {name: _plan(name, steps) for name, steps in at.items()}
        if nonfinite not in ("raise", "keep"):
            raise InvalidProblem("nonfinite", nonfinite, "raise or keep")
        self.nonfinite = nonfinite
        self.run = _run_name(run)
        self.extra = _extra_names(extra)
        self.columns = (*COLUMNS, *self.extra, *(("run",) if self.run else ()))
        self._file = AppendOnly(self.path, self.columns, self.start, self.run)
        self._noise = RunningNoiseScale(NOISE_DECAY)
        self._replay()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file; nothing is left to write."""
        self._file.close()

    def due(self, step: int, what: str | None = None) -> bool:
        """Whether a row is written at a step, or ``what`` (noise, sharpness, trace) is measured."""
        if what is None:
            return self._due(step) or any(plan(step) for plan in self._at.values())
        if what not in MEASURED:
            raise InvalidProblem("what", what, "one of " + ", ".join(MEASURED))
        return self._at[what](step) if what in self._at else self._due(step)

    def record(
        self,
        step: int,
        *,
        lr: Any,
        loss: Any,
        batch_size: Any = None,
        gradients: Any = None,
        updates: Any = None,
        parameters: Any = None,
        before: Any = None,
        noise: Any = None,
        sharpness: Any = None,
        trace: Any = None,
        **extra: Any,
    ) -> dict[str, float] | None:
        """Write the row of a step, if one is due.

        Parameters
        ----------
        step : int
            The update, from 0; it must increase.
        lr, loss, batch_size : float or array of one number
            Rate that the update uses, and loss before it.
        gradients, updates, parameters : tree of arrays
            Their norms are written: see `optsched.diagnostics.norms.tree_norm`. A torch module as
            ``gradients`` stands for the ``grad`` of its parameters.
        before : tree of arrays
            Parameters before the update, in place of ``updates``: see
            `optsched.diagnostics.norms.snapshot`.
        noise : NoiseScale
            Of this step: see `optsched.diagnostics.noise`. The column ``noise_scale`` is the ratio
            of moving averages of its two parts.
        sharpness : Eigenvalue or float
        trace : TraceEstimate or float
        **extra : float
            The further columns.

        Any of them may be a function without arguments, which is called where the value is due and
        nowhere else.

        Returns
        -------
        dict of str to float, or None
            What was written; None where nothing is due.

        Raises
        ------
        InvalidProblem
            A step that does not increase, a value of another kind, a column that is not there.
        NonFinite
            After the row was written, unless ``nonfinite="keep"``.
        BadFile
            The row cannot be written.
        """
        step = whole("step", step, self.start, LAST_STEP)
        if not self.due(step):
            return None
        if step <= self.last:
            raise InvalidProblem("step", step, f"above {self.last}, the last row")
        unknown = set(extra) - set(self.extra)
        if unknown:
            allowed = "columns named in extra=" + (f": {', '.join(self.extra)}" * bool(self.extra))
            raise InvalidProblem(sorted(unknown)[0], "a value", allowed)
        values = {"step": float(step)}
        scalars = {"lr": lr, "loss": loss, "batch_size": batch_size, **extra}
        values |= {name: _number(name, given) for name, given in scalars.items()}
        values["gradient_norm"] = _maybe(gradients, lambda tree: tree_norm(tree, gradient=True))
        values["parameter_norm"] = _maybe(parameters, tree_norm)
        values["update_norm"] = _maybe(updates, tree_norm)
        if updates is None and before is not None:
            if parameters is None:
                raise InvalidProblem("parameters", None, "those after the update, with before=")
            after = _called(parameters)
            values["update_norm"] = tree_distance(after, _called(before))
        for name, given in (("noise", noise), ("sharpness", sharpness), ("trace", trace)):
            if given is not None and self.due(step, name):
                values |= self._measured(name, _called(given))
        written = {name: value for name, value in values.items() if value is not None}
        self._write(step, written)
        return written

    def _measured(self, name: str, value: Any) -> dict[str, Any]:
        if name == "noise":
            if not isinstance(value, NoiseScale):
                allowed = "a NoiseScale, as optsched.diagnostics.noise makes"
                raise InvalidProblem("noise", type(value).__name__, allowed)
            scale = self._smoothed(value.gradient_square, value.trace)
            numbers = (value.gradient_square, value.trace, scale)
            return dict(zip(MEASURED[name], numbers, strict=True))
        if isinstance(value, Eigenvalue):
            return {"sharpness": value.value, "sharpness_error": value.error}
        if isinstance(value, TraceEstimate):
            return {"trace": value.value, "trace_error": value.stderr}
        return {name: _number(name, value)}

    def _write(self, step: int, written: dict[str, float]) -> None:
        fields = [repr(written[name]) if name in written else "" for name in self.columns]
        fields[0] = str(step)
        if self.run:
            fields[-1] = self.run
        self._file.append(fields)
        before, self.last = self.last, step
        bad = [name for name, value in written.items() if not math.isfinite(value)]
        if bad and self.nonfinite == "raise":
            value = written[bad[0]]
            where = f"after step {before}" if before >= 0 else "in the first row"
            message = f"{self.path}: step {step}: {bad[0]} is {value}: the run diverged {where}"
            raise NonFinite(message, step, bad[0])

    def _replay(self) -> None:
        """Bring the averages, and the last step, to where the kept rows end."""
        self.last = int(self._file.rows[-1]["step"]) if self._file.rows else -1
        for row in self._file.rows:
            pair = row["gradient_square"], row["gradient_variance"]
            if all(pair):
                self._smoothed(*map(float, pair))

    def _smoothed(self, square: float, variance: float) -> float | None:
        """Noise scale of the averages; None while noise hides the gradient, or the other way."""
        if math.isfinite(square) and math.isfinite(variance):
            self._noise = self._noise.added(variance, square)
        scale = self._noise.estimate.value if self._noise.weight else math.nan
        return scale if scale > 0.0 else None


def _called(value: Any) -> Any:
    """The value of a function without arguments; modules and arrays are values themselves."""
    plain = callable(value) and not hasattr(value, "parameters") and not hasattr(value, "shape")
    return value() if plain else value


def _maybe(value: Any, norm: Callable[[Any], float]) -> float | None:
    return None if value is None else norm(_called(value))


def _number(name: str, value: Any) -> float | None:
    """A number, or an array of one, as a float."""
    value = _called(value)
    if value is None:
        return None
    if getattr(value, "shape", None) in ((), (1,)):
        value = value.item()
    if not is_number(value):
        raise InvalidProblem(name, type(value).__name__, "a real number")
    return float(value)


def _plan(field: str, every: Every) -> Callable[[int], bool]:
    if is_number(every):
        number = whole(field, every, 1, LAST_STEP)
        return lambda step: step % number == 0
    if isinstance(every, str | bytes) or not isinstance(every, Iterable):
        raise InvalidProblem(field, every, "a whole number >= 1, or a list of steps")
    steps = frozenset(whole(field, step, 0, LAST_STEP) for step in every)
    return steps.__contains__


def _run_name(run: Any) -> str | None:
    if run is None:
        return None
    if not isinstance(run, str) or not run.strip() or any(mark in run for mark in '",\r\n'):
        raise InvalidProblem("run", run, "a name without commas, quotes and line breaks")
    return run


def _extra_names(extra: Any) -> tuple[str, ...]:
    names = tuple(extra) if not isinstance(extra, str) else (extra,)
    for name in names:
        taken = name in (*COLUMNS, *MEASURED, "run", "gradients", "updates", "parameters", "before")
        if not isinstance(name, str) or not name.isidentifier() or taken or names.count(name) > 1:
            raise InvalidProblem("extra", name, "names that are no column yet, as Python has them")
    return names
