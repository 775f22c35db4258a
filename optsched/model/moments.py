r"""Exact second moments of any linear optimiser: momentum, weight averaging, weight decay.

On one mode such an optimiser is a linear map of a few numbers :math:`\xi` (error of the iterate,
momentum, error of the averaged iterate, target) driven by the gradient noise,

.. math:: \xi \leftarrow A(u)\, \xi + b(u)\, \zeta, \qquad
   E \zeta^2 = (\lambda^2 E e^2 + \lambda L) / m ,

so that the second moments :math:`S = E \xi \xi^T` obey
:math:`S \leftarrow A S A^T + b b^T E\zeta^2`: a linear system of p(p+1)/2 numbers a mode, coupled
by the loss alone, which is what `Dynamics` asks for. An optimiser is its A and its b.

A block of n steps is the n-th power of that system, by repeated squaring, with controls held at
their mean over each half of the block: exact in discrete time, so that the oscillation of
momentum is never aliased, at a cost that grows as log n.
"""

from __future__ import annotations

import abc
import math
from dataclasses import KW_ONLY, dataclass, fields, replace
from itertools import combinations_with_replacement
from typing import Any, ClassVar, NamedTuple, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from optsched.arrays import Floats
from optsched.model.dynamics import BlockMaps, Blocks, Controls, Dynamics
from optsched.model.spectrum import Modes
from optsched.model.unrolled import (
    Entry,
    Matrix,
    Vector,
    add,
    apply,
    closure,
    dense,
    plus,
    product,
    times,
)

__all__ = ["LinearOptimiser", "Transition", "pytree"]

T = TypeVar("T")

BATCH = 32  # blocks
STATIC = ("bool", "int", "str")


@dataclass_transform(frozen_default=True)
def pytree(cls: type[T]) -> type[T]:
    """Class decorator: a frozen dataclass that is a JAX pytree.

    Fields annotated as ``bool``, ``int`` or ``str`` are static, and each of their values has
    compiled code of its own; all others are data: numbers, arrays, or pytrees of them.

    Parameters
    ----------
    cls : type
        Such as a subclass of `optsched.model.dynamics.Dynamics`.
    """
    made: Any = dataclass(frozen=True)(cls)
    kinds = {f.name: f.type if isinstance(f.type, str) else f.type.__name__ for f in fields(made)}
    data = [name for name, kind in kinds.items() if kind not in STATIC]
    static = [name for name, kind in kinds.items() if kind in STATIC]
    return jax.tree_util.register_dataclass(made, data_fields=data, meta_fields=static)


class Transition(NamedTuple):
    r"""One step of a linear optimiser on one mode.

    Attributes
    ----------
    change : list of lists
        :math:`A - I`; None where it is zero for every control.
    kick : list
        b, the response to a unit of gradient noise.
    """

    change: Matrix
    kick: Vector


def _pairs(size: int) -> list[tuple[int, int]]:
    return list(combinations_with_replacement(range(size), 2))


def _lift(change: Matrix) -> Matrix:
    """Change of the moments S_ij, i <= j, under xi -> (I + change) xi."""

    def entry(i: int, j: int, k: int, m: int) -> Entry:
        """Coefficient of S_km, as an ordered pair, less the identity."""
        near = change[j][m] if i == k else None
        far = change[i][k] if j == m else None
        return add(near, far, times(change[i][k], change[j][m]))

    def both(i: int, j: int, k: int, m: int) -> Entry:
        return entry(i, j, k, m) if k == m else add(entry(i, j, k, m), entry(i, j, m, k))

    pairs = _pairs(len(change))
    return [[both(*row, *column) for column in pairs] for row in pairs]


class _Run(NamedTuple):
    """Maps of n equal steps: deviation of the state's map from 1, sources of 1, k, k^2."""

    steps: Array
    change: Matrix
    sources: list[Vector]


def _shifted(sources: list[Vector], by: Array) -> list[Vector]:
    """Sources of (k + by)^p from those of k^p."""
    w0, w1, w2 = sources
    twice = 2.0 * by
    return [
        w0,
        [add(y, times(by, x)) for x, y in zip(w0, w1, strict=True)],
        [add(z, times(twice, y), times(by * by, x)) for x, y, z in zip(w0, w1, w2, strict=True)],
    ]


def _join(first: _Run, second: _Run) -> _Run:
    """First, then second."""
    change = plus(plus(first.change, second.change), product(second.change, first.change))
    later = _shifted(second.sources, first.steps)
    sources = [
        [add(*terms) for terms in zip(w, apply(second.change, w), more, strict=True)]
        for w, more in zip(first.sources, later, strict=True)
    ]
    return _Run(first.steps + second.steps, change, sources)


