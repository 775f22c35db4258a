"""The result of a solve."""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass, field
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Floats
from optsched.control.certificate import Certificate
from optsched.control.problem import Problem
from optsched.control.rate.constraints import beyond_words, violations
from optsched.control.show import figure, page
from optsched.model.replay import Replay
from optsched.schedules.schedule import Schedule

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Solution", "Status"]


class Status(enum.Enum):
    """Why a solve stopped; the value is a sentence that says what to do next, if anything."""

    CONVERGED = "The KKT residual is within the tolerance."
    SADDLE = (
        "The KKT residual is within the tolerance, but the point is no minimum: the loss falls"
        " along its lowest curvature."
    )
    UNDERFLOW = "The loss is so small that it underflows, and nothing is left to optimise."
    COARSE = (
        "The exact replay differs from the solver's loss: the mesh is too coarse for this problem."
        " Try a method with more knots, such as Pontryagin(knots=400)."
    )
    UNFINISHED = (
        "The KKT residual is above the tolerance. Try another method, a looser tol, or start from"
        " a solution of a nearby problem with initial=."
    )

    BROKEN = "The best iterate breaks a constraint of the problem. Try another method."

    @property
    def converged(self) -> bool:
        """Whether nothing is left to do."""
        return self in (Status.CONVERGED, Status.SADDLE, Status.UNDERFLOW)

    def __str__(self) -> str:
        return "converged" if self.converged else "not converged"

    def __repr__(self) -> str:
        return f"Status.{self.name}"


