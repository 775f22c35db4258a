"""The learning rate of plain SGD alone: geodesic start, graded mesh, method, refinement."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from optsched.arrays import Floats
from optsched.control.bounds.geodesic import Geodesic, relaxed_geodesic
from optsched.control.certificate import UNDERFLOW
from optsched.control.conclude import Stage
from optsched.control.mesh import StepMesh, graded_mesh, joined_mesh, split_mesh
from optsched.control.methods.descent import projected_gradient, strict_tolerance
from optsched.control.methods.pontryagin import Pontryagin
from optsched.control.methods.shooting import Shooting, task_residual
from optsched.control.problem import Problem
from optsched.control.rate.neighbours import has_fold, rearranged, switched
from optsched.control.rate.plain import PlainObjective
from optsched.control.task import Iterate, Method, Task, run_method
from optsched.model.dynamics import SGDDynamics
from optsched.schedules.schedule import Schedule

__all__ = ["RateOptima", "optimise_rate", "rate_method"]

# Blocks are halved until their estimated errors of log E sum to less than this.
MESH_TOL = 1e-4
MAX_ROUNDS = 8
NEAR = 0.1  # of being too coarse: blocks so near to it may hold a method back
GAIN = 1e-6  # of log E: less is not worth rates above the stability limit
PIECES = 8  # that these are split into
LEAST_ITERATIONS = 30
EFFORT = 3e5  # evaluations times knots, from which on a search that stopped short is given up
MOST_KNOTS = 2000  # from which on they are not
EVERY_STEP = 400  # knots where a usual mesh fails
CONSTRAINED = 120  # with a bounded change, which costs as their cube
MOST_BURSTS = 128  # steps of which orders of bursts are tried
RATE_TOL = 1e-6
LEAST_SHARE = 1e-35  # of the largest rate: 0 for all that the loss can see


def rate_method(problem: Problem) -> Method:
    """The library's own choice for the learning rate alone."""
    return Pontryagin() if problem.max_change is None else Shooting()


def _paths(problem: Problem) -> list[Geodesic]:
    """The relaxed geodesic to every corner of the objective, the last one to the horizon."""
    m, sigma2, cap = problem.batch_size, problem.noise**2, problem.eta_cap
    ends = problem.terms.corners[1:]
    return [relaxed_geodesic(problem.modes, m, sigma2, cap, int(end)) for end in ends]


def _first_mesh(problem: Problem, paths: list[Geodesic], knots: int) -> StepMesh:
    """Graded towards every corner of the objective."""
    top, warmup = problem.spectrum.largest, problem.warmup
    if len(paths) == 1:
        return graded_mesh(paths[0], problem.horizon, knots, top, warmup)
    meshes = []
    for path, end in zip(paths, problem.terms.corners[1:].tolist(), strict=True):
        meshes.append(graded_mesh(path, end, knots, top, warmup if warmup < end else 0))
    return joined_mesh(meshes, warmup)


def _start_rates(problem: Problem, paths: list[Geodesic], mesh: StepMesh) -> Floats:
    """Log rates of the free controls along the geodesics, kept away from the noise limit."""
    # The geodesic does not see that noise feeds on itself near eta = 2m / trace.
    calm = problem.batch_size / problem.spectrum.trace
    ends, rates = problem.terms.corners[1:], np.zeros(mesh.controls)
    for path, begin, end in zip(paths, [0, *ends[:-1]], ends, strict=True):
        here = (mesh.free_steps >= begin) & (mesh.free_steps < end)
        rates[here] = np.interp(mesh.free_steps[here], path.t, path.eta)
    return np.log(np.minimum(rates, calm))


def _task(problem: Problem, mesh: StepMesh, start: Floats, tol: float, top: float) -> Task:
    """Improve rates on a mesh, up to ``top``."""
    n = mesh.controls
    # Where a rate of 0 is best, log rates would run away.
    low = math.log(max(problem.eta_min, LEAST_SHARE * problem.eta_cap))
    dynamics = problem.dynamics
    assert isinstance(dynamics, SGDDynamics)
    objective = PlainObjective(dynamics, problem.modes, mesh, problem.terms)
    lower, upper = np.full(n, low), np.full(n, math.log(top))
    most = max(LEAST_ITERATIONS, int(0.4 * EFFORT / len(mesh.steps)))
    return Task(problem, mesh, objective, np.clip(start, lower, upper), lower, upper, tol, most)


def _polish(task: Task, iterate: Iterate, method: Method) -> Iterate:
    """Finish on the block-exact recursion, where another discretisation stopped."""
    end = method.run(replace(task, start=iterate.x))
    stats = {**iterate.stats, "polish_iterations": end.stats["iterations"]}
    stats.setdefault("excess_loss", math.exp(task.objective(iterate.x)[0]))
    return Iterate(end.x, end.converged, iterate.message, iterate.history + end.history, stats)


