"""Batch ramps in the easy phase: steps, loss and last batch against the samples D.

At a constant rate the number of steps n* of least loss should grow as D^(b/a), the loss fall as
D^-((a-1)/a), and the last batch grow as D^((a-1/2)/a). Also: the members of the degenerate family
against the rate, and the steps of a ramp against those of rate decay. Features are infinitely
many, noise 0.5. Run: ``python -m benchmarks.batch_ramps``.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from optsched import Problem, replay, solve
from optsched.schedules.batches import degenerate_family

STEPS = 1000  # horizons up to this are replayed step by step
OFFSETS = np.array([-0.4, -0.2, 0.0, 0.2, 0.4])  # in log T, around the least loss


class Ramp(NamedTuple):
    """The best constant-rate ramp at D samples."""

    samples: float
    steps: float
    error: float  # relative, of ``steps``: cubic fit against the parabola through three points
    loss: float
    last: float  # batch size


def ramp(a: float, b: float, rate: float, samples: float, steps: float) -> tuple[float, float]:
    """Excess loss and last batch size of the optimal ramp over so many steps."""
    horizon = min(round(steps), int(samples))
    problem = Problem(
        a, b, horizon, controls=("batch",), samples=samples, eta_max=rate, features=math.inf
    )
    solution = solve(problem, throw=False, replay_steps=STEPS)
    return solution.excess_loss, float(solution.controls["batch_size"][-1])


def best_ramp(a: float, b: float, rate: float, samples: float, guess: float) -> Ramp:
    """The n* of least loss: minimum of a cubic through log losses around it."""
    centre, move = guess, math.inf
    x = y = np.zeros(len(OFFSETS))
    for attempt in range(6):
        centre *= math.exp(move) if attempt else 1.0
        steps = np.array([min(round(n), int(samples)) for n in centre * np.exp(OFFSETS)])
        values = [ramp(a, b, rate, samples, n) for n in steps]
        x, y = np.log(steps / centre), np.log([value[0] for value in values])
        third, second, first, _ = np.polyfit(x, y, 3)
        root = second**2 - 3.0 * third * first
        if second > 0.0 and root > 0.0:
            move = -first / (second + math.sqrt(root))
        else:
            move = x[np.argmin(y)]
        move = float(np.clip(move, -1.0, 1.0))
        if abs(move) < 0.1:
            break
    inner = np.polyfit(x[1:4], y[1:4], 2)
    other = -inner[1] / (2.0 * inner[0])
    n = centre * math.exp(move)
    loss, last = ramp(a, b, rate, samples, n)
    return Ramp(samples, n, abs(move - other), loss, last)


def exponent(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Slope of log y against log x by least squares, and its standard error."""
    u, v = np.log(x), np.log(y)
    u, v = u - u.mean(), v - v.mean()
    slope = (u @ v) / (u @ u)
    rest = v - slope * u
    return float(slope), float(np.sqrt(rest @ rest / (len(u) - 2) / (u @ u)))


