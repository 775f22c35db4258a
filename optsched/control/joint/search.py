"""Joint solves: several starts, continuation in the horizon, nodes doubled from level to level."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np

from optsched.arrays import Floats
from optsched.control.conclude import LEAST_CURVATURE, Stage
from optsched.control.goal import Goal
from optsched.control.joint.curved import CurvedObjective
from optsched.control.joint.hessian import lowest_curvature
from optsched.control.joint.moments import MomentObjective
from optsched.control.joint.newton import newton
from optsched.control.joint.nodes import ControlNodes
from optsched.control.joint.smooth import smoothest
from optsched.control.joint.starts import Controls, completed, named_starts
from optsched.control.mesh import StepMesh, log_clock, log_mesh, split_mesh
from optsched.control.methods.pontryagin import Pontryagin
from optsched.control.methods.shooting import task_residual
from optsched.control.problem import Problem
from optsched.control.rate.search import RateOptima
from optsched.control.task import Iterate, Method, Task, run_method
from optsched.model.linear.step import arithmetic
from optsched.model.moments import LinearOptimiser
from optsched.optimisers.coordinates import Batch, Chart, Constant
from optsched.schedules.schedule import Schedule

__all__ = ["control_nodes", "from_plain", "optimise_joint", "stretched"]


KNOTS = 112
FREE = 150  # horizons up to which every step is free
LEVELS = (9, 17, 33)
EVERY_STEP = (1e-7, 1e-8)  # where every step is free
SHORT = 1000  # horizons up to this are solved without continuation
FACTOR = 30
SMOOTHING = (1e-4, 1e-5, 1e-6)  # on these levels; at last none
FIRST_TOL = 1e-3  # of every level but the last
CALM_TOL = 1e-4
COARSE_ITERATIONS = 150
MESH_TOL = 1e-3
MAX_ROUNDS = 4
MAX_HALVINGS = 60
MAX_ESCAPES = 3
NEWTON_STEPS = 60
FREE_STEPS = 400  # where every step is free: the valleys are long
ESCAPES = (-0.3, 0.3)  # steps along a direction of negative curvature


def _charts(problem: Problem, mesh: StepMesh) -> list[Chart]:
    """Coordinates of the controls of a problem at the padded knots of a mesh."""
    knots = mesh.padded + 1
    held = [Constant({"eta": problem.eta_max}, knots)] if problem.rate_held else []
    charts = [*held, *problem.optimiser.charts(problem.setting, knots)]
    if problem.samples is not None:
        charts.append(Batch(problem.samples, mesh.step_weights))
    return charts


def control_nodes(problem: Problem, mesh: StepMesh, count: int | None) -> ControlNodes:
    """Free variables of a joint problem: ``count`` nodes a coordinate, or one at every knot."""
    count = None if count is None else min(count, problem.horizon)
    return ControlNodes(mesh, _charts(problem, mesh), count, problem.jumps)


def joint_objective(
    problem: Problem, mesh: StepMesh, nodes: ControlNodes, smoothing: float = 0.0
) -> Goal:
    """The objective of a joint problem: in NumPy if it can be, with its Hessian if there is one."""
    dynamics = problem.dynamics
    rest = problem.modes, mesh, nodes, smoothing, problem.terms
    if not arithmetic(dynamics):
        from optsched.control.traced import TracedObjective

        return TracedObjective(dynamics, *rest)
    assert isinstance(dynamics, LinearOptimiser)
    if nodes.local:
        return CurvedObjective(dynamics, *rest)
    return MomentObjective(dynamics, *rest)


def joint_mesh(problem: Problem) -> StepMesh:
    """The first mesh of a joint problem: every step of a short horizon."""
    horizon = problem.horizon
    knots = horizon if horizon <= FREE else KNOTS
    return log_mesh(horizon, knots, problem.warmup, problem.corners)


@dataclass(frozen=True)
class _Found:
    """A local search: its task, where it ended, and the value of log E there."""

    task: Task
    iterate: Iterate
    value: float

    @property
    def nodes(self) -> ControlNodes:
        variables = self.task.objective.variables
        assert isinstance(variables, ControlNodes)
        return variables

    @property
    def x(self) -> Floats:
        return self.iterate.x


class _Solver:
    """Local searches, and what they cost together."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.starts: list[str] = []
        self.evaluations = 0

    def run(
        self,
        problem: Problem,
        mesh: StepMesh,
        nodes: ControlNodes,
        x: Floats,
        tol: float,
        smoothing: float = 0.0,
        iterations: int | None = None,
    ) -> _Found:
        """Improve a point on the given nodes."""
        objective = joint_objective(problem, mesh, nodes, smoothing)
        lower, upper = nodes.lower, nodes.upper
        for _ in range(MAX_HALVINGS):
            if math.isfinite(objective(x)[0]):
                break
            x = nodes.calmer(x)
        x = np.clip(x, lower, upper)
        task = Task(problem, mesh, objective, x, lower, upper, tol, iterations)
        if iterations == 0:
            iterate = Iterate(task.start, False, "not moved", stats={"iterations": 0})
        elif self.curved(objective) and iterations is None:
            steps = NEWTON_STEPS if nodes.asked is not None else FREE_STEPS
            iterate = newton(objective, x, lower, upper, tol, steps)
        else:
            iterate = run_method(self.method, task)
        value = objective(iterate.x)[0]
        self.evaluations += objective.evaluations
        return _Found(task, iterate, _finite(value))

    def curved(self, objective: Goal) -> TypeGuard[CurvedObjective]:
        """Whether Newton's method is better than the one given."""
        return isinstance(objective, CurvedObjective) and isinstance(self.method, Pontryagin)

    def coarse(self, problem: Problem, name: str, controls: Controls | Floats) -> _Found:
        """Search on the coarsest nodes, from controls at the knots or from variables."""
        mesh = joint_mesh(problem)
        nodes = control_nodes(problem, mesh, LEVELS[0])
        x = nodes.fit(controls) if isinstance(controls, dict) else controls
        self.starts.append(name)
        return self.run(problem, mesh, nodes, x, FIRST_TOL, SMOOTHING[0], COARSE_ITERATIONS)

    def many(self, problem: Problem, sgd: Schedule | None) -> _Found:
        """The best of all named starts."""
        mesh = joint_mesh(problem)
        starts = named_starts(problem, mesh.steps.astype(float), sgd)
        found = [self.coarse(problem, name, start) for name, start in starts.items()]
        return min(found, key=lambda one: one.value)

    def settled(self, found: _Found, tol: float) -> tuple[_Found, float]:
        """Leave saddle points along negative curvature; a minimum, and its lowest curvature."""
        curvature = 0.0
        for _ in range(MAX_ESCAPES):
            task, x = found.task, found.x
            before = task.objective.evaluations
            curvature, direction = lowest_curvature(task.objective, x, task.lower, task.upper)
            self.evaluations += task.objective.evaluations - before
            if curvature >= LEAST_CURVATURE:
                break
            points = [np.clip(x + s * direction, task.lower, task.upper) for s in ESCAPES]
            start = min(points, key=lambda point: _finite(task.objective(point)[0]))
            after = self.run(task.problem, task.mesh, found.nodes, start, tol)
            if not after.value < found.value:
                break
            found = after
        return found, curvature

    def stage(self, found: _Found, curvature: float) -> Stage:
        """What was found, with its gradient and audit."""
        task = found.task
        return Stage(
            task,
            found.iterate,
            task.objective(found.x)[1],
            task_residual(task, found.x),
            task.tol,
            task.objective.audit(found.x),
            self.evaluations,
            tuple(self.starts),
            curvature,
        )

    def smoothed(self, stage: Stage, share: float) -> Stage:
        """The smoothest schedule next to that of a stage, for a share of its loss."""
        objective, best = stage.task.objective, stage.iterate.x
        if not (share and self.curved(objective)):
            return stage
        before, value = objective.evaluations, objective(best)[0]
        x = smoothest(objective, best, share)
        lost = math.expm1(objective(x)[0] - value)
        if lost < 0.0:  # another basin, and a better one
            task = stage.task
            found = self.run(task.problem, task.mesh, objective.variables, x, stage.tol)
            if found.value < value and found.iterate.converged:
                return self.smoothed(self.stage(*self.settled(found, stage.tol)), share)
            lost = 0.0
        return replace(
            stage,
            iterate=replace(stage.iterate, x=x),
            audit=objective.audit(x),
            evaluations=stage.evaluations + objective.evaluations - before,
            conceded=lost,
        )

    def again(
        self, found: _Found, mesh: StepMesh, level: int | None, tol: float, smoothing: float
    ) -> _Found:
        """Carry on with other nodes and another mesh; no level is a node at every knot."""
        problem = found.task.problem
        nodes = control_nodes(problem, mesh, LEVELS[level] if level is not None else None)
        x = found.nodes.moved(found.x, nodes)
        return self.run(problem, mesh, nodes, x, tol, smoothing)

    def refined(self, found: _Found) -> StepMesh:
        """The mesh with blocks halved until their errors are small, at the controls found."""
        problem, objective, mesh = found.task.problem, found.task.objective, found.task.mesh
        for _ in range(MAX_ROUNDS):
            errors = np.abs(objective.audit(found.x).errors)
            if not errors.sum() > MESH_TOL:
                break
            mesh = split_mesh(mesh, errors > 0.3 * MESH_TOL / len(errors), problem.warmup)
            nodes = control_nodes(problem, mesh, found.nodes.asked)
            objective = joint_objective(problem, mesh, nodes)
        return mesh

    def finish(self, found: _Found, tol: float) -> _Found:
        """Double the nodes, and refine the mesh until its error is small."""
        for level in range(1, len(LEVELS)):
            found = self.again(found, found.task.mesh, level, FIRST_TOL, SMOOTHING[level])
        free = len(found.task.mesh.steps) == found.task.problem.horizon
        if free and isinstance(found.task.objective, CurvedObjective):
            # Rough schedules can be better, and are found from smooth ones.
            for smoothing in EVERY_STEP:
                found = self.again(found, found.task.mesh, None, FIRST_TOL, smoothing)
            return self.again(found, found.task.mesh, None, tol, 0.0)
        # Without the smoothing, which hardly moves it: the gradient is that of the loss alone.
        found = self.again(found, found.task.mesh, -1, CALM_TOL, 0.0)
        mesh = self.refined(found)
        for _ in range(MAX_ROUNDS):
            found = self.again(found, mesh, -1, tol, 0.0)
            mesh = self.refined(found)
            if len(mesh.steps) == len(found.task.mesh.steps):
                break
        return found


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.inf


