r"""Whether a run is off track: a test that keeps its level however often one looks.

Under the law, with all that a fit allows, the discrepancy and the noise of the rows, the bins of a
run are Gaussian, :math:`z \sim N(f, C)`. With :math:`C = G G^\top` (Cholesky) the residuals
:math:`g = G^{-1}(z - f)` are independent and of unit size, each the surprise of a bin after those
before it. A fault that begins at bin c has a *signature* s: what it does to the logarithm of the
loss. The likelihood ratio for it after the bins up to e is

.. math:: Z_{c,e} = \frac{\sum_{i \le e} u_i g_i}{\sqrt{\sum_{i \le e} u_i^2}} , \qquad
   u = G^{-1} s ,

a standard normal variable if there is no fault. The run is off track once the largest
:math:`|Z|` over all faults and all looks exceeds its quantile over the *whole* run, looks to come
included, which is found by drawing g.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.linalg import solve_triangular

from optsched.arrays import Brief, Floats, Ints

__all__ = ["Alarm", "Fault", "judge"]

DRAWS = 2000
SEEN = 0.05  # of the size of a signature at the end: before, it has not shown
LEAST = 1e-9


@dataclass(frozen=True)
class Fault:
    """A fault that could have happened.

    Attributes
    ----------
    kind : str
    since : int
        First step with it.
    """

    kind: str
    since: int


@dataclass(frozen=True, eq=False, repr=False)
class Alarm(Brief):
    """What the test says.

    Attributes
    ----------
    off : bool
        Whether the run is off track.
    score, limit : float
        The largest likelihood ratio so far, and what it may be.
    at : int or None
        Step at which the limit was first exceeded.
    fault : Fault or None
        Of the largest ratio at the last bin.
    size : float
        Of that fault, in units of its signature, with its standard error ``error``.
    error : float
    effect : float
        What it does to the logarithm of the loss now.
    """

    off: bool
    score: float
    limit: float
    at: int | None
    fault: Fault | None
    size: float
    error: float
    effect: float


def judge(
    off: Floats,
    covariance: Floats,
    signatures: Mapping[Fault, Floats],
    ends: Ints,
    rate: float,
    seed: int = 0,
) -> tuple[Alarm, Floats]:
    """Test the bins of a run; also the independent residuals g (n,).

    Parameters
    ----------
    off : numpy.ndarray, shape (n,)
        Measured minus law, of the bins so far.
    covariance : numpy.ndarray, shape (m, m)
        Of all bins, m >= n: those to come too.
    signatures : mapping of Fault to numpy.ndarray of shape (m,)
    ends : numpy.ndarray of int64, shape (n,)
        Last step of the bins so far.
    rate : float
        Probability of a false alarm in the whole run.
    seed : int
        Of the draws of the limit.
    """
    root = np.linalg.cholesky(covariance)
    n = len(off)
    own = solve_triangular(root[:n, :n], off, lower=True)
    faults = list(signatures)
    shapes = np.array([signatures[one] for one in faults]).reshape(len(faults), len(root))
    white = solve_triangular(root, shapes.T, lower=True).T
    power = np.cumsum(white**2, axis=1)
    told = (power > LEAST) & (power > SEEN**2 * power[:, -1:])
    if not told[:, :n].any():
        return Alarm(False, 0.0, np.inf, None, None, 0.0, np.inf, 0.0), own
    size = np.sqrt(np.where(told, power, np.inf))
    limit = _limit(white, size, rate, seed)
    ratio = np.cumsum(white[:, :n] * own, axis=1) / size[:, :n]
    largest = np.abs(ratio).max(axis=0)
    above = np.flatnonzero(largest > limit)
    last = int(np.argmax(np.abs(ratio[:, -1])))
    strength = float(ratio[last, -1] / size[last, n - 1])
    alarm = Alarm(
        off=bool(above.size),
        score=float(largest.max()),
        limit=limit,
        at=int(ends[above[0]]) if above.size else None,
        fault=faults[last],
        size=strength,
        error=float(1.0 / size[last, n - 1]),
        effect=strength * float(shapes[last, n - 1]),
    )
    return alarm, own


def _limit(white: Floats, size: Floats, rate: float, seed: int) -> float:
    """Quantile of the largest ratio of a run without fault."""
    draws = np.random.default_rng(seed).standard_normal((DRAWS, white.shape[1]))
    most = np.zeros(DRAWS)
    for one, width in zip(white, size, strict=True):
        ratio = np.cumsum(one * draws, axis=1) / width
        np.maximum(most, np.abs(ratio).max(axis=1), out=most)
    return float(np.quantile(most, 1.0 - rate))