def exponents(a: float, b: float, rate: float, budgets: list[float]) -> list[Ramp]:
    """Print n*, loss and last batch against D, with local slopes and fitted exponents."""
    print(
        f"\na = {a:g}, b = {b:g}, constant rate {rate:g} (stability limit 2), no limit of features"
    )
    print(
        f"{'D':>9} {'n*':>9} {'+-':>7} {'excess loss':>12} {'last m':>9}   local: n*  loss  last m"
    )
    found: list[Ramp] = []
    for samples in budgets:
        guess = 3.0 * samples ** (b / a)
        if found:
            guess = found[-1].steps * (samples / found[-1].samples) ** (b / a)
        found.append(best_ramp(a, b, rate, samples, guess))
        one = found[-1]
        line = f"{one.samples:9.3g} {one.steps:9.1f} {100 * one.error:5.2f} %"
        line += f" {one.loss:12.5g} {one.last:9.4g}"
        if len(found) > 1:
            pair = found[-2:]
            for name in ("steps", "loss", "last"):
                values = [getattr(p, name) for p in pair]
                line += f" {exponent_between([p.samples for p in pair], values):8.3f}"
        print(line, flush=True)
    table = np.array(found)
    predicted = {"n*": b / a, "loss": -(a - 1) / a, "last m": (a - 0.5) / a}
    for (name, value), column in zip(predicted.items(), (1, 3, 4), strict=True):
        fit, error = exponent(table[:, 0], table[:, column])
        late, late_error = exponent(table[len(table) // 2 :, 0], table[len(table) // 2 :, column])
        print(
            f"{name:>7}: exponent {fit:+.4f} +- {error:.4f} (upper half {late:+.4f} +-"
            f" {late_error:.4f}), predicted {value:+.4f}: off by {fit - value:+.4f}"
        )
    return found


def exponent_between(x: list[float], y: list[float]) -> float:
    """Slope between two points."""
    return math.log(y[1] / y[0]) / math.log(x[1] / x[0])


def family(a: float, b: float, batch: float, horizon: int) -> None:
    """Print how far the members of the degenerate family differ, against the rate."""
    print(f"\ndegenerate family of the optimal decay: a = {a:g}, b = {b:g}, m = {batch:g},", end="")
    print(f" T = {horizon}, N = 200; excess loss of each theta over that of theta = 0")
    print(f"{'eta_max':>8} {'peak':>7} {'0.25':>9} {'0.5':>9} {'0.75':>9} {'1':>9}  steps of 1")
    for cap in (0.05, 0.1, 0.2, 0.5, 1.0, 1.5):
        problem = Problem(a, b, horizon, batch_size=batch, features=200, eta_max=cap)
        schedule = solve(problem, gap=1e3).schedule
        members = degenerate_family(schedule, batch)
        assert problem.spectrum is not None
        losses = [replay(problem.spectrum, problem.dynamics, one).excess_loss for one in members]
        shares = [f"{100 * (loss / losses[0] - 1):+7.3f} %" for loss in losses[1:]]
        print(f"{cap:8g} {schedule.peak:7.3g} {' '.join(shares)} {members[-1].horizon:8d}")


def decay(a: float, b: float, rate: float, samples: float, steps: int) -> float:
    """Excess loss of the optimal rate decay at a constant batch."""
    problem = Problem(a, b, steps, batch_size=samples / steps, eta_max=rate, features=math.inf)
    return solve(problem, throw=False, gap=1e3, replay_steps=STEPS).excess_loss


def fewest(loss: Callable[[int], float], low: int, high: int, target: float) -> int:
    """Fewest steps, to 1 %, with a loss up to the target, which ``high`` reaches."""
    while high - low > 1 and high / low > 1.01:
        middle = round(math.sqrt(low * high))
        if loss(middle) <= target:
            high = middle
        else:
            low = middle
    return high


def steps_saved(a: float, b: float, rate: float, found: list[Ramp]) -> None:
    """Print the steps of a ramp and of rate decay at equal samples and equal loss."""
    print(
        f"\nsteps to come within 1 % of the loss at n*, a = {a:g}, b = {b:g}, rates up to {rate:g}"
    )
    print(
        f"{'D':>9} {'ramp':>9} {'decay':>9} {'at m =':>8} {'ratio':>6}"
        f" {'decay, m = 1':>13} {'ratio':>8} {'its loss over that of n*':>25}"
    )
    for one in found:
        target = 1.01 * one.loss
        n, D = round(one.steps), one.samples
        mine = fewest(lambda k: ramp(a, b, rate, D, k)[0], max(n // 3, 1), n, target)  # noqa: B023
        alone = decay(a, b, rate, D, int(D))
        theirs = int(D)
        if alone <= target:
            theirs = fewest(lambda k: decay(a, b, rate, D, k), max(n // 2, 1), int(D), target)  # noqa: B023
        note = "" if alone <= target else " (not reached)"
        print(
            f"{D:9.3g} {mine:9d} {theirs:9d} {D / theirs:8.3g} {theirs / mine:6.2f}"
            f" {int(D):13d} {D / mine:8.1f} {100 * (alone / one.loss - 1):+23.2f} %{note}",
            flush=True,
        )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=0.3, help="constant rate")
    parser.add_argument("--points", type=int, default=9, help="budgets from 10^3 to 10^7")
    args = parser.parse_args()
    budgets = [float(round(d)) for d in np.geomspace(1e3, 1e7, args.points)]
    for a, b in ((2.5, 1.5), (3.0, 2.0)):
        found = exponents(a, b, args.rate, budgets)
        steps_saved(a, b, args.rate, found[:: max(1, (args.points - 1) // 4)])
    family(2.5, 1.5, 64.0, 20_000)


if __name__ == "__main__":
    main()
