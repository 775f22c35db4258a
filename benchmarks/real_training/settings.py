"""The settings that plans are judged in, each with another model, data or optimiser.

Budgets are minutes of one core of a small cloud machine for everything, planned runs included;
two cores take half of them.
"""

from __future__ import annotations

from benchmarks.real_training.network import Network
from benchmarks.real_training.protocol import Protocol
from benchmarks.real_training.train import Recipe
from benchmarks.real_training.transformer import Shape

__all__ = ["BUDGETS", "SETTINGS"]

FINAL = 8192  # validation blocks or images that final weights are evaluated on

SETTINGS: dict[str, Protocol] = {
    "text": Protocol(
        recipe=Recipe(every=100, blocks=512, final_blocks=FINAL),
        seeds=2,
        peaks=(4e-3, 8e-3, 16e-3, 32e-3),
        lower=0.5,
    ),
    "text-small": Protocol(
        recipe=Recipe(shape=Shape(width=16), every=100, blocks=512, final_blocks=FINAL),
        short=1500,
        warmup=100,
        seeds=2,
        peaks=(8e-3, 16e-3, 32e-3, 64e-3),
        lower=0.5,
    ),
    "images": Protocol(
        recipe=Recipe(
            shape=Network(),
            batch=16,
            optimizer="sgd",
            weight_decay=5e-4,
            every=100,
            blocks=1024,
            final_blocks=FINAL,
        ),
        short=1500,
        warmup=100,
        seeds=2,
        long_seeds=5,
        peaks=(0.003, 0.006, 0.0125, 0.025, 0.05),
        lower=0.5,
    ),
}

BUDGETS = {"text": 13, "text-small": 8, "images": 8}
