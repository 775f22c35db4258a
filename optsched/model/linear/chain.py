r"""Chains of blocks of a linear optimiser in NumPy: states, costates, derivatives in the controls.

The same numbers as `optsched.model.propagate` has from `LinearOptimiser.blocks`, to rounding:
controls are held at their mean over each half of a block, and the loss inside a block is the
quadratic through its start, middle and end. States are vectors of d moments times J modes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from optsched.arrays import Floats
from optsched.model.linear.power import Powers, joined
from optsched.model.linear.step import Table, one_step, step_slopes
from optsched.model.spectrum import Modes

if TYPE_CHECKING:
    from optsched.model.moments import LinearOptimiser

__all__ = ["MomentChain", "MomentGradient", "judged"]


class MomentGradient(NamedTuple):
    """Derivatives in the controls at both ends of n blocks.

    Each has shape (2, n): at a block's first step, and at the step after its last; ``drift`` and
    ``noise`` are those of the controls as drift and as diffusion see them.
    """

    drift: Table
    noise: Table

    @property
    def total(self) -> Table:
        """Of the controls themselves."""
        return {name: drift + self.noise[name] for name, drift in self.drift.items()}


def _quadratics(middle: Floats) -> Floats:
    """Coefficients (3, 3, n) of 1, x, x^2 of the quadratics that are 1 at 0, ``middle`` and 1.

    A block of one step has its middle at 0, and sees the first value only.
    """
    single = middle == 0.0
    h = np.where(single, 0.5, middle)
    inner, one = 1.0 / (h * (1.0 - h)), np.ones_like(h)
    rows = np.array(
        [
            [one, -(1.0 + h) / h, 1.0 / h],
            [0.0 * one, inner, -inner],
            [0.0 * one, -h / (1.0 - h), 1.0 / (1.0 - h)],
        ]
    )
    rows[:, 1:, single] = 0.0
    return rows


def judged(optimiser: LinearOptimiser, modes: Modes) -> Floats:
    """Weights of the moments in the excess loss, shape (d * J,)."""
    pairs = optimiser.pairs
    found = np.zeros((len(pairs), len(modes.lam)))
    found[pairs.index((optimiser.judged, optimiser.judged))] = 1.0
    return found.ravel()


class MomentChain:
    """Maps of n blocks of steps, and what follows from them.

    Parameters
    ----------
    optimiser : LinearOptimiser
        Whose transition is plain arithmetic.
    modes : Modes
    length : numpy.ndarray, shape (n,)
        Steps of the blocks.
    first, last : dict of numpy.ndarray, shape (n,)
        Controls at their first step, and at the step after their last.
    derivatives : bool
        Keep what `pull_back` needs.
    """

    def __init__(
        self,
        optimiser: LinearOptimiser,
        modes: Modes,
        length: Floats,
        first: Table,
        last: Table,
        derivatives: bool = True,
    ) -> None:
        self.optimiser, self.modes, n = optimiser, modes, len(length)
        self.sigma2 = float(optimiser.sigma2)
        real = np.where(length > 0.0, length, 1.0)
        half = np.floor(length / 2.0)
        rest, self._middle = length - half, half / real
        middles = (0.5 * np.maximum(steps - 1.0, 0.0) for steps in (half, rest))
        self._share = (np.stack([0.0 * half, half]) + np.stack(list(middles))) / real
        self._controls = {
            name: (value + (last[name] - value) * self._share).ravel()
            for name, value in first.items()
        }
        self._steps = one_step(optimiser, modes, self._controls)
        count = np.concatenate([half, rest]).astype(np.int64)
        unit = np.tile(1.0 / real, 2)
        self._powers = Powers(self._steps.maps, count, unit, derivatives)
        self.size = d = len(self._steps.maps)
        self._one, self._two = np.split(self._powers.maps, 2, axis=2)
        whole = joined(self._one, self._two, self._middle)
        self._nodes = _quadratics(self._middle)
        # The gradient noise sees the first moment: e^2.
        gh = np.einsum("ipn,pn->ni", self._nodes, self._one[0, d:].sum(-1))
        ge = np.einsum("ipn,pn->ni", self._nodes, whole[0, d:].sum(-1))
        self.solve = self._solved(gh, ge)
        w = np.einsum("ipn,dpnj->nidj", self._nodes, whole[:, d:])
        self.w = w.reshape(n, 3, -1)
        self.phi = np.ascontiguousarray(whole[:, :d].transpose(2, 0, 1, 3))
        self.phi[:, range(d), range(d)] += 1.0
        look = np.zeros((n, 3, d, len(modes.lam)))
        look[:, :, 0] = 1.0
        look[:, 1] += self._one[0, :d].transpose(1, 0, 2)
        look[:, 2] += whole[0, :d].transpose(1, 0, 2)
        self.look = look.reshape(n, 3, -1)
        self.push = self.solve.transpose(0, 2, 1) @ self.w

    def _solved(self, gh: Floats, ge: Floats) -> Floats:
        """Losses at start, middle and end, as a matrix times what the state alone gives there.

        NaN where they feed on themselves by more than the optimiser's ``max_gain``.
        """
        a, b, c, d = 1.0 - gh[:, 1], -gh[:, 2], -ge[:, 1], 1.0 - ge[:, 2]
        gain = np.maximum(gh[:, 1:].sum(1), ge[:, 1:].sum(1))
        det = np.where(gain < self.optimiser.max_gain, a * d - b * c, np.nan)
        solve = np.zeros((len(gh), 3, 3))
        solve[:, 0, 0] = 1.0
        solve[:, 1, 0] = (d * gh[:, 0] - b * ge[:, 0]) / det
        solve[:, 1, 1], solve[:, 1, 2] = d / det, -b / det
        solve[:, 2, 0] = (a * ge[:, 0] - c * gh[:, 0]) / det
        solve[:, 2, 1], solve[:, 2, 2] = -c / det, a / det
        return solve

    def states(self, start: Floats) -> Floats:
        """States at the starts of all blocks, and at the end; shape (n + 1, d * J)."""
        states = np.empty((len(self.phi) + 1, start.size))
        states[0] = x = start
        shape, sigma2 = (1, *self.phi.shape[2:]), self.sigma2
        rows = zip(self.phi, self.look, self.push, states[1:], strict=True)
        for phi, look, push, after in rows:
            np.add.reduce(phi * x.reshape(shape), axis=1, out=after.reshape(shape[1:]))
            after += (look @ x + sigma2) @ push
            x = after
        return states

    def costates(self, end: Floats, along: Floats | None = None) -> Floats:
        """Derivatives of ``end @ final state`` in the states; shape (n + 1, d * J).

        With ``along``, shape (n, d * J), of that and of so much of the state at the start of each
        block.
        """
        n = len(self.phi)
        costates = np.empty((n + 1, end.size))
        costates[-1] = p = end
        shape = (self.size, 1, len(self.modes.lam))
        for k in range(n - 1, -1, -1):
            before = costates[k]
            terms = self.phi[k] * p.reshape(shape)
            np.add.reduce(terms, axis=0, out=before.reshape(self.size, -1))
            before += (self.push[k] @ p) @ self.look[k]
            if along is not None:
                before += along[k]
            p = before
        return costates

    def _seen(self, states: Floats) -> Floats:
        return (self.look @ states[:, :, None])[..., 0] + self.sigma2

    def advanced(self, states: Floats) -> Floats:
        """Every state after the block of its own."""
        x = states.reshape(len(states), 1, self.size, -1)
        moved = (self.phi * x).sum(2).reshape(states.shape)
        return moved + (self._seen(states)[:, None] @ self.push)[:, 0]

    def returned(self, costates: Floats) -> Floats:
        """Every costate before the block of its own."""
        p = costates.reshape(len(costates), self.size, 1, -1)
        moved = (self.phi * p).sum(1).reshape(costates.shape)
        return moved + ((self.push @ costates[:, :, None])[..., 0][:, None] @ self.look)[:, 0]

    def pull_back(self, states: Floats, costates: Floats) -> MomentGradient:
        """Derivatives in the controls.

        Parameters
        ----------
        states, costates : numpy.ndarray, shape (n, d * J)
            States at the starts of the blocks, costates at their ends.
        """
        n, d, j = len(states), self.size, len(self.modes.lam)
        losses = (self.solve @ self._seen(states)[..., None])[..., 0]
        q = (self.push @ costates[:, :, None])[..., 0]
        x = np.ascontiguousarray(states.reshape(n, d, j).transpose(1, 0, 2))
        u = np.ascontiguousarray(costates.reshape(n, d, j).transpose(1, 0, 2))
        u[0] += q[:, 2:3]
        # What a run acts on: the state, and the coefficients of the loss along it.
        z = np.einsum("ni,ipn->pn", losses, self._nodes)
        seen = np.concatenate([x, np.broadcast_to(z[:, :, None], (3, n, j))])
        by = self._middle
        later = z[0] + by * (z[1] + by * z[2]), z[1] + 2.0 * by * z[2], z[2]
        after = np.empty_like(seen)
        after[:d] = x
        back = u.copy()
        for i in range(d):
            after[i] += (self._one[i] * seen).sum(0)
            back[i] += (self._two[:, i] * u).sum(0)
        after[d:] = np.stack(later)[:, :, None]
        back[0] += q[:, 1:2]
        pull = np.concatenate([back[:, None] * seen, u[:, None] * after], axis=2)
        at_steps = self._powers.pull(pull)
        slopes = step_slopes(self.optimiser, self.modes, self._controls, self._steps, at_steps)
        return MomentGradient(*(self._at_ends(table) for table in slopes))

    def _at_ends(self, table: Table) -> Table:
        """Derivatives at the ends of the blocks from those at the means of their halves."""
        found = {}
        for name, value in table.items():
            halves = value.reshape(2, -1)
            found[name] = np.stack(
                [((1.0 - self._share) * halves).sum(0), (self._share * halves).sum(0)]
            )
        return found
