r"""Phase diagrams: exponents, annealing and regrets over the plane of the exponents a and b.

A cell of the diagram is one (a, b). It solves the optimum along all horizons, fits the exponent of
the loss, and tunes what people use today at the longest horizon; the boundary :math:`b = a` of the
two phases is theory, drawn beside what is measured. Cells are independent and deterministic, so
they run anywhere and in any order (`optsched.studies.sweep.run`).
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from optsched.arrays import Brief, Floats
from optsched.control.certificate import UNREFINED
from optsched.control.problem import Problem
from optsched.errors import InvalidProblem, SolveFailed
from optsched.exponents import ExponentFit, checked_points, json_ready
from optsched.optimisers.momentum import keywords
from optsched.studies.finders import SCHEDULES, FamilyFinder
from optsched.studies.scaling import Scaling, scaling
from optsched.studies.sweep.run import Progress, Row, Sweep, sweep
from optsched.studies.sweep.shards import Shard
from optsched.studies.tables import write_table

__all__ = ["FAMILIES_SHOWN", "FIELDS", "Field", "PhaseDiagram", "phase_cell", "phase_diagram"]


# Schedules whose regret is mapped.
FAMILIES_SHOWN = ("constant", "linear", "cosine", "wsd")
# Replayed by exact blocks at any horizon. At this residual losses are within 1e-6 of converged
# ones, rates within 1 %.
SOLVING = {"gap": UNREFINED, "replay_steps": 0, "tol": 1e-5}
TUNING: dict[str, Any] = {"replay_steps": 0, "replay_tol": 3e-4}  # a third of it is left
# Fields of a problem that a cell or its study sets itself; the optimiser is told by its keywords.
OWN = ("a", "b", "horizon", "spectrum", "samples", "eta_max", "optimiser", "objective")


def phase_cell(cell: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """One cell of a phase diagram.

    Parameters
    ----------
    cell : mapping
        ``a`` and ``b``.
    settings : mapping
        ``problem`` (fields of `Problem` that all cells share), ``horizons`` and ``families``.

    Returns
    -------
    dict
        JSON-able; see `PhaseDiagram.table`.

    Raises
    ------
    SolveFailed
        If fewer than two horizons converged.
    """
    horizons = settings["horizons"]
    problem = Problem(cell["a"], cell["b"], horizons[-1], **settings["problem"])
    study = scaling(problem, horizons, solve_options=SOLVING)
    plain = study
    if not problem.rate_only:
        plain = scaling(problem.plain, horizons, solve_options=SOLVING)
    found = _exponents(study) | _points(study)
    found["regret"], found["tuned"] = {}, {}
    best = plain.points[-1]
    tuning = dict(TUNING)
    for name in settings["families"] if best.converged else ():
        point = SCHEDULES[name](plain.problem, tuning, None)
        good = point.converged
        found["regret"][name] = point.excess_loss / best.excess_loss - 1.0 if good else math.nan
        found["tuned"][name] = {"peak": point.peak_eta, **point.options}
        if good:
            tuning["peak"] = point.peak_eta  # where the search for the next one begins
        else:
            found["messages"].append(f"{name}: {point.message}")
    if plain is not study:
        found["plain"] = _exponents(plain) | _points(plain)
        last = study.points[-1]
        good = last.converged and best.converged
        found["gain"] = best.excess_loss / last.excess_loss if good else math.nan
        found["gain_exponent"] = found["exponent"] - found["plain"]["exponent"]
    return found


def _exponents(study: Scaling) -> dict[str, Any]:
    def number(fit: ExponentFit | None, name: str) -> float:
        return math.nan if fit is None else float(getattr(fit, name))

    if study.fit is None:
        bad = [p for p in study.points if not (p.converged and p.excess_loss > 0.0)]
        reasons = "; ".join(f"T = {p.horizon}: {p.message}" for p in bad)
        raise SolveFailed(f"fewer than two horizons can be fitted: {reasons}", None)
    return {
        "phase": study.problem.phase,
        "exponent": number(study.fit, "exponent"),
        "stderr": number(study.fit, "stderr"),
        "drift": number(study.fit, "drift"),
        "theory": study.theory.get("expected", math.nan),
        "peak_exponent": -number(study.peak_fit, "exponent"),
        "local_slopes": study.fit.local_slopes.tolist(),
    }


def _points(study: Scaling) -> dict[str, Any]:
    """What is known at every horizon; NaN where a solve failed."""
    points = study.points
    proofs = [p.solution.certificate if p.solution is not None else None for p in points]
    return {
        "excess_loss": [p.excess_loss if p.converged else math.nan for p in points],
        "over_floor": [p.over_floor if p.converged else math.nan for p in points],
        "certified_gap": [math.nan if c is None else c.certified_gap for c in proofs],
        "peak": [p.peak_eta for p in points],
        "annealing": [p.annealing_time / p.horizon for p in points],
        "messages": [f"T = {p.horizon}: {p.message}" for p in points if not p.converged],
    }


@dataclass(frozen=True)
class Field:
    """A number of each cell that can be drawn.

    Attributes
    ----------
    label : str
        For the axis.
    read : callable
        From the result of a cell.
    log : bool
        Whether it is drawn on a logarithmic scale.
    """

    label: str
    read: Callable[[Mapping[str, Any]], float]
    log: bool = False


def _regret(name: str) -> Field:
    shown = name.upper() if name == "wsd" else name
    return Field(f"regret of best {shown}", lambda cell: cell["regret"].get(name, math.nan), True)


def _key(name: str) -> Callable[[Mapping[str, Any]], float]:
    return lambda cell: cell.get(name, math.nan)


def _over_floor(cell: Mapping[str, Any]) -> float:
    # Cells of earlier versions do not have it.
    return cell.get("over_floor", [math.nan])[-1]


FIELDS: dict[str, Field] = {
    "exponent": Field("exponent of the loss", _key("exponent")),
    "stderr": Field("its standard error", _key("stderr"), True),
    "theory": Field("exponent in theory", _key("theory")),
    "deviation": Field("exponent minus theory", lambda cell: cell["exponent"] - cell["theory"]),
    "annealing": Field("annealing fraction", lambda cell: cell["annealing"][-1]),
    "peak_exponent": Field("exponent of the peak rate", _key("peak_exponent")),
    "certified_gap": Field("certified gap", lambda cell: max(cell["certified_gap"]), True),
    **{name: _regret(name) for name in FAMILIES_SHOWN},
    "over_floor": Field("optimum over floor of all optimisers", _over_floor, True),
    "gain": Field("loss of SGD over loss with all controls", _key("gain"), True),
    "gain_exponent": Field("exponent minus that of SGD", _key("gain_exponent")),
}


@dataclass(frozen=True, eq=False, repr=False)
class PhaseDiagram(Brief):
    """Cells over a grid of a and b.

    Attributes
    ----------
    a : numpy.ndarray, shape (n,)
    b : numpy.ndarray, shape (k,)
    sweep : Sweep
        Its rows are the cells, ``a`` fastest.
    """

    a: Floats
    b: Floats
    sweep: Sweep

    @property
    def horizons(self) -> tuple[int, ...]:
        """Horizons of the fits; annealing, regrets and gains are at the last."""
        return tuple(self.sweep.settings["horizons"])

    @property
    def failed(self) -> tuple[Row, ...]:
        """Cells without a result."""
        return self.sweep.failed

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Fields that some cell has."""
        return tuple(name for name in FIELDS if np.isfinite(self.field(name)).any())

    def field(self, name: str) -> Floats:
        """One number a cell.

        Parameters
        ----------
        name : str
            A name in `FIELDS`.

        Returns
        -------
        numpy.ndarray, shape (k, n)
            Rows are b, columns a; NaN for a failed cell and for what a cell does not have.
        """
        if name not in FIELDS:
            raise InvalidProblem("field", name, ", ".join(FIELDS))
        read = FIELDS[name].read
        values = [read(r.result) if r.status == "done" else math.nan for r in self.sweep.rows]
        return np.array(values, float).reshape(len(self.b), len(self.a))

    def table(self) -> list[dict[str, Any]]:
        """A flat row for each cell: a, b, status, phase, all fields, and why it failed."""
        columns = {name: self.field(name).ravel() for name in FIELDS}
        return [
            {
                "a": row.cell["a"],
                "b": row.cell["b"],
                "status": row.status,
                "phase": row.result.get("phase", "") if row.status == "done" else "",
                **{name: json_ready(float(values[i])) for name, values in columns.items()},
                "messages": "; ".join(row.result["messages"])
                if row.status == "done"
                else row.error,
            }
            for i, row in enumerate(self.sweep.rows)
        ]

    def summary(self) -> dict[str, Any]:
        """One JSON-able object, with a short account and all cells."""
        cells = self.table()
        return {
            "a": self.a.tolist(),
            "b": self.b.tolist(),
            "horizons": list(self.horizons),
            "problem": {n: json_ready(v) for n, v in self.sweep.settings["problem"].items()},
            "cells": len(cells),
            "failed": len(self.failed),
            "missing": len(self.sweep.missing),
            "resumed": self.sweep.resumed,
            "corrupt": list(self.sweep.corrupt),
            "seconds": sum(r.seconds for r in self.sweep.rows if r.status != "missing"),
            "rows": cells,
        }

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the table as csv, as a whole or not at all."""
        write_table(path, self.table(), overwrite=overwrite)


def phase_diagram(
    a: ArrayLike,
    b: ArrayLike,
    horizons: Sequence[int],
    *,
    like: Problem | None = None,
    families: Sequence[str] = FAMILIES_SHOWN,
    folder: str | os.PathLike[str] | None = None,
    executor: Executor | None = None,
    workers: int | None = None,
    retry_failed: bool = False,
    shard: tuple[int, int] | Shard | None = None,
    stop: Callable[[], bool] | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> PhaseDiagram:
    """Solve the optimum along horizons over a grid of exponents.

    Parameters
    ----------
    a, b : array_like
        Exponents, > 1, increasing.
    horizons : sequence of int
        At least two, increasing.
    like : Problem, optional
        Gives everything else: batch size, noise, bound of the rate, features, controls. Infinitely
        many features and the defaults of `Problem` if not given. With momentum among the controls
        a cell has its gain over SGD as well, and takes minutes.
    families : sequence of str
        Names in `optsched.studies.finders.SCHEDULES` whose regret is measured at the longest
        horizon: of ``constant``, ``linear`` and ``cosine`` the peak is tuned, of ``wsd`` the decay
        as well, of any other all it has.
    folder, executor, workers, retry_failed, shard, stop, progress
        As in `optsched.studies.sweep.run.sweep`: where finished cells are kept, where they run, and
        which of them. Cells that are left have the status ``"missing"``.

    Returns
    -------
    PhaseDiagram

    Raises
    ------
    InvalidProblem
        If an exponent, a horizon or a family is not allowed, or ``like`` is no power law.
    BadFile
        If the folder holds something else.
    SweepFailed
        If a worker died.
    """
    grid_a, grid_b = _axis("a", a), _axis("b", b)
    steps = [int(t) for t in checked_points(list(horizons), np.ones(len(horizons)), None, 0)[0]]
    like = Problem(2.0, 2.0, steps[-1], features=math.inf) if like is None else like
    if like.a is None:
        raise InvalidProblem("like", "a problem with a spectrum of its own", "a power law")
    if keywords(like.optimiser) is None:  # cells are told of it by name
        name = type(like.optimiser).__name__
        raise InvalidProblem("like", f"optimiser {name}", "an optimiser of the library's own")
    like.refuse_objective()
    for name in families:
        finder = SCHEDULES.get(name)
        if not isinstance(finder, FamilyFinder):
            known = ", ".join(one for one in SCHEDULES if one != "optimal")
            raise InvalidProblem("families", name, known)
        finder.check(like.plain)
    shared = {f.name: getattr(like, f.name) for f in fields(Problem) if f.init}
    problem: dict[str, Any] = {n: v for n, v in shared.items() if n not in OWN}
    problem["eta_max"] = like.given_eta_max
    problem["controls"] = list(like.controls)
    for x, y in ((grid_a[0], grid_b[0]), (grid_a[-1], grid_b[-1])):
        Problem(float(x), float(y), steps[0], **problem)  # refuse what no cell could do
    cells = [{"a": float(x), "b": float(y)} for y in grid_b for x in grid_a]
    settings = {"problem": problem, "horizons": steps, "families": list(families)}
    done = sweep(
        phase_cell,
        cells,
        kind="phase-diagram",
        settings=settings,
        folder=folder,
        executor=executor,
        workers=workers,
        retry_failed=retry_failed,
        shard=shard,
        stop=stop,
        progress=progress,
    )
    return PhaseDiagram(grid_a, grid_b, done)


def _axis(name: str, values: ArrayLike) -> Floats:
    try:
        found = np.atleast_1d(np.asarray(values, float))
    except (TypeError, ValueError):
        found = np.zeros(0)
    good = found.ndim == 1 and len(found) and np.all(np.diff(found) > 0.0)
    if not (good and np.all(np.isfinite(found)) and found[0] > 1.0):
        raise InvalidProblem(name, values, "numbers > 1 that increase")
    return found