def _one(change: Matrix, source: Vector, unit: Array) -> _Run:
    """One step, with an entry wherever a power of it can have one."""
    reach, size = closure(change), range(len(source))
    zero = jnp.zeros_like(unit)
    fed = [any(source[j] is not None and (i == j or reach[i][j]) for j in size) for i in size]

    def full(entry: Entry, there: bool) -> Entry:
        return None if not there else zero if entry is None else zero + entry

    empty: Vector = [zero if there else None for there in fed]
    return _Run(
        unit,
        [
            [full(x, r) for x, r in zip(*rows, strict=True)]
            for rows in zip(change, reach, strict=True)
        ],
        [[full(x, r) for x, r in zip(source, fed, strict=True)], empty, empty],
    )


def _power(change: Matrix, source: Vector, steps: Array, depth: int, unit: Array) -> _Run:
    """Maps of any number of equal steps below 2^depth; k counts in ``unit`` steps."""
    one = _one(change, source, unit)
    empty = jax.tree.map(jnp.zeros_like, one)
    bits = jnp.floor(steps / 2.0 ** jnp.arange(depth - 1, -1, -1)) % 2.0

    def bit(run: _Run, value: Array) -> tuple[_Run, None]:
        run = _join(run, run)
        return _join(run, jax.tree.map(lambda leaf: value * leaf, one)), None

    # Recomputing a doubling is cheaper than keeping its products for the reverse pass.
    return jax.lax.scan(jax.checkpoint(bit), empty, bits)[0]


def _doubled(change: Matrix, source: Vector, steps: Array, depth: int, unit: Array) -> _Run:
    """The same for a number of steps that is 0 or a power of two up to 2^depth: half the work."""
    one = jax.tree.map(lambda leaf: jnp.where(steps > 0.0, leaf, 0.0), _one(change, source, unit))

    def double(run: _Run, more: Array) -> tuple[_Run, None]:
        twice = _join(run, run)
        return jax.tree.map(lambda new, old: jnp.where(more, new, old), twice, run), None

    more = steps > 2.0 ** jnp.arange(depth)
    return jax.lax.scan(jax.checkpoint(double), one, more)[0]


