r"""What a schedule is judged by: a sum of the excess losses along training.

.. math:: J = \sum_p c_p\, E_p + \sum_{k=1}^{T} w_k\, E_k ,

with :math:`E_k` the excess loss after k steps: a few named steps, and a weight of every step. The
loss is known at the knots of a mesh; between them it is interpolated by cubics on the logarithmic
clock, so that J is a sum over the knots, exact where every step is one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from optsched.arrays import Floats, Ints
from optsched.checks import is_number
from optsched.errors import BadPart, InvalidProblem

__all__ = [
    "ExcessAt",
    "FinalExcess",
    "MeanExcess",
    "Objective",
    "Terms",
    "find_objective",
    "interpolation",
    "KnotSum",
    "knot_weights",
]

LONG = 64  # steps from which a sum over a block is a quadrature
PROBES = 200  # steps at which the weights of an objective are tried


class Objective:
    """A weighted sum of the excess losses along training.

    To add one, write a subclass with `points`, or `weight`, or both; `breaks` where the weight
    jumps. Objectives are immutable; a frozen dataclass is the easiest way.
    """

    @property
    def name(self) -> str:
        """Its name in reports and files."""
        return type(self).__name__

    def points(self, horizon: int) -> Mapping[int, float]:
        """Weights of the excess losses after some numbers of steps, 1 to ``horizon``."""
        return {}

    def weight(self, steps: Floats, horizon: int) -> Floats | float:
        """Weight of the excess loss after each number of steps, smooth between `breaks`."""
        return 0.0

    def breaks(self, horizon: int) -> tuple[int, ...]:
        """Numbers of steps done after which the weight jumps: a mesh has a knot at each."""
        return ()

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class FinalExcess(Objective):
    """The excess loss after the last step."""

    @property
    def name(self) -> str:
        return "final"

    def points(self, horizon: int) -> Mapping[int, float]:
        return {horizon: 1.0}


@dataclass(frozen=True)
class MeanExcess(Objective):
    """The mean of the excess loss over the steps: for runs that may be stopped at any time."""

    @property
    def name(self) -> str:
        return "mean"

    def weight(self, steps: Floats, horizon: int) -> Floats | float:
        return 1.0 / horizon


@dataclass(frozen=True)
class ExcessAt(Objective):
    """A weighted sum of the excess losses after some numbers of steps.

    Parameters
    ----------
    weights : mapping of int to float
        Weight > 0 by the number of steps; the last one is the horizon of the problem.

    Raises
    ------
    InvalidProblem
    """

    weights: Mapping[int, float] = field(hash=False)

    def __post_init__(self) -> None:
        allowed = "a dict of weights > 0 by whole numbers of steps, 1 to 10^15"
        if not isinstance(self.weights, Mapping) or not self.weights:
            raise InvalidProblem("objective", self.weights, allowed)
        for step, value in self.weights.items():
            steps = is_number(step) and 1 <= step <= 10**15 and step == int(step)
            if not (steps and is_number(value) and 0.0 < value <= 1e100):
                raise InvalidProblem("objective", {step: value}, allowed)
        made = {int(step): float(value) for step, value in sorted(self.weights.items())}
        object.__setattr__(self, "weights", made)

    def __hash__(self) -> int:
        return hash(tuple(self.weights.items()))

    @property
    def name(self) -> str:
        return ",".join(f"{step}:{value:g}" for step, value in self.weights.items())

    @property
    def last(self) -> int:
        """Its last step."""
        return max(self.weights)

    def points(self, horizon: int) -> Mapping[int, float]:
        if self.last != horizon:
            allowed = f"steps up to the horizon, {horizon}, the last of them"
            raise InvalidProblem("objective", self.name, allowed)
        return self.weights


def find_objective(given: Any) -> Objective:
    """An objective, from itself, a dict of weights by steps, or in words.

    Words are ``final``, ``mean`` or ``STEP:WEIGHT,...``.

    Raises
    ------
    InvalidProblem
        For anything else.
    """
    if isinstance(given, Objective):
        return given
    if isinstance(given, Mapping):
        return ExcessAt(given)
    allowed = "final, mean or STEP:WEIGHT,... such as 1000:1,3000:1"
    if given in ("final", "mean"):
        return FinalExcess() if given == "final" else MeanExcess()
    if not isinstance(given, str):
        raise InvalidProblem("objective", given, f"an Objective, or {allowed}")
    if ":" not in given:
        raise InvalidProblem("objective", given, allowed)
    weights: dict[int, float] = {}
    for part in given.split(","):
        step, _, value = part.partition(":")
        try:
            at, weight = float(step), float(value)
        except ValueError:
            raise InvalidProblem("objective", given, allowed) from None
        if not (math.isfinite(at) and at == int(at)) or int(at) in weights:
            raise InvalidProblem("objective", given, f"{allowed}, each whole step once")
        weights[int(at)] = weight
    return ExcessAt(weights)


class Terms(NamedTuple):
    """An objective at a horizon, checked.

    Attributes
    ----------
    objective : Objective
    horizon : int
    points : dict of int to float
        Weights of named steps, the last one first known.
    dense : bool
        Whether the steps between count too.
    """

    objective: Objective
    horizon: int
    points: dict[int, float]
    dense: bool

    @classmethod
    def of(cls, objective: Objective, horizon: int) -> Terms:
        """The terms, if they keep the contract.

        Raises
        ------
        BadPart
            Naming the rule that is broken.
        """
        part, points = f"objective {objective.name}", objective.points(horizon)
        rule = f"points({horizon}) must be a dict of finite weights >= 0 by steps 1 to {horizon}"
        if not isinstance(points, Mapping):
            raise BadPart(part, rule, f"got {type(points).__name__}")
        for step, value in points.items():
            whole = isinstance(step, (int, np.integer)) and 1 <= step <= horizon
            if not (whole and is_number(value) and 0.0 <= value < math.inf):
                raise BadPart(part, rule, f"got {step!r}: {value!r}")
        steps = np.unique(np.geomspace(1.0, horizon, PROBES).round())
        rule = "weight(steps, horizon) must be finite, >= 0, and a number or of the shape of steps"
        try:
            found = np.asarray(objective.weight(steps, horizon), float)
            probes = np.broadcast_to(found, steps.shape)
        except (TypeError, ValueError) as error:
            raise BadPart(part, rule, str(error)) from None
        if not (np.isfinite(probes).all() and probes.min() >= 0.0):
            raise BadPart(part, rule, f"got {probes[~(probes >= 0.0)][:1]} or infinity")
        breaks = objective.breaks(horizon)
        if not all(isinstance(k, (int, np.integer)) and 0 <= k <= horizon for k in breaks):
            rule = f"breaks({horizon}) must be whole numbers of steps, 0 to {horizon}"
            raise BadPart(part, rule, f"got {breaks!r}")
        dense = bool(probes.any())
        if not dense and not sum(points.values()) > 0.0:
            raise BadPart(part, "some step must have a weight > 0", "none has")
        return cls(objective, horizon, {int(k): float(v) for k, v in points.items() if v}, dense)

    @property
    def final(self) -> bool:
        """Whether it is the excess loss after the last step and nothing else."""
        return not self.dense and self.points == {self.horizon: 1.0}

    @property
    def corners(self) -> Ints:
        """Numbers of steps done, 0 and T among them, at which a mesh has to have a knot."""
        own = [*self.points, *self.objective.breaks(self.horizon)] if not self.final else []
        return np.unique(np.array([0, *own, self.horizon], dtype=np.int64))

    def weight(self, steps: Floats) -> Floats:
        """Weights of the excess losses after so many steps."""
        found = np.asarray(self.objective.weight(steps, self.horizon), float)
        return np.broadcast_to(found, np.shape(steps))


def _clock(steps: Floats, horizon: int) -> Floats:
    """Log-time at the start, log-time-to-go at the end."""
    return np.log1p(steps / 2.0) - np.log1p((horizon - steps) / 2.0)


def interpolation(terms: Terms, edges: Ints, at: Floats, block: Ints) -> tuple[Ints, Floats]:
    """Cubics through the losses at the knots, which no corner is inside of.

    Parameters
    ----------
    terms : Terms
    edges : numpy.ndarray of int, shape (n + 1,)
        Knots, from 0 to the horizon, the corners among them.
    at : numpy.ndarray, shape (N,)
        Numbers of steps, each inside a block.
    block : numpy.ndarray of int, shape (N,)
        Which block.

    Returns
    -------
    numpy.ndarray of int, shape (N, 4)
        Knots.
    numpy.ndarray, shape (N, 4)
        Their weights.
    """
    places = np.searchsorted(edges, terms.corners)
    piece = np.searchsorted(places, block, side="right") - 1
    first, last = places[piece], places[piece + 1]
    start = np.clip(block - 1, first, np.maximum(last - 3, first))
    knots = start[:, None] + np.arange(4)
    real = knots <= last[:, None]  # a short piece has fewer
    knots = np.where(real, knots, start[:, None])
    clock = _clock(edges.astype(float), terms.horizon)[knots]
    now = _clock(at, terms.horizon)
    weights = np.where(real, 1.0, 0.0)
    for j in range(4):
        for k in range(4):
            if j != k:
                both = real[:, j] & real[:, k]
                apart = np.where(both, clock[:, j] - clock[:, k], 1.0)
                weights[:, j] *= np.where(both, (now - clock[:, k]) / apart, 1.0)
    return knots, weights


def knot_weights(terms: Terms, edges: Ints) -> Floats:
    """Weights of the excess losses at the knots of which the objective is the sum.

    Parameters
    ----------
    terms : Terms
    edges : numpy.ndarray of int, shape (n + 1,)
        Numbers of steps done at the knots, from 0 to the horizon, the corners among them.

    Returns
    -------
    numpy.ndarray, shape (n + 1,)
    """
    found = np.zeros(len(edges))
    for step, value in terms.points.items():
        found[int(np.searchsorted(edges, step))] += value
    if not terms.dense:
        return found
    at, block, share = _places(edges)
    knots, weights = interpolation(terms, edges, at, block)
    np.add.at(found, knots, (share * terms.weight(at))[:, None] * weights)
    return found


def _places(edges: Ints) -> tuple[Floats, Ints, Floats]:
    """Steps at which blocks are summed: all of a short block, Gauss points of a long one."""
    gaps = np.diff(edges)
    short = np.flatnonzero(gaps <= LONG)
    near = np.repeat(short, gaps[short])
    begin = np.cumsum(gaps[short]) - gaps[short]
    inside = np.arange(len(near)) - np.repeat(begin, gaps[short])
    steps = edges[near] + 1 + inside
    far = np.flatnonzero(gaps > LONG)
    nodes, shares = np.polynomial.legendre.leggauss(12)
    # The sum over k = a+1..b is the integral from a + 1/2 to b + 1/2, but for 1/24 of a slope.
    middle = edges[far][:, None] + 0.5 + gaps[far][:, None] * (nodes + 1.0) / 2.0
    weights = gaps[far][:, None] * shares / 2.0
    return (
        np.concatenate([steps.astype(float), np.minimum(middle, float(edges[-1])).ravel()]),
        np.concatenate([near, np.repeat(far, len(nodes))]),
        np.concatenate([np.ones(len(near)), weights.ravel()]),
    )


class KnotSum:
    """An objective as a sum over the knots of a mesh, with the error of what is interpolated.

    Parameters
    ----------
    terms : Terms
    edges : numpy.ndarray of int, shape (n + 1,)
        As for `knot_weights`, which are its ``weights``.
    """

    def __init__(self, terms: Terms, edges: Ints) -> None:
        self.terms, self.edges = terms, edges
        self.weights = knot_weights(terms, edges)

    def __call__(self, excess: Floats) -> float:
        """The objective, from the excess losses at the knots."""
        return float(self.weights @ excess)

    def errors(self, excess: Floats, middle: Floats) -> Floats:
        """Error of the sum over each block, from the losses at the knots and in the middle.

        Parameters
        ----------
        excess : numpy.ndarray, shape (n + 1,)
        middle : numpy.ndarray, shape (n,)
            After half of the steps of each block, rounded down.
        """
        gaps = np.diff(self.edges)
        found = np.zeros(len(gaps))
        blocks = np.flatnonzero(gaps > 1)
        if not self.terms.dense or not blocks.size:
            return found
        at, block, share = _places(self.edges)
        mass = np.bincount(block, share * self.terms.weight(at), len(gaps))
        half = (self.edges[:-1] + gaps // 2).astype(float)
        knots, weights = interpolation(self.terms, self.edges, half[blocks], blocks)
        off = middle[blocks] - (weights * excess[knots]).sum(1)
        # The error of a cubic is a quartic, 0 at the knots: its mean is about 2/3 of its middle.
        found[blocks] = off * mass[blocks] * 2.0 / 3.0
        return found
