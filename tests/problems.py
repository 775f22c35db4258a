"""Registry of problems: known answers, tags, and honest helpers that every test shares."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optsched import Problem
from optsched.model.spectrum import Modes

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Known:
    """A problem with the best excess loss known for it on the exact recursion, all modes.

    ``source`` says where the number is from; ``tags`` what is hard about it.
    """

    name: str
    options: dict[str, Any]
    best: float | None = None
    source: str = ""
    tags: frozenset[str] = field(default_factory=frozenset)

    @property
    def problem(self) -> Problem:
        return Problem(**self.options)


def _known(
    name: str,
    a: float,
    b: float,
    horizon: int,
    best: float | None = None,
    source: str = "",
    tags: str = "",
    **more: Any,
) -> Known:
    options = {"a": a, "b": b, "horizon": horizon, **more}
    return Known(name, options, best, source, frozenset(tags.split()))


FULL_LBFGS = "best of full-horizon L-BFGS on all T rates, two starts"
KNOWN = [
    _known("easy-1000", 3.5, 2.0, 1000, 0.00146174, FULL_LBFGS, "easy"),
    _known("easy-3162", 3.5, 2.0, 3162, 0.00066197, FULL_LBFGS, "easy"),
    _known("hard-1000", 3.5, 5.0, 1000, 0.00957739, FULL_LBFGS, "hard bound-active"),
    _known("hard-3162", 3.5, 5.0, 3162, 0.00526711, FULL_LBFGS, "hard bound-active"),
]
# No published optimum: methods, bounds and perturbations are set against each other.
OTHERS = [
    _known("easy-small-batch", 2.0, 1.5, 300, batch_size=1.0, tags="easy feedback"),
    _known("hard-large-batch", 1.5, 2.0, 500, batch_size=64.0, tags="hard"),
    _known("near-one", 1.1, 1.1, 200, tags="boundary heavy-tail"),
    _known("steep", 5.0, 6.0, 150, tags="hard few-modes"),
    _known("noiseless", 2.5, 2.0, 200, noise=0.0, tags="noiseless"),
    _known("loud", 2.5, 3.0, 120, noise=3.0, batch_size=2.0, tags="hard feedback"),
    _known("single-feature", 2.0, 2.0, 50, features=1, tags="few-modes"),
    _known("short", 2.0, 1.5, 7, tags="short"),
    _known("unstable-cap", 2.0, 1.5, 100, batch_size=1.0, eta_max=1.9, tags="feedback stability"),
    _known("infinite", 2.5, 1.8, 400, features=math.inf, tags="infinite"),
]


def recursion(modes: Modes, batch_size: float, sigma2: float, eta: Floats) -> tuple[float, float]:
    """Final excess loss and bias, by the textbook recursion on c_k in plain NumPy."""
    lam = modes.lam
    c = modes.mu / lam  # c_k = E (w_k - w*_k)^2
    bias = c.copy()
    weight = modes.nu / lam**2  # multiplicity of a node; 1 for a full spectrum
    for rate in eta:
        loss = sigma2 + (lam * c).sum()
        factor = 1 - 2 * rate * lam + rate**2 * (1 + 1 / batch_size) * lam**2
        c = factor * c + rate**2 / batch_size * lam * loss * weight
        bias = factor * bias
    return float((lam * c).sum()), float((lam * bias).sum())


def excess_of(problem: Problem, eta: Floats) -> float:
    """Excess loss of a dense schedule on all modes of a finite spectrum."""
    assert problem.spectrum is not None
    return recursion(problem.spectrum.full(), problem.batch_size, problem.noise**2, eta)[0]


def random_problem(rng: np.random.Generator, longest: float = 9.0) -> Problem:
    """A problem from the whole range that the library promises to handle."""
    return Problem(
        a=rng.uniform(1.1, 5.0),
        b=rng.uniform(1.1, 6.0),
        horizon=int(10 ** rng.uniform(1.0, longest)),
        batch_size=10 ** rng.uniform(0.0, 4.0),
        noise=rng.uniform(0.0, 3.0),
        eta_max=rng.uniform(0.01, 1.9),
    )


def random_rates(rng: np.random.Generator, horizon: int, cap: float) -> Floats:
    """Rates of one of many shapes within [0, cap]."""
    t = (np.arange(horizon) + 0.5) / horizon
    shapes = [
        np.ones(horizon),
        (1 - t) ** rng.uniform(0, 12),
        np.cos(np.pi * t / 2) ** 2,
        np.where(t < rng.uniform(), 1.0, rng.uniform(0.01, 0.5)),
        np.exp(rng.normal(0, 1, horizon)),
        np.where(np.arange(horizon) % 2 == 0, 1.0, rng.uniform()),
        np.minimum(t / 0.1, 1.0) * (1 - t),
        (t * horizon + 1) ** -rng.uniform(0, 1),
    ]
    shape = shapes[rng.integers(len(shapes))]
    return np.clip(shape / shape.max() * cap * 10 ** rng.uniform(-3, 0), 0.0, cap)
