"""Registry of problems: known answers, tags, and honest helpers that every test shares."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optsched import Problem, Schedule
from optsched.arrays import Floats
from optsched.model.spectrum import Modes


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

SHORT_STUDY = "local optima from a short study: floors to beat"
HERE = "what this library found, with 1 % of slack"
QHM, HEAVY = {"controls": "eta,beta,nu"}, {"controls": "eta,beta"}
NESTEROV = {"controls": "eta,beta", "momentum": "nesterov"}
JOINT = [
    _known("qhm-1000", 3.5, 5.0, 1000, 0.00336, SHORT_STUDY, "hard", **QHM),
    _known("heavy-ball-3162", 3.5, 5.0, 3162, 0.00250, SHORT_STUDY, "hard slow", **HEAVY),
    _known("nesterov-1000", 3.5, 5.0, 1000, 0.00332, HERE, "hard slow", **NESTEROV),
    _known("qhm-easy-1000", 2.5, 1.5, 1000, 0.00488, HERE, "easy slow", **QHM),
    _known("qhm-3162", 3.5, 5.0, 3162, 0.00151, SHORT_STUDY, "hard slow", **QHM),
    _known("qhm-31623", 3.5, 5.0, 31623, 0.000316, SHORT_STUDY, "hard slow", **QHM),
    _known("heavy-ball-1000", 3.5, 5.0, 1000, 0.00499, SHORT_STUDY, "hard slow", **HEAVY),
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


def qhm_recursion(problem: Problem, schedule: Schedule) -> float:
    """Excess loss of an exported momentum schedule on all modes, by the textbook recursion."""
    assert problem.spectrum is not None
    modes, sigma2 = problem.spectrum.full(), problem.noise**2
    lam, x = modes.lam, modes.mu.copy()  # x, y, z times lam: their noise mass is nu
    y, z = np.zeros_like(x), np.zeros_like(x)
    ones = np.ones(len(schedule))
    eta = schedule.eta
    beta = schedule.array("beta") if "beta" in schedule.controls else 0.0 * ones
    nu = schedule.array("nu") if "nu" in schedule.controls else 0.0 * ones
    m = schedule.batch_size if schedule.batch_size is not None else problem.batch_size * ones
    for e, b, n, size in zip(eta, beta, nu, m, strict=True):
        g = (1.0 + 1.0 / size) * lam**2 * x + modes.nu / size * (x.sum() + sigma2)
        p, q, u = e * ((1 - n) + n * (1 - b)), e * n * b, b * y + (1 - b) * lam * x
        x, y, z = (
            x + p**2 * g + q**2 * z - 2 * p * lam * x - 2 * q * y + 2 * p * q * lam * y,
            u - p * b * lam * y - p * (1 - b) * g - q * b * z - q * (1 - b) * lam * y,
            b**2 * z + 2 * b * (1 - b) * lam * y + (1 - b) ** 2 * g,
        )
    return float(x.sum())


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