def _horizons(problem: Problem) -> list[int]:
    """Horizons of the continuation, the last one first; none where steps have names."""
    out = [problem.horizon]
    while out[-1] > SHORT and len(problem.corners) == 2:
        out.append(-(-out[-1] // FACTOR))
    return out


def _shortened(problem: Problem, horizon: int) -> Problem:
    """The same problem over fewer steps, with the same mean batch size."""
    changes: dict[str, Any] = {"horizon": horizon, "warmup": min(problem.warmup, horizon // 2)}
    if problem.samples is not None:
        changes["samples"] = problem.samples * horizon / problem.horizon
    return problem if horizon == problem.horizon else problem.replace(**changes)


def stretched(schedule: Schedule, horizon: int) -> Schedule:
    """A schedule moved to another horizon, on the log clock scaled to its length."""
    before = schedule.horizon
    steps = log_mesh(horizon, KNOTS).steps
    old = log_clock(schedule.steps.astype(float), before)
    new = log_clock(steps.astype(float), horizon)
    new = new * (old[-1] / new[-1] if horizon > 1 else 0.0)
    controls = {name: np.interp(new, old, v) for name, v in schedule.controls.items()}
    return Schedule.from_knots(steps, controls, horizon=horizon)


def optimise_joint(
    problem: Problem,
    method: Method,
    optima: RateOptima,
    initial: Schedule | None,
    tol: float,
    smooth: float,
) -> Stage:
    """Find a local optimum of a joint problem, and a smooth schedule next to it.

    All named starts are tried at a short horizon; the best is carried to longer ones, a factor of
    ten at a time, since optima are alike on the log clock. At the full horizon the plain optimum
    is tried once more.

    Parameters
    ----------
    problem : Problem
    method : Method
        Improves the nodes of one mesh.
    optima : RateOptima
        Of the learning rate alone.
    initial : Schedule, optional
        Then the only start.
    tol : float
        Wanted KKT residual of the optimum.
    smooth : float
        Share of its loss that smoothness may cost.
    """
    solver = _Solver(method)
    if initial is not None:
        steps = joint_mesh(problem).steps
        given = {name: np.asarray(initial(steps, name)) for name in initial.controls}
        best = solver.coarse(problem, "initial", completed(problem, given, len(steps)))
    else:
        horizons = _horizons(problem)
        short = _shortened(problem, horizons[-1])
        best = solver.many(short, optima.schedule(short))
        for horizon in reversed(horizons[:-1]):
            # Nodes keep their places on the log clock, relative to its length.
            longer = _shortened(problem, horizon)
            best = solver.coarse(longer, f"optimum of T = {best.task.problem.horizon}", best.x)
    stage = solver.stage(*solver.settled(solver.finish(best, tol), tol))
    return solver.smoothed(stage, smooth)


def from_plain(problem: Problem, method: Method, plain: Schedule, tol: float) -> list[Stage]:
    """Stages of a joint problem at a schedule of the rate alone, and downhill from it.

    For problems in which the other controls bring so little that nodes on the log clock lose
    more: here every knot of the given schedule is a node.
    """
    solver = _Solver(method)
    steps = np.union1d(plain.steps, problem.corners[:-1])
    mesh = StepMesh(steps, plain.horizon, np.arange(len(steps)), np.ones(len(steps)))
    if problem.warmup:
        mesh = split_mesh(mesh, np.zeros(len(steps), bool), problem.warmup)
    nodes = control_nodes(problem, mesh, None)
    eta, others = np.asarray(plain(steps), float), problem.optimiser.plain(problem.controls) or {}
    own = {name: np.full(len(eta), value) for name, value in others.items()}
    x = nodes.fit(completed(problem, {"eta": eta} | own, len(eta)))
    solver.starts.append("rate alone")
    still = solver.run(problem, mesh, nodes, x, tol, iterations=0)
    return [
        solver.stage(still, -math.inf),
        solver.stage(*solver.settled(solver.run(problem, mesh, nodes, x, tol), tol)),
    ]
