"""What decoupled weight decay does to the loss at the horizon."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from optsched.arrays import Brief
from optsched.control.certificate import UNREFINED
from optsched.control.problem import Problem
from optsched.control.solve import solve
from optsched.model.replay import MAX_STEPS, Replay
from optsched.studies.averaging.against_decay import check_plain
from optsched.studies.compare.baselines import best_baselines

__all__ = ["WeightDecayRow", "compare_weight_decay"]


@dataclass(frozen=True, eq=False, repr=False)
class WeightDecayRow(Brief):
    """Decoupled weight decay at its best rate schedule, and at its best constant rate.

    Attributes
    ----------
    weight_decay : float
    scheduled, constant : Replay
        With the optimal schedule of the rate and the best constant rate.
    scheduled_ratio, constant_ratio : float
        Excess losses over those without weight decay.
    converged : bool
        Whether the solve of the schedule did.
    """

    weight_decay: float
    scheduled: Replay
    constant: Replay
    scheduled_ratio: float
    constant_ratio: float
    converged: bool


def compare_weight_decay(
    problem: Problem, decays: Sequence[float] = (1e-4, 1e-3, 1e-2), *, replay_steps: int = MAX_STEPS
) -> list[WeightDecayRow]:
    """Loss at the horizon with and without decoupled weight decay.

    Parameters
    ----------
    problem : Problem
        Of the rate of plain SGD alone.
    decays : sequence of float
        Values of the weight decay; 0, the first row, is added.
    replay_steps : int
        Largest horizon that is replayed step by step.

    Returns
    -------
    list of WeightDecayRow
    """
    check_plain(problem)
    rows: list[WeightDecayRow] = []
    for decay in dict.fromkeys([0.0, *decays]):
        decayed = problem.replace(weight_decay=decay)
        solution = solve(decayed, throw=False, gap=UNREFINED, replay_steps=replay_steps)
        best, done = solution.replay, solution.converged
        flat = best_baselines(decayed, ("constant",), replay_steps=replay_steps)[0].replay
        first = rows[0] if rows else WeightDecayRow(decay, best, flat, 1.0, 1.0, done)
        ratios = (
            best.excess_loss / first.scheduled.excess_loss,
            flat.excess_loss / first.constant.excess_loss,
        )
        rows.append(WeightDecayRow(decay, best, flat, *ratios, done))
    return rows