def _tolerance(task: Task, iterate: Iterate) -> float:
    return strict_tolerance(task.tol, task.objective(iterate.x)[2])


def _run(method: Method, task: Task) -> Stage:
    finisher, iterate = None, run_method(method, task)
    residual = task_residual(task, iterate.x)
    if not residual <= _tolerance(task, iterate):
        polisher = rate_method(task.problem)
        polished = _polish(task, iterate, polisher)
        after = task_residual(task, polished.x)
        if after < residual:
            iterate, residual = polished, after
            # Of one and the same method it is only more iterations.
            finisher = None if type(method) is type(polisher) else polisher.name
    _, gradient, _ = task.objective(iterate.x)
    return Stage(
        task,
        iterate,
        gradient,
        residual,
        _tolerance(task, iterate),
        task.objective.audit(iterate.x),
        task.objective.evaluations,
        finisher=finisher,
    )


def _carried(mesh: StepMesh, finer: StepMesh, x: Floats) -> tuple[StepMesh, Floats]:
    """A finer mesh, and the log rates there."""
    return finer, np.log(mesh.rates(np.exp(x), finer.free_steps))


def _resolved(problem: Problem, mesh: StepMesh, start: Floats, tol: float, top: float) -> Task:
    """A task whose mesh resolves its start: blocks that are too coarse for it are split.

    Where that takes too many knots the start has no loss, and the search ends there.
    """
    while True:
        task = _task(problem, mesh, start, tol, top)
        assert isinstance(task.objective, PlainObjective)
        finer = split_mesh(mesh, task.objective.coarse(task.start), problem.warmup)
        if len(finer.steps) == len(mesh.steps) or len(mesh.steps) > MOST_KNOTS:
            return task
        mesh, start = _carried(mesh, finer, task.start)


def _refined(stage: Stage, near: float = NEAR) -> tuple[StepMesh, Floats]:
    """The mesh with more knots where it asks for them; the same where nothing is left to do.

    Blocks with more than their share of the error are halved. Where the method stopped short of
    an optimum, so are those that held it back: too coarse for rates a little further on.
    """
    task, x = stage.task, stage.iterate.x
    mesh, warmup = task.mesh, task.problem.warmup
    errors = np.abs(stage.audit.errors)
    fine = errors.sum() <= MESH_TOL
    if stage.residual <= stage.tol:
        worst = ~(errors <= 0.3 * MESH_TOL / len(errors)) & (not fine)
        return _carried(mesh, split_mesh(mesh, worst, warmup), x)
    assert isinstance(task.objective, PlainObjective)
    pull = np.abs(projected_gradient(x, stage.gradient, task.lower, task.upper)) > stage.tol
    moved = pull[mesh.source]
    moved[:-1] |= moved[1:]
    held = task.objective.coarse(x, near) & moved
    if len(mesh.steps) > MOST_KNOTS:
        held[:] = False
    return _carried(mesh, split_mesh(mesh, held, warmup, PIECES), x)


def optimise_rate(problem: Problem, method: Method, initial: Schedule | None, tol: float) -> Stage:
    """Optimise on graded meshes, refined until the discretisation error is small.

    Parameters
    ----------
    problem : Problem
        Of the learning rate of plain SGD alone.
    method : Method
        Improves the rates of one mesh.
    initial : Schedule, optional
        Start from it instead of the relaxed geodesic.
    tol : float
        Wanted KKT residual.
    """
    paths = _paths(problem)
    mesh = _first_mesh(problem, paths, method.knots)
    start = _start_rates(problem, paths, mesh)
    if initial is not None:
        start = np.log(np.maximum(initial(mesh.free_steps), 1e-12 * problem.eta_cap))
    stage = _on_meshes(problem, method, mesh, start, tol, problem.eta_cap)
    if not stage.residual <= stage.tol or stage.audit.value <= UNDERFLOW:
        # Where the loss falls by orders of magnitude in a step only steps are fine enough, and
        # the rate that contracts the first mode most is a good start.
        fold = 1.0 / ((1.0 + 1.0 / problem.batch_size) * problem.spectrum.largest)
        knots = EVERY_STEP if problem.max_change is None else CONSTRAINED
        mesh = _first_mesh(problem, paths, knots)
        start = np.full(mesh.controls, math.log(min(fold, problem.eta_cap)))
        again = _on_meshes(problem, method, mesh, start, tol, problem.eta_cap)
        values = [one.task.objective(one.iterate.x)[0] for one in (stage, again)]
        stage = again if again.residual <= again.tol or values[1] < values[0] else stage
        if not math.isfinite(stage.residual) and problem.eta_min < fold < problem.eta_cap:
            stage = _below(problem, method, fold, tol) or stage
    return _best_neighbour(_beyond(stage, method), method)


