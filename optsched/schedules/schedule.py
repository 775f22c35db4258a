r"""The schedule: an immutable function from the integer step to the controls.

The value at step k, k = 0 .. T-1, is the one that update k uses. A schedule keeps *knots*, steps
with the values of the controls there, and is linear between them; a dense table has a knot at
every step. With n steps from a knot of value u to the next, of value v, the steps sum to
:math:`n u + (n-1)(v-u)/2`, so sums cost nothing even for :math:`T = 10^{15}`.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import FrozenInstanceError
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any, Literal, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optsched.arrays import Floats, Ints
from optsched.checks import integers, is_number, real_array, whole
from optsched.controls import CONTROLS, MAX_DENSE, MAX_HORIZON
from optsched.errors import InvalidProblem
from optsched.files import PathLike
from optsched.schedules.files import read, write
from optsched.schedules.knots import canonical, knot_steps, knot_table
from optsched.schedules.sampling import sampled, traced_value

__all__ = ["Schedule"]

Unit = Literal["steps", "samples", "tokens"]
Extend = Literal["hold", "raise", "zero"]
Sampling = Literal["average", "left"]


class Schedule:
    """Values of the controls at every step of a run.

    Parameters
    ----------
    horizon : int
        Number of steps T, 1 to 10^15.
    steps : array_like of int, shape (n,)
        Steps of the knots, strictly increasing from 0 to ``horizon - 1``.
    controls : mapping of str to array_like, shape (n,) each
        Values at the knots: ``eta`` (learning rate, required), ``beta`` and ``nu`` (momentum and
        its weight), ``batch_size``, ``ema`` (decay of the weight average). A scalar is a constant.
    unit : {"steps", "samples", "tokens"}
        What a step counts.
    extend : {"hold", "raise", "zero"}
        Past the end: the last value, an error, or eta = 0 with the other controls held.
    metadata : mapping, optional
        Anything that JSON can hold; copied.

    Attributes
    ----------
    horizon, unit, extend
        As given.
    steps : numpy.ndarray of int64, shape (n,)
        Read-only.
    controls : mapping of str to numpy.ndarray of float64, shape (n,)
        Read-only.

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.
    """

    horizon: int
    steps: Ints
    controls: Mapping[str, Floats]
    unit: Unit
    extend: Extend
    _metadata: str
    _ranges: dict[str, tuple[float, float]]

    def __init__(
        self,
        horizon: int,
        steps: ArrayLike,
        controls: Mapping[str, ArrayLike],
        *,
        unit: Unit = "steps",
        extend: Extend = "hold",
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        horizon = whole("horizon", horizon, 1, MAX_HORIZON)
        knots = knot_steps(steps, horizon)
        table = knot_table(controls, knots)
        for field, value, allowed in (
            ("unit", unit, ("steps", "samples", "tokens")),
            ("extend", extend, ("hold", "raise", "zero")),
        ):
            if value not in allowed:
                raise InvalidProblem(field, value, "one of " + ", ".join(allowed))
        # Through the instance dictionary, as assignment is closed.
        self.__dict__.update(
            horizon=horizon,
            steps=knots,
            controls=MappingProxyType(table),
            unit=unit,
            extend=extend,
            _metadata=canonical(metadata),
            _ranges={name: (float(v.min()), float(v.max())) for name, v in table.items()},
        )

    @classmethod
    def from_array(
        cls,
        eta: ArrayLike,
        *,
        beta: ArrayLike | None = None,
        nu: ArrayLike | None = None,
        batch_size: ArrayLike | None = None,
        ema: ArrayLike | None = None,
        unit: Unit = "steps",
        extend: Extend = "hold",
        metadata: Mapping[str, Any] | None = None,
    ) -> Schedule:
        """Schedule with a knot at every step: ``eta[k]``, shape (T,), is used by update k.

        The other controls have that shape or are constants; the rest is as for the class.
        """
        eta = np.atleast_1d(real_array("eta", eta))
        size = eta.size
        given = {"eta": eta, "beta": beta, "nu": nu, "batch_size": batch_size, "ema": ema}
        controls = {name: value for name, value in given.items() if value is not None}
        return cls(size, np.arange(size), controls, unit=unit, extend=extend, metadata=metadata)

    @classmethod
    def from_knots(
        cls,
        steps: ArrayLike,
        controls: Mapping[str, ArrayLike] | None = None,
        *,
        eta: ArrayLike | None = None,
        beta: ArrayLike | None = None,
        nu: ArrayLike | None = None,
        batch_size: ArrayLike | None = None,
        ema: ArrayLike | None = None,
        horizon: int | None = None,
        unit: Unit = "steps",
        extend: Extend = "hold",
        metadata: Mapping[str, Any] | None = None,
    ) -> Schedule:
        """Schedule from knots, by mapping or by keyword; the horizon is the last step plus one."""
        if not isinstance(controls, Mapping | None):
            raise InvalidProblem("controls", type(controls).__name__, "a mapping, or use eta=...")
        given = {"eta": eta, "beta": beta, "nu": nu, "batch_size": batch_size, "ema": ema}
        table = dict(controls or {}) | {n: v for n, v in given.items() if v is not None}
        if horizon is None:
            horizon = int(integers("steps", steps)[-1]) + 1
        return cls(horizon, steps, table, unit=unit, extend=extend, metadata=metadata)

    @classmethod
    def from_function(
        cls,
        f: Callable[[Floats], ArrayLike],
        horizon: int,
        sampling: Sampling = "average",
        *,
        unit: Unit = "steps",
        extend: Extend = "hold",
        metadata: Mapping[str, Any] | None = None,
    ) -> Schedule:
        r"""Sample a continuous learning rate.

        Parameters
        ----------
        f : callable
            Rate at times in [0, horizon], in steps: takes and returns an array of shape (n,).
        horizon : int
            Number of steps T, at most 10^8.
        sampling : {"average", "left"}
            Value of step k: the average of f over [k, k+1], so that the values sum to the
            integral of f, or f(k).
        unit, extend, metadata
            As for the class.

        Raises
        ------
        InvalidProblem
            Rates not finite or negative, or f not a function of arrays; horizon above 10^8.

        Notes
        -----
        Composite Gauss-Legendre rule of 16 nodes a step; graded towards both ends of the first
        and the last step, so that powers of t, also singular ones, and of T - t keep their
        integral.
        """
        horizon = whole("horizon", horizon, 1, MAX_DENSE)
        if sampling not in ("average", "left"):
            raise InvalidProblem("sampling", sampling, "one of average, left")
        eta = sampled(f, horizon, sampling == "average")
        return cls.from_array(eta, unit=unit, extend=extend, metadata=metadata)

    @property
    def metadata(self) -> dict[str, Any]:
        """A fresh copy of the metadata."""
        return json.loads(self._metadata)

    @overload
    def __call__(self, step: int | np.integer[Any], control: str = "eta") -> float: ...
    @overload
    def __call__(self, step: NDArray[Any], control: str = "eta") -> Floats: ...
    @overload
    def __call__(self, step: Any, control: str = "eta") -> Any: ...
    def __call__(self, step: Any, control: str = "eta") -> Any:
        """Value of a control at a step.

        Parameters
        ----------
        step : int, numpy.ndarray or jax.Array of whole numbers >= 0
            The step, from 0.
        control : str
            Which control.

        Returns
        -------
        float, numpy.ndarray of float64 or jax.Array
            As ``step``, with its shape. A JAX array has JAX's default float type.

        Raises
        ------
        InvalidProblem
            Control not in this schedule; step negative, not whole, or past the end with
            ``extend="raise"``. A traced JAX step cannot raise: the value is nan instead.
        """
        if control not in self.controls:
            raise InvalidProblem("control", control, "one of " + ", ".join(self.controls))
        jax = sys.modules.get("jax")
        if jax is not None and isinstance(step, getattr(jax, "Array", ())):
            if not jax.numpy.issubdtype(step.dtype, jax.numpy.integer):
                raise InvalidProblem("step", str(step.dtype), "an array of an integer type")
            if isinstance(step, jax.core.Tracer):
                beyond = {"raise": np.nan, "zero": 0.0 if control == "eta" else None}
                table = self.steps, self.controls[control]
                return traced_value(*table, step, jax.numpy, beyond.get(self.extend))
            value = self(np.asarray(step), control)
            return jax.numpy.asarray(value, dtype=jax.numpy.result_type(float))
        scalar = is_number(step)
        # Any Python int is a step, also one that int64 cannot hold.
        k = integers("step", max(-1, min(step, MAX_HORIZON)) if scalar else step, ndim=None)
        if k.size == 0:
            return np.zeros(k.shape)
        low, high, end = int(k.min()), int(k.max()), self.horizon - 1
        if low < 0:
            raise InvalidProblem("step", step if scalar else low, "whole numbers >= 0")
        if high > end and self.extend == "raise":
            raise InvalidProblem(
                "step", step if scalar else high, f"0 to {end}, as extend is 'raise'"
            )
        # Only the knots in reach, so that one value costs log n.
        first = np.searchsorted(self.steps, min(low, end), side="right") - 1
        last = np.searchsorted(self.steps, min(high, end), side="left") + 1
        near = slice(first, last)
        value = np.interp(np.minimum(k, end), self.steps[near], self.controls[control][near])
        # Rounding must not carry a value out of the range of the knots (eta below 0, beta at 1).
        value = np.clip(value, *self._ranges[control])
        if self.extend == "zero" and control == "eta":
            value = np.where(k > end, 0.0, value)
        return float(value) if scalar else np.asarray(value)

    def array(self, control: str = "eta", start: int = 0, stop: int | None = None) -> Floats:
        """Dense values of the steps ``start .. stop - 1`` (default: all), at most 10^8 of them."""
        stop = self.horizon if stop is None else whole("stop", stop, 0, MAX_HORIZON)
        start = whole("start", start, 0, stop)
        if stop - start > MAX_DENSE:
            allowed = f"at most {MAX_DENSE} steps at once: use array(start=, stop=) or blocks()"
            raise InvalidProblem("horizon", stop - start, allowed)
        dense = np.empty(stop - start)
        for k in range(start, stop, 1 << 20):
            block = np.arange(k, min(k + (1 << 20), stop))
            dense[k - start : k - start + len(block)] = self(block, control)
        return dense

    @property
    def eta(self) -> Floats:
        """Learning rate at every step, shape (horizon,); see `array`."""
        return self.array("eta")

    @property
    def beta(self) -> Floats | None:
        """Momentum at every step, shape (horizon,); None if it is not scheduled."""
        return self.array("beta") if "beta" in self.controls else None

    @property
    def nu(self) -> Floats | None:
        """Weight of the momentum at every step; None if it is not scheduled."""
        return self.array("nu") if "nu" in self.controls else None

    @property
    def batch_size(self) -> Floats | None:
        """Batch size at every step; None if it is not scheduled."""
        return self.array("batch_size") if "batch_size" in self.controls else None

    @property
    def ema(self) -> Floats | None:
        """Decay of the weight average at every step; None if it is not scheduled."""
        return self.array("ema") if "ema" in self.controls else None

    def blocks(self, size: int = 2**20) -> Iterator[tuple[Ints, dict[str, Floats]]]:
        """All steps in order, ``size`` at a time, with the controls there."""
        size = whole("size", size, 1, MAX_DENSE)
        return (
            (k, {name: self(k, name) for name in self.controls})
            for start in range(0, self.horizon, size)
            for k in (np.arange(start, min(start + size, self.horizon)),)
        )

    def thin(self, points: int) -> tuple[Ints, dict[str, Floats]]:
        """Choose steps that show the schedule, and return the controls there.

        Parameters
        ----------
        points : int
            How many steps; at least 2 unless the horizon is 1.

        Returns
        -------
        steps : numpy.ndarray of int64, shape (min(points, horizon),)
            Increasing from 0 to ``horizon - 1``: an even choice of the knots, or all knots and
            an even choice of the other steps.
        controls : dict of str to numpy.ndarray of float64
            Values there.
        """
        points = min(whole("points", points, min(2, self.horizon), MAX_HORIZON), self.horizon)
        whole("points", points, 1, MAX_DENSE)
        knots, extra = len(self.steps), points - len(self.steps)
        if extra <= 0:
            steps = self.steps[np.arange(points) * (knots - 1) // max(points - 1, 1)]
        else:
            gap, rest = divmod(self.horizon - knots, extra)
            rank = np.arange(extra) * gap + np.arange(extra) * rest // extra + gap // 2
            # The rank-th step that is no knot: shift by the knots before it.
            others = rank + np.searchsorted(self.steps - np.arange(knots), rank, side="right")
            steps = np.sort(np.concatenate([self.steps, others]))
        return steps, {name: self(steps, name) for name in self.controls}

    @property
    def peak(self) -> float:
        """Largest learning rate."""
        return self._ranges["eta"][1]

    @property
    def total(self) -> float:
        """Sum of the learning rate over all steps."""
        return self.sum("eta")

    def sum(self, control: str) -> float:
        """Sum of a control over all steps: of ``batch_size``, the number of samples."""
        if control not in self.controls:
            raise InvalidProblem("control", control, "one of " + ", ".join(self.controls))
        values = self.controls[control]
        trapezoids = np.diff(self.steps) * (0.5 * values[:-1] + 0.5 * values[1:])
        return float(trapezoids.sum() + 0.5 * values[0] + 0.5 * values[-1])

    def table(self, rows: int = 12) -> str:
        """Return a short table of the schedule as text, about ``rows`` steps."""
        steps, controls = self.thin(max(rows, min(2, self.horizon)))
        lines = [f"{self.unit:>16}" + "".join(f"{name:>14}" for name in controls)]
        for i, k in enumerate(steps):
            lines.append(f"{k:>16}" + "".join(f"{v[i]:>14.6g}" for v in controls.values()))
        return "\n".join([*lines, f"peak {self.peak:.6g}, total {self.total:.6g}"])

    def scaled(self, factor: float) -> Schedule:
        """Multiply the learning rate by ``factor``, and note it in the metadata as ``scaled``."""
        if not is_number(factor) or not 0.0 <= factor < np.inf:
            raise InvalidProblem("factor", factor, "a finite number >= 0")
        # What the metadata says of the loss holds for the unscaled schedule only.
        before = self.metadata.get("scaled", 1.0)
        scaled = float(factor) * (before if is_number(before) else 1.0)
        metadata = self.metadata | {"scaled": scaled}
        return self.replace(eta=self.controls["eta"] * factor, metadata=metadata)

    def replace(self, **changes: Any) -> Schedule:
        """Copy with other fields or other control values; a control set to None is dropped."""
        controls = dict(changes.pop("controls", self.controls))
        controls |= {name: changes.pop(name) for name in CONTROLS if name in changes}
        controls = {name: value for name, value in controls.items() if value is not None}
        names = ("horizon", "steps", "unit", "extend", "metadata")
        fields: dict[str, Any] = {name: getattr(self, name) for name in names}
        fields |= changes
        return Schedule(controls=controls, **fields)

    @cached_property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of horizon, unit, knots and values; the same everywhere."""
        head = ["optsched schedule 1", self.horizon, self.unit, len(self.steps), *self.controls]
        state = hashlib.sha256(json.dumps(head).encode())
        state.update(self.steps.astype("<i8").tobytes())
        for values in self.controls.values():
            state.update(values.astype("<f8").tobytes())
        return state.hexdigest()

    def save(self, path: PathLike, *, points: int | None = None, overwrite: bool = False) -> None:
        """Write to a .npz, .csv or .json file, whole or not at all; see `optsched.schedules.files`.

        ``points`` rows, chosen by `thin`, instead of one at every step (.json: of the knots);
        with fewer points than knots the file holds a coarser schedule.

        Raises
        ------
        BadFile
            Other suffix, path that exists or cannot be written, or more than 10^7 rows.
        InvalidProblem
            ``points`` is not a whole number >= 2.
        """
        rows = None if points is None else self.thin(points)
        coarse = rows is not None and len(rows[0]) < len(self.steps)
        written = self.replace(steps=rows[0], controls=rows[1]) if rows and coarse else self
        write(written, path, rows, overwrite=overwrite)

    @classmethod
    def load(cls, path: PathLike) -> Schedule:
        """Read a .npz, .csv or .json file: an equal schedule, if ours wrote it.

        From rows without our header: knots at the rows, linear between them, horizon = last step
        + 1. Raises `BadFile`, in one line, naming the file, the field and what is expected.
        """
        return read(path, cls.from_knots)

    def __len__(self) -> int:
        """Return the number of steps."""
        return self.horizon

    def __eq__(self, other: object) -> bool:
        """Compare knots, values, unit, rule past the end and metadata."""
        if not isinstance(other, Schedule):
            return NotImplemented
        names = ("horizon", "unit", "extend", "_metadata")
        return (
            all(getattr(self, name) == getattr(other, name) for name in names)
            and list(self.controls) == list(other.controls)
            and np.array_equal(self.steps, other.steps)
            and all(np.array_equal(v, other.controls[n]) for n, v in self.controls.items())
        )

    def __hash__(self) -> int:
        """Hash of the digest."""
        return int(self.digest[:15], 16)

    def __repr__(self) -> str:
        """One line."""
        return (
            f"Schedule(horizon={self.horizon}, knots={len(self.steps)}, "
            f"controls={'+'.join(self.controls)}, peak={self.peak:.6g}, unit={self.unit!r})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by value; the loaded schedule is validated again."""
        make = partial(Schedule, unit=self.unit, extend=self.extend, metadata=self.metadata)
        return make, (self.horizon, self.steps, dict(self.controls))

    def __setattr__(self, name: str, value: Any) -> None:
        """Refuse: a schedule does not change."""
        raise FrozenInstanceError(f"a Schedule is immutable: use replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        """Refuse: a schedule does not change."""
        raise FrozenInstanceError("a Schedule is immutable")
