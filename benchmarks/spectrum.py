"""Measured exponents against known ones: ``python -m benchmarks.spectrum``.

Bias, standard deviation and coverage over synthetic power-law features, by (a, b, noise, p); then
random ReLU features of scikit-learn's digits, if that is installed. ``--sets`` draws for each row:
33 rows are 630 sets, about 10 minutes on one core. ``--plot FILE`` for the figure of the docs.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
from pathlib import Path

import numpy as np

from optsched.measure.exponents import measure_features

SAMPLES = 2000
CASES = [
    *itertools.product((1.3, 2.0, 2.8, 3.5), (1.2, 2.0, 3.0), (0.0, 0.5), (500,)),
    (1.5, 1.5, 0.2, 1000),
    (2.5, 3.0, 0.2, 1000),
    (1.3, 1.2, 0.5, 2000),
    (2.0, 2.0, 0.1, 2000),
]


def draw(
    a: float, b: float, noise: float, p: int, seed: int, gaussian: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian features with the law of the model, and targets."""
    rng = np.random.default_rng([seed, p, *(round(100 * x) for x in (a, b, noise))])
    k = np.arange(1.0, p + 1.0)
    features = rng.standard_normal((SAMPLES, p)) * k ** (-b / 2)
    w = k ** ((b - a) / 2) * (rng.standard_normal(p) if gaussian else rng.choice([-1.0, 1.0], p))
    return features, features @ w + noise * rng.standard_normal(SAMPLES)


def limit(a: float, noise: float, p: int) -> float:
    """Cramer-Rao bound of a's error, were eigenvectors, signs and the noise's size known."""
    if noise == 0.0:
        return 0.0
    k = np.arange(1.0, p + 1.0)
    weight = k**-a
    logs = np.log(k) - weight @ np.log(k) / weight.sum()
    return 2.0 * noise / np.sqrt(SAMPLES * (weight @ logs**2))


def synthetic(sets: int, gaussian: bool) -> None:
    kind = "Gaussian" if gaussian else "exact"
    print(f"{kind} coefficients, n = {SAMPLES}, {sets} sets a row (a quarter at p = 2000)")
    print(
        "    a    b  sigma     p |  b: bias     sd  stated |  a: bias     sd  stated  within 0.05"
    )
    scores = {"a": [], "b": []}
    for a, b, noise, p in CASES if not gaussian else CASES[3::5]:
        fits = [
            measure_features(*draw(a, b, noise, p, seed, gaussian))
            for seed in range(sets if p < 2000 else max(2, sets // 4))
        ]
        cells = []
        for name, truth in (("b", b), ("a", a)):
            value = np.array([getattr(fit, name) for fit in fits])
            error = np.array([getattr(fit, f"{name}_stderr") for fit in fits])
            scores[name].extend((value - truth) / error)
            cells.append(f"{value.mean() - truth:+9.4f} {value.std():6.4f} {np.median(error):7.4f}")
        near = np.mean([abs(fit.a - a) <= 0.05 for fit in fits])
        best = limit(a, noise, p)
        row = f"{a:5} {b:4} {noise:6} {p:5} | {cells[0]} | {cells[1]} {best:7.4f} {near:7.0%}"
        print(row, flush=True)
    print("limit: of the error of a, were all else known; within: sets with a within 0.05")
    for name, z in scores.items():
        size = np.abs(z)
        error = np.sqrt(0.68 * 0.32 / len(size))
        print(
            f"{name}: {len(size)} sets; truth within 1 standard error {np.mean(size < 1):.1%}"
            f" (+- {error:.1%}; nominal 68.3 %), within 1.96 {np.mean(size < 1.96):.1%} (95 %)"
        )


def real() -> None:
    """Random ReLU features of the digits, the samples all and a random half of them."""
    if importlib.util.find_spec("sklearn") is None:
        print("scikit-learn is not installed: no digits")
        return
    from benchmarks.real_training.digits import digits_kernel

    print("\nrandom ReLU features of the digits, target: even or odd")
    print("width  seed     n   window      a               b          noise  resolved  warnings")
    for width, seed in itertools.product((256, 512, 1000), (0, 1)):
        kernel = digits_kernel(width, seed)
        order = np.random.default_rng(seed).permutation(len(kernel.labels))
        for part in (order, order[: len(order) // 2]):
            fit = measure_features(kernel.features[part], kernel.labels[part])
            window = f"{fit.window[0]}-{fit.window[1]}"
            exponents = f"{fit.a:.3f}({fit.a_stderr:.3f})  {fit.b:.3f}({fit.b_stderr:.3f})"
            print(
                f"{width:5} {seed:5}  {len(part):4}  {window:>7}  {exponents}  {fit.noise:.3f}"
                f" {fit.resolved:7}   {'; '.join(fit.warnings)}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sets", type=int, default=20)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--only", choices=("synthetic", "gaussian", "real", "plot"))
    options = parser.parse_args()
    if options.only in (None, "synthetic"):
        synthetic(options.sets, gaussian=False)
    if options.only in (None, "gaussian"):
        synthetic(options.sets, gaussian=True)
    if options.only in (None, "real"):
        real()
    if options.plot:
        from optsched.plots.measured import plot_measured

        figure = plot_measured(measure_features(*draw(2.0, 1.5, 0.3, 500, 0)))
        figure.savefig(options.plot, dpi=150)


if __name__ == "__main__":
    main()
