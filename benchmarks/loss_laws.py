"""How well laws predict held-out schedules: the protocol of the literature and all triples.

``python -m benchmarks.loss_laws [--laws fsl,features] [--data FOLDER] [--triples]``: fits to three
runs, predicts the others. ``--data`` holds a folder a model with the nine csv files; the default is
the public data of the tests.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from optsched.pilot import LAWS, Fit, Run, fit, predict, read_runs

DATA = Path(__file__).parents[1] / "tests" / "data" / "llm-loss-curves"
TRAIN = ("cosine_24000", "constant_24000", "wsdcon_9")
SHORT = (*TRAIN, "wsdcon_3", "wsdcon_18", "wsd_20000_24000", "wsdld_20000_24000")
WARMUP = 2160
LEAVES = {"wsdcon": 8000, "wsd": 20000, "wsdld": 20000}


def after(run: Run) -> np.ndarray:
    """Rows after a run leaves the prefix that it shares with others."""
    return run.steps >= LEAVES.get(run.name.split("_")[0], 0)


def errors(found: Fit, run: Run, rows: np.ndarray) -> tuple[float, float, float, float]:
    """Mean absolute error, R2, largest relative error, and final error over its half interval."""
    told = predict(found, run.schedule, run.steps)
    off = told.loss - run.loss
    kept = run.loss[rows]
    r2 = 1.0 - float((off[rows] ** 2).sum() / ((kept - kept.mean()) ** 2).sum())
    half = 0.5 * (told.upper[-1] - told.lower[-1])
    worst = float(np.abs(off[rows] / kept).max())
    return float(np.abs(off[rows]).mean()), r2, worst, float(off[-1] / half)


def protocol(runs: dict[str, Run], law: str) -> str:
    """Errors of the protocol of the literature."""
    began = time.process_time()
    found = fit([runs[name] for name in TRAIN], LAWS[law]())
    seconds = time.process_time() - began
    rows = [
        errors(found, run, np.ones(len(run.steps), bool))
        for name, run in runs.items()
        if name not in TRAIN
    ]
    mae, r2, worst, _ = np.mean(rows, axis=0)
    return f"MAE {1e3 * mae:5.2f}e-3  R2 {r2:.5f}  worst {100 * worst:.2f} %  ({seconds:.1f} s CPU)"


def triples(runs: dict[str, Run], law: str) -> str:
    """Errors over all choices of three short runs, where the others leave their shared prefix."""
    maes, scores, ranks = [], [], []
    for chosen in itertools.combinations([name for name in SHORT if name in runs], 3):
        found = fit([runs[name] for name in chosen], LAWS[law]())
        others = [run for name, run in runs.items() if name not in chosen]
        rows = [errors(found, run, after(run)) for run in others]
        maes.append(np.mean([row[0] for row in rows]))
        scores += [row[3] for row in rows]
        finals = [predict(found, run.schedule, run.steps[-1:]).loss[0] for run in others]
        ranks.append(spearmanr(finals, [run.loss[-1] for run in others])[0])
    inside = np.mean(np.abs(scores) <= 1.0)
    return (
        f"{len(maes)} triples: median MAE {1e3 * np.median(maes):.2f}e-3, mean"
        f" {1e3 * np.mean(maes):.2f}e-3, largest {1e3 * max(maes):.1f}e-3; 80 % intervals hold"
        f" {100 * inside:.0f} % of {len(scores)} final losses; rank correlation: median"
        f" {np.median(ranks):.3f}, least {min(ranks):.3f}"
    )


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--laws", default="fsl-norm")
    parser.add_argument("--triples", action="store_true")
    options = parser.parse_args()
    for folder in sorted(path for path in options.data.iterdir() if path.is_dir()):
        files = sorted(folder.glob("*.csv"))
        runs = {run.name: run for run in read_runs(files, warmup=WARMUP)}
        for law in options.laws.split(","):
            print(f"{folder.name:>5} {law:12} {protocol(runs, law)}", flush=True)
            if options.triples:
                print(f"{'':18} {triples(runs, law)}", flush=True)


if __name__ == "__main__":
    main()
