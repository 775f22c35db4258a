r"""Plain SGD in NumPy: the chain of blocks, its adjoint, and derivatives in the controls.

A block acts on the energies e as :math:`e \leftarrow \phi e + \sum_i c_i w_i`, with c the losses at
its start, middle and end. These three solve a triangular-by-blocks linear system whose right-hand
side is linear in e, so that a block is a diagonal plus a matrix of rank three; states and costates
run through the chain in a few products each, and everything else is done for all blocks at once.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from optsched.arrays import Floats
from optsched.model.sgd.block import (
    BlockParts,
    Moments,
    exp_moments,
    moment_slopes,
    sgd_block,
)
from optsched.model.spectrum import Modes

__all__ = ["Plain", "PlainChain", "PlainGradient", "Table", "plain_parts", "pull_back"]

Table = dict[str, Floats]


class Plain(Protocol):
    """What is needed of plain SGD."""

    @property
    def batch_size(self) -> Any: ...
    @property
    def sigma2(self) -> Any: ...
    @property
    def continuous(self) -> bool: ...


def _both_moments(half: Floats, whole: Floats) -> tuple[Moments, Moments]:
    """Moments of both exponents, in one go."""
    moments = exp_moments(np.stack([half, whole]), np)
    first, second = ([moment[i] for moment in moments] for i in range(2))
    return tuple(first), tuple(second)  # type: ignore[return-value]


def plain_parts(sgd: Plain, modes: Modes, length: Floats, first: Table, last: Table) -> BlockParts:
    """Maps of all blocks on all modes, arrays of shape (n, J)."""
    start, end = ({name: value[:, None] for name, value in ends.items()} for ends in (first, last))
    return sgd_block(
        length[:, None],
        start,
        end,
        start,
        end,
        modes.lam,
        modes.nu,
        batch_size=sgd.batch_size,
        continuous=bool(sgd.continuous),
        xp=np,
        moments=_both_moments,
    )


class PlainChain:
    """A chain of blocks with given maps."""

    def __init__(self, sgd: Plain, parts: BlockParts) -> None:
        self.parts, self.sigma2 = parts, float(sgd.sigma2)
        self.continuous = bool(sgd.continuous)
        n, size = parts.phi.shape
        self.w = np.empty((n, 3, size))  # (blocks, loss at start, middle or end, modes)
        for i in range(3):
            self.w[:, i] = parts.w[i]
        # What a unit of loss at each place adds to the excess at the middle and at the end.
        gh = np.stack([w.sum(1) for w in parts.half_w], 1)
        ge = self.w.sum(2)
        # Losses at start, middle and end, as a matrix times what the state alone gives there.
        a, b, c, d = 1.0 - gh[:, 1], -gh[:, 2], -ge[:, 1], 1.0 - ge[:, 2]
        det = a * d - b * c
        # A constant loss is a source above 0, but where a block is too coarse for its rates: there
        # the losses are NaN. ``margin`` is the least source over the sum of its sizes, 1 of a mode
        # without any noise.
        halves, total = gh.sum(1), ge.sum(1)
        sizes = np.abs(self.w).sum(1)
        share = np.divide(self.w.sum(1), sizes, out=np.ones_like(sizes), where=sizes != 0.0)
        self.margin = share.min(1)
        self.gain = np.maximum(halves, total)
        det = np.where((self.margin >= 0.0) & (self.gain < 1.0), det, np.nan)
        solve = np.zeros((n, 3, 3))
        solve[:, 0, 0] = 1.0
        solve[:, 1, 0] = (d * gh[:, 0] - b * ge[:, 0]) / det
        solve[:, 1, 1], solve[:, 1, 2] = d / det, -b / det
        solve[:, 2, 0] = (a * ge[:, 0] - c * gh[:, 0]) / det
        solve[:, 2, 1], solve[:, 2, 2] = -c / det, a / det
        self.solve = solve
        self.look = np.ones((n, 3, size))
        self.look[:, 1], self.look[:, 2] = parts.half_phi, parts.phi
        self.push = solve.transpose(0, 2, 1) @ self.w

    def states(self, start: Floats) -> Floats:
        """Energies at the starts of all blocks, and at the end; shape (n + 1, J)."""
        n, size = self.parts.phi.shape
        states = np.empty((n + 1, size))
        states[0] = e = start
        sigma2 = self.sigma2
        rows = zip(self.look, self.parts.phi, self.push, states[1:], strict=True)
        for look, phi, push, after in rows:
            np.multiply(phi, e, out=after)
            after += (look @ e + sigma2) @ push
            e = after
        return states

    def costates(self, end: Floats, along: Floats | None = None) -> Floats:
        """Derivatives of ``end @ final state`` in the states; shape (n + 1, J).

        With ``along``, shape (n,), of that and of so much of the energy at the start of each block.
        """
        n, size = self.parts.phi.shape
        costates = np.empty((n + 1, size))
        costates[-1] = p = end
        for k in range(n - 1, -1, -1):
            before = costates[k]
            np.multiply(self.parts.phi[k], p, out=before)
            before += (self.push[k] @ p) @ self.look[k]
            if along is not None:
                before += along[k]
            p = before
        return costates

    def losses(self, states: Floats) -> Floats:
        """Losses at the start, middle and end of every block, from the state at its start."""
        seen = (self.look @ states[:, :, None])[..., 0] + self.sigma2
        return (self.solve @ seen[..., None])[..., 0]

    def advanced(self, states: Floats) -> Floats:
        """Every state after the block of its own."""
        seen = (self.look @ states[:, :, None])[..., 0] + self.sigma2
        return self.parts.phi * states + (seen[:, None] @ self.push)[:, 0]


class PlainGradient(NamedTuple):
    """Derivatives of a function of the final state, by blocks.

    ``drift`` and ``noise`` have shape (2, n): in the rate at a block's first step and at the step
    after its last, as drift and as diffusion see it.
    """

    drift: Floats
    noise: Floats


class _Inner(NamedTuple):
    """Derivatives in what a block's map is made of.

    In the exponents of the half and of the whole; in the clock of the three places; and ``bases``,
    of which a stationary value times its loss is the weight.
    """

    half: Floats
    whole: Floats
    clock: tuple[Floats, ...]
    bases: tuple[Floats, ...]


def pull_back(chain: PlainChain, modes: Modes, states: Floats, costates: Floats) -> PlainGradient:
    """Derivatives in the rates of the function whose derivatives in the states are given.

    Parameters
    ----------
    chain : PlainChain
    modes : Modes
    states, costates : numpy.ndarray, shape (n + 1, J)
        Of the chain.
    """
    parts = chain.parts
    losses = chain.losses(states[:-1])
    inner = _inner(chain, states[:-1], costates[1:], losses)
    # Decay rates: at the places through the clock, at Gauss points through the exponents.
    ahead = 0.0 if chain.continuous else 0.5
    rates = list(zip(parts.places, inner.clock, (ahead, ahead, ahead), strict=True))
    for points, g, steps in zip(parts.gauss, (inner.half, inner.whole), parts.steps, strict=True):
        rates += [(point, g, 0.5 * steps[:, 0]) for point in points]
    lam = np.where(modes.lam > 0.0, modes.lam, 1.0)
    columns = np.stack([2.0 * lam, lam**2], 1)
    count = len(losses)
    drift, noise = np.zeros((2, len(rates), count))
    for k, (place, g, weight) in enumerate(rates):
        seen = g if chain.continuous else g / (1.0 + place.down)
        first, second = (seen @ columns).T * weight
        m = np.ravel(place.batch_size)
        drift[k], noise[k] = first, -2.0 * (1.0 + 1.0 / m) * place.noise[:, 0] * second
    # Stationary values, through noise^2 / drift.
    mass = modes.nu / lam
    for k, (place, basis) in enumerate(zip(parts.places, inner.bases, strict=True)):
        m, at, seen = np.ravel(place.batch_size), place.drift[:, 0], place.noise[:, 0]
        safe = np.where(at > 0.0, at, 1.0)
        ratio = seen**2 / safe
        left = 2.0 - ((1.0 + 1.0 / m) * ratio)[:, None] * lam
        g = 2.0 / m * losses[:, k] * ((basis / left**2) @ mass)
        drift[k] -= np.where(at > 0.0, ratio / safe, 0.0) * g
        noise[k] += 2.0 * seen / safe * g
    share = np.stack([np.broadcast_to(place.share, (count, 1))[:, 0] for place, _, _ in rates])
    ends = np.stack([1.0 - share, share])
    return PlainGradient((ends * drift).sum(1), (ends * noise).sum(1))


def _inner(chain: PlainChain, e: Floats, p: Floats, losses: Floats) -> _Inner:
    """Derivatives at states e before and costates p after every block.

    With the losses c of a block held, everything that its maps do is the sum over modes of
    ``q (phi e + W) + l (half_phi e + half_W)``: q is the costate plus the weight of the loss at the
    end, l that of the loss in the middle, and W the quadratic through the stationary energies
    ``c s`` at the three places, against the moments of the block.
    """
    parts = chain.parts
    # Costates of the middle and end loss: what feeds them is solved for, backwards.
    direct = (chain.w @ p[:, :, None])[..., 0]
    held = (direct[:, None] @ chain.solve)[:, 0]
    middle, q = held[:, 1:2], p + held[:, 2:3]
    (half, whole), (half_moments, moments) = parts.exponents, parts.moments
    inverse = 1.0 / np.where(whole == 0.0, 1.0, whole)
    y0, y1, y2 = parts.clock
    f0, f1, f2 = (losses[:, i : i + 1] * s for i, s in enumerate(parts.stationary))
    # Divided differences: the quadratic is c0 + c1 y + c2 y^2.
    one, two = (f1 - f0) / (y1 - y0), (f2 - f1) / (y2 - y1)
    c2 = (two - one) / (y2 - y0)
    c1 = one - c2 * (y0 + y1)
    c0 = f0 - y0 * (c1 + c2 * y0)
    exact_half, exact = parts.exact
    # The whole block.
    j0, j1, j2, _ = moments
    d0, d1, d2 = moment_slopes(moments)
    value = c0 * j0 + exact * (c1 * j1 + c2 * j2)
    slope = c0 * d0 + exact * (c1 * d1 + c2 * d2)
    g_whole = q * (value + whole * slope - e * parts.phi)
    # Its first half: through its exponent, and through its part of the whole.
    part = half * inverse
    offset = 0.5 * (part - 1.0)
    mean, lean, bend = c0 + offset * (c1 + c2 * offset), c1 + 2.0 * c2 * offset, part * c2
    j0, j1, j2, _ = half_moments
    d0, d1, d2 = moment_slopes(half_moments)
    spread = exact_half * (lean * j1 + bend * j2)
    value = mean * j0 + part * spread
    slope = mean * d0 + exact_half * part * (lean * d1 + bend * d2)
    g_part = 0.5 * lean * j0 + spread + exact_half * bend * (j1 + j2)
    g_part = middle * part * g_part
    g_half = middle * (value + half * slope - e * parts.half_phi) + g_part
    g_whole = g_whole - part * g_part
    # The derivative of an interpolant in a place is minus its slope there, times that basis.
    bases = tuple(q * w + middle * h for h, w in zip(*parts.bases, strict=True))
    fixed = np.where(parts.flat, 0.0, -inverse)
    clock = tuple(
        (c1 + 2.0 * c2 * y) * basis * fixed for y, basis in zip(parts.clock, bases, strict=True)
    )
    for y, g in zip(parts.clock, clock, strict=True):
        g_whole = g_whole - (y + 0.5) * g
    return _Inner(g_half + clock[1], g_whole + clock[2], clock, bases)
