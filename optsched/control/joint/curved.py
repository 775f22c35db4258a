"""The Hessian of the objective of several controls, for the price of a few gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from optsched.arrays import Floats
from optsched.control.joint.moments import MomentObjective
from optsched.control.variables import Table
from optsched.model.linear.chain import MomentChain

__all__ = ["CurvedObjective"]

STEP = 1e-6  # of a log control: its square and the rounding of a gradient are both far below


class CurvedObjective(MomentObjective):
    """A `MomentObjective` with second derivatives, whose controls at a knot depend on it alone.

    Second derivatives inside a block are differences of its own gradient, of all blocks at once;
    those between blocks follow from tangents of the states.
    """

    def hessian(self, x: Floats) -> Floats:
        """Second derivatives of the value, shape (n, n)."""
        n, rows = len(self._length), self.variables.coordinates(x)
        hats = self.variables.hats[:, : n + 1]
        made = self.variables.made
        with np.errstate(all="ignore"):
            chain = self._chain(self._length, self._ends(made(rows)))
            states = chain.states(self._start)
            found = self._value(states)
            costates = self._costates(chain, 1.0 / found)
            after, before = chain.advanced(states[:-1]), chain.returned(costates[1:])

            first, last = rows, self._shifted(rows)
            base = self._local(chain, states[:-1], costates[1:], [(first, last)])[0]
            count = 2 * len(rows)
            moves = []
            for k in range(count):
                ends = [first.copy(), last.copy()]
                ends[k // len(rows)][k % len(rows)] += STEP
                moves.append((ends[0], ends[1]))
            # All moves as blocks of one chain.
            tables = [[self._cut(made(end)) for end in ends] for ends in zip(*moves, strict=True)]
            joint = [
                {name: np.concatenate([table[name] for table in side]) for name in side[0]}
                for side in tables
            ]
            moved = self._chain(np.tile(self._length, count), (joint[0], joint[1]))
            x, p = np.tile(states[:-1], (count, 1)), np.tile(costates[1:], (count, 1))
            shape = count, n, -1
            tangents = (moved.advanced(x).reshape(shape) - after) / STEP
            cotangents = (moved.returned(p).reshape(shape) - before) / STEP
            within = (self._local(moved, x, p, moves) - base) / STEP
            by_block = (np.swapaxes(part, 0, 1) for part in (tangents, cotangents))
            blocks = _Blocks(*by_block, within=within.transpose(2, 0, 1))
            full = _assembled(chain, blocks, hats)
        gradient = (np.concatenate([hats[:, :-1], hats[:, 1:]]) * base[..., None]).sum(1)
        slope = gradient.reshape(2, len(rows), -1).sum(0).ravel()
        full -= np.outer(slope, slope)
        if self.smoothing:
            full += self.smoothing * self.variables.stiffness
        return full

    def _local(
        self,
        chain: MomentChain,
        states: Floats,
        costates: Floats,
        moves: Sequence[tuple[Floats, Floats]],
    ) -> Floats:
        """Gradients of blocks alone in the coordinates at their ends, shape (moves, 2 C, n).

        The chain has the blocks once for each of the moves, which are the coordinates at the
        starts and at the ends of the blocks.
        """
        n, total = len(self._length), chain.pull_back(states, costates).total
        found = []
        for k, ends in enumerate(moves):
            here = slice(k * n, (k + 1) * n)
            parts = []
            for end, coordinates in enumerate(ends):
                knots = {name: self._padded(value[end, here]) for name, value in total.items()}
                parts.append(self.variables.pulled(coordinates, knots)[:, :n])
            found.append(np.concatenate(parts))
        return np.stack(found)

    def _cut(self, table: Table) -> Table:
        return {name: value[: len(self._length)] for name, value in table.items()}

    def _padded(self, values: Floats) -> Floats:
        return np.append(values, np.zeros(self.mesh.padded + 1 - len(values)))

    @staticmethod
    def _shifted(rows: Floats) -> Floats:
        """Coordinates at the knots after: of the last of all its own."""
        return np.concatenate([rows[:, 1:], rows[:, -1:]], axis=1)


class _Blocks:
    """Derivatives of blocks in the coordinates at their ends.

    Of the state after a block and of the costate before it, shape (n, 2 C, d * J), and second
    ones (n, 2 C, 2 C).
    """

    def __init__(self, tangents: Floats, cotangents: Floats, within: Floats) -> None:
        self.tangents, self.cotangents = tangents, cotangents
        self.within = 0.5 * (within + within.transpose(0, 2, 1))


def _assembled(chain: MomentChain, blocks: _Blocks, hats: Floats) -> Floats:
    """Second derivatives of the objective in the nodes of all coordinates.

    Parameters
    ----------
    hats : numpy.ndarray, shape (C, n + 1, nodes)
        Coordinates at the knots from those at the nodes.
    """
    kinds, knots, nodes = hats.shape
    d, j = chain.size, chain.phi.shape[-1]
    # Nodes in the order in which they begin to matter, so that tangents of later ones are 0.
    size = kinds * nodes
    order = np.arange(size).reshape(kinds, nodes).T.ravel()
    matrix = np.zeros((2 * kinds, knots - 1, kinds, nodes))
    for c in range(kinds):
        matrix[c, :, c] = hats[c, :-1]
        matrix[kinds + c, :, c] = hats[c, 1:]
    matrix = matrix.reshape(2 * kinds, knots - 1, size)[:, :, order]
    full = np.zeros((size, size))
    # Tangents of the state in the nodes, moment by moment: products are with whole rows of modes.
    tangent, spare, term = (np.zeros((rows, size, j)) for rows in (d, d, 1))
    shape = knots - 1, -1, d, j
    look, push = chain.look.reshape(shape), chain.push.reshape(shape)
    cotangents, tangents = blocks.cotangents.reshape(shape), blocks.tangents.reshape(shape)
    alive, in_use = 0, [np.flatnonzero(one) for one in np.any(matrix, axis=0)]
    for k, used in enumerate(in_use):
        own = matrix[:, k, used].T
        if alive:
            now, after, one = tangent[:, :alive], spare[:, :alive], term[0, :alive]
            mixed = own @ sum(cotangents[k, :, i] @ now[i].T for i in range(d))
            full[used, :alive] += mixed
            seen = sum(now[i] @ look[k, :, i].T for i in range(d))
            for i in range(d):
                np.matmul(seen, push[k, :, i], out=after[i])
                for m in range(d):
                    after[i] += np.multiply(now[m], chain.phi[k, i, m], out=one)
            tangent, spare = spare, tangent
        full[np.ix_(used, used)] += 0.5 * (own @ blocks.within[k] @ own.T)
        begun = max(alive, int(used[-1]) + 1) if used.size else alive
        tangent[:, alive:begun] = 0.0
        alive = begun
        for i in range(d):
            tangent[i, used] += own @ tangents[k, :, i]
    found = np.empty_like(full)
    found[np.ix_(order, order)] = full + full.T
    return found
