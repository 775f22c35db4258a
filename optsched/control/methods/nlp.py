"""Sparse nonlinear programs, solved by IPOPT through CasADi.

CasADi differentiates symbolic expressions; here the derivatives come from elsewhere (JAX), so the
program's functions and their sparse derivatives are handed over as Callbacks that write straight
into CasADi's buffers.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import casadi
import numpy as np

from optsched.arrays import Floats, Ints

__all__ = ["Pattern", "ProgramResult", "SparseProgram", "solve_program"]


_MORE = "raise max_iterations, or start from another schedule"
_STATUS = {
    "Solve_Succeeded": "IPOPT found a local optimum to the tolerance.",
    "Solved_To_Acceptable_Level": "IPOPT found a local optimum to the acceptable tolerance.",
    "Feasible_Point_Found": "IPOPT found a feasible point of a square problem: nothing was free.",
    "Maximum_Iterations_Exceeded": f"IPOPT reached its limit of iterations; {_MORE}.",
    "Maximum_CpuTime_Exceeded": f"IPOPT reached its limit of time; {_MORE}.",
    "Maximum_WallTime_Exceeded": f"IPOPT reached its limit of time; {_MORE}.",
    "Infeasible_Problem_Detected": "IPOPT converged to a point that violates the constraints; "
    "check that eta_min, warmup and max_change can hold together.",
    "Search_Direction_Becomes_Too_Small": "IPOPT's steps became too small to make progress; "
    "accept the point, or loosen tol.",
    "Diverging_Iterates": "IPOPT's iterates diverge; set eta_min to keep the rate away from 0.",
    "User_Requested_Stop": "IPOPT was stopped from outside; run it again.",
    "Restoration_Failed": "IPOPT could not restore feasibility; add knots, or start from another "
    "schedule.",
    "Error_In_Step_Computation": "IPOPT could not compute a step; add knots, or start from "
    "another schedule.",
    "Not_Enough_Degrees_Of_Freedom": "More constraints than free variables; loosen max_change or "
    "shorten the warm-up.",
    "Invalid_Number_Detected": "IPOPT met a number that is not finite; start from a smaller rate.",
    "Insufficient_Memory": "IPOPT ran out of memory; use fewer knots or stages.",
}


class Pattern:
    """Fixed sparsity of a matrix that is filled from a list of entries, duplicates summed.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    rows, columns : numpy.ndarray of int, shape (k,)
        Places of the entries, in any order. A negative column marks an entry to leave out.
    """

    def __init__(self, shape: tuple[int, int], rows: Ints, columns: Ints) -> None:
        self.shape = shape
        self._keep = columns >= 0
        keys = columns[self._keep] * shape[0] + rows[self._keep]
        unique, self._place = np.unique(keys, return_inverse=True)
        # CasADi stores by columns, rows ascending: the order of the keys.
        self.rows, self.columns = unique % shape[0], unique // shape[0]

    @property
    def size(self) -> int:
        """Number of structural nonzeros."""
        return len(self.rows)

    def fill(self, entries: Floats) -> Floats:
        """Nonzeros, in the order of ``rows`` and ``columns``, from the values of all entries."""
        return np.bincount(self._place, entries[self._keep], self.size).astype(float, copy=False)

    def dense(self, nonzeros: Floats) -> Floats:
        """The matrix as a dense array."""
        matrix = np.zeros(self.shape)
        matrix[self.rows, self.columns] = nonzeros
        return matrix

    def sparsity(self) -> Any:
        """The pattern as a CasADi Sparsity."""
        starts = np.searchsorted(self.columns, np.arange(self.shape[1] + 1))
        return casadi.Sparsity(*self.shape, starts.tolist(), self.rows.tolist())


class SparseProgram(abc.ABC):
    r"""Minimise f(x) subject to bounds on x and on g(x).

    Attributes
    ----------
    lower, upper : numpy.ndarray, shape (n,)
        Bounds of the variables.
    row_lower, row_upper : numpy.ndarray, shape (k,)
        Bounds of the constraint functions; equal for equations.
    jacobian_pattern, hessian_pattern : Pattern
        Sparsity of dg/dx, and of the upper triangle of the Hessian of the Lagrangian.
    """

    lower: Floats
    upper: Floats
    row_lower: Floats
    row_upper: Floats
    jacobian_pattern: Pattern
    hessian_pattern: Pattern

    @abc.abstractmethod
    def objective(self, x: Floats) -> float:
        """Value of f."""

    @abc.abstractmethod
    def gradient(self, x: Floats) -> Floats:
        """Gradient of f, dense."""

    @abc.abstractmethod
    def constraints(self, x: Floats) -> Floats:
        """Values of g."""

    @abc.abstractmethod
    def jacobian(self, x: Floats) -> Floats:
        """Nonzeros of dg/dx."""

    @abc.abstractmethod
    def hessian(self, x: Floats, weight: float, multipliers: Floats) -> Floats:
        """Nonzeros of the Hessian of ``weight * f + multipliers @ g``, upper triangle."""


class _Call(casadi.Callback):  # type: ignore[misc]
    """A NumPy function as a CasADi function; reads and writes CasADi's buffers in place."""

    def __init__(
        self,
        name: str,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
        function: Callable[..., Iterable[Any]],
    ) -> None:
        casadi.Callback.__init__(self)
        self._inputs, self._outputs, self._function = inputs, outputs, function
        self.construct(name, {})

    def get_n_in(self) -> int:
        return len(self._inputs)

    def get_n_out(self) -> int:
        return len(self._outputs)

    def get_name_in(self, i: int) -> str:
        return list(self._inputs)[i]

    def get_name_out(self, i: int) -> str:
        return list(self._outputs)[i]

    def get_sparsity_in(self, i: int) -> Any:
        return list(self._inputs.values())[i]

    def get_sparsity_out(self, i: int) -> Any:
        return list(self._outputs.values())[i]

    def has_eval_buffer(self) -> bool:
        return True

    def eval_buffer(self, arg: Any, res: Any) -> int:
        values = self._function(*(np.frombuffer(a) for a in arg if a is not None))
        for buffer, value in zip(res, values, strict=True):
            if buffer is not None and buffer.nbytes:
                np.frombuffer(buffer)[:] = value
        return 0


