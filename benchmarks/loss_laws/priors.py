"""Priors of the default law from models that are not the one that is judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from benchmarks.loss_laws.splits import Model, peaks
from optsched.pilot import Prior, fit
from optsched.pilot.laws import NormLaw
from optsched.pilot.laws.norm import PRIORS

__all__ = ["Learnt", "law_without", "learnt"]

WIDE = 3.0  # times the spread of a prior, where its mean is learnt
Learnt = dict[str, dict[str, float]]


def learnt(models: Sequence[Model]) -> Learnt:
    """Exponents of every model: means over its peaks, of fits to all runs of a peak."""
    wide = {name: replace(prior, spread=WIDE * prior.spread) for name, prior in PRIORS.items()}
    out: Learnt = {}
    for model in models:
        rows = []
        for _, runs in peaks(model):
            # Runs that share most of their rows say the same again and again.
            few = [runs[i] for i in np.unique(np.linspace(0, len(runs) - 1, 8).astype(int))]
            found = fit(few, NormLaw(wide), members=0)
            rows.append([found.parameters[name][0] for name in PRIORS])
        out[model.name] = dict(zip(PRIORS, np.mean(rows, axis=0).tolist(), strict=True))
    return out


def law_without(model: str, found: Learnt) -> NormLaw:
    """The law with means of the priors from the other models."""
    others = [values for name, values in found.items() if name != model]
    priors = {
        name: Prior(float(np.mean([values[name] for values in others])), prior.spread)
        for name, prior in PRIORS.items()
    }
    return NormLaw(priors)
