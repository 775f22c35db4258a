"""The choice of the peak: what it loses, and what is added to predictions above the pilots.

Runs that differ in nothing but their peak are a choice; the peak of the least predicted loss is
taken, with a share of the loss added for every factor of e above the pilots. That share is chosen
for the pilots of every peak from those of the other peaks alone, beside the one that `plan` has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from benchmarks.loss_laws.splits import SAME, Model, choices
from optsched.pilot import Fit, predict
from optsched.pilot.planning.peaks import OPTIMISM

__all__ = ["SHARES", "Choice", "choices_of", "left_out", "peak_lines"]

SHARES = 0.0, 2e-3, 4e-3, 6e-3, 8e-3, 1e-2, 1.5e-2, 2e-2


@dataclass(frozen=True, eq=False)
class Choice:
    """Predicted and measured losses of runs that differ in their peak.

    Attributes
    ----------
    pilots : float
        Highest peak of the pilots.
    peaks, told, upper, true : numpy.ndarray, shape (n,)
        Peaks, predicted losses, upper ends of the intervals, and measured losses.
    """

    pilots: float
    peaks: np.ndarray
    told: np.ndarray
    upper: np.ndarray
    true: np.ndarray

    def regret(self, share: float = 0.0, *, upper: bool = False) -> float:
        """What the chosen peak loses against the best of them, in nats."""
        above = np.log(np.maximum(self.peaks / self.pilots, 1.0))
        above[self.peaks <= self.pilots * (1.0 + SAME)] = 0.0
        said = (self.upper if upper else self.told) * (1.0 + share * above)
        return float(self.true[int(np.argmin(said))] - self.true.min())


def choices_of(model: Model, fits: Iterable[Fit]) -> list[Choice]:
    """All choices that every fit could make."""
    sets, out = choices(model), []
    for found in fits if sets else ():
        for runs in sets:
            curves = [predict(found, run.schedule, run.steps[-1:]) for run in runs]
            out.append(
                Choice(
                    found.peaks[1],
                    np.array([run.schedule.peak for run in runs]),
                    np.array([curve.loss[-1] for curve in curves]),
                    np.array([curve.upper[-1] for curve in curves]),
                    np.array([run.loss[-1] for run in runs]),
                )
            )
    return out


def left_out(found: Iterable[Choice]) -> tuple[dict[float, float], list[float]]:
    """For the pilots of every peak the best share by the others, and the regrets with it."""
    found = list(found)
    groups = sorted({round(one.pilots, 9) for one in found})
    shares: dict[float, float] = {}
    regrets: list[float] = []
    for group in groups if len(groups) > 1 else ():
        inside = [one for one in found if round(one.pilots, 9) == group]
        others = [one for one in found if round(one.pilots, 9) != group]
        means = [np.mean([one.regret(share) for one in others]) for share in SHARES]
        shares[group] = SHARES[int(np.argmin(means))]
        regrets += [one.regret(shares[group]) for one in inside]
    return shares, regrets


def peak_lines(found: list[Choice]) -> list[str]:
    """What choices lose, in 1e-3 nats, in words."""
    if not found:
        return []
    out = []
    rules = {
        "loss": [one.regret() for one in found],
        "upper end": [one.regret(upper=True) for one in found],
        f"loss, {100 * OPTIMISM:g} % added for a factor of e above the pilots as plan does": [
            one.regret(OPTIMISM) for one in found
        ],
    }
    shares, regrets = left_out(found)
    if shares:
        chosen = ", ".join(f"{100 * s:g} % at {peak:g}" for peak, s in shares.items())
        rules[f"loss, with what the pilots of other peaks say should be added ({chosen})"] = regrets
    count = len(found[0].peaks)
    for name, values in rules.items():
        out.append(
            f"choice of the peak among {count} by the {name}: regret"
            f" {1e3 * np.mean(values):.2f} mean, {1e3 * np.max(values):.1f} largest"
            f" of {len(values)}"
        )
    above: dict[float, list[float]] = {}
    for one in found:
        for peak, gap in zip(one.peaks, one.told - one.true, strict=True):
            if peak > one.pilots * (1.0 + SAME):
                above.setdefault(round(float(peak), 9), []).append(float(gap))
    return out + [
        f"predicted minus measured, peak {peak:g} above the pilots: {1e3 * np.mean(gaps):+.1f}"
        for peak, gaps in sorted(above.items())
    ]
