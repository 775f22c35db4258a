r"""A bound that no schedule beats, for laws that know the norm of the weights.

Let :math:`\varphi(z, w)` be any smooth function of the clock to go and of :math:`w = \ln W`, with
:math:`\varphi(0, \cdot) = 0`, and :math:`c(x)` the clock of a step. Along every schedule, with a
price :math:`\mu` on the steps,

.. math:: \int_0^\tau \left[k x^p + \frac{\mu}{c}\right] dz = \varphi(\tau, w_0) + \int_0^\tau
   \left[k x^p + \frac{\mu + \varphi_w\, dw/dk}{c} - \varphi_z\right] dz ,

so that :math:`L \ge L_0 + F(T_0 + \tau) + \varphi(\tau, w_0) + \int_0^\tau d(z)\, dz - \mu S`
with d(z) the least value of the bracket over all W that can be reached and all rates up to the cap,
and S the number of steps; the least of that over :math:`\tau` holds for every schedule. The bracket
is 0 at its least where :math:`\varphi` is the value function, which is why :math:`\varphi` is a
numerical solution of the Hamilton-Jacobi equation: how good it is matters for the size of the
bound, not for its truth. What is numerical in the bound is quadrature and the grids on which d is
found.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.integrate import solve_ivp
from scipy.interpolate import CubicSpline
from scipy.optimize import minimize_scalar

from optsched.arrays import Floats
from optsched.pilot.separable import Separable, Weights

__all__ = ["Beginning", "verified_bound"]

WIDTH = 0.08  # of a cell in ln W
CELLS = 8, 160  # fewest and most
WIDEST = 1.0
GUARD = 8  # cells outside of what can be reached: what happens at the edge stays there
ROWS = 400  # of the clock to go
STEPS = 4000.0  # of the solver: cells are made wider to need no more
NEWTON, REFINE = 1, 8  # steps from the root of the last call, and from a grid
TRIED = np.concatenate([np.geomspace(1e-6, 1e-2, 9)[:-1], np.geomspace(1e-2, 1.0, 16)])  # of a cap
ENDS = 25  # ends of a warm-up that are tried
NONE = 1e-9  # of the cap: a rate that is none


@dataclass(frozen=True, eq=False)
class Beginning:
    """Where the free steps begin.

    Attributes
    ----------
    clock, weight : float
        Clock done, and W.
    residue : callable
        Noise that is left, after further clocks, of what was done: shape of the argument.
    """

    clock: float
    weight: float
    residue: Callable[[Floats], Floats]


class _Hamiltonian:
    """The bracket without its derivative in the clock."""

    def __init__(self, law: Separable, weights: Weights, price: float, cap: float, floor: float):
        self.g, self.p, self.price, self.of = law.clock, law.amplitude, price, weights
        self.low, self.high = math.log(max(floor, NONE * cap)), math.log(cap)

    def gain(self, w: Floats) -> Floats:
        """X over the rate."""
        return np.exp(self.of.power * (math.log(self.of.reference) - w))

    def drift(self, rate: Any, w: Floats) -> Floats:
        """Change of w in a step."""
        return rate * (self.of.growth * rate * np.exp(-w) - 2.0 * self.of.decay)

    def value(self, kernel: Any, slope: Floats, rate: Floats, w: Floats) -> Floats:
        """Noise, price of the steps and change of phi, in a unit of the clock."""
        noise = kernel * (rate * self.gain(w)) ** self.p
        return noise + (self.price + slope * self.drift(rate, w)) * self.slow(rate, w)

    def slow(self, rate: Any, w: Floats) -> Floats:
        """Steps in a unit of the clock."""
        x = rate * self.gain(w)
        return ((1.0 + self.of.saturation * x) / x) ** self.g

    def best(self, kernel: Any, slope: Floats, w: Floats, rate: Floats, steps: int) -> Floats:
        r"""A rate where the value is least, by Newton's method from ``rate``.

        Its derivative in the log rate, times :math:`c(1 + \sigma x)`, is a sum of powers of the
        rate; the logarithm of the ratio of its positive to its negative terms is nearly a line.
        """
        gain, sigma, g, p = self.gain(w), self.of.saturation, self.g, self.p
        grows = slope * self.of.growth * np.exp(-w)
        fades = 2.0 * slope * self.of.decay
        at = np.log(rate)
        for _ in range(steps):
            rate = np.exp(at)
            x = rate * gain
            full = 1.0 + sigma * x
            noise = kernel * p * x ** (p + g) * full ** (1.0 - g)
            grown, faded = grows * rate**2, fades * rate
            terms = (
                (noise, p + g + (1.0 - g) * sigma * x / full),
                (grown * (2.0 - g), 2.0),
                (2.0 * grown * sigma * x, 3.0),
                (-faded * (1.0 - g), 1.0),
                (-faded * sigma * x, 2.0),
            )
            top, bottom = 1e-300, self.price * g
            up, down = 0.0, 0.0
            for term, power in terms:
                more, less = np.maximum(term, 0.0), np.maximum(-term, 0.0)
                top, bottom = top + more, bottom + less
                up, down = up + power * more, down + power * less
            rise = np.maximum(up / top - down / bottom, 0.2)
            at = np.clip(at - np.clip(np.log(top / bottom) / rise, -3.0, 3.0), self.low, self.high)
        return np.exp(at)

    def least(self, kernel: Any, slope: Floats, w: Floats) -> Floats:
        """The least value over the rates, found on a grid and refined from its best point."""
        values = np.full(slope.shape, math.inf)
        start = np.full(slope.shape, math.exp(self.high))
        for share in np.maximum(TRIED * math.exp(self.high), math.exp(self.low)):
            here = self.value(kernel, slope, np.full_like(w, share), w)
            start = np.where(here < values, share, start)
            values = np.minimum(here, values)
        rate = self.best(kernel, slope, w, start, REFINE)
        return np.minimum(values, self.value(kernel, slope, rate, w))


class _Value:
    """Value function on a grid of v = ln(1 + z/unit) and w, with its defect."""

    def __init__(
        self, law: Separable, ham: _Hamiltonian, low: float, high: float, clock: float
    ) -> None:
        self.law, self.ham = law, ham
        # What is near the end is resolved to the clock in which noise fades.
        self.unit = min(1.0 / law.speed, clock)
        last = math.log1p(clock / self.unit)
        self.v: Floats = np.linspace(0.0, last, ROWS)
        dense = np.linspace(0.0, last, 5 * ROWS)
        slopes = -law.tail(np.expm1(dense) * self.unit)[1]
        self.kernel = CubicSpline(dense, np.log(np.maximum(slopes, 1e-300)))
        # W may not pass a cell in a step of the solver.
        ends = np.array([low, high])
        speed = np.abs(ham.drift(math.exp(ham.high), ends)) * ham.slow(math.exp(ham.high), ends)
        width = max(WIDTH, clock * float(speed.max()) / STEPS)
        if width > WIDEST:
            raise FloatingPointError("weights move too fast for the grid")
        cells = int(np.clip((high - low) / width, *CELLS))
        self.width = max((high - low) / cells, 1e-4)
        self.w: Floats = low + self.width * np.arange(-GUARD, cells + GUARD + 1.0)
        self.table = self._solved()
        self._certified(low, high)

    def _slopes(self, f: Floats) -> tuple[Floats, Floats]:
        """Derivatives in w from the left and from the right, of third order inside."""
        d = np.diff(f) / self.width
        left, right = np.append(d[0], d), np.append(d, d[-1])
        left[2:-1] = (2.0 * d[2:] + 5.0 * d[1:-1] - d[:-2]) / 6.0
        right[1:-2] = (2.0 * d[:-2] + 5.0 * d[1:-1] - d[2:]) / 6.0
        return left, right

    def _solved(self) -> Floats:
        """Phi (rows, n) by upwind differences along the clock."""
        last = [np.full(len(self.w), math.exp(self.ham.high))]

        def flow(v: float, f: Floats) -> Floats:
            kernel = math.exp(float(self.kernel(v)))
            left, right = self._slopes(f)
            rate = self.ham.best(kernel, 0.5 * (left + right), self.w, last[0], NEWTON)
            last[0] = rate
            slope = np.where(self.ham.drift(rate, self.w) > 0.0, right, left)
            value = self.ham.value(kernel, slope, rate, self.w)
            return value * math.exp(v) * self.unit

        found: Any = solve_ivp(
            flow, (0.0, self.v[-1]), np.zeros(len(self.w)), t_eval=self.v, rtol=1e-6, atol=1e-8
        )
        if found.status != 0:
            raise FloatingPointError(found.message)
        return found.y.T

    def _certified(self, low: float, high: float) -> None:
        """Spline through the table, and the integral of the least defect along the clock."""
        self.rows = np.linspace(0.0, self.v[-1], 2 * ROWS - 1)
        along = CubicSpline(self.v, self.table, axis=0)
        w = np.linspace(low, high, 2 * len(self.w))
        self.phi = CubicSpline(self.w, along(self.rows), axis=1)
        change = CubicSpline(self.w, along(self.rows, 1), axis=1)(w)
        kernel = np.exp(self.kernel(self.rows))[:, None]
        stretch = np.exp(self.rows)[:, None] * self.unit
        least = (self.ham.least(kernel, self.phi(w, 1), w) * stretch - change).min(1)
        steps = 0.5 * (least[1:] + least[:-1]) * np.diff(self.rows)
        self.defect = np.append(0.0, np.cumsum(steps))

    def bound(self, begin: Beginning) -> float:
        """Least of the bound over the final clocks, but for the price of the steps."""
        law = self.law
        value = CubicSpline(self.rows, self.phi(math.log(begin.weight)) + self.defect)

        def loss(v: Any) -> Any:
            tau = np.expm1(v) * self.unit
            return law.level + law.bias(begin.clock + tau) + begin.residue(tau) + value(v)

        values = loss(self.rows)
        i = int(np.argmin(values))
        near: Any = minimize_scalar(
            lambda v: float(loss(np.array([v]))[0]),
            bounds=(self.rows[max(i - 1, 0)], self.rows[min(i + 1, len(self.rows) - 1)]),
            method="bounded",
            options={"xatol": 1e-6},
        )
        return min(float(near.fun), float(values[i]))


def longest_clock(law: Separable, cap: float, steps: float, low: float, high: float) -> float:
    r"""What the clock does not exceed after so many steps, for W between ``low`` and ``high``.

    From :math:`d\ln W = -2\Lambda\eta + \Gamma\eta^2/W` along the run and Cauchy's inequality,
    :math:`\Gamma\kappa Q \le \ln(W_{high}/W_{low}) + 2\Lambda\gamma \sqrt{SQ}` with
    :math:`Q = \int x^2`, :math:`\kappa` the least of :math:`\eta^2/(W x^2)` and :math:`\gamma` the
    largest :math:`\eta/x`; the clock is at most :math:`S^{1-g/2} Q^{g/2}` for g up to 2.
    """
    of = law.weights
    assert of is not None
    ends = np.array([low, high])
    inverse = (ends / of.reference) ** of.power  # rate over x, monotone in W
    longest = (cap / float(inverse.min())) ** law.clock * steps
    # A power of W, monotone too.
    growth = of.growth * float((inverse**2 / ends).min())
    if growth > 0.0:
        pull = 2.0 * of.decay * float(inverse.max()) * math.sqrt(steps)
        root = (pull + math.sqrt(pull**2 + 4.0 * growth * math.log(high / low))) / (2.0 * growth)
        longest = min(longest, steps ** (1.0 - 0.5 * law.clock) * root**law.clock)
    return longest


def verified_bound(
    law: Separable,
    *,
    price: float,
    steps: float,
    warmup: float,
    cap: float,
    floor: float,
    begin: Callable[[float], Beginning],
) -> float:
    """Final loss that no schedule is below.

    Parameters
    ----------
    law : Separable
        With weights, and a clock exponent below 2.
    price : float
        Loss that a span of further steps would take; the bound holds for any, and is tight for
        that of the optimum.
    steps, warmup : float
        Free steps, and those of a warm-up before them, over the span.
    cap, floor : float
        Bounds of the rate, over the reference rate.
    begin : callable
        Where the free steps begin, given the rate at the end of the warm-up, which is searched.

    Returns
    -------
    float
        NaN where numbers are outside of what the method is for.
    """
    of = law.weights
    assert of is not None
    if not (law.clock < 2.0 and price > 0.0):
        return math.nan
    # Before a warm-up W is 1 as at the start of a run; it is so few steps that its rates may be
    # any up to the cap.
    start = 1.0 if warmup else begin(cap).weight
    low, high = (f(cap, warmup + steps, start) for f in (of.lowest, of.highest))
    if not 1e-30 < low <= high < 1e30:
        return math.nan
    clock = longest_clock(law, cap, steps, low, high)
    ham = _Hamiltonian(law, of, price, cap, floor)
    try:
        value = _Value(law, ham, math.log(low), math.log(high), clock)
    except FloatingPointError:
        return math.nan
    if not warmup:
        return value.bound(begin(cap)) - price * steps

    def after(log_end: float) -> float:
        return value.bound(begin(math.exp(log_end)))

    grid = np.linspace(math.log(max(floor, 1e-3 * cap)), math.log(cap), ENDS)
    values = [after(float(at)) for at in grid]
    i = int(np.argmin(values))
    near: Any = minimize_scalar(
        after,
        bounds=(grid[max(i - 1, 0)], grid[min(i + 1, ENDS - 1)]),
        method="bounded",
        options={"xatol": 1e-4},
    )
    return min(float(near.fun), values[i]) - price * steps
