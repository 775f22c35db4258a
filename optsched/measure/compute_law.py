r"""Compute-optimal size and tokens from a table of trained models.

The law of Hoffmann et al. (arXiv 2203.15556),

.. math:: L(N, D) = E + A N^{-\alpha} + B D^{-\beta}, \qquad C = 6 N D,

has its optimum at fixed compute at

.. math:: N_* = (\alpha A / \beta B)^{1/(\alpha + \beta)} (C/6)^{\beta/(\alpha + \beta)}.

Three ways lead from a table to that exponent, and each has a known bias, which is mended here:

1. *Envelope.* For each compute the best size. Points on the way of a run whose rate had not come
   down are too high, and the grid of sizes makes stairs: here only final losses count, the minimum
   is that of a parabola through three neighbouring sizes, and none at the rim of the sizes counts.
2. *Equal compute.* A parabola in log N is wrong to both sides of its minimum where
   :math:`\alpha \neq \beta`, and the wider the sizes the more: here the curve at one compute has
   the law's own shape, :math:`E_C + A_C N^{-\alpha} + B_C N^{\beta}`.
3. *The law itself.* The published fit stopped early, with intervals far too narrow (Besiroglu et
   al., arXiv 2404.10102): here the search is global in the two exponents, errors are relative, and
   intervals come from refits of tables that the law draws.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares, nnls

from optsched.arrays import Brief, Floats
from optsched.checks import number, positive, real_array, whole
from optsched.errors import InvalidProblem

__all__ = [
    "ComputeLaw",
    "ComputeOptimal",
    "Way",
    "compute_optimal",
    "fit_compute_law",
    "model_size",
]

FLOPS = 6.0  # of a parameter and a token, forward and backward
NEAR = 0.05  # log compute, or log size, within which runs count as equal
EXPONENTS = np.geomspace(0.05, 1.5, 21)
LEAST = 6  # runs: five parameters, and one to tell the misfit


def model_size(width: float, depth: float, vocabulary: float = 0.0) -> float:
    r"""Parameters of a transformer: :math:`12\, d\, w^2 + v\, w`.

    Four matrices of attention and two of a fourfold feed-forward layer a block; norms, biases and
    positions left out; v = 0 counts no embedding.

    Parameters
    ----------
    width, depth : float
        Width w of the residual stream and number d of blocks.
    vocabulary : float
        v, counted once, as if embedding and output were tied.

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.
    """
    w, d = positive("width", width), positive("depth", depth)
    return 12.0 * d * w * w + number("vocabulary", vocabulary, 0.0) * w


@dataclass(frozen=True, eq=False, repr=False)
class ComputeLaw(Brief):
    r""":math:`L(N, D) = E + A N^{-\alpha} + B D^{-\beta}`.

    Attributes
    ----------
    floor : float
        E, the loss that neither size nor tokens take away.
    size, tokens : float
        A and B.
    alpha, beta : float
    misfit : float
        Standard deviation of the logarithms of the losses about the law, over the runs that are
        free to tell it.
    """

    floor: float
    size: float
    alpha: float
    tokens: float
    beta: float
    misfit: float

    @property
    def exponent(self) -> float:
        r""":math:`\beta / (\alpha + \beta)`: the best size grows as this power of the compute."""
        return self.beta / (self.alpha + self.beta)

    def loss(self, parameters: Any, tokens: Any) -> Floats:
        """L at sizes and tokens, elementwise."""
        n, d = np.asarray(parameters, float), np.asarray(tokens, float)
        return self.floor + self.size * n**-self.alpha + self.tokens * d**-self.beta

    def best_size(self, compute: float) -> float:
        r""":math:`N_*` at a compute C."""
        ratio = self.alpha * self.size / (self.beta * self.tokens)
        return float(ratio ** (1.0 / (self.alpha + self.beta)) * (compute / FLOPS) ** self.exponent)


@dataclass(frozen=True, eq=False, repr=False)
class Way(Brief):
    """What one of the three ways says.

    Attributes
    ----------
    name : str
        ``envelope``, ``equal compute`` or ``law``.
    exponent : float
        Of the best size in the compute; nan where the table does not allow the way.
    parameters : float
        Best size at the compute that was asked for.
    exponent_interval, parameters_interval : tuple of float
        From refits of drawn tables.
    note : str
        What the way was made of, or why it cannot be gone.
    """

    name: str
    exponent: float
    parameters: float
    exponent_interval: tuple[float, float]
    parameters_interval: tuple[float, float]
    note: str


@dataclass(frozen=True, eq=False, repr=False)
class ComputeOptimal(Brief):
    """Size, tokens and loss at a compute.

    Attributes
    ----------
    compute : float
        C.
    law : ComputeLaw
    ways : tuple of Way
        The law last; its numbers are those of ``parameters``.
    parameters, tokens, loss : float
        By the law.
    loss_interval, tokens_interval : tuple of float
    level : float
        Probability of the intervals.
    reach : float
        C over the largest compute in the table.
    warnings : tuple of str
    """

    compute: float
    law: ComputeLaw
    ways: tuple[Way, ...]
    parameters: float
    tokens: float
    loss: float
    tokens_interval: tuple[float, float]
    loss_interval: tuple[float, float]
    level: float
    reach: float
    warnings: tuple[str, ...]

    def summary(self) -> dict[str, Any]:
        """Numbers as a JSON-able dict."""
        names = ("compute", "parameters", "tokens", "loss", "tokens_interval", "loss_interval")
        told = {name: getattr(self, name) for name in (*names, "level", "reach")}
        law = {name: getattr(self.law, name) for name in ComputeLaw.__dataclass_fields__}
        return told | {
            "tokens_per_parameter": self.tokens / self.parameters,
            "law": law,
            "ways": [vars(way) for way in self.ways],
            "warnings": list(self.warnings),
        }


def fit_compute_law(parameters: Any, tokens: Any, loss: Any) -> ComputeLaw:
    """Fit the law to final losses.

    Parameters
    ----------
    parameters, tokens, loss : array-like, shape (n,)
        Sizes, tokens and final losses of n >= 6 runs, all > 0, of three sizes and three numbers of
        tokens at least.

    Returns
    -------
    ComputeLaw

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.
    """
    n, d, y = _checked(parameters, tokens, loss)
    return _fit(n, d, y, None)


def compute_optimal(
    parameters: Any,
    tokens: Any,
    loss: Any,
    compute: float,
    *,
    level: float = 0.8,
    draws: int = 200,
    seed: int = 0,
) -> ComputeOptimal:
    """Best size and tokens at a compute, in three ways, with intervals.

    Parameters
    ----------
    parameters, tokens, loss : array-like, shape (n,)
        As for `fit_compute_law`.
    compute : float
        C = 6 N D, floating-point operations.
    level : float
        Probability of the intervals, in (0, 1).
    draws : int
        Tables that the fitted law draws, with its misfit as noise, and that are fitted again.
    seed : int

    Returns
    -------
    ComputeOptimal

    Raises
    ------
    InvalidProblem
        Naming the field, its value and what is allowed.
    """
    n, d, y = _checked(parameters, tokens, loss)
    goal = positive("compute", compute)
    share = number("level", level, 0.0, 1.0 - 1e-9, above=True)
    law = _fit(n, d, y, None)
    ways = {"envelope": _envelope, "equal compute": _equal_compute}
    found = {name: way(n, d, y, law, goal) for name, way in ways.items()}
    rng = np.random.default_rng(seed)
    seen: dict[str, list[tuple[float, float]]] = {name: [] for name in (*ways, "law")}
    finals = []
    for _ in range(whole("draws", draws, 10, 100_000)):
        drawn = law.loss(n, d) * np.exp(law.misfit * rng.standard_normal(len(n)))
        again = _fit(n, d, drawn, law)
        best = again.best_size(goal)
        seen["law"].append((again.exponent, best))
        finals.append((float(again.loss(best, goal / (FLOPS * best))), goal / (FLOPS * best)))
        for name, way in ways.items():
            if math.isfinite(found[name][0]):
                seen[name].append(way(n, d, drawn, again, goal)[:2])
    size = law.best_size(goal)
    ours = (law.exponent, size, f"{len(n)} runs, misfit {100 * law.misfit:.2g} % of the loss")
    found["law"] = ours
    told = tuple(
        Way(name, one[0], one[1], *_intervals(seen[name], share), one[2])
        for name, one in found.items()
    )
    losses, horizons = np.array(finals).T
    reach = goal / float((FLOPS * n * d).max())
    return ComputeOptimal(
        goal,
        law,
        told,
        size,
        goal / (FLOPS * size),
        float(law.loss(size, goal / (FLOPS * size))),
        _interval(horizons, share),
        _interval(losses, share),
        share,
        reach,
        _warnings(law, n, d, told, reach),
    )


def _checked(parameters: Any, tokens: Any, loss: Any) -> tuple[Floats, Floats, Floats]:
    columns = []
    for name, values in (("parameters", parameters), ("tokens", tokens), ("loss", loss)):
        column = np.asarray(real_array(name, values), float)
        if column.ndim != 1 or not np.all(np.isfinite(column)) or np.any(column <= 0.0):
            raise InvalidProblem(name, values, "a list of finite numbers > 0")
        columns.append(column)
    n, d, y = columns
    if not len(n) == len(d) == len(y):
        raise InvalidProblem("loss", len(y), f"as many values as parameters, {len(n)}")
    if len(n) < LEAST:
        raise InvalidProblem("loss", len(n), f"{LEAST} runs or more")
    for name, column in (("parameters", n), ("tokens", d)):
        if (groups := len(_groups(np.log(column)))) < 3:
            raise InvalidProblem(name, groups, "3 or more different values")
    return n, d, y


def _groups(logs: Floats) -> list[Any]:
    """Indices of values that lie together."""
    order = np.argsort(logs, kind="stable")
    cuts = np.flatnonzero(np.diff(logs[order]) > NEAR) + 1
    return np.split(order, cuts)


def _fit(n: Floats, d: Floats, y: Floats, start: ComputeLaw | None) -> ComputeLaw:
    """Least squares of the relative errors: global over the exponents, or from a law nearby."""
    n0, d0 = math.exp(np.log(n).mean()), math.exp(np.log(d).mean())
    u, v = np.log(n / n0), np.log(d / d0)

    def parts(alpha: float, beta: float) -> tuple[Floats, float]:
        """Best E, A, B >= 0 at two exponents, and the sum of squares."""
        design = np.stack([np.ones_like(u), np.exp(-alpha * u), np.exp(-beta * v)], 1) / y[:, None]
        found, norm = nnls(design, np.ones_like(y))
        return found, norm**2

    def residuals(x: Floats) -> Floats:
        law = np.exp(x[0]) + np.exp(x[1] - np.exp(x[2]) * u) + np.exp(x[3] - np.exp(x[4]) * v)
        return np.log(law / y)

    if start is None:
        _, alpha, beta = min((parts(a, b)[1], a, b) for a in EXPONENTS for b in EXPONENTS)
    else:
        alpha, beta = start.alpha, start.beta
    linear, _ = parts(alpha, beta)
    e, a, b = np.log(np.maximum(linear, 1e-4 * y.min()))
    x0 = np.array([e, a, math.log(alpha), b, math.log(beta)])
    spread = np.array([12.0, 12.0, 3.0, 12.0, 3.0])
    x = least_squares(residuals, x0, bounds=(x0 - spread, x0 + spread), xtol=1e-12, ftol=1e-12).x
    free = max(len(y) - 5, 1)
    misfit = math.sqrt(float(np.sum(residuals(x) ** 2)) / free)
    alpha, beta = math.exp(x[2]), math.exp(x[4])
    return ComputeLaw(
        math.exp(x[0]),
        math.exp(x[1]) * n0**alpha,
        alpha,
        math.exp(x[3]) * d0**beta,
        beta,
        misfit,
    )


def _line(computes: list[float], sizes: list[float], goal: float) -> tuple[float, float]:
    """Slope of log size in log compute, and the size at a compute."""
    x, z = np.log(computes), np.log(sizes)
    slope, at = np.polyfit(x - math.log(goal), z, 1)
    return float(slope), math.exp(float(at))


def _equal_compute(
    n: Floats, d: Floats, y: Floats, law: ComputeLaw, goal: float
) -> tuple[float, float, str]:
    """The second way."""
    computes, sizes, rim = [], [], 0
    for group in _groups(np.log(FLOPS * n * d)):
        if len(_groups(np.log(n[group]))) < 3:
            continue
        c = math.exp(np.log(FLOPS * n[group] * d[group]).mean())
        z = n[group] / math.exp(np.log(n[group]).mean())
        design = np.stack([np.ones_like(z), z**-law.alpha, z**law.beta], 1)
        (_, a, b), _ = nnls(design / y[group, None], np.ones(len(group)))
        best = (law.alpha * a / (law.beta * b)) ** (1.0 / (law.alpha + law.beta)) if b > 0 else 0.0
        if z.min() <= best <= z.max():
            computes.append(c)
            sizes.append(best * float(n[group][0] / z[0]))
        else:
            rim += 1
    note = f"{len(computes)} computes with their minimum inside" + (
        f", {rim} at the rim left out" if rim else ""
    )
    if len(computes) < 2 or max(computes) / min(computes) < 2.0:
        return math.nan, math.nan, f"{note}: two, a factor of 2 apart, are needed"
    return *_line(computes, sizes, goal), note


def _envelope(
    n: Floats, d: Floats, y: Floats, law: ComputeLaw, goal: float
) -> tuple[float, float, str]:
    """The first way: losses of each size over compute, and the lowest of them at every compute."""
    curves = []
    for group in _groups(np.log(n)):
        c = np.log(FLOPS * n[group] * d[group])
        order = np.argsort(c)
        if len(_groups(c)) >= 2:
            curves.append((math.log(n[group[0]]), c[order], np.log(y[group][order])))
    if len(curves) < 3:
        return math.nan, math.nan, f"{len(curves)} sizes with two lengths: three are needed"
    computes, sizes = [], []
    for c in np.linspace(min(x[0] for _, x, _ in curves), max(x[-1] for _, x, _ in curves), 40):
        there = [(s, float(np.interp(c, x, z))) for s, x, z in curves if x[0] <= c <= x[-1]]
        if len(there) < 3:
            continue
        s, z = np.array(there).T
        i = int(z.argmin())
        if 0 < i < len(s) - 1:
            bend, slope, _ = np.polyfit(s[i - 1 : i + 2] - s[i], z[i - 1 : i + 2], 2)
            computes.append(math.exp(c))
            sizes.append(math.exp(s[i] - slope / (2.0 * bend)))
    note = f"{len(curves)} sizes with two lengths or more"
    if len(computes) < 3 or max(computes) / min(computes) < 2.0:
        return math.nan, math.nan, f"{note}, but the lowest lies at their rim"
    return *_line(computes, sizes, goal), note


def _interval(values: Floats, level: float) -> tuple[float, float]:
    kept = values[np.isfinite(values)]
    if len(kept) == 0:
        return math.nan, math.nan
    low, high = np.quantile(kept, [0.5 - 0.5 * level, 0.5 + 0.5 * level])
    return float(low), float(high)


def _intervals(
    seen: list[tuple[float, float]], level: float
) -> tuple[tuple[float, float], tuple[float, float]]:
    values = np.array(seen).reshape(-1, 2)
    return _interval(values[:, 0], level), _interval(values[:, 1], level)


def _warnings(
    law: ComputeLaw, n: Floats, d: Floats, ways: tuple[Way, ...], reach: float
) -> tuple[str, ...]:
    out = []
    if reach > 100.0:
        out.append(f"{reach:.3g} times the largest compute of the table: the law is stretched")
    ratio = d / n
    ours = ways[-1].parameters
    if np.log(ratio.max() / ratio.min()) < math.log(4.0):
        out.append(
            f"tokens per parameter from {ratio.min():.3g} to {ratio.max():.3g} only: the table "
            "hardly tells size from tokens"
        )
    low, high = ways[-1].parameters_interval
    if high > 10.0 * low:
        out.append(f"the best size is known to a factor of {high / low:.2g} only")
    for way in ways[:-1]:
        if math.isfinite(way.parameters):
            a, b = way.parameters_interval
            if max(a, low) > min(b, high):
                out.append(
                    f"{way.name} says {way.parameters:.3g} parameters, the law {ours:.3g}, and "
                    "their intervals do not meet: the law does not describe the table"
                )
    if law.misfit > 0.02:
        out.append(f"misfit of {100 * law.misfit:.2g} %: the law does not describe the table")
    return tuple(out)
