"""From the pilots' logs to the long run's schedule, by the commands that a user has."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.real_training.report import Prediction
from benchmarks.real_training.train import Recipe
from optsched import OptschedError, Schedule, cli
from optsched.pilot.laws.registry import DEFAULT

__all__ = [
    "Planned",
    "fit_law",
    "optimiser_options",
    "optsched",
    "plan_schedule",
    "predict_losses",
]


def optsched(*arguments: str | Path | float) -> dict[str, Any]:
    """Run ``optsched ... --json`` in this process; returns its JSON object.

    Raises
    ------
    OptschedError
        The command failed; the message is the one that it printed.
    """
    words = [str(argument) for argument in arguments]
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = cli.main([*words, "--json"])
    if code:
        raise OptschedError(f"optsched {words[0]}: {err.getvalue().removeprefix('optsched: ')}")
    return json.loads(out.getvalue())


def optimiser_options(recipe: Recipe) -> tuple[str | float, ...]:
    """What ``optsched fit`` is told of the optimiser, for the default law."""
    if recipe.optimizer == "sgd":
        return ("--optimizer", "sgd")  # whose decay within the gradient no law has
    return ("--optimizer", recipe.optimizer, "--weight-decay", recipe.weight_decay)


def fit_law(
    logs: Sequence[Path], warmup: int, path: Path, recipe: Recipe, law: str = DEFAULT
) -> dict[str, Any]:
    """Fit a law, by its name, to the logs and write it to ``path``."""
    known = optimiser_options(recipe) if law == DEFAULT else ()
    options = ("--warmup", warmup, "--law-name", law, *known, "--output", path, "--force")
    return optsched("fit", *logs, *options)


@dataclass(frozen=True)
class Planned:
    """A plan, and what the command said of it before anything was trained.

    Attributes
    ----------
    schedule : Schedule
    lower_bound : float
        Predicted loss that no schedule beats under the law; NaN where none is known.
    words : str
        What the schedule does.
    warnings : tuple of str
    """

    schedule: Schedule
    lower_bound: float
    words: str
    warnings: tuple[str, ...]


def plan_schedule(law: Path, horizon: int, peak: float, warmup: int, path: Path) -> Planned:
    """The schedule that the law likes best at a horizon and a peak, also written to ``path``."""
    options = ("--horizon", horizon, "--peak", peak, "--warmup", warmup, "--output", path)
    told = optsched("plan", "--law", law, *options, "--force")
    bound = told["lower_bound"]
    bound = math.nan if bound is None else bound
    return Planned(Schedule.load(path), bound, told["words"], tuple(told["warnings"]))


def predict_losses(
    law: Path, schedules: Mapping[str, Schedule], folder: Path
) -> dict[str, Prediction]:
    """Final losses of schedules by the law; the schedules are written to ``folder`` as csv."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.csv" for name in schedules}
    for name, schedule in schedules.items():
        schedule.save(paths[name], overwrite=True)
    told = optsched("predict", "--law", law, *paths.values())
    rows = {row["name"]: row for row in told["schedules"]}
    return {
        name: Prediction(*(rows[name][key] for key in ("loss", "lower", "upper", "error")))
        for name in schedules
    }
