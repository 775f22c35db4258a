"""Tuning finds what brute force finds, at any size of the problem."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from optsched import InvalidProblem, Problem, replay, solve
from optsched.control.certificate import UNDERFLOW
from optsched.schedules.families import FAMILIES, named_families
from optsched.studies.compare.peaks import MOST_BLOCKS, Curve, shape_blocks
from optsched.studies.compare.tuning import Tuner, tune

SMALL = Problem(2.5, 2.0, 100, features=50)


def loss_of(problem: Problem, family: str, peak: float, **options: float) -> float:
    assert problem.spectrum is not None
    schedule = FAMILIES[family](problem.horizon, peak, **options)
    return replay(problem.spectrum, problem.dynamics, schedule).excess_loss


@pytest.mark.parametrize(
    ("family", "name", "values"),
    [
        ("linear", "final", np.linspace(0.0, 0.3, 16)),
        ("power_law", "chi", np.linspace(0, 0.95, 20)),
    ],
)
def test_brute_force_finds_nothing_better(family: str, name: str, values: np.ndarray) -> None:
    tuned = tune(SMALL, family, free=(name,))
    peaks = SMALL.eta_cap * np.geomspace(0.02, 1.0, 24)
    grid = min(loss_of(SMALL, family, p, **{name: v}) for p in peaks for v in values)
    assert tuned.excess_loss <= grid * (1.0 + 1e-4)
    assert tuned.excess_loss >= grid * (1.0 - 5e-3)
    again = loss_of(SMALL, family, tuned.peak, **tuned.options)
    assert again == pytest.approx(tuned.excess_loss, rel=1e-12)


def test_a_peak_at_the_bound_is_flagged() -> None:
    inside = tune(SMALL, "constant", free=())
    assert not inside.at_bound and inside.peak < 0.9 * SMALL.eta_cap
    tight = SMALL.replace(eta_max=0.5 * inside.peak)
    held = tune(tight, "constant", free=())
    assert held.at_bound and held.peak == tight.eta_cap


def test_more_freedom_is_never_worse() -> None:
    losses = [tune(SMALL, "wsd_power", free=free).excess_loss for free in ((), ("decay",), None)]
    assert losses[1] <= losses[0] * (1.0 + 1e-5)
    assert losses[2] <= losses[1] * (1.0 + 1e-3)
    fixed = tune(SMALL, "wsd_power", fixed={"power": 1.0, "final": 0.0})
    assert fixed.options["power"] == 1.0 and fixed.options["final"] == 0.0


class Known(Curve):
    """A curve with a formula."""

    def __init__(self, low: float, high: float, loss: Callable[[float], float]) -> None:
        self.low, self.high, self.loss = low, high, loss
        self.seen: dict[float, float] = {}

    def __call__(self, log_peak: float) -> float:
        return self.seen.setdefault(float(log_peak), self.loss(float(log_peak)))


def test_peaks_of_known_curves() -> None:
    """Bias falls and variance rises in the rate, which diverges at last."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        p, q, at, cliff = rng.uniform(0.2, 2), rng.uniform(0.2, 2), *rng.uniform(-12, 3, 2)

        def loss(
            x: float, p: float = p, q: float = q, at: float = at, cliff: float = cliff
        ) -> float:
            return math.inf if x > cliff else float(np.logaddexp(-p * (x - at), q * (x - at)))

        curve = Known(-14.0, rng.uniform(-4.0, 2.0), loss)
        wall = min(curve.high, cliff)
        found = minimize_scalar(loss, bounds=(-14.0, wall), options={"xatol": 1e-8})
        best = min(float(found.fun), loss(curve.high))  # type: ignore[attr-defined]
        # Where the loss falls all the way to the cliff, nobody gets closer than a bracket.
        slack = 2e-3 if at < cliff - 1.0 or curve.high <= cliff else 0.5
        assert curve.search().loss <= best + slack
        assert len(curve.seen) <= 16 + 17
        near = Known(curve.low, curve.high, loss)
        assert near.search_near(rng.uniform(-14.0, 2.0)).loss <= best + slack


@pytest.mark.parametrize("horizon", [1, 2, 3, 5])
def test_short_horizons(horizon: int) -> None:
    problem = Problem(2.0, 1.5, horizon, features=20)
    best = solve(problem, gap=1e3).excess_loss
    for name in FAMILIES:
        assert tune(problem, name, free=()).excess_loss >= best * (1.0 - 1e-9)
    assert tune(problem, "wsd_power").excess_loss <= best * 1.02
    assert tune(problem, "cosine_restarts").excess_loss >= best * (1.0 - 1e-9)


@pytest.mark.parametrize(
    "options",
    [
        {"noise": 0.0},
        {"noise": 1e6},
        {"batch_size": 1.0, "eta_max": 1.9},
        {"eta_max": 1e-9},
        {"eta_max": 1e9},
        {"features": 1},
        {"features": 1, "noise": 0.0, "horizon": 1000},
        {"features": math.inf, "horizon": 10**12},
    ],
)
def test_extreme_problems(options: dict[str, float]) -> None:
    problem = Problem(**({"a": 2.0, "b": 1.5, "horizon": 80, "features": 20} | options))  # type: ignore[arg-type]
    best = solve(problem, gap=1e3, throw=False, replay_steps=1000).excess_loss
    best = 0.0 if best < UNDERFLOW else best
    for name in ("constant", "linear", "cosine_restarts", "exp_range"):
        tuned = tune(problem, name, free=(), replay_steps=1000)
        assert best * (1.0 - 1e-6) <= tuned.excess_loss < math.inf
        assert 0.0 < tuned.peak <= problem.eta_cap


def test_shapes_of_many_cycles_are_searched_on_few_blocks() -> None:
    options = {"up": 0.01, "floor": 0.0, "damping": 0.01}
    problem = Problem(3.5, 2.0, 3162)
    unit = FAMILIES["exp_range"](3162, 1.0, **options)
    assert len(shape_blocks(unit)) <= MOST_BLOCKS
    tuned = tune(problem, "exp_range", free=(), fixed=options)
    for factor in (0.9, 1.1):
        assert loss_of(problem, "exp_range", factor * tuned.peak, **options) > tuned.excess_loss


def test_a_search_can_begin_at_a_similar_problem() -> None:
    import jax

    later, cold = (Tuner(SMALL.replace(horizon=150), "polynomial") for _ in range(2))
    with jax.enable_x64(True):
        shares, peak = Tuner(SMALL, "polynomial").shape()
        warm = later.shape((shares, peak.at))[1].loss
        alone = cold.shape()[1].loss
    assert warm <= alone + 2e-3
    assert later.evaluations < cold.evaluations


def test_names() -> None:
    found = named_families(["wsd", "power", "cosine"])
    assert [family.name for family in found] == ["wsd_linear", "power_law", "cosine"]
    for wrong in ({"family": "cosin"}, {"free": ["nope"]}, {"fixed": {"nope": 1.0}}):
        with pytest.raises(InvalidProblem):
            tune(SMALL, **({"family": "cosine"} | wrong))  # type: ignore[arg-type]
    with pytest.raises(InvalidProblem, match="free"):
        tune(SMALL, "cosine", free=["final"], fixed={"final": 0.1})
    with pytest.raises(InvalidProblem, match="warmup"):
        Tuner(SMALL, "constant", free=["final"], fixed={})
    with pytest.raises(InvalidProblem, match="final"):
        tune(SMALL, "cosine", free=(), fixed={"final": -1.0})
