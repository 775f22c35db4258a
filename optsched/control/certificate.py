"""What is proven about a solution, and what is not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from optsched.arrays import Floats
from optsched.control.bounds.along import sum_bound
from optsched.control.bounds.certified import certified_bound
from optsched.control.bounds.floor import label_floor, mean_batch
from optsched.control.bounds.samples import sample_bound
from optsched.control.problem import Problem
from optsched.model.replay import Replay
from optsched.optimisers.momentum import is_plain

__all__ = [
    "UNDERFLOW",
    "UNREFINED",
    "Certificate",
    "bounds_batches",
    "global_bound",
    "global_floor",
    "kkt_residual",
]


# A loss this small is lost to rounding on its way out: nothing is left to optimise.
UNDERFLOW = 1e-250
LEAST_BOUNDED = 1e-120
UNREFINED = 1e3  # a gap that every first bound is within: refining it is most of a solve


@dataclass(frozen=True, eq=False, repr=False)
class Certificate:
    r"""Evidence that a schedule is optimal.

    Attributes
    ----------
    lower_bound : float
        Value of the objective that no schedule with ``0 <= eta <= eta_top`` and T steps can beat
        on the exact recursion of plain SGD (`optsched.control.bounds.certified`, for several steps
        `optsched.control.bounds.along`, and for rate and batch size with as many samples
        `optsched.control.bounds.samples`); 0 where none is known.
    certified_gap : float
        ``value / lower_bound - 1``: the optimum is at most this much better, relatively.
    floor : float
        Excess loss below which no optimiser that is linear in the labels gets with as many fresh
        samples, whatever its momentum, batch sizes, averaging and rates
        (`optsched.control.bounds.floor`); 0 without label noise where samples outnumber the modes,
        or for an optimiser of one's own.
    kkt_residual : float
        Largest entry of the projected gradient of log E with respect to log eta at the knots.
    block_errors : numpy.ndarray, shape (n,)
        Estimated contribution of every mesh block to the relative error of the solver's loss.
    model_excess_loss : float
        Objective, by default the final excess loss, as the solver sees it.
    replay_gap : float
        ``value / model_excess_loss - 1``: what the exact replay corrects.
    replay_error : float
        Estimated relative error of the replay itself (0: every step and every mode was run).
    replayed : str
        How the replay was run.
    not_checked : tuple of str
        What this certificate does not cover.
    starts : tuple of str
        Where the local searches began.
    local_optimum : bool
        Whether the KKT residual is within its tolerance and, for other controls than the rate
        alone, no curvature is negative beyond rounding.
    conceded : float
        Relative loss that the schedule gives up to be smooth, against the best one found, which is
        the one that ``kkt_residual``, ``local_optimum`` and ``curvature`` are about.
    curvature : float
        Lowest eigenvalue of the Hessian of log E in the free variables over its largest; NaN for
        the rate alone, where the global bound says more.
    """

    lower_bound: float
    certified_gap: float
    kkt_residual: float
    block_errors: Floats
    model_excess_loss: float
    replay_gap: float
    replay_error: float
    replayed: str
    not_checked: tuple[str, ...]
    starts: tuple[str, ...] = ()
    floor: float = 0.0
    local_optimum: bool = False
    curvature: float = math.nan
    conceded: float = 0.0

    @property
    def discretisation_error(self) -> float:
        """Sum of the absolute block errors."""
        return float(np.abs(self.block_errors).sum())

    def __repr__(self) -> str:
        kind = "local optimum" if self.local_optimum else "no optimum"
        if math.isfinite(self.certified_gap):
            kind = f"within {100.0 * self.certified_gap:.2g} % of the global optimum"
        return f"Certificate({kind}, KKT residual {self.kkt_residual:.1e})"


def global_bound(problem: Problem, played: Replay, target: float) -> float:
    """Lower bound of the objective of every schedule of a problem.

    Parameters
    ----------
    problem : Problem
    played : Replay
        Of a known schedule; where its loss is below 1e-120 the bound is 0, as what it is made of,
        the losses along the way and their products, may underflow.
    target : float
        Relative gap at which refinement stops.

    Returns
    -------
    float
        0 where none is known: for any other optimiser than plain SGD.
    """
    if not played.excess_loss >= LEAST_BOUNDED:
        return 0.0
    if bounds_batches(problem):
        assert problem.samples is not None
        found = sample_bound(
            problem.modes,
            problem.noise**2,
            problem.eta_top,
            problem.horizon,
            problem.samples,
            held=problem.rate_held,
        )
        return max(found, global_floor(problem))
    if not problem.rate_only:
        return 0.0
    given = problem.modes, problem.batch_size, problem.noise**2, problem.eta_top
    if problem.terms.final:
        return certified_bound(*given, problem.horizon, played.excess_loss, target=target).value
    return sum_bound(problem.terms, *given, played.steps, played.excess_curve, target)


def bounds_batches(problem: Problem) -> bool:
    """Whether the bound of a problem is that of batch sizes with as many samples."""
    plain = not problem.foreign and is_plain(problem.optimiser) and problem.terms.final
    return plain and "batch_size" in problem.controls


def global_floor(problem: Problem, samples: float | None = None) -> float:
    """Lower bound of the excess loss of every optimiser that is linear in the labels.

    Parameters
    ----------
    problem : Problem
    samples : float, optional
        Number of fresh samples where batch sizes are scheduled, the problem's if not given.
    """
    if problem.foreign:
        return 0.0
    steps, given = float(problem.horizon), problem.samples if samples is None else samples
    if given is None:
        m = problem.batch_size
        mean, most = mean_batch(m) * steps, math.ceil(m) * steps
    else:  # whatever the sizes: `mean_batch` is at most an eighth, and 1/4m, above m
        mean, most = given + min(given / 8.0, steps / 4.0), given + steps
    return label_floor(problem.spectrum, problem.noise**2, mean, most)


def kkt_residual(
    gradient: Floats,
    at_lower: NDArray[np.bool_],
    at_upper: NDArray[np.bool_],
    active: Floats | None = None,
) -> float:
    r"""Largest entry of the gradient that no multiplier of an active constraint explains.

    Parameters
    ----------
    gradient : numpy.ndarray, shape (n,)
    at_lower, at_upper : numpy.ndarray of bool, shape (n,)
        Which variables sit at a bound.
    active : numpy.ndarray, shape (k, n), optional
        Outward normals of other active constraints :math:`c(x) \le 0`; their multipliers are the
        non-negative least-squares solution of :math:`g + A^T \mu = 0`.
    """
    if not np.isfinite(gradient).all():  # the recursion diverges, or the mesh is too coarse
        return math.inf
    n = len(gradient)
    normals = [np.eye(n)[at_upper], -np.eye(n)[at_lower]]
    if active is not None and len(active):
        from scipy.optimize import nnls

        matrix = np.concatenate([*normals, active]).T
        multipliers, _ = nnls(matrix, -gradient, maxiter=50 * matrix.shape[1])
        return float(np.abs(gradient + matrix @ multipliers).max())
    held = (at_upper & (gradient < 0.0)) | (at_lower & (gradient > 0.0))
    return float(np.abs(np.where(held, 0.0, gradient)).max())
