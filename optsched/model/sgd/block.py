r"""The map of a block of plain SGD steps on a mode: one source, in NumPy and in JAX.

Along a block the rate (and the batch size) moves linearly. Every mode has its own clock u, the
share of its decay exponent :math:`\kappa` that is spent. A step with source s and factor r adds
``s/(1-r) kappa exp(-kappa (1-u)) du`` over its part of the clock, exactly; the stationary value
s/(1-r) is smooth in u, and is interpolated through the block's start, middle and end.

Functions take the module ``xp`` whose arrays they are given: ``numpy``, on whole arrays (blocks,
modes), or ``jax.numpy``, on the scalars of one block and mode, which the compiler then fuses.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

__all__ = ["BlockParts", "Moments", "Place", "exp_moments", "fall", "moment_slopes", "sgd_block"]

Moments = tuple[Any, Any, Any, Any]
SERIES = tuple(1.0 / (math.factorial(m) * (m + 4.0)) for m in range(14))


class Place(NamedTuple):
    """Controls at a step of a block, and what a mode does there.

    ``drift`` and ``noise`` are the rate as drift and as diffusion see it, ``batch_size`` is what
    diffusion alone sees, ``down`` the step factor less 1, ``growth`` its logarithm.
    """

    share: Any
    drift: Any
    noise: Any
    batch_size: Any
    down: Any
    growth: Any


class BlockParts(NamedTuple):
    """Map of a block and what its derivative needs.

    ``half`` and ``whole`` are the decay exponents of the first half and of all steps, with their
    moments; ``bases`` the weights of a stationary value of 1 at each of the three places, of the
    half and of the whole; ``clock`` (u - 1/2) of the places; ``stationary`` the values there.
    """

    half_phi: Any
    half_w: tuple[Any, ...]
    phi: Any
    w: tuple[Any, ...]
    exponents: tuple[Any, Any]
    moments: tuple[Moments, Moments]
    bases: tuple[tuple[Any, ...], tuple[Any, ...]]
    clock: tuple[Any, ...]
    flat: Any
    stationary: tuple[Any, ...]
    places: tuple[Place, ...]
    gauss: tuple[tuple[Place, Place], tuple[Place, Place]]
    steps: tuple[Any, Any]
    exact: tuple[Any, Any]


def fall(x: Any, x_noise: Any, m: Any) -> Any:
    """One minus the step factor, at x = eta * lam as drift and diffusion see it."""
    return 2.0 * x - (1.0 + 1.0 / m) * x_noise**2


def exp_moments(kappa: Any, xp: Any) -> Moments:
    r"""Moments :math:`\int_0^1 (u - 1/2)^p e^{-\kappa (1-u)} du`, p = 0, 1, 2, and the third of v.

    The last is :math:`\int_0^1 v^3 e^{-\kappa v} dv`, which derivatives need.
    """
    small = xp.abs(kappa) < 1.0
    q = xp.exp(-kappa)
    # Small exponents: a series for p = 3, the others by the recurrence that is stable downwards.
    y = xp.where(small, -kappa, 0.0)
    s3 = SERIES[-1] * y + SERIES[-2]
    for coefficient in SERIES[-3::-1]:
        s3 = s3 * y + coefficient
    # Large ones: the same recurrence upwards.
    x = 1.0 / xp.where(small, 1.0, kappa)
    c0 = (1.0 - q) * x
    c1 = (c0 - q) * x
    c2 = (2.0 * c1 - q) * x
    i3 = xp.where(small, s3, (3.0 * c2 - q) * x)
    i2 = xp.where(small, (q - y * s3) * (1.0 / 3.0), c2)
    i1 = xp.where(small, (q - y * i2) * 0.5, c1)
    i0 = xp.where(small, q - y * i1, c0)
    return i0, 0.5 * i0 - i1, 0.25 * i0 - i1 + i2, i3


def moment_slopes(moments: Moments) -> tuple[Any, Any, Any]:
    """Derivatives of the first three of `exp_moments`: each is minus the next."""
    j0, j1, j2, i3 = moments
    i1 = 0.5 * j0 - j1
    i2 = j2 - 0.25 * j0 + i1
    return -i1, i2 - 0.5 * i1, i2 - 0.25 * i1 - i3


def sgd_block(
    count: Any,
    first: Mapping[str, Any],
    last: Mapping[str, Any],
    noise_first: Mapping[str, Any],
    noise_last: Mapping[str, Any],
    lam: Any,
    nu: Any,
    *,
    batch_size: Any,
    continuous: bool,
    xp: Any,
    moments: Callable[[Any, Any], tuple[Moments, Moments]],
) -> BlockParts:
    """Maps of blocks of ``count`` steps on modes; 0 steps are padding.

    Parameters
    ----------
    count : array
        Number of steps.
    first, last : mapping of str to array
        Controls at a block's first step and at the step after its last, as drift sees them.
    noise_first, noise_last : mapping of str to array
        The same as diffusion sees them.
    lam, nu : array
        Eigenvalue and noise mass of the modes.
    batch_size : float
        Where it is not among the controls.
    continuous : bool
        Integrate the ODE instead of the recursion.
    xp : module
        ``numpy`` or ``jax.numpy``.
    moments : callable
        `exp_moments` of the two exponents, for that module.
    """
    lam = xp.where(lam > 0.0, lam, 1.0)  # padding carries no mass
    real = xp.where(count > 0.0, 1.0, 0.0)
    n = xp.where(count > 0.0, count, 1.0)
    half = n / 2.0 if continuous else xp.floor(n / 2.0)
    shift = 0.0 if continuous else 1.0  # steps act at their start, and last one step
    held = "batch_size" not in first

    def at(k: Any) -> Place:
        share = k / n
        drift = first["eta"] + (last["eta"] - first["eta"]) * share
        if noise_first is first and noise_last is last:
            noise = drift
        else:
            noise = noise_first["eta"] + (noise_last["eta"] - noise_first["eta"]) * share
        m = batch_size
        if not held:
            m0, m1 = noise_first["batch_size"], noise_last["batch_size"]
            m = m0 + (m1 - m0) * share
        # `fall`, with what modes share taken together.
        down = lam * (((1.0 + 1.0 / m) * noise**2) * lam - 2.0 * drift)
        return Place(share, drift, noise, m, down, down if continuous else xp.log1p(down))

    def gauss(steps: Any) -> tuple[Place, Place]:
        """Points of the two-point discrete Gauss rule over the first steps."""
        spread = xp.sqrt(xp.maximum(steps**2 - shift, 0.0) / 12.0)
        # Of no steps at all, the first place: before it a batch size need not be positive.
        middle = xp.maximum((steps - shift) / 2.0, 0.0)
        return at(middle - spread), at(middle + spread)

    def stationary(place: Place) -> Any:
        """s/(1-r) per unit of loss; the rate is divided out, so that a rate of 0 is harmless."""
        ratio = place.noise**2 / xp.where(place.drift > 0.0, place.drift, 1.0)
        m = place.batch_size
        return nu / lam * (ratio / m / (2.0 - (1.0 + 1.0 / m) * ratio * lam))

    points = gauss(half), gauss(n)
    spent = tuple(
        (-0.5 * real * steps) * (one.growth + two.growth)
        for steps, (one, two) in zip((half, n), points, strict=True)
    )
    total = xp.where(spent[1] == 0.0, 1.0, spent[1])
    # The loss is known at the starts of steps 0, half and n; the source of a step sits at the
    # centre of the step's own part of the clock.
    places = at(0.0 * n), at(half), at(n)
    part, ahead = spent[0] / total, (-0.5 * shift) / total
    y = [
        ahead * places[0].growth - 0.5,
        ahead * places[1].growth + (part - 0.5),
        ahead * places[2].growth + 0.5,
    ]
    # One step sees the first value only: with the first place at its centre.
    flat = (spent[1] == 0.0) if continuous else (n == 1.0) | (spent[1] == 0.0)
    y = [xp.where(flat, float(i), value) for i, value in enumerate(y)]
    y01, y02, y12 = y[0] - y[1], y[0] - y[2], y[1] - y[2]
    scales = 1.0 / (y01 * y02), -1.0 / (y01 * y12), 1.0 / (y02 * y12)
    moment = moments(*spent)
    # Exact second moments for a sum over whole steps instead of an integral.
    exact = tuple(1.0 - shift / xp.maximum(steps, 1.0) ** 2 for steps in (half, n))
    # Quadratics that are 1 at one place and 0 at the others, against the moments of the steps;
    # in powers of u less their middle, which is 0 for all steps of the block.
    bases = []
    for k, middle, inside in ((0, 0.5 * (part - 1.0), part), (1, 0.0, 1.0)):
        j0, j1, j2, _ = moment[k]
        j1 = exact[k] * inside * spent[k] * j1
        j0, j2 = spent[k] * j0, exact[k] * inside * inside * spent[k] * j2
        z0, z1, z2 = (middle - value for value in y)
        pairs = (z1, z2), (z0, z2), (z0, z1)
        bases.append(
            tuple(
                scale * (one * two * j0 + (one + two) * j1 + j2)
                for scale, (one, two) in zip(scales, pairs, strict=True)
            )
        )
    level = tuple(stationary(place) for place in places)
    half_w, w = (tuple(b * s for b, s in zip(base, level, strict=True)) for base in bases)
    return BlockParts(
        half_phi=xp.exp(-spent[0]),
        half_w=half_w,
        phi=xp.exp(-spent[1]),
        w=w,
        exponents=spent,
        moments=moment,
        bases=(bases[0], bases[1]),
        clock=tuple(y),
        flat=flat,
        stationary=level,
        places=places,
        gauss=points,
        steps=(half, n),
        exact=exact,
    )
