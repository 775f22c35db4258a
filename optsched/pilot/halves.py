"""Whether the first halves of runs tell their ends: what a law is for, tried where it can be.

A law that describes all rows of its runs may still be of no use beyond them: small models learn
late what nothing in their first steps shows. The law is fitted again to the rows in the first half
of the longest run, and asked for the ends; what it errs by, it may err by in every doubling of the
steps that follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from optsched.arrays import Floats
from optsched.logs.run import Run
from optsched.pilot.laws import Law
from optsched.pilot.pieces import cut
from optsched.pilot.search import ROWS, Data, ensemble, fit_one, scale_of

__all__ = ["FIRST_HALF", "NO_SLIP", "Slip", "slip"]

FIRST_HALF = "From the first half of the steps"  # how the warning begins that predictions repeat
HALF = 0.5
LEAST_ROWS = 4  # of a first half
AHEAD = 1.5  # times the last step that is seen: an end that is predicted
LAST = 8  # one row in so many, five at most, are the end of a run
NOTICED = 0.01  # relative; the public models are within .5 % but for guesses of a first decay
FLOOR = 5e-3  # relative: what an end counts as uncertain by at least
SURE = 2.0  # standard errors
MEMBERS = 24


@dataclass(frozen=True)
class Slip:
    """Error of the ends of runs, predicted from their first halves.

    Attributes
    ----------
    mean, error : float
        Relative, predicted over measured minus 1, in a doubling of the steps, with its standard
        error; NaN where no run has two halves with rows.
    """

    mean: float
    error: float

    @property
    def size(self) -> float:
        """Size of the error where it is more than usual and more than its own, else 0."""
        seen = abs(self.mean) > max(NOTICED, SURE * self.error)
        return abs(self.mean) if seen else 0.0

    @property
    def warnings(self) -> tuple[str, ...]:
        """What is said of it, where there is something to say."""
        if not self.size:
            return ()
        more = "less" if self.mean > 0.0 else "more"
        return (
            f"{FIRST_HALF} the law predicts the ends of these runs"
            f" {100 * self.size:.1f} % too {'high' if self.mean > 0.0 else 'low'}: what is learnt"
            " late is not what the early steps show. Longer runs may end that much"
            f" {more} than predicted for every doubling, and which schedule is best is not known."
            " Take longer pilots.",
        )


NO_SLIP = Slip(math.nan, math.nan)


def slip(runs: Sequence[Run], law: Law) -> Slip:
    """Predict the ends of runs from their first halves.

    Parameters
    ----------
    runs : sequence of Run
        Rows as a fit uses them.
    law : Law
        Before it has been given the units of the runs.
    """
    half = HALF * max(int(run.steps[-1]) for run in runs)
    seen = [run for run in runs if (run.steps <= half).sum() >= LEAST_ROWS]
    parts = [(run, _until(run, half)) for run in seen]
    ends = [(run, part) for run, part in parts if run.steps[-1] >= AHEAD * part.steps[-1]]
    if not ends:
        return NO_SLIP
    early = [part.thin(ROWS, "equal") for _, part in parts]
    scale = scale_of(early, [part for _, part in parts])
    finals = [float(part.loss[-1]) for _, part in parts]
    data = [Data(cut(part.schedule, part.steps, scale), part.loss) for part in early]
    found = fit_one(law.for_runs(scale, finals), data)
    draws = ensemble(found, max(finals), MEMBERS, np.random.default_rng(0))
    means, variances = [], []
    for run, part in ends:
        rows = min(5, max(1, len(run.steps) // LAST))
        at, loss = run.steps[-rows:], run.loss[-rows:]
        pieces = cut(run.schedule, at, scale)

        def off(theta: Floats, pieces=pieces, loss=loss) -> float:
            told = np.maximum(found.law.curve(theta, pieces), 1e-3 * loss)
            return float(np.mean(np.log(told / loss)))

        doublings = math.log2(at[-1] / part.steps[-1])
        means.append(off(found.theta) / doublings)
        spread = float(np.std([off(theta) for theta in draws], ddof=1))
        noise = run.noise / float(np.median(run.loss)) if len(run.steps) > 2 else 0.0
        variances.append((spread**2 + FLOOR**2 + noise**2 / rows) / doublings**2)
    weights = 1.0 / np.array(variances)
    mean = float(weights @ np.array(means) / weights.sum())
    return Slip(mean, float(weights.sum() ** -0.5))


def _until(run: Run, last: float) -> Run:
    keep = run.steps <= last
    return replace(run, steps=run.steps[keep], loss=run.loss[keep])