@dataclass(frozen=True)
class LinearOptimiser(Dynamics):
    """Second moments of a linear optimiser; subclasses give its step on one mode.

    A subclass is decorated with `optsched.model.moments.pytree` and has fields ``batch_size`` and
    ``sigma2``. Every control in ``held`` has a fixed value as a field of its name, which a control
    of that name replaces.

    A class that says ``arithmetic = True`` itself promises that its `transition` and
    `sample_noise` are sums and products of what they are given, or quotients by controls, that the
    transition is linear in ``lam``, its kick free of it, and the noise at most quadratic: then
    solves and replays do with NumPy, and nothing is compiled.
    """

    _: KW_ONLY
    depth: int = 20  # halves of blocks have less than 2^depth steps
    doubling: bool = False  # the number of steps of every block is 0 or a power of two

    max_gain: ClassVar[float] = 0.99
    held: ClassVar[tuple[str, ...]] = ("batch_size",)  # controls that have a field
    arithmetic: ClassVar[bool] = False
    batch_size: Any

    @property
    def size(self) -> int:
        """Number p of variables a mode; the error of the iterate is the first."""
        return len(self.begin)

    @abc.abstractmethod
    def transition(self, lam: Array, controls: Controls) -> Transition:
        """One step on a mode at scalar controls, all of them."""

    def sample_noise(self, lam: Array, nu: Array) -> tuple[Entry, Entry]:
        r"""Variance on a mode of the gradient of one sample, as spectral energy.

        Coefficients of the mode's own :math:`E e^2` and of the loss L; :math:`\lambda^2` and
        :math:`\nu` for Gaussian features. A batch of m has 1/m of it.
        """
        return lam * lam, nu

    @property
    def begin(self) -> list[float]:
        """Every variable at w = 0, in units of the error of the iterate; by default that alone."""
        return [1.0]

    @property
    def judged(self) -> int:
        """The variable that is the error of the weights that count, the iterate by default."""
        return 0

    def initial(self, modes: Modes) -> Array:
        begin = self.begin
        weight = jnp.asarray([begin[i] * begin[j] for i, j in self.pairs])
        return jnp.asarray(modes.mu)[:, None] * weight

    def _square(self, modes: Modes, index: int) -> Array:
        weight = jnp.asarray([1.0 if pair == (index, index) else 0.0 for pair in self.pairs])
        return jnp.ones_like(jnp.asarray(modes.lam))[:, None] * weight

    def readout(self, modes: Modes) -> Array:
        return self._square(modes, self.judged)

    def feedback(self, modes: Modes) -> Array:
        return self._square(modes, 0)

    def for_blocks(self, lengths: Floats) -> LinearOptimiser:
        # In steps of four, so that compiled code is shared between meshes.
        bits = math.floor(math.log2(max(float(np.max(lengths)), 1.0))) + 1
        whole = np.log2(lengths[lengths > 0.0])
        doubling = bool((whole == np.floor(whole)).all())
        return replace(self, depth=4 * -(-bits // 4), doubling=doubling)

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Indices (i, j) of the moments, in the order of the state."""
        return _pairs(self.size)

    def moments(
        self, lam: Array, nu: Array, controls: Controls, noise: Controls
    ) -> tuple[Matrix, Vector]:
        """Change of the moments in a step, and their source per unit of loss.

        As spectral energies: moments times lam, with nu the noise mass of the node. Controls are
        as drift and as diffusion see them.
        """
        fixed = {name: 1.0 * getattr(self, name) for name in self.held}
        controls, noise = {**fixed, **controls}, {**fixed, **noise}
        change = _lift(self.transition(lam, controls).change)
        kick = self.transition(lam, noise).kick
        share = 1.0 / noise["batch_size"]
        heat = [times(times(kick[i], kick[j]), share) for i, j in self.pairs]
        own, fed = self.sample_noise(lam, nu)
        for row, h in zip(change, heat, strict=True):
            row[0] = add(row[0], times(h, own))
        return change, [times(h, fed) for h in heat]

    def change(self, modes: Modes, controls: Controls) -> tuple[Matrix, Vector]:
        return self.moments(jnp.asarray(modes.lam), jnp.asarray(modes.nu), controls, controls)

    def blocks(self, modes: Modes, blocks: Blocks, noise: Blocks) -> BlockMaps:
        lam, nu = jnp.asarray(modes.lam), jnp.asarray(modes.nu)
        every_mode = jax.vmap(self._block, (None,) * 5 + (0, 0))

        def every(block: tuple[Array, Controls, Controls, Controls, Controls]) -> Any:
            return every_mode(*block, lam, nu)

        # In batches that stay in the cache, also on the way back.
        ends = blocks.length, blocks.first, blocks.last, noise.first, noise.last
        half_phi, half_w, phi, w = jax.lax.map(jax.checkpoint(every), ends, batch_size=BATCH)
        return BlockMaps(half_phi, jnp.swapaxes(half_w, 1, 2), phi, jnp.swapaxes(w, 1, 2))

    def _block(
        self,
        count: Array,
        first: Controls,
        last: Controls,
        noise_first: Controls,
        noise_last: Controls,
        lam: Array,
        nu: Array,
    ) -> tuple[Array, Array, Array, Array]:
        """Maps of one block on one mode."""
        n = jnp.where(count > 0.0, count, 1.0)
        half = jnp.floor(count / 2.0)
        unit = 1.0 / n

        def run(start: Array, steps: Array) -> _Run:
            share = (start + 0.5 * jnp.maximum(steps - 1.0, 0.0)) / n

            def mean(a: Controls, b: Controls) -> Controls:
                return {name: a[name] + (b[name] - a[name]) * share for name in a}

            controls, noise = mean(first, last), mean(noise_first, noise_last)
            # A block that is too long is NaN, not a shorter one.
            unit_step = jnp.where(steps < 2.0**self.depth, unit, jnp.nan)
            power = _doubled if self.doubling else _power
            moments = self.moments(lam, nu, controls, noise)
            return power(*moments, steps, self.depth, unit_step)

        one, two = run(jnp.zeros(()), half), run(half, count - half)
        whole = _join(one, two)
        nodes = _lagrange(half * unit)

        def weights(run: _Run) -> Array:
            powers = dense(run.sources)
            return jnp.stack([sum(c * powers[p] for p, c in enumerate(row)) for row in nodes])

        identity = jnp.eye(len(self.pairs))
        return (
            identity + dense(one.change),
            weights(one),
            identity + dense(whole.change),
            weights(whole),
        )


def _lagrange(middle: Array) -> tuple[tuple[Array | float, ...], ...]:
    """Coefficients of 1, x, x^2 of the quadratics that are 1 at 0, ``middle`` and 1.

    A block of one step has its middle at 0, and sees the first value only.
    """
    single = middle == 0.0
    h = jnp.where(single, 0.5, middle)
    inner = 1.0 / (h * (1.0 - h))
    rows = (-(1.0 + h) / h, 1.0 / h), (inner, -inner), (-h / (1.0 - h), 1.0 / (1.0 - h))
    return tuple(
        (1.0 if i == 0 else 0.0, *(jnp.where(single, 0.0, c) for c in row))
        for i, row in enumerate(rows)
    )
