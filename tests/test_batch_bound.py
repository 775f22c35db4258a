"""The bound of rate and batch size together: below every schedule that spends the samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from optsched import Problem, Schedule, solve
from optsched.arrays import Floats
from optsched.control.bounds import samples as module
from optsched.control.bounds.samples import sample_bound
from optsched.studies.verify import verify


def losses(problem: Problem, eta: Floats, m: Floats) -> Floats:
    """Final excess of the textbook recursion for every row of rates and batch sizes."""
    lam, mu, nu = problem.spectrum.full()
    e = np.repeat(mu[None], len(eta), axis=0)
    for rate, size in zip(eta.T[:, :, None], m.T[:, :, None], strict=True):
        x = rate * lam
        loss = problem.noise**2 + e.sum(1, keepdims=True)
        e = ((1.0 - x) ** 2 + x**2 / size) * e + rate**2 / size * nu * loss
    return e.sum(1)


def spent(shares: Floats, samples: float) -> Floats:
    """Batch sizes of 1 or more that spend all samples, from their shares of the rest."""
    steps = shares.shape[1]
    return 1.0 + (samples - steps) * shares / shares.sum(1, keepdims=True)


def attacked(problem: Problem, rng: np.random.Generator, held: bool = False) -> float:
    """Least loss that a random search finds: dips of the step factors, all samples at the end."""
    steps, cap = problem.horizon, problem.eta_cap
    assert problem.samples is not None
    folds = np.minimum(1.0 / problem.spectrum.full().lam[:4], cap)
    kinds = np.append(folds, [cap, 1e-9 * cap])
    count = 600
    togo = np.arange(steps, 0, -1.0)
    eta = rng.choice(kinds, (count, steps)) * np.exp(-rng.exponential(0.3, (count, steps)))
    eta[: count // 2] = np.sort(cap * rng.random((count // 2, 1)) * np.ones(steps))
    eta[0] = cap
    log_m = -rng.uniform(0.0, 3.0, (count, 1)) * np.log(togo)
    log_m[: count // 4] += 20.0 * (togo == 1.0)  # one sample a step, but for the last
    best = np.inf
    for size in (0.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 3e-3, 1e-3, 1e-4):
        many = 12 if size else 1
        eta, log_m = np.repeat(eta, many, 0), np.repeat(log_m, many, 0)
        moved = rng.random(eta.shape) < 0.4
        eta = np.minimum(eta * np.exp(size * moved * rng.normal(size=eta.shape)), cap)
        log_m = log_m + 4.0 * size * moved * rng.normal(size=log_m.shape)
        if held:
            eta[:] = problem.eta_max
        shares = np.exp(log_m - log_m.max(1, keepdims=True))
        found = losses(problem, eta, spent(shares, problem.samples))
        order = np.argsort(found)[:40]
        eta, log_m, best = eta[order], log_m[order], min(best, float(found[order[0]]))
    return best


def bound(problem: Problem) -> float:
    assert problem.samples is not None
    given = problem.modes, problem.noise**2, problem.eta_top, problem.horizon, problem.samples
    return sample_bound(*given, held=problem.rate_held)


@pytest.mark.parametrize("seed", range(24))
def test_nothing_is_below(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps = int(rng.choice([1, 2, 3, 8, 30]))
    held = seed % 4 == 3
    problem = Problem(
        float(1.0 + 10.0 ** rng.uniform(-1, 0.8)),
        float(1.0 + 10.0 ** rng.uniform(-1, 0.8)),
        steps,
        int(rng.choice([1, 2, 5, 40])),
        noise=float(rng.choice([0.0, 1e-3, 0.5, 30.0])),
        samples=steps * float(rng.choice([1.0, 1.5, 10.0, 1e4])),
        eta_max=float(10.0 ** rng.uniform(-1.5, 0.25)),
        controls="batch" if held else "eta,batch",
    )
    best = attacked(problem, rng, held)
    assert 0.0 < bound(problem) <= best


TIGHT: list[tuple[dict[str, Any], float]] = [
    ({"a": 1.5, "b": 4, "controls": "eta,batch"}, 0.01),
    ({"a": 3.5, "b": 5, "controls": "eta,batch"}, 0.03),
    ({"a": 2.5, "b": 1.5, "controls": "eta,batch", "eta_max": 0.3}, 0.05),
    ({"a": 2.5, "b": 1.5, "controls": "batch", "eta_max": 0.1}, 0.05),
]


@pytest.mark.parametrize(("options", "gap"), TIGHT)
def test_close_to_the_optimum(options: dict[str, Any], gap: float) -> None:
    found = solve(Problem(horizon=1000, features=200, samples=1e4, **options))
    proof = found.certificate
    assert 0.0 < proof.certified_gap < gap
    assert proof.lower_bound >= proof.floor
    if not found.problem.rate_held:
        again = verify(found.problem, found.schedule).lower_bound
        assert again == pytest.approx(proof.lower_bound, rel=1e-9)


def test_numerical_error_is_within_its_margin(monkeypatch: pytest.MonkeyPatch) -> None:
    problems = [
        Problem(a, b, steps, 1000, samples=5.0 * steps, controls="eta,batch")
        for a, b, steps in ((3.5, 2.0, 1000), (1.2, 1.1, 100), (2.0, 6.0, 30), (4.0, 3.9, 10**6))
    ]
    usual = [bound(problem) for problem in problems]
    monkeypatch.setattr(module, "ROWS", 4 * module.ROWS)
    monkeypatch.setattr(module, "GRID", 3 * module.GRID)
    for found, problem in zip(usual, problems, strict=True):
        assert found == pytest.approx(bound(problem), rel=0.5 * module.SAFETY)


def test_more_samples_and_more_steps_bound_less() -> None:
    """Of two problems the one that allows more has the lower bound."""
    few = Problem(2.5, 1.5, 100, samples=1000, controls="eta,batch")
    for more in (few.replace(samples=1100), few.replace(eta_max=1.2)):
        assert bound(more) < bound(few)


def test_a_schedule_worse_than_no_training() -> None:
    problem = Problem(3.5, 2, 1, 1000, noise=1e5, samples=1, controls="eta,batch")
    found = verify(problem, Schedule.from_array([0.1], batch_size=[1.0]))
    assert found.lower_bound <= problem.modes.mu.sum() < found.replay.excess_loss


def test_other_optimisers_have_no_such_bound() -> None:
    for options in ({"controls": "eta,beta,batch"}, {"controls": "eta,batch", "ema": 0.9}):
        problem = Problem(2.5, 1.5, 3, 10, samples=12, **options)  # type: ignore[arg-type]
        assert solve(problem, throw=False).certificate.lower_bound == 0.0
