"""Public pilot runs and made ones, shared by the tests of fits, predictions and plans."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from optsched import Schedule
from optsched.logs import Run, read_runs
from optsched.pilot.fitting import Fit, RunNote
from optsched.pilot.laws import DEFAULT, LAWS, Law, NormLaw
from optsched.pilot.pieces import Scale, cut

DATA = Path(__file__).parent / "data" / "llm-loss-curves"
MODELS = ("25M", "100M")
TRAIN = ("cosine_24000", "constant_24000", "wsdcon_9")  # protocol of the multi-power law
TEST = (
    "constant_72000",
    "cosine_72000",
    "wsd_20000_24000",
    "wsdld_20000_24000",
    "wsdcon_3",
    "wsdcon_18",
)
WARMUP = 2160
PEAK = 3e-4
SCALE = Scale(PEAK, 24_000.0, 0.09)

# In the order of the parameters of each law, near what language models show.
THETAS: dict[str, list[float]] = {
    "fsl-norm": [2.7, -1.5, 0.53, -1.6, 7.3, 0.3, 1.06, 0.8, 0.01, 1.6, 0.72, 0.48, 0.1],
    "fsl": [2.9, -1.1, 0.45, -1.5, 4.0, 0.6, 0.55, 1.0, 0.05],
    "fsl-sgd": [2.9, -1.1, 0.45, -1.5, 4.0, 0.6, 1.0, 1.0, 0.05],
    "features": [2.9, 0.8, 0.45, -1.5, 4.0, 0.6, 0.55, 1.0, 0.0],
    "momentum": [2.9, -1.1, 0.45, -2.2, 3.5, 1.0, 1.0, 1.0, 0.0],
    "multi-power": [2.9, -1.1, 0.45, -2.0, 4.0, 0.6, 0.4],
}


@cache
def public_runs(model: str) -> dict[str, Run]:
    """The nine public runs of a model, by name."""
    found = read_runs(sorted((DATA / model).glob("*.csv")), warmup=WARMUP)
    return {run.name: run for run in found}


def chosen(model: str, names: Sequence[str]) -> list[Run]:
    return [public_runs(model)[name] for name in names]


def ramped(horizon: int, warmup: int, shape, peak: float = PEAK) -> Schedule:
    """A linear ramp, then ``shape`` of the share in [0, 1) of the steps that follow it."""
    k = np.arange(horizon)
    share = np.clip((k - warmup) / (horizon - warmup), 0.0, 1.0)
    ramp = np.minimum((k + 1.0) / (warmup + 1.0), 1.0)
    return Schedule.from_array(peak * ramp * shape(share))


SHAPES = {
    "constant": lambda t: np.ones_like(t),
    "cosine": lambda t: 0.55 + 0.45 * np.cos(np.pi * t),
    "drop": lambda t: np.where(t < 0.5, 1.0, 0.3),
    "linear": lambda t: 1.0 - t,
    "power": lambda t: (1.0 + 50.0 * t) ** -0.5,
    "wsd": lambda t: np.minimum(1.0, np.maximum(1.0 - t, 0.0) / 0.2),
}


def made_law(name: str) -> Law:
    """A law with the priors that it has of runs of the peak and span of `SCALE`."""
    law = NormLaw(weight_decay=0.1) if name == DEFAULT else LAWS[name]()
    return law.for_runs(SCALE, [3.2])


def made_fit(name: str, *, members: Any = (), law: Law | None = None) -> Fit:
    """A fit with known parameters, as if to runs of the peak and span of `SCALE`."""
    law = made_law(name) if law is None else law
    theta = np.array(THETAS[name])
    return Fit(
        law=law,
        theta=theta,
        members=np.array(members, float).reshape(-1, len(theta)),
        scale=SCALE,
        runs=(RunNote("made", 24_000, PEAK, 0.1 * PEAK, 3.2),),
        misfit=2e-3,
        seed_noise=4e-4,
    )


def made_run(name: str, law: Law, theta, schedule: Schedule, noise: float, seed: int) -> Run:
    """A run whose losses follow the law, with independent relative noise."""
    horizon = schedule.horizon
    steps = np.arange(max(horizon // 12, 1), horizon, max(horizon // 100, 1))
    loss = law.curve(np.asarray(theta, float), cut(schedule, steps, SCALE, change=0.002))
    rng = np.random.default_rng(seed)
    return Run(name, steps, loss * (1.0 + noise * rng.standard_normal(len(steps))), schedule)
