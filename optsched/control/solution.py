"""The result of a solve."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Floats
from optsched.control.certificate import Certificate
from optsched.control.problem import Problem
from optsched.model.replay import Replay
from optsched.schedules.schedule import Schedule

__all__ = ["Solution"]


@dataclass(frozen=True)
class Solution:
    """A schedule, its loss, and the evidence for both.

    Attributes
    ----------
    problem : Problem
    method : str
        Name of the method that found it.
    status : str
        ``"converged"`` or ``"not converged"``.
    message : str
        A sentence: why the solve stopped and what to do next, if anything.
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
    states : numpy.ndarray, shape (n + 1, J)
        Spectral energies at the knots and at the end; they sum to the excess loss.
    costates : numpy.ndarray, shape (n + 1, J)
        Derivative of the final excess loss with respect to the states.
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
        Numbers of the solve: iterations, evaluations, knots, seconds.
    """

    problem: Problem
    method: str
    status: str
    message: str
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
        """Whether the KKT residual is within the tolerance."""
        return self.status == "converged"

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
            "stability_limit": problem.stability_limit,
            "warmup": problem.warmup,
            "eta_min": problem.eta_min,
            "max_change": problem.max_change,
            "phase": problem.phase,
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
            "lower_bound": proof.lower_bound,
            "certified_gap": proof.certified_gap,
            "kkt_residual": proof.kkt_residual,
            "discretisation_error": proof.discretisation_error,
            "replay": proof.replayed,
            "replay_gap": proof.replay_gap,
            "replay_error": proof.replay_error,
            "not_checked": list(proof.not_checked),
            "method": self.method,
            "status": self.status,
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
