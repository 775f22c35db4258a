r"""Direct collocation: states and rates are the variables of one sparse nonlinear program.

The program is `optsched.control.methods.transcription.Transcription`, solved by IPOPT within a box
around the log rates of the start. If the box holds a rate back, the program is built anew around
the point that was reached: far from the optimum Newton's method on states and rates together
wanders, and in log rates :math:`\eta \to 0` is a false optimum of every rate that matters little.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optsched.arrays import Floats
from optsched.control.mesh import StepMesh
from optsched.control.methods.nlp import ProgramResult, solve_program
from optsched.control.methods.transcription import Transcription
from optsched.control.task import Iterate, Method, Task
from optsched.model.dynamics import SGDDynamics
from optsched.numerics import jax_settings

__all__ = ["Collocation"]


TRUST = 0.7  # half-width of the box in log rate
BACK_OFF = (0.0, 0.01, 0.03, 0.1, 0.3)  # from the upper bound of the log rate, at the start
SHRINK = 0.3  # of the box after a failure
SMALLEST = 1e-2  # box, at which to give up
ROUND_ITERATIONS = 60  # of IPOPT in one box; more are a sign of wandering
# Tolerance asked of IPOPT, over that of the task, which is acceptable. The barrier holds active
# constraints off by about the tolerance over their multiplier: where the rate of change is bounded
# a smaller one tells the active from the inactive.
STRICT, STRICTER = 1e-2, 1e-3
SLACK = 1e-4  # of log E: by how much program and mesh may disagree about start and optimum
MORE = "raise max_iterations, or start from another schedule."
OPTIONS: dict[str, Any] = {
    # The program is scaled already; a permuting scaling makes the factors slow and inexact.
    "nlp_scaling_method": "none",
    "mumps_scaling": 0,
    "mumps_permuting_scaling": 0,
    "mumps_pivtol": 1e-4,
    "mumps_pivot_order": 5,  # nested dissection: ten times faster than the default choice
    # The start is good: stay close to it.
    "mu_init": 1e-6,
    "bound_push": 1e-5,
    "bound_frac": 1e-5,
    "bound_relax_factor": 0.0,
}


def _calm(mesh: StepMesh, log_eta: Floats, max_change: float | None) -> Floats:
    """Largest schedule below a given one that honours the bound on the rate of change."""
    if max_change is None:
        return log_eta
    rates = np.exp(log_eta)
    steps = mesh.steps[len(mesh.steps) - len(rates) :]
    if steps[0] > 0:  # a warm-up: its slope is bounded too
        rates[0] = min(rates[0], max_change * (steps[0] + 1.0))
    apart = np.abs(steps[:, None] - steps).astype(float)
    return np.log((rates + max_change * apart).min(1))


def _settled(task: Task, log_eta: Floats) -> Floats:
    """Put a point exactly on the bounds that an interior-point method only comes close to."""

    def snap(x: Floats, within: float) -> Floats:
        x = np.where(x > task.upper - within, task.upper, x)
        return np.where(x < task.lower + within, task.lower, x)

    # The second time for the rounding of log and exp.
    return snap(_calm(task.mesh, snap(log_eta, 1e-6), task.problem.max_change), 1e-12)


def _start(task: Task) -> Floats:
    """The start of the task, off its upper bounds where that is better, and feasible.

    At the stability limit the loss does not fall at all without label noise, and no method gets
    away from there in few steps.
    """
    starts = []
    for offset in BACK_OFF:
        start = np.clip(np.minimum(task.start, task.upper - offset), task.lower, task.upper)
        calm = _calm(task.mesh, start, task.problem.max_change)
        starts.append(np.maximum(calm, task.lower))
    values = [task.objective(start)[0] for start in starts]
    return starts[int(np.argmin([v if math.isfinite(v) else math.inf for v in values]))]


@dataclass
class _Search:
    """The boxes that were searched so far."""

    centre: Floats
    left: int
    radius: float = TRUST
    rounds: int = 0
    converged: bool = False
    message: str = ""
    best: Floats = field(default_factory=lambda: np.zeros(0))
    history: list[tuple[float, float]] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)

    def take(self, program: Transcription, result: ProgramResult, reached: Floats) -> bool:
        """Note a result; true if another box is worth a try."""
        self.rounds += 1
        self.left -= max(result.iterations, 1)
        self.message = result.message
        self.history += zip(result.objective, result.dual, strict=True)
        self.stats.update(
            status=result.status,
            variables=len(program.lower),
            constraints=len(program.row_lower),
            excess_loss=math.exp(min(result.objective[-1], 700.0))
            if result.objective
            else math.nan,
            primal_infeasibility=result.primal[-1] if result.primal else math.nan,
            dual_infeasibility=result.dual[-1] if result.dual else math.nan,
        )
        self.best = reached
        if result.converged:
            moved = np.abs(reached - self.centre)
            self.centre = reached
            self.converged = bool(moved.max() < self.radius - 1e-3)
            if not self.converged:
                self.message = "The rates still moved when the iterations were spent; " + MORE
        else:
            self.radius *= SHRINK
        return not self.converged and self.left > 0 and self.radius > SMALLEST


@dataclass(frozen=True)
class Collocation(Method):
    """Direct transcription by Radau IIA collocation, solved by IPOPT.

    Parameters
    ----------
    knots : int
        Number of knots to start with.
    stages : int
        Radau IIA points in a block.
    max_iterations : int
        Limit of IPOPT's iterations.
    verbose : bool
        Let IPOPT write its log to the standard output.
    """

    name = "collocation"
    bounds_change = True

    knots: int = 48
    stages: int = 3
    max_iterations: int = 200
    verbose: bool = False

    def run(self, task: Task) -> Iterate:
        """Solve the transcription on the mesh of the task; never raises for non-convergence."""
        dynamics = task.objective.dynamics
        if type(dynamics) is not SGDDynamics or dynamics.continuous:
            raise TypeError(f"collocation knows the recursion of plain SGD only, not {dynamics!r}")
        start = _start(task)
        search = _Search(start, self.max_iterations)
        strict = STRICT if task.problem.max_change is None else STRICTER
        seconds = np.zeros(2)
        more = True
        while more:
            began = time.perf_counter()
            program = self._program(task, dynamics, search)
            built = time.perf_counter()
            with jax_settings():
                result = solve_program(
                    program,
                    program.x0,
                    verbose=self.verbose,
                    tol=strict * task.tol,
                    acceptable_tol=task.tol,
                    acceptable_iter=4,
                    max_iter=min(search.left, ROUND_ITERATIONS),
                    **OPTIONS,
                )
            seconds += (built - began, time.perf_counter() - built)
            more = search.take(program, result, _settled(task, program.log_rates(result.x)))
        return self._finish(task, search, start, seconds)

    def _program(self, task: Task, dynamics: SGDDynamics, search: _Search) -> Transcription:
        metric = task.objective(search.centre)[2]
        usable = bool(np.all(np.isfinite(metric)) and metric.max() > 0.0)
        return Transcription(
            dynamics,
            task.objective.modes.padded(),
            task.mesh,
            search.centre,
            np.maximum(task.lower, search.centre - search.radius),
            np.minimum(task.upper, search.centre + search.radius),
            stages=self.stages,
            max_change=task.problem.max_change,
            metric=metric if usable else None,
        )

    def _finish(self, task: Task, search: _Search, start: Floats, seconds: Floats) -> Iterate:
        """The last point, or the last box's centre or the start where those are better."""
        points = [search.best, search.centre, start] if not search.converged else [search.best]
        values = [task.objective(point)[0] for point in [*points, start]]
        *values, before = [value if math.isfinite(value) else math.inf for value in values]
        chosen = int(np.argmin(values))
        log_eta, converged, message = points[chosen], search.converged, search.message
        if converged and values[0] > before + SLACK:
            converged, log_eta = False, start
            message = (
                "The program's optimum is worse than the start on the exact recursion, so the "
                "start is kept: the mesh is too coarse; add knots or stages."
            )
        stats = {
            "iterations": self.max_iterations - search.left,
            "boxes": search.rounds,
            **search.stats,
            "build_seconds": float(seconds[0]),
            "solve_seconds": float(seconds[1]),
        }
        return Iterate(log_eta, converged, message, search.history, stats)
