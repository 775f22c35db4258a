"""Random problems, each a function of the seed and its number alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from optsched import Problem

KINDS = ("rate", "joint")
# Every set of controls that the library takes, with what is held beside it.
SETS: tuple[dict[str, Any], ...] = (
    {"controls": "eta,beta"},
    {"controls": "eta,beta", "momentum": "nesterov"},
    {"controls": "eta,beta,nu"},
    {"controls": "eta,nu", "beta": 0.9},
    {"controls": "eta,batch"},
    {"controls": "eta,ema"},
    {"controls": "eta,beta,nu,batch"},
    {"controls": "eta,beta,batch"},
    {"controls": "eta,batch,ema"},
    {"controls": "eta,beta,ema"},
    {"controls": "eta,beta,nu,ema"},
    {"controls": "eta,beta,nu,batch,ema"},
    {"controls": "batch"},
    {"controls": "beta"},
    {"controls": "nu", "beta": 0.9},
    {"controls": "batch,ema"},
    {"controls": "eta", "momentum": "heavy-ball", "beta": 0.9},
    {"controls": "eta", "ema": 0.9},
    {"controls": "eta", "weight_decay": 1e-3},
)


def _between(rng: np.random.Generator, low: float, high: float) -> float:
    """A number with a uniform logarithm."""
    return float(10.0 ** rng.uniform(math.log10(low), math.log10(high)))


def _features(rng: np.random.Generator) -> float:
    kind = rng.integers(5)
    if kind == 0:
        return int(rng.integers(1, 31))
    if kind == 1:
        return int(_between(rng, 1.0, 1e6))
    return math.inf if kind == 2 else 1000


def _constrained(rng: np.random.Generator, options: dict[str, Any]) -> dict[str, Any]:
    """The same with a warm-up, a floor of the rate, a bounded change, or two of them."""
    problem = Problem(**options)
    horizon, cap = problem.horizon, min(problem.eta_cap, problem.eta_max)
    found: dict[str, Any] = {}
    kinds = ["warmup", "eta_min", "max_change"]
    for kind in rng.choice(kinds, size=1 + int(rng.random() < 0.2), replace=False):
        if kind == "warmup":
            found["warmup"] = int(rng.uniform(0.0, 0.9) ** 2 * (horizon - 1))
        elif kind == "eta_min":
            found["eta_min"] = cap * _between(rng, 1e-6, 0.9)
        else:
            found["max_change"] = cap * _between(rng, 0.1 / horizon, 1.0)
    return options | found


def rate_options(seed: int, number: int) -> dict[str, Any]:
    """Arguments of a problem of the learning rate alone; a third of them with constraints."""
    rng = np.random.default_rng([seed, number, 0])
    options: dict[str, Any] = {
        "a": float(rng.uniform(1.01, 8.0)),
        "b": float(rng.uniform(1.01, 10.0)),
        "horizon": int(_between(rng, 1.0, 1e12)),
        "batch_size": _between(rng, 1.0, 1e6),
        "noise": 0.0 if rng.random() < 0.2 else _between(rng, 1e-6, 1e3),
        "eta_max": _between(rng, 1e-6, 50.0),
        "features": _features(rng),
    }
    return _constrained(rng, options) if rng.random() < 1.0 / 3.0 else options


def joint_options(seed: int, number: int) -> dict[str, Any]:
    """Arguments of a problem with other or more controls, in turn; both phases."""
    rng = np.random.default_rng([seed, number, 1])
    controls = SETS[number % len(SETS)]
    options: dict[str, Any] = {
        "a": float(rng.uniform(1.1, 6.0)),
        "b": float(rng.uniform(1.1, 6.0)),
        "horizon": int(_between(rng, 2.0, 1e6)),
        "batch_size": _between(rng, 1.0, 1e4),
        "noise": 0.0 if rng.random() < 0.1 else _between(rng, 1e-3, 10.0),
        "features": _features(rng),
        **controls,
    }
    if "eta" not in controls["controls"].split(","):
        given: dict[str, Any] = options | {"eta_max": 1e-99}
        limit = Problem(**given).stability_limit
        options["eta_max"] = float(limit * _between(rng, 1e-3, 0.9))
    elif rng.random() < 0.5:
        options["eta_max"] = _between(rng, 1e-2, 10.0)
    return options


def options_of(kind: str, seed: int, number: int) -> dict[str, Any]:
    return (rate_options if kind == "rate" else joint_options)(seed, number)


def said(options: dict[str, Any]) -> str:
    """As it can be copied."""
    inside = ", ".join(f"{name}={value!r}" for name, value in options.items())
    return f"Problem({inside})".replace("=inf", "=math.inf")
