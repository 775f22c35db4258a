"""Lower bounds of the predicted final loss, for laws with and without the norm of the weights."""

from __future__ import annotations

import math

import numpy as np

from optsched.arrays import Floats
from optsched.pilot.fitting import Fit
from optsched.pilot.laws import NormLaw
from optsched.pilot.planning.relaxed import Relaxed, relaxed_plan
from optsched.pilot.planning.task import PlanTask
from optsched.pilot.planning.verified import Beginning, verified_bound

__all__ = ["lower_bound", "relaxed", "without_bound"]


def _beginning(task: PlanTask, theta: Floats, end: float) -> Beginning:
    """Where the free steps begin after a warm-up to the rate ``end``, scaled."""
    law = task.separable(theta)
    assert law is not None
    ticks, noise, weight = law.play(*task.before(end))
    behind = np.append(np.cumsum(ticks[::-1])[::-1], 0.0)

    def residue(tau: Floats) -> Floats:
        if not len(noise):
            return np.zeros_like(tau)
        return np.diff(law.tail(tau[:, None] + behind)[0], axis=1) @ noise

    return Beginning(float(ticks.sum()), weight, residue)


def relaxed(task: PlanTask, theta: Floats) -> Relaxed | None:
    """The relaxed optimum, whose loss is a bound; None for laws of another kind.

    A warm-up is given its largest clock and no noise.
    """
    law = task.separable(theta)
    if law is None or law.weights is not None:
        return None
    done = _beginning(task, theta, 0.0) if task.warmup else None
    start = _beginning(task, theta, task.unit_cap)
    reach = 0.0 if done is None else start.clock - done.clock
    before = start if done is None else done
    return relaxed_plan(
        law,
        steps=task.free / task.found.scale.span,
        cap=task.unit_cap,
        floor=task.unit_floor,
        clock=start.clock,
        residue=lambda tau: float(before.residue(np.array([tau + reach]))[0]),
    )


def lower_bound(task: PlanTask, theta: Floats, price: float) -> float:
    """Final loss that no schedule is below under these parameters, NaN where none is known.

    Parameters
    ----------
    task : PlanTask
    theta : numpy.ndarray
    price : float
        Loss that a span of further steps would take at the optimum: what tightens the bound of a
        law with a norm. Any number gives a bound.
    """
    law = task.separable(theta)
    if law is None:
        return math.nan
    if law.weights is None:
        path = relaxed(task, theta)
        return math.nan if path is None else path.loss
    span = task.found.scale.span
    return verified_bound(
        law,
        price=max(price, 1e-9),
        steps=task.free / span,
        warmup=task.warmup / span,
        cap=task.unit_cap,
        floor=task.unit_floor,
        begin=lambda end: _beginning(task, theta, end),
    )


def without_bound(found: Fit) -> str:
    """Why no bound is known of a plan that has none."""
    law = found.law
    if law.separable(found.theta, found.scale.first) is not None:
        return "in a run this long the weights move too far for the method"
    if isinstance(law, NormLaw):
        return "a decay that is not multiplied by the rate moves the weights at rate 0 too"
    if law.name == "momentum":
        return (
            "its noise fades with the steps, at whatever rate, so that the loss does not separate"
        )
    return f"{law.name} does not say how its loss separates into a clock and a noise"
