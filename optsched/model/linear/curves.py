"""Loss curves of linear optimisers in NumPy: step by step, and over blocks of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.model.linear.chain import MomentChain, judged
from optsched.model.linear.step import Table, first_state, one_step
from optsched.model.spectrum import Modes

if TYPE_CHECKING:
    from optsched.model.moments import LinearOptimiser

__all__ = ["block_curves", "step_curves"]

CHUNK = 2**15  # steps times modes whose maps are made together
BUNDLE = 128  # blocks at a time


def step_curves(
    optimiser: LinearOptimiser,
    modes: Modes,
    controls: Callable[[int, int], Table],
    horizon: int,
    keep: Ints,
) -> tuple[Floats, Floats]:
    """Excess loss and its bias after some numbers of steps, on the exact recursion.

    Parameters
    ----------
    optimiser : LinearOptimiser
        Whose transition is plain arithmetic.
    modes : Modes
    controls : callable
        The controls from one step to another, the latter not included.
    horizon : int
    keep : numpy.ndarray of int, shape (n,)
        Numbers of steps, increasing from 0 to ``horizon``.
    """
    first = first_state(optimiser, modes)
    d, size = first.shape
    weights, sigma2 = judged(optimiser, modes).reshape(d, size), float(optimiser.sigma2)
    # The state, and what it would be without its source, the bias.
    both = np.stack([first, first], 1)
    state, fed = both[:, 0], both[0, 0]
    total = float(fed.sum())
    excess, biases = np.empty(len(keep)), np.empty(len(keep))
    excess[0] = biases[0] = float((weights * first).sum())
    at, due = 1, int(keep[1]) if len(keep) > 1 else -1
    chunk = min(max(CHUNK // size, 8), 1024)
    terms = np.empty((d, d, 2, size))
    for start in range(0, horizon, chunk):
        steps = one_step(optimiser, modes, controls(start, min(start + chunk, horizon)))
        maps = np.ascontiguousarray(steps.maps.transpose(2, 0, 1, 3))
        change, source = maps[:, :, :d, None], maps[:, :, d]
        for k in range(len(maps)):
            np.multiply(change[k], both, out=terms)
            both += terms.sum(1)
            state += (sigma2 + total) * source[k]
            total = float(fed.sum())
            if start + k + 1 == due:
                excess[at], biases[at] = ((weights * both[:, i]).sum() for i in range(2))
                at += 1
                due = int(keep[at]) if at < len(keep) else -1
    return excess, biases


def block_curves(
    optimiser: LinearOptimiser, modes: Modes, length: Floats, knots: Table
) -> tuple[Floats, Floats]:
    """Excess loss and its bias at the knots of blocks, and at the end.

    Parameters
    ----------
    optimiser : LinearOptimiser
    modes : Modes
    length : numpy.ndarray, shape (n,)
        Steps of each block.
    knots : dict of numpy.ndarray, shape (n + 1,)
        Controls at their ends.
    """
    weights, shape = judged(optimiser, modes), (len(optimiser.pairs), len(modes.lam))
    state = left = first_state(optimiser, modes).ravel()
    excess, bias = [np.array([weights @ state])], [np.array([weights @ left])]
    for start in range(0, len(length), BUNDLE):
        here = slice(start, start + BUNDLE)
        ends = ({n: v[side][here] for n, v in knots.items()} for side in (np.s_[:-1], np.s_[1:]))
        chain = MomentChain(optimiser, modes, length[here], *ends, derivatives=False)
        states = chain.states(state)
        state = states[-1]
        excess.append(states[1:] @ weights)
        silent = []
        for phi in chain.phi:
            left = (phi * left.reshape(1, *shape)).sum(1).ravel()
            silent.append(weights @ left)
        bias.append(np.array(silent))
    return np.concatenate(excess), np.concatenate(bias)
