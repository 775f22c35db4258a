"""How well laws predict runs that they have not seen: final losses, intervals, order, choices.

``python -m benchmarks.loss_laws [--data FOLDER ...] [--laws fsl-norm,fsl] [--priors]``: every
folder of csv files is a model; by rule (`benchmarks.loss_laws.splits`) two or three short runs are
pilots, and longer ones, other shapes and other peaks are predicted. ``--priors`` also judges the
default law with the means of its priors from the other models alone.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from benchmarks.loss_laws.peaks import choices_of, peak_lines
from benchmarks.loss_laws.priors import law_without, learnt
from benchmarks.loss_laws.splits import Model, models, splits
from optsched.logs import Run
from optsched.pilot import LAWS, Fit, fit, predict
from optsched.pilot.laws import Law

DATA = Path(__file__).parents[2] / "tests" / "data"
APART = 3e-3  # nats: final losses whose order counts
MEMBERS = 24
KINDS = ("protocol", "same", "longer", "up", "down", "between", "far between")
HEAD = (
    "| model | law | kind | finals | mean | median | bias | coverage | half width | order"
    " | regret | MAE |\n|---|---|---|---|---|---|---|---|---|---|---|---|"
)


@dataclass
class Score:
    """Errors of one law on the splits of one kind of one model, in nats."""

    final: list[float] = field(default_factory=list)
    half: list[float] = field(default_factory=list)
    inside: list[bool] = field(default_factory=list)
    order: list[bool] = field(default_factory=list)
    regret: list[float] = field(default_factory=list)
    along: list[float] = field(default_factory=list)

    def add(self, found: Fit, targets: Sequence[Run], *, whole: bool) -> None:
        """Predict the runs; ``whole``: at all their rows, else at the last."""
        told, true = [], np.array([run.loss[-1] for run in targets])
        for run in targets:
            curve = predict(found, run.schedule, run.steps if whole else run.steps[-1:])
            off = curve.loss - (run.loss if whole else run.loss[-1])
            told.append(curve.loss[-1])
            self.final.append(float(off[-1]))
            self.half.append(float(curve.upper[-1] - curve.loss[-1]))
            self.inside.append(bool(curve.lower[-1] <= run.loss[-1] <= curve.upper[-1]))
            if whole:
                self.along.append(float(np.abs(off).mean()))
        said = np.array(told)
        i, j = np.triu_indices(len(true), 1)
        far = np.abs(true[i] - true[j]) > APART
        self.order += (((said[i] - said[j]) * (true[i] - true[j])) > 0.0)[far].tolist()
        longest = max(int(run.steps[-1]) for run in targets)
        ends = [k for k, run in enumerate(targets) if run.steps[-1] >= 0.95 * longest]
        if len(ends) > 2:
            self.regret.append(float(true[ends][np.argmin(said[ends])] - true[ends].min()))

    def row(self) -> str:
        """Cells of the table, in 1e-3 nats."""

        def cell(values: list[float], mean: Callable[..., object] = np.mean) -> str:
            return f"{1e3 * float(mean(values)):.2f}" if values else ""  # type: ignore[arg-type]

        size = np.abs(self.final).tolist()
        share = f"{100 * np.mean(self.inside):.0f} %"
        order = f"{100 * np.mean(self.order):.0f} %" if self.order else ""
        sizes = [cell(size), cell(size, np.median), cell(self.final)]
        rest = [cell(self.half, np.median), order, cell(self.regret), cell(self.along)]
        return " | ".join([str(len(size)), *sizes, share, *rest])


def judged(model: Model, law: Callable[[], Law]) -> tuple[dict[str, Score], list[str]]:
    """Scores by kind, and lines about first halves and the choice of the peak."""
    scores: dict[str, Score] = {}
    fitted: dict[tuple[str, ...], Fit] = {}
    for split in splits(model):
        key = tuple(run.name for run in split.pilots)
        if key not in fitted:
            fitted[key] = fit(split.pilots, law(), members=MEMBERS)
        score = scores.setdefault(split.kind, Score())
        score.add(fitted[key], split.targets, whole=split.kind == "protocol")
    slips = sum(found.slip > 0.0 for found in fitted.values())
    told = f"first halves do not tell the ends of {slips} of {len(fitted)} sets of pilots"
    return scores, [told, *peak_lines(choices_of(model, fitted.values()))]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, action="append", default=[])
    parser.add_argument("--laws", default="fsl-norm")
    parser.add_argument("--priors", action="store_true")
    parser.add_argument("--models", default="", help="names, with commas; all if not given")
    options = parser.parse_args()
    found = [model for folder in options.data or [DATA] for model in models(folder)]
    laws: dict[str, Callable[[str], Callable[[], Law]]] = {
        name: (lambda model, name=name: LAWS[name]) for name in options.laws.split(",")
    }
    if options.priors:
        means = learnt(found)
        for name, values in means.items():
            print(name, " ".join(f"{key} {value:.3f}" for key, value in values.items()))
        laws["others' priors"] = lambda model: lambda: law_without(model, means)
    print(HEAD)
    notes = []
    for model in found:
        if options.models and model.name not in options.models.split(","):
            continue
        for name, make in laws.items():
            began = time.process_time()
            scores, lines = judged(model, make(model.name))
            for kind in KINDS:
                if kind in scores:
                    print(f"| {model.name} | {name} | {kind} | {scores[kind].row()} |", flush=True)
            seconds = time.process_time() - began
            notes += [f"{model.name}, {name}: {line}" for line in lines]
            notes.append(f"{model.name}, {name}: {seconds:.0f} s of CPU")
    print("\nin 1e-3 nats", *notes, sep="\n")


if __name__ == "__main__":
    main()
