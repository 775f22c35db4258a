"""The words of the command line: one for each thing in all commands, and what they were before.

- ``--peak``: the largest rate of a schedule; ``--floor``: the least; ``--lr``: one rate by itself;
- ``--optimiser``: the rule of the update; ``--momentum``: the value of its beta;
- ``--horizon``: steps of a run; ``--batch``: examples (or tokens) of an update;
- ``--from-X``, ``--to-X``: X of the run that was tuned, and of the one to come; ``--from-step``: a
  step to go on from;
- ``--law``: the file of a fitted law; ``--law-name``: which law to fit;
- ``--output``, ``--plot``, ``--points``, ``--json``, ``--force``: what is written and shown.
"""

from __future__ import annotations

from collections.abc import Iterator

from optsched.optimisers.registry import MOMENTA

__all__ = ["THEMES", "old_values", "old_words", "theme_of"]

# Headings of the help, in their order, with the options below each.
THEMES = {
    "The problem": (
        "a b horizon horizons budget budgets features features-total batch noise samples sharpness"
        " sharpness-error trace kernel eigenvalues modes center kind regime from-tokens to-tokens"
        " from-horizon to-horizon until-loss tokens from-batch to-batch small-batch big-batch size"
    ),
    "Rates": "peak peaks floor warmup max-change lr edge margin cooldown",
    "Optimiser": "optimiser momentum nu ema weight-decay uncoupled-decay init-std convention",
    "What is scheduled": (
        "control objective cost latency sample-cost divisors batch-ramp batch-sizes critical-batch"
        " schedule families lengths shapes count expected-loss"
    ),
    "Average": "decay half-life time-constant window for-decay at-step",
    "Noise": "levels sigma-min sigma-max rho form weighting",
    "Method": (
        "method tol knots smooth judge peak-only skip law law-name level robust shape extrapolate"
        " held-out"
    ),
    "The run so far": "from-step history history-warmup rewarm follow false-alarm",
    "Log": (
        "columns unit per-update steps-per-epoch loss rates rate-of repeats seeds log-format rows"
    ),
    "Format": "format momentum-as every checkpoints",
    "Precision": "dtype weight-rms update-rms update lost rate gradient-max",
    "Where it runs": "workers dask shard retry-failed",
    "Output": "output points plot report json force quiet",
}

# Earlier spellings, which all still work: of every command that has the word, and of one command.
_OLD = {
    "--peak": "--eta-max",
    "--floor": "--eta-min",
    "--batch": "--batch-size",
    "--momentum": "--beta",
    "--per-update": "--per-step",
    "--from-horizon": "--from-steps",
    "--to-horizon": "--to-steps",
}
_OLD_OF = {
    "dashboard": {"--rows": "--window"},
    "export": {"--momentum-as": "--momentum"},
    "fit": {"--optimiser": "--optimizer", "--law-name": "--law"},
    "spectrum": {"--modes": "--window"},
    "batch": {"--to-batch": "--batch"},
    "ema": {"--to-batch": "--batch", "--at-step": "--steps"},
    "noise-scale": {"--small-batch": "--small", "--big-batch": "--big"},
    "stability": {"--sharpness-error": "--error"},
    "diffusion": {"--schedule": "--kind", "--levels": "--steps", "--weighting": "--loss"},
}


def theme_of(word: str) -> str | None:
    """The heading that an option, ``--word``, stands below."""
    for heading, words in THEMES.items():
        if word.lstrip("-") in words.split():
            return heading
    return None


def old_words(command: str, words: set[str]) -> Iterator[tuple[str, str]]:
    """Earlier spellings of the options of a command, each with the word of today."""
    for word, old in (_OLD | _OLD_OF.get(command, {})).items():
        if word in words and old not in words:
            yield old, word


def old_values(words: set[str]) -> Iterator[tuple[str, str, str]]:
    """Earlier option, its value, and the option of today that takes that value."""
    if {"--momentum", "--optimiser"} <= words:
        # Values that an option took which is now two.
        for kind in MOMENTA:
            yield "--momentum", kind, "--optimiser"
