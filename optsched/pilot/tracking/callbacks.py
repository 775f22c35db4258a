"""Callbacks of trainers: one writes the log of a run, one says where the run is going.

Transformers and Lightning are imported when a callback is made.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from typing import Any

from optsched.checks import whole
from optsched.errors import BadLog
from optsched.pilot.fitting import Fit
from optsched.pilot.lawfile import load_fit
from optsched.pilot.tracking.runlog import RunLog
from optsched.pilot.tracking.track import Track, track
from optsched.schedules.schedule import Schedule

__all__ = [
    "lightning_forecast",
    "lightning_log",
    "trainer_forecast",
    "trainer_log",
]

PathLike = str | os.PathLike[str]
Report = Callable[[str], None]


def trainer_log(path: PathLike, *, overwrite: bool = False) -> Any:
    """Callback of a Hugging Face Trainer that writes what it logs, with the rates in force.

    The state of a Trainer is written with its checkpoints only; this log has every row at once.
    Rates are those of the last update, read from the optimizer before it steps.

    Parameters
    ----------
    path : path-like
        File of JSON lines, as ``"run/log.jsonl"``; a resumed run adds to it.
    overwrite : bool
        Whether a run that begins at step 0 may replace it.

    Returns
    -------
    transformers.TrainerCallback
    """
    from transformers import TrainerCallback

    log = RunLog(path, overwrite=overwrite)

    class Writer(TrainerCallback):
        rate: float | None = None

        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                log.begin(state.global_step)

        def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.rate = float(kwargs["optimizer"].param_groups[0]["lr"])

        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            logs = dict(kwargs.get("logs") or {})
            if not state.is_world_process_zero or not {"loss", "eval_loss"} & {*logs}:
                return
            kept = {name: v for name, v in logs.items() if isinstance(v, (int, float))}
            if "loss" in kept and self.rate is not None:
                kept["learning_rate"] = self.rate
            log.row(state.global_step, kept)

    return Writer()


def trainer_forecast(
    law: Fit | PathLike,
    log: PathLike,
    schedule: Schedule | None = None,
    *,
    every: int = 1000,
    report: Report | None = None,
    on_off_track: Callable[[Track], None] | None = None,
) -> Any:
    """Callback of a Hugging Face Trainer that says how the run goes, and where it will end.

    Parameters
    ----------
    law : Fit or path-like
        The law of the pilots, or its file.
    log : path-like
        The log that `trainer_log` writes; give that callback first.
    schedule : Schedule, optional
        Of the whole run.
    every : int
        Updates between two lines.
    report : callable, optional
        What is done with a line; written to the standard error if not given.
    on_off_track : callable, optional
        Called once, with the state, when the run is off track.

    Returns
    -------
    transformers.TrainerCallback
    """
    from transformers import TrainerCallback

    speaker = _Speaker(law, log, schedule, every, report, on_off_track)

    class Forecast(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero and "loss" in (kwargs.get("logs") or {}):
                speaker.at(state.global_step)

        def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.is_world_process_zero:
                speaker.at(state.global_step, last=True)

    return Forecast()


def lightning_log(path: PathLike, *, every: int = 50, overwrite: bool = False) -> Any:
    """Callback of Lightning that writes the mean training loss since the last row, and the rate.

    Parameters
    ----------
    path : path-like
        File of JSON lines; a resumed run adds to it.
    every : int
        Updates of a row.
    overwrite : bool
        Whether a run that begins at step 0 may replace it.

    Returns
    -------
    lightning.Callback
    """
    from lightning import Callback

    log, every = RunLog(path, overwrite=overwrite), whole("every", every, 1, 10**9)

    class Writer(Callback):
        rate: float | None = None
        losses: list[float]
        written = 0

        def on_train_start(self, trainer: Any, pl_module: Any) -> None:
            self.losses, self.written = [], trainer.global_step
            if trainer.is_global_zero:
                log.begin(trainer.global_step)

        def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
            self.rate = float(optimizer.param_groups[0]["lr"])

        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            loss = outputs["loss"] if isinstance(outputs, dict) else outputs
            if loss is not None:
                self.losses.append(float(loss) * trainer.accumulate_grad_batches)
            done = trainer.global_step
            if done < self.written + every or not self.losses or self.rate is None:
                return
            mean = math.fsum(self.losses) / len(self.losses)
            if trainer.is_global_zero:
                log.row(done, {"loss": mean, "learning_rate": self.rate})
            self.losses, self.written = [], done

        def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
            loss = trainer.callback_metrics.get("val_loss")
            if loss is not None and trainer.is_global_zero and not trainer.sanity_checking:
                log.row(trainer.global_step, {"val_loss": float(loss)})

    return Writer()


def lightning_forecast(
    law: Fit | PathLike,
    log: PathLike,
    schedule: Schedule | None = None,
    *,
    every: int = 1000,
    report: Report | None = None,
    on_off_track: Callable[[Track], None] | None = None,
) -> Any:
    """Callback of Lightning that says how the run goes; see `trainer_forecast`.

    ``log`` is what `lightning_log` writes; give that callback first.

    Returns
    -------
    lightning.Callback
    """
    from lightning import Callback

    speaker = _Speaker(law, log, schedule, every, report, on_off_track)

    class Forecast(Callback):
        def on_train_batch_end(
            self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
        ) -> None:
            if trainer.is_global_zero:
                speaker.at(trainer.global_step)

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            if trainer.is_global_zero:
                speaker.at(trainer.global_step, last=True)

    return Forecast()


class _Speaker:
    """Says the state of the run whose log is written, every so many updates."""

    def __init__(
        self,
        law: Fit | PathLike,
        log: PathLike,
        schedule: Schedule | None,
        every: int,
        report: Report | None,
        on_off_track: Callable[[Track], None] | None,
    ) -> None:
        self.found = law if isinstance(law, Fit) else load_fit(law)
        self.log, self.schedule = log, schedule
        self.every = whole("every", every, 1, 10**9)
        self.report = report or _to_stderr
        self.on_off_track = on_off_track
        self.said, self.called = -1, False

    def at(self, step: int, *, last: bool = False) -> None:
        """Say the state, if it is time to."""
        if step == self.said or not (last or step // self.every > max(self.said, 0) // self.every):
            return
        self.said = step
        try:
            one = track(self.found, self.log, self.schedule)
        except BadLog as error:  # too few rows: no reason to end a training run
            self.report(f"step {step:,}: no forecast yet: {error}")
            return
        self.report(one.line)
        if one.off_track and not self.called and self.on_off_track is not None:
            self.called = True
            self.on_off_track(one)


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")
