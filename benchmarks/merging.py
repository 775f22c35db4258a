"""Merged checkpoints of a held run against the decay that they stand for, replayed on the model.

``python -m benchmarks.merging [--horizons 2000,20000]``. Excess losses over that of the decay, a
linear cooldown over the last fifth, at the constant rate that is best with it on a grid of factors
of 1.5; ``bias`` is that of the merge with a checkpoint a step over that of the decay.
"""

from __future__ import annotations

import argparse

import numpy as np

from optsched import Problem, Schedule
from optsched.model.replay import Replay, replay
from optsched.schedules.exports.merging import merge_weights
from optsched.schedules.families import wsd

POINTS = ((2.5, 1.5), (3.5, 2.0), (2.0, 2.0), (3.5, 5.0))
CHECKPOINTS = (2, 5, 10, 20)


def played(problem: Problem, schedule: Schedule) -> Replay:
    dynamics = problem.replace(controls="eta,ema", ema=None).dynamics
    full = schedule if "ema" in schedule.controls else schedule.replace(ema=0.0)
    return replay(problem.spectrum, dynamics, full)


def best_decay(problem: Problem) -> Schedule:
    """The cooldown at the best rate."""
    peaks = 1.5 ** np.arange(-12.0, 1.0) * min(problem.eta_cap, problem.stability_limit / 1.5)
    runs = [wsd(problem.horizon, float(peak), cooldown=0.2) for peak in peaks]
    plain = problem.dynamics
    return min(runs, key=lambda one: replay(problem.spectrum, plain, one).excess_loss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--horizons", default="2000,20000")
    options = parser.parse_args()
    names = [*(f"{n}" for n in CHECKPOINTS), "every step"]
    print("a    b    steps  peak    " + "".join(f"{n:>11}" for n in ["held", *names, "bias"]))
    for a, b in POINTS:
        for horizon in map(int, options.horizons.split(",")):
            problem = Problem(a, b, horizon, features=200)
            decay = best_decay(problem)
            base = played(problem, decay)
            merged = [merge_weights(decay, checkpoints=n) for n in CHECKPOINTS]
            every = played(problem, merge_weights(decay, every=1).average)
            found = [played(problem, merged[0].held)]
            found += [played(problem, one.average) for one in merged] + [every]
            ratios = [one.excess_loss / base.excess_loss for one in found]
            ratios.append(every.bias / base.bias)
            row = "".join(f"{x:11.3f}" for x in ratios)
            print(f"{a:<4} {b:<4} {horizon:<6} {decay.peak:<8.4f}{row}", flush=True)


if __name__ == "__main__":
    main()
