"""Schedules in optax, and in any training loop in JAX: pure functions of the step count."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from optsched.checks import is_number
from optsched.errors import InvalidProblem
from optsched.schedules.exports.common import check_exportable
from optsched.schedules.schedule import Schedule

__all__ = ["heavy_ball", "to_optax"]


def to_optax(
    schedule: Schedule, control: str = "eta", *, dtype: Any = None
) -> Callable[[Any], Any]:
    """Value of a control as an optax schedule: a pure function of the number of past updates.

    Parameters
    ----------
    schedule : Schedule
        In updates: for samples or tokens see `optsched.schedules.exports.common.per_update`.
    control : str
        Which control: one function each.
    dtype : dtype, optional
        Of what the function returns. By default a weak float, like a Python number: it takes the
        type of the arrays that it meets, so bf16 parameters and updates stay bf16.

    Returns
    -------
    callable
        Takes an int or an integer array, also traced: for ``jit``, ``vmap``, ``scan``,
        ``optax.inject_hyperparams``. Needs no 64-bit mode; counts are exact above 2^24 too.

    Raises
    ------
    InvalidProblem
        No such control, or a unit other than steps. The function raises it for a count that is
        not whole, and past the end with ``extend="raise"``; under ``jit`` it returns nan there.

    Notes
    -----
    Below 0 it holds the value of step 0, as optax's own schedules do: ``optax.join_schedules``
    asks every part for counts before its start, and drops the answer.

    Examples
    --------
    >>> from optsched import Schedule
    >>> from optsched.schedules.exports.optax import to_optax
    >>> rate = to_optax(Schedule.from_knots([0, 100], eta=[0.5, 0.25]))
    >>> print(rate(0), rate(50), rate(100), rate(1000))
    0.5 0.375 0.25 0.25
    """
    check_exportable(schedule, control)

    def value(count: Any) -> Any:
        import jax.numpy as jnp

        step = max(count, 0) if is_number(count) else jnp.maximum(jnp.asarray(count), 0)
        found = schedule(step, control)
        if dtype is not None:
            return jnp.asarray(found, dtype)
        # The only public way to a weakly typed array of values that are not Python numbers.
        return jnp.full(jnp.shape(found), 0.0).at[...].set(found)

    return value


def heavy_ball(schedule: Schedule) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    r"""Learning rate and momentum that make ``optax.sgd`` the heavy ball of optsched.

    Parameters
    ----------
    schedule : Schedule
        With ``beta`` and without ``nu``.

    Returns
    -------
    learning_rate, momentum : callable
        For ``optax.inject_hyperparams(optax.sgd)``: :math:`\eta_k (1-\beta_k)` and
        :math:`\beta_k (1-\beta_{k-1})/(1-\beta_k)`, as its buffer has no factor
        :math:`1-\beta`. The updates are the same.

    Raises
    ------
    InvalidProblem
        No ``beta``, or a ``nu``.
    """
    if "nu" in schedule.controls:
        raise InvalidProblem("schedule", [*schedule.controls], "no nu: heavy ball has none")
    eta, beta = to_optax(schedule), to_optax(schedule, "beta")

    def learning_rate(count: Any) -> Any:
        return eta(count) * (1.0 - beta(count))

    def momentum(count: Any) -> Any:
        import jax.numpy as jnp

        # The rate takes the same difference, so what rounding does to it cancels.
        before = jnp.where(jnp.asarray(count) > 0, 1.0 - beta(count - (count > 0)), 0.0)
        return beta(count) * before / (1.0 - beta(count))

    return learning_rate, momentum
