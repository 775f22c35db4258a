r"""The exact recursions once more, written apart from the library: what its losses are judged by.

Nothing here imports the library. Spectra are power laws; sums over many modes are integrals over
the mode index k (the first modes one by one, then Gauss-Legendre panels in log k), and long runs
are powers of the step matrix, doubled again and again. That matrix has no negative entry, and with
its diagonal carried as a deviation from 1 as well, each of its powers is right entry by entry, so
that losses of any size are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

Array = np.ndarray
FIRST = 24  # modes that are taken one by one
NODES = 4
RATIO = 8.0  # of the eigenvalues at the ends of a panel
STILL = 1e-5  # 2 lam tau of modes that do not move


def spectrum(b: float, size: float, tau: float, one_by_one: int) -> tuple[Array, Array, float]:
    """Index and count of each node, and the index from where on nothing moves."""
    if size <= one_by_one:
        k = np.arange(1.0, size + 1.0)
        return k, np.ones_like(k), size + 0.5
    k = np.arange(1.0, FIRST + 1.0)
    count = np.ones_like(k)
    start, end = FIRST + 0.5, size + 0.5
    last = min(end, max(start * 2.0, (2.0 * tau / STILL) ** (1.0 / b)))
    panels = math.ceil(math.log(last / start) * b / math.log(RATIO))
    panels = max(panels, math.ceil(math.log(last / start) / math.log(4.0)))
    edges = np.linspace(math.log(start), math.log(last), panels + 1)
    x, w = np.polynomial.legendre.leggauss(NODES)
    half = np.diff(edges)[:, None] / 2.0
    nodes = np.exp(edges[:-1, None] + half * (1.0 + x)).ravel()
    return np.append(k, nodes), np.append(count, nodes * (half * w).ravel()), last


def tail(a: float, size: float, last: float) -> float:
    """Energy of the modes beyond ``last``, which do not move."""
    end = 0.0 if size == math.inf else (size + 0.5) ** (1.0 - a)
    return max(last ** (1.0 - a) - end, 0.0) / (a - 1.0)


class Power:
    """A matrix without negative entries, and its powers by doubling."""

    def __init__(self, deviation: Array, off: Array) -> None:
        self.deviation, self.off = deviation, off
        self.diagonal = 1.0 + deviation

    def squared(self) -> Power:
        inner = self.off @ self.off
        back = np.diagonal(inner).copy()
        off = (self.diagonal[:, None] + self.diagonal) * self.off + inner
        np.fill_diagonal(off, 0.0)
        twice = Power(self.deviation * (2.0 + self.deviation) + back, off)
        small = twice.deviation < -0.5
        twice.diagonal[small] = (self.diagonal**2 + back)[small]
        return twice

    def applied(self, x: Array, times: int) -> Array:
        """State x after so many steps."""
        power = self
        while True:
            if times & 1:
                x = power.diagonal * x + power.off @ x
            times >>= 1
            if not times:
                return x
            power = power.squared()


def _step(lam: Array, nu: Array, m: float, sigma2: float, mean: float, square: float) -> Power:
    """Of plain SGD at a rate with this mean and mean square; the last entry is the constant 1."""
    n = len(lam)
    source = square / m * nu
    off = np.zeros((n + 1, n + 1))
    off[:n, :n] = source[:, None]
    off[:n, n] = source * sigma2
    np.fill_diagonal(off, 0.0)
    deviation = -2.0 * mean * lam + square * (1.0 + 1.0 / m) * lam**2 + source
    power = Power(np.append(deviation, 0.0), off)
    near = deviation < -0.5
    exact = (1.0 - mean * lam) ** 2 + square * lam**2 / m + (square - mean**2) * lam**2 + source
    power.diagonal[:n][near] = exact[near]
    return power


def _piece(steps: Array, eta: Array, m: Array, at: int, parts: int) -> list[tuple]:
    """Length, mean and mean square of the rate, and batch size, of the parts of a piece."""
    start, stop = int(steps[at]), int(steps[at + 1]) if at + 1 < len(steps) else int(steps[at]) + 1
    last = min(at + 1, len(steps) - 1)
    edges = np.unique(start + (stop - start) * np.arange(parts + 1) // parts)
    found = []
    for p, q in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        share = ((p - start) + (q - 1 - start)) / 2.0 / (stop - start)
        mean = eta[at] + (eta[last] - eta[at]) * share
        slope = (eta[last] - eta[at]) / (stop - start)
        square = mean**2 + slope**2 * ((q - p) ** 2 - 1.0) / 12.0
        found.append((q - p, mean, square, m[at] + (m[last] - m[at]) * share))
    return found


def sgd(
    a: float,
    b: float,
    size: float,
    sigma2: float,
    steps: Array,
    controls: Mapping[str, Array],
    m: float,
    parts: int,
) -> float:
    """Final excess loss of plain SGD whose rate is linear between steps, by powers of its matrix.

    Each piece is cut into ``parts``, along each of which the rate is its mean and mean square.
    """
    eta = controls["eta"]
    batch = controls.get("batch_size", np.full_like(eta, m))
    ends = np.append(steps[1:], steps[-1] + 1)
    top = np.maximum(eta, np.append(eta[1:], eta[-1]))
    k, count, last = spectrum(b, size, float(((ends - steps) * top).sum()), FIRST + 40)
    lam = k**-b
    nu = lam**2 * count
    x = np.append(k**-a * count, 1.0)
    rest = tail(a, size, last)
    for at in range(len(steps)):
        for length, mean, square, one in _piece(steps, eta, batch, at, parts):
            # The energy that does not move adds to the noise of the labels.
            x = _step(lam, nu, one, sigma2 + rest, mean, square).applied(x, length)
    return float(x[:-1].sum()) + rest


def every_step(
    a: float,
    b: float,
    size: float,
    sigma2: float,
    controls: Mapping[str, Array],
    m: float,
    held: Mapping[str, float],
) -> float:
    """Final excess loss step by step: SGD, momentum, averaging, weight decay.

    Second moments of error, momentum, averaged error and target, four by four, of every mode.
    """
    eta = controls["eta"]
    horizon = len(eta)
    k, count, last = spectrum(b, size, float(eta.sum()), 1000)
    lam = k**-b
    rest = tail(a, size, last)

    def along(name: str, default: float) -> Array:
        value = held.get(name)
        return controls.get(name, np.full(horizon, default if value is None else value))

    batch, beta, nu = along("batch_size", m), along("beta", 0.0), along("nu", 0.0)
    rho, decay = along("ema", 0.0), held.get("weight_decay") or 0.0
    if not (beta.any() or rho.any() or decay):
        return _plain(lam, k**-a * count, lam**2 * count, sigma2 + rest, eta, batch) + rest
    start = np.array([-1.0, 0.0, -1.0, 1.0])
    s = np.multiply.outer(k ** (b - a) * count, np.outer(start, start))
    step = np.zeros((len(k), 4, 4))
    step[:, 3, 3] = 1.0
    for t in range(horizon):
        p, q = eta[t] * (1.0 - nu[t] * beta[t]), eta[t] * nu[t] * beta[t]
        step[:, 0, 0], step[:, 0, 1] = 1.0 - p * lam - eta[t] * decay, -q
        step[:, 0, 3] = -eta[t] * decay
        step[:, 1, 0], step[:, 1, 1] = (1.0 - beta[t]) * lam, beta[t]
        step[:, 2] = (1.0 - rho[t]) * step[:, 0]
        step[:, 2, 2] += rho[t]
        noise = np.array([-p, 1.0 - beta[t], -(1.0 - rho[t]) * p, 0.0])
        loss = float((lam * s[:, 0, 0]).sum()) + rest + sigma2
        force = (lam**2 * s[:, 0, 0] + lam * count * loss) / batch[t]
        s = step @ s @ np.swapaxes(step, 1, 2) + force[:, None, None] * np.outer(noise, noise)
    which = 2 if "ema" in controls or held.get("ema") is not None else 0
    return float((lam * s[:, which, which]).sum()) + rest


def _plain(lam: Array, e: Array, nu: Array, sigma2: float, eta: Array, batch: Array) -> float:
    for rate, m in zip(eta.tolist(), batch.tolist(), strict=True):
        x = rate * lam
        loss = sigma2 + e.sum()
        e = ((1.0 - x) ** 2 + x * x / m) * e + (rate * rate / m * loss) * nu
    return float(e.sum())