def _below(problem: Problem, method: Method, top: float, tol: float) -> Stage | None:
    """The best rates up to ``top``, where no block is too coarse, judged by the problem's bound."""
    paths = _paths(problem)
    mesh = _first_mesh(problem, paths, method.knots)
    start = np.minimum(_start_rates(problem, paths, mesh), math.log(top))
    found = _on_meshes(problem, method, mesh, start, tol, top)
    upper = np.full_like(found.task.upper, math.log(problem.eta_cap))
    task = replace(found.task, upper=upper)
    residual = task_residual(task, found.iterate.x)
    return replace(found, task=task, residual=residual) if math.isfinite(residual) else None


def _on_meshes(
    problem: Problem,
    method: Method,
    mesh: StepMesh,
    start: Floats,
    tol: float,
    top: float,
    known: float = math.inf,
) -> Stage:
    """Optimise on a mesh, and on finer ones while that helps, to below a value that is known."""
    evaluations, effort, finisher = 0, 0, None
    for k in range(MAX_ROUNDS):
        stage = _run(method, _resolved(problem, mesh, start, tol, top))
        evaluations += stage.task.objective.evaluations
        # A mesh that starts from what another method found owes that to it.
        finisher = stage.finisher or finisher
        effort += stage.task.objective.evaluations * len(stage.task.mesh.steps)
        idle = stage.task.objective(stage.iterate.x)[0] > known - GAIN
        if idle or (effort > EFFORT and not stage.residual <= stage.tol):
            break
        mesh, start = _refined(stage, NEAR * 2.0**k)
        if len(mesh.steps) == len(stage.task.mesh.steps):
            break
    return replace(stage, evaluations=evaluations, finisher=finisher)  # pyright: ignore[reportPossiblyUnboundVariable]


def _beyond(stage: Stage, method: Method) -> Stage:
    """The stage, or a better one with rates above the stability limit of a constant rate.

    The limit is no bound: for a few steps larger rates can pay, each for its own mode.
    """
    problem, task = stage.problem, stage.task
    converged = stage.residual <= stage.tol
    if not problem.eta_top > problem.eta_cap or problem.max_change is not None or not converged:
        return stage
    value = task.objective(stage.iterate.x)[0]
    rest = stage.iterate.x, task.tol, problem.eta_top, value
    found = _on_meshes(problem, method, task.mesh, *rest)
    better = found.task.objective(found.iterate.x)[0] < value - GAIN
    sound = found.residual <= found.tol and np.abs(found.audit.errors).sum() <= MESH_TOL
    count = stage.evaluations + found.evaluations
    chosen = found if better and sound else stage
    single = problem.horizon == found.task.mesh.controls == chosen.task.mesh.controls
    if single and 1 < problem.horizon <= MOST_BURSTS:
        start = rearranged(found.task, chosen.iterate.x)
        if start is not None:
            again = _run(Pontryagin(), replace(found.task, start=start))
            finisher = None if type(method) is Pontryagin else Pontryagin.name
            chosen = replace(again, finisher=finisher) if again.residual <= again.tol else chosen
        count += found.task.objective.evaluations
    return replace(chosen, evaluations=count)


def _best_neighbour(stage: Stage, method: Method) -> Stage:
    """The stage, or a better local optimum next to it."""
    task, first = stage.task, stage.iterate
    problem = task.problem
    usual = problem.terms.final and problem.max_change is None
    if not (usual and stage.residual <= stage.tol and has_fold(task)):
        return stage
    before = task.objective.evaluations
    start = switched(task, first)
    if start is not None:
        found = _run(Pontryagin(), replace(task, start=start))
        if found.residual <= found.tol:
            history = first.history + found.iterate.history
            iterate = replace(found.iterate, history=history, stats=first.stats)
            finisher = None if type(method) is Pontryagin else Pontryagin.name
            count = stage.evaluations
            stage = replace(found, iterate=iterate, evaluations=count, finisher=finisher)
    return replace(stage, evaluations=stage.evaluations + task.objective.evaluations - before)


class RateOptima:
    """Optimal schedules of the learning rate of plain SGD alone, each solved once."""

    def __init__(self) -> None:
        self._found: dict[int, Schedule] = {}

    def schedule(self, problem: Problem) -> Schedule:
        """The one for a problem; problems differ in their horizons alone."""
        if problem.horizon not in self._found:
            plain = problem.plain
            stage = optimise_rate(plain, rate_method(plain), None, RATE_TOL)
            self._found[problem.horizon] = stage.schedule()
        return self._found[problem.horizon]
