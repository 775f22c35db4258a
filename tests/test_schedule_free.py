"""Schedule-free SGD: its moments against covariances of (z, x), Monte Carlo and plain SGD."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from optsched import InvalidProblem, Problem, Schedule, cli, replay, solve
from optsched.optimisers import ScheduleFree, find_optimiser

BETA = 0.8


def small(**options: Any) -> Problem:
    return Problem(2.5, 1.5, 40, features=30, **options)


def by_covariance(problem: Problem, eta: Any, ema: Any, beta: float) -> float:
    """Full covariances of z and x on every mode, step by step."""
    lam, mu, nu = problem.spectrum.full()  # type: ignore[union-attr]
    m, sigma2 = problem.batch_size, problem.noise**2
    zz, zx, xx = mu.copy(), mu.copy(), mu.copy()
    for rate, rho in zip(eta, ema, strict=True):
        yy = (1 - beta) ** 2 * zz + 2 * beta * (1 - beta) * zx + beta**2 * xx
        noise = (lam**2 * yy + nu * (sigma2 + yy.sum())) / m
        # z' = z - rate lam y - noise;  x' = rho x + (1 - rho) z'
        p, q = 1 - rate * lam * (1 - beta), -rate * lam * beta
        new_zz = p**2 * zz + 2 * p * q * zx + q**2 * xx + rate**2 * noise
        new_zx = p * zx + q * xx  # of z' and the old x
        c = 1 - rho
        xx = rho**2 * xx + 2 * rho * c * new_zx + c**2 * new_zz
        zx = rho * new_zx + c * new_zz
        zz = new_zz
    return float(xx.sum())


@pytest.mark.parametrize("ema", ["averages all", 0.7])
def test_moments_are_those_of_iterate_and_average(ema: Any) -> None:
    problem = small(optimiser=ScheduleFree(BETA), controls="eta,ema", batch_size=3)
    t = np.arange(40)
    eta = 0.3 * np.cos(0.03 * t)
    rho = 1 - 1 / (1 + t) if ema == "averages all" else np.full(40, ema)
    schedule = Schedule.from_array(eta).replace(ema=rho)
    own = by_covariance(problem, schedule.eta, schedule.ema, BETA)
    played = replay(problem.spectrum, problem.dynamics, schedule)  # type: ignore[arg-type]
    assert played.excess_loss == pytest.approx(own, rel=1e-10)


def test_the_moments_are_means_of_the_real_optimiser() -> None:
    rng, runs, n, m, sigma = np.random.default_rng(0), 20_000, 3, 2, 0.3
    problem = Problem(2.0, 1.5, 8, features=n, batch_size=m, noise=sigma,
                      optimiser=ScheduleFree(BETA), controls="eta,ema")  # fmt: skip
    lam, mu, _ = problem.spectrum.full()  # type: ignore[union-attr]
    target = np.sqrt(mu / lam)
    z = np.zeros((runs, n))
    x, eta = z.copy(), 0.4
    for t in range(8):
        y = (1 - BETA) * z + BETA * x
        features = rng.standard_normal((runs, m, n)) * np.sqrt(lam)
        error = np.einsum("rmn,rn->rm", features, y - target) - sigma * rng.standard_normal(
            (runs, m)
        )
        z -= eta * np.einsum("rmn,rm->rn", features, error) / m
        x += (z - x) / (t + 1)
    losses = ((x - target) ** 2 * lam).sum(1)
    schedule = Schedule.from_array(np.full(8, eta)).replace(ema=1 - 1 / (1 + np.arange(8)))
    exact = replay(problem.spectrum, problem.dynamics, schedule).excess_loss  # type: ignore[arg-type]
    assert abs(losses.mean() - exact) < 4 * losses.std() / np.sqrt(runs)


def test_without_an_average_it_is_plain_sgd() -> None:
    rates, plain = Schedule.from_array(np.linspace(0.5, 0.05, 40)), small()
    free = small(optimiser=ScheduleFree(BETA, ema=0.0))
    losses = [replay(p.spectrum, p.dynamics, rates).excess_loss for p in (free, plain)]  # type: ignore[arg-type]
    assert losses[0] == pytest.approx(losses[1], rel=1e-12)


def test_scheduled_together_it_beats_plain_sgd_and_its_own_defaults() -> None:
    problem = small(optimiser=ScheduleFree(BETA), controls="eta,ema")
    found = solve(problem)
    assert found.converged and found.certificate.lower_bound == 0.0
    assert found.excess_loss <= solve(problem.plain).excess_loss * (1 + 1e-9)
    t = np.arange(40)
    usual = [
        by_covariance(problem, np.full(40, rate), 1 - 1 / (1 + t), BETA)
        for rate in np.geomspace(0.02, 1.0, 30)
    ]
    assert found.excess_loss < min(usual)
    own = by_covariance(problem, found.schedule.eta, found.schedule.ema, BETA)
    assert found.excess_loss == pytest.approx(own, rel=1e-9)


def test_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    line = "solve --a 2.5 --b 1.5 --horizon 40 --features 30 --optimiser schedule-free"
    assert cli.main([*line.split(), "--control", "eta,ema", "--momentum", "0.8", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    problem = small(optimiser=ScheduleFree(BETA), controls="eta,ema")
    assert said["optimiser"] == "schedule-free" and said["lower_bound"] == 0.0
    assert said["excess_loss"] == pytest.approx(solve(problem).excess_loss, rel=1e-6)
    assert cli.main([*line.split(), "--control", "eta,ema", "--nu", "0.5"]) == 2
    assert "--nu: got 0.5, allowed: nothing with schedule-free" in capsys.readouterr().err


def test_what_is_refused() -> None:
    assert find_optimiser("schedule-free") is ScheduleFree
    for wrong in (1.0, -0.1, "much", True):
        with pytest.raises(InvalidProblem, match="beta"):
            ScheduleFree(wrong)  # type: ignore[arg-type]
    with pytest.raises(InvalidProblem, match=r"ema: got None.*ema among the controls"):
        small(optimiser=ScheduleFree())
    with pytest.raises(InvalidProblem, match=r"ema: got 0.5.*nothing with ema"):
        small(optimiser=ScheduleFree(ema=0.5), controls="eta,ema")
