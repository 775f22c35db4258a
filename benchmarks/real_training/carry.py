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
from optsched import OptschedError, Schedule, cli

__all__ = ["Planned", "fit_law", "optsched", "plan_schedule", "predict_losses"]


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


def fit_law(
    logs: Sequence[Path],
    warmup: int,
    path: Path,
    law: str | None = None,
    options: Sequence[str | float] = (),
) -> dict[str, Any]:
    """Fit a law, by its name or the default one, to the logs and write it to ``path``."""
    chosen = () if law is None else ("--law", law)
    return optsched(
        "fit", *logs, "--warmup", warmup, *chosen, *options, "--output", path, "--force"
    )


@dataclass(frozen=True)
class Planned:
    """A plan, and what the command said of it before anything was trained.

    Attributes
    ----------
    schedule : Schedule
    lower_bound : float
        Predicted loss that no schedule beats under the law; NaN where none is known.
    warnings : tuple of str
    """

    schedule: Schedule
    lower_bound: float
    warnings: tuple[str, ...]


def plan_schedule(law: Path, horizon: int, peak: float, warmup: int, path: Path) -> Planned:
    """The schedule that the law likes best at a horizon and a peak, also written to ``path``."""
    options = ("--horizon", horizon, "--peak", peak, "--warmup", warmup, "--output", path)
    told = optsched("plan", "--law", law, *options, "--force")
    bound = told["lower_bound"]
    return Planned(
        Schedule.load(path), math.nan if bound is None else bound, tuple(told["warnings"])
    )


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
