"""Direct single shooting: the controls are the only variables, SciPy the optimiser."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Floats
from optsched.control.certificate import kkt_residual
from optsched.control.methods.descent import projected_gradient
from optsched.control.task import Iterate, Method, Task

__all__ = ["Shooting", "change_constraint", "limit_change", "task_residual"]

BURST = 40  # SLSQP iterations between two looks at the KKT residual
ROUNDING = 1e-12  # of log rates that were scaled and scaled back
NEARLY = 1e-6  # a change within this share of its bound is active


def change_constraint(task: Task) -> tuple[NDArray[np.float64], Floats]:
    """Matrix A (blocks, controls) and width w with ``abs(A @ eta) <= w`` for the bounded change."""
    mesh, limit = task.mesh, task.problem.max_change
    assert limit is not None
    n = len(mesh.steps)
    knots = np.zeros((n, mesh.controls))
    knots[np.arange(n), mesh.source] = mesh.scale
    return np.diff(knots, axis=0), limit * np.diff(mesh.steps).astype(float)


@dataclass(frozen=True)
class Shooting(Method):
    """SciPy's L-BFGS-B (bounds) or SLSQP (bounded change) with the JAX adjoint gradient.

    Parameters
    ----------
    knots : int
        Number of knots of the first mesh.
    max_iterations : int
        Iterations on one mesh.
    """

    knots: int = 80
    max_iterations: int = 2000

    joint: ClassVar[bool] = True
    name: ClassVar[str] = "shooting"
    bounds_change: ClassVar[bool] = True

    def run(self, task: Task) -> Iterate:
        """Improve ``task.start``; the variables are log rates in units of their curvature."""
        _, _, metric = task.objective(task.start)
        # Floor: rates without influence must not become stiff directions.
        floor = max(1e-3 * float(np.median(metric)), np.finfo(float).tiny)
        scale = 1.0 / np.sqrt(np.maximum(metric, floor))
        history: list[tuple[float, float]] = []

        def function(y: Floats) -> tuple[float, Floats]:
            value, gradient, _ = task.objective(y * scale)
            return value, gradient * scale

        if task.problem.max_change is None or len(task.mesh.steps) == 1:
            result = self._bounded(task, function, scale, history)
        else:
            result = self._constrained(task, function, scale)
        x = np.clip(result.x * scale, task.lower, task.upper)
        return Iterate(
            x if task.problem.max_change is None else limit_change(task, x),
            bool(result.success),
            f"{str(result.message).rstrip('.')}.",
            history,
            {"iterations": int(result.nit)},
        )

    def _bounded(
        self, task: Task, function: Any, scale: Floats, history: list[tuple[float, float]]
    ) -> Any:
        from scipy.optimize import minimize

        def watch(intermediate_result: Any) -> None:
            x = intermediate_result.x * scale
            value, gradient, _ = task.objective(x)
            pull = projected_gradient(x, gradient, task.lower, task.upper)
            history.append((value, float(np.abs(pull).max())))
            if history[-1][1] <= task.tol:
                raise StopIteration

        result = minimize(
            function,
            task.start / scale,
            jac=True,
            method="L-BFGS-B",
            bounds=_bounds(task, scale),
            callback=watch,
            options={
                "maxiter": task.iterations(self.max_iterations),
                "ftol": 0.0,
                "gtol": 0.0,
                "maxcor": 30,
                "maxfun": 4 * task.iterations(self.max_iterations),
            },
        )
        result.success = bool(history and history[-1][1] <= task.tol)
        return result  # pyright: ignore[reportPossiblyUnboundVariable]

    def _constrained(self, task: Task, function: Any, scale: Floats) -> Any:
        from scipy.optimize import NonlinearConstraint, minimize

        matrix, width = change_constraint(task)

        def residual(y: Floats) -> Floats:
            return matrix @ np.exp(y * scale) / width

        def jacobian(y: Floats) -> Floats:
            return matrix * (np.exp(y * scale) * scale) / width[:, None]

        bounds = _bounds(task, scale)
        y = limit_change(task, np.clip(task.start, task.lower, task.upper)) / scale
        # SLSQP cannot be stopped by a KKT residual: run it in short bursts.
        for _ in range(max(1, self.max_iterations // BURST)):
            result = minimize(
                function,
                y,
                jac=True,
                method="SLSQP",
                bounds=bounds,
                constraints=NonlinearConstraint(residual, -1.0, 1.0, jac=jacobian),  # type: ignore[arg-type]
                options={"maxiter": BURST, "ftol": 1e-15},
            )
            y = result.x
            result.success = task_residual(task, y * scale) <= task.tol
            if result.success or result.nit < BURST:
                break
        return result  # pyright: ignore[reportPossiblyUnboundVariable]


def _bounds(task: Task, scale: Floats) -> Any:
    """Bounds of the scaled log rates."""
    from scipy.optimize import Bounds

    return Bounds(task.lower / scale, task.upper / scale)  # type: ignore[arg-type]


def task_residual(task: Task, x: Floats) -> float:
    """KKT residual of a point, with the multipliers of every active constraint."""
    gradient = task.objective(x)[1]
    lower, upper = x <= task.lower + ROUNDING, x >= task.upper - ROUNDING
    if task.problem.max_change is None:
        return kkt_residual(gradient, lower, upper)
    matrix, width = change_constraint(task)
    use = matrix @ np.exp(x) / width
    normals = matrix * np.exp(x) / width[:, None]
    active = np.concatenate([normals[use > 1.0 - NEARLY], -normals[use < -1.0 + NEARLY]])
    return kkt_residual(gradient, lower, upper, active)


def limit_change(task: Task, x: Floats) -> Floats:
    """The largest log rates up to ``x`` that respect the bound on their change."""
    problem, steps = task.problem, task.mesh.free_steps
    limit = problem.max_change
    assert limit is not None
    eta = np.exp(x)
    eta[0] = min(eta[0], limit * (problem.warmup + 1.0)) if problem.warmup else eta[0]
    # Each is bounded by what can be reached from every other: once forwards, once backwards.
    gaps = limit * np.diff(steps)
    for k, gap in enumerate(gaps):
        eta[k + 1] = min(eta[k + 1], eta[k] + gap)
    for k in range(len(gaps) - 1, -1, -1):
        eta[k] = min(eta[k], eta[k + 1] + gaps[k])
    return np.log(eta)