@dataclass(frozen=True, eq=False, repr=False)
class Solution:
    """A schedule, its loss, and the evidence for both.

    Attributes
    ----------
    problem : Problem
    method : str
        Name of the method that found it; where another one went on from there,
        ``"x, finished by y"``.
    status : Status
        Why the solve stopped.
    excess_loss, bias, variance : float
        Final excess loss of ``schedule`` replayed on the exact recursion, and its parts.
    ode_excess_loss : float
        Final excess loss of the same schedule in the ODE with rates 2 eta lam - (1+1/m)(eta lam)^2.
    t : numpy.ndarray of int64, shape (n,)
        Steps of the knots.
    controls : dict of numpy.ndarray, shape (n,)
        Values of the controls at the knots, here ``"eta"``.
    modes : numpy.ndarray, shape (J,)
        Eigenvalues of the modes that states and costates belong to.
    states : numpy.ndarray, shape (n + 1, J) or (n + 1, J, d)
        Second moments of the modes at the knots and at the end. For plain SGD the spectral
        energies, which sum to the excess loss; for other optimisers d numbers a mode, such as
        the moments of error and momentum (`optsched.model.dynamics.Dynamics`).
    costates : numpy.ndarray, of the same shape
        Derivative of the objective with respect to the states.
    residuals : numpy.ndarray, shape (controls,)
        Gradient of log E with respect to the free log rates, without what only pushes against a
        bound of the rate; the free controls are the knots, but for those of a warm-up.
    schedule : Schedule
    replay : Replay
        Loss curve of the schedule, with its bias.
    certificate : Certificate
    history : list of (float, float)
        Excess loss and KKT residual of every iterate.
    stats : dict
        Numbers of the solve: iterations, evaluations, tolerance, seconds.

    Two solutions are equal if they are one and the same object.
    """

    problem: Problem
    method: str
    status: Status
    excess_loss: float
    bias: float
    variance: float
    ode_excess_loss: float
    t: NDArray[np.int64]
    controls: dict[str, Floats]
    modes: Floats
    states: Floats
    costates: Floats
    residuals: Floats
    schedule: Schedule
    replay: Replay
    certificate: Certificate
    history: list[tuple[float, float]] = field(default_factory=list)
    stats: dict[str, Any] = field(default_factory=dict)

    @property
    def converged(self) -> bool:
        """Whether the solve has come to its end."""
        return self.status.converged

    @property
    def value(self) -> float:
        """The objective, by default ``excess_loss``."""
        return self.replay.value

    @property
    def message(self) -> str:
        """The sentence of the status, with its numbers."""
        problem, proof = self.problem, self.certificate
        told = [self.status.value]
        if self.status is Status.BROKEN:
            told.append(f"{violations(problem, self.schedule)[0].capitalize()}.")
        elif self.status is Status.COARSE:
            told.append(f"They differ by {100.0 * proof.replay_gap:+.2g} %.")
        elif self.status is not Status.UNDERFLOW:
            tol = self.stats.get("tolerance", math.nan)
            after = f", after {self.stats.get('iterations', 0)} iterations"
            told.append(
                f"KKT residual {proof.kkt_residual:.1e}, tolerance {tol:.1e}"
                f"{'' if self.converged else after}."
            )
        if self.converged and problem.eta_cap < problem.eta_max:
            told.append(f"eta_max {beyond_words(problem)}.")
        return " ".join(told)

    def __repr__(self) -> str:
        value = f"{self.excess_loss:.6g}"
        if not self.problem.terms.final:
            value += f", {self.problem.terms.objective} {self.value:.6g}"
        return (
            f"Solution(T = {self.problem.horizon}, excess loss {value}, {self.status},"
            f" {self.method}, {self._proven})"
        )

    @property
    def _proven(self) -> str:
        """What the certificate says, in a few words."""
        gap = self.certificate.certified_gap
        if math.isfinite(gap):
            return f"within {100.0 * gap:.2g} % of optimal"
        return "local optimum" if self.certificate.local_optimum else "no optimum"

    def _repr_html_(self) -> str:
        rows = {
            "excess loss": f"{self.excess_loss:.6g}",
            "bias + variance": f"{self.bias:.4g} + {self.variance:.4g}",
            "schedules": ", ".join(self.problem.controls),
            "peak rate": f"{self.schedule.peak:.4g}",
            "steps": f"{self.problem.horizon:,}",
            "certificate": self._proven,
            "status": f"{self.status} ({self.method})",
        }
        if not self.problem.terms.final:
            rows = {f"objective {self.problem.terms.objective}": f"{self.value:.6g}"} | rows
        return page(rows, self.schedule)

    def plot(self) -> Figure:
        """The schedule and its loss curve, as a Matplotlib figure."""
        return figure(self.schedule, self.replay)

    def summary(self) -> dict[str, Any]:
        """Numbers of the solution as a JSON-able dict; None where one is not finite."""
        problem, proof = self.problem, self.certificate
        numbers = {
            "a": problem.a,
            "b": problem.b,
            "horizon": problem.horizon,
            "features": "inf" if problem.features == float("inf") else int(problem.features),
            "batch_size": problem.batch_size,
            "noise": problem.noise,
            "eta_max": problem.eta_max,
            "eta_cap": problem.eta_cap,
            "eta_top": problem.eta_top,
            "stability_limit": problem.stability_limit,
            "warmup": problem.warmup,
            "eta_min": problem.eta_min,
            "max_change": problem.max_change,
            "phase": problem.phase,
            "objective": problem.terms.objective.name,
            "objective_value": self.value,
            "excess_loss": self.excess_loss,
            "ode_excess_loss": self.ode_excess_loss,
            "bias": self.bias,
            "variance": self.variance,
            "control": ",".join(problem.controls),
            "optimiser": problem.optimiser.name,
            "momentum": problem.momentum,
            "beta": problem.beta,
            "nu": problem.nu,
            "ema": problem.ema,
            "weight_decay": problem.weight_decay,
            "samples": problem.samples,
            "starts": len(proof.starts),
            "local_optimum": proof.local_optimum,
            "lowest_curvature": proof.curvature,
            "conceded": proof.conceded,
            "lower_bound": proof.lower_bound,
            "floor": proof.floor,
            "certified_gap": proof.certified_gap,
            "kkt_residual": proof.kkt_residual,
            "discretisation_error": proof.discretisation_error,
            "replay": proof.replayed,
            "replay_gap": proof.replay_gap,
            "replay_error": proof.replay_error,
            "not_checked": list(proof.not_checked),
            "method": self.method,
            "status": str(self.status),
            "message": self.message,
            "eta_start": float(self.controls["eta"][0]),
            "eta_peak": float(self.controls["eta"].max()),
            "eta_end": float(self.controls["eta"][-1]),
            "knots": len(self.t),
            "iterations": self.stats.get("iterations"),
            "seconds": self.stats.get("seconds"),
        }
        return {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in numbers.items()
        }

    def save(
        self, path: str | PathLike[str], *, points: int | None = None, overwrite: bool = False
    ) -> None:
        """Write the schedule, with the numbers of the solution as its metadata."""
        self.schedule.save(path, points=points, overwrite=overwrite)
