"""Does one more parameter carry the default law to other peaks? Three that physics suggests.

``forget``: progress of the bias is forgotten with the decay of the weights, dT/dk = c(x) - f 2
Lambda eta T. ``rough``: noise that steps at high rates leave for good, a mean of x^3 along the run.
``coupled``: noise in proportion to what is not learnt yet, B u (1 + f A T^-s).

``python -m benchmarks.loss_laws.extensions --data FOLDER``: final errors on a part of the splits of
the model with the most runs (`benchmarks.loss_laws.splits`), beside the law without them. The
weight decay is taken to be .1.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from benchmarks.loss_laws.splits import Model, Split, choices, models, splits
from optsched.arrays import Floats
from optsched.logs.run import Run
from optsched.pilot import Fit, fit, predict
from optsched.pilot.laws import NormLaw, Prior
from optsched.pilot.laws.law import Law
from optsched.pilot.laws.tails import power_tail
from optsched.pilot.pieces import Pieces, Scale

__all__ = ["EXTRA", "Extended"]

EXTRA = {
    "none": Prior(0.0, 0.0),
    "forget": Prior(0.03, 0.03),
    "rough": Prior(0.0, 0.01),
    "coupled": Prior(0.0, 1.0),
}
COUNTS = {"between": 6, "far between": 4, "up": 8, "same": 8}  # splits of every kind
TARGETS = 12
NODES = np.array([1.0, 4.0, 1.0])[:, None] / 6.0


@dataclass(frozen=True)
class Extended(NormLaw):
    """The default law with one of `EXTRA`; derivatives by differences."""

    kind: str = "none"

    parameters: ClassVar[tuple[str, ...]] = (*NormLaw.parameters, "extra")
    low: ClassVar[Floats] = np.append(NormLaw.low, 0.0)
    high: ClassVar[Floats] = np.append(NormLaw.high, 20.0)

    def for_runs(self, scale: Scale, losses: Sequence[float]) -> NormLaw:
        law = super().for_runs(scale, losses)
        return replace(law, priors={**law.priors, "extra": EXTRA[self.kind]})

    def starts(self) -> list[Floats]:
        return [np.append(one[:-1], EXTRA[self.kind].mean) for one in super().starts()]

    def jacobian(self, theta: Floats, pieces: Pieces) -> tuple[Floats, Floats]:
        return Law.jacobian(self, theta, pieces)

    def curve(self, theta: Floats, pieces: Pieces) -> Floats:
        p, extra = NormLaw().named(theta[:-1]), float(theta[-1])
        pieces = pieces.fine
        path = NormLaw(coupled=self.coupled).path(theta[:-1], pieces)
        seen, length = pieces.observed, pieces.length
        x = np.exp(path.log_x)
        ticks = (NODES * np.exp(p.clock * path.log_tick)).sum(0) * length
        clock = np.append(0.0, np.cumsum(ticks))
        known = clock
        if self.kind == "forget":
            share = extra * 2.0 * p.decay * pieces.rate[1] * length
            kept, known = np.exp(-share), np.zeros(len(clock))
            for i, tick in enumerate(ticks):
                known[i + 1] = known[i] * kept[i] + tick * (1.0 + kept[i]) / 2.0
        tail = power_tail(p.speed * np.maximum(clock[seen][:, None] - clock, 0.0), p.q)[0]
        noise = p.noise * (np.diff(tail) @ (NODES * x**p.amplitude).sum(0))
        bias = p.bias * np.maximum(known[seen] + p.offset, 1e-3 * pieces.first) ** -p.s
        if self.kind == "coupled":
            noise = noise * (1.0 + extra * bias)
        if self.kind == "rough":
            rough = np.append(0.0, np.cumsum((NODES * x**3).sum(0) * length))[seen]
            noise = noise + extra * rough / clock[seen]
        return p.level + bias + noise


def chosen_splits(model: Model) -> list[Split]:
    """Some of the splits of every kind, spread over all."""
    out: list[Split] = []
    for kind, count in COUNTS.items():
        found = [one for one in splits(model) if one.kind == kind]
        keep = np.unique(np.linspace(0, len(found) - 1, count).astype(int)) if found else []
        out += [found[i] for i in keep]
    return out


def last_error(found: Fit, run: Run) -> float:
    """Predicted minus measured last loss."""
    return float(predict(found, run.schedule, run.steps[-1:]).loss[-1] - run.loss[-1])


def judged(model: Model, kind: str) -> str:
    """A row of the table."""
    errors: dict[str, list[float]] = {name: [] for name in COUNTS}
    regrets = []
    for split in chosen_splits(model):
        found = fit(split.pilots, Extended(weight_decay=0.1, kind=kind), members=0)
        few = min(TARGETS, len(split.targets))
        for i in np.linspace(0, len(split.targets) - 1, few).astype(int):
            errors[split.kind].append(last_error(found, split.targets[i]))
        for runs in choices(model)[:3]:
            true = np.array([run.loss[-1] for run in runs])
            said = true + np.array([last_error(found, run) for run in runs])
            regrets.append(float(true[int(np.argmin(said))] - true.min()))
    cells = [
        f"{1e3 * np.mean(np.abs(one)):.1f} ({1e3 * np.mean(one):+.1f})" if one else ""
        for one in errors.values()
    ]
    regret = f"{1e3 * np.mean(regrets):.1f}" if regrets else ""
    return f"| {kind} | {' | '.join(cells)} | {regret} |"


def main() -> None:
    """Print a table of mean absolute final errors, with their means, in 1e-3 nats."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--kinds", default=",".join(EXTRA))
    options = parser.parse_args()
    model = max(models(options.data), key=lambda one: len(one.runs))
    print(f"| {model.name} | {' | '.join(COUNTS)} | regret of the peak |")
    print("|---|---|---|---|---|---|")
    for kind in options.kinds.split(","):
        print(judged(model, kind), flush=True)


if __name__ == "__main__":
    main()