@dataclass(frozen=True, eq=False)
class ProgramResult:
    """Where IPOPT stopped.

    Attributes
    ----------
    x : numpy.ndarray
        Last iterate.
    status : str
        IPOPT's own word for it.
    converged : bool
        Whether ``tol`` or ``acceptable_tol`` was met.
    message : str
        The same as a sentence that says what to do.
    iterations : int
    objective, primal, dual : list of float
        Objective, constraint violation and dual infeasibility of every iterate.
    """

    x: Floats
    status: str
    converged: bool
    message: str
    iterations: int
    objective: list[float]
    primal: list[float]
    dual: list[float]


def _callbacks(program: SparseProgram) -> dict[str, _Call]:
    dense = casadi.Sparsity.dense
    n, k = len(program.lower), len(program.row_lower)
    point = {"x": dense(n, 1), "p": casadi.Sparsity(0, 0)}
    f, g, one = program.objective, program.constraints, dense(1, 1)
    multipliers = {"lam_f": one, "lam_g": dense(k, 1)}
    return {
        "nlp": _Call("program", point, {"f": one, "g": dense(k, 1)}, lambda x, *_: (f(x), g(x))),
        "grad_f": _Call(
            "gradient",
            point,
            {"f": one, "grad_f_x": dense(n, 1)},
            lambda x, *_: (f(x), program.gradient(x)),
        ),
        "jac_g": _Call(
            "jacobian",
            point,
            {"g": dense(k, 1), "jac_g_x": program.jacobian_pattern.sparsity()},
            lambda x, *_: (g(x), program.jacobian(x)),
        ),
        "hess_lag": _Call(
            "hessian",
            {**point, **multipliers},
            {"triu_hess_gamma_x_x": program.hessian_pattern.sparsity()},
            lambda x, *rest: (program.hessian(x, float(rest[-2][0]), rest[-1]),),
        ),
    }


def solve_program(
    program: SparseProgram, x0: Floats, *, verbose: bool = False, **options: Any
) -> ProgramResult:
    """Solve a sparse nonlinear program by IPOPT.

    Parameters
    ----------
    program : SparseProgram
    x0 : numpy.ndarray, shape (n,)
        Start.
    verbose : bool
        Let IPOPT write its log to the standard output.
    **options
        Options of IPOPT, such as ``tol`` and ``max_iter``.

    Returns
    -------
    ProgramResult
        Never raises for want of convergence.
    """
    if not np.all(np.isfinite(x0)):
        status = "Invalid_Number_Detected"
        return ProgramResult(x0, status, False, _STATUS[status], 0, [], [], [])
    calls = _callbacks(program)  # CasADi keeps no reference: they must outlive the solver
    quiet = {} if verbose else {"ipopt.print_level": 0, "ipopt.sb": "yes"}
    solver = casadi.nlpsol(
        "solver",
        "ipopt",
        calls["nlp"],
        {
            **{name: call for name, call in calls.items() if name != "nlp"},
            **{f"ipopt.{name}": value for name, value in options.items()},
            **quiet,
            "no_nlp_grad": True,  # else CasADi asks the Callback for derivatives of its own
            "print_time": False,
            "show_eval_warnings": verbose,
        },
    )
    result = solver(
        x0=x0,
        lbx=program.lower,
        ubx=program.upper,
        lbg=program.row_lower,
        ubg=program.row_upper,
    )
    stats = solver.stats()
    status, trail = str(stats["return_status"]), stats.get("iterations", {})
    message = _STATUS.get(
        status, f"IPOPT failed ({status}); start from another schedule, or use another method."
    )
    return ProgramResult(
        np.asarray(result["x"], dtype=float).ravel(),
        status,
        status in ("Solve_Succeeded", "Solved_To_Acceptable_Level", "Feasible_Point_Found"),
        message,
        int(stats.get("iter_count", 0)),
        *([float(v) for v in trail.get(key, [])] for key in ("obj", "inf_pr", "inf_du")),
    )
