"""Loss curves of plain SGD in NumPy: step by step, and over blocks of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.model.sgd.chain import Plain, PlainChain, Table, plain_parts
from optsched.model.spectrum import Modes

__all__ = ["block_curves", "final_excess", "step_curves"]

CHUNK = 2**16  # step factors at a time: they stay in the cache
MOST_STEPS = 1024  # of a chunk
BUNDLE = 256  # blocks at a time
LEAST_UNIT = 1e-200  # noise masses below it are no unit for an energy


def step_curves(
    sgd: Plain,
    modes: Modes,
    rates: Callable[[int, int], dict[str, Any]],
    horizon: int,
    keep: Ints,
) -> tuple[Floats, Floats]:
    """Excess loss and its bias after some numbers of steps, on the exact recursion.

    Parameters
    ----------
    sgd : SGD
    modes : Modes
    rates : callable
        The controls from one step to another, the latter not included.
    horizon : int
    keep : numpy.ndarray of int, shape (n,)
        Numbers of steps, increasing from 0 to ``horizon``.
    """
    sigma2, size = float(sgd.sigma2), len(modes.lam)
    # Energies in units of the noise mass, so that a kick is the same number for every mode. First
    # row: the state; second: without its source, the bias.
    fed = modes.nu > LEAST_UNIT
    unit, weight, kick = np.where(fed, modes.nu, 1.0), np.where(fed, 1.0, modes.nu), np.empty(size)
    every = bool(fed.all())
    both = np.stack([modes.mu / unit, modes.mu / unit])
    state, bias = both
    basis = np.stack([np.ones(size), modes.lam, modes.lam**2])
    total = float(state.dot(unit))
    excess, biases = np.empty(len(keep)), np.empty(len(keep))
    excess[0] = biases[0] = total
    at, due = 1, int(keep[1])
    chunk = min(max(CHUNK // size, 16), MOST_STEPS)
    factors = np.empty((chunk, size))
    for start in range(0, horizon, chunk):
        now = rates(start, min(start + chunk, horizon))
        eta, m = now["eta"], now.get("batch_size", sgd.batch_size)
        # One minus `fall`, of all modes and steps in one product.
        powers = np.stack([np.ones(len(eta)), -2.0 * eta, (1.0 + 1.0 / m) * eta**2], 1)
        left = np.matmul(powers, basis, out=factors[: len(eta)])
        heats = (eta**2 / m).tolist()
        for step, (factor, heat) in enumerate(zip(left, heats, strict=True), start=start + 1):
            np.multiply(both, factor, both)
            if every:
                np.add(state, heat * (sigma2 + total), state)
            else:
                np.multiply(weight, heat * (sigma2 + total), kick)
                np.add(state, kick, state)
            total = float(state.dot(unit))
            if step == due:
                excess[at], biases[at] = total, bias.dot(unit)
                at += 1
                due = int(keep[at]) if at < len(keep) else -1
    return excess, biases


def block_curves(sgd: Plain, modes: Modes, length: Floats, knots: Table) -> tuple[Floats, Floats]:
    """Excess loss and its bias at the knots of blocks, and at the end.

    Parameters
    ----------
    sgd : SGD
    modes : Modes
    length : numpy.ndarray, shape (n,)
        Steps of each block.
    knots : dict of numpy.ndarray, shape (n + 1,)
        Controls at their ends.
    """
    state, left = np.array(modes.mu, float), np.array(modes.mu, float)
    excess, bias = [np.array([state.sum()])], [np.array([left.sum()])]
    for start in range(0, len(length), BUNDLE):
        here = slice(start, start + BUNDLE)
        first = {name: value[:-1][here] for name, value in knots.items()}
        last = {name: value[1:][here] for name, value in knots.items()}
        parts = plain_parts(sgd, modes, length[here], first, last)
        states = PlainChain(sgd, parts).states(state)
        silent = np.multiply.accumulate(parts.phi, axis=0) * left
        state, left = states[-1], silent[-1]
        excess.append(states[1:].sum(1))
        bias.append(silent.sum(1))
    return np.concatenate(excess), np.concatenate(bias)


def final_excess(sgd: Plain, modes: Modes, length: Floats, knots: Table) -> float:
    """Final excess loss over blocks; arguments as for `block_curves`."""
    with np.errstate(all="ignore"):  # rates may be too large, energies underflow
        return float(block_curves(sgd, modes, length, knots)[0][-1])
